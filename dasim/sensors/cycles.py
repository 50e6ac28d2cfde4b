"""From a table of observations to cycles: windows, slots, masks of fixed shape.

A cycle at time t takes the observations of the half-open window [t - before, t + after). Each
station and variable has a slot of its own in every cycle, so that shapes never change and nothing
recompiles: what was not observed is masked. Several observations of one slot in one window come
down to one: the nearest in time, their mean (a superobservation), or their maximum.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Int

from dasim.sensors.table import ObsTable
from dasim.types import DataError, Observations

Several = Literal["nearest", "mean", "max"]
Slot = tuple[str, str]
SAME = ["station", "variable", "time", "latitude", "longitude", "vertical", "value"]


@dataclass(frozen=True)
class Cycles:
    """A table cut into cycles.

    Attributes:
        observations: time in hours since the first cycle, `(cycle,)`, value, mask and std,
            `(cycle, slot)`; no std where the table has none at all.
        slots: station and variable of each slot.
        latitude, longitude: of each slot's first observation, `(slot,)`.
        rows: the table's row behind each value, -1 where there is none; of a mean or a maximum
            the row that is nearest in time, or that has it, `(cycle, slot)`.
        unused: how many rows lie in no window, have no slot, are repeated in the table, or stood
            back for another of their slot.
    """

    observations: Observations
    slots: tuple[Slot, ...]
    latitude: np.ndarray
    longitude: np.ndarray
    rows: Int[np.ndarray, "cycle slot"]
    unused: dict[str, int]


def without_duplicates(table: ObsTable) -> ObsTable:
    """The table without rows that repeat another's station, variable, place, time and value."""
    frame = table.frame.drop_duplicates(SAME).reset_index(drop=True)
    frame.attrs = dict(table.frame.attrs)
    return replace(table, frame=frame)


def thinned(table: ObsTable, interval) -> ObsTable:
    """The table with at most one row of each station and variable in each `interval`, the first.

    Args:
        interval: a time span as pandas takes one, "6h".
    """
    span = pd.Timedelta(interval)
    if not span > pd.Timedelta(0):
        raise ValueError(f"thinned: interval is {interval!r}, expected a positive span of time")
    frame = table.frame.sort_values("time", kind="stable")
    number = frame["time"].astype("int64") // span.value
    first = ~pd.DataFrame({"s": frame["station"], "v": frame["variable"], "n": number}).duplicated()
    kept = frame[first].sort_index().reset_index(drop=True)
    kept.attrs = dict(table.frame.attrs)
    return replace(table, frame=kept)


