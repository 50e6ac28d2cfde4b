"""Observation files: each format read against numbers written by hand, and back unchanged."""

import warnings

import netCDF4
import numpy as np
import pandas as pd
import pytest

from dasim import sensors
from dasim.types import DataError


def same(a, b):
    """Two tables hold the same rows, whatever their order."""
    assert sorted(a.frame.columns) == sorted(b.frame.columns)
    left, right = a.sorted().frame, b.sorted().frame[a.frame.columns]
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert a.units == b.units


def rows(table, *columns):
    return list(table.sorted().frame[list(columns)].itertuples(index=False, name=None))


@pytest.fixture
def table():
    """Three locations, two variables, what can be unknown unknown somewhere."""
    return sensors.make_table(
        "hand",
        {"airTemperature": "K", "windEastward": "m s-1"},
        variable=["airTemperature", "windEastward", "airTemperature", "windEastward"],
        time=np.array(["2020-02-29T12", "2020-02-29T12", "2020-03-01", "2020-03-02"], "M8[ns]"),
        latitude=[45.1, 45.1, -90.0, np.nan],
        longitude=[350.0, 350.0, 180.0, np.nan],
        vertical=[85000.0, 85000.0, np.nan, 50000.0],
        station=["A1", "A1", "Ålesund", ""],
        value=[273.15, -4.0, 250.1, 1 / 3],
        std=[1.0, np.nan, 0.7, 2.0],
        qc=[0, 3, 1, 0],
        record=[0, 0, 1, 2],
        extra={"HofX": [272.0, -4.5, np.nan, 0.1], "used": [1, 0, 1, 1]},
        vertical_name="pressure",
        vertical_units="Pa",
    )


# The container


def test_longitudes_are_wrapped_and_rows_chosen(table):
    assert table.frame["longitude"].tolist()[:3] == [-10, -10, -180]
    assert table.extra == ["HofX", "used"]
    warm = table.select(variables="airTemperature")
    assert warm.units == {"airTemperature": "K"} and len(warm) == 2
    # the start is within, the end is not
    day = table.select(between=("2020-02-29T12:00", "2020-03-01T00:00Z"))
    assert day.frame["value"].tolist() == [273.15, -4.0]
    assert table.select(stations=["A1"], variables=["windEastward"]).frame["qc"].tolist() == [3]
    assert day.frame.attrs["vertical"] == "pressure"
    with pytest.raises(DataError, match="hand: has no variable humidity"):
        table.select(variables=["humidity"])


def test_counts(table):
    counts = table.counts()
    assert counts["n"].to_dict() == {"airTemperature": 2, "windEastward": 2}
    assert counts["qc"].to_dict() == {"airTemperature": {0: 1, 1: 1}, "windEastward": {0: 1, 3: 1}}


@pytest.mark.parametrize(
    ("column", "wrong", "told"),
    [
        ("value", np.nan, "value is nan"),
        ("value", 9.96921e36, "beyond anything observed"),
        ("time", np.datetime64("NaT"), "no time"),
        ("latitude", 91, "latitude 91"),
        ("longitude", 1e9, "longitude"),
        ("std", -1, "standard deviation is -1"),
        ("qc", 0.5, "flag 0.5"),
        ("variable", "q", "units"),
    ],
)
def test_faults_of_columns_are_named(column, wrong, told):
    good = {"variable": "T", "time": np.datetime64("2020-01-01", "ns"), "value": [1.0, 2.0]}
    columns = {name: np.array([good[name]] * 2).reshape(-1)[:2] for name in ("variable", "time")}
    columns |= {"value": np.array(good["value"]), "record": [7, 8]}
    sensors.make_table("here", {"T": "K"}, **columns)
    bad = np.broadcast_to(columns.get(column, np.zeros(2)), 2).copy()
    bad = bad.astype(object if column == "variable" else bad.dtype if column == "time" else float)
    bad[1] = wrong
    with pytest.raises(DataError, match=told) as error:
        sensors.make_table("here", {"T": "K"}, **(columns | {column: bad}))
    assert "here" in str(error.value) and "record 8" in str(error.value)


