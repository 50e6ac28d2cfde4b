"""Analyses of a fixed ensemble whose law is not normal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_ensemble import KEY, N_OBS, N_STATE, R, analyse, kalman, numbers
from scipy import integrate, stats

from dasim.filters import RHF, EnSF, GaussianMixtureFilter
from dasim.filters.base import constraints
from dasim.filters.serial import adjust_ranks
from dasim.localization import Localization
from dasim.observe import Gaussian, Observation
from dasim.types import Observations

WIDE, NARROW = (Localization(r, np.arange(N_STATE), np.arange(N_OBS)) for r in (1e6, 1.2))

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("observed", [0.5, 6.0])
def test_adjust_ranks_gives_the_posterior_of_a_normal_law(observed):
    """Members at the quantiles of N(0.3, 1.5^2) go to the quantiles of the posterior."""
    n = 4000
    quantiles = stats.norm.ppf(np.arange(1, n + 1) / (n + 1))
    order = np.random.default_rng(4).permutation(n)
    y = (0.3 + 1.5 * quantiles)[order]
    new = np.asarray(jax.jit(adjust_ranks)(jnp.asarray(y), observed))
    v = 1.5**2 / (1 + 1.5**2)
    exact = v * (0.3 / 1.5**2 + observed) + np.sqrt(v) * quantiles
    np.testing.assert_array_equal(np.argsort(new), np.argsort(y))
    np.testing.assert_allclose(new[np.argsort(order)], exact, atol=0.02)
    np.testing.assert_allclose([new.mean(), new.std()], [exact.mean(), exact.std()], atol=2e-3)


@pytest.mark.parametrize("observed", [-9.0, 0.4, 3.0])
def test_adjust_ranks_takes_the_quantiles_of_the_rank_histogram(observed):
    """The distribution function by quadrature, of four members and two normal tails."""
    y = np.array([1.0, -0.7, 0.2, 2.4])
    x, n, s = np.sort(y), 4, y.std(ddof=1)
    shift = s * stats.norm.ppf(1 / (n + 1))
    likelihood = lambda u: np.exp(-0.5 * (observed - u) ** 2)

    def density(u):
        if u < x[0]:
            return stats.norm.pdf(u, x[0] - shift, s) * likelihood(u)
        if u > x[-1]:
            return stats.norm.pdf(u, x[-1] + shift, s) * likelihood(u)
        i = min(np.searchsorted(x, u, side="right") - 1, n - 2)
        mean = 0.5 * (likelihood(x[i]) + likelihood(x[i + 1]))
        return mean / ((n + 1) * (x[i + 1] - x[i]))

    def mass(end):
        knots = [-20.0, *x[x < end], end]
        pairs = zip(knots[:-1], knots[1:], strict=True)
        return sum(integrate.quad(density, a + 1e-12, b - 1e-12, limit=200)[0] for a, b in pairs)

    new = np.sort(jax.jit(adjust_ranks)(jnp.asarray(y), observed))
    np.testing.assert_allclose([mass(u) / mass(20.0) for u in new], np.arange(1, 5) / 5, atol=1e-5)


def test_rank_histogram_filter_regresses_on_the_new_values():
    x, h, y = numbers(9)
    mask = np.arange(N_OBS) == 1
    r = R["diagonal"]
    out = analyse({"RHF": RHF()}, x, h, r, y, mask)["RHF"]
    c, std = x @ h[1], np.sqrt(r[1, 1])
    new = std * np.asarray(jax.jit(adjust_ranks)(jnp.asarray(c / std), y[1] / std))
    slope = np.cov(x.T, c)[:-1, -1] / c.var(ddof=1)
    np.testing.assert_allclose(out, x + np.outer(new - c, slope), atol=1e-9)


def test_mixture_filter_gives_the_posterior_of_two_modes():
    n, observed = 2000, 0.5
    rng = np.random.default_rng(7)
    x = rng.choice([-2.0, 2.0], (n, 1)) + 0.5 * rng.normal(size=(n, 1))
    density = lambda u: stats.norm.pdf(u, -2, 0.5) + stats.norm.pdf(u, 2, 0.5)
    weight = lambda u: stats.norm.pdf(u, observed, 1.0)

    def moment(f):
        value = lambda g: integrate.quad(lambda u: g(u) * density(u) * weight(u), -9, 9)[0]
        return value(f) / value(lambda u: 1.0)

    filters = {"narrow": GaussianMixtureFilter(0.2), "one": GaussianMixtureFilter(1e9)}
    one = np.ones((1, 1))
    out = analyse(filters, x, one, one, np.array([observed]), np.array([True]))
    narrow = out["narrow"][:, 0]
    w = weight(x[:, 0]) / weight(x[:, 0]).sum()
    for f in (lambda u: u, lambda u: u**2, lambda u: u > 0):
        exact = moment(f)
        # of the weighted prior sample, and of as many draws again
        stderr = np.sqrt(np.sum((w * (f(x[:, 0]) - exact)) ** 2) + f(narrow).var() / n)
        assert abs(f(narrow).mean() - exact) < 4 * stderr
    mean, cov, *_ = kalman(
        x.mean(0), np.atleast_2d(np.cov(x.T)), one, one, observed * one[0], [True]
    )
    assert abs(out["one"].mean() - mean[0]) < 4 * np.sqrt(cov[0, 0] / n)
    assert abs(out["one"].var() / cov[0, 0] - 1) < 4 * np.sqrt(2 / n)


def test_ensemble_score_filter():
    """It keeps the forecast's law where nothing is known; a precise observation decides."""
    rng = np.random.default_rng(3)
    x = jnp.asarray(5 + rng.normal(size=(400, 2)) * [1.0, 10.0])
    x = x.at[:, 1].add(8 * (x[:, 0] - 5))

    def analysed(std):
        observation = Observation(lambda v, t: v[:1], Gaussian(std=std))
        one = Observations(jnp.zeros(()), jnp.asarray([6.0]), jnp.ones(1, bool))
        event = observation.event(one)
        return np.asarray(EnSF(steps=400).analyse(x, constraints(event, x), event, KEY))

    vague, precise = analysed(1e3), analysed(0.1)
    np.testing.assert_allclose(vague.mean(0), x.mean(0), atol=0.2 * np.asarray(x.std(0)).max())
    np.testing.assert_allclose(np.cov(vague.T), np.cov(x.T), rtol=0.25, atol=1.5)
    assert abs(precise[:, 0].mean() - 6) < 0.1
    assert precise[:, 0].std() < 0.3
    assert precise[:, 1].mean() - x[:, 1].mean() > 3  # carried by the covariance
    with pytest.raises(ValueError, match="steps is 0"):
        EnSF(steps=0)
    with pytest.raises(ValueError, match="no covariance to taper: set gaussian"):
        EnSF(localization=WIDE)


def test_gaussian_ensemble_score_filter_keeps_the_forecasts_moments():
    x, h, y = numbers(400)
    filters = {
        "wide": EnSF(steps=300, gaussian=True, localization=WIDE),
        "narrow": EnSF(steps=300, gaussian=True, localization=NARROW),
    }
    many = np.tile(x, (5, 1))  # as many draws of the same law
    out = analyse(filters, many, h, 1e6 * R["diagonal"], y)
    std, corr = x.std(0), np.corrcoef(x.T)
    for name, expected in (("wide", corr), ("narrow", corr * np.asarray(NARROW.state_state))):
        drawn = out[name]
        np.testing.assert_allclose((drawn.mean(0) - x.mean(0)) / std, 0, atol=0.1)
        np.testing.assert_allclose(np.cov((drawn / std).T), expected, atol=0.15)
