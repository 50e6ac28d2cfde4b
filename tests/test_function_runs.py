"""Priors of functions from a config to a run, and sensors between the points of a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import yaml
from typer.testing import CliRunner

from dasim import config as schema
from dasim.cli import app
from dasim.fields import resample
from dasim.operators import FieldValues
from dasim.problems.twin import Twin
from dasim.trained import load_prior
from dasim.types import DataError

SYSTEM = {"kind": "kuramoto-sivashinsky", "size": 32, "length": 22.0, "interval": 0.5}
NETWORK = {"modes": [6], "channels": 4, "depth": 1}
FIT = {"n_steps": 20, "batch": 16, "check": 10}
TRAIN = {
    "name": "ks",
    "system": SYSTEM,
    "perturbation": 0.1,
    "functions": {"shape": [16], "mean": NETWORK, "residual": NETWORK},
    "fit_mean": FIT,
    "fit_residual": FIT,
}
RUN = {
    "name": "ks",
    "system": SYSTEM,
    "observe": {"positions": [0.3, 5.1, 11.0, 17.7], "function": "arctan", "std": 0.1},
    "cycle": {"n_cycles": 4, "burn_in": 1},
    "members": 4,
    "methods": [{"name": "EnKF", "kind": "StochasticEnKF", "localization_radius": 6.0}],
}


def invoke(tmp_path, command, content, out, *more):
    """A command of a config."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    return CliRunner().invoke(app, [command, str(file), "--out", str(out), *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    path = folder / "ks.safetensors"
    result = invoke(folder, "train", TRAIN, path)
    assert result.exit_code == 0, result.output
    return path


def test_a_prior_of_functions_serves_a_run_on_another_grid(trained, tmp_path):
    prior, header = load_prior(trained)
    assert prior.shape == (16,)
    assert header["spec"]["noise"]["kind"] == "tabulated"
    assert header["config"]["functions"]["shape"] == [16]
    method = {"name": "learned", "kind": "StochasticEnKF", "transition": str(trained)}
    content = RUN | {"methods": [method]}
    result = invoke(tmp_path, "run", content, tmp_path / "run")
    assert result.exit_code == 0, result.output
    with xr.open_dataset(tmp_path / "run" / "learned.nc") as file:
        assert file.analysis.shape == (4, 4, 32)
        np.testing.assert_allclose(file.observation_position.values[:, 0], [0.3, 5.1, 11.0, 17.7])


def test_the_mean_is_one_function_on_all_grids(trained):
    x = jax.random.normal(jax.random.key(0), (16,))
    coarse, _ = load_prior(trained)
    fine, _ = load_prior(trained, (48,), 0.5)
    grid, other = coarse.denoiser.grid, fine.denoiser.grid
    moved = fine.mean(resample(x, grid, other), 0.0)
    # the highest wave of the coarse grid is one of two on the fine one
    low = lambda y, g: jnp.fft.rfft(y)[:8] / g.size
    expected = low(coarse.mean(x, 0.0), grid)
    np.testing.assert_allclose(low(moved, other), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "interval", "message"),
    [
        ((15,), 0.5, "even numbers of at least 12 points"),
        ((10,), 0.5, "even numbers of at least 12 points"),
        ((16, 16), 0.5, "fields with 1 axes"),
        ((32,), 1.0, "with interval 0.5"),
    ],
)
def test_a_grid_that_the_prior_cannot_serve(trained, shape, interval, message):
    with pytest.raises(DataError, match=message):
        load_prior(trained, shape, interval)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": {"kind": "lorenz63", "interval": 0.1}}, "no field on a grid"),
        ({"functions": TRAIN["functions"] | {"shape": [64]}}, "no more points than the system's"),
        ({"functions": TRAIN["functions"] | {"shape": [10]}}, "at least 12 points"),
        ({"mean": {"kind": "mlp"}}, "mean belongs to the prior of vectors"),
    ],
)
def test_a_training_that_is_refused(tmp_path, change, message):
    result = invoke(tmp_path, "train", TRAIN | change, tmp_path / "no.safetensors")
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())


def test_sensors_between_points_read_the_field():
    problem = Twin(schema.Run(**RUN), jax.random.key(0))
    grid = problem.dynamics.model.grid
    positions = np.array([[0.3], [5.1], [11.0], [17.7]])
    exact = np.arctan(np.asarray(FieldValues(grid, positions)(jnp.asarray(problem.truth[2]), 0.0)))
    assert np.abs(np.asarray(problem.observations.value[2]) - exact).max() < 0.5
    np.testing.assert_allclose(problem.obs_coords, positions * 32 / 22, rtol=1e-6)
    assert problem.observation.operator(jnp.asarray(problem.truth[2]), 0.0) == pytest.approx(exact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": [[0.1, 0.2]]}, "1 coordinates for each sensor"),
        ({"positions": [1.0], "every": 2}, "exactly one of every, sites and positions"),
    ],
)
def test_positions_that_are_refused(change, message):
    observe = {"std": 0.1} | change
    with pytest.raises(schema.ConfigError, match=message):
        Twin(schema.Run(**RUN | {"observe": observe}), jax.random.key(0))


def test_positions_belong_to_fields():
    system = {"kind": "lorenz63", "interval": 0.1}
    run = schema.Run(**RUN | {"system": system, "methods": [{"name": "a", "kind": "ETKF"}]})
    with pytest.raises(schema.ConfigError, match="a field on a grid"):
        Twin(run, jax.random.key(0))
