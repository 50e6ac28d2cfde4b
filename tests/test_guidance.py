"""Peers of stage two: posterior sampling of a prior whose posterior is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.covariance import DenseCovariance
from dasim.filters import DPS, MMPS, ConditionalScoreFilter, GuidedForecast, PiGDM
from dasim.filters.guidance import SCHEDULE, guided_draw
from dasim.models import Lorenz96
from dasim.observe import Gaussian, Observation, Select
from dasim.priors import GaussianDenoiser
from dasim.transitions import DiffusionTransition, ModelTransition
from dasim.types import Observations

pytestmark = pytest.mark.usefixtures("float64")
SIZE, DRAWS = 4, 4000


@pytest.fixture(scope="module")
def problem(float64):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(SIZE, SIZE))
    q, matrix = root @ root.T + 0.2 * np.eye(SIZE), rng.normal(size=(SIZE, SIZE))
    denoiser = GaussianDenoiser(
        jnp.zeros(SIZE), DenseCovariance.from_matrix(jnp.asarray(q)), jnp.asarray(matrix)
    )
    observation = Observation(Select((0, 2, 3)), Gaussian(std=np.array([0.7, 0.3, 1.0])))
    mask = jnp.asarray([True, True, False])
    obs = Observations(jnp.zeros(()), jnp.asarray([1.0, -2.0, 9.0]), mask)
    x = jnp.asarray(rng.normal(size=SIZE))
    transition = DiffusionTransition(denoiser, 1.0, (SIZE,))
    h, r = np.eye(SIZE)[[0, 2]], np.diag([0.49, 0.09])
    gain = np.linalg.solve(h @ q @ h.T + r, h @ q).T
    mean = matrix @ np.asarray(x)
    exact = mean + gain @ (np.array([1.0, -2.0]) - h @ mean), q - gain @ h @ q
    return transition, observation, obs, x, (mean, q), exact


@eqx.filter_jit
def draws(guidance, transition, event, x, levels):
    keys = jax.random.split(jax.random.key(1), DRAWS)
    one = lambda k: guided_draw(transition, x, jnp.zeros(()), event, guidance, levels, k)
    return jax.vmap(one)(keys)


@pytest.mark.parametrize("guidance", [PiGDM(), MMPS()], ids=["PiGDM", "MMPS"])
def test_a_gaussian_posterior_is_found(problem, guidance):
    transition, observation, obs, x, _, (mean, cov) = problem
    drawn = np.asarray(draws(guidance, transition, observation.event(obs), x, SCHEDULE.levels(64)))
    std = np.sqrt(np.diag(cov))
    np.testing.assert_allclose((drawn.mean(0) - mean) / std, 0, atol=0.08)
    np.testing.assert_allclose((np.cov(drawn.T) - cov) / np.outer(std, std), 0, atol=0.1)


def test_diffusion_posterior_sampling_is_as_strong_as_its_strength(problem):
    transition, observation, obs, x, (mean, cov), _ = problem
    event, levels = observation.event(obs), SCHEDULE.levels(32)
    misfit = []
    for strength in (0.0, 0.005, 0.02):
        drawn = np.asarray(draws(DPS(strength), transition, event, x, levels))
        if strength == 0:
            std = np.sqrt(np.diag(cov))
            np.testing.assert_allclose((drawn.mean(0) - mean) / std, 0, atol=0.08)
            np.testing.assert_allclose((np.cov(drawn.T) - cov) / np.outer(std, std), 0, atol=0.1)
        rest = (drawn[:, [0, 2]] - [1.0, -2.0]) / [0.7, 0.3]
        misfit.append(np.sqrt(np.mean(rest**2)))
    assert misfit[0] > 1.3 * misfit[1] > 1.6 * misfit[2]


def test_a_deterministic_transition_cannot_be_guided():
    ensemble = jnp.zeros((3, 8)) + jnp.arange(3.0)[:, None]
    observation = Observation(Select((0,)), Gaussian(std=1.0))
    obs = Observations(jnp.zeros(()), jnp.zeros(1), jnp.ones(1, bool))
    transition = ModelTransition(Lorenz96(size=8))
    with pytest.raises(ValueError, match="this transition is deterministic; give it noise"):
        GuidedForecast(DPS()).step(transition, observation, ensemble, obs, jax.random.key(0))
    with pytest.raises(ValueError, match="n_steps is 0"):
        GuidedForecast(DPS(), n_steps=0)


def test_members_are_drawn_each_from_its_own_ancestor(problem):
    """As stage two of the conditional score filter with exact ancestors: one point, no spread."""
    transition, observation, obs, x, _, (mean, cov) = problem
    ensemble = x + 1e-9 * jax.random.normal(jax.random.key(2), (2000, SIZE))
    filters = (
        GuidedForecast(PiGDM(), n_steps=64),
        ConditionalScoreFilter(weighted=False),
        ConditionalScoreFilter(weighted=False, guidance=MMPS(), guide_levels=64),
    )
    for filter in filters:
        step = eqx.filter_jit(filter.step)
        state = filter.init(ensemble, jax.random.key(4))
        _, info = step(transition, observation, state, obs, jax.random.key(3))
        std = np.sqrt(np.diag(cov))
        np.testing.assert_allclose((np.asarray(info.analysis).mean(0) - mean) / std, 0, atol=0.1)
        np.testing.assert_allclose(np.asarray(info.analysis).std(0) / std, 1, atol=0.1)
        unseen = Observations(obs.time, obs.value, jnp.zeros(3, bool))
        _, info = step(transition, observation, state, unseen, jax.random.key(3))
        np.testing.assert_array_equal(info.analysis, info.forecast)
