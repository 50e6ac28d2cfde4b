"""Observations of any kind and origin as one long table: a row is one observed value.

What a source file lays out as grids, ragged arrays, columns or linked records is here

    (variable, time, latitude, longitude, vertical, station, value, std, qc, record)

and any further columns of numbers, such as the feedback that an assimilation wrote beside the
values (`HofX`, `ombg`, `EffectiveQC`). A value that its source marks as missing has no row; it is
counted in `ObsTable.missing`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from dasim.types import DataError

ABSURD = 1e30  # in any unit; what is greater is a fill value
COLUMNS = (
    "variable",
    "time",
    "latitude",
    "longitude",
    "vertical",
    "station",
    "value",
    "std",
    "qc",
    "record",
)


@dataclass(frozen=True)
class ObsTable:
    """Observed values, one a row; `make_table` builds and checks one.

    Attributes:
        frame: the columns `variable` (text), `time` (datetime64[ns], UTC), `latitude` and
            `longitude` (degrees north and east, the latter in [-180, 180); NaN where unknown),
            `vertical` (NaN where there is none; `frame.attrs["vertical"]` and
            `frame.attrs["vertical_units"]` say what it is), `station` (text, empty where there is
            none), `value` and `std` (error standard deviation, NaN where unknown; both in the
            variable's unit), `qc` (int32, the source's flag, 0 where it has none), `record`
            (int64, number in the source; values of one record share place and time), and any
            further columns of float64. The index counts the rows from 0.
        units: unit of each variable, empty where the source gives none.
        source: where the observations come from, as messages name it.
        missing: how many values the source marks as missing, by variable.
    """

    frame: pd.DataFrame
    units: dict[str, str]
    source: str
    missing: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def extra(self) -> list[str]:
        """Names of the columns beyond those that every table has."""
        return [name for name in self.frame.columns if name not in COLUMNS]

    def counts(self) -> pd.DataFrame:
        """By variable: `n` values, `missing` ones in the source, and `qc`, `{flag: count}`."""
        flags = {}
        for (name, flag), n in self.frame.groupby(["variable", "qc"], sort=True).size().items():
            flags.setdefault(name, {})[int(flag)] = int(n)
        rows = {
            name: {
                "n": sum(flags.get(name, {}).values()),
                "missing": self.missing.get(name, 0),
                "qc": flags.get(name, {}),
            }
            for name in self.units
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["n", "missing", "qc"])

    def select(
        self,
        variables: Iterable[str] | None = None,
        stations: Iterable[str] | None = None,
        between: tuple | None = None,
    ) -> "ObsTable":
        """The rows of some variables, of some stations, and of `start <= time < end`.

        Args:
            variables: names, or one name; all where None.
            stations: names, or one name; all where None.
            between: start and end, whatever pandas takes as a time (UTC where it has no zone);
                None for an open end.

        Raises:
            DataError: a variable that the table does not have.
        """
        frame, units = self.frame, self.units
        keep = np.ones(len(frame), bool)
        if variables is not None:
            names = [variables] if isinstance(variables, str) else list(variables)
            unknown = [name for name in names if name not in units]
            if unknown:
                raise DataError(
                    f"{self.source}: has no variable {unknown[0]}; it has {', '.join(units)}"
                )
            keep &= frame["variable"].isin(names).to_numpy()
            units = {name: unit for name, unit in units.items() if name in names}
        if stations is not None:
            names = [stations] if isinstance(stations, str) else list(stations)
            keep &= frame["station"].isin(names).to_numpy()
        if between is not None:
            start, end = between
            time = frame["time"].to_numpy()
            if start is not None:
                keep &= time >= _utc(start)
            if end is not None:
                keep &= time < _utc(end)
        missing = {name: n for name, n in self.missing.items() if name in units}
        return replace(self, frame=_renumbered(frame, keep), units=units, missing=missing)

    def sorted(self) -> "ObsTable":
        """The rows by time, then record, then variable."""
        frame = self.frame
        order = np.lexsort(
            (pd.factorize(frame["variable"], sort=True)[0], frame.record, frame.time)
        )
        return replace(self, frame=_renumbered(frame, order))


def _utc(moment) -> np.datetime64:
    stamp = pd.Timestamp(moment)
    return (stamp.tz_convert(None) if stamp.tzinfo else stamp).to_datetime64()


def _renumbered(frame: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    chosen = frame[rows] if rows.dtype == bool else frame.iloc[rows]
    chosen = chosen.reset_index(drop=True)
    chosen.attrs = dict(frame.attrs)
    return chosen


def make_table(
    source: str,
    units: Mapping[str, str],
    *,
    variable: Any,
    time: Any,
    value: Any,
    latitude: Any = np.nan,
    longitude: Any = np.nan,
    vertical: Any = np.nan,
    station: Any = "",
    std: Any = np.nan,
    qc: Any = 0,
    record: Any = None,
    extra: Mapping[str, Any] | None = None,
    missing: Mapping[str, int] | None = None,
    vertical_name: str = "",
    vertical_units: str = "",
) -> ObsTable:
    """A table from columns, each `(row,)`, or one value for all rows.

    Args:
        source: name of the origin, for messages.
        units: unit of each variable; may name variables without a row.
        variable, station: text.
        time: datetime64, without a zone (UTC) or with one.
        value, std: in the variable's unit.
        latitude, longitude: in degrees; longitudes of both conventions.
        vertical: in `vertical_units`.
        qc: the source's flag, 0 for good.
        record: number in the source; rows are counted where None.
        extra: further columns of numbers, by name.
        missing: values that the source marks as missing, by variable.
        vertical_name: what `vertical` is.
        vertical_units: its unit.

    Raises:
        DataError: columns of different length, a value that is not finite, no time, a place off
            the globe, a standard deviation below 0, or a flag that is no integer; the message
            names source, variable and record.
    """
    n = len(value)

    def column(name, given, dtype):
        try:
            array = np.asarray(given)
            array = np.broadcast_to(array, (n,)).astype(dtype)
        except (TypeError, ValueError) as error:
            raise DataError(f"{source}: column {name}: not {n} values: {error}") from None
        return array

    number = np.arange(n) if record is None else column("record", record, np.int64)
    name = column("variable", variable, object)

    def check(wrong, told, shown):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{source}: variable {name[row]}, record {number[row]}: {told.format(shown[row])}"
            )

    unknown = ~pd.Series(name, dtype=object).isin(list(units)).to_numpy()
    check(unknown, "has no entry among the units; give its unit, or ''", name)
    values = column("value", value, float)
    told = "the value is {}, beyond anything observed; leave the row of a missing one out"
    check(~(np.abs(values) <= ABSURD), told, values)
    moment = pd.Series(time).dt.tz_localize(None) if _zoned(time) else time
    times = column("time", moment, "datetime64[ns]")
    check(np.isnat(times), "has a value, and no time", times)
    lat, lon = column("latitude", latitude, float), column("longitude", longitude, float)
    check(np.isinf(lat) | (np.abs(lat) > 90), "latitude {} is not within -90 and 90 degrees", lat)
    told = "longitude {} is not within -360 and 720 degrees"
    check(np.isinf(lon) | (lon < -360) | (lon > 720), told, lon)
    error = column("std", std, float)
    check((error < 0) | np.isinf(error), "the error standard deviation is {}", error)
    flags = column("qc", qc, float)
    check((flags != np.round(flags)) | (np.abs(flags) > 2**31 - 1), "flag {} is no integer", flags)
    frame = pd.DataFrame(
        {
            "variable": pd.Series(name, dtype="str"),
            "time": times,
            "latitude": lat,
            # wrapping rounds: what is in range already stays as it is
            "longitude": np.where((lon >= -180) & (lon < 180), lon, (lon + 180) % 360 - 180),
            "vertical": column("vertical", vertical, float),
            "station": pd.Series(column("station", station, object), dtype="str"),
            "value": values,
            "std": error,
            "qc": flags.astype(np.int32),
            "record": number.astype(np.int64),
        }
        | {key: column(key, given, float) for key, given in (extra or {}).items()}
    )
    frame.attrs = {"vertical": vertical_name, "vertical_units": vertical_units}
    return ObsTable(frame, dict(units), str(source), dict(missing or {}))


def _zoned(time) -> bool:
    return isinstance(getattr(time, "dtype", None), pd.DatetimeTZDtype)
