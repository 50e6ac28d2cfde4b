"""Runs on files of observations: folds, refusals, files, and the exact law of a linear problem."""

import itertools
import json

import jax
import jax.numpy as jnp
import netCDF4
import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from dasim import config as schema
from dasim import sensors
from dasim.cli import app
from dasim.fields.variogram import fit_variogram, matern
from dasim.observe import Quality
from dasim.problems import make_problem

STD, LENGTH, ERROR, MEAN = 3.0, 400.0, 0.8, 11.0
STATIONS, CYCLES = 60, 3
START = pd.Timestamp("2021-03-01T06:00")


def correlated(places, rng):
    """Draws of the field at places in km, `(cycle, place)`, with a correlation of 0.8 in time."""
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    root = np.linalg.cholesky(matern(apart / LENGTH, 1.5) + 1e-9 * np.eye(len(places)))
    x = root @ rng.normal(size=len(places))
    out = []
    for _ in range(CYCLES):
        out.append(STD * x)
        x = 0.8 * x + 0.6 * root @ rng.normal(size=len(places))
    return np.array(out)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file of reports of a field of known law, and places in km and values, `(cycle, place)`."""
    rng = np.random.default_rng(3)
    latitude, longitude = rng.uniform(41, 49, STATIONS), rng.uniform(1, 11, STATIONS)
    places = 111.195 * np.stack([latitude, longitude * np.cos(np.deg2rad(45))], 1)
    values = MEAN + correlated(places, rng) + ERROR * rng.normal(size=(CYCLES, STATIONS))
    cycle, station = np.divmod(np.arange(CYCLES * STATIONS), STATIONS)
    minutes = rng.integers(-29, 30, len(cycle))
    table = sensors.make_table(
        "network",
        {"temperature": "degC", "pressure": "hPa"},
        variable="temperature",
        time=START + pd.to_timedelta(60 * cycle + minutes, "min").to_numpy(),
        value=values.ravel(),
        latitude=latitude[station],
        longitude=longitude[station],
        vertical=10.0 * station,
        station=np.array([f"S{i:02d}" for i in range(STATIONS)])[station],
    )
    path = tmp_path_factory.mktemp("network") / "network.nc"
    sensors.write_ioda(path, table)
    return path, places, values


def config(path, **changes):
    return {
        "name": "network",
        "precision": "float64",
        "data": {
            "kind": "observations",
            "path": str(path),
            "variable": "temperature",
            "cycles": {"every": "1h"},
            "box": {"latitude": [40, 50], "longitude": [0, 12]},
            "shape": [14, 14],
            "field": {"mean": MEAN, "std": STD, "length": LENGTH, "memory": "4.4814h"},
        },
        "observe": {"std": ERROR, "withhold": {"folds": 3}},
        "members": 40,
        "methods": [{"name": "Kalman", "kind": "KalmanFilter"}],
    } | changes


def run(folder, settings, *overrides):
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    words = ["run", str(folder / "run.yaml"), "--out", str(folder / "out")]
    return CliRunner().invoke(app, [*words, *(w for o in overrides for w in ("--set", o))])


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    enkf = {"name": "EnKF", "kind": "StochasticEnKF", "localization_radius": 500}
    methods = [{"name": "Kalman", "kind": "KalmanFilter"}, enkf]
    result = run(folder, config(network[0], methods=methods))
    assert result.exit_code == 0, (result.output, result.exception)
    return folder / "out"


def opened(folder, *names):
    with netCDF4.Dataset(folder / "Kalman.nc") as file:
        return [np.ma.filled(np.ma.asarray(file[n][:], float), np.nan) for n in names]


def regression(places, values, fold):
    """Mean and std at each place from the others' folds, with all reports up to each cycle."""
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    space = STD**2 * matern(apart / LENGTH, 1.5)
    mean, std = np.empty_like(values), np.empty_like(values)
    for k in range(CYCLES):
        times = np.arange(k + 1)
        cov = np.kron(0.8 ** np.abs(times[:, None] - times), space)
        for f in range(3):
            seen = np.tile(fold != f, k + 1)
            own = np.flatnonzero(fold == f) + k * len(places)
            noisy = cov[np.ix_(seen, seen)] + ERROR**2 * np.eye(seen.sum())
            gain = np.linalg.solve(noisy, cov[np.ix_(seen, own)]).T
            mean[k, fold == f] = MEAN + gain @ (values[: k + 1].ravel()[seen] - MEAN)
            left = STD**2 - np.sum(gain * cov[np.ix_(own, seen)], 1)
            std[k, fold == f] = np.sqrt(left + ERROR**2)
    return mean, std


