"""Feedback of a run with real sensors, against the run's own file."""

import netCDF4
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from dasim import sensors, weather
from dasim.cli import app
from dasim.observe import Quality

CONFIG = {
    "name": "short",
    "data": {"kind": "nyc-weather", "lead_in_hours": 2},
    "observe": {
        "std": {"temp": 0.5, "dewp": 0.5, "u": 2.0, "v": 2.0, "pressure": 0.2},
        "withhold": ["JFK"],
    },
    "cycle": {"n_cycles": 8, "save_forecast": False},
    "members": 8,
    "quality_control": {"background": 1.0, "most": 1.0},  # far too strict, so that some go
    "methods": [{"name": "EnKF", "kind": "StochasticEnKF", "transition": "linear"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feedback")
    (folder / "short.yaml").write_text(yaml.safe_dump(CONFIG))
    words = ["run", str(folder / "short.yaml"), "--out", str(folder / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return folder / "out"


def test_feedback_says_what_became_of_each_report(folder):
    frame = sensors.read_observations(folder / "feedback" / "EnKF-JFK.nc").frame
    reports = weather.load()
    with netCDF4.Dataset(folder / "EnKF.nc") as file:
        ahead = np.ma.filled(file["error_forecast"][:], np.nan)[:, 0]
        used = file["used"][:, 0] > 0
        observed = np.ma.filled(np.ma.asarray(file["observation"][:], float), np.nan)
    seen = np.isfinite(observed)
    assert len(frame) == seen.sum()
    np.testing.assert_allclose(frame["ombg"], -ahead[seen], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(frame["value"] - frame["HofX"], frame["ombg"], atol=1e-3)
    np.testing.assert_array_equal(frame["used"] > 0, used[seen])
    out = frame["station"] == "JFK"
    np.testing.assert_array_equal(frame["withheld"] > 0, out)
    assert (frame["EffectiveQC"][out] == Quality.WITHHELD).all() and not frame["used"][out].any()
    others = frame[~out]
    left_out = others["used"] == 0
    assert 0 < left_out.sum() < len(others)
    wanted = np.where(left_out, Quality.FORECAST, Quality.PASSED)
    np.testing.assert_array_equal(others["EffectiveQC"], wanted)
    # the analysis is nearer to what was used than the forecast is
    kept = others[~left_out]
    assert np.mean(kept["oman"] ** 2) < np.mean(kept["ombg"] ** 2)
    first = int(reports.hours[np.flatnonzero(~reports.training)[0]]) - 2
    epoch = weather.EPOCH.tz_localize(None)
    assert frame["time"].min() == epoch + np.timedelta64(first, "h")


def test_a_run_of_which_nothing_counts_is_refused(tmp_path):
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(CONFIG))
    words = ["run", str(tmp_path / "short.yaml"), "--set", "cycle.n_cycles=2"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    told = "2 cycles are all of the lead-in, and none counts"
    assert told in " ".join(result.output.split())
