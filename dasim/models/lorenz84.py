"""Lorenz (1984), Irregularity: a fundamental property of the atmosphere, eqs. 1-3.

x is the strength of the westerlies, y and z are the two phases of a wave; the unit of time is
five days.
"""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.models.base import AbstractModel, check_dt, integrate


class Lorenz84(AbstractModel):
    """x' = -y^2 - z^2 - a x + a F, y' = x y - b x z - y + G, z' = b x y + x z - z.

    F is `forcing` and G is `asymmetry`; a state is `(3,)`.
    """

    dt: float = eqx.field(default=0.05, converter=check_dt)
    a: float = 0.25
    b: float = 4.0
    forcing: float = 8.0
    asymmetry: float = 1.23
    solver: diffrax.AbstractSolver | None = None

    @property
    def shape(self):
        return (3,)

    def tendency(self, t, x: Float[Array, "3"]) -> Float[Array, "3"]:
        """dx/dt."""
        x, y, z = x
        return jnp.stack(
            [
                -(y**2) - z**2 - self.a * (x - self.forcing),
                x * y - self.b * x * z - y + self.asymmetry,
                self.b * x * y + x * z - z,
            ]
        )

    def step(self, x, t, key):
        return integrate(self.tendency, x, t, self.dt, self.solver)

    def step_cov(self, x, t):
        return None
