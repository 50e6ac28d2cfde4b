"""What models of one field on a periodic interval have in common."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from dasim.fields import Grid
from dasim.models.base import AbstractModel
from dasim.models.etd import ETDRK4

WAVES = 3  # of a start


class AbstractRing(AbstractModel):
    """u at `size` equidistant points of a periodic interval, stepped in Fourier space.

    Attributes:
        size: points, at least 8.
        length: of the interval.
        scheme: of the modes of `rfft`.
    """

    size: eqx.AbstractVar[int]
    length: eqx.AbstractVar[float]
    scheme: eqx.AbstractVar[ETDRK4]

    @abc.abstractmethod
    def nonlinear(self, v: Complex[Array, " mode"], t) -> Complex[Array, " mode"]:
        """What is not linear in the modes v."""

    @property
    def shape(self):
        return (self.size,)

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

    def advection(self, v: Complex[Array, " mode"]) -> Complex[Array, " mode"]:
        """F[u u_x] of the modes v, without aliasing."""
        kept = 3 * np.arange(len(v)) < self.size
        u = jnp.fft.irfft(jnp.where(kept, v, 0), self.size)
        k = np.where(kept, self.wavenumbers, 0.0).astype(u.dtype)
        return 0.5j * k * jnp.fft.rfft(u**2)

    def step(self, x: Float[Array, " point"], t, key):
        return jnp.fft.irfft(self.scheme.step(jnp.fft.rfft(x), t, self.nonlinear), self.size)

    def step_cov(self, x, t):
        return None


def check_ring(name: str, size: int, **positive: float):
    """Refuse fewer than 8 points, or a number that is not positive."""
    if size < 8:
        raise ValueError(f"{name} has {size} points, expected at least 8")
    for what, value in positive.items():
        if not value > 0:
            raise ValueError(f"{name} has {what} {value}, expected a positive one")
