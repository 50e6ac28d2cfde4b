"""Tables of observations: rows, counts, faults of columns, tables of nothing."""

import numpy as np
import pytest
from observation_tables import same

from dasim import sensors
from dasim.types import DataError


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
