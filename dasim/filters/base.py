"""The filter protocol, and the forecast and bookkeeping that ensemble Kalman filters share."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import anomalies, flatten, inflate
from dasim.events import AbstractEvent, GaussianEvent
from dasim.observe import Observation
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


def check_ensemble(ensemble: Ensemble) -> Ensemble:
    """Refuse an ensemble that has no spread to work with."""
    if ensemble.ndim < 2 or ensemble.shape[0] < 2:
        raise ValueError(
            f"ensemble has shape {ensemble.shape}, expected (member, *state) with "
            "at least 2 members"
        )
    return ensemble


def check_inflation(inflation):
    """Refuse a factor that is not positive; traced values pass."""
    if isinstance(inflation, int | float) and not inflation > 0:
        raise ValueError(f"inflation is {inflation}, expected a positive factor (1 for none)")
    return inflation


def propagate(transition: AbstractTransition, ensemble: Ensemble, t, key: Key) -> Ensemble:
    """Each member's draw of the next state."""
    keys = jax.random.split(key, ensemble.shape[0])
    return jax.vmap(transition.sample, (0, None, 0))(ensemble, t, keys)


def constraints(event: AbstractEvent, ensemble: Ensemble) -> Float[Array, "member obs"]:
    """The event's constraint at each member."""
    return jax.vmap(event.constraint)(ensemble)


def describe(
    event: AbstractEvent, forecast: Ensemble, analysis: Ensemble, obs: Observations
) -> Analysis:
    """The info of a step; the evidence is that of a normal forecast in observation space."""
    c_mean, c_anomalies = anomalies(constraints(event, forecast))
    log_evidence = event.log_prob(c_mean, c_anomalies.T @ c_anomalies)
    innovation = jnp.where(obs.mask, jnp.where(obs.mask, obs.value, 0.0) - c_mean, 0.0)
    return Analysis(forecast, analysis, innovation, log_evidence)


def kalman_step(
    analyse: Callable[[Float[Array, "member n"], Float[Array, "member obs"], GaussianEvent], Array],
    inflation,
    transition: AbstractTransition,
    observation: Observation,
    ensemble: Ensemble,
    obs: Observations,
    key: Key,
) -> tuple[Ensemble, Analysis]:
    """Forecast, inflate, and apply `analyse` to flat members and their constraints.

    A cycle in which nothing was observed leaves the forecast as it is, without inflation.
    """
    forecast = propagate(transition, ensemble, obs.time - transition.interval, key)
    event = observation.event(obs)
    if not isinstance(event, GaussianEvent):
        raise TypeError(
            f"an ensemble Kalman filter needs Gaussian observation errors, not "
            f"{type(observation.error).__name__}"
        )
    inflated = inflate(forecast, inflation)
    analysed = analyse(flatten(inflated), constraints(event, inflated), event)
    analysis = jnp.where(obs.mask.any(), analysed.reshape(forecast.shape), forecast)
    return analysis, describe(event, forecast, analysis, obs)
