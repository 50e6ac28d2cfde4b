"""Linear Gaussian problems, in which the Kalman filter gives the exact posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.covariance import DenseCovariance
from dasim.cycling import cycle
from dasim.filters import ETKF, ConditionalScoreFilter, StochasticEnKF
from dasim.models import LinearGaussian
from dasim.observe import Gaussian, Observation, Select
from dasim.priors import GaussianDenoiser
from dasim.transitions import DiffusionTransition, ModelTransition, simulate

SIZE, SITES, CYCLES = 8, (0, 3, 6), 60


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


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
    exact = kalman_filter(matrix, q, r, np.asarray(observations.value), np.asarray(mask))
    return model, diffusion, observation, observations, exact


def kalman_filter(a, q, r, values, masks):
    """Posterior means and covariances, in NumPy alone."""
    mean, cov, out = np.zeros(SIZE), np.eye(SIZE), []
    for value, mask in zip(values, masks, strict=True):
        mean, cov = a @ mean, a @ cov @ a.T + q
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
    ("filter", "which"),
    [
        (StochasticEnKF(), 0),
        (ETKF(), 0),
        (ConditionalScoreFilter(), 0),
        (ConditionalScoreFilter(), 1),
        (ConditionalScoreFilter(levels=1, guide_levels=1, encoded=0.5), 1),
    ],
    ids=["EnKF", "ETKF", "score-model", "score-diffusion", "score-one-level-fresh-latents"],
)
def test_posterior_is_exact_up_to_sampling(problem, filter, which):
    few, many = (divergence(filter, problem[which], problem, n) for n in (1000, 10_000))
    assert many <= 0.01
    # independent draws have D (D + 3) / (4 N) = 0.0022; a bias would stop the fall as 1 / N
    assert 6 <= few / many <= 16
