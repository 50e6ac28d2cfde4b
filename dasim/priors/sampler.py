r"""Sampling a denoiser: a multistep solver of the probability flow.

With noise of the prior's own covariance C the flow dz/ds = (z - D(z, s)) / s, written in
v = C^(-1/2) (z - m) / sqrt(1 + s^2) and the angle a = arctan(s), is

    dv/da = -F(v, s),

with F the network of `dasim.priors.denoisers`. It is zero for a Gaussian prior: any number of
steps is exact for it, and the solver integrates only what is not Gaussian. It is of third order
with one network call a step: F is a parabola through its last three values in
q = arcsinh(s / 0.1), the logarithm of the level that turns into the level itself below 0.1, and
the integral over the angle is that of the parabola, as Zhang and Chen (2023, arXiv 2204.13902,
sect. 3) extrapolate the network's noise.

A denoiser of functions is integrated in w = C^(1/2) v, which is a function too: nothing is divided
by C. It keeps to the two-step scheme of Adams and Bashforth in the angle, along which its gains
(`WaveGains`) are measured.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.schedules import AbstractSchedule
from dasim.types import Key

DEFAULT_STEPS = 8
QUADRATURE = 16  # points of Gauss and Legendre in a step
KNEE = 0.1  # level below which F is smooth in the level, not in its logarithm


def flow(
    denoiser: AbstractDenoiser,
    schedule: AbstractSchedule,
    cond,
    noise: Float[Array, " n"],
    n_steps: int = DEFAULT_STEPS,
) -> Float[Array, " n"]:
    """The state given cond that belongs to standard normal `noise`.

    It calls the network `n_steps` times.
    """
    departed = departure(denoiser, schedule, cond, noise, n_steps)
    return denoiser.decode(denoiser.mean(cond) + departed, cond)


def departure(
    denoiser: AbstractDenoiser,
    schedule: AbstractSchedule,
    cond,
    noise: Float[Array, " n"],
    n_steps: int,
) -> Float[Array, " n"]:
    """The same as a departure from the mean, in the coordinates that are denoised."""
    mean, cov = denoiser.mean(cond), denoiser.cov(cond)
    levels = schedule.levels(n_steps).astype(mean.dtype)
    v, slope_of, weights = noise.astype(mean.dtype), denoiser.correction, log_weights
    if denoiser.colored:
        v, slope_of, weights = cov.sqrt(v), denoiser.drift, angle_weights

    v = integrated(lambda v, s: slope_of(v, s, cond), levels, v, weights)
    return v if denoiser.colored else cov.sqrt(v)


def angle_weights(levels: Float[Array, " level"]) -> Float[Array, "step 2"]:
    """Of `integrated`: Adams and Bashforth's of second order, in the angle."""
    change = jnp.diff(jnp.arctan(levels))
    # an infinite change before the first makes it a step of Euler
    half = 0.5 * change / jnp.concatenate([jnp.full(1, jnp.inf, change.dtype), change[:-1]])
    return jnp.stack([change * (1 + half), -change * half], 1)


def log_weights(levels: Float[Array, " level"]) -> Float[Array, "step 3"]:
    """Of `integrated`: third order, in q."""
    nodes, each = np.polynomial.legendre.leggauss(QUADRATURE)
    q = jnp.arcsinh(levels / KNEE)
    between = q[:-1, None] + jnp.diff(q)[:, None] * (nodes + 1) / 2
    s = KNEE * jnp.sinh(between)
    swept = KNEE * jnp.cosh(between) / (1 + s**2) * jnp.diff(q)[:, None] * each / 2
    # of each step's own level and the two before, those that there are
    step = np.arange(len(levels) - 1)[:, None] - np.arange(3)
    there, at = step >= 0, q[np.maximum(step, 0)]
    weights = []
    for i in range(3):
        line = swept
        for j in {0, 1, 2} - {i}:
            both = there[:, i] & there[:, j]
            width = jnp.where(both, at[:, i] - at[:, j], 1)[:, None]
            line = jnp.where(both[:, None], line * (between - at[:, j, None]) / width, line)
        weights.append(jnp.where(there[:, i], line.sum(1), 0))
    return jnp.stack(weights, 1).astype(levels.dtype)


def integrated(
    correction: Callable[[Float[Array, " n"], Float[Array, ""]], Float[Array, " n"]],
    levels: Float[Array, " level"],
    v: Float[Array, " n"],
    weights: Callable[[Float[Array, " level"]], Float[Array, "step order"]],
) -> Float[Array, " n"]:
    """v taken from the first of some decreasing levels to the last, one call fewer than levels.

    Args:
        correction: function of v and the level.
        weights: function of the levels to those of the slopes at each step's level and at the
            levels before it.
    """
    each = weights(levels)

    def step(carry, level_and_weights):
        v, slopes = carry
        s, own = level_and_weights
        slopes = jnp.concatenate([-correction(v, s)[None], slopes[:-1]])
        return (v + own @ slopes, slopes), None

    start = v, jnp.zeros((each.shape[1], *v.shape), v.dtype)
    return jax.lax.scan(step, start, (levels[:-1], each))[0][0]


def sample(
    denoiser: AbstractDenoiser,
    schedule: AbstractSchedule,
    cond,
    key: Key,
    n_steps: int = DEFAULT_STEPS,
) -> Float[Array, " n"]:
    """One draw of the state given cond."""
    mean = denoiser.mean(cond)
    return flow(denoiser, schedule, cond, jax.random.normal(key, mean.shape, mean.dtype), n_steps)
