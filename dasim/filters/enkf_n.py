r"""The finite-size ensemble Kalman filter, EnKF-N.

Bocquet (2011); Bocquet, Raanes and Hannart (2015). The moments of the forecast are themselves
uncertain, as N draws leave them; integrating over them makes the inflation l of the anomalies
part of the analysis. In the dual form it is the least of

    d^T (R + l^2 H P H^T)^-1 d + (N - 1) (e / l^2 + c ln l^2),

with e = (N + 1) / (N m) and c = N m / (N - 1), where m = ((N + 1) (N - 1) / N^2)^(a / 2) and a is
the mean of 1 / (1 + g_j) over the eigenvalues g_j of the whitened H P H^T: so corrected, an
observation that tells nothing inflates nothing (their sect. 4.2). `certainty` multiplies both,
as for an ensemble of `certainty` N members.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import anomalies
from dasim.filters.base import AbstractEnsembleFilter
from dasim.filters.inflation import AbstractInflation, as_inflation
from dasim.filters.square_root import assemble, transform

LOG_RANGE, POINTS = (-1.5, 4.0), 64  # of the search for log l


def hyperprior(g: Float[Array, " k"], n: int, certainty) -> tuple[Array, Array]:
    """The constants e and c of `n` members, for the eigenvalues `g` (others being zero)."""
    e, c = (n + 1) / n, n / (n - 1)
    weight_of_prior = (jnp.sum(1 / (1 + g)) + n - g.size) / n
    correction = (e / c) ** (0.5 * weight_of_prior)
    return certainty * e / correction, certainty * c * correction


def finite_size_inflation(g, d2, n: int, certainty) -> Float[Array, ""]:
    """The inflation l of the anomalies of `n` members.

    Args:
        g: eigenvalues of the whitened H P H^T, `(k,)`, those left out being zero.
        d2: squares of the components of the whitened innovation along its eigenvectors, `(k,)`.
        n: number of members.
        certainty: see the module.
    """
    e, c = hyperprior(g, n, certainty)

    def cost(log_l):
        l2 = jnp.exp(2 * log_l)[:, None]
        misfit = jnp.sum(d2 / (1 + l2 * g), -1)
        return misfit + (n - 1) * (e / l2[:, 0] + 2 * c * log_l)

    low, high = LOG_RANGE
    for _ in range(3):  # each round looks between the neighbours of the last one's least
        grid = low + (high - low) * jnp.linspace(0, 1, POINTS, dtype=g.dtype)
        best = grid[jnp.argmin(cost(grid))]
        width = (high - low) / (POINTS - 1)
        low, high = best - width, best + width
    return jnp.exp(best)


class EnKFN(AbstractEnsembleFilter):
    """The ETKF whose inflation is estimated from each cycle's observations.

    Attributes:
        inflation: further inflation; none is needed where the model is right.
        certainty: DAPPER's `xN`: 1 for an ensemble no better than N random draws, more for one
            of a nearly linear and deterministic system.
        rotation: turn the analysis anomalies at random.
    """

    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)
    certainty: Float[Array, ""] = eqx.field(default=1.0, converter=lambda c: check_certainty(c))
    rotation: bool = eqx.field(static=True, default=True)

    def analyse(self, members, c, event, key):
        mean, x = anomalies(members)
        c_mean, y = anomalies(c)
        y = jax.vmap(event.cov.whiten)(y)
        d = event.cov.whiten(event.innovation(c_mean))
        certainty = self.certainty.astype(x.dtype)
        increment, x = transform(
            y, d, x, lambda g, d2: finite_size_inflation(g, d2, len(x), certainty)
        )
        return assemble(mean + increment, x, self.rotation, key)


def check_certainty(value) -> Float[Array, ""]:
    """A positive certainty as an array."""
    if not value > 0:
        raise ValueError(f"certainty is {value}, expected a positive number (1 for N draws)")
    return jnp.asarray(value, float)
