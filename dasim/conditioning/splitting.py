r"""Multilevel splitting: a rare event as the last of several that are not.

A draw of the prior is a function G of standard normal numbers e, the noise from which its
probability flow starts. Levels l_1 < l_2 < ... < 0 of the event's margin are set so that each is
passed by a tenth of the draws that passed the one before; between levels the survivors are copied
and moved by steps

    e' = sqrt(1 - b^2) e + b noise,         kept if the margin of G(e') is above the level,

which leave the law of e given the level as it is (subset simulation: Au and Beck 2001, Prob. Eng.
Mech. 16, 263-277; moves: Neal 1999). The levels are set in a first run, and the run that counts
takes them, and the lengths of the moves, as they are, so that its estimate is unbiased. Its error
is known from who descends from whom (Lee and Whiteley 2018, arXiv 1509.00394, theorem 1): draws
of one family, those copied from one and the same first draw, say little more than one does.
"""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dasim.conditioning.guidance import Target
from dasim.priors.sampler import flow
from dasim.types import Key

SHARE = 0.1  # of the draws that pass a level
ACCEPTED = 0.3  # share of the moves, towards which their length is steered
MOST_LEVELS = 60
BATCH = 128


class Level(NamedTuple):
    """Draws that passed one level.

    Attributes:
        noise: e, `(draw, n)`.
        margin: of G(e), `(draw,)`.
        family: number of the first draw from which each descends, `(draw,)`.
        length: b of the next moves.
    """

    noise: Float[Array, "draw n"]
    margin: Float[Array, " draw"]
    family: Int[Array, " draw"]
    length: Float[Array, ""]


def draw(target: Target, noise: Float[Array, " n"]) -> Float[Array, "*shape"]:
    """G(e)."""
    prior = target.prior
    x = flow(prior.denoiser, prior.schedule, target.cond, noise, prior.n_steps)
    return x.reshape(prior.shape)


def constraint(target: Target, noise: Float[Array, " n"]) -> Float[Array, " k"]:
    """The event's constraint of G(e)."""
    return target.event.constraint(draw(target, noise))


@eqx.filter_jit
def begin(target: Target, scale, count: int, key: Key) -> Level:
    """Draws of the prior."""
    noise = jax.random.normal(key, (count, target.size), target.dtype)
    margin = _margins(target, scale, noise)
    return Level(noise, margin, jnp.arange(count), jnp.asarray(0.5, noise.dtype))


@eqx.filter_jit
def advance(
    target: Target, scale, level, at: Level, moves: int, key: Key, adapt: bool = False
) -> Level:
    """As many draws above `level`: copies of those that are, moved `moves` times.

    With `adapt` the moves' length is steered by the share of them that is kept.
    """
    pick, key = jax.random.split(key)
    above = at.margin >= level
    index = jax.random.choice(pick, len(above), above.shape, p=above / jnp.maximum(above.sum(), 1))

    def move(carry, key):
        noise, margin, length = carry
        step_key, share_key = jax.random.split(key)
        # lengths are spread, so that some suit whatever the level's shape
        spread = jax.random.uniform(share_key, (len(noise), 1), noise.dtype, 0.5, 1.5)
        b = jnp.minimum(length * spread, 1.0)
        trial = jnp.sqrt(1 - b**2) * noise + b * jax.random.normal(
            step_key, noise.shape, noise.dtype
        )
        new = _margins(target, scale, trial)
        better = new >= level
        noise = jnp.where(better[:, None], trial, noise)
        if adapt:
            length = jnp.clip(length * jnp.exp(better.mean() - ACCEPTED), 0.01, 1.0)
        return (noise, jnp.where(better, new, margin), length), None

    carry = at.noise[index], at.margin[index], at.length
    noise, margin, length = jax.lax.scan(move, carry, jax.random.split(key, moves))[0]
    return Level(noise, margin, at.family[index], length)


def _margins(target: Target, scale, noise):
    # in batches: a thousand draws of a trajectory at once do not fit a cache
    def one(e):
        margin = target.event.margin(constraint(target, e), scale)
        return jnp.where(jnp.isnan(margin), -jnp.inf, margin)

    return jax.lax.map(one, noise, batch_size=BATCH)


Plan = list[tuple[float, float]]  # levels, and the lengths of the moves above them


def find_levels(target: Target, scale, count: int, moves: int, key: Key) -> Plan:
    """Levels below zero, each passed by a tenth of what passed the one before.

    Raises:
        ValueError: the event was not reached: its probability is too small, or zero.
    """
    at, found = begin(target, scale, count, key), []
    for i in range(MOST_LEVELS):
        level = float(jnp.quantile(at.margin, 1 - SHARE))
        if level >= 0:
            return found
        if found and level <= found[-1][0]:
            break
        level_key = jax.random.fold_in(key, i)
        at = advance(target, scale, jnp.asarray(level), at, moves, level_key, adapt=True)
        found.append((level, float(at.length)))
    raise ValueError(
        f"splitting: the event was not reached after {len(found)} levels, the last of them "
        f"{-found[-1][0]:.3g} standard deviations of the constraint short of it; it "
        "may be impossible"
    )


def split(
    target: Target, scale, plan: Plan, count: int, moves: int, key: Key
) -> tuple[float, float, Level]:
    """An unbiased estimate of the probability, its relative variance, and its draws.

    Those draws that have a margin of zero or more are in the event; the variance is infinite
    where there are none.
    """
    at, probability = begin(target, scale, count, key), 1.0
    for i, (level, length) in enumerate(plan):
        at = at._replace(length=jnp.asarray(length, at.length.dtype))
        share = float(jnp.mean(at.margin >= level))
        probability *= share
        if share == 0:
            return 0.0, math.inf, at
        at = advance(target, scale, jnp.asarray(level), at, moves, jax.random.fold_in(key, i))
    inside = np.asarray(at.margin >= 0)
    variance = relative_variance(np.asarray(at.family)[inside], count, len(plan) + 1)
    return probability * float(inside.mean()), variance, at


def relative_variance(families: Int[np.ndarray, " inside"], count: int, times: int) -> float:
    """Of an estimate by `count` draws that were chosen from `times` times (theorem 1, there).

    An estimate of it by few draws may fall below zero: then each family counts as one draw.
    """
    if not len(families):
        return math.inf
    sizes = np.unique(families, return_counts=True)[1] / len(families)
    alike = float(np.sum(sizes**2))  # that two of the draws are of one family
    found = 1 - (count / (count - 1)) ** times * (1 - alike)
    return found if found > 0 else alike
