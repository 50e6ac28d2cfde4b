"""Gaussian fields in closed form: draws and posteriors of one prior at three resolutions.

python gaussian.py
"""

import os
import time

os.environ.setdefault("NPROC", "8")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from record import merge

from dasim.conditioning import conditional_draws
from dasim.covariance import DiagonalCovariance
from dasim.events import GaussianEvent
from dasim.fields import Grid, Matern, White, noise_process
from dasim.operators import FieldValues
from dasim.priors import DiffusionPrior, GaussianFieldDenoiser, VESchedule, flow, sample

SIZES = 64, 256, 1024
LAW = Matern(0.1, 1.5)  # of the field; its variance is 1
NOISES = {
    "matern": (Matern(0.2, 1.5), 1.0),  # as smooth as the field, of another length
    "rougher matern": (Matern(0.1, 0.75), 1.0),
    "white": (White(), 1.0),
}
STEPS = 12, 40  # of the sampler
LEVELS = 200  # of the guided chain
DRAWS = 1000
STD = 0.1
POSITIONS = np.array([0.07, 0.15, 0.22, 0.41, 0.46, 0.63, 0.78, 0.91])
VALUES = np.array([0.4, 1.1, 0.9, -0.6, -0.9, 0.3, 1.2, 0.1])


def prior(edges: str, noise: str, size: int) -> DiffusionPrior:
    """The field's prior under one of the noises."""
    grid, (spectrum, std) = Grid((size,), (1.0,), edges), NOISES[noise]
    law, own = noise_process(LAW, grid), noise_process(spectrum, grid, std)
    denoiser = GaussianFieldDenoiser(jnp.zeros(()), law, own)
    return DiffusionPrior(denoiser, (size,), VESchedule(0.01, 50.0, 7.0), STEPS[-1])


@eqx.filter_jit
def drawn(prior, keys):
    """Draws of the prior."""
    one = lambda key: sample(prior.denoiser, prior.schedule, None, key, prior.n_steps)
    return jax.lax.map(one, keys, batch_size=100)


def sampled(prior, key) -> dict:
    """What the sampler's steps make of the covariance, and the cost of a draw."""
    grid = prior.denoiser.law.grid
    keys = jax.random.split(key, DRAWS)
    x = jax.block_until_ready(drawn(prior, keys))
    began = time.perf_counter()
    jax.block_until_ready(drawn(prior, keys))
    seconds = time.perf_counter() - began
    # the flow is a factor on each wave: seen in what it makes of a field that has all of them
    ones = jnp.ones(grid.size) if grid.edges == "bounded" else jnp.ones(grid.shape, complex)
    every = grid.field(ones).reshape(-1)
    law, found = prior.denoiser.law.values, {}
    for steps in STEPS:
        made = flow(prior.denoiser, prior.schedule, None, every, steps)
        got = jnp.abs(grid.coefficients(made.reshape(grid.shape))) ** 2
        found[f"steps {steps}"] = {
            "covariance": float(jnp.sqrt(jnp.sum((got - law) ** 2) / jnp.sum(law**2))),
            "variance": float(got.sum() / law.sum() - 1),
            "variance of increments": increments(got, grid) / increments(law, grid) - 1,
        }
    truth = prior.denoiser.law.dense()
    empirical = jnp.cov(x.T)
    return found | {
        "drawn": float(jnp.linalg.norm(empirical - truth) / jnp.linalg.norm(truth)),
        "sampling": float(
            jnp.sqrt((jnp.trace(truth) ** 2 + jnp.sum(truth**2)) / DRAWS) / jnp.linalg.norm(truth)
        ),
        "microseconds a point": 1e6 * seconds / DRAWS / grid.size,
    }


def increments(values, grid: Grid) -> float:
    """The variance of the difference over a sixty-fourth of the box, averaged over it."""
    k = grid.wavenumbers[0]
    return float(jnp.sum(values * (2 - 2 * np.cos(k / 64))) / grid.size)


def posterior(prior, key) -> dict:
    """Draws given eight noisy values, against Gaussian process regression."""
    grid, size = prior.denoiser.law.grid, prior.shape[0]
    operator = FieldValues(grid, POSITIONS[:, None])
    event = GaussianEvent(
        operator,
        jnp.zeros(()),
        jnp.asarray(VALUES),
        jnp.ones(8, bool),
        DiagonalCovariance(jnp.full(8, STD**2)),
    )
    x = conditional_draws(prior, event, key, DRAWS, levels=LEVELS, method="score")
    k, w = prior.denoiser.law.dense(), operator.weights
    gain = jnp.linalg.solve(w @ k @ w.T + STD**2 * jnp.eye(8), w @ k).T
    mean, cov = gain @ VALUES, k - gain @ (w @ k)
    std = jnp.sqrt(jnp.diag(cov))
    z = (x.mean(0) - mean) / std * DRAWS**0.5
    ratio = x.std(0, ddof=1) / std
    stride = size // 64
    return {
        "mean": float(jnp.sqrt(jnp.mean(((x.mean(0) - mean) / std) ** 2))),
        "mean in standard errors": float(jnp.sqrt(jnp.mean(z**2))),
        "band": float(ratio.mean()),
        "band lowest": float(ratio.min()),
        "band highest": float(ratio.max()),
        "curves": {
            "x": grid.points[0][::stride].tolist(),
            "regression": [np.asarray(a)[::stride].tolist() for a in (mean, std)],
            "draws": [np.asarray(a)[::stride].tolist() for a in (x.mean(0), x.std(0, ddof=1))],
        },
    }


def main():
    jax.config.update("jax_enable_x64", True)
    for edges in ("periodic", "bounded"):
        for noise in NOISES:
            for size in SIZES:
                made = prior(edges, noise, size)
                found = sampled(made, jax.random.key(0))
                if noise != "rougher matern":
                    found |= posterior(made, jax.random.key(1))
                told = {k: v for k, v in found.items() if k != "curves"}
                print(edges, noise, size, told, flush=True)
                merge({"gaussian": {edges: {noise: {str(size): found}}}})


if __name__ == "__main__":
    main()
