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


class Look(NamedTuple):
    """A search for modes.

    Attributes:
        factor: on the prior's covariance; 0 before the first.
        following: the factor of the next one.
        inflation: see `Ancestors`, of the first.
        calm: whether the linear problem held in the first.
        enough: whether it is the last.
    """

    factor: Float[Array, ""]
    following: Float[Array, ""]
    modes: Modes
    inflation: Float[Array, ""]
    calm: Bool[Array, ""]
    enough: Bool[Array, ""]


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

    n_obs = problem.event.mask.sum()
    limit = jnp.where(certain & (state.calm >= STEADY), SUDDEN, SURE)

    def look(at: Look) -> Look:
        """The prior as it is, and wider ones if that one cannot explain the observations."""
        factor, first, modes = at.following, at.factor == 0, search(at.following)
        g, white = modes.heaviest
        asked = jnp.where(first, sampling_inflation(g, count), at.inflation)
        if not adaptive:
            return Look(factor, factor, modes, asked, at.calm, jnp.asarray(True))
        away = jnp.sqrt(factor) * (members - mean)
        holds = near_linear(problem, modes, away, n_obs, allocate_key)
        # a prior on which the linear problem does not hold is wide enough
        wanted = jnp.where(holds, surprise(g, white, n_obs, limit), 1.0)
        then = jnp.where(first, wanted, jnp.maximum(jnp.sqrt(factor), SURE))
        enough = jnp.where(first, wanted <= 1, (factor <= SURE) | holds)
        return Look(factor, then, modes, asked, jnp.where(first, holds, at.calm), enough)

    # one loop for the first look and the others: what is looked at is compiled once
    one, no = jnp.ones((), x.dtype), jnp.asarray(False)
    none = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(search, one))
    begin = Look(jnp.zeros_like(one), one, none, one, jnp.asarray(True), no)
    found = jax.lax.while_loop(lambda at: ~at.enough, look, begin)
    factor, modes, calm = found.factor, found.modes, found.calm
    following = jnp.where(n_obs > 0, found.inflation, state.inflation)
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
