"""Reads tables of text: columns that a map names, and the long form that `write_csv` writes.

A map says which columns hold time, place, station and values, in which units, and with which error
standard deviations. A row is one record, numbered from 0 below the header; messages name lines,
counted from 1 as editors do.
"""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dasim.sensors.rows import Rows
from dasim.sensors.table import COLUMNS, ObsTable, make_table
from dasim.types import DasimError, DataError


class CsvColumns(BaseModel):
    """What the columns of a table are; the keys of a YAML map.

    Attributes:
        time: column of the time.
        time_format: `iso` (ISO 8601), `unix` (seconds since 1970), or a format of `strptime`; UTC
            where the text has no zone.
        latitude: column in degrees north, or one number for all rows.
        longitude: column in degrees east, or one number for all rows.
        station: column of the station's name.
        vertical: column of the vertical coordinate.
        vertical_name: what that is, such as `height`.
        vertical_units: its unit.
        values: `{column: (variable, unit)}`.
        std: `{variable: column, or one number for all rows}`, in the variable's unit.
        qc: column of the row's flag.
        missing: what stands for a missing number or time.
        delimiter: between two columns.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str
    time_format: str = "iso"
    latitude: float | str | None = None
    longitude: float | str | None = None
    station: str | None = None
    vertical: str | None = None
    vertical_name: str = ""
    vertical_units: str = ""
    values: dict[str, tuple[str, str]] = Field(min_length=1)
    std: dict[str, float | str] = Field(default_factory=dict)
    qc: str | None = None
    missing: tuple[str, ...] = ("", "NA", "N/A", "NaN", "nan", "null", "None")
    delimiter: str = Field(",", min_length=1, max_length=1)

    def wanted(self) -> list[str]:
        """The columns that a file must have."""
        names = (self.latitude, self.longitude, self.station, self.vertical, self.qc)
        named = [name for name in (*names, *self.std.values()) if isinstance(name, str)]
        return [self.time, *named, *self.values]


MAPS = {
    "metar": CsvColumns(
        time="Unix_time",
        time_format="unix",
        latitude="Latitude",
        longitude="Longitude",
        station="ICAO",
        vertical="Elev",
        vertical_name="stationElevation",
        vertical_units="m",
        values={
            "Temp": ("air_temperature", "degC"),
            "Dewp": ("dew_point_temperature", "degC"),
            "Wdir": ("wind_from_direction", "degrees"),
            "Wspd": ("wind_speed", "knots"),
            "Wgst": ("wind_speed_of_gust", "knots"),
            "Vis": ("visibility", "miles"),
            "Pcp": ("precipitation", "mm"),
            "Altimeter": ("altimeter_setting", "inHg"),
        },
        qc="QcFlag",
    )
}
LONG = ("variable", "unit", *COLUMNS[1:])  # what write_csv writes, and further columns


def read_map(columns: CsvColumns | str | Path) -> CsvColumns:
    """A map of columns: itself, one of `MAPS` by name, or a YAML file of its keys.

    Raises:
        DataError: a file that is missing or not such a map; names file and key.
    """
    if isinstance(columns, CsvColumns):
        return columns
    if str(columns) in MAPS:
        return MAPS[str(columns)]
    try:
        given = yaml.safe_load(Path(columns).read_text(encoding="utf-8"))
        return CsvColumns.model_validate(given)
    except OSError as error:
        raise DataError(
            f"{columns}: cannot be read: {error.strerror}; a map of columns is a YAML file or one "
            f"of {', '.join(MAPS)}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{columns}: not YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the map"
        raise DataError(f"{columns}: {key}: {first['msg']}") from None


def read_csv(path: Path | str, columns: CsvColumns | str | Path | None = None) -> ObsTable:
    """The observations of a table of text.

    Args:
        path: of the file, in UTF-8, with a header.
        columns: a map, the name of one in `MAPS`, or a YAML file. Where None, the header tells:
            that of `write_csv`, or one that has all columns of a map in `MAPS`.

    Raises:
        DataError: a column that is missing, text where a number or a time is expected, or a row
            with too few columns; names file, column, line and text.
    """
    path = Path(path)
    chosen = None if columns is None else read_map(columns)
    rows = Rows(path, chosen.delimiter if chosen else ",")
    if not any(rows.header):
        raise DataError(f"{path}: is empty, expected a header of column names")
    if chosen is None and set(LONG) <= set(rows.header):
        return _read_long(path, rows)
    if chosen is None:
        fitting = [m for m in MAPS.values() if set(m.wanted()) <= set(rows.header)]
        if not fitting:
            raise DataError(
                f"{path}: the columns {', '.join(rows.header)[:200]} are of no known table; say "
                "what they are with a map of columns (a YAML file)"
            )
        chosen = fitting[0]
    for name in chosen.wanted():
        if rows.header.count(name) != 1:
            raise DataError(
                f"{path}: has {rows.header.count(name) or 'no'} column{'s' * (name in rows.header)}"
                f" {name}, expected one; it has {', '.join(rows.header)[:200]}"
            )

    def numbers(of: Any) -> np.ndarray:
        if isinstance(of, str):
            return rows.numbers(of, chosen.missing)
        return np.full(rows.n, np.nan if of is None else float(of))

    names, units = zip(*chosen.values.values(), strict=True)
    known = dict(zip(names, units, strict=True))
    unknown = set(chosen.std) - set(names)
    if unknown or len(known) != len(names):
        told = f"std names {min(unknown)}" if unknown else "two columns give one variable"
        raise DataError(f"{path}: map of columns: {told}; the variables are {', '.join(names)}")
    value = np.stack([numbers(name) for name in chosen.values], 1)
    std = np.stack([numbers(chosen.std.get(name)) for name in names], 1)
    present = np.isfinite(value)
    row, column = np.nonzero(present)
    time = rows.times(chosen.time, chosen.time_format, chosen.missing)
    rows.refuse(chosen.time, np.isnat(time) & present.any(1), "is no time, and the row has values")
    flags = numbers(chosen.qc) if chosen.qc else np.zeros(rows.n)
    if chosen.qc:
        rows.refuse(chosen.qc, np.nan_to_num(flags % 1) != 0, "is no integer")
    place = {key: numbers(getattr(chosen, key)) for key in ("latitude", "longitude", "vertical")}
    return make_table(
        str(path),
        known,
        variable=np.array(names, object)[column],
        time=time[row],
        station=rows.text(chosen.station)[row] if chosen.station else "",
        value=value[present],
        std=std[present],
        qc=np.nan_to_num(flags)[row],
        record=row,
        missing=dict(zip(names, (~present).sum(0).tolist(), strict=True)),
        vertical_name=chosen.vertical_name,
        vertical_units=chosen.vertical_units,
        **{key: data[row] for key, data in place.items()},
    )


def _read_long(path: Path, rows: Rows) -> ObsTable:
    numbers = {
        name: rows.numbers(name, ("",))
        for name in rows.header
        if name not in ("variable", "unit", "time", "station")
    }
    told = "is no integer"
    for name in ("qc", "record"):
        rows.refuse(name, ~(numbers[name] == np.round(numbers[name])), told)
    rows.refuse("value", np.isnan(numbers["value"]), "is not a number")
    variable = rows.text("variable")
    time = rows.times("time", "iso", ())
    extra = {name: data for name, data in numbers.items() if name not in COLUMNS}
    given = {name: data for name, data in numbers.items() if name in COLUMNS}
    units = dict(zip(variable, rows.text("unit"), strict=True))
    station = rows.text("station")
    return make_table(
        str(path), units, variable=variable, time=time, station=station, extra=extra, **given
    )


def write_csv(path: Path | str, table: ObsTable) -> None:
    """Write a table in the long form, a row an observed value; `read_csv` reads it back.

    Raises:
        DasimError: a file that cannot be written.
    """
    frame = table.frame.copy()
    frame.insert(1, "unit", [table.units[name] for name in frame["variable"]])
    nanoseconds = np.datetime_as_string(frame["time"].to_numpy().astype("datetime64[ns]"), "ns")
    frame["time"] = [text.rstrip("0").rstrip(".") + "Z" for text in nanoseconds]
    try:
        frame.to_csv(path, index=False, lineterminator="\n", encoding="utf-8")
    except OSError as error:
        raise DasimError(f"{path}: cannot be written: {error.strerror}") from None
