"""Reads IODA files of versions 2 and 3: netCDF-4 with groups over one dimension of locations.

`ObsValue` holds the observed variables, `(Location,)` or `(Location, Channel)`; `ObsError`,
`PreQC` (or `QualityMarker`) and the feedback of an assimilation hold a variable of the same name
for each; `MetaData` holds time and place. Channel c of a variable becomes the variable `name_c`.
Names of both versions are known. Version 1, whose variables are all flat, is refused.
"""

from pathlib import Path

import netCDF4
import numpy as np

from dasim.sensors.netcdf import attribute, floats, is_text, numbers, opened, text, text_dimensions
from dasim.sensors.table import ObsTable, make_table
from dasim.sensors.times import from_numbers, from_text
from dasim.types import DataError

LOCATION = ("Location", "nlocs")
LATITUDE, LONGITUDE = ("latitude", "lat"), ("longitude", "lon")
TIME = ("dateTime", "datetime")
STATION = (
    "stationIdentification",
    "station_id",
    "stationID",
    "stationIdentifier",
    "aircraftIdentifier",
    "satelliteIdentifier",
)
VERTICAL = (  # the first that has numbers
    "pressure",
    "air_pressure",
    "height",
    "geometric_height",
    "altitude",
    "depth",
    "depthBelowWaterSurface",
    "vertical",
    "stationElevation",
    "station_elevation",
)
CHANNEL = ("sensorChannelNumber", "sensor_channel", "channelNumber", "channel_number")
QC = ("PreQC", "QualityMarker")
# other names of the same feedback
GROUPS = {"hofx": "HofX", "EffectiveError0": "EffectiveError", "EffectiveQC0": "EffectiveQC"}


class _File:
    """An open file with its dimension of locations."""

    def __init__(self, path: Path, file: netCDF4.Dataset):
        self.path, self.file = path, file
        if any("@" in name for name in file.variables):
            raise DataError(
                f"{path}: an IODA file of version 1 (flat variables such as "
                f"{next(n for n in file.variables if '@' in n)}); only versions 2 and 3, with "
                "groups, are read: convert it with the upgrader that comes with IODA"
            )
        for group in ("ObsValue", "MetaData"):
            if group not in file.groups:
                raise DataError(
                    f"{path}: has no group {group}; an IODA file has MetaData and ObsValue, "
                    f"this one {', '.join(file.groups) or 'no groups'}"
                )
        found = [name for name in LOCATION if name in file.dimensions]
        if not found:
            raise DataError(
                f"{path}: has no dimension {' or '.join(LOCATION)}; "
                f"its dimensions are {', '.join(file.dimensions) or 'none'}"
            )
        self.location = found[0]
        self.n = file.dimensions[self.location].size
        self.meta = file.groups["MetaData"]

    def find(self, names: tuple[str, ...]) -> list[netCDF4.Variable]:
        """Those of MetaData that exist, one number or text a location."""
        found = [self.meta.variables[name] for name in names if name in self.meta.variables]
        for variable in found:
            if text_dimensions(variable) != (self.location,):
                raise DataError(
                    f"{self.path}: variable MetaData/{variable.name} has the dimensions "
                    f"{variable.dimensions}, expected ({self.location},)"
                )
        return found

    def place(self, names: tuple[str, ...]) -> np.ndarray:
        """A coordinate that every file has, as numbers."""
        found = self.find(names)
        if not found:
            raise DataError(f"{self.path}: group MetaData has no variable {names[0]}")
        return self.numbers(found[0])

    def numbers(self, variable: netCDF4.Variable) -> np.ndarray:
        if is_text(variable):
            raise DataError(
                f"{self.path}: variable {variable.group().name}/{variable.name} holds text, "
                "expected numbers"
            )
        return floats(variable)

    def time(self) -> np.ndarray:
        found = self.find(TIME)
        if found:
            variable = found[0]
            where = f"{self.path}: variable MetaData/{variable.name}"
            if is_text(variable):
                return from_text(text(variable), where)
            units = attribute(variable, "units")
            return from_numbers(numbers(variable), units, attribute(variable, "calendar"), where)
        found = self.find(("time",))
        if not found:
            raise DataError(
                f"{self.path}: group MetaData has no variable dateTime, datetime or time"
            )
        where = f"{self.path}: variable MetaData/time"
        units = attribute(found[0], "units")
        if " since " in units:
            return from_numbers(numbers(found[0]), units, attribute(found[0], "calendar"), where)
        stamp = attribute(self.file, "date_time")
        if not (len(stamp) == 10 and stamp.isdigit()):
            raise DataError(
                f"{where}: hours relative to the global attribute date_time, expected there as "
                f"YYYYMMDDHH, found {stamp!r}"
            )
        units = f"hours since {stamp[:4]}-{stamp[4:6]}-{stamp[6:8]} {stamp[8:]}:00:00"
        return from_numbers(numbers(found[0]), units, "", where)

    def channels(self, dimension: str, size: int) -> list[str]:
        """What the variables of the channels are called after: the numbers, or 1, 2, ..."""
        holders = [(self.meta, CHANNEL), (self.file, (dimension,))]
        if "VarMetaData" in self.file.groups:
            holders.insert(1, (self.file.groups["VarMetaData"], CHANNEL))
        for holder, names in holders:
            for name in names:
                variable = holder.variables.get(name)
                if variable is None or variable.dimensions != (dimension,) or is_text(variable):
                    continue
                found = numbers(variable)
                # files without real numbers repeat one
                if not np.ma.getmaskarray(found).any() and len(np.unique(found)) == size:
                    return [f"{number:g}" for number in found.data]
        return [str(i + 1) for i in range(size)]

    def values(self, variable: netCDF4.Variable) -> tuple[list[str], np.ndarray]:
        """Names of a variable's channels and its numbers, `(location, channel)`."""
        dimensions = variable.dimensions
        if dimensions[:1] != (self.location,) or len(dimensions) > 2:
            raise DataError(
                f"{self.path}: variable {variable.group().name}/{variable.name} has the dimensions "
                f"{dimensions}, expected ({self.location},) or ({self.location}, Channel)"
            )
        data = self.numbers(variable)
        if len(dimensions) == 1:
            return [variable.name], data[:, None]
        labels = self.channels(dimensions[1], data.shape[1])
        return [f"{variable.name}_{label}" for label in labels], data


