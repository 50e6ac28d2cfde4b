"""The systems of the experiment, their events, and truths by direct simulation."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dasim import models
from dasim.trajectories import simulated_windows


class Case(NamedTuple):
    """One system.

    Attributes:
        model: the true system.
        interval: between the states of a window.
        start, spin_up: see `dasim.trajectories.simulated_windows`.
        event: functional of a window `(steps, d)` that is above zero in the event of the paper.
        sweep: functional whose thresholds are swept.
        others: functionals of which the draws' laws are compared with the truth's.
        mode: which of two kinds a window in the event is.
    """

    model: object
    interval: float
    start: float
    spin_up: float | None
    event: Callable
    sweep: Callable
    others: dict[str, Callable]
    mode: Callable


CASES = {
    "lorenz63": Case(
        models.Lorenz63(),
        0.1,
        20.0,
        3.0,
        lambda x: 0.6 - jnp.mean(jnp.abs(jnp.fft.rfft(x[:, 0] / 20))[1:]),
        lambda x: -jnp.mean(x[20:40, 2]),
        {
            "mean z": lambda x: x[:, 2].mean(),
            "max y": lambda x: x[:, 1].max(),
            "last |x|": lambda x: jnp.abs(x[-1, 0]),
        },
        lambda x: x[:, 0].mean() > 0,
    ),
    "fitzhugh-nagumo": Case(
        models.FitzHughNagumo(),
        6.0,
        1.0,
        None,
        lambda x: jnp.max(x[:, :2].mean(1)) - 2.5,
        lambda x: jnp.mean(x[:, :2]),
        {
            "mean x1": lambda x: x[:, 0].mean(),
            "min x2": lambda x: x[:, 1].min(),
            "max y1": lambda x: x[:, 2].max(),
        },
        lambda x: jnp.argmax(x[:, :2].mean(1)) < 30,
    ),
    "double-pendulum": Case(
        models.DoublePendulum(),
        0.5,
        1.0,
        None,
        lambda x: jnp.max(jnp.abs(x[:, 3])) - 4.0,
        lambda x: jnp.max(jnp.abs(x[:, 3])),
        {
            "max |q1|": lambda x: jnp.abs(x[:, 0]).max(),
            "std w1": lambda x: x[:, 2].std(),
            "last |w2|": lambda x: jnp.abs(x[-1, 3]),
        },
        lambda x: x[:, 3].mean() > 0,
    ),
}
PART = 20000


def truth(
    name: str, count: int, functions: dict[str, Callable], seed: int
) -> dict[str, np.ndarray]:
    """Functionals of `count` windows of the true system."""
    case = CASES[name]
    found = {key: [] for key in functions}
    every = jax.jit(jax.vmap(lambda x: {key: f(x) for key, f in functions.items()}))
    for i in range(-(-count // PART)):
        key = jax.random.fold_in(jax.random.key(1000 + seed), i)
        x = simulated_windows(case.model, case.interval, 60, PART, key, case.start, case.spin_up)
        for label, value in every(x).items():
            found[label].append(np.asarray(value))
    return {key: np.concatenate(parts)[:count] for key, parts in found.items()}
