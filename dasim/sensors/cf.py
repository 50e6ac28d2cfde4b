"""Reads the discrete sampling geometries of the CF conventions (chapter 9 and appendix H).

A value of a data variable over the dimensions D gets the coordinates whose dimensions D reaches:
those of D itself, and those that an index leads to. With c(i) the instance (station, profile or
trajectory) of element i of the sample dimension,

    contiguous ragged:  c(i) = k  for the row_size[k] elements that follow those of instance k - 1
    indexed ragged:     c(i) = index[i]

and an orthogonal or incomplete array needs no index. So all four layouts of all feature types,
single features, and profiles of stations or trajectories, are read by one rule.
"""

from pathlib import Path

import netCDF4
import numpy as np

from dasim.sensors.cf_names import Coordinates, ancillary, cells, is_auxiliary
from dasim.sensors.netcdf import attribute, floats, is_text, numbers, opened, text, text_dimensions
from dasim.sensors.table import ObsTable, make_table
from dasim.sensors.times import from_numbers, from_text
from dasim.types import DataError

FEATURES = ("point", "timeseries", "trajectory", "profile", "timeseriesprofile",
            "trajectoryprofile")  # fmt: skip


class _Ragged:
    """What leads from one dimension to another: `parents[sample] = (instance, index)`."""

    def __init__(self, path: Path, file: netCDF4.Dataset):
        self.path, self.file = path, file
        self.parents: dict[str, tuple[str, np.ndarray]] = {}
        self.counters = set()
        for name, variable in file.variables.items():
            sample = attribute(variable, "sample_dimension")
            instance = attribute(variable, "instance_dimension")
            if not (sample or instance):
                continue
            self.counters.add(name)
            size = {k: d.size for k, d in file.dimensions.items()}
            if len(variable.dimensions) != 1 or (sample or instance) not in size:
                raise DataError(
                    f"{path}: variable {name} counts along {sample or instance!r}; expected a "
                    "variable of one dimension that names a dimension of the file"
                )
            given = numbers(variable)
            data = given.astype(float).filled(np.nan)
            here = variable.dimensions[0]
            if sample:
                wrong = ~((data >= 0) & (data == np.round(data)))
                self.refuse(name, wrong, data, "is no row size")
                if int(data.sum()) != size[sample]:
                    raise DataError(
                        f"{path}: variable {name}: the row sizes sum up to {int(data.sum())}, "
                        f"the dimension {sample} has {size[sample]}"
                    )
                self.parents[sample] = (here, np.repeat(np.arange(size[here]), data.astype(int)))
            else:
                wrong = ~((data >= 0) & (data < size[instance]) & (data == np.round(data)))
                self.refuse(
                    name, wrong, data, f"is no index into {instance}, of size {size[instance]}"
                )
                self.parents[here] = (instance, data.astype(int))

    def refuse(self, name: str, wrong: np.ndarray, data: np.ndarray, told: str):
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{self.path}: variable {name}, record {i}: {data[i]:g} {told}")

    def reach(self, dimensions: tuple[str, ...], over: tuple[str, ...]) -> dict[str, tuple] | None:
        """For each of the dimensions, the one of `over` it hangs on and the index; None if not all.

        The index is None where it is that dimension itself.
        """
        found = {}
        for name in dimensions:
            for start in over:
                here, index = start, None
                while here != name and here in self.parents:
                    here, onward = self.parents[here]
                    index = onward if index is None else onward[index]
                if here == name:
                    found[name] = (start, index)
                    break
            else:
                return None
        return found

    def spread(self, data: np.ndarray, dimensions: tuple[str, ...], over: tuple[str, ...]):
        """`data` of `dimensions` as an array that broadcasts over the dimensions `over`."""
        reached = self.reach(dimensions, over) or {}
        for axis, name in enumerate(dimensions):
            index = reached[name][1]
            if index is not None:
                data = np.take(data, index, axis)
        onto = [over.index(reached[name][0]) for name in dimensions]
        shape = [1] * len(over)
        for axis, place in enumerate(onto):
            shape[place] = data.shape[axis]
        return data.transpose(np.argsort(onto)).reshape(shape)


def _times(path: Path, variable: netCDF4.Variable) -> np.ndarray:
    where = f"{path}: variable {variable.name}"
    if is_text(variable):
        data = text(variable)
        return from_text(data.reshape(-1), where).reshape(data.shape)
    units, calendar = attribute(variable, "units"), attribute(variable, "calendar")
    data = numbers(variable)
    return from_numbers(data.reshape(-1), units, calendar, where).reshape(data.shape)


