"""CF files: times, and the discrete sampling geometries against numbers written by hand."""

import netCDF4
import numpy as np
import pytest
from observation_tables import rows

from dasim import sensors
from dasim.types import DataError


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
