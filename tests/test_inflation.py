"""Inflation against its formulas; the adaptive one against the posterior that it linearises."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from dasim.covariance import as_covariance
from dasim.filters import (
    ETKF,
    RTPP,
    RTPS,
    AdaptiveInflation,
    AdditiveInflation,
    CombinedInflation,
    MultiplicativeInflation,
)
from dasim.filters.inflation import _inverse_gamma_scale, as_inflation
from dasim.localization import Localization
from dasim.observe import Gaussian, Observation, Select
from dasim.types import Observations

KEY = jax.random.key(2)
N = 4


pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def members():
    rng = np.random.default_rng(0)
    return 1 + rng.normal(size=(8, N)) @ rng.normal(size=(N, N))


@pytest.fixture
def analysis():
    return np.random.default_rng(1).normal(size=(8, N)) * [0.1, 0.5, 1, 2]


def make_event(value, std=1.0, sites=(0,), mask=None):
    value = jnp.broadcast_to(jnp.asarray(value, float), (len(sites),))
    mask = jnp.ones(len(sites), bool) if mask is None else jnp.asarray(mask)
    observation = Observation(Select(sites), Gaussian(std=std))
    return observation.event(Observations(jnp.zeros(()), value, mask))


def before(inflation, members, event=None, state=None):
    """The members to analyse, and the next state."""
    members = jnp.asarray(members)
    state = inflation.init(members) if state is None else state
    return inflation.prior(state, members, make_event(0.0) if event is None else event, KEY)


def after(inflation, members, analysis):
    return np.asarray(inflation.posterior(jnp.asarray(members), jnp.asarray(analysis)))


def times(factor, members):
    return members.mean(0) + factor * (members - members.mean(0))


@pytest.mark.parametrize("factor", [1.3, np.array([1.0, 1.1, 1.2, 1.5])])
def test_multiplicative(members, analysis, factor):
    first, last = MultiplicativeInflation(factor), MultiplicativeInflation(factor, after=True)
    np.testing.assert_allclose(before(first, members)[0], times(factor, members), atol=1e-12)
    np.testing.assert_array_equal(after(first, members, analysis), analysis)
    np.testing.assert_array_equal(before(last, members)[0], members)
    np.testing.assert_allclose(after(last, members, analysis), times(factor, analysis), atol=1e-12)


def test_relaxation(members, analysis):
    expected = analysis.mean(0) + 0.3 * (analysis - analysis.mean(0))
    expected = expected + 0.7 * (members - members.mean(0))
    np.testing.assert_allclose(after(RTPP(0.7), members, analysis), expected, atol=1e-12)
    spread, other = members.std(0, ddof=1), analysis.std(0, ddof=1)
    relaxed = after(RTPS(0.7), members, analysis)
    expected = times(1 + 0.7 * (spread - other) / other, analysis)
    np.testing.assert_allclose(relaxed, expected, atol=1e-12)
    whole = after(RTPS(1.0), members, analysis)
    np.testing.assert_allclose(whole.std(0, ddof=1), spread, atol=1e-12)
    np.testing.assert_allclose(whole.mean(0), analysis.mean(0), atol=1e-12)
    for inflation in (RTPP(0.5), RTPS(0.5)):
        np.testing.assert_array_equal(before(inflation, members)[0], members)
    # where nothing is left to scale
    assert np.isfinite(after(RTPS(1.0), members, np.ones_like(members))).all()


def test_additive():
    cov = np.array([[2.0, 0.5, 0, 0], [0.5, 1.0, 0, 0], [0, 0, 0.1, 0], [0, 0, 0, 0]])
    count, start = 20_000, np.arange(N, dtype=float)
    inflation = AdditiveInflation(as_covariance(cov, N))
    added = np.asarray(before(inflation, np.tile(start, (count, 1)))[0])
    np.testing.assert_allclose(added.mean(0), start, atol=1e-12)  # centred
    variance = np.diag(cov)
    stderr = np.sqrt((np.outer(variance, variance) + cov**2) / count)  # Isserlis
    assert np.all(np.abs(np.cov(added.T) - cov) <= 4 * stderr + 1e-12)
    np.testing.assert_array_equal(after(inflation, added[:8], added[8:16]), added[8:16])


def test_combined_acts_in_order(members, analysis):
    additive = AdditiveInflation(as_covariance(0.5, N))
    both = as_inflation([1.5, additive])
    assert isinstance(both, CombinedInflation)
    noise = additive.prior(None, jnp.zeros((8, N)), make_event(0.0), jax.random.fold_in(KEY, 1))[0]
    prior, state = before(both, members)
    np.testing.assert_allclose(prior, times(1.5, members) + noise, atol=1e-12)
    assert state == (None, None)
    spread = members.std(0, ddof=1)
    later = MultiplicativeInflation(2.0, after=True)
    for parts, factor in (((RTPS(1.0), later), 2.0), ((later, RTPS(1.0)), 1.0)):
        out = after(CombinedInflation(parts), members, analysis)
        np.testing.assert_allclose(out.std(0, ddof=1), factor * spread, atol=1e-12)


@pytest.mark.parametrize(("mode", "std"), [(1.0, 0.6), (1.0, 0.1), (5.0, 0.6), (0.5, 3.0)])
def test_inverse_gamma_of_a_mode_and_a_standard_deviation(mode, std):
    beta = float(_inverse_gamma_scale(mode, std)) * mode
    law = stats.invgamma(beta / mode - 1, scale=beta)
    np.testing.assert_allclose(law.std(), std, rtol=1e-8)
    found = optimize.minimize_scalar(lambda u: -law.logpdf(u), (0.5 * mode, mode, 2 * mode))
    np.testing.assert_allclose(found.x, mode, rtol=1e-6)


@pytest.mark.parametrize("d", [0.0, 1.0, 2.5, 6.0, 30.0])
@pytest.mark.parametrize(("mode", "weight"), [(1.0, 1.0), (1.7, 0.4), (3.0, 0.7)])
def test_adaptive_inflation_is_the_mode_of_its_posterior(d, mode, weight):
    """Inverse gamma prior times the likelihood of d, linearised about the prior's mode."""
    s2, r, step = 0.8, 0.5, 1e-5

    def density(factor):
        theta = np.sqrt((1 + weight * (np.sqrt(factor) - 1)) ** 2 * s2 + r)
        return np.exp(stats.norm.logpdf(d, 0, theta) - stats.norm.logpdf(d, 0, 1 + d))

    beta = float(_inverse_gamma_scale(mode, 0.6)) * mode
    l, slope = density(mode), (density(mode + step) - density(mode - step)) / (2 * step)
    linear = lambda factor: l + slope * (factor - mode)
    log_prior = lambda factor: -beta / factor - beta / mode * np.log(factor)
    log_posterior = lambda factor: log_prior(factor) + np.log(linear(factor))
    derivative = lambda factor: beta / factor**2 - beta / mode / factor + slope / linear(factor)
    variance = (1 + weight * (np.sqrt(mode) - 1)) ** 2 * s2  # of the ensemble as inflated
    args = (jnp.full(1, float(mode)), d, variance, r, jnp.full(1, weight))
    got = float(AdaptiveInflation(std=0.6)._mode(*args)[0])
    assert linear(got) > 0
    np.testing.assert_allclose(derivative(got), 0.0, atol=1e-6)
    assert log_posterior(got) > max(log_posterior(0.99 * got), log_posterior(1.01 * got))
    assert (got > mode) == (d**2 > variance + r)


