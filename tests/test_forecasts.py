"""Forecasts of events in cycling: probabilities, scores, files, report."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from dasim.cli import app
from dasim.diagnostics import roc
from dasim.forecasts import asked, outcomes, probabilities, scores
from dasim.models import LinearGaussian
from dasim.transitions import ModelTransition

CONFIG = """
name: events
system: {kind: lorenz63, interval: 0.1}
observe: {sites: [0, 1, 2], std: 1.0}
cycle: {n_cycles: 24, burn_in: 4}
members: 20
events:
  - {name: high, when: "max(x[2]) > 30", within: 3}
methods:
  - {name: ETKF, kind: ETKF, inflation: 1.02}
  - {name: EnKF, kind: StochasticEnKF, inflation: 1.02}
"""


def test_a_share_of_the_members():
    # x' = 2 x: of the members 1, ..., 10 those above 2.5 pass 10 within two steps
    transition = ModelTransition(LinearGaussian(2 * np.eye(1)))
    analysis = jnp.tile(jnp.arange(1.0, 11.0)[None, :, None], (3, 1, 1))
    ask = asked("high", "max(x[0]) > 10", 2, (1,))
    p = probabilities(transition, ask.event, 2, analysis, jnp.arange(3.0), jax.random.key(0))
    np.testing.assert_allclose(p, 0.8)
    both = asked("both", "min(x[0]) > 10.5", 2, (1,))  # at both steps: above 5
    p = probabilities(transition, both.event, 2, analysis, jnp.arange(3.0), jax.random.key(0))
    np.testing.assert_allclose(p, 0.5)


def test_noise_is_drawn_for_each_member_and_cycle():
    transition = ModelTransition(LinearGaussian(np.eye(1), np.eye(1)))
    analysis = jnp.zeros((40, 200, 1))
    ask = asked("up", "x[0] > 0", 1, (1,))
    p = probabilities(transition, ask.event, 1, analysis, jnp.zeros(40), jax.random.key(0))
    assert len(np.unique(p)) > 5
    assert abs(p.mean() - 0.5) < 4 * 0.5 / np.sqrt(40 * 200)


def test_what_came_is_after_the_analysis():
    truth = np.array([9.0, 0, 0, 9, 0, 0])[:, None]
    event = asked("high", "max(x[0]) > 5", 2, (1,)).event
    np.testing.assert_array_equal(outcomes(event, 2, truth), [False, True, True, False])


def test_scores_of_known_forecasts():
    came = np.array([True, False, True, False])
    perfect, even = scores(came.astype(float), came), scores(np.full(4, 0.5), came)
    assert perfect["brier"] == 0 and perfect["brier_skill"] == 1 and perfect["roc_area"] == 1
    assert even["brier"] == 0.25 and even["brier_skill"] == 0 and even["roc_area"] == 0.5
    assert scores(np.full(4, 0.1), np.zeros(4, bool))["brier_skill"] is None


def test_the_roc_counts_pairs():
    rng = np.random.default_rng(0)
    p, came = rng.integers(0, 6, 60) / 5, rng.random(60) < 0.4
    a, b = p[came][:, None], p[~came]
    np.testing.assert_allclose(roc(p, came).area, np.mean((a > b) + 0.5 * (a == b)))
    assert np.isnan(roc(p, np.ones(60, bool)).area)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    (folder / "events.yaml").write_text(CONFIG)
    result = CliRunner().invoke(app, ["run", str(folder / "events.yaml"), "--out", str(folder)])
    assert result.exit_code == 0, result.output
    assert "Event high" in result.output
    return folder


def test_a_run_forecasts_its_events(folder):
    table = json.loads((folder / "scores.json").read_text())["events"]["high"]
    assert set(table) == {"ETKF", "EnKF"}
    assert all(row["n"] == 17 and row["brier"] < 0.1 for row in table.values())
    with xr.open_dataset(folder / "events.nc") as data:
        p, came = data.probability_high, data.happened_high
        assert p.shape == (2, 24) and (p >= 0).all() and (p <= 1).all()
        assert np.isnan(came[-3:]).all() and np.isfinite(came[:-3]).all()
        assert p.attrs["when"] == "max(x[2]) > 30" and p.attrs["within_cycles"] == 3
        cycle = data.paths_high.attrs["cycle"]
        assert data.paths_high.attrs["variable"] == 2 and 4 <= cycle < 21
        # the paths are those behind the probability, and begin at the analysis
        np.testing.assert_allclose(data.paths_hold_high.mean("realization"), p[:, cycle])
        above = (data.paths_high[:, :, 1:] > 30).any("lead_high")
        np.testing.assert_array_equal(above, data.paths_hold_high)
    with xr.open_dataset(folder / "ETKF.nc") as run:
        first = run.analysis.transpose("time", "realization", ...).values[cycle, :, 2]
        np.testing.assert_allclose(data.paths_high[0, :, 0], first)
        truth = run.truth.values[:, 2]
        np.testing.assert_allclose(data.paths_truth_high, truth[cycle : cycle + 4])
    exact = [truth[k + 1 : k + 4].max() > 30 for k in range(21)]
    np.testing.assert_array_equal(came[:-3], exact)


def test_the_report_shows_them(folder):
    page = (folder / "report.html").read_text()
    assert "<h2>Event high</h2>" in page and "Brier skill" in page
    assert "<h2>Sample paths of high</h2>" in page
    assert "max(x[2]) &gt; 30 within 3 cycles" in page


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("events.0.when=y > 1", "unknown name 'y'"),
        ("events.0.when=x[7] > 1", "index 7 is outside 0 to 2"),
        ("events.0.within=20", "events[0].within: 20 cycles, expected fewer than the 20 scored"),
        ("events.0.whenn=1", "unknown key; did you mean 'when'"),
    ],
)
def test_refusals(setting, message, folder, tmp_path):
    arguments = [str(folder / "events.yaml"), "--out", str(tmp_path), "--set", setting]
    result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
