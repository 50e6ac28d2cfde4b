"""Stage one of the conditional score filter: modes, their masses, and members moved to them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dasim
from dasim import config as schema
from dasim import models
from dasim.covariance import anomalies
from dasim.filters import ConditionalScoreFilter, misfits, modes
from dasim.filters.ancestors import localized, sound
from dasim.models import LinearGaussian, Lorenz96
from dasim.observe import Gaussian, Observation, Select
from dasim.problems import Twin
from dasim.transitions import ModelTransition, simulate
from dasim.types import Observations

pytestmark = pytest.mark.usefixtures("float64")


@eqx.filter_jit
def find(problem, mean, cov, starts, iterations):
    """The modes under a prior N(mean, cov)."""
    return modes.find_modes(problem, mean, lambda m: cov @ m, starts, iterations)


@eqx.filter_jit
def move(problem, found, draws):
    """Members `draws` of the prior, as anomalies, with one observation."""
    return modes.move(problem, found, draws, 1, jax.random.key(0))[0]


def make(operator, value, std, size, matrix=None):
    """Stage one's view of a certain transition and an observation."""
    matrix = np.eye(size) if matrix is None else matrix
    transition = ModelTransition(LinearGaussian(matrix, np.zeros((size, size))), 1)
    value = jnp.atleast_1d(jnp.asarray(value, float))
    obs = Observations(jnp.ones(()), value, jnp.ones(value.shape, bool))
    event = Observation(operator, Gaussian(std=std)).event(obs)
    return modes.smoothing(transition, event, jnp.zeros(()), (size,))


def test_a_linear_event_has_one_mode_with_the_kalman_mean_and_evidence():
    rng = np.random.default_rng(0)
    root, matrix = rng.normal(size=(5, 5)), rng.normal(size=(5, 5))
    cov, mean, value = root @ root.T, rng.normal(size=5), np.array([0.5, -1.0])
    problem = make(Select((1, 3)), value, 0.7, 5, matrix)
    starts = jnp.asarray(mean + rng.normal(size=(4, 5)))
    found = find(problem, jnp.asarray(mean), jnp.asarray(cov), starts, 3)
    h = matrix[[1, 3]]
    s = h @ cov @ h.T + 0.49 * np.eye(2)
    innovation = value - h @ mean
    wanted = mean + cov @ h.T @ np.linalg.solve(s, innovation)
    np.testing.assert_allclose(found.point, np.tile(wanted, (4, 1)), atol=1e-9)
    evidence = -0.5 * (innovation @ np.linalg.solve(s, innovation) + np.linalg.slogdet(s)[1])
    # the starts share the mode's mass
    np.testing.assert_allclose(jax.nn.logsumexp(found.log_mass), evidence, atol=1e-9)


def test_members_go_to_two_modes_by_their_masses():
    # x^2 = 4 with a prior about 0.1: the masses are those of Laplace at both roots
    problem = make(lambda x, t: x**2, [4.0], 0.5, 1)
    starts = jnp.asarray([[0.1], [1.5], [2.5], [-1.0]])
    found = find(problem, jnp.asarray([0.1]), jnp.eye(1), starts, 12)
    grid = np.linspace(-5, 5, 20001)
    density = np.exp(-0.5 * (grid - 0.1) ** 2 - 0.5 * (grid**2 - 4) ** 2 / 0.25)
    exact = density[grid > 0].sum() / density.sum()
    assert {*np.sign(found.point[:, 0])} == {-1.0, 1.0}
    mass = jax.nn.softmax(found.log_mass)
    share = float(mass[np.asarray(found.point[:, 0]) > 0].sum())
    assert abs(share - exact) < 0.02
    doubted = modes.find_modes(problem, jnp.asarray([0.1]), lambda m: m, starts, 12, trust=0.25)
    half = float(jax.nn.softmax(doubted.log_mass)[np.asarray(doubted.point[:, 0]) > 0].sum())
    logit = lambda p: np.log(p / (1 - p))
    np.testing.assert_allclose(logit(half), 0.25 * logit(share), atol=0.02)
    draws = 0.1 + np.random.default_rng(1).normal(size=(400, 1))
    moved = move(problem, found, jnp.asarray(draws - 0.1))
    assert abs(np.mean(np.asarray(moved) > 0) - share) <= 1 / 400 + 1e-9
    spread = np.asarray(moved)[np.asarray(moved) > 0].std()
    right = density * (grid > 0)
    centre = (grid * right).sum() / right.sum()
    wanted = np.sqrt(((grid - centre) ** 2 * right).sum() / right.sum())
    assert abs(spread / wanted - 1) < 0.15


