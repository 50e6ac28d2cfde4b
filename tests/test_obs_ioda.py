"""IODA files: against numbers written by hand, and back unchanged."""

import warnings

import netCDF4
import numpy as np
import pandas as pd
import pytest
from observation_tables import rows, same

from dasim import sensors
from dasim.types import DataError


def test_ioda_round_trip(tmp_path, table):
    sensors.write_ioda(tmp_path / "a.nc", table, {"platform": "test"})
    again = sensors.read_observations(tmp_path / "a.nc")
    same(table, again)
    assert again.frame.attrs == table.frame.attrs
    assert again.missing == {"airTemperature": 1, "windEastward": 1}
    with netCDF4.Dataset(tmp_path / "a.nc") as file:
        assert file._ioda_layout == "ObsGroup" and file._ioda_layout_version == 3
        assert set(file.groups) == {"MetaData", "ObsValue", "ObsError", "PreQC", "HofX", "used"}
        assert file["MetaData/dateTime"][0] == 1582977600  # 2020-02-29T12Z
        # what single precision holds is stored so
        assert (
            file["MetaData/pressure"].dtype == "f4"
            and file["ObsValue/airTemperature"].dtype == "f8"
        )


def test_ioda_round_trip_of_fractions_of_seconds_and_other_records(tmp_path, table):
    frame = table.frame.copy()
    frame["time"] += pd.to_timedelta(frame["record"] * 1_000_001, unit="ns")
    frame["record"] = [41, 41, 7, 3]
    frame.attrs = table.frame.attrs
    other = sensors.ObsTable(frame, table.units, "other")
    sensors.write_ioda(tmp_path / "a.nc", other)
    same(other, sensors.read_observations(tmp_path / "a.nc"))


@pytest.mark.parametrize("column", ["latitude", "variable"])
def test_ioda_refuses_two_places_or_values_in_a_record(tmp_path, table, column):
    frame = table.frame.copy()
    frame.loc[1, column] = {"latitude": 3.0, "variable": "airTemperature"}[column]
    with pytest.raises(DataError, match="record 0"):
        sensors.write_ioda(tmp_path / "a.nc", sensors.ObsTable(frame, table.units, "x"))


def ioda(path, names="camel", version=3, when="seconds", values=None, **extra):
    """Two locations with temperature and, of two channels, radiance, by hand."""
    camel = names == "camel"
    location, channel = ("Location", "Channel") if version == 3 else ("nlocs", "nchans")
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension(location, 3)
        file.createDimension(channel, 2)
        meta = file.createGroup("MetaData")
        for name, data in (("latitude", [10, 20, 30]), ("longitude", [200, 0, 359.5])):
            meta.createVariable(name, "f4", (location,))[:] = data
        if when == "seconds":
            time = meta.createVariable("dateTime", "i8", (location,))
            time.units = "seconds since 1970-01-01T00:00:00Z"
            time[:] = [0, 86400, 951782400]  # the last is 2000-02-29
        elif when == "hours":
            file.date_time = np.int32(2018041500)
            meta.createVariable("time", "f4", (location,))[:] = [-1.5, 0, 3]
        elif when == "string":
            time = meta.createVariable("datetime", str, (location,))
            time[:] = np.array(
                ["2018-04-15T00:00:00Z", "2018-04-15T06:00:00Z"] + ["2020-02-29"], "O"
            )
        elif when == "chars":
            file.createDimension("nstring", 20)
            time = meta.createVariable("datetime", "S1", (location, "nstring"))
            text = np.array(["2018-04-15T00:00:00Z"] * 3, "S20")
            time[:] = netCDF4.stringtochar(text)
        station = meta.createVariable(
            "stationIdentification" if camel else "station_id", str, (location,)
        )
        station[:] = np.array(["a", "b", "c"], object)
        pressure = meta.createVariable("pressure" if camel else "air_pressure", "f4", (location,))
        pressure.units, pressure[:] = "Pa", [1e5, 5e4, 2e4]
        number = file.createVariable(channel, "i4", (channel,))
        number[:] = [4, 11]
        for group in ("ObsValue", "ObsError", "PreQC"):
            file.createGroup(group)
        fill = np.float32(-3.3687953e38)
        t = file["ObsValue"].createVariable("airTemperature", "f4", (location,), fill_value=fill)
        t.units, t[:] = "K", [280, fill, 290] if values is None else values
        b = file["ObsValue"].createVariable("brightnessTemperature", "f4", (location, channel))
        b.units = "K"
        b[:] = [[200, 201], [9.96921e36, 211], [220, -3.4e38]]
        file["ObsError"].createVariable("airTemperature", "f4", (location,))[:] = [1, 1, 2]
        file["PreQC"].createVariable("airTemperature", "i4", (location,))[:] = [0, 0, 5]
        hofx = file.createGroup("hofx")
        hofx.createVariable("brightnessTemperature", "f4", (location, channel))[:] = [
            [1, 2],
            [3, 4],
            [5, 6],
        ]


