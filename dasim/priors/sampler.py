r"""Sampling a denoiser: a second-order multistep solver of the probability flow.

With noise of the prior's own covariance C the flow dz/ds = (z - D(z, s)) / s, written in
v = C^(-1/2) (z - m) / sqrt(1 + s^2) and the angle a = arctan(s), is

    dv/da = -F(v, s),

with F the network of `dasim.priors.denoisers`. It is zero for a Gaussian prior: any number of
steps is exact for it, and the solver (Adams-Bashforth of second order with variable steps, one
network call a step) integrates only what is not Gaussian. A denoiser of functions is integrated
in w = C^(1/2) v, which is a function too: nothing is divided by C.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.schedules import AbstractSchedule
from dasim.types import Key

DEFAULT_STEPS = 8


def flow(
    denoiser: AbstractDenoiser,
    schedule: AbstractSchedule,
    cond,
    noise: Float[Array, " n"],
    n_steps: int = DEFAULT_STEPS,
) -> Float[Array, " n"]:
    """The draw of x given cond that belongs to standard normal `noise`.

    It calls the network `n_steps` times.
    """
    mean, cov = denoiser.mean(cond), denoiser.cov(cond)
    levels = schedule.levels(n_steps).astype(mean.dtype)
    v, slope_of = noise.astype(mean.dtype), denoiser.correction
    if denoiser.colored:
        v, slope_of = cov.sqrt(v), denoiser.drift

    v = integrated(lambda v, s: slope_of(v, s, cond), levels, v)
    return mean + (v if denoiser.colored else cov.sqrt(v))


def integrated(
    correction: Callable[[Float[Array, " n"], Float[Array, ""]], Float[Array, " n"]],
    levels: Float[Array, " level"],
    v: Float[Array, " n"],
) -> Float[Array, " n"]:
    """v taken from the first of some decreasing levels to the last, one call fewer than levels.

    Args:
        correction: function of v and the level.
    """

    def step(carry, level_and_change):
        v, last, last_change = carry
        s, change = level_and_change
        slope = -correction(v, s)
        ratio = change / last_change
        v = v + change * (slope + 0.5 * ratio * (slope - last))
        return (v, slope, change), None

    # an infinite last change makes the first step one of Euler
    start = (v, jnp.zeros_like(v), jnp.asarray(jnp.inf, v.dtype))
    return jax.lax.scan(step, start, (levels[:-1], jnp.diff(jnp.arctan(levels))))[0][0]


def sample(
    denoiser: AbstractDenoiser,
    schedule: AbstractSchedule,
    cond,
    key: Key,
    n_steps: int = DEFAULT_STEPS,
) -> Float[Array, " n"]:
    """One draw of x given cond."""
    mean = denoiser.mean(cond)
    return flow(denoiser, schedule, cond, jax.random.normal(key, mean.shape, mean.dtype), n_steps)
