"""Biases and error variances that are learned while cycles go by."""

import jax
import jax.numpy as jnp
import netCDF4
import numpy as np
import pytest
import yaml

import dasim
from dasim import config as schema
from dasim import filters, models, tuning
from dasim.build import make_filter
from dasim.experiment import run
from dasim.problems import make_problem
from dasim.transitions import ModelTransition, simulate

SITES, CYCLES = 8, 300
RUN = """
name: learned
members: 10
system: {kind: lorenz96, size: 8, interval: 0.1}
observe: {every: 1, std: 1.0}
cycle: {n_cycles: 6, burn_in: 1, chunk: 3}
methods: [{name: ETKF, kind: ETKF}]
error_estimation: {bias: {constant: 1.0}, std: true, shared: true}
"""


@pytest.fixture(scope="module")
def twin():
    """Lorenz-96 with few sites, a truth and its observations."""
    transition = ModelTransition(models.Lorenz96(SITES), 2)
    seen = dasim.Observation(dasim.Select(range(SITES)), dasim.Gaussian(std=1.0))
    start = jax.vmap(transition.model.start)(jax.random.split(jax.random.key(0), 20))
    spin = lambda x, _: (jax.vmap(transition.mean, (0, None))(x, 0.0), None)
    members = jax.lax.scan(spin, start, None, length=100)[0]
    truth, observations = simulate(transition, seen, members[0], CYCLES, jax.random.key(1))
    return transition, seen, members, np.asarray(truth), observations


