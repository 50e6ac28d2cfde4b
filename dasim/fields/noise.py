r"""Noise processes: Gaussian random fields of a given law, on any grid of their box.

A field is a sum of the grid's functions with independent coefficients of variance lambda(k).
Restricted to `n` points, waves that the grid cannot tell apart add up: the discrete eigenvalue is

    (n / L) sum of lambda over the aliases of k,

so a draw has the same law at the points that two grids share, whatever the grids. Not folded in
this way, the waves beyond a grid are left out, and a draw has the law of one on a finer grid that
`dasim.fields.resample` took there; white noise alone has one variance at the points of any grid.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.covariance import AbstractCovariance
from dasim.fields.grids import Grid, wavenumbers
from dasim.fields.spectra import AbstractSpectrum, White
from dasim.types import Key

LEAST = 1e-10  # smallest eigenvalue kept, over the largest: below it a root is rounding alone
WAVES = {1: 2**15, 2: 2**10, 3: 2**7}  # of each axis, at least, in sums over all wavenumbers


class FieldCovariance(AbstractCovariance):
    """The covariance of a noise process on a grid; all products cost O(n log n).

    Make it by `noise_process`.

    Attributes:
        grid: its points.
        spectrum: its law.
        std: root of the variance, averaged over the box, of all waves of the law: also of those
            that are left out.
        relative: eigenvalues for a std of 1, in the order of the grid's coefficients.
        folded: whether waves that the grid cannot tell apart add up, or are left out.
    """

    grid: Grid = eqx.field(static=True)
    spectrum: AbstractSpectrum
    std: Float[Array, ""]
    relative: Float[Array, "*grid"]
    folded: bool = eqx.field(static=True, default=True)

    @property
    def values(self) -> Float[Array, "*grid"]:
        """The eigenvalues."""
        return self.std**2 * self.relative

    @property
    def size(self):
        return self.grid.size

    def _times(self, v, factor):
        x = v.reshape(self.grid.shape)
        return self.grid.multiplied(x, factor.astype(x.dtype)).reshape(-1)

    def apply(self, v):
        return self._times(v, self.values)

    def sqrt(self, v):
        return self._times(v, jnp.sqrt(self.values))

    def whiten(self, v):
        return self._times(v, self.inverse(jnp.sqrt(self.values)))

    def solve(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """C^-1 v, zero along directions in which C is zero."""
        return self._times(v, self.inverse(self.values))

    @staticmethod
    def inverse(values: Float[Array, "..."]) -> Float[Array, "..."]:
        """One over each value, zero for zero."""
        return jnp.where(values > 0, 1 / jnp.where(values > 0, values, 1.0), 0.0)

    def sample(self, key: Key) -> Float[Array, "*grid"]:
        """A draw."""
        white = jax.random.normal(key, (self.size,), self.values.dtype)
        return self.sqrt(white).reshape(self.grid.shape)

    def log_det(self):
        return jnp.sum(jnp.log(self.values))

    def diagonal(self):
        if self.grid.edges == "periodic":
            return jnp.full(self.size, self.values.mean())
        return jnp.diag(self.dense())

    def dense(self):
        return jax.vmap(self.apply)(jnp.eye(self.size, dtype=self.values.dtype))

    def on(self, grid: Grid) -> "FieldCovariance":
        """The same noise on another grid of its box."""
        moved = noise_process(self.spectrum, grid, 1.0, self.folded)
        return eqx.tree_at(lambda c: c.std, moved, self.std)


def noise_process(
    spectrum: AbstractSpectrum,
    grid: Grid,
    std: float | Float[Array, ""] = 1.0,
    folded: bool = True,
) -> FieldCovariance:
    """The noise of a law on a grid, of root mean variance `std` over the box.

    Args:
        folded: for the law of a fine field's values at the grid's points; otherwise that of its
            waves which the grid has.

    Raises:
        ValueError: the law makes no field of finite variance there.
    """
    spectrum.check(len(grid.shape), grid.edges)
    if isinstance(spectrum, White):
        values = np.ones(grid.shape)
    else:
        waves = [max(1, -(-WAVES[len(grid.shape)] // n)) * n for n in grid.shape]
        k = [wavenumbers(n, l, grid.edges) for n, l in zip(waves, grid.lengths, strict=True)]
        square = sum(np.meshgrid(*(a**2 for a in k), indexing="ij"))
        law = spectrum(square, len(grid.shape))
        values = law / law.sum() * grid.size
        taken = _fold if folded else _cut
        for axis, n in enumerate(grid.shape):
            along = taken(np.moveaxis(values, axis, 0), n, grid.edges)
            values = np.moveaxis(along, 0, axis)
        values = np.where(values > LEAST * values.max(), values, 0.0)
    std, values = jnp.asarray(std, float), jnp.asarray(values, float)
    return FieldCovariance(grid, spectrum, std, values, folded)


def _fold(values: np.ndarray, n: int, edges: str) -> np.ndarray:
    """Sums over the aliases of each of n waves, along the first axis."""
    if edges == "periodic":
        return values.reshape(-1, n, *values.shape[1:]).sum(0)
    waves = np.arange(len(values))
    place = waves % (2 * n)
    weight = np.ones(len(waves))
    if edges == "bounded":
        weight = np.where(place == n, 0.0, np.where((place == 0) & (waves > 0), 2.0, 1.0))
        place = np.where(place > n, 2 * n - place, np.minimum(place, n - 1))
    else:
        place = np.where(place >= n, 2 * n - 1 - place, place)
    folded = np.zeros((n, *values.shape[1:]))
    np.add.at(folded, place, weight.reshape(-1, *([1] * (values.ndim - 1))) * values)
    return folded


def _cut(values, n: int, edges: str):
    """Those of the lowest n waves, along the first axis."""
    if edges != "periodic" or len(values) == n:
        return values[:n]
    kept = values[np.round(np.fft.fftfreq(n, 1 / n)).astype(int)]
    if n % 2 == 0:  # one wave stands for two
        twice = (np.arange(n) == n // 2).reshape(-1, *([1] * (values.ndim - 1)))
        kept = kept + twice * values[n // 2]
    return kept


def cut(
    values: Float[Array, "*grid"], grid: Grid, shape: tuple[int, ...]
) -> Float[Array, "*coarse"]:
    """Variances of the waves that are left where fields are moved to a coarser grid.

    Args:
        values: of the coefficients of `grid`, as `FieldCovariance.values`.
        shape: no larger than that of `grid`.

    Raises:
        ValueError: a larger shape.
    """
    if len(shape) != len(grid.shape) or any(n > m for n, m in zip(shape, grid.shape, strict=True)):
        raise ValueError(f"waves of a grid {grid.shape} cut to one of {tuple(shape)}")
    for axis, n in enumerate(shape):
        values = jnp.moveaxis(_cut(jnp.moveaxis(values, axis, 0), n, grid.edges), 0, axis)
    return values
