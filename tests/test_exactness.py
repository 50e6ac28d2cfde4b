"""Linear Gaussian problems, in which the Kalman filter gives the exact posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.covariance import DenseCovariance
from dasim.cycling import cycle
from dasim.filters import (
    EAKF,
    ESRF,
    ETKF,
    ConditionalScoreFilter,
    EnKS,
    ExtendedKalmanFilter,
    KalmanFilter,
    StochasticEnKF,
)
from dasim.models import LinearGaussian, Lorenz63
from dasim.observe import Gaussian, Observation, Select
from dasim.priors import GaussianDenoiser
from dasim.transitions import DiffusionTransition, ModelTransition, simulate

SIZE, SITES, CYCLES = 8, (0, 3, 6), 60


pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def problem(float64):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(SIZE, SIZE))
    matrix *= 0.95 / np.abs(np.linalg.eigvals(matrix)).max()
    root = 0.3 * rng.normal(size=(SIZE, SIZE))
    q = root @ root.T + 0.05 * np.eye(SIZE)
    r = np.array([[0.5, 0.2, 0.0], [0.2, 1.0, 0.1], [0.0, 0.1, 0.2]])
    model = ModelTransition(LinearGaussian(matrix, q), 1)
    denoiser = GaussianDenoiser(
        jnp.zeros(SIZE), DenseCovariance.from_matrix(jnp.asarray(q)), jnp.asarray(matrix)
    )
    diffusion = DiffusionTransition(denoiser, 1.0, (SIZE,))
    observation = Observation(Select(SITES), Gaussian(cov=r))
    _, observations = simulate(model, observation, jnp.zeros(SIZE), CYCLES, jax.random.key(1))
    # the third observation is missing in every fifth cycle
    mask = observations.mask.at[::5, 2].set(False)
    observations = type(observations)(observations.time, observations.value, mask)

    def exact(mean, cov, inflation=1.0):
        data = np.asarray(observations.value), np.asarray(mask)
        return kalman_filter(mean, cov, matrix, q, r, *data, inflation)

    return model, diffusion, observation, observations, exact


def kalman_filter(mean, cov, a, q, r, values, masks, inflation):
    """Posterior means and covariances, in NumPy alone."""
    out = []
    for value, mask in zip(values, masks, strict=True):
        mean, cov = a @ mean, inflation**2 * a @ cov @ a.T + q
        h = np.eye(SIZE)[list(SITES)][mask]
        gain = np.linalg.solve(h @ cov @ h.T + r[np.ix_(mask, mask)], h @ cov).T
        mean, cov = mean + gain @ (value[mask] - h @ mean), cov - gain @ h @ cov
        out.append((mean, cov))
    return out


def moments(info):
    mean = info.analysis.mean(0)
    x = info.analysis - mean
    return mean, x.T @ x / (len(x) - 1)


def divergence(filter, transition, problem, members):
    """KL divergence of the sample's normal law from the exact posterior, mean over the cycles."""
    _, _, observation, observations, exact = problem
    exact = exact(np.zeros(SIZE), np.eye(SIZE))
    ensemble = jax.random.normal(jax.random.key(2), (members, SIZE))
    _, (means, covs) = cycle(
        filter, transition, observation, ensemble, observations, jax.random.key(3), moments
    )
    total = 0.0
    for mean, cov, (m, c) in zip(np.asarray(means), np.asarray(covs), exact, strict=True):
        precision = np.linalg.inv(c)
        total += 0.5 * (
            np.trace(precision @ cov)
            - SIZE
            + (mean - m) @ precision @ (mean - m)
            + np.linalg.slogdet(c)[1]
            - np.linalg.slogdet(cov)[1]
        )
    return total / len(exact)


@pytest.mark.parametrize(
    ("filter", "which", "members"),
    [
        (StochasticEnKF(), 0, 10_000),
        (ETKF(), 0, 10_000),
        (EAKF(), 0, 1000),
        (ESRF(), 0, 1000),
        (EnKS(ETKF(), 1), 0, 1000),
        (ConditionalScoreFilter(weighted=False), 0, 10_000),
        (ConditionalScoreFilter(weighted=False), 1, 10_000),
        (ConditionalScoreFilter(guide_levels=1, rotation=False), 1, 10_000),
        (ConditionalScoreFilter(weighted=False, linearization="statistical"), 1, 10_000),
        (ConditionalScoreFilter(weighted=True), 0, 1000),
        (ConditionalScoreFilter(weighted=True, draws=2, weighted_levels=3), 1, 1000),
    ],
    ids=[
        "EnKF",
        "ETKF",
        "EAKF",
        "ESRF",
        "EnKS",
        "score-model",
        "score-diffusion",
        "score-one-guide-level",
        "score-statistical",
        "score-weighted-model",
        "score-weighted-levels-diffusion",
    ],
)
def test_posterior_is_exact_up_to_sampling(problem, filter, which, members):
    few, many = (divergence(filter, problem[which], problem, n) for n in (members // 10, members))
    assert many <= 100 / members
    # independent draws have D (D + 3) / (4 N) = 22 / N; a bias would stop the fall as 1 / N
    assert 6 <= few / many <= 16


@pytest.mark.parametrize(
    ("filter", "which", "inflation"),
    [(KalmanFilter(), 0, 1.0), (KalmanFilter(), 1, 1.0), (ExtendedKalmanFilter(1.25), 0, 1.25)],
    ids=["model", "diffusion", "extended"],
)
def test_kalman_filter_is_exact(problem, filter, which, inflation):
    _, _, observation, observations, exact = problem
    ensemble = 1 + np.random.default_rng(4).normal(size=(6, SIZE))
    means = lambda info: (info.forecast.mean(0), info.analysis.mean(0))
    state, (forecasts, analyses) = cycle(
        filter,
        problem[which],
        observation,
        jnp.asarray(ensemble),
        observations,
        jax.random.key(3),
        means,
    )
    exact = exact(ensemble.mean(0), np.cov(ensemble.T), inflation)
    np.testing.assert_allclose(analyses, [mean for mean, _ in exact], atol=1e-9)
    matrix = np.asarray(problem[0].model.matrix)
    np.testing.assert_allclose(forecasts[1:], [matrix @ mean for mean, _ in exact[:-1]], atol=1e-9)
    np.testing.assert_allclose(state.mean, exact[-1][0], atol=1e-9)
    np.testing.assert_allclose(state.cov, exact[-1][1], atol=1e-9)


def test_kalman_filter_refuses_what_is_not_linear(problem):
    model, _, observation, observations, _ = problem
    curved = Observation(Select(SITES, jnp.tanh), Gaussian(std=1.0))
    unsaid = Observation(lambda x, t: x[:3], Gaussian(std=1.0))
    ensemble, key = jnp.ones((4, SIZE)), jax.random.key(0)
    for other in (curved, unsaid):
        with pytest.raises(ValueError, match="exact for linear operators alone; if yours is one"):
            cycle(KalmanFilter(), model, other, ensemble, observations, key)
    lorenz = ModelTransition(Lorenz63())
    with pytest.raises(ValueError, match="exact for linear transitions alone"):
        cycle(KalmanFilter(), lorenz, observation, jnp.ones((4, 3)), observations, key)
