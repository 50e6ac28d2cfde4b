"""Baselines that need no forecast: the climatology, and optimal interpolation on it.

Optimal interpolation (Gandin 1963) is the Kalman update of the climate's normal law, in each
cycle anew. A method that is worse than these is of no use.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.filters.base import (
    AbstractFilter,
    check_ensemble,
    describe,
    flat_event,
    gaussian_event,
)
from dasim.filters.gaussian import draw, kalman_update, symmetric_root
from dasim.types import Ensemble, Key


class AbstractClimateFilter(AbstractFilter):
    """A filter whose background is the climate's normal law, in every cycle.

    Attributes:
        mean: `(n,)`; cov: `(n, n)`, of the flat state.
    """

    mean: Float[Array, " n"]
    cov: Float[Array, "n n"]

    def init(self, ensemble, key) -> Ensemble:
        return check_ensemble(ensemble)

    def background(self, like: Ensemble, key: Key):
        """Mean and covariance, and draws of them."""
        mean, cov = self.mean.astype(like.dtype), self.cov.astype(like.dtype)
        return mean, cov, draw(mean, symmetric_root(cov), like, key)


class Climatology(AbstractClimateFilter):
    """The climate's normal law, whatever is observed."""

    def step(self, transition, observation, state, obs, key):
        _, _, ensemble = self.background(state, key)
        event = gaussian_event(observation, obs)
        return ensemble, describe(event, ensemble, ensemble, obs)


class OptimalInterpolation(AbstractClimateFilter):
    """The climate's normal law conditioned on this cycle's observations alone."""

    def step(self, transition, observation, state, obs, key):
        forecast_key, analysis_key = jax.random.split(key)
        mean, cov, forecast = self.background(state, forecast_key)
        event = gaussian_event(observation, obs)
        after, cov = kalman_update(mean, cov, flat_event(event, state.shape[1:]))
        analysis = draw(after, symmetric_root(cov), state, analysis_key)
        analysis = jnp.where(obs.mask.any(), analysis, forecast)
        return analysis, describe(event, forecast, analysis, obs)