def test_the_withheld_scores_are_those_of_the_exact_regression(network, folder):
    _, places, values = network
    fold, held = opened(folder, "fold", "analysis_withheld")
    np.testing.assert_array_equal(fold, np.broadcast_to(np.arange(STATIONS) % 3, fold.shape))
    mean, std = regression(places, values, fold[0].astype(int))
    scores = json.loads((folder / "scores.json").read_text())
    exact = np.sqrt(np.mean((mean - values) ** 2))
    found = scores["methods"]["Kalman"]
    # what the grid costs: 80 km between points against a length of 400 km
    assert np.sqrt(np.mean((held.mean(0) - mean) ** 2)) < 0.2 * exact
    each = np.sqrt(np.mean((mean - values) ** 2, 1)).mean()
    assert abs(found["rmse_analysis"] - each) < 0.05 * each
    # of 40 members with the error of the reports
    assert abs(found["spread_analysis"] ** 2 / np.mean(std**2) - 1) < 0.2
    for name, table in scores["withheld"].items():
        row, reference = table["Kalman"]["temperature"], table["climatology"]["temperature"]
        own = fold == int(name[-1]) - 1
        assert row["n"] == reference["n"] == own.sum()
        climate = np.sqrt(np.mean((values[own] - MEAN) ** 2))
        assert reference["rmse"] == pytest.approx(climate, rel=1e-6)
        assert row["rmse"] < 0.75 * climate
        assert 0.75 < row["coverage_90"] <= 1
        assert table["EnKF"]["temperature"]["rmse"] < 0.9 * climate


def test_the_files_of_a_run(network, folder):
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    feedback = {f"feedback/{m}-fold-{f}.nc" for m in ("Kalman", "EnKF") for f in (1, 2, 3)}
    wanted = {"Kalman.nc", "EnKF.nc", "scores.json", "report.html", "config.yaml"}
    assert wanted | feedback <= names
    with netCDF4.Dataset(folder / "Kalman.nc") as file:
        dimensions = ("realization", "time", "withheld", "latitude", "longitude")
        assert file["analysis"].dimensions == dimensions
        assert file["time"].units == "hours since 2021-03-01 06:00:00"
        np.testing.assert_allclose(file["latitude"][[0, -1]], [40, 50])
        np.testing.assert_allclose(file["longitude"][[0, -1]], [0, 12])
    frame = sensors.read_observations(folder / "feedback" / "Kalman-fold-2.nc").frame
    assert len(frame) == STATIONS * CYCLES
    out = frame["withheld"] > 0
    np.testing.assert_array_equal(out, frame["station"].str[1:].astype(int) % 3 == 1)
    assert (frame["EffectiveQC"][out] == Quality.WITHHELD).all()
    assert frame["used"][~out].all() and not frame["used"][out].any()
    page = (folder / "report.html").read_text()
    assert "fold-3" in page and "Analysis of Kalman" in page


def problem(settings):
    return make_problem(schema.Run(**settings), jax.random.key(0))


def test_folds_in_time_withhold_blocks_of_cycles(network):
    folds = {"folds": 2, "by": "time"}
    made = problem(config(network[0], observe={"std": ERROR, "withhold": folds}))
    held = np.array([[True, True, False], [False, False, True]])
    np.testing.assert_array_equal(made.withheld, np.repeat(held[:, :, None], STATIONS, 2))
    np.testing.assert_array_equal(made.masks, ~made.withheld)