def test_a_wider_error_is_that_of_the_linear_problem():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(3, 3))
    cov = root @ root.T
    operator = Select((0, 2))
    narrow, wide = (make(operator, [1.0, 2.0], s, 3) for s in (0.5, 1.0))
    mean = jnp.zeros(3)
    found = find(narrow, mean, jnp.asarray(cov), mean[None], 1)
    by = modes.tempered(found, jnp.asarray(4.0))
    linear = modes.factorize(by.problem.jac[0], jnp.eye(2), lambda m: cov @ m)
    np.testing.assert_allclose(by.problem.g[0], linear.g, atol=1e-9)
    reference = find(wide, mean, jnp.asarray(cov), mean[None], 1)
    np.testing.assert_allclose(by.problem.g, reference.problem.g, atol=1e-9)


def test_an_event_too_sharp_for_the_search_leaves_the_filter_unsure():
    problem = make(lambda x, t: jnp.arctan(50 * x), [1.0], 1e-3, 1)
    mean = jnp.asarray([3.0])  # on the flat part, from where one step leads nowhere
    found = find(problem, mean, jnp.eye(1), mean[None], 1)
    draws = np.random.default_rng(3).normal(size=(200, 1))
    moved = move(problem, found, jnp.asarray(draws))
    assert np.std(moved) > 0.3


def test_surprise_widens_what_cannot_explain_the_observations_and_nothing_else():
    def factor(square, n=200, g=1.0, limit=4.0):
        """Of `n` misfits of that square under variances 1 + g."""
        return float(misfits.surprise(jnp.full(n, g), jnp.full(n, square**0.5), n, limit))

    # chi-squared with 200 degrees of freedom is above 283 with probability 1e-4
    assert factor(2 * 1.40) == 1.0
    assert 2.0 <= factor(3.0) < 2.1  # 3 / (1 + a) = 1
    np.testing.assert_allclose(factor(30.0), 4.0, rtol=1e-6)
    np.testing.assert_allclose(factor(30.0, limit=100.0), 29.0, rtol=0.06)


def test_inflation_follows_what_was_learned():
    g = jnp.asarray([3.0, 1.0, 0.0])
    np.testing.assert_allclose(misfits.sampling_inflation(g, 20), 1 + 0.4 * 1.25 / 20)
    assert misfits.sampling_inflation(jnp.full(30, 1e9), 20) == 1 + 0.4 * 8 / 20
    assert misfits.sampling_inflation(jnp.zeros(3), 20) == 1


def test_modulation_is_the_localised_covariance():
    taper = dasim.ring(24, range(0, 24, 2), 4.0)
    rng = np.random.default_rng(4)
    _, x = anomalies(jnp.asarray(rng.normal(size=(10, 24))))
    m = jnp.asarray(rng.normal(size=(24, 3)))
    got, wanted = localized(x, taper, taper.modes(0.999))(m), localized(x, taper, None)(m)
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize(("evaluations", "n_obs"), [(64, 20), (24, 20), (64, 40), (200, 4)])
def test_searches_stay_within_the_evaluations(evaluations, n_obs):
    filter = ConditionalScoreFilter(evaluations=evaluations, weighted=False)
    transition = ModelTransition(Lorenz96(), 2)
    starts = filter.starts(transition, 40, 40, n_obs)
    assert 1 <= starts <= 40
    assert filter.count(transition, 40, 40, n_obs) <= evaluations or starts == 1


def test_shocks_are_rare_and_of_their_size():
    model = models.Shocked(LinearGaussian(np.eye(3), np.zeros((3, 3))), 0.2, 0.25)
    noisy = models.Shocked(LinearGaussian(np.eye(3), np.diag([0.0, 0.1, 1.0])), 0.8, 0.5)
    x = jnp.asarray([1.0, -2.0, 0.0])
    np.testing.assert_array_equal(model.step(x, jnp.zeros(()), None), x)
    keys = jax.random.split(jax.random.key(0), 4000)
    change = np.asarray(jax.vmap(lambda k: model.step(x, jnp.zeros(()), k))(keys) - x)
    shocked = np.abs(change[:, 0]) > 0
    assert abs(shocked.mean() - 0.25) < 0.03
    np.testing.assert_allclose(change[shocked].std(0), [0.2, 0.4, 0.0], rtol=0.07)
    draws = jax.vmap(lambda k: noisy.step(x, jnp.zeros(()), k))(keys)
    cov = noisy.step_cov(x, jnp.zeros(())).dense()
    np.testing.assert_allclose(np.cov(draws.T), cov, rtol=0.1, atol=0.08)
    lorenz = models.Shocked(Lorenz96(size=4), 0.2, 0.25)
    y = jnp.asarray([1.0, -2.0, 3.0, 4.0])
    ahead = lorenz.step(y, jnp.zeros(()), None)
    np.testing.assert_allclose(lorenz.step_cov(y, 0.0).dense(), np.diag(0.01 * ahead**2), rtol=1e-5)
    with pytest.raises(ValueError, match="probability from 0 to 1"):
        models.Shocked(model.model, 0.2, 1.5)


