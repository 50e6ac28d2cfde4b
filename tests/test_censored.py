"""Visibility and precipitation: what reports say, what is drawn behind them, how runs score."""

import json

import jax
import jax.numpy as jnp
import netCDF4
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import norm
from test_weather import table
from typer.testing import CliRunner

from dasim import config as schema
from dasim import observe, weather
from dasim.cli import app
from dasim.imputation import impute
from dasim.problems import make_problem
from dasim.reportable import EVENTS, LIMITS, chance, interval, report

KEY = jax.random.key(0)
STD = {"temp": 0.5, "dewp": 0.5, "u": 2.0, "v": 2.0, "pressure": 0.2, "visib": 0.2, "precip": 0.1}


def test_a_report_is_the_nearest_value_and_its_interval_holds_the_root():
    miles = np.array([-0.4, 0.03, 2.7, 2.8, 3.4, 9.4, 9.6, 40.0, np.nan])
    root = np.cbrt(miles)
    np.testing.assert_array_equal(report("visib", root), [0, 0, 2.5, 3, 3, 9, 10, 10, np.nan])
    low, high = interval("visib", root)
    np.testing.assert_array_equal(high[6:], np.inf)
    np.testing.assert_allclose(low[6] ** 3, 9.5)
    np.testing.assert_allclose([low[2] ** 3, high[2] ** 3], [2.25, 2.75])
    assert np.isneginf([low[0], low[-1]]).all()
    inches = np.array([-3.0, 0.004, 0.006, 0.123, 1.21])
    np.testing.assert_allclose(report("precip", np.cbrt(inches)), [0, 0, 0.01, 0.12, 1.21])
    assert (interval("precip", np.cbrt(inches[:2]))[1] == LIMITS["precip"]["low"]).all()


def test_the_chance_of_an_event_is_that_of_its_report():
    quantity, *ends = EVENTS["visibility under 3 miles"]
    rng = np.random.default_rng(0)
    roots = 1.5 + 0.3 * rng.normal(size=400_000)
    read = report(quantity, roots + 0.2 * rng.normal(size=len(roots)))
    np.testing.assert_allclose(chance(*ends, roots, 0.2), np.mean(read < 3), atol=0.005)


@pytest.fixture(scope="module")
def series():
    """An autoregression of two variables, the second seen only below its mean plus 0.5."""
    rng = np.random.default_rng(1)
    a, x = np.array([[0.9, 0.0], [0.3, 0.6]]), np.zeros((3000, 2))
    for k in range(1, len(x)):
        x[k] = a @ x[k - 1] + rng.normal(size=2) * [0.4, 0.5]
    limit = x[:, 1].mean() - 0.3
    low, high = x.copy(), x.copy()
    high[x[:, 1] > limit, 1] = np.inf
    low[x[:, 1] > limit, 1] = limit
    low[100:110, 0], high[100:110, 0] = -np.inf, np.inf
    return x, low, high


def test_what_is_drawn_has_the_law_of_what_was_hidden(series):
    x, low, high = series
    drawn = impute(low, high, np.arange(len(x)) > 0, copies=4)
    assert drawn.shape == (4, *x.shape)
    known = low == high
    np.testing.assert_array_equal(drawn[:, known], np.broadcast_to(x[known], (4, known.sum())))
    assert (drawn >= low).all() and (drawn <= high).all() and not np.array_equal(*drawn[:2])
    hidden = ~known[:, 1]
    assert hidden.mean() > 0.5
    np.testing.assert_allclose(drawn[..., 1].mean(), x[:, 1].mean(), atol=0.1)
    np.testing.assert_allclose(drawn[..., 1].std(), x[:, 1].std(), rtol=0.08)
    # the neighbours in time and the other variable tell of what is hidden
    guess = drawn[:, hidden, 1].mean(0)
    assert np.corrcoef(guess, x[hidden, 1])[0, 1] > 0.5
    assert np.abs(drawn[:, 100:110, 0] - x[100:110, 0]).mean() < x[:, 0].std()


def test_times_that_do_not_follow_tell_nothing_of_each_other():
    rng = np.random.default_rng(2)
    x = np.repeat(rng.normal(size=300), 10)[:, None] + 0.1 * rng.normal(size=(3000, 1))
    low, high = x.copy(), x.copy()
    low[10::20], high[10::20] = -np.inf, np.inf  # the first of every second group
    apart = np.arange(len(x)) % 10 > 0
    drawn = impute(low, high, apart, copies=4).mean(0)
    error = np.abs(drawn - x)[10::20].mean()
    assert error < 0.3  # the value after it tells, the one before it does not


