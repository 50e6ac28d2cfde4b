"""Events in cycling: how likely each analysis makes one within some cycles, and what came.

Every member of an analysis is forecast over the cycles that are asked, with the method's own
transition; the share of the forecasts in which the event holds is its probability. An event is of
the forecast's states at the cycles after the analysis, `(cycle, *state)`.
"""

from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float

from dasim.diagnostics import reliability, roc
from dasim.events.base import AbstractEvent
from dasim.events.language import parse_event
from dasim.transitions import AbstractTransition
from dasim.types import Key

BATCH = 16  # analyses at a time


class Asked(NamedTuple):
    """An event of a run.

    Attributes:
        name, when: of its config.
        within: cycles.
        event: of their states.
    """

    name: str
    when: str
    within: int
    event: AbstractEvent


def asked(name: str, when: str, within: int, shape: tuple[int, ...]) -> Asked:
    """The event of a config.

    Raises:
        EventError: `when` is no event of such states.
    """
    return Asked(name, when, within, parse_event(when, (within, *shape), trajectory=True))


@eqx.filter_jit
def probabilities(
    transition: AbstractTransition,
    ask: AbstractEvent,
    within: int,
    analysis: Float[Array, "cycle member *state"],
    time: Float[Array, " cycle"],
    key: Key,
) -> Float[Array, " cycle"]:
    """The share of the members' forecasts in which the event holds, for each analysis."""

    def path(x, t, key):
        def step(x, i):
            x = transition.sample(x, t + i * transition.interval, jax.random.fold_in(key, i))
            return x, x

        return jax.lax.scan(step, x, jnp.arange(within))[1]

    def one(item):
        members, t, number = item
        keys = jax.random.split(jax.random.fold_in(key, number), len(members))
        paths = jax.vmap(path, (0, None, 0))(members, t, keys)
        return jax.vmap(ask.holds)(paths).mean()

    return jax.lax.map(one, (analysis, time, jnp.arange(len(time))), batch_size=BATCH)


def outcomes(
    event: AbstractEvent, within: int, truth: Float[np.ndarray, "cycle *state"]
) -> Bool[np.ndarray, " known"]:
    """Whether it came in the cycles after each, for all but the last `within` cycles."""
    count = len(truth) - within
    index = np.arange(count)[:, None] + np.arange(1, within + 1)
    return np.asarray(jax.jit(jax.vmap(event.holds))(jnp.asarray(truth)[index]))


def scores(
    probability: Float[np.ndarray, " cycle"], happened: Bool[np.ndarray, " cycle"]
) -> dict[str, float | None]:
    """Brier score, its skill against the base rate and its parts, and the area under the ROC.

    Forecasts that are NaN, of a filter that was lost, are left out.
    """
    good = np.isfinite(probability)
    probability, happened = probability[good], happened[good]
    if not len(happened):
        keys = "brier", "brier_skill", "reliability", "resolution", "base_rate"
        return dict.fromkeys((*keys, "forecast_rate", "roc_area")) | {"n": 0}
    found = reliability(probability, happened.astype(float))
    skill = None if not found.uncertainty > 0 else 1 - found.brier / found.uncertainty
    return {
        "brier": found.brier,
        "brier_skill": skill,
        "reliability": found.reliability,
        "resolution": found.resolution,
        "base_rate": float(happened.mean()),
        "forecast_rate": float(np.mean(probability)),
        "roc_area": roc(probability, happened).area,
        "n": len(happened),
    }


def write_events(path: Path, events: list[Asked], time, scored, happened: dict, found: dict):
    """`events.nc`: `probability_EVENT (method, time)` and `happened_EVENT (time)`.

    Args:
        scored: which cycles count, `(time,)`.
        happened: `{event: (time,)}`, NaN where it is not known.
        found: `{event: {method: (time,)}}`.
    """
    methods = list(next(iter(found.values())))
    data = xr.Dataset(
        coords={
            "method": ("method", methods),
            "time": ("time", np.asarray(time, float), {"long_name": "model time", "units": "1"}),
        },
        attrs={"Conventions": "CF-1.11", "title": "dasim: forecasts of events"},
    )
    data["scored"] = "time", np.asarray(scored, "i1"), {"long_name": "cycle counts in the scores"}
    for ask in events:
        told = {"units": "1", "when": ask.when, "within_cycles": ask.within}
        variable = np.stack([found[ask.name][method] for method in methods])
        data[f"probability_{ask.name}"] = (
            ("method", "time"),
            variable.astype(np.float32),
            told | {"long_name": f"probability of {ask.name} after the analysis"},
        )
        data[f"happened_{ask.name}"] = (
            "time",
            happened[ask.name].astype(np.float32),
            told | {"long_name": f"whether {ask.name} came"},
        )
    data.to_netcdf(path)
