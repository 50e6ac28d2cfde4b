"""The ancestors of the conditional score filter, and stage one as a whole."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dasim.covariance import anomalies, flatten, inflate
from dasim.filters.misfits import sampling_inflation, surprise
from dasim.filters.modes import Modes, Product, Smoothing, find_modes, move, near_linear
from dasim.filters.square_root import rotate
from dasim.localization import Localization
from dasim.types import Ensemble, Key

SURE = 4.0  # a factor on the prior up to which nobody asks whether the linear problem still holds
STEADY, SUDDEN = 10, 100.0  # the largest factor where x' is a function of x, after calm cycles
DOUBT = 160  # members at which the logarithms of the modes' masses count by half


class Ancestors(NamedTuple):
    """The ensemble at the beginning of the window, equally weighted.

    Attributes:
        age: cycles from there to the last one.
        calm: cycles since an event was too sharp for the filter.
        inflation: factor on the covariance that the last cycle asks for.
    """

    ensemble: Ensemble
    age: Int[Array, ""]
    calm: Int[Array, ""]
    inflation: Float[Array, ""]


def smooth(
    problem: Smoothing,
    state: Ancestors,
    key: Key,
    cov: Callable[[Float[Array, "member n"]], Product],
    starts: int,
    iterations: int,
    inflation: Float[Array, ""] | None = None,
    rotation: bool = True,
    adaptive: bool = True,
    certain: bool = True,
) -> tuple[Ensemble, Float[Array, ""], Bool[Array, ""]]:
    """Stage one: draws of p(x | y), the next inflation, and whether the event was too sharp.

    Args:
        problem: the event as a function of the ancestors.
        cov: function of scaled anomalies to products with the prior's covariance.
        starts: from how many points modes are sought, the mean among them.
        iterations: steps of each search.
        inflation: factor on the anomalies; None for the one that `state` asks for.
        rotation: turn the anomalies at random before they are moved.
        adaptive: widen the prior where it cannot explain the observations.
        certain: the transition has no noise, so that a sudden misfit is the ancestors' own.
    """
    start_key, allocate_key, rotate_key = jax.random.split(key, 3)
    ensemble = state.ensemble
    own = jnp.sqrt(state.inflation) if inflation is None else inflation
    members = flatten(inflate(ensemble, jnp.asarray(own, ensemble.dtype)))
    count = len(members)
    mean, x = anomalies(members)
    product = cov(x)
    chosen = jax.random.permutation(start_key, count)[: starts - 1]
    points = jnp.concatenate([mean[None], members[chosen]])

    trust = count / (count + DOUBT)

    def search(factor) -> Modes:
        scaled = lambda m: factor * product(m)
        return find_modes(problem, mean, scaled, points, iterations, trust)

    one, n_obs = jnp.ones((), x.dtype), problem.event.mask.sum()
    modes = search(one)
    g, white = modes.heaviest
    following = jnp.where(n_obs > 0, sampling_inflation(g, count), state.inflation)

    def holds(factor, modes):
        away = jnp.sqrt(factor) * (members - mean)
        return near_linear(problem, modes, away, n_obs, allocate_key)

    def widen(carry):
        last, _, _ = carry
        factor = jnp.where(last == 1, wanted, jnp.maximum(jnp.sqrt(last), SURE))
        modes = search(factor)
        return factor, modes, (factor <= SURE) | holds(factor, modes)

    wanted, calm = one, jnp.asarray(True)
    if adaptive:
        # a prior on which the linear problem does not hold is wide enough
        calm = holds(one, modes)
        limit = jnp.where(certain & (state.calm >= STEADY), SUDDEN, SURE)
        wanted = jnp.where(calm, surprise(g, white, n_obs, limit), 1.0)
    factor, modes, _ = jax.lax.while_loop(lambda c: ~c[2], widen, (one, modes, wanted <= 1))
    start = jnp.sqrt(factor) * (members - mean)
    if rotation:
        start = rotate(start, rotate_key)
    smoothed, wider = move(problem, modes, start, n_obs, allocate_key, trust)
    return smoothed.reshape(ensemble.shape), following, (wider > 1) | ~calm


def localized(
    x: Float[Array, "member n"],
    localization: Localization | None,
    modulation: Float[Array, "k n"] | None,
) -> Product:
    """Products with the covariance x^T x of scaled anomalies, localised.

    Args:
        modulation: the taper's modes, from which products are made without its matrix.
    """
    if localization is None:
        return lambda m: x.T @ (x @ m)
    if modulation is None:
        cov = (x.T @ x) * localization.state_state.astype(x.dtype)
        return lambda m: cov @ m

    def product(m):
        def one(total, v):
            v = v[:, None].astype(x.dtype)
            return total + v * (x.T @ (x @ (v * m))), None

        return jax.lax.scan(one, jnp.zeros_like(m), modulation)[0]

    return product


def sound(ensemble, key):
    """Indices of the members; of others at random for those that overflowed, if there are any."""
    finite = jnp.isfinite(flatten(ensemble)).all(1)
    rank = jnp.floor(jax.random.uniform(key, finite.shape) * finite.sum()) + 1
    others = jnp.minimum(jnp.searchsorted(jnp.cumsum(finite), rank), len(finite) - 1)
    return jnp.where(finite, jnp.arange(len(finite)), others)
