r"""The stochastic ensemble Kalman filter with perturbed observations, and its deterministic kin.

Evensen (1994); Burgers, van Leeuwen and Evensen (1998), eqs. 13-16:

    x_i <- x_i + K (y + e_i - h(x_i)),    K = (rho_xy o P_xy) (rho_yy o P_yy + R)^-1.

The DEnKF (Sakov and Oke 2008, Tellus 60A) moves the mean by K and the anomalies by half of it:

    x_i' <- x_i' - K y_i' / 2.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim.covariance import anomalies, solve_definite
from dasim.filters.base import AbstractEnsembleFilter
from dasim.filters.inflation import AbstractInflation, as_inflation
from dasim.localization import Localization


def kalman_increments(members, c, misfits, event, localization):
    """K applied to each row of `misfits`, `(row, obs)`, with tapered sample covariances."""
    _, x = anomalies(members)
    _, y = anomalies(c)
    xy, yy = x.T @ y, y.T @ y
    if localization is not None:
        xy, yy = xy * localization.state_obs, yy * localization.obs_obs
    solved = solve_definite(yy + event.cov.dense(), misfits.T)
    return (xy @ solved).T.astype(members.dtype)


class StochasticEnKF(AbstractEnsembleFilter):
    """Every member assimilates its own perturbed observations.

    The perturbations are centred, so that the mean is that of the Kalman filter.

    Attributes:
        inflation: a factor on the prior anomalies, or an inflation.
        localization: tapers of the covariances, or None.
    """

    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)
    localization: Localization | None = None

    def analyse(self, members, c, event, key):
        n = members.shape[0]
        noise = jax.vmap(event.cov.sqrt)(jax.random.normal(key, c.shape, c.dtype))
        noise = jnp.sqrt(n / (n - 1.0)) * (noise - noise.mean(0))
        misfits = jax.vmap(event.innovation)(c - jnp.where(event.mask, noise, 0.0))
        return members + kalman_increments(members, c, misfits, event, self.localization)


class DEnKF(AbstractEnsembleFilter):
    """The deterministic EnKF: half the gain for the anomalies, a first-order square root.

    Its analysis covariance exceeds the Kalman filter's by K H P H^T K^T / 4, which does some of
    inflation's work.

    Attributes:
        inflation: a factor on the prior anomalies, or an inflation.
        localization: tapers of the covariances, or None.
    """

    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)
    localization: Localization | None = None

    def analyse(self, members, c, event, key):
        c_mean = c.mean(0)
        misfits = event.innovation(c_mean) - 0.5 * (c - c_mean)
        return members + kalman_increments(members, c, misfits, event, self.localization)
