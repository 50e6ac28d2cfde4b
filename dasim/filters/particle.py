r"""The bootstrap particle filter.

Gordon, Salmond and Smith (1993): members are drawn from the transition and weighted by the
likelihood; systematic resampling (Kitagawa 1996) when the effective sample size
1 / sum(w^2) falls below a fraction of the ensemble.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dasim.filters.base import AbstractFilter, check_ensemble, constraints, describe, propagate
from dasim.types import Ensemble, Key


class Particles(NamedTuple):
    """A weighted ensemble."""

    ensemble: Ensemble
    log_weights: Float[Array, " member"]


def systematic(weights: Float[Array, " member"], key: Key) -> Int[Array, " member"]:
    """Indices of the members that survive; each expects as many copies as its weight is worth."""
    n = weights.shape[0]
    points = (jax.random.uniform(key, dtype=weights.dtype) + jnp.arange(n)) / n
    return jnp.minimum(jnp.searchsorted(jnp.cumsum(weights), points), n - 1)


class BootstrapParticleFilter(AbstractFilter):
    """Importance sampling and resampling; consistent as the number of members grows.

    It needs a transition with noise: under a deterministic one resampled members stay equal.
    `info.analysis` is always resampled to equal weights; the state keeps the weights.

    Attributes:
        threshold: resample below this fraction of the ensemble size, in (0, 1].
    """

    threshold: float = eqx.field(static=True, default=0.5)

    def __check_init__(self):
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}, expected a fraction in (0, 1]")

    def init(self, ensemble, key):
        n = check_ensemble(ensemble).shape[0]
        return Particles(ensemble, jnp.full(n, -jnp.log(n), ensemble.dtype))

    def step(self, transition, observation, state, obs, key):
        forecast_key, resample_key = jax.random.split(key)
        forecast = propagate(
            transition, state.ensemble, obs.time - transition.interval, forecast_key
        )
        event = observation.event(obs)
        log_likelihood = jax.vmap(lambda c: event.log_prob(c, None))(constraints(event, forecast))
        log_weights = state.log_weights + log_likelihood
        log_evidence = jax.nn.logsumexp(log_weights)
        log_weights = log_weights - log_evidence
        weights = jnp.exp(log_weights)
        n = len(weights)
        chosen = forecast[systematic(weights, resample_key)]
        resample = 1 / jnp.sum(weights**2) < self.threshold * n
        kept = Particles(
            jnp.where(resample, chosen, forecast),
            jnp.where(resample, jnp.full_like(weights, -jnp.log(n)), log_weights),
        )
        # equal weights up to rounding: nothing to resample
        even = jnp.ptp(log_weights) < 1e-6
        info = describe(event, forecast, jnp.where(even, forecast, chosen), obs)
        return kept, info._replace(log_evidence=log_evidence)
