"""The filter protocol, and the cycle that ensemble Kalman filters share."""

import abc
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import anomalies, flatten
from dasim.events import AbstractEvent, GaussianEvent
from dasim.filters.inflation import AbstractInflation
from dasim.observe import AbstractPointwiseError, Observation, StandInWarning
from dasim.transitions import AbstractTransition
from dasim.types import Analysis, Ensemble, Key, Observations


class AbstractFilter(eqx.Module):
    """A sequential filter: `init` makes its state, `step` takes it through one cycle."""

    @abc.abstractmethod
    def init(self, ensemble: Ensemble, key: Key) -> Any:
        """The filter's state from an initial ensemble, `(member, *state)`."""

    @abc.abstractmethod
    def step(
        self,
        transition: AbstractTransition,
        observation: Observation,
        state: Any,
        obs: Observations,
        key: Key,
    ) -> tuple[Any, Analysis]:
        """Forecast to the time of `obs`, one cycle's observations, and use them."""


class EnsembleState(NamedTuple):
    """An equally weighted ensemble, and what its inflation remembers."""

    ensemble: Ensemble
    inflation: Any


class AbstractEnsembleFilter(AbstractFilter):
    """A filter whose analysis maps forecast members to analysis members.

    A final class gives `analyse`; forecast, inflation, masks and info are the same for all.

    Attributes:
        inflation: see `dasim.filters.inflation`.
    """

    inflation: eqx.AbstractVar[AbstractInflation]

    @abc.abstractmethod
    def analyse(
        self,
        members: Float[Array, "member n"],
        c: Float[Array, "member obs"],
        event: GaussianEvent,
        key: Key,
    ) -> Float[Array, "member n"]:
        """Analysis members from flat forecast members and their constraints.

        The event's constraint takes flat states.
        """

    def init(self, ensemble, key):
        members = flatten(check_ensemble(ensemble))
        return EnsembleState(ensemble, self.inflation.init(members))

    def step(self, transition, observation, state, obs, key):
        forecast_key, key = jax.random.split(key)
        start = obs.time - transition.interval
        forecast = propagate(transition, state.ensemble, start, forecast_key)
        event = gaussian_event(observation, obs, forecast)
        analysis, inflation = self.update(forecast, state.inflation, event, key)
        return EnsembleState(analysis, inflation), describe(event, forecast, analysis, obs)

    def update(
        self, forecast: Ensemble, inflation: Any, event: GaussianEvent, key: Key
    ) -> tuple[Ensemble, Any]:
        """The analysis of `forecast`, inflated, and the inflation's next state.

        A cycle in which nothing was observed leaves the forecast as it is.
        """
        inflation_key, analysis_key = jax.random.split(key)
        event = flat_event(event, forecast.shape[1:])
        prior, updated = self.inflation.prior(inflation, flatten(forecast), event, inflation_key)
        analysed = self.analyse(prior, constraints(event, prior), event, analysis_key)
        analysed = self.inflation.posterior(prior, analysed)
        seen = event.mask.any()
        analysis = jnp.where(seen, analysed.reshape(forecast.shape), forecast)
        return analysis, jax.tree.map(lambda a, b: jnp.where(seen, a, b), updated, inflation)


def check_ensemble(ensemble: Ensemble) -> Ensemble:
    """Refuse an ensemble that has no spread to work with."""
    if ensemble.ndim < 2 or ensemble.shape[0] < 2:
        raise ValueError(
            f"ensemble has shape {ensemble.shape}, expected (member, *state) with "
            "at least 2 members"
        )
    return ensemble


def gaussian_event(
    observation: Observation, obs: Observations, forecast: Ensemble | None = None
) -> GaussianEvent:
    """One cycle's observations as a Gaussian event, if need be by their errors' stand-in.

    Args:
        forecast: by which the observations are checked.

    Raises:
        TypeError: an error model of the user's own that has no stand-in.
        ValueError: observations that are to be checked, and no forecast.
    """
    if forecast is not None:
        obs = observation.screened(obs, forecast)
    elif observation.checks:
        raise ValueError(
            "this filter checks no observations against a forecast: leave quality control out, or "
            "take an EnKF, the ConditionalScoreFilter or the BootstrapParticleFilter"
        )
    error = observation.error
    if isinstance(error, AbstractPointwiseError):
        warnings.warn(
            f"this filter needs Gaussian observation errors: {type(error).__name__} is replaced by "
            "its Gaussian stand-in; ConditionalScoreFilter and BootstrapParticleFilter use it as "
            "it is",
            StandInWarning,
            stacklevel=2,
        )
        return error.stand_in(observation.operator, obs)
    event = observation.event(obs)
    if not isinstance(event, GaussianEvent):
        raise TypeError(
            f"this filter needs Gaussian observation errors, not {type(error).__name__}"
        )
    return event


def flat_event(event: GaussianEvent, shape: tuple[int, ...]) -> GaussianEvent:
    """The same event about flat states."""

    def operator(x, t):
        return event.operator(x.reshape(shape), t)

    return GaussianEvent(operator, event.time, event.value, event.mask, event.cov)


def propagate(transition: AbstractTransition, ensemble: Ensemble, t, key: Key) -> Ensemble:
    """Each member's draw of the next state."""
    keys = jax.random.split(key, ensemble.shape[0])
    return jax.vmap(transition.sample, (0, None, 0))(ensemble, t, keys)


def constraints(event: AbstractEvent, ensemble: Ensemble) -> Float[Array, "member obs"]:
    """The event's constraint at each member."""
    return jax.vmap(event.constraint)(ensemble)


def describe(
    event: AbstractEvent,
    forecast: Ensemble,
    analysis: Ensemble,
    obs: Observations,
    smoothed: Ensemble | None = None,
) -> Analysis:
    """The info of a step; the evidence is that of a normal forecast in observation space."""
    c_mean, c_anomalies = anomalies(constraints(event, forecast))
    log_evidence = event.log_prob_anomalies(c_mean, c_anomalies)
    innovation = jnp.where(event.mask, jnp.where(obs.mask, obs.value, 0.0) - c_mean, 0.0)
    return Analysis(forecast, analysis, innovation, log_evidence, smoothed, event.mask)
