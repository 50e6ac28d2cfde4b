r"""The law of a field from scattered values: an empirical variogram, and Matern's fitted to it.

With y = x + e at points r apart, half the mean squared difference is

    gamma(r) = nugget^2 + std^2 (1 - c(r / length)),

c Matern's correlation, std^2 the field's variance and nugget^2 that of e: of observation errors and
of what is finer than the nearest points. The fit weighs each bin with n / gamma^2, the inverse of
the variance of its estimate up to a factor (Cressie 1985, Math. Geol. 17, sect. 3).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares
from scipy.spatial.distance import pdist
from scipy.special import gamma, kv

MOST = 3000  # points of one time that are compared; of more, so many drawn
BINS = 24
LEAST = 3  # bins that a fit of three numbers needs


class Variogram(NamedTuple):
    """What was fitted: `std` and `length` of the field, and the `nugget`, a std, too."""

    std: float
    length: float
    nugget: float


def matern(r: Float[np.ndarray, "..."], smoothness: float) -> Float[np.ndarray, "..."]:
    """Matern's correlation at distances over the length (as in `dasim.fields.Matern`)."""
    z = np.sqrt(2 * smoothness) * np.maximum(r, 1e-8)
    return 2 ** (1 - smoothness) / gamma(smoothness) * z**smoothness * kv(smoothness, z)


def fit_variogram(
    places: Float[np.ndarray, "point axis"],
    values: Float[np.ndarray, "time point"],
    smoothness: float,
) -> Variogram:
    """Fit Matern's law to scattered values, by pairs of the same time.

    Distances up to half of the largest count, in bins of equal width of their square roots.

    Args:
        places: of the points.
        values: NaN where there is none.
        smoothness: of the field.

    Raises:
        ValueError: too few pairs, or values that are all alike.
    """
    reach = 0.5 * np.linalg.norm(np.ptp(places, axis=0))
    edges = reach * np.linspace(0, 1, BINS + 1) ** 2
    total = np.zeros((3, BINS))
    rng = np.random.default_rng(0)
    for row in values:
        some = np.flatnonzero(np.isfinite(row))
        if len(some) > MOST:
            some = rng.choice(some, MOST, replace=False)
        if len(some) < 2:
            continue
        apart = pdist(places[some])
        half = pdist(row[some, None], "sqeuclidean") / 2
        for i, weight in enumerate((None, apart, half)):
            total[i] += np.histogram(apart, edges, weights=weight)[0]
    count = total[0]
    kept = count > 0
    r, measured = total[1:, kept] / count[kept]
    if kept.sum() < LEAST or not measured.max() > 0:
        raise ValueError("too few pairs of observations, or none that differ")

    def model(logs):
        std, length, nugget = np.exp(logs)
        return nugget**2 + std**2 * (1 - matern(r / length, smoothness))

    def misfit(logs):
        return np.sqrt(count[kept] / count.sum()) * (measured / model(logs) - 1)

    sill = np.sqrt(measured.max())
    start = np.log([sill, reach / 4, sill / 3])
    low, high = np.log([sill * 1e-2, reach * 1e-3, sill * 1e-3]), np.log([sill * 3, reach, sill])
    fit = least_squares(misfit, start, bounds=(low, high))
    return Variogram(*(float(v) for v in np.exp(fit.x)))
