"""Two coupled cells of FitzHugh and Nagumo, whose rare common spikes are extreme events.

Equations and parameters of Ansmann, Karnatak, Lehnertz and Feudel (2013), Extreme events in
excitable systems and mechanisms of their generation, Phys. Rev. E 88, 052911, eq. 1.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.models.base import AbstractModel, check_dt, integrate


class FitzHughNagumo(AbstractModel):
    """x' = x (a - x) (x - 1) - y + k (x_other - x), y' = b x - c y; a state is `(x1, x2, y1, y2)`.

    `b` differs between the cells. `scale` multiplies all variables: with 5, a state is of order 1.
    """

    dt: float = eqx.field(default=0.5, converter=check_dt)
    a: float = -0.025794
    b: tuple[float, float] = eqx.field(default=(0.0065, 0.0135), converter=tuple)
    c: float = 0.02
    k: float = 0.128
    scale: float = 5.0
    solver: diffrax.AbstractSolver | None = None

    @property
    def shape(self):
        return (4,)

    def tendency(self, t, x: Float[Array, "4"]) -> Float[Array, "4"]:
        """dx/dt."""
        x, y = x.reshape(2, 2) / self.scale
        fast = x * (self.a - x) * (x - 1) - y + self.k * (x[::-1] - x)
        slow = jnp.asarray(self.b) * x - self.c * y
        return self.scale * jnp.concatenate([fast, slow])

    def step(self, x, t, key):
        return integrate(self.tendency, x, t, self.dt, self.solver)

    def step_cov(self, x, t):
        return None

    def start(self, key):
        return 0.04 * self.scale * jax.random.normal(key, self.shape)

    @property
    def spin_up(self):
        return 1500.0
