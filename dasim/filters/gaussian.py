"""Filters that carry a mean and a covariance: what they share."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import anomalies, flatten, solve_definite
from dasim.events import GaussianEvent
from dasim.filters.base import check_ensemble
from dasim.types import Ensemble, Key

# a function and a point to the value there and slopes, `(m,)` and `(m, n)`
Linearize = Callable[[Callable[[Array], Array], Array], tuple[Array, Array]]


class GaussianState(NamedTuple):
    """A normal law of the flat state, and draws from it, which `info` shows.

    The covariance is kept by a root, C = root root^T, so that rounding leaves it semi-definite.
    """

    mean: Float[Array, " n"]
    root: Float[Array, "n n"]
    ensemble: Ensemble

    @property
    def cov(self) -> Float[Array, "n n"]:
        return self.root @ self.root.T


def moments(ensemble: Ensemble) -> GaussianState:
    """The normal law with an ensemble's moments."""
    mean, x = anomalies(flatten(check_ensemble(ensemble)))
    return GaussianState(mean, symmetric_root(x.T @ x), ensemble)


def symmetric_root(cov: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """C^(1/2); what rounding made negative is taken as zero."""
    values, vectors = jnp.linalg.eigh(cov)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T


def thin(x: Float[Array, "member n"]) -> Float[Array, "k n"]:
    """As few rows as may be with the same x^T x: white noise times them has that covariance."""
    return x if x.shape[0] <= x.shape[1] else symmetric_root(x.T @ x)


def draw(mean, root: Float[Array, "n k"], like: Ensemble, key: Key) -> Ensemble:
    """Draws from N(mean, root root^T) whose mean is exact, as many as `like` has, in its shape."""
    members = like.shape[0]
    white = jax.random.normal(key, (members, root.shape[1]), like.dtype)
    white = (white - white.mean(0)) * jnp.sqrt(members / (members - 1.0))
    return (mean + white @ root.T).reshape(like.shape).astype(like.dtype)


def linearize(
    function: Callable[[Float[Array, " n"]], Float[Array, " m"]], x: Float[Array, " n"]
) -> tuple[Float[Array, " m"], Float[Array, "m n"]]:
    """The value and the Jacobian of `function` at x, by whichever mode takes fewer passes."""
    outputs = jax.eval_shape(function, x).shape[0]
    if outputs < x.shape[0]:
        value, pull = jax.vjp(function, x)
        return value, jax.vmap(lambda row: pull(row)[0])(jnp.eye(outputs, dtype=value.dtype))
    value, push = jax.linearize(function, x)
    return value, jax.vmap(push, out_axes=1)(jnp.eye(x.shape[0], dtype=x.dtype))


def secants(
    function: Callable[[Float[Array, " n"]], Float[Array, " m"]],
    x: Float[Array, " n"],
    spread: Float[Array, " #n"] | float,
) -> tuple[Float[Array, " m"], Float[Array, "m n"]]:
    """The value at x, and the slopes between x_i - spread_i and x_i + spread_i, all else equal.

    With the standard deviations as `spread`, the statistical linearisation by central
    differences of Norgaard, Poulsen and Ravn (2000, Automatica 36, sect. 3); no derivative is
    taken.
    """
    smallest = jnp.finfo(x.dtype).eps ** 0.5 * jnp.maximum(jnp.abs(x), 1e-3)
    step = jnp.broadcast_to(jnp.maximum(spread, smallest), x.shape).astype(x.dtype)

    def moved(sign):
        return jax.vmap(lambda d: function(x + sign * d))(jnp.diag(step))

    return function(x), ((moved(1.0) - moved(-1.0)) / (2 * step[:, None])).T


def kalman_update(mean, cov, event: GaussianEvent) -> tuple[Array, Array]:
    """Posterior moments, the event linearised at the mean; Joseph's form of the covariance."""
    c, h = linearize(event.constraint, mean)
    r = event.cov.dense()
    gain = solve_definite(h @ cov @ h.T + r, h @ cov).T
    left = jnp.eye(mean.size, dtype=mean.dtype) - gain @ h
    r = jnp.where(event.mask[:, None] & event.mask, r, 0.0)
    return mean + gain @ event.innovation(c), left @ cov @ left.T + gain @ r @ gain.T
