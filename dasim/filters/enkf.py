r"""The stochastic ensemble Kalman filter with perturbed observations.

Evensen (1994); Burgers, van Leeuwen and Evensen (1998), eqs. 13-16:

    x_i <- x_i + K (y + e_i - h(x_i)),    K = (rho_xy o P_xy) (rho_yy o P_yy + R)^-1.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim.covariance import Localization, anomalies
from dasim.filters.base import AbstractFilter, check_ensemble, check_inflation, kalman_step


class StochasticEnKF(AbstractFilter):
    """Every member assimilates its own perturbed observations.

    The perturbations are centred, so that the mean is that of the Kalman filter.

    Attributes:
        inflation: factor on the prior anomalies.
        localization: tapers of the covariances, or None.
    """

    inflation: float = eqx.field(default=1.0, converter=check_inflation)
    localization: Localization | None = None

    def init(self, ensemble, key):
        return check_ensemble(ensemble)

    def step(self, transition, observation, state, obs, key):
        forecast_key, noise_key = jax.random.split(key)

        def analyse(members, c, event):
            n = members.shape[0]
            _, x = anomalies(members)
            _, y = anomalies(c)
            xy, yy = x.T @ y, y.T @ y
            if self.localization is not None:
                xy, yy = xy * self.localization.state_obs, yy * self.localization.obs_obs
            noise = jax.vmap(event.cov.sqrt)(jax.random.normal(noise_key, c.shape, c.dtype))
            noise = jnp.sqrt(n / (n - 1.0)) * (noise - noise.mean(0))
            misfit = jax.vmap(event.innovation)(c - jnp.where(event.mask, noise, 0.0))
            gain_misfit = jax.scipy.linalg.solve(yy + event.cov.dense(), misfit.T, assume_a="pos")
            return members + (xy @ gain_misfit).T

        return kalman_step(
            analyse, self.inflation, transition, observation, state, obs, forecast_key
        )
