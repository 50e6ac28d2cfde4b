r"""Rank histograms, the test of their flatness, and reliability diagrams.

The rank of a verification among `m` exchangeable members is uniform on 0..m (Anderson 1996;
Hamill 2001). With counts `n_i` in the `k = m + 1` ranks and the expectation `e = sum(n) / k`,

    X^2 = sum_i x_i^2,    x_i = (n_i - e) / sqrt(e),

is chi-square with `k - 1` degrees of freedom, and its parts `(x . c)^2` along orthonormal
contrasts `c` have one each: the linear contrast shows bias, the quadratic one a U or a dome
(Jolliffe and Primo 2008).

Forecasts `p` of binary outcomes `o`, in bins with means `p_b` and frequencies `o_b`, `n_b` of `n`
cases, have the Brier score (Murphy 1973; the last term: Stephenson, Coelho and Jolliffe 2008)

    mean (p - o)^2 = sum_b n_b (p_b - o_b)^2 / n - sum_b n_b (o_b - o_mean)^2 / n
                     + o_mean (1 - o_mean) + within
                   = reliability - resolution + uncertainty + within,

with `within` the variance of `p` inside the bins less twice its covariance with `o` there.
"""

from typing import NamedTuple

import numpy as np
import scoringrules
from jaxtyping import Float, Int, Shaped
from scipy.stats import chi2


class RankTest(NamedTuple):
    """Test of a flat rank histogram.

    Attributes:
        statistic: chi-square with as many degrees of freedom as there are members.
        p_value: probability of a larger one if the histogram is flat.
        bias: standard normal deviate of the linear part, positive for members too high.
        dispersion: that of the quadratic part, positive for too much spread; NaN for one member.
    """

    statistic: float
    p_value: float
    bias: float
    dispersion: float


class Reliability(NamedTuple):
    """Reliability diagram, each `(bin,)` and NaN in an empty bin, and the Brier score's parts.

    `brier = reliability - resolution + uncertainty + within`.
    """

    probability: Float[np.ndarray, " bin"]
    frequency: Float[np.ndarray, " bin"]
    count: Int[np.ndarray, " bin"]
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


def rank_histogram(
    ensemble: Float[np.ndarray, "member ..."],
    value: Float[np.ndarray, "..."],
    rng: np.random.Generator | None = None,
    std: float | Float[np.ndarray, "..."] = 0.0,
) -> Int[np.ndarray, " rank"]:
    """Counts `(member + 1,)` of the rank of each value among the members.

    Cases that are not finite, in the value or in any member, are left out.

    Args:
        ensemble: `(member, *cases)`.
        value: verification, `(*cases)`.
        rng: breaks ties at random and draws observation errors; seed 0 if not given.
        std: observation error of the value, added to the members (Hamill 2001); broadcast
            against `value`.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    if np.any(np.asarray(std) > 0):
        ensemble = ensemble + std * rng.standard_normal(ensemble.shape)
    good = np.isfinite(value) & np.isfinite(ensemble).all(0)
    ensemble, value = ensemble[:, good], value[good]
    ties = (ensemble == value).sum(0)
    rank = (ensemble < value).sum(0) + rng.integers(0, ties + 1)
    return np.bincount(rank, minlength=len(ensemble) + 1)


def rank_chi_square(
    counts: Int[np.ndarray, " rank"] | Float[np.ndarray, " rank"], effective: float | None = None
) -> RankTest:
    """Chi-square test of a flat rank histogram, and its parts for bias and dispersion.

    Args:
        counts: cases of each rank, `(member + 1,)`.
        effective: how many independent cases the counted ones are worth, all of them if not
            given; the statistic is scaled by their ratio (Rao and Scott 1981, first order).
    """
    k, total = len(counts), counts.sum()
    if k < 2:
        raise ValueError(f"counts: {k} ranks, expected one more than there are members")
    if total == 0:
        return RankTest(*[float("nan")] * 4)
    scale = 1.0 if effective is None else effective / total
    x = (counts - total / k) * np.sqrt(scale * k / total)
    linear = np.arange(k) - (k - 1) / 2
    quadratic = linear**2 - np.mean(linear**2)
    bias = -x @ linear / np.linalg.norm(linear)
    dispersion = -x @ quadratic / np.linalg.norm(quadratic) if k > 2 else np.nan
    statistic = float(x @ x)
    return RankTest(statistic, float(chi2.sf(statistic, k - 1)), float(bias), float(dispersion))


def reliability(
    probability: Float[np.ndarray, "..."], outcome: Float[np.ndarray, "..."], bins: int = 10
) -> Reliability:
    """Reliability diagram and Brier score of forecasts of a binary event.

    Args:
        probability: forecasts in 0..1; NaN is left out, with its outcome.
        outcome: 1 where the event came, 0 where not, NaN where unknown, of the same shape.
        bins: bins of equal width.
    """
    good = np.isfinite(probability) & np.isfinite(outcome)
    p, o = probability[good], outcome[good]
    # a probability that is a ratio of counts may be a rounding error away from its bin's edge
    index = np.minimum((p * bins + 1e-9).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    if not len(p):
        empty = np.full(bins, np.nan)
        return Reliability(empty, empty, count, *[float("nan")] * 5)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, p, bins) / count
        frequency = np.bincount(index, o, bins) / count
    base = o.mean()
    p_in, o_in = p - mean[index], o - frequency[index]
    return Reliability(
        mean,
        frequency,
        count,
        brier=float(np.mean(scoringrules.brier_score(o, p))),
        reliability=float(np.mean((mean - frequency)[index] ** 2)),
        resolution=float(np.mean((frequency[index] - base) ** 2)),
        uncertainty=float(base * (1 - base)),
        within=float(np.mean(p_in**2) - 2 * np.mean(p_in * o_in)),
    )


class ROC(NamedTuple):
    """Relative operating characteristic of forecasts of a binary event (Mason 1982).

    Attributes:
        false_alarms, hits: rates when warning from each threshold on, from none to all.
        area: under the curve; 1/2 without skill, NaN where the event always or never came.
    """

    false_alarms: Float[np.ndarray, " threshold"]
    hits: Float[np.ndarray, " threshold"]
    area: float


def roc(probability: Float[np.ndarray, " case"], outcome: Shaped[np.ndarray, " case"]) -> ROC:
    """The ROC of forecasts in 0..1 of an event that came (1) or not (0)."""
    order = np.argsort(-probability, kind="stable")
    p, came = probability[order], outcome[order].astype(float)
    last = np.append(np.diff(p) != 0, True)  # equal forecasts warn together
    hits, false = (np.append(0.0, np.cumsum(c)[last]) for c in (came, 1 - came))
    with np.errstate(invalid="ignore"):
        hits, false = hits / hits[-1], false / false[-1]
    return ROC(false, hits, float(np.trapezoid(hits, false)))
