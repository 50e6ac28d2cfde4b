r"""The reverse chain of a prior, guided by an event and weighted: twisted diffusion sampling.

A step from the angle a to b < a adds noise, which takes v to a larger angle, and follows the
probability flow from there down to b (as the stochastic sampler of Karras et al. 2022, arXiv
2206.00364, alg. 2):

    v^ = rho v + sqrt(1 - rho^2) noise,     cos(a^) = rho cos(a),    rho = cos(a) / cos(b),

    dv/da = -F(v, a)  from a^ to b, by Heun's scheme.

Noise of this size makes the chain of a white Gaussian prior that of its exact reverse diffusion;
the law at each level is the prior's up to the error of the flow, which is of second order, where
a chain of normal reverse kernels errs in the first and cuts off a prior's extremes. The event
moves the mean of v^ by (1 - rho^2) / rho grad_v log psi, with psi the probability of the event as
seen from a point, and the weights

    p(v^ | v) psi'(v') / (q(v^ | v) psi(v))

make up for what the guidance gets wrong: the weighted draws are those of the chain given the
event, and their mean weight is an unbiased estimate of its probability (Wu et al. 2023, arXiv
2306.17775, alg. 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.conditioning.guidance import AbstractGuidance, Target
from dasim.resampling import resampled
from dasim.types import Key

CHAIN_CALLS = 2  # of the network, a step, besides those of the guidance


class Draws(NamedTuple):
    """Weighted draws.

    Attributes:
        u: `(draw, n)`, in white coordinates.
        log_weights: normalised, `(draw,)`.
        log_evidence: log of the mean weight.
    """

    u: Float[Array, "draw n"]
    log_weights: Float[Array, " draw"]
    log_evidence: Float[Array, ""]


def guided_chain(
    target: Target,
    guidance: AbstractGuidance,
    levels: int,
    count: int,
    key: Key,
    weighted: bool = True,
    guided: bool = True,
) -> Draws:
    """`count` draws of the prior given the event, over `levels` of the prior's noise levels.

    Args:
        weighted: False for the guided draws as they come, with no evidence.
        guided: False for the prior's own chain, with weights and resampling alone
            (multilevel splitting in the noise level).
    """
    angles = jnp.arctan(target.prior.schedule.levels(levels).astype(target.dtype))
    first, key = jax.random.split(key)
    see = jax.vmap(lambda v, angle: guidance(target, v, angle), (0, None))
    descend = jax.vmap(lambda v, high, low: descended(target, v, high, low), (0, None, None))
    v = jax.random.normal(first, (count, target.size), target.dtype)
    seen = see(v, angles[0])

    def moved(v, seen, angle, following, key):
        rho, free, raised = noising(angle, following)
        noise = jax.random.normal(key, v.shape, v.dtype)
        shift = jnp.zeros_like(v)
        if guided:
            # over the standard deviation of the noise; xhat's is s^2 dv/dz times the gradient
            shift = free / rho * seen.shift / (jnp.sin(angle) * jnp.tan(angle))
            shift = jnp.where(jnp.isfinite(shift), shift, 0.0)
        ratio = -jnp.sum(shift * noise, 1) - 0.5 * jnp.sum(shift**2, 1)
        return descend(rho * v + free * (noise + shift), raised, following), ratio

    def level(carry, item):
        v, seen, log_weights = carry
        angle, following, key = item
        resample_key, key = jax.random.split(key)
        if weighted:
            index, log_weights = resampled(log_weights, resample_key)
            v, seen = jax.tree.map(lambda a: a[index], (v, seen))
        v, ratio = moved(v, seen, angle, following, key)
        after = see(v, following)
        log_weights = _finite(log_weights + ratio + after.log_psi - seen.log_psi)
        return (v, after, log_weights), None

    keys = jax.random.split(key, levels)
    carry = v, seen, _finite(seen.log_psi)
    items = angles[:-2], angles[1:-1], keys[:-1]
    v, seen, log_weights = jax.lax.scan(level, carry, items)[0]
    u, ratio = moved(v, seen, angles[-2], angles[-1], keys[-1])
    if not weighted:
        even = jnp.full(count, -jnp.log(count), u.dtype)
        return Draws(u, even, jnp.full((), jnp.nan, u.dtype))
    log_prob = jax.vmap(lambda u: target.event.log_prob(target.constraint(u), None))(u)
    log_weights = _finite(log_weights + ratio + log_prob - seen.log_psi)
    total = jax.nn.logsumexp(log_weights)
    normalized = jnp.where(jnp.isfinite(total), log_weights - total, -jnp.log(count))
    return Draws(u, normalized, total - jnp.log(count))


def noising(angle, following):
    """rho, sqrt(1 - rho^2) and a^ of a step from one angle to a smaller one."""
    rho = jnp.cos(angle) / jnp.cos(following)
    # in forms that hold where the angles are small
    added = jnp.sin(angle - following) * jnp.sin(angle + following) / jnp.cos(following) ** 2
    raised = jnp.arctan2(jnp.sqrt(added + (rho * jnp.sin(angle)) ** 2), rho * jnp.cos(angle))
    return rho, jnp.sqrt(added), raised


def descended(target: Target, v, high, low):
    """v after the probability flow from one angle down to another."""
    slope = target.correction(v, high)
    ahead = v + (high - low) * slope
    # at the end of the last step there is no noise, and F is not asked
    last = target.correction(ahead, jnp.maximum(low, jnp.finfo(v.dtype).eps))
    return jnp.where(low > 0, v + 0.5 * (high - low) * (slope + last), ahead)


def _finite(log_weights):
    return jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)
