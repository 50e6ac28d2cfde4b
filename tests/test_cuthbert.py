"""The Kalman filter and the EnKF against cuthbert's, an independent implementation in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cuthbert import filtering
from cuthbert.ensemble_kalman import ensemble_kalman_filter
from cuthbert.gaussian import kalman

from dasim.cycling import cycle
from dasim.filters import KalmanFilter, StochasticEnKF
from dasim.models import LinearGaussian
from dasim.observe import Gaussian, Observation, Select
from dasim.transitions import ModelTransition, simulate

SIZE, SITES, CYCLES, MEMBERS = 4, (0, 2), 15, 20_000


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def problem(float64):
    rng = np.random.default_rng(4)
    matrix = 0.9 * np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    root = np.tril(rng.normal(size=(SIZE, SIZE)))
    q = 0.1 * root @ root.T + 0.1 * np.eye(SIZE)
    r = np.array([[0.5, 0.2], [0.2, 0.8]])
    transition = ModelTransition(LinearGaussian(matrix, q), 1)
    observation = Observation(Select(SITES), Gaussian(cov=r))
    _, observations = simulate(transition, observation, jnp.ones(SIZE), CYCLES, jax.random.key(0))
    return matrix, q, r, transition, observation, observations


def exact(problem, ensemble):
    """cuthbert's Kalman filter from the moments of an ensemble."""
    matrix, q, r, *_, observations = problem
    chol_q, chol_r = np.linalg.cholesky(q), np.linalg.cholesky(r)
    h = np.eye(SIZE)[list(SITES)]
    built = kalman.build_filter(
        np.mean(ensemble, 0),
        np.linalg.cholesky(np.cov(ensemble.T)),
        lambda i: (jnp.asarray(matrix), jnp.zeros(SIZE), jnp.asarray(chol_q)),
        lambda i: (
            jnp.asarray(h),
            jnp.zeros(len(SITES)),
            jnp.asarray(chol_r),
            observations.value[i],
        ),
    )
    states = filtering.filter(built, jnp.arange(CYCLES), built.init_prepare())
    chol = np.asarray(states.chol_cov[1:])
    evidence = np.diff(np.asarray(states.log_normalizing_constant))
    return np.asarray(states.mean[1:]), chol @ np.swapaxes(chol, 1, 2), evidence


def moments(info):
    x = info.analysis - info.analysis.mean(0)
    return info.analysis.mean(0), x.T @ x / (len(x) - 1), info.log_evidence


def test_the_kalman_filter_is_cuthberts(problem):
    *_, transition, observation, observations = problem
    ensemble = jax.random.normal(jax.random.key(1), (50, SIZE))
    filter = KalmanFilter()
    init_key, key = jax.random.split(jax.random.key(2))
    state = filter.init(ensemble, init_key)
    mean, cov, _ = exact(problem, np.asarray(ensemble))
    for k in range(CYCLES):
        state, _ = filter.step(
            transition, observation, state, observations[k], jax.random.fold_in(key, k)
        )
        np.testing.assert_allclose(state.mean, mean[k], atol=1e-10)
        np.testing.assert_allclose(state.cov, cov[k], atol=1e-10)


def test_the_enkf_agrees_with_cuthberts_and_with_the_exact_filter(problem):
    matrix, q, r, transition, observation, observations = problem
    chol_q, chol_r = np.linalg.cholesky(q), np.linalg.cholesky(r)
    ensemble = jax.random.normal(jax.random.key(1), (MEMBERS, SIZE))
    _, (mean, cov, evidence) = cycle(
        StochasticEnKF(),
        transition,
        observation,
        ensemble,
        observations,
        jax.random.key(3),
        moments,
    )
    built = ensemble_kalman_filter.build_filter(
        lambda key: jax.random.normal(key, (SIZE,)),
        lambda i: lambda x, key: matrix @ x + chol_q @ jax.random.normal(key, (SIZE,)),
        lambda i: (lambda x: x[jnp.asarray(SITES)], jnp.asarray(chol_r), observations.value[i]),  # noqa: E501
        MEMBERS,
    )
    states = filtering.filter(
        built, jnp.arange(CYCLES), built.init_prepare(key=jax.random.key(5)), key=jax.random.key(6)
    )
    peers = np.asarray(states.mean[1:])
    true_mean, true_cov, true_evidence = exact(problem, np.asarray(ensemble))
    # the mean of N draws is off by sqrt(variance / N); errors of a few cycles add up
    tolerance = 5 * np.sqrt(np.diagonal(true_cov, axis1=1, axis2=2) / MEMBERS)
    assert np.all(np.abs(mean - true_mean) < tolerance)
    assert np.all(np.abs(peers - true_mean) < tolerance)
    assert np.all(np.abs(mean - peers) < 1.5 * tolerance)
    np.testing.assert_allclose(cov, true_cov, atol=0.04 * np.abs(true_cov).max())
    np.testing.assert_allclose(evidence, true_evidence, atol=0.05)
