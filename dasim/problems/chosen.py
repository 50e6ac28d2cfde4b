"""What a config chooses of a table of observations: rows, box, cycles, and what folds withhold."""

from dataclasses import replace
from typing import NoReturn

import numpy as np
import pandas as pd

from dasim import config as schema
from dasim.sensors import ObsTable
from dasim.types import DataError

MARGIN = 0.02  # of the observations' range, on each side of a box that is not given
FOLDS = 4


def nothing(table: ObsTable, data: schema.ObservationFile, why: str) -> NoReturn:
    """Refuse a file that has no observation of what is asked."""
    raise DataError(f"{table.source}: variable {data.variable}: no observation {why}")


def chosen(table: ObsTable, data: schema.ObservationFile) -> tuple[ObsTable, schema.Box]:
    """The rows of the variable in the vertical range and the box, by station or place; the box."""
    table = table.select(data.variable)
    frame = table.frame
    if frame.empty:
        nothing(table, data, "at all: the file marks them all as missing")
    if frame[["latitude", "longitude"]].isna().any(axis=None):
        row = frame[["latitude", "longitude"]].isna().any(axis=1).idxmax()
        raise DataError(
            f"{table.source}: variable {data.variable}, record {frame['record'][row]}: has no "
            "place; a field needs latitude and longitude"
        )
    if data.vertical is not None:
        kept = frame["vertical"].between(*data.vertical)
        if not kept.any():
            has = f"{frame['vertical'].min():g} to {frame['vertical'].max():g}"
            has = "none" if frame["vertical"].isna().all() else has
            nothing(table, data, f"with vertical in {list(data.vertical)}; the file has {has}")
        frame = frame[kept]
    box = data.box or _around(frame)
    west, east = box.longitude
    eastward = np.mod(frame["longitude"] - west, 360)
    kept = frame["latitude"].between(*box.latitude) & (eastward <= east - west)
    if not kept.any():
        spans = [f"{frame[n].min():g} to {frame[n].max():g}" for n in ("latitude", "longitude")]
        nothing(
            table,
            data,
            f"in the box of latitude {list(box.latitude)} and longitude {list(box.longitude)}; "
            f"they span {spans[0]} and {spans[1]}",
        )
    frame = frame[kept].reset_index(drop=True)
    frame["station"] = _stations(frame)
    return replace(table, frame=frame), box


def _around(frame: pd.DataFrame) -> schema.Box:
    """What observations span, and a little more."""
    ends = {}
    for name, low, high in (("latitude", -90.0, 90.0), ("longitude", -180.0, 179.9)):
        first, last = frame[name].min(), frame[name].max()
        margin = max(0.1, MARGIN * (last - first))
        ends[name] = max(low, first - margin), min(high, last + margin)
    return schema.Box(**ends)


def _stations(frame: pd.DataFrame) -> pd.Series:
    """The station of each row; of one without, or that moves, its place."""
    place = frame["latitude"].map("{:.4f}N".format) + frame["longitude"].map(" {:.4f}E".format)
    moves = place.groupby(frame["station"]).transform("nunique") > 1
    return frame["station"].where((frame["station"] != "") & ~moves, place)


def cycle_times(table: ObsTable, data: schema.ObservationFile) -> pd.DatetimeIndex:
    """Of the cycles; by default the multiples of the interval nearest to the first and last."""
    every = pd.Timedelta(data.cycles.every)
    time = table.frame["time"]
    ends = []
    for name, own in (("first", time.min()), ("last", time.max())):
        given = getattr(data.cycles, name)
        if given is None:
            ends.append((own + every / 2).floor(every))
        else:
            moment = pd.Timestamp(given)
            ends.append(moment.tz_convert(None) if moment.tzinfo else moment)
    times = pd.date_range(*ends, freq=every)
    if len(times) == 0:
        raise schema.ConfigError(
            f"data.cycles: the first, {ends[0].isoformat()}, is after the last, "
            f"{ends[1].isoformat()}; {table.source} has {time.min().isoformat()} to "
            f"{time.max().isoformat()}"
        )
    return times


def why_none(within: ObsTable, table: ObsTable, times, data: schema.ObservationFile) -> str:
    """What keeps all of `table`, of which `within` is in the cycles' windows, from being used."""
    if len(within):
        flags = sorted(within.frame["qc"].unique().tolist())
        return f"with a quality flag of at most {data.good} (data.good); they have {flags}"
    time = table.frame["time"]
    return (
        f"within half of {data.cycles.every} of the cycles {times[0].isoformat()} to "
        f"{times[-1].isoformat()}; they are from {time.min().isoformat()} to "
        f"{time.max().isoformat()}"
    )


def folds(asked, station: np.ndarray, n_cycles: int, table: ObsTable):
    """Names of the folds, and what each withholds, `(fold, cycle, sensor)`."""
    known = np.unique(station)
    if isinstance(asked, list):
        for name in asked:
            if name not in known:
                some = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
                raise schema.ConfigError(
                    f"observe.withhold: {table.source} has no station {name!r} here; it has "
                    f"{len(known)}: {some}"
                )
        own = station == np.array(asked)[:, None]
        return tuple(asked), np.repeat(own[:, None], n_cycles, 1)
    by = "station" if asked is None else asked.by
    count, what = (len(known), "stations") if by == "station" else (n_cycles, "cycles")
    number = min(FOLDS, count) if asked is None else asked.folds
    if not 2 <= number <= count:
        raise schema.ConfigError(
            f"observe.withhold: {max(number, 2)} folds by {by} need as many {what}; "
            f"{table.source} has {count} here"
        )
    # stations in turn: names that are alike are often neighbours, and go into different folds
    if by == "station":
        fold = np.searchsorted(known, station)[None] % number
    else:
        fold = (np.arange(n_cycles) * number // n_cycles)[:, None]
    withheld = fold == np.arange(number)[:, None, None]
    names = tuple(f"fold-{i + 1}" for i in range(number))
    return names, np.broadcast_to(withheld, (number, n_cycles, len(station)))
