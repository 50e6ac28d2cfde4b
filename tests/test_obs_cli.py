"""The commands `dasim obs info` and `dasim obs convert`."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dasim import sensors
from dasim.cli import app
from dasim.terminal import console

TABLE = """Unix_time,ICAO,Latitude,Longitude,Elev,Temp,Dewp,Wdir,Wspd,Wgst,Vis,Pcp,QcFlag,Altimeter
1601530260,AAAA,55.27,-77.77,12,4.0,3.0,310,12,18,5.00,,2,29.24
1601533800,BBBB,-34.0,22.37,193,11.0,,0,3,,1.86,,0,30.12
"""
PNG = b"\x89PNG\r\n\x1a\n"


def dasim(*arguments):
    return CliRunner().invoke(app, ["obs", *(str(a) for a in arguments)])


@pytest.fixture
def metar(tmp_path, monkeypatch):
    monkeypatch.setattr(console, "width", 120)
    (tmp_path / "m.csv").write_text(TABLE)
    return tmp_path / "m.csv"


def test_info(metar, tmp_path):
    result = dasim("info", metar, "--figure", tmp_path / "map.png")
    assert result.exit_code == 0, result.output
    for words in (
        "(CSV)",
        "values 12",
        "2020-10-01T05:31:00Z to 2020-10-01T06:30:00Z",
        "-34.000 to 55.270 degrees north, -77.770 to 22.370 degrees east",
        "stations 2",
        "values by qc flag 0: 5, 2: 7",
    ):
        assert words in result.output
    line = next(x for x in result.output.splitlines() if "dew_point_temperature" in x)
    assert line.split() == ["dew_point_temperature", "degC", "1", "1", "3", "3", "3", "–"]
    assert (tmp_path / "map.png").read_bytes().startswith(PNG)


def test_figures_of_one_place_of_none_and_of_nothing(tmp_path):
    time = np.array(["2020-01-01", "2020-01-02"], "M8[ns]")
    given = {
        "one": {"latitude": 1.0, "longitude": 2.0, "value": [1.0, 2.0], "time": time},
        "none": {"value": [1.0, 2.0], "time": time},
        "nothing": {"value": [], "time": time[:0]},
    }
    for name, columns in given.items():
        table = sensors.make_table(name, {"T": "K"}, variable="T", **columns)
        sensors.write_ioda(tmp_path / f"{name}.nc", table)
        figure = tmp_path / f"{name}.png"
        result = dasim("info", tmp_path / f"{name}.nc", "--figure", figure)
        assert result.exit_code == 0, result.output
        assert "(IODA)" in result.output and figure.read_bytes().startswith(PNG)


def test_convert_there_and_back(metar, tmp_path):
    first = sensors.read_observations(metar)
    result = dasim("convert", metar, tmp_path / "a.nc")
    assert result.exit_code == 0 and "12 values of 8 variables" in result.output
    assert dasim("convert", tmp_path / "a.nc", tmp_path / "b.csv").exit_code == 0
    for name in ("a.nc", "b.csv"):
        again = sensors.read_observations(tmp_path / name)
        pd.testing.assert_frame_equal(first.sorted().frame, again.sorted().frame, check_exact=True)


def test_a_map_of_columns(tmp_path):
    (tmp_path / "t.csv").write_text("when,T\n2020-01-01,5\n")
    (tmp_path / "map.yaml").write_text("time: when\nvalues: {T: [temperature, degC]}\n")
    result = dasim("info", tmp_path / "t.csv", "--columns", tmp_path / "map.yaml")
    assert result.exit_code == 0 and "temperature" in result.output


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["info", "none.nc"], "there is no such file"),
        (["info", "."], "cannot be read"),
        (["info", "m.csv", "--columns", "none.yaml"], "none.yaml: cannot be read"),
        (["info", "m.csv", "--figure", "none/map.png"], "cannot be written"),
        (["convert", "m.csv", "m.csv"], "is the file to read"),
        (["convert", "m.csv", "out.txt"], "expected .nc (IODA) or .csv"),
        (["convert", "m.csv", "none/out.nc"], "cannot be written"),
        (["convert", "m.csv", "none/out.csv"], "cannot be written"),
    ],
)
def test_faults_end_in_one_message(metar, monkeypatch, command, told):
    monkeypatch.chdir(metar.parent)
    result = dasim(*command)
    assert result.exit_code == 1 and told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.output
