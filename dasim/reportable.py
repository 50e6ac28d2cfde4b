"""Visibility and precipitation: what a report says of the value behind it.

The value behind a report is followed as its cube root, whose law is nearly normal. A report is the
nearest of the values that a station may report; the last of visibility stands for all above it,
and no precipitation for all below the least amount.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

CENSORED = {"visib": "mi", "precip": "in"}  # of a report; behind it stands the root
MILES = [0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1, 1.25, 1.5, 1.75, 2, 2.5, *range(3, 11)]
STEPS = {"visib": np.array(MILES), "precip": np.arange(501) / 100}
BETWEEN = {q: np.cbrt((s[1:] + s[:-1]) / 2) for q, s in STEPS.items()}
LIMITS = {"visib": {"high": BETWEEN["visib"][-1]}, "precip": {"low": BETWEEN["precip"][0]}}
# an event of a report, as an interval of the root
EVENTS = {
    "visibility under 3 miles": ("visib", -np.inf, np.cbrt(2.75)),
    "precipitation in this hour": ("precip", LIMITS["precip"]["low"], np.inf),
}


def _step(quantity: str, root: np.ndarray) -> np.ndarray:
    return np.searchsorted(BETWEEN[quantity], root, side="right")


def report(quantity: str, root: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """What is reported of roots, in the quantity's own unit; NaN where they are."""
    return np.where(np.isnan(root), np.nan, STEPS[quantity][_step(quantity, root)])


def chance(low, high, root: Float[np.ndarray, "member ..."], std: float):
    """The members' chance that a root with its error of `std` lies between `low` and `high`."""
    return (ndtr((high - root) / std) - ndtr((low - root) / std)).mean(0)


def interval(quantity: str, root: Float[np.ndarray, "..."]):
    """The least and the greatest root of the report that `root` gives; anything where NaN."""
    ends = np.concatenate([[-np.inf], BETWEEN[quantity], [np.inf]])
    k = _step(quantity, root)
    missing = np.isnan(root)
    return np.where(missing, -np.inf, ends[k]), np.where(missing, np.inf, ends[k + 1])
