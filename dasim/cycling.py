"""The cycle: forecast and analysis in turn, as one compiled scan."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim.filters.base import AbstractFilter
from dasim.observe import Observation
from dasim.transitions import AbstractTransition
from dasim.types import Analysis, Ensemble, Key, Observations


def keep_all(info: Analysis) -> Analysis:
    """The `save` that keeps everything."""
    return info


def keep_mean(info: Analysis):
    """The `save` that keeps the means alone: `(forecast mean, analysis mean)`."""
    return info.forecast.mean(0), info.analysis.mean(0)


@eqx.filter_jit
def scan_cycles(
    filter: AbstractFilter,
    transition: AbstractTransition,
    observation: Observation,
    state: Any,
    observations: Observations,
    key: Key,
    start,
    save: Callable[[Analysis], Any],
):
    """The filter's state after the cycles of `observations`, and what `save` kept of each.

    Cycle i of `observations` is number `start` + i of the whole run, and draws from
    `fold_in(key, start + i)`: a run cut into chunks gives the numbers of one left whole.
    """

    def body(state, item):
        k, obs = item
        state, info = filter.step(transition, observation, state, obs, jax.random.fold_in(key, k))
        return state, save(info)

    numbers = start + jnp.arange(observations.n_cycles)
    return jax.lax.scan(body, state, (numbers, observations))


def cycle(
    filter: AbstractFilter,
    transition: AbstractTransition,
    observation: Observation,
    ensemble: Ensemble,
    observations: Observations,
    key: Key,
    save: Callable[[Analysis], Any] = keep_all,
) -> tuple[Any, Any]:
    """Assimilate all `observations`, starting from `ensemble` one interval before the first.

    Args:
        ensemble: `(member, *state)`.
        observations: with a leading cycle axis.
        save: chooses what to keep of each cycle's `Analysis`.

    Returns:
        The filter's last state, and what `save` kept, with a leading cycle axis.

    Raises:
        ValueError: members of another shape than the transition's states, or a lag longer than
            the run.
    """
    if ensemble.shape[1:] != tuple(transition.shape):
        raise ValueError(
            f"members have shape {ensemble.shape[1:]}, the transition's states {transition.shape}"
        )
    lag = getattr(filter, "lag", 0)
    if lag > observations.n_cycles:
        raise ValueError(
            f"the filter's lag is {lag} cycles, more than the run's {observations.n_cycles}"
        )
    init_key, key = jax.random.split(key)
    state = filter.init(ensemble, init_key)
    return scan_cycles(filter, transition, observation, state, observations, key, 0, save)
