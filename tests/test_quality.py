"""Quality control: what is left out, and what a filter loses to broken sensors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import dasim
from dasim import observe
from dasim.filters import (
    BootstrapParticleFilter,
    ConditionalScoreFilter,
    KalmanFilter,
    StochasticEnKF,
)
from dasim.models import LinearGaussian
from dasim.observe import BackgroundCheck, BuddyCheck, Innovation, Quality
from dasim.transitions import ModelTransition

KEY = jax.random.key(0)


def innovation(difference, cov, variance=0.04, members=4000):
    d = jnp.asarray(difference, float)
    x = jax.random.multivariate_normal(KEY, jnp.zeros(len(d)), jnp.asarray(cov), (members,))
    x = (x - x.mean(0)) / np.sqrt(members - 1)
    return Innovation(d, x, jnp.full(len(d), variance), jnp.ones(len(d), bool))


def test_the_background_check_is_in_total_spread():
    cov = np.diag([1.0, 0.25, 1.0, 1.0])
    seen = innovation([2.9, 2.0, -3.2, 0.0], cov)  # total spreads 1.02, 0.54, 1.02, 1.02
    np.testing.assert_array_equal(BackgroundCheck(3.0)(seen), [True, False, False, True])


def test_good_values_pass_as_often_as_theory_says():
    rng = np.random.default_rng(0)
    seen = innovation(rng.standard_normal(3000) * np.sqrt(1.04), np.eye(3000), members=50)
    kept = BackgroundCheck(2.0)(seen._replace(anomalies=jnp.eye(3000)))
    share = 2 * norm.sf(2.0)
    assert abs(np.mean(~kept) - share) < 4 * np.sqrt(share / 3000)


def test_a_lost_filter_keeps_all():
    seen = innovation([9.0, -9.0, 9.0, 0.0], np.eye(4))
    assert BackgroundCheck(3.0)(seen).all()
    assert not BackgroundCheck(3.0, most=0.9)(seen)[:3].any()


def test_buddies_know_better_than_the_forecast():
    """All are 3 off with a forecast that is: one that is not is the wrong one."""
    cov = 4.0 * (0.95 * np.ones((5, 5)) + 0.05 * np.eye(5))
    seen = innovation([3.0, 3.2, 2.9, 0.0, 3.1], cov)
    np.testing.assert_array_equal(BuddyCheck(3.0)(seen), [True, True, True, False, True])
    assert BackgroundCheck(3.0)(seen).all()
    # masked values have no say
    masked = seen._replace(mask=jnp.array([False, False, True, True, False]))
    difference = jnp.where(masked.mask, seen.difference, 0.0)
    kept = BuddyCheck(3.0, most=1.0)(masked._replace(difference=difference))
    assert not (kept[2] and kept[3])


def test_stuck_sensors():
    value = np.array([[1, 5], [1, 5], [1, 6], [2, 6], [2, 6], [2, 6]], float)
    mask = np.ones(value.shape, bool)
    mask[1, 0] = False  # a missing report neither counts nor ends a run
    found = observe.stuck(value, mask, 2)
    np.testing.assert_array_equal(found[:, 0], [False, False, True, False, True, True])
    np.testing.assert_array_equal(found[:, 1], [False, True, False, True, True, True])
    assert not observe.stuck(value, mask, 5)[:, 1].any()
    with pytest.raises(ValueError, match="reports is 1"):
        observe.stuck(value, mask, 1)


def test_codes():
    value = np.array([[1.0, np.nan, 50.0, 3.0], [1.0, 2.0, 4.0, 3.0]])
    mask = np.ones(value.shape, bool)
    mask[0, 0] = False
    obs = dasim.Observations(jnp.arange(2.0), jnp.asarray(value), jnp.asarray(mask))
    codes = observe.quality(obs, limits=(0.0, 10.0), blacklist=[3], reports=2)
    wanted = [
        [Quality.MISSING, Quality.MISSING, Quality.RANGE, Quality.BLACKLIST],
        [Quality.PASSED, Quality.PASSED, Quality.PASSED, Quality.BLACKLIST],
    ]
    np.testing.assert_array_equal(codes, wanted)


FILTERS = {
    "EnKF": StochasticEnKF(),
    "score": ConditionalScoreFilter(weighted=False, inflation=1.0),
    "weights": ConditionalScoreFilter(weighted=True, inflation=1.0),
    "particles": BootstrapParticleFilter(),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_gross_error_changes_nothing(name):
    """With the check the analysis is that without the broken value."""
    transition = ModelTransition(LinearGaussian(0.9 * np.eye(2), 0.1 * np.eye(2)))
    checked = dasim.Observation(
        dasim.Select(range(2)), dasim.Gaussian(std=0.5), (BackgroundCheck(4.0),)
    )
    start = jax.random.normal(KEY, (60, 2))
    value, filter = jnp.array([0.4, 30.0]), FILTERS[name]
    step = eqx.filter_jit(lambda observation, obs: filter.step(
        transition, observation, filter.init(start, KEY), obs, KEY
    )[1])  # fmt: skip
    broken = step(checked, dasim.Observations(jnp.ones(()), value, jnp.ones(2, bool)))
    without = step(checked, dasim.Observations(jnp.ones(()), value, jnp.array([True, False])))
    np.testing.assert_array_equal(broken.used, [True, False])
    np.testing.assert_array_equal(broken.analysis, without.analysis)
    assert broken.innovation[1] == 0


def test_filters_without_a_forecast_refuse_checks():
    transition = ModelTransition(LinearGaussian(0.9 * np.eye(1), 0.1 * np.eye(1)))
    checked = dasim.Observation(dasim.Select([0]), dasim.Gaussian(std=0.5), (BackgroundCheck(),))
    obs = dasim.Observations(jnp.ones(()), jnp.ones(1), jnp.ones(1, bool))
    filter, start = KalmanFilter(), jax.random.normal(KEY, (10, 1))
    with pytest.raises(ValueError, match="checks no observations"):
        filter.step(transition, checked, filter.init(start, KEY), obs, KEY)
    with pytest.raises(ValueError, match="limit is -1"):
        BackgroundCheck(-1)
