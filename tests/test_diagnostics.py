"""Scores, ranks and spectra against their definitions and against sampling theory."""

import numpy as np
import pytest
import scoringrules
from scipy import stats
from scipy.stats import norm

from dasim.diagnostics import (
    Scores,
    autocorrelation_time,
    bias,
    effective_number,
    energy_score,
    error_by_region,
    fair_crps,
    log_score,
    power_spectrum,
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
    np.testing.assert_allclose(out["bias"], np.mean([error[t][used[t]].mean() for t in range(8)]))
    assert out["bias_stderr"] > 0
    assert out["coverage_90"] == 1.0


# energy and log score


def test_energy_score_of_one_variable_is_the_crps():
    members, value = (np.random.default_rng(7).normal(size=s) for s in ((12, 30), 30))
    np.testing.assert_allclose(energy_score(members, value), fair_crps(members, value), atol=1e-12)


def test_energy_score_is_the_sum_over_pairs():
    n = 7
    members, value = (np.random.default_rng(8).normal(size=s) for s in ((n, 5, 2, 3), (5, 2, 3)))
    flat = np.moveaxis(members, 0, 1).reshape(5, n, 6)
    mean = np.linalg.norm(flat - value.reshape(5, 1, 6), axis=-1).mean(1)
    # scoringrules divides the sum over pairs by n^2, the fair score by n (n - 1)
    standard = scoringrules.es_ensemble(value.reshape(5, 6), flat)
    fair = mean - (mean - standard) * n / (n - 1)
    np.testing.assert_allclose(energy_score(members, value), fair, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 20])
def test_energy_score_expects_that_of_the_distribution_whatever_the_number(n):
    rng = np.random.default_rng(n)
    trials, size = 8000, 3
    values = energy_score(rng.normal(size=(n, trials, size)), np.zeros((trials, size)))
    # |x| is chi with `size` degrees of freedom, |x - x'| the square root of 2 times one
    exact = stats.chi(size).mean() * (1 - np.sqrt(2) / 2)
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(trials)


def test_energy_score_is_missing_where_anything_is():
    members, value = np.random.default_rng(9).normal(size=(4, 3, 2)), np.zeros((3, 2))
    value[0, 1], members[2, 2, 0] = np.nan, np.inf
    np.testing.assert_array_equal(np.isnan(energy_score(members, value)), [True, False, True])


def test_log_score_is_that_of_the_normal_law():
    members, value = np.random.default_rng(10).normal(size=(6, 4)), np.array([0, 1, 60.0, np.nan])
    exact = -norm.logpdf(value, members.mean(0), members.std(0, ddof=1))
    np.testing.assert_allclose(log_score(members, value), exact, rtol=1e-12)
    assert log_score(np.ones((3, 1)), np.ones(1))[0] == np.inf


@pytest.mark.parametrize("n", [8, 30])
def test_log_score_expects_more_of_few_members(n):
    rng = np.random.default_rng(n)
    trials = 40_000
    values = log_score(rng.normal(1.0, 3.0, (n, trials)), rng.normal(1.0, 3.0, trials))
    # moments of 1 / s^2 and log s^2 of a normal sample; the mean adds a variance of 9 / n
    log_variance = stats.loggamma((n - 1) / 2).mean() + np.log(2 * 9 / (n - 1))
    exact = ((1 + 1 / n) * (n - 1) / (n - 3) + log_variance + np.log(2 * np.pi)) / 2
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(trials)


def test_bias_is_of_each_variable():
    error = np.random.default_rng(11).normal([[0.5, -1.0, 0.0]], 1.0, (400, 3)).reshape(400, 1, 3)
    error[:5, 0, 1] = np.nan
    mean, stderr = bias(error)
    assert mean.shape == stderr.shape == (1, 3)
    for i in range(3):
        assert (mean[0, i], stderr[0, i]) == time_mean(error[:, 0, i])
    assert np.all(np.abs(mean - [0.5, -1.0, 0.0]) < 4 * stderr)
    # of independent values; Sokal's error of the autocorrelation time, as above, and its root
    assert np.all(np.abs(stderr * np.sqrt(400) - 1) < 4 * np.sqrt(22 / 400) / 2)


def test_effective_number_of_values_alike_in_space_and_time():
    rng = np.random.default_rng(12)
    n, a = 20_000, 0.8
    series = autoregression(a, n, rng)[:, None]
    exact = n * (1 - a) / (1 + a)
    # Sokal's error of the autocorrelation time, as above, and four of its standard errors
    assert abs(effective_number(np.repeat(series, 5, 1)) / exact - 1) < 4 * np.sqrt(182 / n)
    independent = rng.normal(size=(2000, 5))
    independent[::7, 2] = np.nan
    count = np.isfinite(independent).sum()
    assert 0.8 * count < effective_number(independent) <= count


# spectra and regions


@pytest.mark.parametrize("shape, axis", [((3, 40), -1), ((41, 2), 0), ((2, 16, 16), (1, 2))])
def test_energies_sum_to_the_variance(shape, axis):
    field = np.random.default_rng(17).normal(2.0, 1.0, shape)
    energy = power_spectrum(field, axis)
    np.testing.assert_allclose(energy[..., 0], field.mean(axis) ** 2)
    np.testing.assert_allclose(energy[..., 1:].sum(-1), field.var(axis))


@pytest.mark.parametrize("n, k", [(40, 1), (40, 7), (41, 20)])
def test_energy_of_a_sine_is_at_its_wavenumber(n, k):
    energy = power_spectrum(3.0 * np.sin(2 * np.pi * k * np.arange(n) / n + 0.3))
    expected = np.zeros(n // 2 + 1)
    expected[k] = 9 / 2
    np.testing.assert_allclose(energy, expected, atol=1e-12)


def test_energy_of_a_plane_wave_is_in_its_ring():
    x, y = np.meshgrid(*[2 * np.pi * np.arange(32) / 32] * 2, indexing="ij")
    field = np.cos(3 * x + 4 * y) + 0.5 * np.cos(6 * x - 3 * y)  # at 5 and at 6.7
    energy = power_spectrum(field, (0, 1))
    expected = np.zeros(24)  # up to the corner at 16 sqrt(2) = 22.6
    expected[[5, 7]] = 1 / 2, 1 / 8
    np.testing.assert_allclose(energy, expected, atol=1e-12)


def test_white_noise_has_the_energy_of_the_modes_of_a_ring():
    rng = np.random.default_rng(18)
    trials, n = 400, 16
    energy = power_spectrum(rng.normal(size=(trials, n, n)), (-2, -1))
    q = np.arange(n) - n // 2
    modes = np.bincount(np.rint(np.hypot(q[:, None], q)).astype(int).ravel())
    stderr = energy.std(0) / np.sqrt(trials)
    assert np.all(np.abs(energy.mean(0) - modes / n**2) < 4 * stderr)


def test_error_by_region_is_the_score_of_the_part():
    rng = np.random.default_rng(19)
    scores = score(rng.normal(size=(5, 30, 4, 2)), rng.normal(size=(30, 4, 2)))
    labels = np.array([["land", "sea"]] * 3 + [["sea", "sea"]])
    masks = {"land": labels == "land", "sea": labels == "sea"}
    for out in (error_by_region(scores, labels), error_by_region(scores, masks)):
        assert list(out) == ["land", "sea"]
        part = Scores(*(field[:, :3, 0] for field in scores))
        expected = summarize(part, (1,), np.ones(3, bool))
        assert out["land"].keys() == expected.keys() >= {"rmse", "spread", "crps"}
        for key, value in expected.items():
            np.testing.assert_allclose(out["land"][key], value)
