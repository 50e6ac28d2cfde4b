"""Priors of trajectories: windows, network, training, files and commands."""

import inspect
import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load as parse_arrays
from typer.testing import CliRunner

import dasim
from dasim import cli_events
from dasim import config as schema
from dasim.cli import app
from dasim.covariance import DiagonalCovariance
from dasim.models import Lorenz63
from dasim.priors import AbstractDenoiser, SubVPSchedule, VESchedule, VPSchedule
from dasim.priors.store import read_header
from dasim.priors.unet import UNet
from dasim.priors.window_training import drawer, window_loss
from dasim.trajectories import (
    StepSpec,
    TrajectorySpec,
    save_trajectory_prior,
    simulated_windows,
)
from dasim.types import DataError

SPEC = TrajectorySpec(8, 3, 0.1, given=2, channels=(4, 8), n_steps=4)
SMALL = [
    "window.steps=8",
    "window.given=2",
    "window.channels=[4, 8]",
    "window.n_steps=4",
    "window.count=256",
    "window.fit={n_steps: 60, batch: 32, check: 30, optimizer: muon}",
    "window.step={width: 8, depth: 1}",
    "window.step.fit={n_steps: 200, check: 100, optimizer: muon, learning_rate: 0.01}",
    "window.step.fit_error={n_steps: 400, check: 100, optimizer: muon, learning_rate: 0.03}",
    "window.step.fit_first={n_steps: 100, check: 50}",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A prior trained for a moment, by the command."""
    path = tmp_path_factory.mktemp("priors") / "small.safetensors"
    options = [o for s in SMALL for o in ("--set", s)]
    result = CliRunner().invoke(app, ["train", "lorenz63-window", "--out", str(path), *options])
    assert result.exit_code == 0, result.output
    assert "denoising loss" in result.output and "window: step 60 of 60" in result.output
    assert "step: step 200 of 200" in result.output and "first: step 100" in result.output
    return path


def test_windows_are_of_the_model():
    model = Lorenz63()
    key = jax.random.key(0)
    x = simulated_windows(model, 0.1, 5, 4, key, start=20.0, spin_up=0.0)
    assert x.shape == (4, 5, 3)
    np.testing.assert_allclose(x[:, 0], 20 * jax.vmap(model.start)(jax.random.split(key, 4)), 1e-5)
    step = dasim.ModelTransition(model, 10).mean
    np.testing.assert_allclose(x[2, 3], step(x[2, 2], jnp.zeros(())), rtol=2e-5)
    later = simulated_windows(model, 0.1, 5, 4, key, start=20.0, spin_up=0.2)
    np.testing.assert_allclose(later[:, 0], x[:, 2], rtol=1e-3)


def test_half_of_the_conditions_tell_the_first_states():
    windows = jax.random.normal(jax.random.key(1), (50, 8, 3))
    coordinates = windows.reshape(50, 24)
    cond, target, others = drawer(windows, coordinates, 2, others=7)(jax.random.key(2), 400)
    assert cond.shape == (400, 2, 4) and target.shape == (400, 24) and others.shape == (7, 24)
    known = cond[:, :, 3]
    assert 0.4 < known.mean() < 0.6 and (known[:, 0] == known[:, 1]).all()
    np.testing.assert_array_equal(cond[:, :, :3], target.reshape(400, 8, 3)[:, :2])


class TwoWindows(AbstractDenoiser):
    """The exact denoiser of a law of two windows, `+-at`, of equal probability."""

    at: jax.Array

    def mean(self, cond=None):
        return jnp.zeros_like(self.at)

    def cov(self, cond=None):
        return DiagonalCovariance(jnp.ones_like(self.at))

    def correction(self, v, sigma, cond=None):
        root = jnp.sqrt(1 + sigma**2)
        best = self.at * jnp.tanh(self.at @ v * root / sigma**2)
        return (best - v / root) * root / sigma


def test_targets_are_means_over_the_windows_that_could_be_the_source():
    at, n, key = jnp.linspace(0.1, 0.4, 6), 64, jax.random.key(0)
    x, cond, exact = jnp.tile(at, (n, 1)), jnp.zeros((n, 2, 4)), TwoWindows(at)
    loss = lambda *batch: window_loss(exact, VESchedule(0.2, 20.0), batch, key)
    assert loss(cond, x, -at[None]) < 1e-8
    # without the other window, or where the window's start is known, the target is the source
    alone = loss(cond, x, jnp.zeros((0, 6)))
    assert alone > 0.01
    np.testing.assert_allclose(loss(cond.at[..., -1].set(1), x, -at[None]), alone, rtol=1e-5)


def test_a_prior_may_be_told_the_first_states_or_not():
    prior = SPEC.build(jax.random.key(0))
    denoiser = prior.denoiser
    first = jnp.arange(6.0).reshape(2, 3)
    told, untold = denoiser.told(first, jnp.float32), denoiser.told(None, jnp.float32)
    assert told.shape == untold.shape == (8, 4)
    np.testing.assert_array_equal(told[:2], np.c_[first, np.ones(2)])
    assert not told[2:].any() and not untold.any()
    with pytest.raises(ValueError, match=r"shape \(3, 3\), expected the window's first 2 states"):
        denoiser.told(jnp.ones((3, 3)), jnp.float32)


def test_a_window_is_halved():
    net = UNet(8, 7, 3, (4, 8), jax.random.key(0))
    out = net(jnp.ones((8, 7)), jnp.zeros(()))
    assert out.shape == (8, 3) and not out.any()  # it starts from the Gaussian prior
    with pytest.raises(ValueError, match="10 steps cannot be halved 2 times.*multiple of 4"):
        UNet(10, 7, 3, (4, 8, 8), jax.random.key(0))


def test_schedules_are_those_of_their_equations():
    for schedule, level in (
        (VPSchedule(), lambda a, b: b / a),
        (SubVPSchedule(), lambda a, b: b**2 / a),
    ):
        t = 0.3
        alpha = np.exp(-0.5 * (0.1 * t + 0.5 * 19.9 * t**2))
        std = np.sqrt(1 - alpha**2)
        np.testing.assert_allclose(schedule.level(t), level(alpha, std), rtol=1e-5)
        assert (np.diff(schedule.levels(9)) < 0).all() and schedule.levels(9)[-1] == 0


def test_a_trained_prior_carries_its_config(trained):
    header = read_header(trained)
    assert header["config"]["window"]["channels"] == [4, 8]
    assert "mean" not in header["config"]
    figures = header["held_out"]
    assert 0 < figures["denoising_loss"] < 1.1
    assert figures["step_loss"] < 0.9 and figures["first_loss"] < 1.1  # 1 for no change
    assert "windows of 8 states of simulated lorenz63" in header["data"]["description"]
    again = schema.Train.model_validate(header["config"])
    assert again.window.steps == 8
    prior, _ = dasim.load_prior(trained)
    assert prior.shape == (8, 3) and prior.n_steps == 4
    # all parts were trained: their last layers start from zero
    step = prior.denoiser.step
    for part in (prior.denoiser.network, step.mean, step.error, prior.denoiser.first.network):
        assert part.last.weight.any()
    with pytest.raises(DataError, match="prior of trajectories; a filter takes one of a trans"):
        dasim.load_prior(trained, (3,), 0.1)


def test_a_spin_up_has_to_fit_before_the_window(tmp_path):
    options = ["train", "lorenz63-window", "--out", str(tmp_path / "p.safetensors")]
    options += ["--set", "window.step.spin_up=40"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code != 0
    assert "step.spin_up is 40 steps, 4 of time, of the 3 before" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("window.sigma_max=0.001", "noise levels from 0.001 to 0.005"),
        ("schedule=vp", "sigma_max is a noise level of schedule ve, not of vp"),
    ],
)
def test_the_largest_noise_level_is_above_the_least_and_of_schedule_ve(setting, problem, tmp_path):
    options = ["train", "lorenz63-window", "--out", str(tmp_path / "p.safetensors")]
    result = CliRunner().invoke(app, [*options, "--set", setting])
    assert result.exit_code != 0
    assert problem in " ".join(result.output.split())


def test_a_file_holds_the_network_in_half_precision(tmp_path):
    spec, path = replace(SPEC, step=StepSpec(8, 1, (0,)), sigma_max=10.0), tmp_path / "p"
    prior = spec.build(jax.random.key(0))
    save_trajectory_prior(path, prior, spec, {})
    again, _ = dasim.load_prior(path)
    arrays = (jax.tree.leaves(eqx.filter(p.denoiser, eqx.is_array)) for p in (prior, again))
    for before, after in zip(*arrays, strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_allclose(after, before, rtol=2**-11, atol=1e-7)
    stored = parse_arrays(path.read_bytes())
    names = {k: ("float16" if ".denoiser.network" in k else "float32") for k in stored}
    assert {k: a.dtype.name for k, a in stored.items()} == names  # a step needs single precision
    assert len(set(names.values())) == 2
    assert again.denoiser.step.angles == (0,)
    assert again.schedule.levels(4)[0] == pytest.approx(10)


def test_sampling_writes_netcdf_and_a_figure(trained, tmp_path):
    given = tmp_path / "given.csv"
    given.write_text("1, 2, 20\n2, 3, 21\n")
    arguments = ["--n", "12", "--out", str(tmp_path), "--given", str(given)]
    result = CliRunner().invoke(app, ["sample", str(trained), *arguments])
    assert result.exit_code == 0, result.output
    with xr.open_dataset(tmp_path / "samples.nc") as data:
        assert data.state.shape == (12, 8, 3) and np.isfinite(data.state).all()
        np.testing.assert_allclose(data.time, 0.1 * np.arange(8))
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_have_the_functions_methods():
    method = lambda f: inspect.signature(f).parameters["method"].default
    assert method(cli_events.sample) == method(dasim.conditional_draws)
    assert method(cli_events.probability) == method(dasim.event_probability)


def test_a_probability_is_written(trained, tmp_path):
    arguments = ["--event", "max(x[2]) > 10", "--n", "64", "--levels", "8", "--method", "smc"]
    result = CliRunner().invoke(
        app, ["probability", str(trained), *arguments, "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "probability.json").read_text())
    assert 0 < found["low"] <= found["probability"] <= found["high"]
    assert found["event"] == "max(x[2]) > 10" and found["method"] == "smc"
    with xr.open_dataset(tmp_path / "draws.nc") as data:
        assert data.attrs["event"] == "max(x[2]) > 10"
        np.testing.assert_allclose(data.weight.sum(), 1, rtol=1e-4)
        weighted = data.weight.values > 0
        assert (data.state.values[weighted, :, 2].max(1) > 10).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lorenz63-windows", "--event", "x > 1"], "neither a shipped prior"),
        (["lorenz63-window", "--event", "z > 1"], "unknown name 'z'"),
        (["lorenz63-window", "--event", "x > 1", "--method", "best"], "method is 'best'"),
        (["lorenz63-0.25", "--event", "x > 1"], "prior of a transition: give the state"),
        (["lorenz63-window", "--event", "x > 1", "--given", "none.csv"], "cannot be read"),
    ],
)
def test_refusals_of_the_command(arguments, message, tmp_path):
    result = CliRunner().invoke(app, ["probability", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("perturbation=1.0", "perturbation belongs to the prior of a transition"),
        ("window.steps=10", "10 steps cannot be halved 2 times"),
        ("window.given=60", "given is 60, expected 1 to 59"),
    ],
)
def test_refusals_of_the_training(setting, message, tmp_path):
    out = str(tmp_path / "p.safetensors")
    options = ["--out", out, "--set", "window.count=8", "--set", setting]
    result = CliRunner().invoke(app, ["train", "lorenz63-window", *options])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
