r"""Lorenz (1996), Predictability: a problem partly solved, eqs. 2-3, in the form of Wilks (2005).

Each of K slow variables drives J fast ones, which lie on one ring of K J sites:

    X_k' = X_{k-1} (X_{k+1} - X_{k-2}) - X_k + F - (h c / b) sum_j Y_{j,k}
    Y_{j,k}' = c b Y_{j+1,k} (Y_{j-1,k} - Y_{j+2,k}) - c Y_{j,k} + (h c / b) X_k

with Y_{J+1,k} = Y_{1,k+1}. The coupling moves energy between the scales and makes none.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.models.base import AbstractModel, check_dt, integrate


class TwoScaleLorenz96(AbstractModel):
    """A state is flat, `(slow * (1 + fast),)`: X first, then Y sector by sector.

    Attributes:
        slow: K.
        fast: J, the fast variables of one slow variable.
        forcing: F.
        coupling: h.
        space_ratio: b, the ratio of the amplitudes.
        time_ratio: c, the ratio of the speeds.
    """

    slow: int = 8
    fast: int = 32
    forcing: float = 20.0
    coupling: float = 1.0
    space_ratio: float = 10.0
    time_ratio: float = 10.0
    dt: float = eqx.field(default=0.005, converter=check_dt)
    solver: diffrax.AbstractSolver | None = None

    def __check_init__(self):
        if self.slow < 4:
            raise ValueError(f"slow is {self.slow}, expected at least 4 sites")
        if self.fast < 1:
            raise ValueError(f"fast is {self.fast}, expected at least 1 variable a slow one")

    @property
    def shape(self):
        return (self.slow * (1 + self.fast),)

    @property
    def coords(self):
        """X_k at k, and its fast variables side by side around it."""
        sector = np.arange(self.slow)
        within = (np.arange(self.fast) + 0.5) / self.fast - 0.5
        fast = (sector[:, None] + within).ravel()
        return np.concatenate([sector, fast])[:, None]

    @property
    def period(self):
        return (float(self.slow),)

    def start(self, key):
        """X as for Lorenz-96, Y smaller by `space_ratio`."""
        noise = jax.random.normal(key, self.shape)
        return jnp.concatenate(
            [self.forcing + noise[: self.slow], noise[self.slow :] / self.space_ratio]
        )

    def tendency(self, t, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """dx/dt."""
        exchange = self.coupling * self.time_ratio / self.space_ratio
        s, f = x[: self.slow], x[self.slow :]
        slow = jnp.roll(s, 1) * (jnp.roll(s, -1) - jnp.roll(s, 2)) - s + self.forcing
        slow = slow - exchange * f.reshape(self.slow, self.fast).sum(1)
        advection = self.space_ratio * jnp.roll(f, -1) * (jnp.roll(f, 1) - jnp.roll(f, -2))
        fast = self.time_ratio * (advection - f) + exchange * jnp.repeat(s, self.fast)
        return jnp.concatenate([slow, fast])

    def step(self, x, t, key):
        return integrate(self.tendency, x, t, self.dt, self.solver)

    def step_cov(self, x, t):
        return None
