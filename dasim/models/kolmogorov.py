r"""Kolmogorov flow: two-dimensional turbulence on [0, 2 pi]^2, periodic, driven by a sine.

The velocity is forced by (sin k y, 0) and damped by viscosity and a linear drag, so that the
vorticity w = v_x - u_y obeys

    w_t = -(u w_x + v w_y) + (1 / Re) (w_xx + w_yy) - drag w - k cos(k y),

or by any other field in the place of -k cos(k y).

The advection is computed from products of velocities (Basdevant 1983),

    u w_x + v w_y = (d_xx - d_yy)(u v) + d_xy (v^2 - u^2),

by a pseudo-spectral method in which modes beyond a third of the grid are cut before and after the
products (Orszag 1971): it has no aliasing errors and conserves energy and enstrophy. Viscosity
and drag are integrated exactly, the rest by exponential time differencing.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from dasim.fields import Grid
from dasim.models.base import AbstractModel
from dasim.models.etd import ETDRK4


class KolmogorovFlow(AbstractModel):
    """The vorticity on a grid, `(size, size)`: x along the first axis and y along the second.

    Attributes:
        reynolds: Re, the inverse of the viscosity.
        wavenumber: k of the forcing.
        forcing: what drives the vorticity in its place, `(size, size)`; None for the sine.
        drag: rate at which the largest scales are damped.
    """

    size: int
    reynolds: float
    wavenumber: int
    drag: float
    dt: float
    forcing: Float[Array, "x y"] | None
    scheme: ETDRK4

    def __init__(
        self,
        size: int = 64,
        reynolds: float = 100.0,
        wavenumber: int = 4,
        drag: float = 0.1,
        dt: float = 0.02,
        forcing: Float[Array, "x y"] | None = None,
    ):
        """See the class.

        Raises:
            ValueError: a grid too coarse for the forcing, a Reynolds number or a dt that is not
                positive, a negative drag, or a forcing that is not on the grid.
        """
        if forcing is not None and forcing.shape != (size, size):
            raise ValueError(f"forcing has shape {forcing.shape}, expected {(size, size)}")
        if wavenumber < 1 or 3 * wavenumber >= size:
            raise ValueError(
                f"wavenumber is {wavenumber}, expected at least 1 and less than a third of the "
                f"{size} grid points"
            )
        if not reynolds > 0 or not drag >= 0:
            raise ValueError(
                f"reynolds is {reynolds} and drag is {drag}, expected a positive number and one "
                "that is not negative"
            )
        self.size, self.reynolds, self.wavenumber = size, float(reynolds), wavenumber
        self.drag, self.forcing = float(drag), forcing
        k, l = self.wavenumbers
        self.scheme = ETDRK4(-(k**2 + l**2) / self.reynolds - self.drag, dt)
        self.dt = self.scheme.dt

    @property
    def shape(self):
        return (self.size, self.size)

    @property
    def coords(self):
        return np.indices(self.shape, float).reshape(2, -1).T

    @property
    def grid(self):
        return Grid(self.shape, (2 * math.pi, 2 * math.pi))

    @property
    def period(self):
        return (float(self.size), float(self.size))

    @property
    def wavenumbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the modes of `rfft2`: along x, `(size, 1)`, and along y, `(1, size // 2 + 1)`."""
        k = np.fft.fftfreq(self.size, 1 / self.size)
        return k[:, None], np.arange(self.size // 2 + 1.0)[None]

    def start(self, key):
        """Random eddies of the size of the forcing's."""
        k, l = self.wavenumbers
        band = (k**2 + l**2 > 0) & (k**2 + l**2 <= self.wavenumber**2)
        modes = jnp.where(band, jnp.fft.rfft2(jax.random.normal(key, self.shape)), 0)
        field = jnp.fft.irfft2(modes, self.shape)
        return self.wavenumber * field / jnp.std(field)

    def nonlinear(self, v: Complex[Array, "x y"], t) -> Complex[Array, "x y"]:
        """The modes of what is not linear in the vorticity: advection and forcing."""
        k, l = self.wavenumbers
        kept = (3 * np.abs(k) < self.size) & (3 * l < self.size)
        square = k**2 + l**2
        inverse = np.where(kept & (square > 0), 1 / np.maximum(square, 1), 0)
        real = lambda a: jnp.asarray(a, v.real.dtype)
        psi = real(inverse) * v
        velocity = jnp.stack([1j * real(l) * psi, -1j * real(k) * psi])
        a, b = jnp.fft.irfft2(velocity, self.shape)
        ab, difference = jnp.fft.rfft2(jnp.stack([a * b, b**2 - a**2]))
        advection = real((l**2 - k**2) * kept) * ab - real(k * l * kept) * difference
        if self.forcing is not None:
            return jnp.fft.rfft2(self.forcing.astype(v.real.dtype)) - advection
        force = np.zeros(v.shape)
        force[0, self.wavenumber] = -self.wavenumber * self.size**2 / 2
        return real(force) - advection

    def step(self, x: Float[Array, "x y"], t, key):
        return jnp.fft.irfft2(self.scheme.step(jnp.fft.rfft2(x), t, self.nonlinear), self.shape)

    def step_cov(self, x, t):
        return None