def test_an_empty_table_works_everywhere(tmp_path):
    empty = sensors.make_table(
        "none", {"T": "K"}, variable=[], time=np.array([], "M8[ns]"), value=[]
    )
    assert len(empty.sorted().select(variables="T", between=("2020", None))) == 0
    assert empty.counts().loc["T", "n"] == 0
    sensors.write_ioda(tmp_path / "none.nc", empty)
    same(empty, sensors.read_observations(tmp_path / "none.nc"))
    sensors.write_csv(tmp_path / "none.csv", empty)
    assert len(sensors.read_observations(tmp_path / "none.csv")) == 0


# IODA


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


# Times


@pytest.mark.parametrize(
    ("units", "calendar", "number", "expected"),
    [
        ("seconds since 1970-01-01T00:00:00Z", "", 951782400, "2000-02-29"),
        ("days since 1900-01-01", "gregorian", 36524.5, "2000-01-01T12:00"),
        ("hours since 2020-01-01 06:00:00 +02:00", "standard", 1, "2020-01-01T05:00"),
        ("minutes since 2020-02-28", "proleptic_gregorian", 2880, "2020-03-01"),
        # the day after 4 October 1582 was the 15th, 152384 days before 2000
        ("days since 1582-10-04", "standard", 152385, "2000-01-01"),
        ("days since 1999-12-19", "julian", 0, "2000-01-01"),
        ("days since 2000-02-28", "noleap", 1, "2000-03-01"),
        ("days since 2000-01-30", "360_day", 1, "2000-02-01"),
        ("milliseconds since 2020-01-01", "", 1500, "2020-01-01T00:00:01.5"),
        ("nanoseconds since 2020-01-01", "", 7, "2020-01-01T00:00:00.000000007"),
    ],
)
def test_units_and_calendars(units, calendar, number, expected):
    from dasim.sensors.times import from_numbers

    found = from_numbers(np.array([number, number]), units, calendar, "here")
    assert (found == np.datetime64(expected, "ns")).all()


@pytest.mark.parametrize(
    ("units", "calendar", "number", "told"),
    [
        ("days since 2001-01-30", "360_day", 29, "2001-02-29"),  # day 29 of a February of 28
        ("days since 2001-02-28", "all_leap", 1, "2001-02-29"),
        ("days since 2001-01-01", "", 1e9, "outside 1677"),
        ("furlongs since 2001-01-01", "", 0, "do not count time"),
        ("days since 2001-01-01", "mayan", 0, "do not count time"),
        ("K", "", 0, "do not count time"),
    ],
)
def test_times_that_do_not_exist(units, calendar, number, told):
    from dasim.sensors.times import from_numbers

    with pytest.raises(DataError, match=told) as error:
        from_numbers(np.array([0.0, number]), units, calendar, "file: variable time")
    assert "file: variable time" in str(error.value)
    if "exist" not in told and "count" not in told:
        assert "record 1" in str(error.value)


# The discrete sampling geometries of CF


def new(path, kind, **dimensions):
    file = netCDF4.Dataset(path, "w")
    file.featureType, file.Conventions = kind, "CF-1.8"
    for name, size in dimensions.items():
        file.createDimension(name, size)
    return file


def put(file, name, dimensions, data, kind="f8", fill=None, **attributes):
    variable = file.createVariable(name, kind, dimensions, fill_value=fill)
    variable.setncatts(attributes)
    variable[...] = np.array(data, object) if kind is str else data
    return variable


TIME = {"standard_name": "time", "units": "hours since 2020-01-01"}
LAT = {"standard_name": "latitude", "units": "degrees_north"}
LON = {"standard_name": "longitude", "units": "degrees_east"}
ID = {"cf_role": "timeseries_id"}
WHERE = {"coordinates": "when y x name", "units": "K"}


def hours(table):
    time = table.sorted().frame["time"].to_numpy() - np.datetime64("2020-01-01")
    return (time / np.timedelta64(1, "h")).tolist()


