r"""The equation of Kuramoto and Sivashinsky, u_t = -u u_x - u_xx - u_xxxx, on a periodic interval.

In Fourier space the mode of wavenumber k obeys

    v' = (k^2 - k^4) v - (i k / 2) F[u^2],

stepped by exponential time differencing as in Kassam and Trefethen (2005), sec. 4. The modes of
0 < k < 1 grow, the shorter ones decay, and the mean of u never changes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from dasim.fields import Grid
from dasim.models.base import AbstractModel
from dasim.models.etd import ETDRK4


class KuramotoSivashinsky(AbstractModel):
    """u at `size` equidistant points of an interval of the given `length`; a state is `(size,)`."""

    size: int
    length: float
    dt: float
    scheme: ETDRK4

    def __init__(self, size: int = 128, length: float = 32 * math.pi, dt: float = 0.5):
        """See the class.

        Raises:
            ValueError: fewer than 8 points, or a length or a dt that is not positive.
        """
        if size < 8:
            raise ValueError(f"KuramotoSivashinsky has {size} points, expected at least 8")
        if not length > 0:
            raise ValueError(f"KuramotoSivashinsky has length {length}, expected a positive one")
        self.size, self.length = size, float(length)
        k = self.wavenumbers
        self.scheme = ETDRK4(k**2 - k**4, dt)
        self.dt = self.scheme.dt

    @property
    def shape(self):
        return (self.size,)

    @property
    def spin_up(self):
        return 150.0

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
        """White noise in the modes that grow: smooth, and of zero mean."""
        k = self.wavenumbers
        noise = jnp.fft.rfft(jax.random.normal(key, self.shape))
        return jnp.fft.irfft(jnp.where((k > 0) & (k < 1), noise, 0), self.size)

    def nonlinear(self, v: Complex[Array, " mode"], t) -> Complex[Array, " mode"]:
        """-(i k / 2) F[u^2] of the modes v; the derivative of the Nyquist mode is zero."""
        k = np.where(2 * np.arange(len(v)) == self.size, 0.0, self.wavenumbers)
        u = jnp.fft.irfft(v, self.size)
        return -0.5j * k.astype(u.dtype) * jnp.fft.rfft(u**2)

    def step(self, x: Float[Array, " point"], t, key):
        return jnp.fft.irfft(self.scheme.step(jnp.fft.rfft(x), t, self.nonlinear), self.size)

    def step_cov(self, x, t):
        return None
