"""Malformed observation files: each read ends in a table that keeps every good observation, or in
one `DataError` that names the file and, where there is one, the variable and the record."""

import netCDF4
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dasim import sensors
from dasim.types import DataError

SETTINGS = settings(max_examples=30, deadline=None, derandomize=True)
# by hand: NaN, JEDI's and netCDF's fills undeclared, and the declared one
ABSENT = [np.nan, -3.3687953e38, -3.4e38, 9.969209968386869e36, -999.0]
VALUES = st.lists(
    st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from(ABSENT)), min_size=3, max_size=6
)


def good(values):
    """`{record: value}` of those that are not missing."""
    return {i: v for i, v in enumerate(values) if not any(v == a for a in ABSENT) and v == v}


def read(path, kept, named, columns=None):
    """Read, and check how it ends.

    Args:
        kept: `{record: value}` that a table must hold.
        named: what a message must name; None where there must be a table.
    """
    try:
        table = sensors.read_observations(path, columns)
    except DataError as error:
        message = str(error)
        assert named is not None, message
        assert str(path) in message and "\n" not in message
        for word in named:
            assert word in message
        return None
    found = dict(zip(table.frame["record"], table.frame["value"], strict=True))
    assert kept.items() <= found.items()
    assert np.isfinite(table.frame["value"]).all() and table.frame["time"].notna().all()
    assert table.counts()["n"].sum() == len(table)
    return table


# What is done to a file, and what the message then names; None where a table is due.
IODA = {
    "nothing": None,
    "no ObsError": None,
    "no PreQC": None,
    "duplicate times": None,
    "times out of order": None,
    "latitude absurd": None,
    "no MetaData": ["MetaData"],
    "no ObsValue": ["ObsValue"],
    "no latitude": ["latitude"],
    "no dateTime": ["dateTime"],
    "latitude of another dimension": ["MetaData/latitude"],
    "ObsError of another dimension": ["ObsError/T"],
    "unit of time": ["MetaData/dateTime", "furlongs"],
    "latitude 95": ["variable T", "record"],
    "time missing": ["variable T", "record"],
    "error below 0": ["variable T", "record"],
    "text for values": ["ObsValue/T"],
    "other groups only": ["MetaData"],
}


def write_ioda(path, values, fault, i):
    n = len(values)
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("Location", n)
        file.createDimension("Other", n + 1)
        if fault == "other groups only":
            file.createGroup("Elsewhere")
            return
        if fault != "no MetaData":
            meta = file.createGroup("MetaData")
            for name in ("latitude", "longitude"):
                if fault == f"no {name}":
                    continue
                other = fault == f"{name} of another dimension"
                variable = meta.createVariable(name, "f4", ("Other" if other else "Location",))
                variable[:] = 10
                if name == "latitude" and fault in ("latitude 95", "latitude absurd"):
                    variable[i] = 95 if fault == "latitude 95" else -3.3687953e38
            if fault != "no dateTime":
                time = meta.createVariable("dateTime", "i8", ("Location",))
                time.units = "seconds since 1970-01-01T00:00:00Z"
                if fault == "unit of time":
                    time.units = "furlongs since 1970-01-01T00:00:00Z"
                time[:] = np.arange(n) * 3600
                if fault == "duplicate times":
                    time[:] = 0
                if fault == "times out of order":
                    time[:] = np.arange(n)[::-1]
                if fault == "time missing":
                    time[i] = netCDF4.default_fillvals["i8"]
        if fault != "no ObsValue":
            group = file.createGroup("ObsValue")
            if fault == "text for values":
                group.createVariable("T", str, ("Location",))[:] = np.full(n, "warm", object)
            else:
                variable = group.createVariable("T", "f8", ("Location",), fill_value=-999.0)
                variable.units, variable[:] = "K", values
        if fault != "no ObsError":
            other = fault == "ObsError of another dimension"
            size = ("Other" if other else "Location",)
            variable = file.createGroup("ObsError").createVariable("T", "f4", size)
            variable[:] = 1
            if fault == "error below 0":
                variable[i] = -1
        if fault != "no PreQC":
            file.createGroup("PreQC").createVariable("T", "i4", ("Location",))[:] = 0


@SETTINGS
@given(VALUES, st.sampled_from(list(IODA)), st.data())
def test_ioda(tmp_path_factory, values, fault, data):
    path = tmp_path_factory.mktemp("ioda") / "a.nc"
    kept = good(values)
    i = data.draw(st.sampled_from(sorted(kept) or [0]))
    write_ioda(path, values, fault, i)
    # a fault of a record without a value does no harm
    table = read(path, kept, IODA[fault])
    if fault in ("latitude 95", "time missing", "error below 0"):
        assert (table is None) == (i in kept)
    else:
        assert (table is None) == (IODA[fault] is not None)
    if table is not None:
        assert set(table.frame["record"]) == set(kept)
        assert table.missing == {"T": len(values) - len(kept)}