def test_orthogonal_time_series_with_errors_flags_and_packing(tmp_path):
    with new(tmp_path / "a.nc", "TimeSeries", station=2, t=3, n=4) as file:
        put(file, "when", ("t",), [0, 1, 2], axis="T", **TIME)
        put(file, "y", ("station",), [1, 2], **LAT)
        put(file, "x", ("station",), [190, 20], **LON)
        put(file, "z", ("station",), [5, 6], axis="Z", units="m", positive="up")
        name = file.createVariable("name", "S1", ("station", "n"))
        name.cf_role, name[:] = "timeseries_id", [list("AB  "), list("CDEF")]
        pack = {"scale_factor": 0.1, "add_offset": 273.0, "ancillary_variables": "e f", **WHERE}
        packed = file.createVariable("T", "i2", ("station", "t"), fill_value=-999)
        packed.setncatts(pack)
        packed.set_auto_maskandscale(False)
        packed[:] = [[0, 10, -999], [20, 30, 40]]
        put(file, "e", ("station",), [0.5, 0.25], standard_name="air_temperature standard_error")
        flag = {"standard_name": "air_temperature status_flag"}
        put(file, "f", ("station", "t"), [[0, 1, 9], [0, 0, 2]], "i1", **flag)
        # the same elements in the other order of dimensions
        put(file, "p", ("t", "station"), [[1, 2], [3, 4], [5, 6]], units="hPa")
    table = sensors.read_observations(tmp_path / "a.nc")
    assert table.units == {"T": "K", "p": "hPa"} and table.missing == {"T": 1, "p": 0}
    warm = table.select(variables="T")
    assert np.allclose(warm.frame["value"], [273, 274, 275, 276, 277])
    assert hours(warm.select(stations="CDEF")) == [0, 1, 2]
    assert warm.frame["std"].tolist() == [0.5, 0.5, 0.25, 0.25, 0.25]
    assert warm.frame["qc"].tolist() == [0, 1, 0, 0, 2]
    assert warm.frame["longitude"].tolist() == [-170] * 2 + [20] * 3
    assert warm.frame["vertical"].tolist() == [5] * 2 + [6] * 3
    pressure = table.select(variables="p", stations="AB").frame
    assert pressure["value"].tolist() == [1, 3, 5] and pressure["record"].tolist() == [0, 1, 2]


def test_incomplete_time_series(tmp_path):
    with new(tmp_path / "a.nc", "timeSeries", station=2, obs=3) as file:
        put(file, "when", ("station", "obs"), [[0, 1, -1], [5, 6, 7]], fill=-1, **TIME)
        put(file, "y", ("station",), [1, 2], **LAT)
        put(file, "x", ("station",), [10, 20], **LON)
        put(file, "name", ("station",), [101, 102], "i4", **ID)
        put(file, "T", ("station", "obs"), [[1, 2, -9], [3, -9, 4]], fill=-9, **WHERE)
    table = sensors.read_observations(tmp_path / "a.nc")
    assert rows(table, "station", "value", "latitude") == [
        ("101", 1, 1),
        ("101", 2, 1),
        ("102", 3, 2),
        ("102", 4, 2),
    ]
    assert hours(table) == [0, 1, 5, 7]
    assert table.missing == {"T": 1}  # the padding is not missing


def test_a_single_station_without_its_dimension(tmp_path):
    with new(tmp_path / "a.nc", "timeSeries", t=2) as file:
        put(file, "when", ("t",), [0, 24], **TIME)
        put(file, "y", (), 1, **LAT)
        put(file, "x", (), 2, **LON)
        put(file, "name", (), "mast", str, **ID)
        put(file, "T", ("t",), [1, 2], **WHERE)
    table = sensors.read_observations(tmp_path / "a.nc")
    assert rows(table, "station", "value", "longitude") == [("mast", 1, 2), ("mast", 2, 2)]


