r"""Scores of ensembles, on NumPy arrays with the member axis first.

RMSE is the root of the spatial mean square error of the ensemble mean, spread the root of the
mean variance (ddof 1), CRPS the fair estimator (Ferro 2014), whose expectation does not
depend on the number of members. Time averages carry a standard error that accounts for
autocorrelation, with the windowed sum of Sokal (1997, sect. 3).
"""

from typing import NamedTuple

import numpy as np
import scoringrules
from jaxtyping import Bool, Float


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


def summarize(scores: Scores, axes: tuple[int, ...], keep: Bool[np.ndarray, "..."]) -> dict:
    """Time averages of RMSE, spread and CRPS over the entries where `keep` is true.

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
        ("spread", np.sqrt(space(variance))),
        ("crps", space(scores.crps)),
        ("coverage_90", space(scores.covered)),
    ):
        out[name], out[f"{name}_stderr"] = time_mean(series)
    return out
