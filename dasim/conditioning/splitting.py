r"""Multilevel splitting: a rare event as the last of several that are not.

A draw of the prior is a function G of standard normal numbers e, the noise from which its
probability flow starts. Levels l_1 < l_2 < ... < 0 of the event's margin are set so that each is
passed by a tenth of the draws above the one before. From each of those that pass, a chain of
moves

    e' = sqrt(1 - b^2) e + b noise,         made if the margin of G(e') is above the level,

which leave the law of e given the level as it is, makes ten new draws; all of them are kept, so
that a level costs as many draws as it has (subset simulation: Au and Beck 2001, Prob. Eng. Mech.
16, 263-277; with a fixed number of chains: Dau and Chopin 2022, arXiv 2011.02328; moves: Neal
1999). The levels are set in a first run, and the run that counts takes them, and the lengths of
the moves, as they are, so that its estimate is unbiased. Its error is known from who descends
from whom: each first draw has its own tree, and the trees are nearly independent (Botev and
Kroese 2012, Stat. Comput. 22, 1-16, where they are so exactly).

Moves explore where first draws have led, and hardly find other ways. Of an event to which there
are many ways apart, more first draws than a level has tell more than larger levels do; of
those the first level is passed by a tenth of a level's number.
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
from dasim.resampling import systematic
from dasim.types import Key

SHARE = 0.1  # of the draws that pass a level
ACCEPTED = 0.3  # share of the moves, towards which their length is steered
STEERING = 3.0  # change of a length's logarithm: the next sheets can be a hundredth as thick
MOST_LEVELS = 60
SHORTEST = 1e-6  # of a move: the sheets of initial states that lead to an extreme are thin
SPREAD = -0.7, 0.4  # of the logarithm of a move's length
BATCH = 128  # of draws computed at once
PILOT = 4  # one draw for so many that count finds the levels
LEAST = 250  # draws that find them, and the constraint's scale


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


_constraints = eqx.filter_jit(jax.vmap(constraint, (None, 0)))


@eqx.filter_jit
def begin(target: Target, scale, count: int, key: Key) -> Level:
    """Draws of the prior."""
    noise = jax.random.normal(key, (count, target.size), target.dtype)
    margin = _margins(target, scale, noise)
    return Level(noise, margin, jnp.arange(count), jnp.asarray(0.5, noise.dtype))


def advance(
    target: Target, scale, level, at: Level, count: int, moves: int, key: Key, adapt: bool = False
) -> Level:
    """`count` draws above `level` (rounded down to whole chains), by chains from those that are.

    With `adapt` the moves' length is steered by the share of them that is made.
    """
    pick, key = jax.random.split(key)
    begun = _picked(at, level, max(count // moves, 1), pick)
    length, path = _chains(target, scale, level, begun, moves, key, adapt)
    flat = lambda a: jnp.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:])  # a chain's draws together
    return Level(*map(flat, path), jnp.repeat(begun.family, moves), length)


def refresh(
    target: Target, scale, at: Level, count: int, moves: int, key: Key
) -> Float[Array, "count n"]:
    """e of `count` draws in the event: the ends of chains that begin in those that are."""
    pick, key = jax.random.split(key)
    begun, above = _picked(at, 0.0, count, pick), jnp.zeros((), at.margin.dtype)
    noise, _ = _chains(target, scale, above, begun, moves, key)[1]
    return noise[-1]


@eqx.filter_jit
def _picked(at: Level, level, count: int, key: Key) -> Level:
    """`count` of the draws above `level`, all of them as often, but for one."""
    above = at.margin >= level
    index = systematic(above / jnp.maximum(above.sum(), 1), key, count)
    return Level(at.noise[index], at.margin[index], at.family[index], at.length)


@eqx.filter_jit  # by itself: one program, of however many draws its chains are picked
def _chains(target: Target, scale, level, at: Level, moves: int, key: Key, adapt: bool = False):
    """The moves' length at last, and noise and margins after each move, `(move, chain, ...)`."""

    def move(carry, key):
        noise, margin, length = carry
        step_key, share_key = jax.random.split(key)
        # lengths are spread, so that some suit whatever the level's shape
        spread = jax.random.uniform(share_key, (len(noise), 1), noise.dtype, *SPREAD)
        b = jnp.minimum(length * jnp.exp(spread), 1.0)
        trial = jnp.sqrt(1 - b**2) * noise + b * jax.random.normal(
            step_key, noise.shape, noise.dtype
        )
        new = _margins(target, scale, trial)
        better = new >= level
        noise, margin = jnp.where(better[:, None], trial, noise), jnp.where(better, new, margin)
        if adapt:
            factor = jnp.exp(STEERING * (better.mean() - ACCEPTED))
            length = jnp.clip(length * factor, SHORTEST, 1.0)
        return (noise, margin, length), (noise, margin)

    carry = at.noise, at.margin, at.length
    (*_, length), path = jax.lax.scan(move, carry, jax.random.split(key, moves))
    return length, path


