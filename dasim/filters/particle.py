r"""The bootstrap particle filter, regularised where asked.

Gordon, Salmond and Smith (1993): members are drawn from the transition and weighted by the
likelihood; systematic resampling (Kitagawa 1996) when the effective sample size
1 / sum(w^2) falls below a fraction of the ensemble. Regularisation (Musso, Oudjane and Le Gland
2001) moves the copies apart by draws from N(0, b^2 N^(-2 / (n + 4)) P), P the unbiased weighted
sample covariance: a deterministic model needs it.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import flatten
from dasim.filters.base import AbstractFilter, check_ensemble, constraints, describe, propagate
from dasim.filters.gaussian import thin
from dasim.resampling import systematic
from dasim.types import Ensemble


class Particles(NamedTuple):
    """A weighted ensemble."""

    ensemble: Ensemble
    log_weights: Float[Array, " member"]


def equally_weighted(ensemble: Ensemble) -> Particles:
    """Particles of equal weight."""
    n = ensemble.shape[0]
    return Particles(ensemble, jnp.full(n, -jnp.log(n), ensemble.dtype))


def weighted_anomalies(
    members: Float[Array, "member n"], weights: Float[Array, " member"]
) -> tuple[Float[Array, " n"], Float[Array, "member n"]]:
    """The weighted mean, and anomalies x with x^T x the unbiased weighted covariance.

    The unbiased form keeps its width when one member takes nearly all weight; when it takes all,
    only the unweighted covariance is left.
    """
    mean = weights @ members
    weights = jnp.where(jnp.sum(weights * (1 - weights)) > 1e-9, weights, 1 / len(weights))
    shares = weights / jnp.sum(weights * (1 - weights))
    return mean, jnp.sqrt(shares)[:, None] * (members - weights @ members)


def kernel_width(members: int, size: int) -> float:
    """Rule-of-thumb width of a kernel density of `members` points in `size` dimensions."""
    return members ** (-1 / (size + 4))


class BootstrapParticleFilter(AbstractFilter):
    """Importance sampling and resampling; consistent as the number of members grows.

    It needs a transition with noise, or a bandwidth: under a deterministic one resampled members
    stay equal. `info.analysis` is always resampled to equal weights; the state keeps the weights.

    Attributes:
        threshold: resample below this fraction of the ensemble size, in (0, 1].
        bandwidth: factor on the rule-of-thumb width by which copies are moved apart; 0 for none.
    """

    threshold: float = eqx.field(static=True, default=0.5)
    bandwidth: Float[Array, ""] = eqx.field(default=0.0, converter=lambda b: jnp.asarray(b, float))

    def __check_init__(self):
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}, expected a fraction in (0, 1]")
        if not self.bandwidth >= 0:
            raise ValueError(f"bandwidth is {self.bandwidth}, expected a factor of at least 0")

    def init(self, ensemble, key):
        return equally_weighted(check_ensemble(ensemble))

    def step(self, transition, observation, state, obs, key):
        forecast_key, resample_key, jitter_key = jax.random.split(key, 3)
        forecast = propagate(
            transition, state.ensemble, obs.time - transition.interval, forecast_key
        )
        obs = observation.screened(obs, forecast)
        event = observation.event(obs)
        log_likelihood = jax.vmap(lambda c: event.log_prob(c, None))(constraints(event, forecast))
        log_weights = state.log_weights + log_likelihood
        log_evidence = jax.nn.logsumexp(log_weights)
        log_weights = log_weights - log_evidence
        weights = jnp.exp(log_weights)
        n = len(weights)
        index = systematic(weights, resample_key)
        chosen = self._spread(forecast, weights, index, jitter_key)
        resample = 1 / jnp.sum(weights**2) < self.threshold * n
        kept = Particles(
            jnp.where(resample, chosen, forecast),
            jnp.where(resample, jnp.full_like(weights, -jnp.log(n)), log_weights),
        )
        # equal weights up to rounding: nothing to resample
        even = jnp.ptp(log_weights) < 1e-6
        info = describe(event, forecast, jnp.where(even, forecast, chosen), obs)
        return kept, info._replace(log_evidence=log_evidence)

    def _spread(self, forecast, weights, index, key):
        """The chosen members, those that are copies moved apart."""
        members = flatten(forecast)
        copy = jnp.zeros(len(index), bool).at[1:].set(index[1:] == index[:-1])
        copy = copy | jnp.roll(copy, -1).at[-1].set(False)
        width = self.bandwidth.astype(members.dtype) * kernel_width(*members.shape)
        x = thin(weighted_anomalies(members, weights)[1])
        noise = width * jax.random.normal(key, (len(index), len(x)), x.dtype) @ x
        chosen = members[index]
        moved = copy[:, None] & (width > 0)
        return jnp.where(moved, chosen + noise, chosen).reshape(forecast.shape)