@pytest.mark.parametrize("fault", list(IODA))
def test_every_fault_of_ioda(tmp_path, fault):
    write_ioda(tmp_path / "a.nc", [1.0, np.nan, 3.0], fault, 2)
    table = read(tmp_path / "a.nc", {0: 1.0, 2: 3.0}, IODA[fault])
    assert (table is None) == (IODA[fault] is not None)
    if table is None and "record" in IODA[fault]:
        with pytest.raises(DataError, match="record 2"):
            sensors.read_observations(tmp_path / "a.nc")


CF = {
    "nothing": None,
    "duplicate times": None,
    "times out of order": None,
    "no station": None,
    "latitude absurd": None,
    "no time": ["time"],
    "no featureType": ["featureType"],
    "another featureType": ["featureType", "swath"],
    "unit of time": ["has no time"],
    "calendar": ["variable t", "mayan"],
    "time missing": ["variable T", "record"],
    "index too large": ["variable owner", "record"],
    "instance dimension lacks": ["variable owner", "nowhere"],
    "latitude 95": ["variable T", "record"],
}


def write_cf(path, values, fault, i):
    n = len(values)
    with netCDF4.Dataset(path, "w") as file:
        if fault != "no featureType":
            file.featureType = "swath" if fault == "another featureType" else "timeSeries"
        file.createDimension("obs", n)
        file.createDimension("station", 2)
        if fault != "no time":
            time = file.createVariable("t", "f8", ("obs",))
            time.standard_name, time.units = "time", "days since 2001-01-01"
            if fault == "unit of time":
                time.units = "furlongs"
            if fault == "calendar":
                time.calendar = "mayan"
            time[:] = np.arange(n)
            if fault == "duplicate times":
                time[:] = 1
            if fault == "times out of order":
                time[:] = np.arange(n)[::-1]
            if fault == "time missing":
                time[i] = np.nan
        if fault != "no station":
            station = file.createVariable("id", str, ("station",))
            station.cf_role, station[:] = "timeseries_id", np.array(["a", "b"], object)
        owner = file.createVariable("owner", "i4", ("obs",))
        owner.instance_dimension = "nowhere" if fault == "instance dimension lacks" else "station"
        owner[:] = np.arange(n) % 2
        if fault == "index too large":
            owner[i] = 2
        for name in ("latitude", "longitude"):
            variable = file.createVariable(name, "f8", ("obs",))
            variable.standard_name, variable[:] = name, 10
            if name == "latitude" and fault in ("latitude absurd", "latitude 95"):
                variable[i] = 95 if fault == "latitude 95" else 9.96921e36
        variable = file.createVariable("T", "f8", ("obs",), fill_value=-999.0)
        variable[:] = values


@SETTINGS
@given(VALUES, st.sampled_from(list(CF)), st.data())
def test_cf(tmp_path_factory, values, fault, data):
    path = tmp_path_factory.mktemp("cf") / "a.nc"
    kept = good(values)
    i = data.draw(st.sampled_from(sorted(kept) or [0]))
    write_cf(path, values, fault, i)
    table = read(path, kept, CF[fault])
    if fault in ("latitude 95", "time missing"):
        assert (table is None) == (i in kept)
    else:
        assert (table is None) == (CF[fault] is not None)
    if table is not None:
        assert set(table.frame["record"]) == set(kept)


@pytest.mark.parametrize("fault", list(CF))
def test_every_fault_of_cf(tmp_path, fault):
    write_cf(tmp_path / "a.nc", [1.0, np.nan, 3.0], fault, 2)
    table = read(tmp_path / "a.nc", {0: 1.0, 2: 3.0}, CF[fault])
    assert (table is None) == (CF[fault] is not None)


def dart(values):
    n = len(values)
    text = "obs_sequence\nobs_type_definitions\n 1\n 5 RADIOSONDE_TEMPERATURE\n"
    text += f" num_copies: 1 num_qc: 1\n num_obs: {n} max_num_obs: {n}\n"
    text += f"observation\nData QC\n first: 1 last: {n}\n"
    for k, value in enumerate(values, 1):
        links = f"{k - 1 or -1} {k + 1 if k < n else -1} -1"
        text += f" OBS {k}\n {value!r}\n 0.0\n{links}\nobdef\nloc3d\n 1.0 0.5 5000.0 2\n"
        text += f"kind\n 5\n 0 {150000 - k}\n 1.0\n"
    return text


CLEAN = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5)


@SETTINGS
@given(CLEAN, st.sampled_from(["cut", "drop", "text", "twice"]), st.data())
def test_dart(tmp_path_factory, values, fault, data):
    """Lines that are cut off, lost, doubled, or hold text where numbers stand."""
    path = tmp_path_factory.mktemp("dart") / "a"
    text = dart(values)
    lines = text.splitlines(keepends=True)
    i = data.draw(st.integers(0, len(lines) - 1))
    if fault == "cut":
        text = text[: data.draw(st.integers(0, len(text) - 1))]
    elif fault == "drop":
        text = "".join(lines[:i] + lines[i + 1 :])
    elif fault == "twice":
        text = "".join(lines[: i + 1] + lines[i:])
    else:
        text = "".join(lines[:i] + [" warm\n"] + lines[i + 1 :])
    path.write_text(text)
    kept = dict(enumerate(values, 1))
    table = read(path, kept, [])
    if table is not None:
        # only the cut of the last number, other names, or a line that nothing refers to
        assert fault == "cut" or i < 8 or lines[i].split()[:1] == ["OBS"] or fault == "twice"
        assert len(table) == len(values)


