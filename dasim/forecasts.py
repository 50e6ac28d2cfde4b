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

    def one(item):
        members, t, number = item
        paths = _paths(transition, within, members, t, jax.random.fold_in(key, number))
        return jax.vmap(ask.holds)(paths).mean()

    return jax.lax.map(one, (analysis, time, jnp.arange(len(time))), batch_size=BATCH)


def _paths(transition, within: int, members, t, key: Key) -> Float[Array, "member cycle *state"]:
    """A forecast of each member over the cycles after its analysis."""

    def path(x, key):
        def step(x, i):
            x = transition.sample(x, t + i * transition.interval, jax.random.fold_in(key, i))
            return x, x

        return jax.lax.scan(step, x, jnp.arange(within))[1]

    return jax.vmap(path)(members, jax.random.split(key, len(members)))


class SamplePaths(NamedTuple):
    """The forecasts of one analysis, in the variable that the event looks at most.

    Attributes:
        cycle: of the analysis.
        variable: number in the flat state.
        members: from the analysis on, `(member, 1 + within)`.
        holds: whether the event holds in each, `(member,)`.
        truth: `(1 + within,)`.
    """

    cycle: int
    variable: int
    members: Float[np.ndarray, "member lead"]
    holds: Bool[np.ndarray, " member"]
    truth: Float[np.ndarray, " lead"]


def doubtful_cycle(probability, happened, scored) -> int | None:
    """The scored cycle with a forecast nearest to even chances, before what came if any did."""
    known = scored[: len(happened)] & np.isfinite(probability[: len(happened)])
    for cycles in (np.flatnonzero(known & happened), np.flatnonzero(known)):
        if len(cycles):
            return int(cycles[np.argmin(np.abs(probability[cycles] - 0.5))])
    return None


@eqx.filter_jit
def _some_paths(transition, ask: AbstractEvent, within: int, members, t, key, truth):
    paths = _paths(transition, within, members, t, key)
    slope = jax.grad(lambda path: jnp.sum(ask.constraint(path)))(truth[1:])
    variable = jnp.argmax(jnp.nan_to_num(jnp.sum(slope**2, 0).reshape(-1)))
    whole = jnp.concatenate([members[:, None], paths], 1)
    own = lambda x: x.reshape(*x.shape[: x.ndim - truth.ndim + 1], -1)[..., variable]
    return variable, own(whole), jax.vmap(ask.holds)(paths), own(truth)


def sample_paths(
    transition: AbstractTransition,
    ask: Asked,
    analysis: Float[Array, "cycle member *state"],
    time: Float[Array, " cycle"],
    truth: Float[np.ndarray, "cycle *state"],
    cycle: int,
    key: Key,
) -> SamplePaths:
    """The forecasts behind `probabilities` for one analysis, by the same keys.

    The variable is that to which the event's functional of the true states is most sensitive.
    """
    own = jnp.asarray(truth[cycle : cycle + ask.within + 1], analysis.dtype)
    found = _some_paths(
        transition,
        ask.event,
        ask.within,
        analysis[cycle],
        time[cycle],
        jax.random.fold_in(key, cycle),
        own,
    )
    variable, members, holds, truth = (np.asarray(a) for a in found)
    return SamplePaths(cycle, int(variable), members, holds, truth)


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


def write_events(
    path: Path, events: list[Asked], time, scored, happened: dict, found: dict, paths: dict
):
    """`events.nc`: `probability_EVENT (method, time)`, `happened_EVENT (time)` and sample paths.

    Args:
        scored: which cycles count, `(time,)`.
        happened: `{event: (known,)}`, of all but the last cycles.
        found: `{event: {method: (time,)}}`.
        paths: `{event: {method: SamplePaths}}`.
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
        known = happened[ask.name].astype(np.float32)
        data[f"happened_{ask.name}"] = (
            "time",
            np.append(known, np.full(ask.within, np.float32(np.nan))),
            told | {"long_name": f"whether {ask.name} came"},
        )
        if paths[ask.name]:
            _add_paths(data, ask, paths[ask.name])
    data.to_netcdf(path)


def _add_paths(data: xr.Dataset, ask: Asked, paths: dict[str, SamplePaths]):
    """`paths_EVENT (method, realization, lead_EVENT)`, which of them hold it, and the truth's."""
    one = next(iter(paths.values()))
    members = max(len(p.members) for p in paths.values())
    values = np.full((data.sizes["method"], members, ask.within + 1), np.nan, np.float32)
    holds = np.full(values.shape[:2], np.nan, np.float32)
    for i, method in enumerate(data["method"].values):
        if method in paths:
            own = paths[method]
            values[i, : len(own.members)] = own.members
            holds[i, : len(own.members)] = own.holds
    told = {"units": "1", "cycle": one.cycle, "variable": one.variable}
    lead = f"lead_{ask.name}"
    name = f"x[{one.variable}]"
    after = f"forecast of {name} after the analysis of cycle {one.cycle}"
    data[f"paths_{ask.name}"] = ("method", "realization", lead), values, told | {"long_name": after}
    data[f"paths_hold_{ask.name}"] = (
        ("method", "realization"),
        holds,
        {"units": "1", "long_name": f"whether {ask.name} holds in it"},
    )
    data[f"paths_truth_{ask.name}"] = (
        (lead,),
        one.truth.astype(np.float32),
        told | {"long_name": f"true {name}"},
    )
