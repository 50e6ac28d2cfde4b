"""Events: probabilities of intervals, boxes and what is composed of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

import dasim
from dasim.events import Equals, Exceeds, Within
from dasim.events.normal import log_box, log_interval
from dasim.types import Observations

pytestmark = pytest.mark.usefixtures("float64")

FIRST, SECOND = (lambda x: x[0]), (lambda x: x[1])
MEAN, COV = np.array([0.4, -0.3]), np.array([[1.5, 0.0], [0.0, 0.6]])
CORRELATED = np.array([[1.5, 0.5], [0.5, 0.6]])


def probability(event, mean=MEAN, cov=COV):
    return float(jnp.exp(event.log_prob(jnp.asarray(mean), jnp.asarray(cov))))


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1.0, 2.0), (30.0, 31.0), (-31.0, -30.0), (20.0, np.inf), (-np.inf, -38.0), (5.0, 5.0001)],
)
def test_intervals_hold_far_out(low, high):
    exact = (
        norm.logsf(low) + np.log1p(-np.exp(norm.logsf(high) - norm.logsf(low)))
        if low > 0
        else norm.logcdf(high) + np.log1p(-np.exp(norm.logcdf(low) - norm.logcdf(high)))
    )
    low, high = jnp.asarray(low), jnp.asarray(high)
    np.testing.assert_allclose(log_interval(low, high), exact, rtol=1e-8)
    slope = jax.grad(lambda shift: log_interval(low - shift, high - shift))(0.0)
    log_ratio = norm.logpdf([low, high]) - exact
    np.testing.assert_allclose(slope, np.exp(log_ratio[0]) - np.exp(log_ratio[1]), rtol=1e-5)


def test_an_empty_interval_has_no_probability():
    low, high = jnp.array([1.0, 2.0, -np.inf]), jnp.array([1.0, 1.0, np.inf])
    np.testing.assert_array_equal(log_interval(low, high), [-np.inf, -np.inf, 0.0])


def test_events_of_one_number():
    std = np.sqrt(1.5)
    cases = (
        (Exceeds(FIRST, 2.0), norm.sf(2.0, 0.4, std)),
        (~Exceeds(FIRST, 2.0), norm.cdf(2.0, 0.4, std)),
        (Within(FIRST, -1.0, 1.0), norm.cdf(1.0, 0.4, std) - norm.cdf(-1.0, 0.4, std)),
        (Equals(FIRST, 1.0, 0.5), norm.pdf(1.0, 0.4, np.sqrt(1.5 + 0.25))),
    )
    for event, exact in cases:
        np.testing.assert_allclose(probability(event, MEAN[:1], COV[:1, :1]), exact, rtol=1e-10)


def test_composed_events_of_independent_numbers_are_exact():
    a, b = Exceeds(FIRST, 1.0), Within(SECOND, -0.5, 0.2)
    p = probability(a, MEAN[:1], COV[:1, :1])
    q = probability(b, MEAN[1:], COV[1:, 1:])
    np.testing.assert_allclose(probability(a & b), p * q)
    np.testing.assert_allclose(probability(a | b), p + q - p * q)
    np.testing.assert_allclose(probability(~(a & b)), 1 - p * q)
    np.testing.assert_allclose(probability(~(a | b)), (1 - p) * (1 - q))
    np.testing.assert_allclose(probability(~~(a | b)), p + q - p * q)


def test_a_union_far_out_is_no_difference():
    a, b = Exceeds(FIRST, 20.0), Exceeds(SECOND, 15.0)
    log_p = (a | b).log_prob(jnp.asarray(MEAN), jnp.asarray(COV))
    each = norm.logsf([20.0, 15.0], MEAN, np.sqrt(np.diag(COV)))
    np.testing.assert_allclose(log_p, np.logaddexp(*each), rtol=1e-10)


def test_correlated_numbers_are_near_the_exact_integral():
    law = multivariate_normal(MEAN, CORRELATED)
    exact = law.cdf([np.inf, np.inf], lower_limit=[1.0, 0.3])
    arguments = MEAN, CORRELATED, [1.0, 0.3], [np.inf, np.inf]
    found = np.exp(log_box(*(jnp.asarray(a) for a in arguments)))
    assert abs(found / exact - 1) < 0.01
    independent = np.prod(norm.sf([1.0, 0.3], MEAN, np.sqrt([1.5, 0.6])))
    assert abs(independent / exact - 1) > 0.1


def test_a_condition_with_an_error_moves_the_rest():
    event = Equals(SECOND, 0.5, 0.3) & Exceeds(FIRST, 1.0)
    # the constraint is (x[1], x[0])
    turned = CORRELATED[::-1, ::-1]
    seen = 0.6 + 0.09
    mean, variance = 0.4 + 0.5 / seen * 0.8, 1.5 - 0.25 / seen
    exact = norm.pdf(0.5, -0.3, np.sqrt(seen)) * norm.sf(1.0, mean, np.sqrt(variance))
    np.testing.assert_allclose(probability(event, MEAN[::-1], turned), exact, rtol=1e-10)


def test_an_observation_is_an_event_that_composes():
    obs = Observations(jnp.zeros(()), jnp.array([0.5, jnp.nan]), jnp.array([True, False]))
    seen = dasim.Observation(dasim.Select([1, 0]), dasim.Gaussian(std=0.3)).event(obs)
    event = seen & Exceeds(FIRST, 1.0)
    cov = np.zeros((3, 3))
    cov[np.ix_([0, 2], [0, 2])] = CORRELATED[::-1, ::-1]
    alone = Equals(SECOND, 0.5, 0.3) & Exceeds(FIRST, 1.0)
    exact = probability(alone, MEAN[::-1], CORRELATED[::-1, ::-1])
    found = probability(event, [MEAN[1], 0.0, MEAN[0]], cov)
    np.testing.assert_allclose(found, exact, rtol=1e-10)


def test_what_holds_in_a_state():
    event = Exceeds(FIRST, 1.0) & ~Within(SECOND, -1.0, 1.0) | Exceeds(lambda x: x.sum(), 10.0)
    states = ([2.0, 0.0], False), ([2.0, 3.0], True), ([0.0, 3.0], False), ([0.0, 12.0], True)
    for x, holds in states:
        x = jnp.asarray(x)
        assert event.holds(x) == holds
        assert jnp.isfinite(event.log_prob(event.constraint(x), None)) == holds


def test_a_vector_event_asks_for_every_number():
    both = Exceeds(lambda x: x, [1.0, 2.0])
    assert both.holds(jnp.array([1.5, 2.5])) and not both.holds(jnp.array([1.5, 1.5]))
    split = Exceeds(FIRST, 1.0) & Exceeds(SECOND, 2.0)
    np.testing.assert_allclose(probability(both), probability(split))
    with pytest.raises(ValueError, match=r"functional gives shape \(2,\), the event has 1 level"):
        Exceeds(lambda x: x, 1.0).constraint(jnp.zeros(2))


def test_the_gradient_leads_into_the_event():
    event = Exceeds(FIRST, 1.0) | Exceeds(SECOND, 50.0)
    slope = jax.grad(lambda m: event.log_prob(m, jnp.asarray(COV)))(jnp.array([-30.0, 0.0]))
    assert jnp.isfinite(slope).all() and slope[0] > 5 and abs(slope[1]) < 1e-3


def test_what_has_no_probability_is_refused():
    soft = Equals(FIRST, 1.0, 0.1)
    for compose in (lambda: ~soft, lambda: soft | Exceeds(FIRST, 1.0)):
        with pytest.raises(TypeError, match="density and not a probability.*Within"):
            compose().parts()
    with pytest.raises(TypeError, match="whether it holds is not known"):
        soft.holds(jnp.zeros(1))
    with pytest.raises(ValueError, match="std is -1"):
        Equals(FIRST, 1.0, -1)
    with pytest.raises(ValueError, match="low is 2.0, expected below high, 1.0"):
        Within(FIRST, 2.0, 1.0)
    with pytest.raises(ValueError, match="give low, high or both"):
        Within(FIRST)