@pytest.mark.parametrize("layout", ["contiguous", "indexed"])
def test_ragged_profiles(tmp_path, layout):
    """Profiles of 2, 0 and 3 levels; the same values in both layouts."""
    order = [0, 1, 2, 3, 4] if layout == "contiguous" else [4, 0, 2, 1, 3]
    with new(tmp_path / "a.nc", "profile", profile=3, obs=5) as file:
        put(file, "when", ("profile",), [0, 1, 2], **TIME)
        put(file, "y", ("profile",), [10, 20, 30], **LAT)
        put(file, "x", ("profile",), [1, 2, 3], **LON)
        put(file, "id", ("profile",), ["p0", "p1", "p2"], str, cf_role="profile_id")
        if layout == "contiguous":
            put(file, "rows", ("profile",), [2, 0, 3], "i4", sample_dimension="obs")
        else:
            owner = np.array([0, 0, 2, 2, 2])[order]
            put(file, "owner", ("obs",), owner, "i4", instance_dimension="profile")
        depth = np.array([5, 10, 5, 50, 500])[order]
        put(file, "z", ("obs",), depth, axis="Z", standard_name="depth", units="m", positive="down")
        values = np.array([1.0, 2, 3, 4, 5])[order]
        put(file, "S", ("obs",), values, units="1e-3", coordinates="when y x z")
    table = sensors.read_observations(tmp_path / "a.nc")
    frame = table.frame.sort_values("value")
    assert frame["station"].tolist() == ["p0", "p0", "p2", "p2", "p2"]
    assert frame["latitude"].tolist() == [10, 10, 30, 30, 30]
    assert frame["vertical"].tolist() == [5, 10, 5, 50, 500]
    assert frame["time"].dt.hour.tolist() == [0, 0, 2, 2, 2]
    assert table.frame.attrs == {"vertical": "depth", "vertical_units": "m"}


def test_orthogonal_profiles(tmp_path):
    with new(tmp_path / "a.nc", "profile", profile=2, z=3) as file:
        put(file, "when", ("profile",), [0, 1], **TIME)
        put(file, "y", ("profile",), [10, 20], **LAT)
        put(file, "x", ("profile",), [1, 2], **LON)
        put(file, "z", ("z",), [100, 200, 300], axis="Z", units="Pa", standard_name="air_pressure")
        put(file, "T", ("profile", "z"), [[1, 2, 3], [4, np.nan, 6]], units="K")
    table = sensors.read_observations(tmp_path / "a.nc")
    assert rows(table, "value", "vertical", "latitude") == [
        (1, 100, 10),
        (2, 200, 10),
        (3, 300, 10),
        (4, 100, 20),
        (6, 300, 20),
    ]
    assert table.missing == {"T": 1}


def test_ragged_trajectories_with_positions_of_each_element(tmp_path):
    with new(tmp_path / "a.nc", "trajectory", trajectory=2, obs=4) as file:
        put(file, "rows", ("trajectory",), [1, 3], "i4", sample_dimension="obs")
        put(file, "id", ("trajectory",), ["ship", "buoy"], str, cf_role="trajectory_id")
        put(file, "when", ("obs",), [3, 0, 1, 2], **TIME)
        put(file, "y", ("obs",), [0, 1, 2, 3], **LAT)
        put(file, "x", ("obs",), [179, 180, 181, 182], **LON)
        put(file, "T", ("obs",), [1, 2, 3, 4], **WHERE)
    table = sensors.read_observations(tmp_path / "a.nc")
    assert rows(table, "station", "value", "longitude") == [
        ("buoy", 2, -180),
        ("buoy", 3, -179),
        ("buoy", 4, -178),
        ("ship", 1, 179),
    ]


