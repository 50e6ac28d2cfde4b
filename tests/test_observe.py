"""Observations and events against SciPy and by sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from dasim.models import LinearGaussian
from dasim.observe import Gaussian, Observation, Select, check_observations
from dasim.transitions import ModelTransition, simulate
from dasim.types import DataError, Observations

STD = np.array([0.5, 1.0, 2.0, 0.3])
R = np.array(
    [[1.0, 0.4, 0.0, 0.1], [0.4, 2.0, 0.3, 0.0], [0.0, 0.3, 0.5, 0.2], [0.1, 0.0, 0.2, 1.5]]
)
Y = np.array([0.3, -1.0, 2.0, 0.7])
C = np.array([0.1, 0.2, 1.5, -0.4])
MASKS = [[True] * 4, [True, False, True, False], [False, True, False, False]]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def one_cycle(value, mask, std=None):
    std = None if std is None else jnp.asarray(std)
    return Observations(jnp.zeros(()), jnp.asarray(value), jnp.asarray(mask), std)


def identity(x, t):
    return x


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("error", "cov"),
    [
        (Gaussian(std=0.7), 0.49 * np.eye(4)),
        (Gaussian(std=STD), np.diag(STD**2)),
        (Gaussian(cov=R), R),
    ],
    ids=["scalar", "vector", "matrix"],
)
@pytest.mark.parametrize("spread", [False, True], ids=["known", "uncertain"])
def test_log_prob(error, cov, mask, spread):
    # built outside float64: the values are rounded to single precision
    error = Gaussian(
        *(None if a is None else jnp.asarray(a, float) for a in (error.std, error.cov))
    )
    keep = np.array(mask)
    junk = np.where(keep, Y, np.nan)  # what stands under a false mask must not matter
    event = Observation(identity, error).event(one_cycle(junk, keep))
    draws = np.random.default_rng(0).normal(size=(9, 4))
    c_cov = None
    if spread:
        seen = np.asarray(jax.vmap(event.constraint)(jnp.asarray(draws)))
        c_cov = jnp.asarray(np.cov(seen.T))
        cov = cov + np.cov(draws.T)
    got = event.log_prob(event.constraint(jnp.asarray(C)), c_cov)
    exact = multivariate_normal(C[keep], cov[np.ix_(keep, keep)]).logpdf(Y[keep])
    np.testing.assert_allclose(got, exact, rtol=1e-6)


def test_log_prob_with_nothing_seen_is_zero():
    event = Observation(identity, Gaussian(cov=R)).event(one_cycle(Y * np.nan, [False] * 4))
    assert float(event.log_prob(jnp.zeros(4), None)) == 0.0
    np.testing.assert_array_equal(event.innovation(jnp.asarray(C)), np.zeros(4))
    gradient = jax.grad(lambda x: event.log_prob(event.constraint(x), None))(jnp.asarray(C))
    np.testing.assert_array_equal(gradient, np.zeros(4))


def test_std_of_a_cycle_takes_the_place_of_the_errors_own():
    event = Observation(identity, Gaussian(std=9.0)).event(one_cycle(Y, [True] * 4, STD))
    exact = multivariate_normal(C, np.diag(STD**2)).logpdf(Y)
    np.testing.assert_allclose(event.log_prob(jnp.asarray(C), None), exact, rtol=1e-10)
    event = Observation(identity, Gaussian(cov=R)).event(one_cycle(Y, [True] * 4, STD))
    own = np.sqrt(np.diag(R))
    scaled = R * np.outer(STD / own, STD / own)  # the correlations stay
    exact = multivariate_normal(C, scaled).logpdf(Y)
    np.testing.assert_allclose(event.log_prob(jnp.asarray(C), None), exact, rtol=1e-10)


def test_sampled_errors_have_the_covariance():
    n = 20_000
    observation = Observation(lambda x, t: 2 * x, Gaussian(cov=R))
    keys = jax.random.split(jax.random.key(0), n)
    x = jnp.asarray(C)
    y = np.asarray(jax.jit(jax.vmap(lambda k: observation.sample(x, 0.0, k)))(keys))
    assert (np.abs(y.mean(0) - 2 * C) < 4.5 * np.sqrt(np.diag(R) / n)).all()
    error = np.sqrt((np.outer(np.diag(R), np.diag(R)) + R**2) / n)
    assert (np.abs(np.cov(y.T) - R) < 4.5 * error).all()


def test_a_simulated_autoregression_has_its_stationary_moments():
    a, q, r, n = 0.8, 0.6, 0.5, 20_000
    transition = ModelTransition(LinearGaussian(np.array([[a]]), cov=q))
    observation = Observation(identity, Gaussian(std=r))
    truth, seen = simulate(transition, observation, jnp.zeros(1), n, jax.random.key(1))
    x, e = np.asarray(truth)[:, 0], np.asarray(seen.value - truth)[:, 0]
    variance = q**2 / (1 - a**2)
    # standard error of an autoregression's variance: sum over a^2k of the squared correlations
    assert abs(x.var() - variance) < 4 * variance * np.sqrt(2 / n * (1 + a**2) / (1 - a**2))
    assert abs(e.var() - r**2) < 4 * r**2 * np.sqrt(2 / n)
    assert abs(np.corrcoef(e[1:], e[:-1])[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(x, e)[0, 1]) < 4 / np.sqrt(n)
    innovation = x[1:] - a * x[:-1]
    assert abs(innovation.var() - q**2) < 4 * q**2 * np.sqrt(2 / n)


def test_select_reads_the_flat_state():
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(Select([5, 1])(x, 0.0), [5.0, 1.0])
    np.testing.assert_array_equal(Select([2], jnp.square)(x, 0.0), [4.0])
    assert Observation(Select([0, 4]), Gaussian(std=1.0)).n_obs(x) == 2
    with pytest.raises(ValueError, match=r"operator gives shape \(2, 3\), expected \(obs,\)"):
        Observation(lambda x, t: x, Gaussian(std=1.0)).n_obs(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one"),
        ({"std": 1.0, "cov": np.eye(2)}, "exactly one"),
        ({"std": 0.0}, "std is 0.0, expected positive"),
        ({"std": [1.0, -2.0]}, "expected positive"),
        ({"std": np.inf}, "expected positive"),
        ({"cov": np.diag([1.0, 0.0])}, "not positive definite"),
        ({"cov": np.array([[1.0, 0.9], [0.0, 1.0]])}, "not symmetric"),
    ],
)
def test_gaussian_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Gaussian(**options)


def whole(value=None, mask=None, std=None, cycles=3, obs=2):
    value = np.zeros((cycles, obs)) if value is None else value
    mask = np.ones((cycles, obs), bool) if mask is None else mask
    std = None if std is None else jnp.asarray(std)
    return Observations(jnp.zeros(cycles), jnp.asarray(value), jnp.asarray(mask), std)


def put(array, index, number):
    array = np.array(array, float)
    array[index] = number
    return array


def test_check_observations_lets_the_good_pass():
    masked = np.ones((3, 2), bool)
    masked[1, 1] = False
    bad = put(np.zeros((3, 2)), (1, 1), np.nan)
    check_observations(whole(bad, masked), 2)
    check_observations(whole(bad, masked, put(np.ones((3, 2)), (1, 1), -1)), 2)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_check_observations_names_the_value(number):
    value = put(put(np.zeros((3, 2)), (1, 1), number), (2, 0), number)
    message = rf"radar: value\[1, 1\] \(cycle 1, observation 1\) is {number}.*2 such values"
    with pytest.raises(DataError, match=message):
        check_observations(whole(value), 2, "radar")


@pytest.mark.parametrize("number", [0.0, -1.0, np.nan])
def test_check_observations_names_the_std(number):
    std = put(np.ones((3, 2)), (2, 0), number)
    with pytest.raises(DataError, match=r"observations: std\[2, 0\].*expected a positive number"):
        check_observations(whole(std=std))


def test_check_observations_names_shapes():
    with pytest.raises(DataError, match="2 observations a cycle, the operator gives 5"):
        check_observations(whole(), 5)