def test_named_stations_and_errors_of_the_file(network, tmp_path):
    table = sensors.read_observations(network[0])
    frame = table.frame.assign(std=1.0 + 0.01 * np.arange(len(table)))
    frame.loc[frame["station"] == "S05", "station"] = ""  # one is told by its place
    frame.loc[frame["station"] == "S06", "value"] = 999.0
    own = tmp_path / "own.nc"
    sensors.write_ioda(own, sensors.ObsTable(frame, table.units, "own"))
    settings = config(own, observe={"withhold": ["S07", "S06"]})
    made = problem(settings | {"quality_control": {"range": [-80, 60]}})
    place = frame[frame["station"] == ""].iloc[0]
    assert f"{place.latitude:.4f}N {place.longitude:.4f}E" in made.station
    assert made.folds == ("S07", "S06")
    np.testing.assert_array_equal(
        made.withheld[0], np.broadcast_to(made.station == "S07", made.values.shape)
    )
    # a report that quality control refuses is neither used nor verification
    assert not made.withheld[1].any() and not made.masks[:, :, made.station == "S06"].any()
    assert made.masks[0].sum() == (STATIONS - 2) * CYCLES
    at = int(np.flatnonzero(made.station == "S07")[0])
    wanted = frame[frame["station"] == "S07"].sort_values("time")["std"]
    np.testing.assert_allclose(made.std[:, at], wanted, rtol=1e-6)
    np.testing.assert_allclose(made.observations.std[:, at], wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.variable=wind", ["network.nc", "no variable wind", "temperature"]),
        ("data.variable=pressure", ["network.nc", "pressure"]),
        ("data.vertical=[5000, 6000]", ["network.nc", "temperature", "[5000", "0 to 590"]),
        ("data.box.latitude=[60, 70]", ["network.nc", "temperature", "[60", "they span 4"]),
        ("data.box.longitude=[170, -170]", ["box.longitude", "[170, 190]"]),
        ("data.cycles.first=2022-01-01T00:00", ["data.cycles", "is after the last", "network.nc"]),
        (
            "data.cycles={every: 1h, first: 2022-01-01T00:00, last: 2022-01-01T03:00}",
            ["network.nc", "no observation within half of 1h", "2022-01-01", "2021-03-01"],
        ),
        ("data.cycles.every=soon", ["data.cycles.every", "'soon'", "1h"]),
        ("data.good=-1", ["network.nc", "quality flag of at most -1", "[0]"]),
        ("data.shape=[1, 9]", ["shape is [1, 9]", "2 points"]),
        ("data.shape=[3, 14]", ["data.shape", "do not resolve", "400 km", "[4, 4] at least"]),
        ("data.path=/nowhere/a.nc", ["/nowhere/a.nc", "no such file"]),
        ("observe.withhold=[S99]", ["observe.withhold", "'S99'", "S00, S01"]),
        ("observe.withhold={folds: 99}", ["observe.withhold", "99 folds by station", "60"]),
        ("observe.withhold={folds: 9, by: time}", ["observe.withhold", "9 folds by time", "3"]),
        ("observe.std=null", ["network.nc", "temperature", "set observe.std"]),
        ("observe.std={temperature: 1}", ["observe.std", "one number"]),
        ("observe.every=2", ["observe.every"]),
        ("cycle.burn_in=3", ["cycle.burn_in is 3", "3 cycles"]),
    ],
)
def test_refusals(network, tmp_path, override, words):
    result = run(tmp_path, config(network[0]), override)
    text = " ".join(result.output.split())
    assert result.exit_code in (1, 2) and "Traceback" not in text, (text, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    for word in words:
        assert word in text, (word, text)


def test_a_file_without_times_is_refused(tmp_path):
    with netCDF4.Dataset(tmp_path / "timeless.nc", "w") as file:
        file.createDimension("Location", 2)
        file.createGroup("ObsValue").createVariable("temperature", "f4", ("Location",))[:] = 1.0
        for name in ("latitude", "longitude"):
            path = f"MetaData/{name}"
            file.createVariable(path, "f4", ("Location",))[:] = [1.0, 2.0]
    result = run(tmp_path, config(tmp_path / "timeless.nc"))
    assert result.exit_code == 1 and "timeless.nc" in result.output and "ime" in result.output


def test_a_box_across_the_date_line_and_a_law_from_the_variogram(tmp_path):
    rng = np.random.default_rng(0)
    n = 150
    latitude, longitude = rng.uniform(-9, 9, n), rng.uniform(170, 190, n)
    places = 111.195 * np.stack([latitude, longitude], 1)
    table = sensors.make_table(
        "pacific",
        {"sst": "K"},
        variable="sst",
        time=START,
        value=300 + correlated(places, rng)[0] + 0.3 * rng.normal(size=n),
        latitude=latitude,
        longitude=longitude,
        station=[f"B{i}" for i in range(n)],
    )
    sensors.write_ioda(tmp_path / "pacific.nc", table)
    settings = config(tmp_path / "pacific.nc", observe={"std": 0.5})
    settings["data"] |= {
        "variable": "sst",
        "box": {"latitude": [-10, 10], "longitude": [169, 191]},
        "shape": [16, 16],
        "field": {},
    }
    made = problem(settings)
    assert made.withheld.shape[0] == 4 and (made.withheld.sum(0) == 1).all()
    order = np.argsort([int(name[1:]) for name in made.station])
    np.testing.assert_allclose(made.longitude[order], longitude, atol=1e-4)
    law = made.law
    assert 100 < law["length"] < 1600 and 0 < law["nugget"] < 1.5
    # a bilinear field is exact at the reports' places
    plane = np.add.outer(made.axes["latitude"], 2 * made.axes["longitude"])
    seen = made.sensed(plane[None, None, None] - made.mean, slice(0, 1))[0, 0, 0]
    np.testing.assert_allclose(seen, made.latitude + 2 * made.longitude, rtol=1e-5)


def test_the_climate_of_the_transition_is_the_law_asked_for(network):
    made = problem(config(network[0]))
    transition = made.transition("model")
    assert transition.linear
    mean, cov = made.climate_moments
    assert mean.shape == (196,) and transition.interval == 1.0
    q = np.asarray(transition.residual_cov(jnp.zeros(made.shape), 0.0).dense())
    rho = np.exp(-1 / 4.4814)
    np.testing.assert_allclose(rho**2 * cov + q, cov, atol=1e-4 * STD**2)
    middle = np.ravel_multi_index((7, 7), made.shape)
    assert cov[middle, middle] == pytest.approx(STD**2, rel=1e-4)
    # Matern's covariance between the edges, half a cell beyond the grid, that reflect: its images
    points, length = np.stack(made.covariance.grid.points), made.covariance.grid.lengths
    here = [p[7] for p in points]
    images = 0.0
    for m, n, a, b in itertools.product(range(-2, 3), range(-2, 3), (1, -1), (1, -1)):
        north = 2 * m * length[0] + a * points[0] - here[0]
        east = 2 * n * length[1] + b * points[1] - here[1]
        images = images + matern(np.hypot(*np.meshgrid(north, east, indexing="ij")) / LENGTH, 1.5)
    found = cov[middle].reshape(made.shape) / STD**2
    np.testing.assert_allclose(found, images / images[7, 7], atol=2e-3)


def test_the_variogram_finds_the_law_of_many_draws():
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 3000, (200, 2))
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    root = np.linalg.cholesky(matern(apart / LENGTH, 1.5) + 1e-9 * np.eye(200))
    draws = STD * rng.normal(size=(30, 200)) @ root.T
    found = fit_variogram(places, draws + ERROR * rng.normal(size=draws.shape), 1.5)
    # the sampling error of 30 draws that each hold some 50 independent patches
    assert found.std == pytest.approx(STD, rel=0.1)
    assert found.length == pytest.approx(LENGTH, rel=0.15)
    assert found.nugget == pytest.approx(ERROR, rel=0.25)
    with pytest.raises(ValueError, match="too few pairs"):
        fit_variogram(places[:2], draws[:, :2], 1.5)
