"""Lorenz (1996), Predictability: a problem partly solved, eq. 1."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.models.base import AbstractModel, check_dt, integrate


class Lorenz96(AbstractModel):
    """x_i' = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F on a ring of `size` sites."""

    size: int = 40
    forcing: float = 8.0
    dt: float = eqx.field(default=0.05, converter=check_dt)
    solver: diffrax.AbstractSolver | None = None

    def __check_init__(self):
        if self.size < 4:
            raise ValueError(f"Lorenz96 has {self.size} sites, expected at least 4")

    @property
    def shape(self):
        return (self.size,)

    @property
    def period(self):
        return (float(self.size),)

    def start(self, key):
        """The fixed point, perturbed."""
        return self.forcing + jax.random.normal(key, self.shape)

    def tendency(self, t, x: Float[Array, " site"]) -> Float[Array, " site"]:
        """dx/dt."""
        return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + self.forcing

    def step(self, x, t, key):
        return integrate(self.tendency, x, t, self.dt, self.solver)

    def step_cov(self, x, t):
        return None
