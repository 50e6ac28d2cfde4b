"""Tables in text: the METAR table, maps in YAML, faults named by line, and back unchanged."""

import numpy as np
import pandas as pd
import pytest
from observation_tables import rows, same

from dasim import sensors
from dasim.types import DataError

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
