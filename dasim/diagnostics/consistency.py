r"""Whether innovations agree with the covariances that the filter assumes.

With `d_b = y - H(x_b)`, `d_a = y - H(x_a)` and `d_ab = H(x_a) - H(x_b)` of an unbiased analysis
whose gain is `H B H^T (H B H^T + R)^-1` with the true `B` and `R`, errors of the background and
of the observations being uncorrelated (Desroziers, Berre, Chapnik and Poli 2005, sect. 2),

    E[d_a d_b^T] = R,    E[d_ab d_b^T] = H B H^T,

and with any gain the two sum to `E[d_b d_b^T]`. Each squared innovation over its variance,

    chi^2 = d_b^2 / (H P H^T + R),

has the expectation 1 (Menard and Chang 2000): above it the filter is overconfident.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from dasim.diagnostics.scores import time_mean


class Desroziers(NamedTuple):
    """Estimated covariances, not made symmetric, NaN where no cycle has both observations.

    Attributes:
        observation: R, `(obs, obs)`.
        background: H B H^T, `(obs, obs)`.
    """

    observation: Float[np.ndarray, "obs obs"]
    background: Float[np.ndarray, "obs obs"]


class Consistency(NamedTuple):
    """Chi-square per degree of freedom, 1 for a consistent filter.

    Attributes:
        mean: time mean of its mean over the observations of a cycle.
        stderr: standard error of `mean`, autocorrelation accounted for.
        variable_mean: time mean of each observation's own, `(obs,)`.
        variable_stderr: their standard errors, `(obs,)`.
    """

    mean: float
    stderr: float
    variable_mean: Float[np.ndarray, " obs"]
    variable_stderr: Float[np.ndarray, " obs"]


def desroziers(
    innovation: Float[np.ndarray, "cycle obs"],
    residual: Float[np.ndarray, "cycle obs"],
    increment: Float[np.ndarray, "cycle obs"],
    mask: Bool[np.ndarray, "cycle obs"] | None = None,
) -> Desroziers:
    """Observation and background error covariances from the statistics of an analysis.

    Args:
        innovation: observation minus forecast mean, `y - H(x_b)`.
        residual: observation minus analysis mean, `y - H(x_a)`.
        increment: analysis minus forecast mean in observation space, `H(x_a) - H(x_b)`.
        mask: true where a value was assimilated; where all three are finite if not given.
    """
    if mask is None:
        mask = np.isfinite(innovation) & np.isfinite(residual) & np.isfinite(increment)
    d_b, d_a, d_ab = (np.where(mask, d, 0.0) for d in (innovation, residual, increment))
    count = mask.T.astype(float) @ mask
    with np.errstate(invalid="ignore"):
        return Desroziers(d_a.T @ d_b / count, d_ab.T @ d_b / count)


def variance_scale(
    chi_square: Float[np.ndarray, " cycle"], discount: float = 0.9, prior: float = 3.0
) -> Float[np.ndarray, " cycle"]:
    """A factor on all of a filter's variances, by what its innovations said up to each cycle.

    A factor that background and observation errors share does not move the analysis of a linear
    filter, only its spread. It is learned as an unknown variance whose past counts less and less:
    n <- discount n + 1, scale <- scale + (chi_square - scale) / n (West and Harrison 1997, Bayesian
    Forecasting and Dynamic Models, sect. 10.8). It remembers about 1 / (1 - discount) cycles.

    Args:
        chi_square: d^T (H P H^T + R)^-1 d over the number of observations; NaN of a cycle
            without any.
        discount: in (0, 1]; 1 for a factor that stays.
        prior: cycles that the factor 1 before the first cycle is worth.

    Raises:
        ValueError: a discount outside (0, 1], or a prior that is not positive.
    """
    if not 0 < discount <= 1 or not prior > 0:
        raise ValueError(
            f"discount is {discount} and prior {prior}, expected a number in (0, 1] and a positive "
            "one"
        )
    n, scale, out = prior, 1.0, np.ones(len(chi_square))
    for k, found in enumerate(chi_square):
        if np.isfinite(found):
            n = discount * n + 1
            scale += (found - scale) / n
        out[k] = scale
    return out


def innovation_consistency(
    innovation: Float[np.ndarray, "cycle obs"],
    forecast_obs_variance: Float[np.ndarray, "cycle obs"],
    obs_variance: float | Float[np.ndarray, "..."],
    mask: Bool[np.ndarray, "cycle obs"] | None = None,
) -> Consistency:
    """Squared innovations over the variance that the filter expects of them.

    A sample variance of N members makes the expectation larger than 1, without observation error
    `(1 + 1 / N) (N - 1) / (N - 3)`.

    Args:
        innovation: observation minus forecast mean, `y - H(x_b)`.
        forecast_obs_variance: diagonal of H P H^T, e.g. variance of the members in observation
            space.
        obs_variance: diagonal of R, broadcast against the innovations.
        mask: true where a value was observed; where the innovation is finite if not given.
    """
    mask = np.isfinite(innovation) if mask is None else mask
    variance = np.where(mask, forecast_obs_variance + np.asarray(obs_variance), 1.0)
    chi_square = np.where(mask, innovation, 0.0) ** 2 / variance
    count = mask.sum(1)
    series = chi_square.sum(1) / np.where(count == 0, np.nan, count)
    columns = np.where(mask, chi_square, np.nan).T
    variables = np.array([time_mean(column) for column in columns])
    return Consistency(*time_mean(series), *variables.T)
