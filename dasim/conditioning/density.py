r"""Densities by the probability flow.

With v = z / sqrt(1 + s^2) and the angle a = arctan(s), the flow of a prior is dv/da = -F(v, a),
and of the conditional denoiser xhat + shift it has F + shift / sin(a) in place of F. Along it the
log density of v changes by the divergence of F (Chen et al. 2018, arXiv 1806.07366, eq. 8), from
the standard normal law at the highest noise level. The divergence is exact for few variables and
by Hutchinson's estimate, with the same probes along a path, for many.
"""

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.conditioning.guidance import AbstractGuidance, Target
from dasim.types import Key

EXACT = 64  # variables up to which the divergence is exact
TOLERANCE = 1e-4


def _bounds(target: Target):
    levels = target.prior.schedule.levels(8)
    return jnp.arctan(levels[0]), jnp.arctan(levels[-2])


def _velocity(target: Target, guidance: AbstractGuidance | None):
    """dv/da."""

    def velocity(a, v):
        slope = target.correction(v, a)
        if guidance is None:
            return -slope
        return -slope - guidance(target, v, a).shift / jnp.sin(a)

    return velocity


def _solve(velocity, v, start, end, probes):
    """v and the integral of the divergence of the velocity, from one angle to another."""

    def field(a, y, args):
        v, _ = y
        rate, push = jax.linearize(lambda v: velocity(a, v), v)
        if probes is None:
            divergence = jnp.trace(jax.vmap(push)(jnp.eye(len(v), dtype=v.dtype)))
        else:
            divergence = jnp.mean(jax.vmap(lambda e: e @ push(e))(probes))
        return rate, divergence

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Heun(),
        start,
        end,
        None,
        (v, jnp.zeros((), v.dtype)),
        stepsize_controller=diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE),
        max_steps=2048,
        throw=False,
    )
    return jax.tree.map(lambda a: a[0], solution.ys), solution.stats["num_steps"]


def _probes(target: Target, count: int | None, key: Key):
    if count is None:
        return None
    return jax.random.rademacher(key, (count, target.size), target.dtype)


def _log_normal(v):
    return -0.5 * jnp.sum(v**2) - 0.5 * v.size * jnp.log(2 * jnp.pi)


def log_density(
    target: Target, v: Float[Array, " n"], key: Key, probes: int | None = None
) -> tuple[Float[Array, ""], Array]:
    """Log density of the prior at the lowest noise level at v, and the solver's steps."""
    first, last = _bounds(target)
    (end, change), steps = _solve(
        _velocity(target, None), v, last, first, _probes(target, probes, key)
    )
    return _log_normal(end) + change, steps


def guided_draw(
    target: Target, guidance: AbstractGuidance, key: Key, probes: int | None = None
) -> tuple[Float[Array, " n"], Float[Array, ""], Array]:
    """A draw of the guided flow at the lowest noise level, its log density, and the steps."""
    first, last = _bounds(target)
    noise_key, probe_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (target.size,), target.dtype)
    (v, change), steps = _solve(
        _velocity(target, guidance), noise, first, last, _probes(target, probes, probe_key)
    )
    return v, _log_normal(noise) - change, steps
