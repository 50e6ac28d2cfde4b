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

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from dasim.models.etd import ETDRK4
from dasim.models.ring import AbstractRing, check_ring


class Burgers(AbstractRing):
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
        check_ring("Burgers", size, length=length, viscosity=viscosity)
        self.size, self.length, self.viscosity = size, float(length), float(viscosity)
        self.forcing = None if forcing is None else jnp.asarray(forcing, float)
        if forcing is not None and self.forcing.shape != (size,):
            raise ValueError(f"forcing has shape {self.forcing.shape}, expected ({size},)")
        self.scheme = ETDRK4(-self.viscosity * self.wavenumbers**2, dt)
        self.dt = self.scheme.dt

    @property
    def spin_up(self):
        return self.length / (2 * math.pi)

    def nonlinear(self, v: Complex[Array, " mode"], t) -> Complex[Array, " mode"]:
        """F[f] - (i k / 2) F[u^2] of the modes v."""
        advection = self.advection(v)
        if self.forcing is None:
            return -advection
        return jnp.fft.rfft(self.forcing.astype(v.real.dtype)) - advection