def reports(days=40):
    """Synthetic reports in which low temperature brings fog and rain."""
    frame = table(days)
    rng = np.random.default_rng(3)
    cold = (52 - frame.temp) / 9 + 0.3 * rng.normal(size=len(frame))
    frame["visib"] = report("visib", 2.3 - 0.6 * cold.to_numpy())
    frame["precip"] = report("precip", -0.2 + 0.4 * cold.to_numpy())
    return frame


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("censored") / "weather.csv"
    reports().to_csv(path, index=False)
    return path


def test_reports_with_what_is_behind_them(path):
    loaded, frame = weather.load(path, 6, 10, censored=True), reports()
    assert loaded.variables[5:7] == ("EWR.visib", "EWR.precip") and len(loaded.scale) == 21
    own = loaded.reported(loaded.values)
    for quantity in ("visib", "precip"):
        seen = own[:, loaded.variables.index(f"JFK.{quantity}")]
        np.testing.assert_allclose(seen, frame[frame.origin == "JFK"][quantity])
    drawn = loaded.completed[:, loaded.training]
    wanted = np.broadcast_to(own[loaded.training], drawn.shape)
    np.testing.assert_allclose(loaded.reported(drawn), wanted, atol=1e-9)
    states = loaded.states[:, loaded.training]
    np.testing.assert_allclose(states[..., list(loaded.censored)].std((0, 1)), 1)
    # plain quantities are as they are without the others
    plain = weather.load(path, 6, 10)
    same = [j for j in range(21) if j not in loaded.censored]
    np.testing.assert_array_equal(loaded.cycle[:, same], plain.cycle)
    wanted = np.broadcast_to(plain.values[plain.training], drawn[..., same].shape)
    np.testing.assert_allclose(drawn[..., same], wanted, atol=1e-9)