def _margins(target: Target, scale, noise):
    # in batches: a thousand draws of a trajectory at once do not fit a cache
    def one(e):
        margin = target.event.margin(constraint(target, e), scale)
        return jnp.where(jnp.isnan(margin), -jnp.inf, margin)

    return jax.lax.map(one, noise, batch_size=BATCH)


Plan = list[tuple[float, float]]  # levels, and the lengths of the moves above them


def find_levels(
    target: Target, scale, first: int, count: int, moves: int, key: Key
) -> tuple[Plan, bool]:
    """Levels below zero, passed by so many draws as a tenth of `count`, of the first and then of
    those above the level before.

    And whether the event was reached: not where none of the draws comes any nearer to it, which
    few draws can do that started on the wrong ways.
    """
    at, found = begin(target, scale, first, key), []
    for i in range(MOST_LEVELS):
        level = float(jnp.quantile(at.margin, 1 - SHARE * min(count / len(at.margin), 1)))
        if level >= 0:
            return found, True
        if found and level <= found[-1][0]:
            break
        level_key = jax.random.fold_in(key, i)
        at = advance(target, scale, jnp.asarray(level), at, count, moves, level_key, adapt=True)
        found.append((level, float(at.length)))
    return found, False


def split(
    target: Target, scale, plan: Plan, first: int, count: int, moves: int, key: Key
) -> tuple[float, float, Level]:
    """An unbiased estimate of the probability, its relative variance, and its draws.

    Those draws that have a margin of zero or more are in the event; the variance is infinite
    where there are none.
    """
    at, probability = begin(target, scale, first, key), 1.0
    for i, (level, length) in enumerate(plan):
        at = at._replace(length=jnp.asarray(length, at.length.dtype))
        share = float(jnp.mean(at.margin >= level))
        probability *= share
        if share == 0:
            return 0.0, math.inf, at
        level_key = jax.random.fold_in(key, i)
        at = advance(target, scale, jnp.asarray(level), at, count, moves, level_key)
    inside = np.asarray(at.margin >= 0)
    variance = relative_variance(np.asarray(at.family)[inside], first)
    return probability * float(inside.mean()), variance, at


def relative_variance(families: Int[np.ndarray, " inside"], count: int) -> float:
    """Of an estimate by the draws of `count` independent families; each draw's family is given.

    That of the mean of the families' shares in the estimate. Where there are so few that all of
    them are in the event, each counts as one draw.
    """
    if not len(families):
        return math.inf
    shares = np.unique(families, return_counts=True)[1] / len(families)
    alike = float(np.sum(shares**2))  # that two of the draws are of one family
    return (alike - 1 / count) * count / (count - 1) if len(shares) < count else alike


class Run(NamedTuple):
    """What splitting found.

    Attributes:
        scale: of the constraint, the unit of margins.
        plan: the levels.
        probability, variance, at: see `split`.
        calls: network evaluations.
    """

    scale: Float[Array, " k"]
    plan: Plan
    probability: float
    variance: float
    at: Level
    calls: int


def run(target: Target, first: int, count: int, moves: int, key: Key) -> Run:
    """Levels, and an estimate by `first` draws and `count` above each of them.

    Raises:
        ValueError: the event was not reached: its probability is too small, or zero.
    """
    scale_key, pilot, key = jax.random.split(key, 3)
    noise = jax.random.normal(scale_key, (LEAST, target.size), target.dtype)
    scale = jnp.nanstd(_constraints(target, noise), 0) + 1e-12
    pilots, begun = max(count // PILOT, LEAST), max(first // PILOT, LEAST)
    spent = LEAST  # draws, for the scale
    for again in range(2):  # few draws can miss the ways to an event that more of them find
        own = jax.random.fold_in(pilot, again) if again else pilot
        plan, reached = find_levels(target, scale, begun, pilots, moves, own)
        spent += begun + len(plan) * pilots
        if reached:
            break
        begun, pilots = begun * PILOT, pilots * PILOT
    else:
        raise ValueError(
            f"splitting: the event was not reached after {len(plan)} levels, the last of them "
            f"{-plan[-1][0]:.3g} standard deviations of the constraint short of it; it "
            "may be impossible"
        )
    probability, variance, at = split(target, scale, plan, first, count, moves, key)
    spent += first + len(plan) * count + len(at.margin)  # and for the draws themselves
    return Run(scale, plan, probability, variance, at, target.prior.n_steps * spent)


@eqx.filter_jit
def draws_of(target: Target, noise: Float[Array, "draw n"]) -> tuple[Array, Array]:
    """G(e) of each, and log weights: the same of all that are in the event.

    Asked of the draws as they are: the same noise can end elsewhere by rounding, if its path is
    chaotic.
    """
    draws = jax.lax.map(lambda e: draw(target, e), noise, batch_size=BATCH)
    inside = jax.vmap(target.event.holds)(draws)
    return draws, jnp.where(inside, -jnp.log(jnp.maximum(inside.sum(), 1)), -jnp.inf)
