"""Scores against their definitions and against sampling theory."""

import numpy as np
import pytest
from scipy.stats import norm

from dasim.diagnostics import (
    Scores,
    autocorrelation_time,
    fair_crps,
    score,
    summarize,
    time_mean,
)


def direct_crps(members, value):
    """Ferro's fair CRPS from all pairs."""
    n = len(members)
    pairs = np.abs(members[:, None] - members[None]).sum((0, 1))
    return np.abs(members - value).mean(0) - pairs / (2 * n * (n - 1))


@pytest.mark.parametrize("n", [2, 5, 31])
def test_fair_crps_is_the_sum_over_pairs(n):
    rng = np.random.default_rng(n)
    members, value = rng.normal(size=(n, 4, 3)), rng.normal(size=(4, 3))
    np.testing.assert_allclose(fair_crps(members, value), direct_crps(members, value), atol=1e-12)


def normal_crps(mean, std, value):
    z = (value - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_fair_crps_expects_the_distributions_crps_whatever_the_number(n):
    rng = np.random.default_rng(n)
    trials = 40_000
    values = fair_crps(rng.normal(0.5, 2.0, (n, trials)), np.full(trials, 1.7))
    exact = normal_crps(0.5, 2.0, 1.7)
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(trials)
    assert values.std() / np.sqrt(trials) < 0.01 * exact * 2  # tight enough to tell


def test_missing_values_give_nan():
    members, value = np.random.default_rng(0).normal(size=(5, 3)), np.array([0.0, np.nan, 1.0])
    result = score(members, value)
    for array in (result.error, result.crps, result.covered):
        np.testing.assert_array_equal(np.isnan(array), [False, True, False])


def test_score_is_error_and_unbiased_variance():
    members, value = np.random.default_rng(1).normal(size=(6, 3)), np.array([0.1, 0.2, 0.3])
    result = score(members, value)
    np.testing.assert_allclose(result.error, members.sum(0) / 6 - value)
    np.testing.assert_allclose(result.variance, np.sum((members - members.mean(0)) ** 2, 0) / 5)


def test_coverage_is_the_level_for_exchangeable_draws():
    # the k-th of n sorted draws has a further draw below it with probability k / (n + 1)
    n, trials = 19, 40_000
    draws = np.random.default_rng(2).standard_exponential((n + 1, trials))
    covered = score(draws[:n], draws[n], 0.9).covered
    assert abs(covered.mean() - 0.9) < 4 * np.sqrt(0.09 / trials)
    members = np.arange(1.0, n + 1)[:, None]
    ends = score(np.repeat(members, 4, 1), np.array([0.99, 1.0, 19.0, 19.01]), 0.9).covered
    np.testing.assert_array_equal(ends, [0, 1, 1, 0])


@pytest.mark.parametrize("n", [9, 40])
def test_coverage_between_ranks(n):
    """Interpolated ends; uniform draws make the probability linear between ranks."""
    trials = 40_000
    draws = np.random.default_rng(3).uniform(size=(n + 1, trials))
    covered = score(draws[:n], draws[n], 0.8).covered
    assert abs(covered.mean() - 0.8) < 4 * np.sqrt(0.16 / trials)


def autoregression(a, n, rng):
    noise = rng.normal(size=n)
    x = np.empty(n)
    x[0] = noise[0] / np.sqrt(1 - a**2)
    for i in range(1, n):
        x[i] = a * x[i - 1] + noise[i]
    return x


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
def test_autocorrelation_time_of_an_autoregression(a):
    n = 50_000
    tau = (1 + a) / (1 - a)
    got = autocorrelation_time(autoregression(a, n, np.random.default_rng(4)))
    # Sokal's standard error with a window of 5 tau, and what the window cuts off
    stderr = tau * np.sqrt(2 * (2 * 5 * tau + 1) / n)
    assert abs(got - tau) < 4 * stderr + tau * a ** (5 * tau)


def test_autocorrelation_time_of_what_does_not_vary():
    assert autocorrelation_time(np.ones(100)) == 1.0
    assert autocorrelation_time(np.array([1.0, 2.0])) == 1.0


def test_time_mean_leaves_out_nan_and_covers_the_mean():
    mean, stderr = time_mean(np.array([1.0, np.nan, 3.0, np.nan]))
    assert mean == 2.0
    np.testing.assert_allclose(stderr, np.sqrt(2) / np.sqrt(2))
    assert np.isnan(time_mean(np.array([np.nan]))).all()
    rng = np.random.default_rng(5)
    a, n = 0.8, 2000
    results = np.array([time_mean(autoregression(a, n, rng)) for _ in range(60)])
    exact = 1 / (1 - a) / np.sqrt(n)  # of a long autoregression with unit noise
    # the mean over 60 runs of an estimate whose own error is about sqrt(tau / n) each
    assert abs(results[:, 1].mean() / exact - 1) < 0.06
    assert abs(results[:, 0].std() / exact - 1) < 4 / np.sqrt(2 * 60)


def test_summarize_takes_space_first_and_time_after():
    rng = np.random.default_rng(6)
    error, variance, crps = rng.normal(size=(3, 8, 5))
    variance = variance**2
    error[2, 3] = np.nan
    keep = np.ones((8, 5), bool)
    keep[:, 4] = False
    out = summarize(Scores(error, variance, crps, np.ones((8, 5))), (1,), keep)
    used = keep & np.isfinite(error)
    rmse = [np.sqrt(np.mean(error[t][used[t]] ** 2)) for t in range(8)]
    spread = [np.sqrt(np.mean(variance[t][used[t]])) for t in range(8)]
    np.testing.assert_allclose(out["rmse"], np.mean(rmse))
    np.testing.assert_allclose(out["spread"], np.mean(spread))
    np.testing.assert_allclose(out["crps"], crps[:, :4].mean())
    assert out["coverage_90"] == 1.0
