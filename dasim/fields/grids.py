r"""Grids on boxes, and the expansion of a field in the functions that belong to a grid's edges.

On `n` points of an interval of length L a field is a sum of `n` functions, orthonormal in L2:

    periodic    exp(2 pi i k x / L) / sqrt(L)            at x_j = j L / n,
    bounded     sqrt(2 / L) cos(pi k x / L)              at x_j = (j + 1/2) L / n,
    pinned      sqrt(2 / L) sin(pi (k + 1/2) x / L)      at x_j = (j + 1/2) L / n,

by FFT, DCT-II and DST-IV: a bounded field has no slope at its edges, and a pinned one is zero at
the left one and has no slope at the right one. In several dimensions they are products. A field
is moved to another grid by its coefficients: those that the other grid lacks are cut off, those
that are new are zero.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Edges = Literal["periodic", "bounded", "pinned"]
EDGES = ("periodic", "bounded", "pinned")
LARGEST = 2**22  # table of weights from points to points


@dataclass(frozen=True)
class Grid:
    """Equidistant points of a box.

    Attributes:
        shape: points along each axis.
        lengths: of the box.
        edges: "periodic", "bounded" or "pinned".
    """

    shape: tuple[int, ...]
    lengths: tuple[float, ...]
    edges: Edges = "periodic"

    def __post_init__(self):
        if not self.shape or len(self.shape) != len(self.lengths):
            raise ValueError(f"a grid of shape {self.shape} in a box of lengths {self.lengths}")
        if any(n < 2 or int(n) != n for n in self.shape):
            raise ValueError(f"a grid of shape {self.shape}: expected 2 points or more an axis")
        if not all(length > 0 for length in self.lengths):
            raise ValueError(f"a box of lengths {self.lengths}: expected positive ones")
        if self.edges not in EDGES:
            raise ValueError(f"edges are {self.edges!r}, expected one of {', '.join(EDGES)}")
        if self.edges == "pinned" and len(self.shape) > 1:
            raise ValueError("a pinned grid has one axis")

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    @property
    def points(self) -> tuple[np.ndarray, ...]:
        """Coordinates along each axis."""
        shift = 0.0 if self.edges == "periodic" else 0.5
        pairs = zip(self.shape, self.lengths, strict=True)
        return tuple((np.arange(n) + shift) * length / n for n, length in pairs)

    @property
    def wavenumbers(self) -> tuple[np.ndarray, ...]:
        """Of the functions along each axis, in the order of the coefficients."""
        pairs = zip(self.shape, self.lengths, strict=True)
        return tuple(wavenumbers(n, length, self.edges) for n, length in pairs)

    @property
    def magnitudes(self) -> Float[np.ndarray, "*grid"]:
        """|k| of each coefficient."""
        return np.sqrt(sum(np.meshgrid(*(a**2 for a in self.wavenumbers), indexing="ij")))

    def at(self, shape: tuple[int, ...]) -> "Grid":
        """The same box with another number of points."""
        return Grid(tuple(shape), self.lengths, self.edges)

    def coefficients(self, x: Float[Array, "*grid"]) -> Array:
        """Coefficients in an orthonormal basis of vectors, complex where periodic."""
        if self.edges == "periodic":
            return jnp.fft.fftn(x, norm="ortho")
        if self.edges == "bounded":
            return jax.scipy.fft.dctn(x, norm="ortho")
        return _dst4(x)

    def field(self, coefficients: Array) -> Float[Array, "*grid"]:
        """The field of given coefficients."""
        if self.edges == "periodic":
            return jnp.fft.ifftn(coefficients, norm="ortho").real
        if self.edges == "bounded":
            return jax.scipy.fft.idctn(coefficients, norm="ortho")
        return _dst4(coefficients)  # its own inverse

    def multiplied(self, x: Float[Array, "*grid"], factor: Float[Array, "*grid"]):
        """The field whose coefficients are those of x times `factor`, even in the wavenumbers."""
        if self.edges == "periodic":
            half = factor[..., : self.shape[-1] // 2 + 1]
            return jnp.fft.irfftn(jnp.fft.rfftn(x) * half, self.shape)
        return self.field(self.coefficients(x) * factor)

    def basis(
        self, positions: Float[np.ndarray, "position axis"], width: float | np.ndarray = 0.0
    ) -> np.ndarray:
        """Weights of the points in the field's values at `positions`, `(position, size)`.

        The sum of the functions above, evaluated between the points: exact for all that the grid
        resolves. The wave of a periodic grid's highest even wavenumber counts as a cosine.

        Args:
            positions: `(position, axis)`.
            width: of boxes about them, one number or one an axis, whose means are taken instead.
        """
        positions = np.asarray(positions, float)
        if positions.ndim != 2 or positions.shape[1] != len(self.shape):
            raise ValueError(
                f"positions have shape {positions.shape}, expected (positions, {len(self.shape)})"
            )
        widths = np.broadcast_to(width, (len(self.shape),))
        weights = np.ones((len(positions), 1))
        for i, (n, own, k) in enumerate(
            zip(self.shape, self.points, self.wavenumbers, strict=True)
        ):
            there, here = k * positions[:, i, None], k * own[:, None]
            # a wave's mean over an interval is its value in the middle times this
            share = np.sinc(k * widths[i] / (2 * np.pi)) / n
            if self.edges == "periodic":
                made = (np.cos(there) * share) @ np.cos(here).T
                made += (np.sin(there) * share) @ np.sin(here).T
            else:
                wave = np.cos if self.edges == "bounded" else np.sin
                made = (wave(there) * share * np.where(k > 0, 2, 1)) @ wave(here).T
            weights = (weights[:, :, None] * made[:, None, :]).reshape(len(positions), -1)
        return weights


def wavenumbers(n: int, length: float, edges: Edges) -> np.ndarray:
    """Of the n functions of an axis, signed where periodic."""
    if edges == "periodic":
        return 2 * np.pi / length * np.fft.fftfreq(n, 1 / n)
    return np.pi / length * (np.arange(n) + (0.5 if edges == "pinned" else 0.0))


def _dst4(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """sqrt(2 / n) sum_j x_j sin(pi (2 j + 1) (2 k + 1) / (4 n)), by one FFT of 2 n points."""
    n = len(x)
    turn = jnp.exp(1j * jnp.pi * jnp.arange(n) / (2 * n)).astype(jnp.result_type(x, 1j))
    waves = 2 * n * jnp.fft.ifft(x * turn, 2 * n)[:n]
    return (waves * turn * jnp.exp(1j * jnp.pi / (4 * n))).imag * jnp.sqrt(2 / n).astype(x.dtype)


def resample(x: Float[Array, "*grid"], old: Grid, new: Grid) -> Float[Array, "*other"]:
    """A field on another grid of the same box; states and ensembles by `vmap`.

    Raises:
        ValueError: the field is not on `old`, or the grids are of different boxes.
    """
    if x.shape != old.shape:
        raise ValueError(f"a field of shape {x.shape} is not on a grid of shape {old.shape}")
    if (old.lengths, old.edges) != (new.lengths, new.edges):
        raise ValueError(
            f"from a {old.edges} box of lengths {old.lengths} to a {new.edges} one of lengths "
            f"{new.lengths}: a field is moved between grids of one box"
        )
    for axis, (n, m) in enumerate(zip(old.shape, new.shape, strict=True)):
        if n == m:
            continue
        x = jnp.moveaxis(x, axis, -1)
        if n * m > LARGEST:
            x = _resampled(x, m, old.edges)
        else:
            x = x @ jnp.asarray(_weights(n, m, old.edges, x.dtype == jnp.float64), x.dtype)
        x = jnp.moveaxis(x, -1, axis)
    return x


@cache
def _weights(n: int, m: int, edges: Edges, double: bool) -> np.ndarray:
    """Of n points in each of m: few of them are sooner summed up than transformed."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(double):
        unit = jnp.eye(n, dtype=float)
        return np.asarray(jax.vmap(lambda x: _resampled(x, m, edges))(unit))


def _resampled(x: Float[Array, "*rest n"], m: int, edges: Edges) -> Float[Array, "*rest m"]:
    n = x.shape[-1]
    if edges == "periodic":
        modes, kept = jnp.fft.rfft(x, norm="forward"), min(n, m) // 2 + 1
        modes = modes[..., :kept]
        if min(n, m) % 2 == 0:
            # the highest even wave stands for two, of which the finer grid tells
            modes = modes.at[..., -1].multiply(0.5 if m > n else 2.0)
            modes = modes if m > n else modes.at[..., -1].set(modes[..., -1].real)
        return jnp.fft.irfft(modes, m, norm="forward")
    kept = min(n, m)
    scale = math.sqrt(m / n)
    if edges == "bounded":
        modes = jax.scipy.fft.dct(x, norm="ortho")[..., :kept] * scale
        modes = jnp.pad(modes, [(0, 0)] * (x.ndim - 1) + [(0, m - kept)])
        return jax.scipy.fft.idct(modes, norm="ortho")
    return _dst4(jnp.pad(_dst4(x)[:kept] * scale, (0, m - kept)))
