"""Consistency in observation space, on linear Gaussian analyses whose covariances are known."""

import numpy as np
import pytest

from dasim.diagnostics import desroziers, innovation_consistency, time_mean, variance_scale

CYCLES = 20_000
R = np.array([[0.5, 0.2, 0.0], [0.2, 1.0, 0.0], [0.0, 0.0, 2.0]])


def background(h):
    """H B H^T of an exponential correlation over four sites, and the square root of B."""
    b = 1.5 * np.exp(-np.abs(np.arange(4)[:, None] - np.arange(4)) / 2)
    return b, h @ b @ h.T


@pytest.fixture
def analysis():
    """Innovations, residuals and increments of the optimal analysis, and H B H^T."""
    rng = np.random.default_rng(0)
    h = np.array([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1.0]])
    b, hbh = background(h)
    error = rng.multivariate_normal(np.zeros(4), b, CYCLES)
    innovation = rng.multivariate_normal(np.zeros(3), R, CYCLES) - error @ h.T
    increment = innovation @ np.linalg.solve(hbh + R, hbh)
    return innovation, innovation - increment, increment, hbh


def stderr_of_product(a, b, count):
    """Of the mean over `count` cycles of a product of normal variables of covariances a, b, ab."""
    return np.sqrt((np.outer(np.diag(a), np.diag(b))) * 2 / count)


def test_desroziers_recovers_the_covariances(analysis):
    innovation, residual, increment, hbh = analysis
    out = desroziers(innovation, residual, increment)
    total = hbh + R
    # Isserlis: var(x y) = var x var y + cov(x, y)^2, at most twice the product of variances
    gain = np.linalg.solve(total, hbh).T
    for got, exact, part in ((out.observation, R, np.eye(3) - gain), (out.background, hbh, gain)):
        bound = 4 * stderr_of_product(part @ total @ part.T, total, CYCLES)
        assert np.all(np.abs(got - exact) < bound)
    # with any gain the two sum to the covariance of the innovations
    both = out.observation + out.background
    np.testing.assert_allclose(both, innovation.T @ innovation / CYCLES, atol=1e-12)


def test_desroziers_moves_towards_the_truth_from_a_wrong_gain(analysis):
    """A scalar analysis that assumes R four times too large finds a smaller one, as theory says."""
    innovation = analysis[0][:, :1]
    total = 1.5 + 0.5
    gain = 1.5 / (1.5 + 2.0)
    out = desroziers(innovation, (1 - gain) * innovation, gain * innovation)
    stderr = total * np.sqrt(2 / CYCLES)
    assert abs(out.observation[0, 0] - (1 - gain) * total) < 4 * (1 - gain) * stderr
    assert abs(out.background[0, 0] - gain * total) < 4 * gain * stderr


def test_desroziers_uses_the_pairs_that_were_observed(analysis):
    innovation, residual, increment, _ = (a[:2000] for a in analysis)
    mask = np.random.default_rng(1).uniform(size=innovation.shape) < 0.6
    mask[:, 2] &= ~mask[:, 1]  # never together
    hidden = [np.where(mask, d, np.nan) for d in (innovation, residual, increment)]
    out = desroziers(*hidden, mask)
    for i, j in np.ndindex(3, 3):
        both = mask[:, i] & mask[:, j]
        if (i, j) in ((1, 2), (2, 1)):
            assert np.isnan(out.observation[i, j]) and np.isnan(out.background[i, j])
            continue
        expected = np.mean(residual[both, i] * innovation[both, j])
        np.testing.assert_allclose(out.observation[i, j], expected)
        expected = np.mean(increment[both, i] * innovation[both, j])
        np.testing.assert_allclose(out.background[i, j], expected)
    for one, other in zip(desroziers(*hidden), out, strict=True):
        np.testing.assert_array_equal(one, other)


