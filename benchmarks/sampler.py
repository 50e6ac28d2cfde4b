"""Errors of a prior's draws against the number of network calls, for both multistep schemes.

    python benchmarks/sampler.py

The draws of 256 calls from the same noise are the reference, in the whitened residual. Transitions
start from states of the true system's climate.
"""

import os

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import jax
import jax.numpy as jnp
import numpy as np

from dasim import models
from dasim.priors.sampler import angle_weights, integrated, log_weights
from dasim.problems import find_prior
from dasim.trained import load_prior
from dasim.transitions import ModelTransition

CALLS, REFERENCE, DRAWS, SPIN_UP = (6, 8, 12, 20), 256, 300, 30.0
PRIORS = {
    "lorenz96-0.4": models.Lorenz96(),
    "lorenz63-0.5": models.Lorenz63(),
    "kuramoto-sivashinsky-1": models.KuramotoSivashinsky(),
    "lorenz63-window": None,
    "fitzhugh-nagumo-window": None,
    "double-pendulum-window": None,
}
SCHEMES = {"in the angle, second order": angle_weights, "in the logarithm, third": log_weights}


def climate(model):
    """States of the model, `(draw, n)`."""
    starts = jax.vmap(model.start)(jax.random.split(jax.random.key(1), DRAWS))
    transition = ModelTransition(model, round(SPIN_UP / model.dt))
    states = jax.jit(jax.vmap(lambda x: transition.mean(x, jnp.zeros(()))))(starts)
    return states.reshape(DRAWS, -1).astype(jnp.float32)


def draws(prior, noise, conds, calls, weights):
    """Whitened residuals, `(draw, n)`."""
    levels = prior.schedule.levels(calls).astype(jnp.float32)

    def one(v, cond):
        correction = lambda v, s: prior.denoiser.correction(v, s, cond)
        return integrated(correction, levels, v, weights)

    over = jax.vmap(one, (0, None if conds is None else 0))
    return np.asarray(jax.jit(over)(noise, conds))


def main():
    """Print a table."""
    print("| prior | calls | scheme | error (RMS) | of the median draw | variance |")
    print("|---|---|---|---|---|---|")
    for name, model in PRIORS.items():
        prior = load_prior(find_prior(name))[0]
        denoiser, conds = prior.denoiser, None if model is None else climate(model)
        mean = denoiser.mean(None if conds is None else conds[0])
        noise = jax.random.normal(jax.random.key(0), (DRAWS, mean.size), mean.dtype)

        exact = draws(prior, noise, conds, REFERENCE, log_weights)
        for calls in CALLS:
            for label, weights in SCHEMES.items():
                got = draws(prior, noise, conds, calls, weights)
                each = np.sqrt(np.mean((got - exact) ** 2, 1))
                print(
                    f"| {name} | {calls} | {label} | {np.sqrt(np.mean(each**2)):.4f} | "
                    f"{np.median(each):.4f} | {got.var() / exact.var() - 1:+.4f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