def test_ioda_channels_fills_and_groups(tmp_path):
    ioda(tmp_path / "a.nc")
    table = sensors.read_observations(tmp_path / "a.nc")
    assert rows(table, "record", "variable", "value", "HofX")[1:3] == [
        (0, "brightnessTemperature_11", 201, 2),
        (0, "brightnessTemperature_4", 200, 1),
    ]
    assert table.missing == {
        "airTemperature": 1,
        "brightnessTemperature_4": 1,
        "brightnessTemperature_11": 1,
    }
    warm = table.select(variables="airTemperature").frame
    assert warm["value"].tolist() == [280, 290] and warm["std"].tolist() == [1, 2]
    assert warm["qc"].tolist() == [0, 5] and warm["record"].tolist() == [0, 2]
    assert warm["longitude"].tolist() == [-160, -0.5]
    assert warm["time"].tolist() == [pd.Timestamp("1970-01-01"), pd.Timestamp("2000-02-29")]
    assert warm["vertical"].tolist() == [1e5, 2e4]
    assert table.frame.attrs == {"vertical": "pressure", "vertical_units": "Pa"}
    radiance = table.select(variables="brightnessTemperature_4").frame
    assert radiance["std"].isna().all() and (radiance["qc"] == 0).all()


@pytest.mark.parametrize(
    ("when", "first"),
    [("hours", "2018-04-14T22:30"), ("string", "2018-04-15"), ("chars", "2018-04-15")],
)
def test_ioda_version_2_and_its_names(tmp_path, when, first):
    ioda(tmp_path / "a.nc", "snake", 2, when)
    table = sensors.read_observations(tmp_path / "a.nc").select(variables="airTemperature")
    assert table.frame["time"][0] == pd.Timestamp(first)
    assert table.frame["station"].tolist() == ["a", "c"]
    assert table.frame.attrs["vertical"] == "air_pressure"


def test_ioda_version_1_is_refused(tmp_path):
    with netCDF4.Dataset(tmp_path / "v1.nc", "w") as file:
        file.createDimension("nlocs", 1)
        file.createVariable("air_temperature@ObsValue", "f4", ("nlocs",))
    with pytest.raises(DataError, match=r"v1.nc: an IODA file of version 1 .*upgrader"):
        sensors.read_observations(tmp_path / "v1.nc")


@pytest.mark.parametrize("wrong", ["MetaData/latitude", "ObsError/T", "ObsValue/T"])
def test_ioda_names_what_has_another_dimension(tmp_path, wrong):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("Location", 3)
        file.createDimension("Channel", 2)
        for name in ("MetaData/latitude", "MetaData/longitude", "ObsValue/T", "ObsError/T"):
            dimension = "Channel" if name == wrong else "Location"
            file.createVariable(name, "f4", (dimension,))[:] = 1
        time = file.createVariable("MetaData/dateTime", "i8", ("Location",))
        time.units, time[:] = "seconds since 1970-01-01", 0
    with pytest.raises(DataError, match=f"a.nc: variable {wrong} .*Channel"):
        sensors.read_observations(tmp_path / "a.nc")


def test_ioda_passes_the_checker_of_cf(tmp_path, table):
    with warnings.catch_warnings():
        # its dependencies use what Python and numpy deprecate
        warnings.simplefilter("ignore")
        from compliance_checker.base import BaseCheck
        from compliance_checker.runner import CheckSuite

        sensors.write_ioda(tmp_path / "a.nc", table)
        flat = tmp_path / "flat.nc"
        flatten(tmp_path / "a.nc", flat)
        suite = CheckSuite()
        suite.load_all_available_checkers()

        def errors(path, name):
            dataset = suite.load_dataset(str(path))
            results, _ = suite.run_all(dataset, [name], skip_checks=[])[name]
            dataset.close()
            wrong = [r for r in results if r.weight == BaseCheck.HIGH and r.value[0] < r.value[1]]
            return [(r.name, r.msgs) for r in wrong]

        assert not errors(tmp_path / "a.nc", "cf:1.8")
        # the checker does not look into groups: the second file has their variables in its root.
        # 64-bit integers, which IODA has for times, came with CF 1.9
        assert not errors(flat, "cf:1.9")
        with netCDF4.Dataset(flat, "a") as file:
            file["latitude"].units = "K"
        assert errors(flat, "cf:1.9")


def flatten(source, target):
    """The coordinates and the values of an IODA file as variables of a root group."""
    with netCDF4.Dataset(source) as old, netCDF4.Dataset(target, "w") as new:
        new.setncatts({"Conventions": "CF-1.9", "title": old.title, "history": old.history})
        new.createDimension("Location", old.dimensions["Location"].size)
        for group in ("MetaData", "ObsValue"):
            for name, variable in old[group].variables.items():
                fill = getattr(variable, "_FillValue", None)
                if variable.dtype is str:
                    continue  # an array of strings, for which CF gives no rule to check
                copy = new.createVariable(name, variable.dtype, ("Location",), fill_value=fill)
                attributes = {k: variable.getncattr(k) for k in variable.ncattrs()}
                attributes.pop("_FillValue", None)
                if "coordinates" in attributes:
                    attributes["coordinates"] = attributes["coordinates"].replace("/MetaData/", "")
                copy.setncatts(attributes)
                copy[:] = variable[:]