def test_chi_square_is_one_for_the_right_variances(analysis):
    innovation, *_, hbh = analysis
    variance = np.broadcast_to(np.diag(hbh), innovation.shape)
    out = innovation_consistency(innovation, variance, np.diag(R))
    assert abs(out.mean - 1) < 4 * out.stderr
    assert np.all(np.abs(out.variable_mean - 1) < 4 * out.variable_stderr)
    # each is chi-square with one degree of freedom, of variance 2
    np.testing.assert_allclose(out.variable_stderr, np.sqrt(2 / CYCLES), rtol=0.1)
    # correlated innovations: Isserlis again, for the mean of three
    total = hbh + R
    correlation = total / np.sqrt(np.outer(np.diag(total), np.diag(total)))
    np.testing.assert_allclose(out.stderr, np.sqrt(2 * np.mean(correlation**2) / CYCLES), rtol=0.1)
    half = innovation_consistency(innovation, variance / 2, np.diag(R) / 2)
    np.testing.assert_allclose(half.mean, 2 * out.mean)


@pytest.mark.parametrize("n", [8, 40])
def test_chi_square_of_a_calibrated_ensemble(n):
    rng = np.random.default_rng(n)
    members, truth = rng.normal(size=(n, CYCLES, 2)), rng.normal(size=(CYCLES, 2))
    innovation = truth - members.mean(0)
    out = innovation_consistency(innovation, members.var(0, ddof=1), 0.0)
    assert abs(out.mean - (1 + 1 / n) * (n - 1) / (n - 3)) < 4 * out.stderr


def test_chi_square_of_observed_values_only():
    innovation = np.array([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    mask = np.array([[True, True, False], [True, False, False], [False] * 3, [True, True, False]])
    variance = np.where(mask, 3.0, np.nan)
    out = innovation_consistency(np.where(mask, innovation, np.nan), variance, 1.0, mask)
    np.testing.assert_allclose([out.mean, out.stderr], time_mean(np.array([2.5, 9, 2.5]) / 4))
    np.testing.assert_allclose(out.variable_mean, [14 / 12, 5 / 8, np.nan])
    hidden = innovation_consistency(np.where(mask, innovation, np.nan), variance, 1.0)
    assert hidden.mean == out.mean


def test_chi_square_has_an_error_that_knows_of_autocorrelation():
    """Persistent innovations: the standard error is the scatter among runs."""
    rng = np.random.default_rng(2)
    a, n, runs = 0.9, 3000, 60
    noise = rng.normal(size=(n, runs, 1))
    x = np.empty_like(noise)
    x[0] = noise[0]
    for t in range(1, n):
        x[t] = a * x[t - 1] + np.sqrt(1 - a**2) * noise[t]
    out = [innovation_consistency(x[:, r], np.full((n, 1), 0.5), 0.5) for r in range(runs)]
    # the square of an autoregression has the correlation a^2
    exact = np.sqrt(2 * (1 + a**2) / (1 - a**2) / n)
    # mean over 60 runs of an estimate whose own error is some tenth each, biased by its window
    assert abs(np.mean([o.stderr for o in out]) / exact - 1) < 0.1
    assert abs(np.std([o.mean for o in out]) / exact - 1) < 4 / np.sqrt(2 * runs)


def test_a_factor_on_the_variances_is_learned():
    rng = np.random.default_rng(0)
    true = np.where(np.arange(400) < 200, 1.0, 4.0)
    found = variance_scale(true * rng.chisquare(20, 400) / 20, 0.9)
    # of about ten cycles of twenty numbers each: a standard error of a tenth
    assert abs(found[150:200].mean() - 1) < 0.1 and abs(found[350:].mean() - 4) < 0.5
    np.testing.assert_allclose(
        variance_scale(np.array([3.0, np.nan, 3.0]), 1.0, 1.0), [2, 2, 7 / 3]
    )
    with pytest.raises(ValueError, match="discount is 0"):
        variance_scale(np.ones(3), 0.0)
