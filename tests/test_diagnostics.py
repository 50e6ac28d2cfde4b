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
    rank_chi_square,
    rank_histogram,
    reliability,
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


# ranks


def test_ranks_are_flat_for_exchangeable_draws():
    draws = np.random.default_rng(0).normal(size=(10, 50_000))
    counts = rank_histogram(draws[1:], draws[0])
    assert counts.shape == (10,) and counts.sum() == 50_000
    test = rank_chi_square(counts)
    exact = stats.chisquare(counts)
    np.testing.assert_allclose([test.statistic, test.p_value], [exact.statistic, exact.pvalue])
    assert test.p_value > 0.001
    assert max(abs(test.bias), abs(test.dispersion)) < 4


def test_ranks_of_known_places():
    members = np.array([[-1.0, -1.0, -1.0, -1.0, np.nan], [1.0, 1.0, 1.0, 1.0, 1.0]])
    value = np.array([-3.0, 0.0, 3.0, np.nan, 0.0])
    assert rank_histogram(members, value).tolist() == [1, 1, 1]
    narrow = np.zeros((4, 1000)) + np.linspace(-0.01, 0.01, 4)[:, None]
    truth = np.repeat([-1.0, 1.0], [300, 700])
    assert rank_histogram(narrow, truth).tolist() == [300, 0, 0, 0, 700]  # a U


def test_ties_and_observation_error_give_flat_ranks():
    assert abs(rank_histogram(np.zeros((1, 10_000)), np.zeros(10_000))[0] - 5000) < 200
    rng = np.random.default_rng(3)
    noise = rng.normal(size=20_000)
    counts = rank_histogram(np.zeros((4, 20_000)), 2.0 * noise, rng, std=2.0)
    assert np.all(np.abs(counts - 4000) < 4 * np.sqrt(4000 * 0.8))


@pytest.mark.parametrize("k", [2, 3, 11])
def test_rank_chi_square_is_uniform_and_its_parts_are_normal(k):
    trials = 2000
    counts = np.random.default_rng(k).multinomial(600, np.full(k, 1 / k), trials)
    tests = [rank_chi_square(c) for c in counts]
    parts = np.array([[t.bias, t.dispersion] for t in tests])[:, : k - 1]
    # a moment of order 1, 2 of normal deviates has the variance 1, 2 over the number of trials
    assert np.all(np.abs(parts.mean(0)) < 4 / np.sqrt(trials))
    assert np.all(np.abs((parts**2).mean(0) - 1) < 4 * np.sqrt(2 / trials))
    # few distinct counts make the p-value of two ranks discrete; it rejects as often as it says
    rejected = np.mean([t.p_value < 0.1 for t in tests])
    assert abs(rejected - 0.1) < 4 * np.sqrt(0.09 / trials) + (0.02 if k == 2 else 0)
    if k == 3:  # no further parts
        total = np.array([t.statistic for t in tests])
        np.testing.assert_allclose((parts**2).sum(1), total, rtol=1e-9, atol=1e-9)


def test_signs_of_bias_and_dispersion():
    rng = np.random.default_rng(13)
    members, value = rng.normal(size=(9, 3000)), rng.normal(size=3000)
    high, low = (rank_chi_square(rank_histogram(members + b, value)).bias for b in (0.5, -0.5))
    wide, narrow = (
        rank_chi_square(rank_histogram(members * s, value)).dispersion for s in (2, 0.5)
    )
    assert high > 10 and low < -10 and wide > 10 and narrow < -10


def test_rank_chi_square_of_nothing_and_of_no_members():
    assert np.isnan(rank_chi_square(np.zeros(4, int))).all()
    with pytest.raises(ValueError, match="1 ranks"):
        rank_chi_square(np.array([4]))


def test_rank_chi_square_of_correlated_cases():
    """Calibrated, but the errors persist: the naive test rejects nearly always.

    With the effective numbers of what they measure, the parts are standard normal.
    """
    rng = np.random.default_rng(14)
    naive, parts = [], []
    for _ in range(100):
        noise = rng.normal(size=(8, 1500))
        for t in range(1, 1500):
            noise[:, t] = 0.95 * noise[:, t - 1] + np.sqrt(1 - 0.95**2) * noise[:, t]
        members, value = noise[1:], noise[0]
        u = norm.cdf((members.mean(0) - value) / members.std(0, ddof=1)) - 0.5
        counts = rank_histogram(members, value)
        naive.append(rank_chi_square(counts).p_value < 0.05)
        bias = rank_chi_square(counts, effective_number(u)).bias
        parts.append([bias, rank_chi_square(counts, effective_number(u**2)).dispersion])
    assert np.mean(naive) > 0.9
    # the mean square of 100 normal deviates; a tenth for the bias of the autocorrelation time
    assert np.all(np.abs(np.mean(np.square(parts), 0) - 1) < 4 * np.sqrt(2 / 100) + 0.1)


# reliability


def test_brier_score_is_the_sum_of_its_parts():
    rng = np.random.default_rng(15)
    p = rng.uniform(size=501) ** 2
    o = (rng.uniform(size=501) < p**0.5).astype(float)
    p[7], o[9] = np.nan, np.nan
    out = reliability(p, o, bins=8)
    good = np.isfinite(p + o)
    np.testing.assert_allclose(out.brier, np.mean((p - o)[good] ** 2))
    total = out.reliability - out.resolution + out.uncertainty + out.within
    np.testing.assert_allclose(out.brier, total, rtol=1e-12)
    assert out.count.sum() == good.sum() == 499
    np.testing.assert_allclose(out.uncertainty, o[good].var())


def test_parts_of_a_forecast_with_one_probability_a_bin():
    # 0.3 comes true in 1 of 4 cases and 0.7 in 3 of 4: Murphy's parts by hand
    p = np.repeat([0.3, 0.7], 4)
    o = np.array([1.0, 0, 0, 0, 1, 1, 1, 0])
    out = reliability(p, o)
    assert out.count.tolist() == [0, 0, 0, 4, 0, 0, 0, 4, 0, 0]
    np.testing.assert_allclose(out.probability[[3, 7]], [0.3, 0.7])
    np.testing.assert_allclose(out.frequency[[3, 7]], [0.25, 0.75])
    assert np.isnan(np.delete(out.frequency, [3, 7])).all()
    parts = [out.reliability, out.resolution, out.uncertainty, out.within]
    np.testing.assert_allclose(parts, [0.05**2, 0.25**2, 0.25, 0], atol=1e-15)


def test_calibrated_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(16)
    p = rng.integers(0, 11, 40_000) / 10
    o = (rng.uniform(size=p.shape) < p).astype(float)
    out = reliability(p, o, bins=5)
    stderr = np.sqrt(0.25 / out.count)
    assert np.all(np.abs(out.frequency - out.probability) < 4 * stderr)
    # E p (1 - p) over the eleven values
    assert abs(out.brier - 0.15) < 4 * np.std((p - o) ** 2) / np.sqrt(len(p))
    assert np.isnan(reliability(np.array([np.nan]), np.array([1.0])).brier)


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
