r"""The local ensemble transform Kalman filter.

Hunt, Kostelich and Szunyogh (2007): every state variable has its own analysis, in which the
observation precision is tapered by distance, R_i^-1 = rho_i^(1/2) R^-1 rho_i^(1/2). All local
analyses run as one batch.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim.covariance import Localization, anomalies
from dasim.filters.base import AbstractFilter, check_ensemble, check_inflation, kalman_step
from dasim.filters.square_root import rotate, transform


class LETKF(AbstractFilter):
    """Local square-root analyses.

    Attributes:
        inflation: factor on the prior anomalies.
        localization: tapers of the observation precision, or None for global analyses.
        rotation: turn the analysis anomalies at random, all variables alike.
    """

    inflation: float = eqx.field(default=1.0, converter=check_inflation)
    localization: Localization | None = None
    rotation: bool = eqx.field(static=True, default=False)

    def init(self, ensemble, key):
        return check_ensemble(ensemble)

    def step(self, transition, observation, state, obs, key):
        forecast_key, rotation_key = jax.random.split(key)

        def analyse(members, c, event):
            mean, x = anomalies(members)
            c_mean, y = anomalies(c)
            d = event.innovation(c_mean)
            taper = jnp.ones((x.shape[1], d.size), x.dtype)
            if self.localization is not None:
                taper = self.localization.state_obs.astype(x.dtype)
            white = jax.vmap(event.cov.whiten)

            def local(x_i, taper_i):
                root = jnp.sqrt(taper_i)
                increment, x_i = transform(
                    white(y * root), event.cov.whiten(d * root), x_i[:, None]
                )
                return increment[0], x_i[:, 0]

            increment, x = jax.vmap(local, (1, 0), (0, 1))(x, taper)
            if self.rotation:
                x = rotate(x, rotation_key)
            return mean + increment + jnp.sqrt(len(x) - 1.0) * x

        return kalman_step(
            analyse, self.inflation, transition, observation, state, obs, forecast_key
        )
