"""The probability of an event under a prior, and draws of the prior given it."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import beta, norm, t

from dasim.conditioning import density, splitting
from dasim.conditioning.chain import CHAIN_CALLS, Draws, guided_chain
from dasim.conditioning.guidance import AbstractGuidance, MomentGuidance, Target, calibrated
from dasim.events.base import AbstractEvent
from dasim.events.regions import AbstractRegion
from dasim.resampling import systematic
from dasim.types import Key

METHODS = "splitting", "smc", "noise-splitting", "mc", "density"
SAMPLERS = "splitting", "smc", "noise-splitting", "score"
ISLANDS = 8  # independent runs, from whose differences the error of an estimate is known
LEVEL = 0.95
BATCH = 250  # draws at a time
CALIBRATION = 512  # draws by which the moments of a constraint are found


class EventProbability(NamedTuple):
    """An estimate of P(E).

    Attributes:
        probability: the estimate; of an event with an error (`Equals`, an observation) a density.
        low, high: ends of a 95 % confidence interval. Eight runs cannot tell of an error beyond a
            factor of ten: an interval as wide as that means that the method does not suit.
        std_error: standard error of log10 of the probability; infinite where it is zero.
        calls: network evaluations, a derivative's product as two.
        draws: draws given the event, `(draw, *shape)`; none where no draw met it.
        log_weights: theirs, normalised, `(draw,)`.
        method: by which it was found.
    """

    probability: float
    low: float
    high: float
    std_error: float
    calls: int
    draws: Float[Array, "draw *shape"]
    log_weights: Float[Array, " draw"]
    method: str


def event_probability(
    prior: eqx.Module,
    event: AbstractEvent,
    key: Key,
    method: str = "splitting",
    cond: Array | None = None,
    n: int = 2000,
    levels: int = 64,
    moves: int = 10,
    guidance: AbstractGuidance | None = None,
    probes: int | None = None,
    first: int | None = None,
) -> EventProbability:
    """P(E) under a diffusion prior, with a confidence interval and draws given the event.

    Args:
        prior: a `DiffusionPrior`, or a `DiffusionTransition`.
        event: of a draw.
        method: "splitting": multilevel splitting in the event's margin; "smc": weights of the
            guided reverse chain (Wu et al. 2023), by far the cheapest where the constraint is
            nearly linear; "noise-splitting": the same
            weights without guidance, by a regression in place of moments; "mc": the share of plain
            draws; "density": the ratio of the densities of the prior and of the guided probability
            flow at the latter's draws (Finzi et al. 2023, sect. 4.3, with weights in place of a
            mean logarithm).
        cond: what the prior's denoiser takes as a condition: of a trajectory prior the first
            states; of a transition `transition.condition(x, t)`.
        n: draws in all, of "splitting" at each level; rounded up to a multiple of 250 for "mc", of
            8 for all but "splitting".
        levels: noise levels of the chain ("smc", "noise-splitting").
        moves: of each chain at a level of the event, of `n / moves` chains ("splitting").
        guidance: the approximate conditional score by default ("smc", "density").
        probes: of the divergence's estimate ("density"); exact for up to 64 variables, else 8.
        first: draws before the first level of the event ("splitting"), `n` by default. More of
            them where an interval is wide: they are what finds the ways to an event.

    Raises:
        ValueError: an unknown method, no draws, fewer first draws than `n`, or an event that
            splitting does not reach.
        TypeError: "splitting" of an event with an error, which has no margin.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1 draw")
    if first is not None and first < n:
        raise ValueError(f"first is {first}, expected at least as many draws as n, {n}")
    _check_margin(event, method)
    target = Target(prior, event, cond)
    each = -(-n // ISLANDS)
    if method in ("smc", "noise-splitting"):
        return _by_chain(target, guidance, levels, each, key, method)
    if method == "splitting":
        return _by_splitting(target, max(first or n, 2), max(n, 2), moves, key)
    if method == "mc":
        return _by_counting(target, each * ISLANDS, key)
    return _by_density(target, guidance or MomentGuidance(), each, probes, key)


def conditional_draws(
    prior: eqx.Module,
    event: AbstractEvent,
    key: Key,
    n: int,
    cond: Array | None = None,
    levels: int = 64,
    guidance: AbstractGuidance | None = None,
    method: str = "splitting",
    moves: int = 10,
) -> Float[Array, "n *shape"]:
    """`n` draws of the prior given the event.

    Args:
        method: "splitting", of twenty times as many draws, of which `n` are picked and moved on;
            "smc" or "noise-splitting", of four times as many, of which `n` are picked by their
            weights; or "score": the guided chain's draws as they come, cheaper, and biased by what
            the guidance gets wrong. For which events each suits: as in `event_probability`.
        levels, guidance, moves: see `event_probability`.

    Raises:
        ValueError: an unknown method, no draws are asked, or none of those made meets the event.
        TypeError: "splitting" of an event with an error, which has no margin.
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1 draw")
    if method not in SAMPLERS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(SAMPLERS)}")
    _check_margin(event, method)
    target = Target(prior, event, cond)
    if method != "score":
        key, pick = jax.random.split(key)
        if method == "splitting":  # a tenth and more of its draws are in the event
            many = 20 * n
            split = splitting.run(target, many, many, moves, key)
            log_weights = jnp.zeros(0)
            if split.probability:  # more moves: the draws of one chain are alike
                move_key, pick = jax.random.split(pick)
                noise = splitting.refresh(target, split.scale, split.at, n, moves, move_key)
                draws, log_weights = splitting.draws_of(target, noise)
        else:
            many = 4 * n
            found = _by_chain(target, guidance, levels, -(-many // ISLANDS), key, method)
            draws, log_weights = found.draws, found.log_weights
        if not jnp.isfinite(log_weights).any():
            raise ValueError(
                f"none of {many} draws meets the event: it is impossible, or so rare that more "
                "of them or more levels are needed"
            )
        return draws[systematic(jnp.exp(log_weights), pick, n)]
    guidance = guidance or MomentGuidance()
    each = min(n, BATCH)
    keys = jax.random.split(key, -(-n // each))
    parts = [_chain(target, guidance, levels, each, k, False, True).u for k in keys]
    return _states(target, jnp.concatenate(parts)[:n])[0]


_chain = eqx.filter_jit(guided_chain)
_calibrated = eqx.filter_jit(calibrated)


@eqx.filter_jit
def _states(target: Target, u):
    """The draws at u, and which of them the event does not exclude.

    Asked of the draws as they are: the same u can end elsewhere by rounding, if its path is
    chaotic.
    """
    states = jax.vmap(target.state)(u)
    return states, jax.vmap(lambda x: _log_prob(target, x))(states) > -jnp.inf


def _log_prob(target: Target, x):
    """log P(E) of a draw, with its own errors alone."""
    return target.event.log_prob(target.event.constraint(x), None)


def _by_chain(target, guidance, levels, each, key, method) -> EventProbability:
    guided, spent = method == "smc", 0
    if guidance is None and guided:
        guidance = MomentGuidance()
    elif guidance is None:
        key, own = jax.random.split(key)
        guidance = _calibrated(target, levels, own, CALIBRATION)
        spent = CALIBRATION * (target.prior.n_steps + levels)
    keys = jax.random.split(key, ISLANDS)
    runs = [_chain(target, guidance, levels, each, k, True, guided) for k in keys]
    draws = Draws(*(jnp.stack(a) for a in zip(*runs, strict=True)))
    log_each = np.asarray(draws.log_evidence, float)
    log_weights = draws.log_weights + draws.log_evidence[:, None]
    size = len(target.constraint(draws.u[0, 0]))
    calls = spent + each * ISLANDS * levels * (CHAIN_CALLS + guidance.calls(size))
    return _of_islands(target, log_each, calls, draws.u, log_weights, method)


def _has_density(event: AbstractEvent) -> bool:
    """Whether an event has an error, and hence a density in place of a probability."""
    return not isinstance(event, AbstractRegion) or bool(event.parts().soft)


def _check_margin(event: AbstractEvent, method: str):
    if method == "splitting" and _has_density(event):
        raise TypeError(
            "splitting: an event with an error (Equals, an observation) has a density, and no "
            "margin; take method='smc'"
        )


def _of_islands(target, log_each, calls, u, log_weights, method) -> EventProbability:
    """The mean of independent unbiased estimates; Student's interval for its logarithm."""
    draws, inside = _states(target, u.reshape(-1, u.shape[-1]))
    log_weights = jnp.where(inside, log_weights.reshape(-1), -jnp.inf)
    if not jnp.isfinite(log_weights).any():
        draws, log_weights = draws[:0], log_weights[:0]
    top = log_each.max()
    if not np.isfinite(top):
        return EventProbability(0.0, 0.0, 1.0, np.inf, calls, draws, log_weights, method)
    each = np.exp(log_each - top)
    mean, error = each.mean(), each.std(ddof=1) / len(each) ** 0.5
    relative = error / mean
    factor = np.exp(t.ppf(0.5 + LEVEL / 2, len(each) - 1) * relative)
    most = math.inf if _has_density(target.event) else 1.0
    probability = float(np.exp(top) * mean)
    return EventProbability(
        min(probability, most),
        float(probability / factor),
        min(float(probability * factor), most),
        float(relative / np.log(10)),
        calls,
        draws,
        jax.nn.log_softmax(log_weights),
        method,
    )


def _by_splitting(target, first, n, moves, key) -> EventProbability:
    _, plan, probability, variance, at, calls = splitting.run(target, first, n, moves, key)
    draws, log_weights = splitting.draws_of(target, at.noise)
    if probability == 0:
        none = draws[:0], log_weights[:0]
        return EventProbability(0.0, 0.0, 1.0, np.inf, calls, *none, "splitting")
    error = math.sqrt(math.log1p(variance))
    if plan:
        factor = math.exp(t.ppf(0.5 + LEVEL / 2, max(1 / variance - 1, 1)) * error)
        low, high = probability / factor, min(probability * factor, 1.0)
    else:
        low, high = _of_a_count(int((at.margin >= 0).sum()), first)
    error = error / math.log(10)
    return EventProbability(probability, low, high, error, calls, draws, log_weights, "splitting")


def _of_a_count(k: int, m: int) -> tuple[float, float]:
    """The interval of Clopper and Pearson for a share of which k of m were counted."""
    low = float(beta.ppf((1 - LEVEL) / 2, k, m - k + 1)) if k else 0.0
    high = float(beta.ppf((1 + LEVEL) / 2, k + 1, m - k)) if k < m else 1.0
    return low, high


@eqx.filter_jit
def _counted(target: Target, key: Key):
    """Plain draws, and log P(E) of each."""
    noise = jax.random.normal(key, (BATCH, target.size), target.dtype)
    draws = jax.vmap(lambda e: splitting.draw(target, e))(noise)
    seen = jax.vmap(lambda x: _log_prob(target, x))(draws)
    return draws, jnp.where(jnp.isnan(seen), -jnp.inf, seen)


def _by_counting(target, count, key) -> EventProbability:
    log_probs, kept = [], []
    for k in jax.random.split(key, -(-count // BATCH)):
        draws, seen = _counted(target, k)
        log_probs.append(np.asarray(seen))
        kept.append(np.asarray(draws[np.isfinite(log_probs[-1])]))
    seen = np.concatenate(log_probs).astype(float)
    calls, draws = len(seen) * target.prior.n_steps, jnp.asarray(np.concatenate(kept))
    log_weights = jax.nn.log_softmax(jnp.asarray(seen[np.isfinite(seen)]))
    share, m = np.exp(seen), len(seen)
    mean = float(share.mean())
    if not _has_density(target.event):
        k = int(share.sum())
        low, high = _of_a_count(k, m)
        error = np.sqrt((1 - mean) / k) if k else np.inf
    elif mean == 0:
        low, high, error = 0.0, np.inf, np.inf
    else:
        error = share.std(ddof=1) / m**0.5 / mean
        factor = np.exp(norm.ppf(0.5 + LEVEL / 2) * error)
        low, high = mean / factor, mean * factor
    std_error = float(error / np.log(10))
    return EventProbability(
        mean, float(low), float(high), std_error, calls, draws, log_weights, "mc"
    )


def _by_density(target, guidance, each, probes, key) -> EventProbability:
    if probes is None and target.size > density.EXACT:
        probes = 8
    keys = jax.random.split(key, ISLANDS)
    parts = [_ratios(target, guidance, probes, jax.random.split(k, each)) for k in keys]
    u, log_weights, steps, more = (jnp.stack(a) for a in zip(*parts, strict=True))
    log_each = np.asarray(jax.nn.logsumexp(log_weights, 1) - np.log(each), float)
    # Heun's two stages; each a point and a product with each probe
    products = 2 * (target.size if probes is None else probes)
    size = len(target.constraint(u[0, 0]))
    calls = 2 * int(steps.sum()) * (guidance.calls(size) * (1 + products))
    calls += 2 * int(more.sum()) * (1 + products)
    return _of_islands(target, log_each, calls, u, log_weights, "density")


@eqx.filter_jit
def _ratios(target: Target, guidance: AbstractGuidance, probes: int | None, keys):
    """Guided draws, log p / q of each where it meets the event, and the solvers' steps."""

    def one(key):
        draw_key, density_key = jax.random.split(key)
        v, log_q, steps = density.guided_draw(target, guidance, draw_key, probes)
        log_p, more = density.log_density(target, v, density_key, probes)
        level = target.prior.schedule.levels(8)[-2]
        u = v * jnp.sqrt(1 + level**2)
        log_weight = log_p - log_q + target.event.log_prob(target.constraint(u), None)
        return u, jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight), steps, more

    return jax.vmap(one)(keys)
