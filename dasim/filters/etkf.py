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

from dasim.covariance import Localization, anomalies
from dasim.filters.base import AbstractFilter, check_ensemble, check_inflation, kalman_step
from dasim.filters.square_root import rotate, transform


def _root(matrix):
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T


class ETKF(AbstractFilter):
    """A deterministic square-root analysis.

    Attributes:
        inflation: factor on the prior anomalies.
        localization: tapers of the covariances, or None.
        rotation: turn the analysis anomalies at random.
    """

    inflation: float = eqx.field(default=1.0, converter=check_inflation)
    localization: Localization | None = None
    rotation: bool = eqx.field(static=True, default=True)

    def init(self, ensemble, key):
        return check_ensemble(ensemble)

    def step(self, transition, observation, state, obs, key):
        forecast_key, rotation_key = jax.random.split(key)

        def analyse(members, c, event):
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
                increment = xy @ jax.scipy.linalg.solve(s, d, assume_a="pos")
                root = _root(s)
                inner = jnp.linalg.solve(root + _root(r), y.T)
                x = x - (xy @ jnp.linalg.solve(root, inner)).T
            if self.rotation:
                x = rotate(x, rotation_key)
            return mean + increment + jnp.sqrt(len(x) - 1.0) * x

        return kalman_step(
            analyse, self.inflation, transition, observation, state, obs, forecast_key
        )
