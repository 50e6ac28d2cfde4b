r"""The viscous equation of Burgers (1948), u_t = -u u_x + nu u_xx + f, on a periodic interval.

In Fourier space the mode of wavenumber k obeys

    v' = -nu k^2 v - (i k / 2) F[u^2] + F[f].

Modes beyond a third of the grid are cut before and after the square (Orszag 1971): it has no
aliasing errors, and advection conserves the mean and the energy. Viscosity is integrated exactly,
the rest by exponential time differencing.

Waves steepen to fronts. One over which u falls by 2 a is -a tanh(a x / (2 nu)) and needs a grid
whose spacing is at most nu / a; on a coarser one it has ripples beside it.
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


class Burgers(AbstractModel):
    """u at `size` equidistant points of an interval of the given `length`; a state is `(size,)`.

    There is no climate: u decays to its mean, or to the one state of that mean that a steady
    forcing keeps up. `spin_up` is the time in which fronts form.

    Attributes:
        viscosity: nu.
        forcing: f at the points, or None.
    """

    size: int
    length: float
    viscosity: float
    dt: float
    forcing: Float[Array, " point"] | None
    scheme: ETDRK4

    def __init__(
        self,
        size: int = 128,
        length: float = 2 * math.pi,
        viscosity: float = 0.05,
        dt: float = 0.01,
        forcing=None,
    ):
        """See the class.

        Raises:
            ValueError: fewer than 8 points, a length, viscosity or dt that is not positive, or a
                forcing that is not one value a point.
        """
        if size < 8:
            raise ValueError(f"Burgers has {size} points, expected at least 8")
        if not length > 0 or not viscosity > 0:
            raise ValueError(
                f"Burgers has length {length} and viscosity {viscosity}, expected positive ones"
            )
        self.size, self.length, self.viscosity = size, float(length), float(viscosity)
        self.forcing = None if forcing is None else jnp.asarray(forcing, float)
        if forcing is not None and self.forcing.shape != (size,):
            raise ValueError(f"forcing has shape {self.forcing.shape}, expected ({size},)")
        self.scheme = ETDRK4(-self.viscosity * self.wavenumbers**2, dt)
        self.dt = self.scheme.dt

    @property
    def shape(self):
        return (self.size,)

    @property
    def spin_up(self):
        return self.length / (2 * math.pi)

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
        """F[f] - (i k / 2) F[u^2] of the modes v."""
        kept = 3 * np.arange(len(v)) < self.size
        u = jnp.fft.irfft(jnp.where(kept, v, 0), self.size)
        k = np.where(kept, self.wavenumbers, 0.0).astype(u.dtype)
        advection = 0.5j * k * jnp.fft.rfft(u**2)
        if self.forcing is None:
            return -advection
        return jnp.fft.rfft(self.forcing.astype(u.dtype)) - advection

    def step(self, x: Float[Array, " point"], t, key):
        return jnp.fft.irfft(self.scheme.step(jnp.fft.rfft(x), t, self.nonlinear), self.size)

    def step_cov(self, x, t):
        return None