def _feature(path: Path, file: netCDF4.Dataset) -> str:
    kind = attribute(file, "featureType") or attribute(file, "CF:featureType")
    if kind.lower() not in FEATURES:
        raise DataError(
            f"{path}: the global attribute featureType is {kind!r}, expected point, timeSeries, "
            "trajectory or profile: only the discrete sampling geometries of CF are read"
        )
    return kind


def read_cf(path: Path | str) -> ObsTable:
    """The observations of a CF file with a `featureType`.

    Every variable of numbers with a time is observed, unless it is a coordinate or describes
    another one. `station` is that of `cf_role`. `std` and `qc` come from `ancillary_variables`
    whose standard names end in `standard_error`, and `status_flag` or `quality_flag`; flags keep
    the file's own numbers. `record` counts the elements of the data's dimensions, from 0.

    Raises:
        DataError: no feature type, no time, indices or row sizes that do not fit, or a value
            without a time; names file, variable and record.
    """
    path = Path(path)
    with opened(path) as file:
        _feature(path, file)
        ragged = _Ragged(path, file)
        names = Coordinates(file)
        helpers = ragged.counters | names.coordinates | ancillary(file) | cells(file)
        units, missing, pieces, offsets = {}, {}, [], {}
        vertical_of = None
        read: dict[str, np.ndarray] = {}
        if not names.times:
            raise DataError(
                f"{path}: has no time: no variable with the standard name time or with units such "
                "as 'seconds since 1970-01-01'"
            )
        for name, variable in file.variables.items():
            if name in helpers or is_text(variable) or is_auxiliary(variable) or not variable.ndim:
                continue
            # the same element has the same number whatever the order of the dimensions
            over = tuple(d for d in file.dimensions if d in variable.dimensions)
            chosen = names.choose(variable, lambda v, o=over: ragged.reach(text_dimensions(v), o))
            if chosen["time"] is None:
                continue
            shape = tuple(file.dimensions[d].size for d in over)
            if over not in offsets:
                offsets[over] = sum(int(np.prod([file.dimensions[d].size for d in o]))
                                    for o in offsets)  # fmt: skip

            def column(of, get, empty, over=over, shape=shape):
                if of is None:
                    return np.broadcast_to(np.asarray(empty), shape).reshape(-1)
                if of.name not in read:
                    read[of.name] = get(of)
                data = ragged.spread(read[of.name], text_dimensions(of), over)
                return np.broadcast_to(data, shape).reshape(-1)

            value = column(variable, floats, np.nan)
            time = column(chosen["time"], lambda v: _times(path, v), None)
            place = {
                key: column(chosen[key], floats, np.nan)
                for key in ("latitude", "longitude", "vertical")
            }
            std, flag = (column(chosen[key], floats, np.nan) for key in ("std", "qc"))
            station = column(chosen["station"], text, "")
            present = np.isfinite(value)
            # what only fills up a ragged array is not missing
            padding = np.isnat(time)
            for key, data in place.items():
                padding = padding | (np.isnan(data) & (chosen[key] is not None))
            units[name] = attribute(variable, "units")
            missing[name] = int((~present & ~padding).sum())
            vertical_of = vertical_of or chosen["vertical"]
            pieces.append(
                {
                    "variable": np.full(present.sum(), name, object),
                    "time": time[present],
                    "value": value[present],
                    "std": std[present],
                    "qc": np.nan_to_num(flag[present]),
                    "station": station[present].astype(object),
                    "record": np.flatnonzero(present) + offsets[over],
                }
                | {key: data[present] for key, data in place.items()}
            )
        if not pieces:
            raise DataError(f"{path}: has no variable of numbers over the dimensions of its times")
        columns = {key: np.concatenate([p[key] for p in pieces]) for key in pieces[0]}
        order = np.argsort(columns["record"], kind="stable")
        told = {}
        if vertical_of is not None:
            label = attribute(vertical_of, "standard_name") or vertical_of.name
            told = {"vertical_name": label, "vertical_units": attribute(vertical_of, "units")}
    columns = {key: data[order] for key, data in columns.items()}
    return make_table(str(path), units, missing=missing, **columns, **told)
