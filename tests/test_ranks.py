"""Rank histograms, their tests, and the reliability of probabilities."""

import numpy as np
import pytest
from scipy import stats
from scipy.stats import norm

from dasim.diagnostics import (
    effective_number,
    rank_chi_square,
    rank_histogram,
    reliability,
)


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
