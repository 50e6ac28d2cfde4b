r"""Energy by wavenumber, and errors by region.

A periodic field `f` on `n` points, of any number of dimensions, with the discrete Fourier
transform `F` has the energy

    e_k = sum_{|q| rounds to k} |F_q|^2 / n^2

at the integer wavenumber `k` (cycles per domain), summed over directions. By Parseval's identity
the sum over all `k` is the mean square: `e_0` is the squared mean, and the rest the variance.
"""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from dasim.diagnostics.scores import Scores, summarize


def power_spectrum(
    field: Float[np.ndarray, "..."], axis: int | tuple[int, ...] = -1
) -> Float[np.ndarray, "... wavenumber"]:
    """Energy of a periodic field at each wavenumber, from 0 on; the last axis of the result.

    The spectrum of an error beside that of the truth shows at which scales a method knows
    anything; where they meet, nothing. The other axes are kept, so `.mean(0)` is a time mean.

    Args:
        field: real values.
        axis: the axes of space, two or more for a domain of equal sides: the sum over the ring
            of wavenumbers between k - 1/2 and k + 1/2, corners included.
    """
    axes = np.atleast_1d(axis)
    space = tuple(range(-len(axes), 0))
    f = np.moveaxis(np.asarray(field, float), tuple(axes), space)
    shape = f.shape[-len(axes) :]
    power = np.abs(np.fft.fftn(f, axes=space)) ** 2 / np.prod(shape) ** 2
    each = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in shape), indexing="ij")
    wavenumber = np.rint(np.sqrt(sum(q**2 for q in each))).astype(int).ravel()
    order = np.argsort(wavenumber, kind="stable")
    starts = np.searchsorted(wavenumber[order], np.arange(wavenumber.max() + 1))
    flat = power.reshape(*power.shape[: -len(axes)], -1)
    return np.add.reduceat(flat[..., order], starts, axis=-1)


def error_by_region(
    scores: Scores, regions: dict[str, Bool[np.ndarray, "..."]] | Shaped[np.ndarray, "..."]
) -> dict[str, dict]:
    """RMSE, spread, CRPS, bias and coverage of each region, as `summarize` gives them.

    Args:
        scores: arrays `(time, *state)`, as of `score`.
        regions: masks of the state by name, which may overlap, or an array of labels, both
            `(*state)`.
    """
    if not isinstance(regions, dict):
        regions = {str(label): regions == label for label in np.unique(regions)}
    axes = tuple(range(1, scores.error.ndim))
    return {name: summarize(scores, axes, mask) for name, mask in regions.items()}
