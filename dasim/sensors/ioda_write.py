"""Writes observations as an IODA file of version 3: what `read_ioda` reads back unchanged.

The rows of one record are one location; a variable that has no row there gets a fill value. Numbers
that single precision holds exactly are stored so, others in double precision.
"""

from collections.abc import Mapping
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd

from dasim.sensors.ioda import VERTICAL as READ
from dasim.sensors.netcdf import FILLS
from dasim.sensors.table import ObsTable
from dasim.types import DasimError, DataError

EPOCH = "since 1970-01-01T00:00:00Z"
STEPS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
WHOLE = ("PreQC", "EffectiveQC", "used", "withheld")  # groups of integers
NAMES = {  # of a vertical coordinate: CF's standard name, and the direction that counts up
    "pressure": ("air_pressure", "down"),
    "air_pressure": ("air_pressure", "down"),
    "height": ("height", "up"),
    "altitude": ("altitude", "up"),
    "depth": ("depth", "down"),
    "depthBelowWaterSurface": ("depth", "down"),
}


def _locations(table: ObsTable) -> tuple[np.ndarray, pd.DataFrame]:
    """The location of each row, `(row,)`, and the first row of each location."""
    frame = table.frame
    where, _ = pd.factorize(frame["record"])
    first = frame.drop_duplicates("record")
    for name in ("time", "latitude", "longitude", "vertical", "station"):
        here, there = frame[name].to_numpy(), first[name].to_numpy()[where]
        other = (here != there) & ~(pd.isna(here) & pd.isna(there))
        if other.any():
            row = frame.iloc[int(np.flatnonzero(other)[0])]
            raise DataError(
                f"{table.source}: variable {row['variable']}, record {row['record']}: another "
                f"{name} than that of the record's first value; give each place and time its own "
                "record"
            )
    twice = frame.duplicated(["record", "variable"])
    if twice.any():
        row = frame[twice].iloc[0]
        raise DataError(
            f"{table.source}: variable {row['variable']}, record {row['record']}: two values in "
            "one record; give each its own"
        )
    return where, first


def _variable(group, name: str, data: np.ndarray, whole: bool = False) -> netCDF4.Variable:
    if whole:
        kind = "i4"
    else:
        with np.errstate(over="ignore"):
            single = data.astype("f4")
        same = (single == data) | np.isnan(data)
        kind = "f4" if same.all() else "f8"
    fill = netCDF4.default_fillvals[kind]
    variable = group.createVariable(name, kind, ("Location",), fill_value=fill)
    variable[:] = np.where(np.isnan(data), fill, data)
    return variable


def _describe(variable, **attributes):
    variable.setncatts({key: text for key, text in attributes.items() if text})


def write_ioda(path: Path | str, table: ObsTable, attrs: Mapping[str, str] | None = None) -> None:
    """Write a table as an IODA file of version 3.

    Args:
        path: of the file; one that exists is replaced.
        table: its rows of one `record` share time, place and station.
        attrs: further global attributes.

    Raises:
        DataError: rows of one record that differ in time, place or station, or two values of one
            variable in one record, or a name that netCDF cannot hold.
        DasimError: a file that cannot be written.
    """
    where, first = _locations(table)
    for name in (*table.units, *table.extra):
        if not name or "/" in name or name in ("MetaData", "ObsValue", "ObsError", "PreQC"):
            raise DataError(f"{table.source}: {name!r} cannot be the name of a netCDF variable")
    try:
        with netCDF4.Dataset(path, "w") as file:
            _fill(file, table, where, first, dict(attrs or {}))
    except (OSError, RuntimeError) as error:
        raise DasimError(f"{path}: cannot be written ({error})") from None


def _fill(file, table: ObsTable, where, first, attrs: dict):
    frame = table.frame
    file.setncatts(
        {
            "Conventions": "CF-1.8",
            "title": "Observations",
            "history": f"{Path(table.source).name}, rewritten by dasim",
            "_ioda_layout": "ObsGroup",
            "_ioda_layout_version": np.int32(3),
        }
        | attrs
    )
    n = len(first)
    file.createDimension("Location", n)
    index = file.createVariable("Location", "i4", ("Location",))
    _describe(index, long_name="number of the location", units="1")
    index[:] = np.arange(n)
    _fill_metadata(file.createGroup("MetaData"), table, first)
    rows = [np.flatnonzero(frame["variable"].to_numpy() == name) for name in table.units]
    groups = {"ObsValue": "value", "ObsError": "std", "PreQC": "qc"}
    groups |= {name: name for name in table.extra}
    for group, column in groups.items():
        numbers = frame[column].to_numpy().astype(float)
        known = numbers[~np.isnan(numbers)]
        integers = (known == np.round(known)) & (np.abs(known) < FILLS[4])
        whole = group in WHOLE and bool(integers.all())
        holder = file.createGroup(group)
        for name, mine in zip(table.units, rows, strict=True):
            data = np.full(n, np.nan)
            data[where[mine]] = numbers[mine]
            variable = _variable(holder, name, data, whole)
            unit = "" if group in WHOLE else table.units[name]
            _describe(
                variable,
                long_name=f"{group} of {name}",
                units=unit,
                coordinates="/MetaData/latitude /MetaData/longitude /MetaData/dateTime",
            )


def _fill_metadata(meta, table: ObsTable, first: pd.DataFrame):
    for name, unit in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
        _describe(
            _variable(meta, name, first[name].to_numpy()),
            standard_name=name,
            long_name=name,
            units=unit,
        )
    time = first["time"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    unit, step = next((u, s) for u, s in STEPS.items() if not (time % s).any())
    moment = meta.createVariable("dateTime", "i8", ("Location",))
    _describe(moment, standard_name="time", long_name="time", units=f"{unit} {EPOCH}")
    moment.calendar = "standard"
    moment[:] = time // step
    vertical = first["vertical"].to_numpy()
    if np.isfinite(vertical).any():
        given = table.frame.attrs.get("vertical") or "vertical"
        name = given if given in READ else "vertical"
        standard, up = NAMES.get(name, ("", ""))
        variable = _variable(meta, name, vertical)
        units = table.frame.attrs.get("vertical_units", "")
        _describe(variable, standard_name=standard, long_name=given, units=units, positive=up)
    station = meta.createVariable("stationIdentification", str, ("Location",))
    station.long_name = "station"
    station[:] = first["station"].to_numpy().astype(object)
    record = first["record"].to_numpy()
    if (record != np.arange(len(first))).any():
        variable = meta.createVariable("sourceRecord", "i8", ("Location",))
        variable.long_name = "number of the record in the source of the observations"
        variable[:] = record
