r"""A Gaussian-mixture filter.

Anderson and Anderson (1999); Hoteit et al. (2008). Every member is the centre of a normal kernel
of covariance b^2 P, b the `bandwidth` times N^(-1/(n + 4)), and the mixture keeps the variance of
the forecast, its centres being drawn to the mean by sqrt(1 - b^2). Bayes' rule weighs kernel i by
N(y; h(x_i), b^2 HPH^T + R) and moves it by a Kalman update; members of the analysis are drawn
from the mixture. Between the EnKF (b = 1) and the particle filter (b = 0).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import anomalies
from dasim.filters.base import AbstractEnsembleFilter
from dasim.filters.enkf import kalman_increments
from dasim.filters.gaussian import thin
from dasim.filters.inflation import AbstractInflation, as_inflation
from dasim.filters.particle import kernel_width
from dasim.resampling import systematic


class GaussianMixtureFilter(AbstractEnsembleFilter):
    """Kalman updates of kernels, weighted and resampled in every cycle.

    Attributes:
        bandwidth: factor on the rule-of-thumb width of the kernels, positive.
        inflation: a factor on the prior anomalies, or an inflation.
    """

    bandwidth: Float[Array, ""] = eqx.field(default=1.0, converter=lambda b: _check(b))
    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)

    def analyse(self, members, c, event, key):
        noise_key, error_key, resample_key = jax.random.split(key, 3)
        n, size = members.shape
        b = jnp.minimum(self.bandwidth * kernel_width(n, size), 1.0)
        b = b.astype(members.dtype)
        mean, x = anomalies(members)
        centres = mean + jnp.sqrt(1 - b**2) * (members - mean)
        observe = jax.vmap(event.constraint)
        _, y = anomalies(c)
        log_weights = jax.vmap(lambda v: event.log_prob_anomalies(v, b * y))(observe(centres))
        chosen = systematic(jax.nn.softmax(log_weights), resample_key)
        x = thin(x)
        noise = jax.random.normal(noise_key, (n, len(x)), members.dtype)
        drawn = centres[chosen] + b * noise @ x
        errors = jax.vmap(event.cov.sqrt)(jax.random.normal(error_key, c.shape, c.dtype))
        misfits = jax.vmap(event.innovation)(observe(drawn) - jnp.where(event.mask, errors, 0.0))
        return drawn + kalman_increments(b * members, b * c, misfits, event, None)


def _check(bandwidth):
    if not bandwidth > 0:
        raise ValueError(f"bandwidth is {bandwidth}, expected a positive factor")
    return jnp.asarray(bandwidth, float)
