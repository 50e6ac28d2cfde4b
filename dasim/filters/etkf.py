r"""The ensemble transform Kalman filter.

Bishop, Etherton and Majumdar (2001), with the symmetric transform of Hunt et al. (2007) and a
random rotation that keeps the mean (Sakov and Oke 2008). With localisation, the covariances
are tapered in state space and the anomalies are updated by the modified gain of Andrews (1968;
Whitaker and Hamill 2002, eq. 10; for tapered covariances Bishop, Whitaker and Lei 2017):

    x_i' <- x_i' - C S^(-T/2) (S^(1/2) + R^(1/2))^-1 y_i',
    C = rho_xy o P_xy,    S = rho_yy o P_yy + R.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim.covariance import anomalies, solve_definite
from dasim.filters.base import AbstractEnsembleFilter
from dasim.filters.inflation import AbstractInflation, as_inflation
from dasim.filters.square_root import assemble, transform
from dasim.localization import Localization


def _root(matrix):
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T


class ETKF(AbstractEnsembleFilter):
    """A deterministic square-root analysis.

    Attributes:
        inflation: a factor on the prior anomalies, or an inflation.
        localization: tapers of the covariances, or None.
        rotation: turn the analysis anomalies at random.
    """

    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)
    localization: Localization | None = None
    rotation: bool = eqx.field(static=True, default=True)

    def analyse(self, members, c, event, key):
        mean, x = anomalies(members)
        c_mean, y = anomalies(c)
        d = event.innovation(c_mean)
        if self.localization is None:
            white = jax.vmap(event.cov.whiten)
            increment, x = transform(white(y), event.cov.whiten(d), x)
        else:
            r = event.cov.dense()
            xy = x.T @ y * self.localization.state_obs
            s = y.T @ y * self.localization.obs_obs + r
            increment = xy @ solve_definite(s, d)
            root = _root(s)
            inner = jnp.linalg.solve(root + _root(r), y.T)
            x = x - (xy @ jnp.linalg.solve(root, inner)).T
        return assemble(mean + increment, x, self.rotation, key)