@SETTINGS
@given(CLEAN, st.data())
def test_dart_names_the_record_of_text(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("dart") / "a"
    lines = dart(values).splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith(" OBS"))
    k = data.draw(st.integers(0, len(values) - 1))
    field = data.draw(st.sampled_from([1, 2, 3, 6, 8, 9, 10]))
    lines[start + 11 * k + field] = " warm\n"
    path.write_text("".join(lines))
    assert read(path, {}, [f"record {k + 1}", "warm"]) is None


COLUMNS = sensors.CsvColumns(
    time="time", latitude="lat", longitude="lon", values={"T": ("T", "K")}, qc="flag"
)
CSV = {
    "nothing": None,
    "duplicate times": None,
    "times out of order": None,
    "no latitude": ["lat"],
    "text in a number": ["column T", "line", "warm"],
    "absurd fill": ["column T", "line", "9.96e36"],
    "text in a time": ["column time", "line", "yesterday"],
    "no such day": ["column time", "line", "2021-02-30"],
    "time missing": ["column time", "line"],
    "too few columns": ["line"],
    "latitude 95": ["variable T", "record"],
    "flag with a fraction": ["column flag", "line"],
}


@SETTINGS
@given(CLEAN, st.sampled_from(list(CSV)), st.data())
def test_csv(tmp_path_factory, values, fault, data):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    i = data.draw(st.integers(0, len(values) - 1))
    rows = [[f"2020-01-{k + 1:02}T06:00Z", "45", "10", repr(v), "0"] for k, v in enumerate(values)]
    cells = {
        "text in a number": (3, "warm"),
        "absurd fill": (3, "9.96e36"),
        "text in a time": (0, "yesterday"),
        "no such day": (0, "2021-02-30"),
        "time missing": (0, ""),
        "latitude 95": (1, "95"),
        "flag with a fraction": (4, "0.5"),
    }
    if fault in cells:
        column, cell = cells[fault]
        rows[i][column] = cell
    elif fault == "duplicate times":
        for row in rows:
            row[0] = "2020-01-01"
    elif fault == "times out of order":
        rows[i][0] = "1999-12-31"
    elif fault == "too few columns":
        rows[i] = rows[i][:3]
    header = ["time", "lat", "lon", "T", "flag"]
    if fault == "no latitude":
        header[1] = "north"
    path.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    named = CSV[fault]
    if named and "line" in named:
        named = [f"line {i + 2}" if word == "line" else word for word in named]
    table = read(path, dict(enumerate(values)), named, COLUMNS)
    assert (table is None) == (named is not None)


@SETTINGS
@given(CLEAN, st.data())
def test_csv_cut_short(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    lines = ["time,lat,lon,T,flag", *(f"2020-01-01,45,10,{v!r},0" for v in values)]
    text = "\n".join(lines) + "\n"
    text = text[: data.draw(st.integers(0, len(text)))]
    path.write_text(text)
    whole = max(text.count("\n") - 1, 0)
    read(path, dict(enumerate(values[:whole])), [], COLUMNS)


@settings(SETTINGS, max_examples=20)
@given(st.sampled_from(["ioda", "cf"]), st.floats(0, 0.999))
@example("ioda", 0.0)
@example("cf", 0.5)
def test_netcdf_cut_short(tmp_path_factory, kind, part):
    path = tmp_path_factory.mktemp("cut") / "a.nc"
    values = [1.0, 2.0, 3.0]
    (write_ioda if kind == "ioda" else write_cf)(path, values, "nothing", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    read(path, dict(enumerate(values)), [])


@SETTINGS
@given(st.binary(max_size=200))
@example(b"")
@example(b" \n\n")
@example(b"\x89HDF\r\n\x1a\n")
@example(b"CDF\x01")
@example(b"CDF\x05\x00\x00")
@example(b"obs_sequence")
@example(b"\x00\x00\x00\x0c obs_sequence\x00")
@example(b"a,b\n1,2\n")
@example(b'"a,b\n1,2\n')
@example(b"\xff\xfe")
def test_junk(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "a"
    path.write_bytes(junk)
    assert read(path, {}, []) is None


def test_folders_and_files_that_do_not_exist(tmp_path):
    for path in (tmp_path, tmp_path / "none.nc", tmp_path / "no folder" / "a.csv"):
        for reader in (
            sensors.read_observations,
            sensors.read_ioda,
            sensors.read_cf,
            sensors.read_dart,
            sensors.read_csv,
        ):
            with pytest.raises(DataError) as error:
                reader(path)
            assert str(path) in str(error.value)
