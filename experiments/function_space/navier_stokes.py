"""Two-dimensional flows under random forces: which noise suits which roughness.

    python navier_stokes.py [--only 'smooth/white;rough/matern']

A flow at rest is driven for a while by a steady random force. The law of its vorticity is learned
on 32 x 32 points with noise of five kinds, and drawn at 1, 2 and 4 times as many along each axis.
"""

import argparse
import math
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("NPROC", "8")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from record import merge
from scipy.spatial.distance import cdist
from scipy.special import j0

from dasim.fields import Grid, Matern, noise_process, resample
from dasim.functions import FunctionSpec, OperatorSpec, train_function_prior
from dasim.models import KolmogorovFlow
from dasim.priors import on_grid, sample
from dasim.priors.train import FitSettings
from dasim.transitions import ModelTransition

BOX = (2 * math.pi, 2 * math.pi)
TRAINED, SIMULATED, FINEST = 32, 64, 128
FORCES = {  # length and smoothness of the force, and the Reynolds number
    "smooth": (Matern(0.8, 3.0), 100.0),
    "rough": (Matern(0.8, 0.5), 1000.0),
}
FORCE, TIME, DT = 0.5, 4.0, {64: 0.04, 128: 0.02}
FIELDS, HELD_OUT, FINE = 4096, 1024, 512
REFERENCE = 4096  # more fields, for the spectrum of the truth on all grids: to 1.5 %
KNOWN = {"law": {"kind": "measured"}, "gains": True, "balanced": True, "whitened": True}
NOISES = {
    "white, network alone": {"noise": {"kind": "white"}},
    "white": {"noise": {"kind": "white"}, **KNOWN},
    "squared exponential": {"noise": {"kind": "squared-exponential", "length": 0.5}, **KNOWN},
    "matern": {"noise": {"kind": "matern", "length": 0.8, "smoothness": 1.5}, **KNOWN},
    "measured": {"noise": {"kind": "measured"}, **KNOWN, "law": None},
}
FIT = FitSettings(2000, 32, 3e-3, check=250)
DRAWS, FINER = 1024, 512  # on the grid of the training, and on finer ones
COMPARED = 768  # fields of each sample of a discrepancy, at most
CACHE = Path(__file__).parent / "cache"


def grid(size: int) -> Grid:
    """The box with so many points along each axis."""
    return Grid((size, size), BOX)


def simulated(kind: str, size: int, count: int, seed: int) -> np.ndarray:
    """Vorticities, `(count, size, size)`; kept in a file for another time."""
    file = CACHE / f"{kind}-{size}-{count}-{seed}.npy"
    if file.exists():
        return np.load(file)
    law, reynolds = FORCES[kind]
    # the force has one law on every grid: it is drawn on the coarsest, and moved
    force = noise_process(law, grid(SIMULATED), FORCE)

    def run(key, dt):
        drawn = resample(force.sample(key), grid(SIMULATED), grid(size))
        model = KolmogorovFlow(size, reynolds, drag=0.1, dt=dt, forcing=drawn - drawn.mean())
        return ModelTransition(model, round(TIME / dt)).mean(jnp.zeros((size, size)), 0.0)

    keys, dt = jax.random.split(jax.random.key(seed), count), DT[size]
    fields, left = np.full((count, size, size), np.nan, np.float32), np.arange(count)
    while len(left):  # a few forces are too strong for the step of the others
        made = jax.jit(lambda k, dt=dt: jax.lax.map(partial(run, dt=dt), k, batch_size=16))
        fields[left] = made(keys[left])
        left, dt = np.flatnonzero(~np.isfinite(fields).all((1, 2))), dt / 2
    CACHE.mkdir(exist_ok=True)
    np.save(file, fields)
    return fields


def moved(fields: np.ndarray, size: int) -> jax.Array:
    """Fields on another grid."""
    old, new = grid(fields.shape[-1]), grid(size)
    return jax.lax.map(lambda x: resample(x, old, new), jnp.asarray(fields), batch_size=64)


