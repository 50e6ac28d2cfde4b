r"""Scores of ensembles, on NumPy arrays with the member axis first.

RMSE is the root of the spatial mean square error of the ensemble mean, spread the root of the
mean variance (ddof 1), CRPS the fair estimator (Ferro 2014), whose expectation does not
depend on the number of members. Its multivariate form is the energy score (Gneiting and Raftery
2007, sect. 4.3), with members `x_i`, verification `v` and Euclidean norms over the state

    ES = mean_i |x_i - v| - sum_ij |x_i - x_j| / (2 N (N - 1)),

and the log score is that of the normal law with the sample's mean and variance,

    -log N(v; m, s^2) = ((v - m)^2 / s^2 + log s^2 + log 2 pi) / 2,

i.e. half of the score of Dawid and Sebastiani (1999), plus a constant. Time averages carry a
standard error that accounts for autocorrelation, with the windowed sum of Sokal (1997, sect. 3).
"""

from typing import NamedTuple

import numpy as np
import scoringrules
from jaxtyping import Bool, Float
from scipy.spatial.distance import pdist


class Scores(NamedTuple):
    """Per-variable results of one ensemble forecast or analysis, each `(*shape)`."""

    error: Float[np.ndarray, "..."]
    variance: Float[np.ndarray, "..."]
    crps: Float[np.ndarray, "..."]
    covered: Float[np.ndarray, "..."]


def fair_crps(
    ensemble: Float[np.ndarray, "member ..."], value: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """CRPS of an ensemble as of independent draws; NaN where either is NaN.

    The probability-weighted-moment form is the fair estimator at the cost of one sort.
    """
    members = np.moveaxis(np.asarray(ensemble, float), 0, -1)
    return scoringrules.crps_ensemble(np.asarray(value, float), members, estimator="pwm")


def energy_score(
    ensemble: Float[np.ndarray, "member time *state"], value: Float[np.ndarray, "time *state"]
) -> Float[np.ndarray, " time"]:
    """Fair energy score of each time, over the whole state; NaN where any value is not finite.

    In the units of the state, whose variables should be of one scale. The cost is that of the
    N (N - 1) / 2 distances between members.
    """
    members = np.asarray(ensemble, float).reshape(*ensemble.shape[:2], -1)
    value = np.asarray(value, float).reshape(len(value), -1)
    out = np.full(len(value), np.nan)
    for t in np.flatnonzero(np.isfinite(members).all((0, 2)) & np.isfinite(value).all(1)):
        x = members[:, t]
        out[t] = np.linalg.norm(x - value[t], axis=-1).mean() - pdist(x).mean() / 2
    return out


def log_score(
    ensemble: Float[np.ndarray, "member ..."], value: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """-log N(v; m, s^2) with the sample mean m and variance s^2 (ddof 1) of the members.

    It is not fair: for normal draws its expectation falls as members are added (Siegert et al.
    2019), so compare ensembles of one size. Infinite for members without spread.
    """
    ensemble, value = np.asarray(ensemble, float), np.asarray(value, float)
    error, variance = value - ensemble.mean(0), ensemble.var(0, ddof=1)
    # not scoringrules.logs_normal: the log of a density underflows beyond 38 standard deviations
    with np.errstate(divide="ignore", invalid="ignore"):
        out = (error**2 / variance + np.log(2 * np.pi * variance)) / 2
    return np.where((variance == 0) & np.isfinite(error), np.inf, out)


def score(
    ensemble: Float[np.ndarray, "member ..."],
    value: Float[np.ndarray, "..."],
    level: float = 0.9,
) -> Scores:
    """Error of the mean, variance, CRPS, and whether the central `level` band holds `value`.

    The band's ends are at the ranks (N + 1) p, so that an exchangeable value is covered with
    probability `level`; with fewer members than 2 / (1 - level) - 1 the band is the whole range
    of the ensemble and covers less.
    """
    ensemble, value = np.asarray(ensemble, float), np.asarray(value, float)
    tail = (1 - level) / 2
    low, high = np.quantile(ensemble, [tail, 1 - tail], axis=0, method="weibull")
    covered = np.where(np.isnan(value), np.nan, (low <= value) & (value <= high))
    return Scores(
        ensemble.mean(0) - value, ensemble.var(0, ddof=1), fair_crps(ensemble, value), covered
    )


def autocorrelation_time(series: Float[np.ndarray, " time"]) -> float:
    """Integrated autocorrelation time, at least 1: values worth one independent one."""
    x = np.asarray(series, float) - np.mean(series)
    n = len(x)
    if n < 4 or not np.any(x):
        return 1.0
    spectrum = np.abs(np.fft.rfft(x, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[:n]
    correlation = correlation / correlation[0]
    times = 2 * np.cumsum(correlation) - 1
    inside = np.flatnonzero(np.arange(n) >= 5 * times)
    return float(max(1.0, times[inside[0] if len(inside) else -1]))


def time_mean(series: Float[np.ndarray, " time"]) -> tuple[float, float]:
    """Mean and its standard error, NaNs left out."""
    x = np.asarray(series, float)
    x = x[np.isfinite(x)]
    if len(x) == 0:
        return float("nan"), float("nan")
    if len(x) == 1:
        return float(x[0]), float("nan")
    return float(x.mean()), float(x.std(ddof=1) * np.sqrt(autocorrelation_time(x) / len(x)))


def effective_number(values: Float[np.ndarray, "time ..."]) -> float:
    """Number of independent values whose mean is as uncertain as that of `values`.

    The variance of the values over the squared standard error of the time mean of their spatial
    mean, at most their number: correlation in space and in time makes it smaller. NaNs are left
    out.
    """
    x = np.asarray(values, float).reshape(len(values), -1)
    good = np.isfinite(x)
    count, n = good.sum(1), float(good.sum())
    series = np.where(good, x, 0.0).sum(1) / np.where(count == 0, np.nan, count)
    stderr = time_mean(series)[1]
    return min(n, float(x[good].var(ddof=1) / stderr**2)) if stderr > 0 else n


def bias(
    error: Float[np.ndarray, "time *state"],
) -> tuple[Float[np.ndarray, "*state"], Float[np.ndarray, "*state"]]:
    """Time mean of the error of each variable and its standard error, NaNs left out.

    Args:
        error: ensemble mean minus verification, as of `score`.
    """
    columns = np.asarray(error, float).reshape(len(error), -1).T
    mean, stderr = np.array([time_mean(column) for column in columns]).T
    return mean.reshape(error.shape[1:]), stderr.reshape(error.shape[1:])


def summarize(scores: Scores, axes: tuple[int, ...], keep: Bool[np.ndarray, "..."]) -> dict:
    """Time averages of RMSE, bias, spread, CRPS and coverage where `keep` is true.

    The bias is the time mean of the spatial mean of the signed error.

    Args:
        scores: arrays with a leading time axis.
        axes: the axes of space.
        keep: what to score, broadcastable to the arrays.
    """

    def space(values):
        chosen = np.where(keep & np.isfinite(values), values, np.nan)
        count = np.isfinite(chosen).sum(axes)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nansum(chosen, axes) / np.where(count == 0, np.nan, count)

    valid = np.isfinite(scores.error)
    variance = np.where(valid, scores.variance, np.nan)
    out = {}
    for name, series in (
        ("rmse", np.sqrt(space(scores.error**2))),
        ("bias", space(scores.error)),
        ("spread", np.sqrt(space(variance))),
        ("crps", space(scores.crps)),
        ("coverage_90", space(scores.covered)),
    ):
        out[name], out[f"{name}_stderr"] = time_mean(series)
    return out
