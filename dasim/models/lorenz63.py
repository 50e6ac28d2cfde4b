"""Lorenz (1963), Deterministic nonperiodic flow, eqs. 25-27."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.models.base import AbstractModel, check_dt, integrate


class Lorenz63(AbstractModel):
    """x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z; a state is `(3,)`."""

    dt: float = eqx.field(default=0.01, converter=check_dt)
    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3
    solver: diffrax.AbstractSolver | None = None

    @property
    def shape(self):
        return (3,)

    def tendency(self, t, x: Float[Array, "3"]) -> Float[Array, "3"]:
        """dx/dt."""
        a, b, c = x
        return jnp.stack([self.sigma * (b - a), a * (self.rho - c) - b, a * b - self.beta * c])

    def step(self, x, t, key):
        return integrate(self.tendency, x, t, self.dt, self.solver)

    def step_cov(self, x, t):
        return None
