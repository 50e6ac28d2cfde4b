"""A mixture of two random fields: learned on 64 points, drawn and conditioned at any resolution.

    python mixture.py [--only 'matern;white']

The modes have the means 10 v - 5 and -10 v + 5 on [0, 1], and both the squared exponential
covariance of standard deviation 0.63 (Lim, Kovachki et al. 2023, sect. 5.1); its length is 0.2.
"""

import argparse
import os

os.environ.setdefault("NPROC", "8")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from record import merge

from dasim.conditioning import conditional_draws
from dasim.covariance import DiagonalCovariance
from dasim.events import GaussianEvent
from dasim.functions import FunctionSpec, OperatorSpec, train_function_prior
from dasim.operators import FieldValues
from dasim.priors import on_grid, sample
from dasim.priors.train import FitSettings

STD, LENGTH = 0.63, 0.2
TRAINED, SIZES = 64, (64, 128, 256, 512)
DRAWS = 10_000
POSITION, VALUE, ERROR = 0.56, 0.4, 0.5  # of the noisy point value
CONDITIONED, LEVELS = 4000, 60
NOISES = {
    "matern": {"kind": "matern", "length": 0.2, "smoothness": 1.5},
    "white": {"kind": "white"},
}
FIT = FitSettings(6000, 128, 2e-3, check=250)


def points(n: int):
    """The points of a bounded grid."""
    return (jnp.arange(n) + 0.5) / n


def mean(n: int):
    """The mean of the first mode."""
    return 10 * points(n) - 5


def drawn(n: int, key, count: int):
    """Fields of the mixture."""
    v = points(n)
    cov = STD**2 * jnp.exp(-0.5 * ((v[:, None] - v) / LENGTH) ** 2)
    root = jnp.linalg.cholesky(cov + 1e-6 * jnp.eye(n))
    mode_key, key = jax.random.split(key)
    mode = jax.random.rademacher(mode_key, (count, 1), dtype=float)
    return mode * mean(n) + jax.random.normal(key, (count, n)) @ root.T


def batch(key, count):
    """Training fields, without a condition."""
    return jnp.zeros((count, 0)), drawn(TRAINED, key, count)


@eqx.filter_jit
def draws(prior, keys):
    """Draws of the prior."""
    one = lambda key: sample(prior.denoiser, prior.schedule, None, key, prior.n_steps)
    return jax.lax.map(one, keys, batch_size=500)


def judged(prior, key) -> dict:
    """What is right and wrong of the prior's draws."""
    (n,) = prior.shape
    x, m = np.asarray(draws(prior, jax.random.split(key, DRAWS)), float), np.asarray(mean(n))
    mode = np.where(x @ m > 0, 1.0, -1.0)
    rest = x - mode[:, None] * m
    ratio = x.var(0) / (m**2 + STD**2)
    within = rest.var(0) / STD**2
    inner = slice(n // 16, -(n // 16))
    return {
        "first mode": float((mode > 0).mean()),
        "variance": [float(ratio.min()), float(ratio.mean()), float(ratio.max())],
        "variance within a mode": [
            float(within[inner].min()),
            float(within.mean()),
            float(within.max()),
        ],
    }


def conditioned(prior, key) -> dict:
    """The modes' probability given a noisy point value."""
    (n,) = prior.shape
    event = GaussianEvent(
        FieldValues(prior.denoiser.grid, [[POSITION]]),
        jnp.zeros(()),
        jnp.asarray([VALUE]),
        jnp.ones(1, bool),
        DiagonalCovariance(jnp.asarray([ERROR**2])),
    )
    x = np.asarray(conditional_draws(prior, event, key, CONDITIONED, levels=LEVELS))
    logs = [-0.5 * (VALUE - s * (10 * POSITION - 5)) ** 2 / (STD**2 + ERROR**2) for s in (1, -1)]
    exact = 1 / (1 + np.exp(logs[1] - logs[0]))
    return {"first mode": float((x @ np.asarray(mean(n)) > 0).mean()), "exact": float(exact)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only")
    only = parser.parse_args().only
    held_out = batch(jax.random.key(9), 2048)
    for name, noise in NOISES.items():
        if only is not None and name not in only.split(";"):
            continue
        network = OperatorSpec((16,), 24, 3, True)
        spec = FunctionSpec(
            (TRAINED,), (1.0,), network, "bounded", noise, gains=True, inner=(64,), n_steps=40
        )
        prior, _, figures = train_function_prior(spec, batch, held_out, jax.random.key(0), FIT)
        merge({"mixture": {name: {"training": figures}}})
        for n in SIZES:
            moved = on_grid(prior, (n,))
            found = {"draws": judged(moved, jax.random.key(1))}
            if name != "white":
                found["conditioned"] = conditioned(moved, jax.random.key(2))
            found["some"] = np.asarray(draws(moved, jax.random.split(jax.random.key(3), 12)))[
                :, :: n // 64
            ].tolist()
            told = {k: v for k, v in found.items() if k != "some"}
            print(name, n, told, flush=True)
            merge({"mixture": {name: {str(n): found}}})


if __name__ == "__main__":
    main()