def test_test_days_change_nothing_that_is_drawn(path, tmp_path):
    frame = reports()
    hours = (pd.to_datetime(frame.time_hour) - weather.EPOCH) / pd.Timedelta("1h")
    frame.loc[(hours // 24 % 10 >= 6).to_numpy(), ["visib", "precip"]] = 0.5
    frame.to_csv(tmp_path / "weather.csv", index=False)
    one, other = (weather.load(p, 6, 10, True) for p in (path, tmp_path / "weather.csv"))
    np.testing.assert_array_equal(one.completed[:, one.training], other.completed[:, one.training])
    np.testing.assert_array_equal(one.scale, other.scale)


def settings(path, **observe_):
    return {
        "name": "short",
        "data": {"kind": "nyc-weather", "path": str(path), "train_days": 6, "of_days": 10,
                 "lead_in_hours": 2, "censored": True},
        "observe": {"std": STD, "withhold": ["JFK"], **observe_},
        "cycle": {"n_cycles": 8},
        "members": 16,
        "methods": [{"name": "EnKF", "kind": "StochasticEnKF", "transition": "linear"}],
    }  # fmt: skip


def test_a_report_at_its_limit_is_an_event(path):
    problem = make_problem(schema.Run.model_validate(settings(path)), KEY)
    loaded, k = problem.reports, 3
    event = problem.observation.event(problem.observations[k])
    for name, quantity, at in (("EWR.visib", "visib", 9.5), ("LGA.precip", "precip", 0.005)):
        j = loaded.variables.index(name)
        limit = (np.cbrt(at) - loaded.cycle[0, j]) / loaded.scale[j]
        value = jnp.full(21, limit) + (1 if quantity == "visib" else -1)
        c, std = jnp.asarray(limit + 0.1), problem.std[j] / loaded.scale[j]
        log_z = event.law.log_z(value, jnp.zeros(21).at[j].set(c), jnp.zeros(21), None)[j]
        wanted = norm.logcdf((1 if quantity == "visib" else -1) * 0.1 / std)
        np.testing.assert_allclose(log_z, wanted, rtol=1e-3)
    for readings in ("climate", "plain"):
        other = make_problem(schema.Run.model_validate(settings(path, readings=readings)), KEY)
        assert isinstance(other.observation.error, observe.StandIn)
        gaussian = other.observation.event(problem.observations[k])
        j = loaded.variables.index("EWR.precip")
        assert gaussian.cov.diagonal()[j] >= (0.99 * problem.std[j] / loaded.scale[j]) ** 2


def test_readings_are_of_censored_reports(path):
    content = settings(path, readings="climate")
    content["data"]["censored"] = False
    content["observe"]["std"] = {q: STD[q] for q in weather.QUANTITIES}
    with pytest.raises(schema.ConfigError, match="no censored reports; set data.censored"):
        make_problem(schema.Run.model_validate(content), KEY)


@pytest.mark.filterwarnings("ignore::dasim.observe.StandInWarning")
def test_a_run_scores_reports_and_events(path, tmp_path):
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(settings(path)))
    words = ["run", str(tmp_path / "short.yaml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "precipitation in this hour" in result.output
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["units"]["JFK.visib"] == "mi"
    with netCDF4.Dataset(tmp_path / "out" / "EnKF.nc") as file:
        members = np.asarray(file["analysis"][:, :, 0], float)  # of the fold of JFK
        seen, chances = np.asarray(file["observation"][:]), np.asarray(file["chance"][:, 0])
        columns = ["".join(c.astype(str)).strip() for c in file["variable"][:].data]
        scored = np.asarray(file["scored"][:]) > 0
    for name, quantity in (("JFK.visib", "visib"), ("JFK.precip", "precip")):
        drawn = members[:, :, columns.index(name)]
        np.testing.assert_allclose(report(quantity, np.cbrt(drawn)), drawn, atol=1e-5)
    under = members[:, :, columns.index("JFK.visib")] < 3
    np.testing.assert_allclose(under.mean(0), chances[:, 0], atol=0.45)
    wet = seen[scored][:, columns.index("JFK.precip")] > 0
    table = scores["withheld_events"]["EnKF"]["JFK"]["precipitation in this hour"]
    np.testing.assert_allclose(table["brier"], np.mean((chances[scored, 1] - wet) ** 2), rtol=1e-4)
    assert table["n"] == scored.sum() and table["frequency"] == wet.mean()
    persistence = scores["withheld_events"]["persistence"]["JFK"]
    assert persistence["visibility under 3 miles"]["n"] == scored.sum()


def test_winds_as_they_are_reported(path):
    """Of a state that is the reports themselves the operator gives the reports."""
    content = settings(path, wind="reported")
    problem = make_problem(schema.Run.model_validate(content), KEY)
    loaded, seen, k = problem.reports, problem.observations, 4
    operator, index = problem.observation.operator, problem.index[k]
    c = operator(jnp.nan_to_num(jnp.asarray(loaded.anomalies[index])), seen.time[k])
    frame = reports()
    one = frame[frame.origin == "LGA"].iloc[index]
    u, v = (loaded.variables.index(f"LGA.{q}") for q in "uv")
    np.testing.assert_allclose(c[u], one.wind_speed, rtol=1e-3)
    for direction, atol in ((c[v], 0.1), (seen.value[k, v], 1e-3)):
        apart = (float(direction) - one.wind_dir + 180) % 360 - 180
        np.testing.assert_allclose(apart, 0, atol=atol)
    np.testing.assert_allclose(seen.std[k, u], STD["u"], rtol=1e-4)
    fast = max(float(one.wind_speed), 3.0)
    np.testing.assert_allclose(seen.std[k, v], np.degrees(STD["v"] / fast), rtol=1e-3)
    others = [j for j in range(21) if j not in operator.u + operator.v]
    wanted = np.nan_to_num(loaded.anomalies[index])[others]
    np.testing.assert_allclose(c[jnp.array(others)], wanted, atol=1e-5)


def test_a_calm_is_an_event_without_a_direction(path, tmp_path):
    frame = reports()
    path = tmp_path / "weather.csv"
    frame["wind_speed"] = np.where(frame.index % 2, 0.0, 8.0)
    frame.to_csv(path, index=False)
    problem = make_problem(schema.Run.model_validate(settings(path, wind="reported")), KEY)
    operator, seen = problem.observation.operator, problem.observations
    u, v = operator.u[0], operator.v[0]
    calm = np.asarray(seen.value[:, u]) < 1
    assert calm.any() and not calm.all()
    np.testing.assert_array_equal(seen.mask[:, v], ~calm)
    # its slopes are finite even where there is no wind at all
    own = problem.reports
    still = -own.cycle[problem.index[0]] / own.scale
    slopes = jax.jacfwd(lambda x: operator(x, seen.time[0]))(jnp.asarray(still))
    assert jnp.isfinite(slopes).all()