def means(twin, filter, observations, seen=None):
    """RMSE of the second half's analysis means, and what was learned."""
    transition, observation, members, truth, _ = twin
    keep = lambda info: (info.analysis.mean(0), info.learned)
    _, (mean, learned) = dasim.cycle(
        filter, transition, seen or observation, members, observations, jax.random.key(2), keep
    )
    error = np.asarray(mean)[CYCLES // 2 :] - truth[CYCLES // 2 :]
    return np.sqrt(np.mean(error**2)), learned


def shifted(observations, by, factor=1.0):
    return dasim.Observations(
        observations.time, observations.value * factor + by, observations.mask, observations.std
    )


ETKF = filters.ETKF(inflation=1.02)


def test_a_bias_of_some_sensors_is_found(twin):
    observations, bias = twin[-1], np.where(np.arange(SITES) % 4 == 0, 2.0, 0.0)
    clean, _ = means(twin, ETKF, observations)
    wrong = shifted(observations, bias)
    blind, _ = means(twin, ETKF, wrong)
    learning = filters.OnlineErrors(ETKF, SITES, filters.Predictors(["constant"]))
    found, learned = means(twin, learning, wrong)
    assert blind > 1.5 * clean
    assert found < 1.15 * clean
    assert np.allclose(np.asarray(learned.bias)[-100:].mean(0), bias, atol=0.25)
    assert np.allclose(learned.std, 1.0)


def test_a_gain_is_found(twin):
    observations = twin[-1]
    gain = np.where(np.arange(SITES) % 4 == 0, 1.3, 1.0)
    clean, _ = means(twin, ETKF, observations)
    predictors = filters.Predictors(["constant", "value"])
    learning = filters.OnlineErrors(ETKF, SITES, predictors, (1.0, 0.3))
    found, _ = means(twin, learning, shifted(observations, 0.0, gain))
    assert means(twin, ETKF, shifted(observations, 0.0, gain))[0] > 1.2 * clean
    assert found < 1.15 * clean


@pytest.mark.parametrize("told", [0.5, 2.0])
def test_a_wrong_error_is_found(twin, told):
    seen = dasim.Observation(twin[1].operator, dasim.Gaussian(std=told))
    learning = filters.OnlineErrors(ETKF, SITES, variance=True, groups=(0,) * SITES)
    _, learned = means(twin, learning, twin[-1], seen)
    assert np.asarray(learned.std)[-100:].mean() == pytest.approx(1.0, abs=0.12)


def test_each_group_has_its_own(twin):
    """Half of the sensors have the error that they say, half three times as much."""
    loud = np.arange(SITES) % 2 == 1
    noise = np.random.default_rng(0).normal(size=(CYCLES, SITES)) * np.sqrt(8.0) * loud
    learning = filters.OnlineErrors(ETKF, SITES, variance=True, groups=tuple(int(i) for i in loud))
    _, learned = means(twin, learning, shifted(twin[-1], jnp.asarray(noise, jnp.float32)))
    std = np.asarray(learned.std)[-100:].mean(0)
    assert std[0] == pytest.approx(1.0, abs=0.25) and std[1] == pytest.approx(3.0, abs=0.5)
    assert np.allclose(std[::2], std[0]) and np.allclose(std[1::2], std[1])


def test_what_is_masked_teaches_nothing(twin):
    observations = twin[-1]
    hidden = dasim.Observations(
        observations.time,
        jnp.where(jnp.arange(SITES) == 3, jnp.nan, observations.value),
        observations.mask & (jnp.arange(SITES) != 3),
    )
    learning = filters.OnlineErrors(ETKF, SITES, filters.Predictors(["constant"]), variance=True)
    _, learned = means(twin, learning, hidden)
    assert np.all(np.asarray(learned.bias)[:, 3] == 0) and np.allclose(learned.std[:, 3], 1)
    assert np.isfinite(learned.bias).all() and np.isfinite(learned.std).all()


def test_an_exact_regression_is_matched():
    """A state that is known: beta is the ridge regression of the readings, unweighted in time."""
    model = models.LinearGaussian(np.eye(1), 1e-12 * np.eye(1))
    transition = ModelTransition(model)
    seen = dasim.Observation(dasim.Select([0]), dasim.Gaussian(std=0.5))
    value = 2.0 + 0.5 * np.random.default_rng(1).normal(size=(40, 1)).astype("f4")
    observations = dasim.Observations(jnp.arange(40.0), jnp.asarray(value), jnp.ones((40, 1), bool))
    learning = filters.OnlineErrors(
        filters.ETKF(), 1, filters.Predictors(["constant"]), (0.3,), memory=1e9
    )
    members = 1e-6 * jax.random.normal(jax.random.key(0), (10, 1))
    state, _ = dasim.cycle(learning, transition, seen, members, observations, jax.random.key(1))
    exact = value.sum() / 0.25 / (40 / 0.25 + 1 / 0.09)
    assert state.beta[0, 0] == pytest.approx(exact, rel=1e-3)


def test_a_run_writes_what_it_learned(tmp_path):
    settings = schema.Run.model_validate(yaml.safe_load(RUN))
    run(settings, tmp_path)

    with netCDF4.Dataset(tmp_path / "ETKF.nc") as file:
        assert file["learned_std"].shape == file["observation_bias"].shape == (6, 8)
        assert np.all(file["observation_bias"][0] == 0) and np.any(file["observation_bias"][5] != 0)


def test_refusals():
    with pytest.raises(ValueError, match="constant, value"):
        filters.Predictors(["angle"])
    with pytest.raises(ValueError, match="give predictors"):
        filters.OnlineErrors(ETKF, 3)
    with pytest.raises(ValueError, match="more than one cycle"):
        filters.OnlineErrors(ETKF, 3, variance=True, memory=1.0)
    with pytest.raises(ValueError, match="2 groups for 3"):
        filters.OnlineErrors(ETKF, 3, variance=True, groups=(0, 1))
    content = yaml.safe_load(RUN) | {"error_estimation": {"memory": 10}}
    with pytest.raises(ValueError, match="give bias"):
        schema.Run.model_validate(content)
    content = yaml.safe_load(RUN)
    content["observe"]["error"] = {"kind": "huber"}
    settings = schema.Run.model_validate(content)
    with pytest.raises(schema.ConfigError, match="Gaussian errors, not of Huber"):
        make_filter(settings.methods[0], make_problem(settings, jax.random.key(0)))


def test_tuning_learns_as_the_run_does():
    settings = schema.Run.model_validate(yaml.safe_load(RUN))
    (problem,) = tuning.twins(settings, 1)
    assert isinstance(make_filter(settings.methods[0], problem), filters.OnlineErrors)