def test_points_found_by_units_alone_in_a_classic_file(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.featureType = "point"
        file.createDimension("obs", 2)
        put(file, "t", ("obs",), [40000, 40000.25], units="days since 1900-01-01")
        put(file, "a", ("obs",), [1, 2], units="degrees_north")
        put(file, "b", ("obs",), [3, 4], units="degrees_east")
        put(file, "T", ("obs",), [5, 6], units="K")
    table = sensors.read_observations(tmp_path / "a.nc")
    # 40000 days after 1900-01-01 is 2009-07-08
    assert [str(t) for t in table.frame["time"]] == ["2009-07-08 00:00:00", "2009-07-08 06:00:00"]
    assert rows(table, "value", "latitude", "longitude") == [(5, 1, 3), (6, 2, 4)]


def test_profiles_along_ragged_trajectories(tmp_path):
    """Indices of indices: levels lead to profiles, profiles to the ship."""
    with new(tmp_path / "a.nc", "trajectoryProfile", ship=2, profile=2, obs=3) as file:
        put(file, "id", ("ship",), ["a", "b"], str, cf_role="trajectory_id")
        put(file, "owner", ("profile",), [1, 0], "i4", instance_dimension="ship")
        put(file, "rows", ("profile",), [1, 2], "i4", sample_dimension="obs")
        put(file, "when", ("profile",), [0, 1], **TIME)
        put(file, "y", ("profile",), [1, 2], **LAT)
        put(file, "x", ("profile",), [3, 4], **LON)
        put(file, "T", ("obs",), [7, 8, 9], units="K")
    table = sensors.read_observations(tmp_path / "a.nc")
    assert rows(table, "station", "value", "latitude") == [("b", 7, 1), ("a", 8, 2), ("a", 9, 2)]


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        ("sample", [2, 2], "row sizes sum up to 4, the dimension obs has 3"),
        ("sample", [-1, 4], "variable link, record 0: -1 is no row size"),
        ("instance", [0, 1, 2], "variable link, record 2: 2 is no index into k, of size 2"),
    ],
)
def test_counts_of_ragged_arrays_that_do_not_fit(tmp_path, kind, data, told):
    with new(tmp_path / "a.nc", "profile", k=2, obs=3) as file:
        dimension, of = ("k", "obs") if kind == "sample" else ("obs", "k")
        put(file, "link", (dimension,), data, "i4", **{f"{kind}_dimension": of})
        put(file, "when", ("k",), [0, 1], **TIME)
        put(file, "T", ("obs",), [7, 8, 9], units="K")
    with pytest.raises(DataError, match=told):
        sensors.read_observations(tmp_path / "a.nc")


# DART

NONE = -888888
HEADER = """ obs_sequence
obs_type_definitions
           2
           4 GPSRO_REFRACTIVITY
          68 ACARS_TEMPERATURE
  num_copies:            3  num_qc:            2
  num_obs:            3  max_num_obs:            3
NCEP BUFR observation
prior ensemble mean
prior ensemble spread
Data QC
DART quality control
  first:            2  last:            3
"""


SPHERE = 68, (np.pi, np.pi / 4, 85000.0, 2)
RAY = 4, (3 * np.pi / 2, -np.pi / 2, 2600.0, 3)
NOWHERE = 68, (0.0, 0.0, -888888.0, -2)
LENGTHS = "gpsroref     504\n   0.0   0.0   0.0   GPSREF\n"
EXTERNAL = "external_FO       3       1\n  1.0  2.0\n  3.0\n"


def dart(key, links, where, numbers, time, more="", variance=4.0):
    kind, place = where
    lines = [f" OBS            {key}", *(f"   {x:.15f}" for x in numbers)]
    lines += [f"   {links[0]}  {links[1]}  -1", "obdef", "loc3d"]
    lines += ["     " + "   ".join(str(p) for p in place), "kind", f"   {kind}"]
    return "\n".join(lines) + f"\n{more} {time[0]}     {time[1]}\n   {variance}\n"


def sequence():
    first, second, third = (230.5, 231.25, 0.5, 1, 7), (80, NONE, NONE, 0, 4), (NONE, 1, 1, 5, 0)
    return (
        HEADER
        + dart(1, (2, 3), SPHERE, first, (60, 153005))
        + dart(2, (-1, 1), RAY, second, (0, 153005), LENGTHS, 0.25)
        + dart(3, (1, -1), NOWHERE, third, (30, 153006), EXTERNAL)
    )


