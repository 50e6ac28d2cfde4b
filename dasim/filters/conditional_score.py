r"""The conditional score filter: a Kalman update inside every denoising step.

With x the ancestor and x' the state of the cycle, the filter samples the factors of

    p(x', x | y_1:k+1) = p(x | y_1:k+1) p(x' | x, y_k+1)

Small states take weighted draws of both at once (`dasim.filters.twisted`), which make the filter
consistent. For others it samples them in turn, by the transport of `dasim.filters.guided`: stage
one moves each ancestor under the prior N(m, P) of the last analysis ensemble, P localised, and
the event y = h(mean(x)) with error covariance R + H Q H^T; stage two draws x' from the
transition guided by the same event.
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
from dasim.filters.particle import Particles, equally_weighted, systematic
from dasim.filters.twisted import principal_plane, reduce, weighted_draws
from dasim.localization import Localization
from dasim.priors.schedules import AbstractSchedule, VESchedule

WEIGHTED_SIZE = 4  # largest state that is weighted unless told otherwise
EVENNESS = 0.5  # of the members' weights: half of their logarithm is resampled, half is kept
# a learned correction acts at all levels at which the prior was trained
GUIDE_SCHEDULE = VESchedule()


class ConditionalScoreFilter(AbstractFilter):
    """Conditions ancestors and transition on the observations as an event.

    With weights, `inflation`, `bandwidths` and `draws` are all that matters.

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
        weighted: importance weights with the exact likelihood; None for states of at most four
            variables without localisation. Larger states take more members than one has.
        bandwidths: widths of the kernels about each member, relative to the ensemble's spread.
        draws: weighted draws of each member and kernel.
        weighted_levels: noise levels between which weighted draws are linearised anew.
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
    weighted: bool | None = eqx.field(static=True, default=None)
    bandwidths: tuple[float, ...] = eqx.field(
        static=True, default=(0.15, 0.4, 0.8), converter=tuple
    )
    draws: int = eqx.field(static=True, default=4)
    weighted_levels: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if not 0 <= self.encoded <= 1:
            raise ValueError(f"encoded is {self.encoded}, expected a share from 0 to 1")
        counts = "levels", "guide_levels", "relinearizations", "first_iterations"
        for name in (*counts, "draws", "weighted_levels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.bandwidths or not all(0 < b <= 1 for b in self.bandwidths):
            raise ValueError(f"bandwidths are {self.bandwidths}, expected numbers in (0, 1]")
        if self.weighted and self.localization is not None:
            raise ValueError("weights are of whole states: leave localization or weighted out")

    def init(self, ensemble, key):
        n = flatten(check_ensemble(ensemble)).shape[1]
        small = n <= WEIGHTED_SIZE and self.localization is None
        if self.weighted or (self.weighted is None and small):
            return equally_weighted(ensemble)
        return ensemble

    def step(self, transition, observation, state, obs, key):
        forecast_key, latent_key, guide_key = jax.random.split(key, 3)
        t = obs.time - transition.interval
        event = observation.event(obs)
        if not isinstance(event, GaussianEvent):
            raise TypeError(
                "the conditional score filter needs Gaussian observation errors, not "
                f"{type(observation.error).__name__}"
            )
        if isinstance(state, Particles):
            return self._weighted_step(transition, event, state, t, obs, key)
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

    def _weighted_step(self, transition, event, state, t, obs, key):
        """Both factors at once, by weighted draws."""
        forecast_key, draw_key, keep_key, show_key = jax.random.split(key, 4)
        count = len(state.ensemble)
        ahead = state._replace(ensemble=propagate(transition, state.ensemble, t, forecast_key))
        factor = self.inflation.astype(state.ensemble.dtype)
        finite = self.weighted_levels - 1
        levels = self.schedule.levels(finite) if finite else jnp.zeros(1)
        angles = jnp.arctan(levels).astype(factor.dtype)
        drawn, log_evidence = weighted_draws(
            transition, event, state, t, draw_key, self.bandwidths, self.draws, angles, factor
        )
        seen = obs.mask.any()
        plane = principal_plane(drawn)
        kept = reduce(drawn, plane, count, keep_key, EVENNESS)
        kept = jax.tree.map(lambda a, b: jnp.where(seen, a, b), kept, ahead)
        forecast = ahead.ensemble[systematic(jnp.exp(ahead.log_weights), show_key)]
        shown = reduce(drawn, plane, count, show_key).ensemble
        analysis = jnp.where(seen, shown, forecast)
        info = describe(event, forecast, analysis, obs)
        return kept, info._replace(log_evidence=jnp.where(seen, log_evidence, 0.0))

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
