r"""The conditional score filter: a Kalman update inside every denoising step.

With x the ancestor and x' the state of the cycle, the filter samples both factors of

    p(x', x | y_1:k+1) = p(x | y_1:k+1) p(x' | x, y_k+1)

by the transport of `dasim.filters.guided`. Stage one moves each ancestor under the prior
N(m, P) of the last analysis ensemble, P localised, and the event y = h(mean(x)) with error
covariance R + H Q H^T. Stage two draws x' from the transition guided by the same event.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import DenseCovariance, anomalies, flatten, inflate
from dasim.events import GaussianEvent
from dasim.filters.base import (
    AbstractFilter,
    check_ensemble,
    describe,
    propagate,
)
from dasim.filters.guided import condition, guide, smooth_constraint, surprise, transport
from dasim.filters.inflation import check_factor
from dasim.localization import Localization
from dasim.priors.schedules import AbstractSchedule, VESchedule

# a learned correction acts at all levels at which the prior was trained
GUIDE_SCHEDULE = VESchedule()


class ConditionalScoreFilter(AbstractFilter):
    """Conditions ancestors and transition on the observations as an event.

    Attributes:
        inflation: factor on the anomalies of the ancestors.
        localization: taper of the ancestors' covariance, or None.
        encoded: share of a member's own latent in the variance of its start, 0 to 1; the rest
            is drawn anew from N(m, P). 1 keeps the structure of the ensemble.
        levels: noise levels of stage one.
        guide_levels: noise levels of stage two.
        relinearizations: linearisations at each level.
        first_iterations: linearisations at s = infinity, which all members share.
        adaptive: widen the ancestors' prior in a cycle whose observations it cannot explain.
        cap: largest ratio of a correction's whitened length to its expected one.
        schedule: the levels of stage one, relative to the prior's spread.
    """

    inflation: Float[Array, ""] = eqx.field(default=1.0, converter=check_factor)
    localization: Localization | None = None
    encoded: float = eqx.field(static=True, default=1.0)
    levels: int = eqx.field(static=True, default=3)
    guide_levels: int = eqx.field(static=True, default=8)
    relinearizations: int = eqx.field(static=True, default=1)
    first_iterations: int = eqx.field(static=True, default=5)
    adaptive: bool = eqx.field(static=True, default=True)
    cap: float = 4.0
    schedule: AbstractSchedule = VESchedule(sigma_min=0.15, sigma_max=0.8)

    def __check_init__(self):
        if not 0 <= self.encoded <= 1:
            raise ValueError(f"encoded is {self.encoded}, expected a share from 0 to 1")
        for name in ("levels", "guide_levels", "relinearizations", "first_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")

    def init(self, ensemble, key):
        return check_ensemble(ensemble)

    def step(self, transition, observation, state, obs, key):
        forecast_key, latent_key, guide_key = jax.random.split(key, 3)
        t = obs.time - transition.interval
        event = observation.event(obs)
        if not isinstance(event, GaussianEvent):
            raise TypeError(
                "the conditional score filter needs Gaussian observation errors, not "
                f"{type(observation.error).__name__}"
            )
        forecast = propagate(transition, state, t, forecast_key)
        inflated = inflate(state, self.inflation.astype(state.dtype))
        ancestors = self._smooth(transition, event, inflated, t, latent_key)
        levels = GUIDE_SCHEDULE.levels(self.guide_levels)
        keys = jax.random.split(guide_key, len(state))
        guided = jax.vmap(
            lambda x, k: guide(transition, x, t, event, levels, k, self.relinearizations, self.cap)
        )(ancestors, keys)
        analysis = jnp.where(obs.mask.any(), guided, forecast)
        return analysis, describe(event, forecast, analysis, obs)

    def _smooth(self, transition, event, ensemble, t, key):
        """Stage one: draws of p(x | y)."""
        members = flatten(ensemble)
        mean, x = anomalies(members)
        cov = x.T @ x
        if self.localization is not None:
            cov = cov * self.localization.state_state.astype(x.dtype)
        start = members - mean
        if self.encoded < 1:
            noise = jax.random.normal(key, members.shape, members.dtype)
            fresh = jax.vmap(DenseCovariance.from_matrix(cov).sqrt)(noise)
            start = self.encoded**0.5 * start + (1 - self.encoded) ** 0.5 * fresh
        levels = self.schedule.levels(self.levels).astype(members.dtype)
        constraint = smooth_constraint(transition, event, t, ensemble.shape[1:])

        def solve(xhat, v, factor=1.0, iterations=self.relinearizations):
            def apply(m):
                return factor * (cov @ m)

            return condition(xhat, v, apply, event, constraint, iterations, self.cap)

        # at s = infinity every latent has the same xhat, so many linearisations cost little
        factor = jnp.ones((), x.dtype)
        first = solve(mean, 1.0, factor, self.first_iterations)
        if self.adaptive:
            factor = surprise(first, event.mask.sum())
            first = solve(mean, 1.0, factor, self.first_iterations)
        start = jnp.sqrt(factor) * start
        smoothed = jax.vmap(
            lambda y: transport(y, mean, first, lambda xhat, v: solve(xhat, v, factor), levels)
        )(start)
        return smoothed.reshape(ensemble.shape)