@eqx.filter_jit
def learn(inflation, members, event, cycles):
    def one(state, _):
        return inflation.prior(state, members, event, KEY)[1], None

    return jax.lax.scan(one, inflation.init(members), None, cycles)[0]


def test_adaptive_inflation_finds_the_variance_of_the_innovations(members):
    """Innovations always d: lambda s^2 + r = d^2; those always zero leave the least lambda."""
    r, n = 0.5, jnp.asarray(members)
    s2, mean = members.var(0, ddof=1)[0], members.mean(0)[0]
    d = 3 * np.sqrt(s2 + r)
    inflation = AdaptiveInflation(std=2.0, damping=1.0, bounds=(0.25, 60.0))
    surprised = learn(inflation, n, make_event(mean + d, np.sqrt(r)), 2000)
    np.testing.assert_allclose(surprised[0], (d**2 - r) / s2, rtol=1e-3)
    assert np.all(np.asarray(surprised) >= 1)
    content = learn(inflation, n, make_event(mean, np.sqrt(r)), 2000)
    np.testing.assert_allclose(content[0], 0.25, atol=1e-12)
    # the tapered ones learn nothing from afar, those under a false mask nothing at all
    local = Localization(0.4, np.arange(N), np.array([0]))
    inflation = AdaptiveInflation(damping=1.0, localization=local)
    tapered = learn(inflation, n, make_event(mean + d, np.sqrt(r)), 50)
    assert tapered[0] > 2
    np.testing.assert_allclose(tapered[1:], 1.0, atol=1e-12)
    masked = learn(inflation, n, make_event(mean + d, mask=[False]), 50)
    np.testing.assert_allclose(masked, 1.0, atol=1e-12)


def test_adaptive_inflation_inflates_by_the_damped_factor(members):
    state = jnp.asarray([1.0, 2.0, 3.0, 5.0])
    prior, _ = before(AdaptiveInflation(damping=0.9), members, state=state)
    expected = times(np.sqrt(1 + 0.9 * (np.asarray(state) - 1)), members)
    np.testing.assert_allclose(prior, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiplicativeInflation(0.0), "inflation is 0.0, expected a positive factor"),
        (lambda: ETKF(inflation=-1.0), "inflation is -1.0"),
        (lambda: RTPP(-0.1), "RTPP: alpha is -0.1"),
        (lambda: RTPS(2.0), "RTPS: alpha is 2.0"),
        (lambda: AdaptiveInflation(std=0.0), "std is 0.0"),
        (lambda: AdaptiveInflation(damping=1.1), "damping is 1.1"),
        (lambda: AdaptiveInflation(initial=0.5), r"initial is 0.5 with bounds \(1.0, 50.0\)"),
    ],
)
def test_inflation_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