def test_dart_sequence(tmp_path):
    (tmp_path / "obs_seq.final").write_text(sequence())
    table = sensors.read_observations(tmp_path / "obs_seq.final")
    frame = table.frame
    assert frame["record"].tolist() == [2, 1]  # the order of the linked list
    assert frame["variable"].tolist() == ["GPSRO_REFRACTIVITY", "ACARS_TEMPERATURE"]
    assert table.missing == {"GPSRO_REFRACTIVITY": 0, "ACARS_TEMPERATURE": 1}
    assert frame["value"].tolist() == [80, 230.5] and frame["std"].tolist() == [0.5, 2]
    assert np.allclose(frame["latitude"], [-90, 45]) and np.allclose(
        frame["longitude"], [-90, -180]
    )
    assert frame["vertical"].tolist() == [2600, 85000] and frame["vertical_kind"].tolist() == [3, 2]
    assert np.isnan(frame["HofX"][0]) and frame["HofX"][1] == 231.25
    assert frame["qc"].tolist() == [0, 1] and frame["EffectiveQC"].tolist() == [4, 7]
    # day 153005 after 1601-01-01 is 2019-12-01
    assert frame["time"].tolist() == [pd.Timestamp("2019-12-01"), pd.Timestamp("2019-12-01 00:01")]
    sensors.write_ioda(tmp_path / "a.nc", table)
    same(table, sensors.read_observations(tmp_path / "a.nc"))


def test_dart_parsed_in_blocks_is_the_same(tmp_path, monkeypatch):
    (tmp_path / "a").write_text(sequence())
    whole = sensors.read_dart(tmp_path / "a")
    monkeypatch.setattr("dasim.sensors.dart.BLOCK", 100)
    same(whole, sensors.read_dart(tmp_path / "a"))


def test_dart_identity_observations_of_a_ring(tmp_path):
    text = """obs_sequence
obs_type_definitions
 0
  num_copies: 1 num_qc: 1
  num_obs: 1 max_num_obs: 1
observations
Quality Control
  first: 1 last: 1
 OBS 1
 0.5D+01
 0.0
 -1 -1 -1
obdef
loc1d
 0.25
kind
 -11
 3600 1
 4.0
"""
    (tmp_path / "a").write_text(text)
    table = sensors.read_observations(tmp_path / "a")
    columns = ("variable", "value", "std", "location", "state_index")
    assert rows(table, *columns) == [("state", 5, 2, 0.25, 11)]
    assert table.frame["time"][0] == pd.Timestamp("1970-01-02T01")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("num_obs:            3", "num_obs:            4", "record 4 is missing"),
        ("num_obs:            3", "num_obs:            2", "record 3 is one too many"),
        ("num_copies:            3", "num_copies:            2", "line 12"),
        ("   2  3  -1", "   2  -1  -1", "record 3 is not in the linked list"),
        ("   1  -1  -1", "   1  2  -1", "record 3 is the last"),
        ("last:            3", "last:            1", "record 3 is the last"),
        (" OBS            2", " OBS            7", "record 2 is numbered 7"),
        ("   80.0", "   8o.0", "record 2: 'NCEP BUFR observation' is '8o.0"),
        ("kind\n   4", "kind\n   5", "record 2: kind 5"),
        ("0.25\n", "-0.25\n", "GPSRO_REFRACTIVITY, record 2: the error variance is -0.25"),
        ("obdef", "abdef", "record 1: 'abdef'"),
        ("NCEP BUFR observation", "truth", "no copy is called observation"),
    ],
)
def test_dart_faults_name_the_record(tmp_path, old, new, told):
    text = sequence()
    assert old in text
    (tmp_path / "a").write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=told) as error:
        sensors.read_observations(tmp_path / "a")
    assert str(tmp_path / "a") in str(error.value)


# Text

METAR = """Unix_time,ICAO,Latitude,Longitude,Elev,Temp,Dewp,Wdir,Wspd,Wgst,Vis,Pcp,QcFlag,Altimeter
1601530260,AAAA, 55.270, -77.770,12,  4.0,  3.0,310,12,18,  5.00,,2,29.24
1601533800,"B, B",-34.000, 199.000,,-11.0,,0,3,,  1.86,,0,30.12
"""