def to_cycles(
    table: ObsTable,
    times,
    before,
    after=None,
    slots: list[Slot] | None = None,
    several: str = "nearest",
    good: int | None = 0,
) -> Cycles:
    """Cut a table into cycles.

    Args:
        times: of the cycles, increasing, as pandas takes them.
        before, after: spans of time that a window reaches back and ahead; `after` is `before` if
            left out. The end itself belongs to the next window.
        slots: stations and variables, in the order of the operator; all of the table, sorted by
            variable and station, if left out.
        several: what becomes of several observations of one slot and window. The error of a mean
            of n is that of one over sqrt(n).
        good: largest flag `qc` that is used; None for all.

    Raises:
        ValueError: times that do not increase, spans that make no window, or an unknown choice.
        DataError: windows that overlap, in which an observation would count twice.
    """
    times = pd.DatetimeIndex(pd.to_datetime(times, utc=True)).tz_localize(None)
    back = pd.Timedelta(before)
    ahead = back if after is None else pd.Timedelta(after)
    if several not in get_args(Several):
        raise ValueError(f"several is {several!r}, expected one of {', '.join(get_args(Several))}")
    if len(times) == 0 or not times.is_monotonic_increasing or not times.is_unique:
        raise ValueError("to_cycles: times must increase, and there must be one at least")
    if not back + ahead > pd.Timedelta(0):
        raise ValueError(f"to_cycles: the window from -{back} to {ahead} holds nothing")
    if len(times) > 1 and (times[1:] - times[:-1]).min() < back + ahead:
        raise DataError(
            f"{table.source}: windows of {back + ahead} about cycles "
            f"{(times[1:] - times[:-1]).min()} apart overlap: an observation would count twice"
        )
    frame = table.frame.drop_duplicates(SAME)  # its index is that of the table's rows
    unused = {"repeated": len(table) - len(frame)}
    if good is not None:
        flagged = frame["qc"] > good
        unused["flagged"], frame = int(flagged.sum()), frame[~flagged]
    if slots is None:
        pairs = frame[["variable", "station"]].drop_duplicates()
        pairs = pairs.sort_values(["variable", "station"])
        slots = list(zip(pairs["station"], pairs["variable"], strict=True))
    if len(set(slots)) < len(slots):
        raise ValueError("to_cycles: a station and variable has two slots")
    numbers = {pair: i for i, pair in enumerate(slots)}
    pairs = zip(frame["station"], frame["variable"], strict=True)
    slot = np.fromiter((numbers.get(pair, -1) for pair in pairs), int, len(frame))
    moment = frame["time"].to_numpy()
    cycle = np.searchsorted((times - back).to_numpy(), moment, side="right") - 1
    inside = (cycle >= 0) & (moment < (times + ahead).to_numpy()[np.maximum(cycle, 0)])
    unused["in no window"] = int((~inside).sum())
    unused["without a slot"] = int((inside & (slot < 0)).sum())
    use = inside & (slot >= 0)
    rows = frame.index.to_numpy()[use]
    cell = cycle[use] * max(len(slots), 1) + slot[use]
    value, std = (frame[name].to_numpy(float)[use] for name in ("value", "std"))
    away = np.abs((moment[use] - times.to_numpy()[cycle[use]]) / np.timedelta64(1, "s"))
    preferred = -value if several == "max" else away
    order = np.lexsort((rows, preferred, cell))
    first = order[np.unique(cell[order], return_index=True)[1]]
    unused["several in one slot"] = int(use.sum()) - len(first)
    shape = len(times), len(slots)
    values, spreads = np.zeros(shape), np.full(shape, np.nan)
    behind = np.full(shape, -1)
    at = np.unravel_index(cell[first], shape) if len(first) else (np.array([], int),) * 2
    values[at], spreads[at], behind[at] = value[first], std[first], rows[first]
    if several == "mean" and len(first):
        n = np.bincount(cell, minlength=values.size)
        total = np.bincount(cell, value, minlength=values.size)
        squares = np.bincount(cell, std**2, minlength=values.size)
        some = n > 0
        values.reshape(-1)[some] = total[some] / n[some]
        spreads.reshape(-1)[some] = np.sqrt(squares[some]) / n[some]
    hours = (times - times[0]) / pd.Timedelta("1h")
    known = bool(np.isfinite(spreads[behind >= 0]).all()) and (behind >= 0).any()
    if not known and np.isfinite(spreads).any():
        row = int(behind[(behind >= 0) & ~np.isfinite(spreads)][0])
        raise DataError(
            f"{table.source}: variable {table.frame['variable'][row]}, record "
            f"{table.frame['record'][row]}: has no error standard deviation, others have: give "
            "all of them one, or none"
        )
    places = frame.assign(slot=slot)[slot >= 0].drop_duplicates("slot").set_index("slot")
    places = places[["latitude", "longitude"]].reindex(range(len(slots)))
    observations = Observations(
        jnp.asarray(np.asarray(hours, float)),
        jnp.asarray(values),
        jnp.asarray(behind >= 0),
        jnp.asarray(np.where(behind >= 0, spreads, 1.0)) if known else None,
    )
    latitude, longitude = (places[name].to_numpy(float) for name in places)
    return Cycles(observations, tuple(slots), latitude, longitude, behind, unused)
