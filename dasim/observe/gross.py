"""Quality control of observations by themselves, before any forecast: arrays `(cycle, obs)`.

Each check looks at a cycle and those before it, never ahead, so that what it finds after the
fact it would have found at the time.
"""

from collections.abc import Collection
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int

from dasim.types import Observations


class Quality(IntEnum):
    """Why a value was not used."""

    PASSED = 0
    MISSING = 1
    RANGE = 2
    BLACKLIST = 3
    STUCK = 4
    FORECAST = 5  # the background or the buddy check
    WITHHELD = 6  # kept for verification


def stuck(
    value: Float[np.ndarray, "cycle obs"],
    mask: Bool[np.ndarray, "cycle obs"],
    reports: int,
    tolerance: float = 0.0,
) -> Bool[np.ndarray, "cycle obs"]:
    """Where a sensor has said the same in its last `reports` reports, this one among them.

    Raises:
        ValueError: fewer than two reports, which always say the same.
    """
    if reports < 2:
        raise ValueError(f"stuck: reports is {reports}, expected at least 2")
    found = np.zeros(mask.shape, bool)
    last, same = np.full(mask.shape[1], np.nan), np.zeros(mask.shape[1], int)
    for k, (now, seen) in enumerate(zip(value, mask, strict=True)):
        alike = np.abs(now - last) <= tolerance
        same = np.where(seen, np.where(alike, same + 1, 1), same)
        last = np.where(seen, now, last)
        found[k] = seen & (same >= reports)
    return found


def quality(
    observations: Observations,
    limits: tuple[float, float] | None = None,
    blacklist: Collection[int] = (),
    reports: int | None = None,
) -> Int[np.ndarray, "cycle obs"]:
    """A `Quality` for each value: the first reason that holds, in the order of the codes.

    Args:
        limits: the least and the largest value that can be.
        blacklist: numbers of observations that are never used.
        reports: see `stuck`; None for no such check.
    """
    value, mask = np.asarray(observations.value), np.asarray(observations.mask)
    codes = np.zeros(mask.shape, int)
    reasons = [(~mask | ~np.isfinite(value), Quality.MISSING)]
    if limits is not None:
        outside = (value < limits[0]) | (value > limits[1])
        reasons.append((outside, Quality.RANGE))
    listed = np.isin(np.arange(mask.shape[1]), list(blacklist))
    reasons.append((np.broadcast_to(listed, mask.shape), Quality.BLACKLIST))
    if reports is not None:
        reasons.append((stuck(value, mask, reports), Quality.STUCK))
    for where, code in reasons:
        codes = np.where((codes == 0) & where, int(code), codes)
    return codes