def spectrum(fields) -> np.ndarray:
    """Mean variance of waves of length about k, for k from 1 to half of the points."""
    x = np.asarray(fields, float)
    n = x.shape[-1]
    power = (np.abs(np.fft.fft2(x) / n**2) ** 2).mean(0)
    k = np.fft.fftfreq(n, 1 / n)
    ring = np.round(np.hypot(k[:, None], k)).astype(int)
    return np.array([power[ring == i].sum() for i in range(1, n // 2)])


def against(found: np.ndarray, reference: np.ndarray) -> dict:
    """A spectrum, and how far it and the covariance that it makes are from the truth's.

    Of waves of variances s_k the covariance at a distance r is sum s_k J_0(k r).
    """
    ratio = found[: len(reference)] / reference
    waves, distance = np.arange(1, len(reference) + 1), np.linspace(0, math.pi, 200)
    wrong = j0(np.outer(distance, waves)) @ (ratio * reference - reference)
    return {
        "spectrum": found.tolist(),
        "spectrum ratio": ratio.tolist(),
        "spectrum error": float(np.abs(ratio - 1).max()),
        "spectrum error of most energy": float(np.abs(ratio[:8] - 1).max()),
        "covariance error": float(np.abs(wrong).max() / reference.sum()),
    }


def discrepancy(x, y) -> float:
    """Squared maximum mean discrepancy of two samples of fields, unbiased, Gaussian kernel.

    Its width is the median distance of the second's fields.
    """
    x, y = (np.asarray(a, float).reshape(len(a), -1) for a in (x, y))
    yy = cdist(y, y, "sqeuclidean")
    scale = np.median(yy[np.triu_indices(len(y), 1)])
    kernel = lambda d: np.exp(-d / scale)
    own = lambda d: (kernel(d).sum() - len(d)) / (len(d) * (len(d) - 1))
    return float(
        own(cdist(x, x, "sqeuclidean")) + own(yy) - 2 * kernel(cdist(x, y, "sqeuclidean")).mean()
    )


@eqx.filter_jit
def drawn(prior, keys):
    """Draws of the prior."""
    one = lambda key: sample(prior.denoiser, prior.schedule, None, key, prior.n_steps)
    return jax.lax.map(one, keys, batch_size=32)


def judged(prior, truth, reference, key) -> dict:
    """Spectrum, covariance, histogram and discrepancy of the prior's draws.

    Args:
        truth: fields on the prior's grid.
        reference: the truth's spectrum.
    """
    size = prior.shape[0]
    count = DRAWS if size == TRAINED else FINER
    x = np.asarray(drawn(prior, jax.random.split(key, count)), float).reshape(count, size, size)
    low = np.asarray(moved(x, TRAINED), float)
    quantiles = np.linspace(0.01, 0.99, 99)
    q, p = np.quantile(low, quantiles), np.quantile(np.asarray(moved(truth, TRAINED)), quantiles)
    return against(spectrum(x), reference) | {
        "histogram error": float(np.abs(q - p).max() / np.std(truth)),
        "kurtosis": float(((low - low.mean()) ** 4).mean() / low.var() ** 2),
        "kurtosis of the truth": float(((truth - truth.mean()) ** 4).mean() / np.var(truth) ** 2),
        "mmd": discrepancy(low[:COMPARED], np.asarray(moved(truth, TRAINED))[:COMPARED]),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only")
    only = parser.parse_args().only
    for kind in FORCES:
        fields = simulated(kind, SIMULATED, FIELDS, 0)
        held = simulated(kind, SIMULATED, HELD_OUT, 1)
        fine = simulated(kind, FINEST, FINE, 2)
        bank, other = moved(fields, TRAINED), moved(held, TRAINED)
        flat = lambda x: x.reshape(len(x), -1)

        def draw(bank, key, n):
            """Fields of the training, shifted along the axes: the law does not change."""
            pick, shift = jax.random.split(key)
            x = bank[jax.random.randint(pick, (n,), 0, len(bank))]
            by = jax.random.randint(shift, (n, 2), 0, TRAINED)
            x = jax.vmap(lambda x, by: jnp.roll(x, by, (0, 1)))(x, by)
            return jnp.zeros((n, 0)), x.reshape(n, -1)

        truths = {TRAINED: np.asarray(other), SIMULATED: held, FINEST: fine}
        floor = discrepancy(np.asarray(bank)[:COMPARED], np.asarray(other)[:COMPARED])
        spectra = {str(n): spectrum(t).tolist() for n, t in truths.items()}
        reference = spectrum(simulated(kind, SIMULATED, REFERENCE, 3))[: TRAINED // 2 - 1]
        merge(
            {
                "navier-stokes": {
                    kind: {
                        "truth": {
                            "spectrum": spectra,
                            "reference": reference.tolist(),
                            "mmd": floor,
                            "some": np.asarray(held[:3], float).round(3).tolist(),
                        }
                    }
                }
            }
        )
        for name, options in NOISES.items():
            if only is not None and f"{kind}/{name}" not in only.split(";"):
                continue
            spec = FunctionSpec(
                (TRAINED, TRAINED),
                BOX,
                OperatorSpec((12, 12), 16, 3),
                inner=(TRAINED, TRAINED),
                n_steps=40,
                **options,
            )
            prior, _, figures = train_function_prior(
                spec,
                jax.tree_util.Partial(draw, bank),
                (jnp.zeros((len(other), 0)), flat(other)),
                jax.random.key(0),
                FIT,
                report=lambda *a: print(*a, flush=True),
            )
            found = {"training": figures}
            for size, truth in truths.items():
                on = on_grid(prior, (size, size))
                found[str(size)] = judged(on, truth, reference, jax.random.key(3))
                told = {
                    k: v for k, v in found[str(size)].items() if "spectrum" != k[:8] or "error" in k
                }
                print(kind, name, size, told, flush=True)
            few = jax.random.split(jax.random.key(4), 3)
            some = drawn(on_grid(prior, (SIMULATED, SIMULATED)), few)
            some = np.asarray(some, float).reshape(3, SIMULATED, SIMULATED)
            found["some"] = some[:1].round(3).tolist()  # the file has room for one
            merge({"navier-stokes": {kind: {name: found}}})


if __name__ == "__main__":
    main()