def test_the_metar_table_is_known_by_its_header(tmp_path):
    (tmp_path / "m.csv").write_text(METAR)
    table = sensors.read_observations(tmp_path / "m.csv")
    assert table.units["wind_speed"] == "knots" and table.units["altimeter_setting"] == "inHg"
    counts = table.counts()
    assert counts["n"].sum() == 12 and counts.loc["precipitation", "missing"] == 2
    cold = table.select(variables="air_temperature").frame
    assert cold["value"].tolist() == [4, -11] and cold["qc"].tolist() == [2, 0]
    assert cold["longitude"].tolist() == [-77.77, -161]
    assert cold["vertical"][0] == 12 and np.isnan(cold["vertical"][1])
    assert cold["time"].tolist() == [
        pd.Timestamp("2020-10-01 05:31"),
        pd.Timestamp("2020-10-01 06:30"),
    ]
    assert cold["record"].tolist() == [0, 1]


MAP = """
time: when
time_format: "%d.%m.%Y %H:%M"
latitude: 45.5
longitude: lon
station: id
values: {T: [temperature, degC], p: [pressure, hPa]}
std: {temperature: 0.5, pressure: sp}
qc: flag
missing: ["-999", ""]
delimiter: ;
"""
TABLE = """when;lon;id;T;p;sp;flag
01.02.2020 06:00;10;a;1.5;-999;0.3;0
01.02.2020 07:00;10;b;2.5;1000.5;0.4;3
"""


def test_a_map_in_yaml(tmp_path):
    (tmp_path / "map.yaml").write_text(MAP)
    (tmp_path / "t.csv").write_text(TABLE)
    table = sensors.read_observations(tmp_path / "t.csv", tmp_path / "map.yaml")
    assert rows(table, "variable", "value", "std", "qc", "latitude", "station") == [
        ("temperature", 1.5, 0.5, 0, 45.5, "a"),
        ("pressure", 1000.5, 0.4, 3, 45.5, "b"),
        ("temperature", 2.5, 0.5, 3, 45.5, "b"),
    ]
    assert table.frame["time"].max() == pd.Timestamp("2020-02-01 07:00")
    assert table.missing == {"temperature": 0, "pressure": 1}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (";2.5;", ";warm;", "t.csv: column T, line 3: 'warm' is not a number"),
        (";2.5;", ";1_0;", "column T, line 3: '1_0'"),
        (";2.5;", ";inf;", "column T, line 3: 'inf'"),
        (";2.5;", ";", "line 3: has 6 columns, the header 7"),
        ("01.02.2020 07:00", "30.02.2020 07:00", "column when, line 3: '30.02.2020 07:00'"),
        ("01.02.2020 07:00", "", "column when, line 3: '' is no time"),
        (";0.4;", ";-0.4;", "variable pressure, record 1: the error standard deviation is -0.4"),
        (";3\n", ";3.5\n", "column flag, line 3: '3.5' is no integer"),
        ("when;", "time;", "has no column when"),
    ],
)
def test_faults_of_text_name_column_and_line(tmp_path, old, new, told):
    (tmp_path / "map.yaml").write_text(MAP)
    (tmp_path / "t.csv").write_text(TABLE.replace(old, new, 1))
    with pytest.raises(DataError, match=told) as error:
        sensors.read_observations(tmp_path / "t.csv", tmp_path / "map.yaml")
    assert "t.csv" in str(error.value)


def test_lines_are_those_of_the_editor(tmp_path):
    text = 'when,note,T\n2020-01-01,"two\nlines",1\n\n2020-01-02,x,hot\n'
    (tmp_path / "t.csv").write_text(text)
    columns = sensors.CsvColumns(time="when", values={"T": ("T", "K")})
    with pytest.raises(DataError, match="column T, line 5: 'hot'"):
        sensors.read_csv(tmp_path / "t.csv", columns)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("time: [", "not YAML"),
        ("time: t", "values: Field required"),
        ("tme: t", "tme"),
        ("", "map"),
    ],
)
def test_faults_of_maps(tmp_path, text, told):
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(DataError, match=told) as error:
        sensors.read_map(tmp_path / "map.yaml")
    assert "map.yaml" in str(error.value)


def test_text_round_trip(tmp_path, table):
    sensors.write_csv(tmp_path / "a.csv", table)
    same(table, sensors.read_observations(tmp_path / "a.csv"))
