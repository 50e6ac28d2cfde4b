r"""Exponential time differencing for v' = L v + N(v, t) with a diagonal L.

The fourth-order Runge-Kutta scheme of Cox and Matthews (2002), eqs. 26-29: with h the step,

    a = e^(hL/2) v + Q N(v, t)
    b = e^(hL/2) v + Q N(a, t + h/2)
    c = e^(hL/2) a + Q (2 N(b, t + h/2) - N(v, t))
    v(t + h) = e^(hL) v + A N(v, t) + 2 B (N(a, t + h/2) + N(b, t + h/2)) + C N(c, t + h).

Q, A, B and C divide differences of nearly equal numbers where hL is small. They are analytic in
hL, so each is its mean over a circle around hL (Kassam and Trefethen 2005, sec. 3).
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from dasim.models.base import check_dt

CONTOUR_POINTS = 64

Nonlinear = Callable[[Inexact[Array, "..."], Float[Array, ""]], Inexact[Array, "..."]]


class ETDRK4(eqx.Module):
    """The scheme for one L and one step.

    Attributes:
        dt: length of a step.
        decay, half_decay: e^(hL) and e^(hL/2), of the shape of L.
        stage: Q.
        first, middle, last: A, B and C.
    """

    dt: float
    decay: Float[Array, "..."]
    half_decay: Float[Array, "..."]
    stage: Float[Array, "..."]
    first: Float[Array, "..."]
    middle: Float[Array, "..."]
    last: Float[Array, "..."]

    def __init__(self, linear: np.ndarray, dt: float):
        """The coefficients, computed in double precision.

        Args:
            linear: the real diagonal of L, of the shape of v or one that broadcasts to it.

        Raises:
            ValueError: a dt that is not positive.
        """
        self.dt = check_dt(dt)
        h = self.dt * np.asarray(linear, np.float64)
        circle = np.exp(2j * np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS)
        z = h[..., None] + circle
        e = np.exp(z)
        mean = lambda f: jnp.asarray(self.dt * f.mean(-1).real, float)
        self.decay = jnp.asarray(np.exp(h), float)
        self.half_decay = jnp.asarray(np.exp(h / 2), float)
        self.stage = mean((np.exp(z / 2) - 1) / z)
        self.first = mean((-4 - z + e * (4 - 3 * z + z**2)) / z**3)
        self.middle = mean((2 + z + e * (z - 2)) / z**3)
        self.last = mean((-4 - 3 * z - z**2 + e * (4 - z)) / z**3)

    def step(
        self, v: Inexact[Array, "..."], t: Float[Array, ""] | float, nonlinear: Nonlinear
    ) -> Inexact[Array, "..."]:
        """v at t + dt given v at t, in the precision of v; N is `nonlinear(v, t)`."""
        cast = lambda coefficient: coefficient.astype(v.real.dtype)
        half, stage = cast(self.half_decay), cast(self.stage)
        middle = t + self.dt / 2
        n_v = nonlinear(v, t)
        a = half * v + stage * n_v
        n_a = nonlinear(a, middle)
        b = half * v + stage * n_a
        n_b = nonlinear(b, middle)
        c = half * a + stage * (2 * n_b - n_v)
        n_c = nonlinear(c, t + self.dt)
        weighted = cast(self.first) * n_v + 2 * cast(self.middle) * (n_a + n_b)
        return cast(self.decay) * v + weighted + cast(self.last) * n_c
