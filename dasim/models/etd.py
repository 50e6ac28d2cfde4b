r"""Exponential time differencing for v' = L v + N(v, t) with a diagonal L, real or complex.

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

    The coefficients are real for a real L, as of diffusion, and complex for a complex one, as of
    waves: then v is complex, too.

    Attributes:
        dt: length of a step.
        decay, half_decay: e^(hL) and e^(hL/2), of the shape of L.
        stage: Q.
        first, middle, last: A, B and C.
    """

    dt: float
    decay: Inexact[Array, "..."]
    half_decay: Inexact[Array, "..."]
    stage: Inexact[Array, "..."]
    first: Inexact[Array, "..."]
    middle: Inexact[Array, "..."]
    last: Inexact[Array, "..."]

    def __init__(self, linear: np.ndarray, dt: float):
        """The coefficients, computed in double precision.

        Args:
            linear: the diagonal of L, of the shape of v or one that broadcasts to it.

        Raises:
            ValueError: a dt that is not positive.
        """
        self.dt = check_dt(dt)
        number = complex if np.iscomplexobj(linear) else float
        h = self.dt * np.asarray(linear, number)
        circle = np.exp(2j * np.pi * (np.arange(CONTOUR_POINTS) + 0.5) / CONTOUR_POINTS)
        z = h[..., None] + circle
        e = np.exp(z)
        part = np.asarray if number is complex else np.real
        mean = lambda f: jnp.asarray(self.dt * part(f.mean(-1)), number)
        self.decay = jnp.asarray(np.exp(h), number)
        self.half_decay = jnp.asarray(np.exp(h / 2), number)
        self.stage = mean((np.exp(z / 2) - 1) / z)
        self.first = mean((-4 - z + e * (4 - 3 * z + z**2)) / z**3)
        self.middle = mean((2 + z + e * (z - 2)) / z**3)
        self.last = mean((-4 - 3 * z - z**2 + e * (4 - z)) / z**3)

    def step(
        self, v: Inexact[Array, "..."], t: Float[Array, ""] | float, nonlinear: Nonlinear
    ) -> Inexact[Array, "..."]:
        """v at t + dt given v at t, in the precision of v; N is `nonlinear(v, t)`.

        Raises:
            ValueError: a complex L and a real v.
        """
        waves = jnp.iscomplexobj(self.decay)
        if waves and not jnp.iscomplexobj(v):
            raise ValueError(f"v is of {v.dtype}, expected complex numbers as L is complex")
        number = v.dtype if waves else v.real.dtype
        cast = lambda coefficient: coefficient.astype(number)
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