def test_a_shocked_truth_is_filtered_by_the_plain_model():
    content = {
        "name": "shocks",
        "system": {
            "kind": "lorenz96",
            "size": 8,
            "interval": 0.1,
            "shock": {"size": 0.2, "probability": 0.2},
        },
        "observe": {"every": 1, "std": 1.0},
        "cycle": {"n_cycles": 40},
        "members": 4,
        "methods": [{"name": "x", "kind": "ETKF"}],
    }
    twin = Twin(schema.Run.model_validate(content), jax.random.key(0))
    assert isinstance(twin.dynamics.model, Lorenz96)
    ahead = jax.vmap(lambda x: twin.dynamics.mean(x, jnp.zeros(())))(jnp.asarray(twin.truth[:-1]))
    jump = np.abs(twin.truth[1:] - np.asarray(ahead)).max(1)
    assert 5 < np.sum(jump > 0.05) < 30


def test_members_find_the_truth_from_the_climate_through_a_saturating_operator():
    model = ModelTransition(Lorenz96(size=8), 2)
    observation = Observation(Select(range(0, 8, 2), jnp.arctan), Gaussian(std=0.05))
    x0 = model.model.start(jax.random.key(5))
    x0 = ModelTransition(model.model, 400).mean(x0, jnp.zeros(()))
    truth, observations = simulate(model, observation, x0, 60, jax.random.key(6))
    starts = jax.vmap(model.model.start)(jax.random.split(jax.random.key(7), 20))
    climate = jax.vmap(lambda x: ModelTransition(model.model, 400).mean(x, jnp.zeros(())))(starts)
    taper = dasim.ring(8, range(0, 8, 2), 6.0)
    filter = ConditionalScoreFilter(localization=taper)
    _, analyses = dasim.cycle(
        filter, model, observation, climate, observations, jax.random.key(8), lambda i: i.analysis
    )
    error = np.sqrt(np.mean((analyses.mean(1) - truth) ** 2, 1))[30:]
    spread = np.sqrt(analyses.var(1, ddof=1).mean(1))[30:]
    assert error.mean() < 0.2
    assert 0.7 < spread.mean() / error.mean() < 2.2


def test_members_that_overflow_are_replaced():
    ensemble = jnp.asarray([[1.0], [jnp.inf], [3.0], [jnp.nan], [5.0]])
    keys = jax.random.split(jax.random.key(0), 200)
    kept = np.asarray(jax.vmap(lambda k: sound(ensemble, k))(keys))
    np.testing.assert_array_equal(kept[:, [0, 2, 4]], np.tile([0, 2, 4], (200, 1)))
    for place in (1, 3):
        values, counts = np.unique(kept[:, place], return_counts=True)
        assert list(values) == [0, 2, 4] and counts.min() > 40


def test_a_window_grows_and_begins_anew_where_the_event_is_too_sharp():
    model = ModelTransition(Lorenz96(size=8), 2)
    observation = Observation(Select(range(8), jnp.arctan), Gaussian(std=0.05))
    x0 = ModelTransition(model.model, 400).mean(model.model.start(jax.random.key(5)), 0.0)
    truth, observations = simulate(model, observation, x0, 5, jax.random.key(6))
    filter = ConditionalScoreFilter(localization=dasim.ring(8, range(8), 6.0), lag=3)
    near = truth[0] + 0.05 * jax.random.normal(jax.random.key(7), (20, 8))
    state = filter.init(near, jax.random.key(8))
    step = jax.jit(lambda state, obs, key: filter.step(model, observation, state, obs, key))
    ages = []
    for k in range(1, 5):
        begin = state.ensemble
        state, info = step(state, observations[k], jax.random.key(k))
        ages.append(int(state.age))
        assert np.abs(info.analysis.mean(0) - truth[k]).max() < 0.3
        through = begin
        for _ in range(min(k, 3)):
            through = jax.vmap(lambda x: model.mean(x, jnp.zeros(())))(through)
        np.testing.assert_allclose(info.forecast, through, atol=1e-9)
    assert ages == [1, 2, 2, 2]
    far = eqx.tree_at(lambda o: o.value, observations[4], -observations[4].value)
    state, info = step(state, far, jax.random.key(9))
    assert state.age == 0
    np.testing.assert_array_equal(state.ensemble, info.analysis)
    noisy = ModelTransition(model.model, 2, noise=0.1)
    with pytest.raises(ValueError, match="lag is 3.*without noise"):
        filter.step(noisy, observation, state, observations[4], jax.random.key(0))
