r"""The equation of Korteweg and de Vries (1895), u_t = -6 u u_x - d u_xxx, on a periodic interval.

With the dispersion d = 1 it is in the form of Hirota (1971). Its solitons

    u = (c / 2) / cosh^2(sqrt(c / d) (x - c t) / 2)

run at the speed c > 0.

In Fourier space -u_xxx becomes -(i k)^3 v = i k^3 v, and the mode of wavenumber k obeys

    v' = i d k^3 v - 3 i k F[u^2].

Modes beyond a third of the grid are cut before and after the square (Orszag 1971), which then has
no aliasing errors. Dispersion only turns phases and is exact, the rest is integrated by
exponential time differencing. The mean of u (mass) never changes, and that of u^2 (momentum) by
the errors of the steps alone.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from dasim.fields import Grid
from dasim.models.base import AbstractModel
from dasim.models.etd import ETDRK4

WAVES = 3  # of a start


class KortewegDeVries(AbstractModel):
    """u at `size` equidistant points of an interval of the given `length`; a state is `(size,)`.

    Nothing is damped, so there is no one climate: `spin_up` is a time after which a state from
    `start` is one of solitons. Keep `dt` below 5 / (d k^3), with k the highest wavenumber that is
    not cut: with a longer step noise in the shortest waves grows.

    Attributes:
        dispersion: d.
    """

    size: int
    length: float
    dispersion: float
    dt: float
    scheme: ETDRK4

    def __init__(
        self, size: int = 128, length: float = 20.0, dispersion: float = 1.0, dt: float = 0.002
    ):
        """See the class.

        Raises:
            ValueError: fewer than 8 points, or a length, dispersion or dt that is not positive.
        """
        if size < 8:
            raise ValueError(f"KortewegDeVries has {size} points, expected at least 8")
        if not length > 0 or not dispersion > 0:
            raise ValueError(
                f"KortewegDeVries has length {length} and dispersion {dispersion}, expected "
                "positive ones"
            )
        self.size, self.length, self.dispersion = size, float(length), float(dispersion)
        nyquist = 2 * np.arange(size // 2 + 1) == size  # its odd derivatives are zero
        k = np.where(nyquist, 0.0, self.wavenumbers)
        self.scheme = ETDRK4(1j * self.dispersion * k**3, dt)
        self.dt = self.scheme.dt

    @property
    def shape(self):
        return (self.size,)

    @property
    def spin_up(self):
        return 5.0

    @property
    def grid(self):
        return Grid((self.size,), (self.length,))

    @property
    def period(self):
        return (float(self.size),)

    @property
    def wavenumbers(self) -> np.ndarray:
        """k of the modes of `rfft`."""
        return 2 * np.pi / self.length * np.arange(self.size // 2 + 1)

    def start(self, key):
        """The three longest waves at random: of zero mean and unit standard deviation."""
        angle = 2 * np.pi / self.size * np.outer(np.arange(self.size), np.arange(1, WAVES + 1))
        weights = jax.random.normal(key, (2 * WAVES,))
        waves = np.concatenate([np.cos(angle), np.sin(angle)], 1)
        return math.sqrt(2) * waves @ weights / jnp.linalg.norm(weights)

    def nonlinear(self, v: Complex[Array, " mode"], t) -> Complex[Array, " mode"]:
        """-3 i k F[u^2] of the modes v."""
        kept = 3 * np.arange(len(v)) < self.size
        u = jnp.fft.irfft(jnp.where(kept, v, 0), self.size)
        k = np.where(kept, self.wavenumbers, 0.0).astype(u.dtype)
        return -3j * k * jnp.fft.rfft(u**2)

    def step(self, x: Float[Array, " point"], t, key):
        return jnp.fft.irfft(self.scheme.step(jnp.fft.rfft(x), t, self.nonlinear), self.size)

    def step_cov(self, x, t):
        return None