def _like(file: _File, group: str, observed: dict[str, list[str]], shapes) -> np.ndarray | None:
    """A group's numbers beside those of ObsValue, `(location, variable)`, or None."""
    held = file.file.groups[group].variables
    if not any(name in held for name in observed):
        return None
    parts = []
    for name, shape in zip(observed, shapes, strict=True):
        if name not in held:
            parts.append(np.full(shape, np.nan))
            continue
        _, data = file.values(held[name])
        if data.shape != shape:
            raise DataError(
                f"{file.path}: variable {group}/{name} has the shape {data.shape}, "
                f"that of ObsValue has {shape}"
            )
        parts.append(data)
    return np.concatenate(parts, 1)


def read_ioda(path: Path | str) -> ObsTable:
    """The observations of an IODA file of version 2 or 3; `record` counts its locations from 0.

    Values that are fill values have no row. `qc` is that of PreQC, or of QualityMarker, and 0
    where the file gives none. Each further group with a variable that ObsValue has becomes a
    column.

    Raises:
        DataError: a file that is no such one, a group, dimension or variable that is missing or
            of another shape, or a time that does not exist; names file, variable and record.
    """
    path = Path(path)
    with opened(path) as dataset:
        file = _File(path, dataset)
        observed, shapes, units, parts = {}, [], {}, []
        for name, variable in dataset.groups["ObsValue"].variables.items():
            names, data = file.values(variable)
            observed[name] = names
            shapes.append(data.shape)
            parts.append(data)
            units |= dict.fromkeys(names, attribute(variable, "units"))
        if not parts:
            raise DataError(f"{path}: group ObsValue has no variable")
        latitude, longitude, time = file.place(LATITUDE), file.place(LONGITUDE), file.time()
        heights = [(v, file.numbers(v)) for v in file.find(VERTICAL) if not is_text(v)]
        known = [(v, data) for v, data in heights if np.isfinite(data).any()]
        vertical, label, unit = np.full(file.n, np.nan), "", ""
        if known:
            holder, vertical = known[0]
            label, unit = holder.name, attribute(holder, "units")
            if label == "vertical":  # of write_ioda: what it is stands beside it
                label = attribute(holder, "long_name") or label
        stations = file.find(STATION)
        station = text(stations[0]) if stations else np.full(file.n, "", object)
        own = dataset.groups["MetaData"].variables.get("sourceRecord")
        record = np.arange(file.n) if own is None else numbers(own).astype(np.int64).filled(-1)
        groups = {
            group: beside
            for group in dataset.groups
            if group not in ("MetaData", "VarMetaData", "ObsValue")
            and (beside := _like(file, group, observed, shapes)) is not None
        }
    value = np.concatenate(parts, 1)
    present = np.isfinite(value)
    row, column = np.nonzero(present)
    flags = next((groups.pop(name) for name in QC if name in groups), None)
    error = groups.pop("ObsError", None)
    return make_table(
        str(path),
        units,
        variable=np.array(list(units), object)[column],
        time=time[row],
        latitude=latitude[row],
        longitude=longitude[row],
        vertical=vertical[row],
        station=station[row],
        value=value[present],
        std=np.nan if error is None else error[present],
        qc=0 if flags is None else np.nan_to_num(flags[present]),
        record=record[row],
        extra={GROUPS.get(name, name): beside[present] for name, beside in groups.items()},
        missing=dict(zip(units, (~present).sum(0).tolist(), strict=True)),
        vertical_name=label,
        vertical_units=unit,
    )
