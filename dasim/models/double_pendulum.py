"""The double pendulum: two bobs of unit mass on rods of unit length, in unit gravity.

Its equations are those of Lagrange for

    L = w1^2 + w2^2 / 2 + w1 w2 cos(q1 - q2) + 2 cos q1 + cos q2.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.models.base import AbstractModel, check_dt, integrate


class DoublePendulum(AbstractModel):
    """A state is `(q1, q2, w1, w2)`: angles to the vertical and their rates.

    Energy is conserved, so there is no one climate: states are drawn as `start` says.
    """

    dt: float = eqx.field(default=0.02, converter=check_dt)
    solver: diffrax.AbstractSolver | None = None

    @property
    def shape(self):
        return (4,)

    def mass(self, q: Float[Array, "2"]) -> Float[Array, "2 2"]:
        """The matrix M of the kinetic energy w M w / 2."""
        cosine = jnp.cos(q[0] - q[1])
        return jnp.diag(jnp.array([2.0, 1.0])) + cosine * (1 - jnp.eye(2))

    def energy(self, x: Float[Array, "4"]) -> Float[Array, ""]:
        """Kinetic and potential energy, -3 at rest."""
        q, w = x[:2], x[2:]
        return 0.5 * w @ self.mass(q) @ w - 2 * jnp.cos(q[0]) - jnp.cos(q[1])

    def tendency(self, t, x: Float[Array, "4"]) -> Float[Array, "4"]:
        """dx/dt."""
        q, w = x[:2], x[2:]
        sine, cosine = jnp.sin(q[0] - q[1]), jnp.cos(q[0] - q[1])
        first = -sine * w[1] ** 2 - 2 * jnp.sin(q[0])
        second = sine * w[0] ** 2 - jnp.sin(q[1])
        det = 2 - cosine**2
        rates = jnp.stack([first - cosine * second, 2 * second - cosine * first]) / det
        return jnp.concatenate([w, rates])

    def step(self, x, t, key):
        return integrate(self.tendency, x, t, self.dt, self.solver)

    def step_cov(self, x, t):
        return None

    def start(self, key):
        """Angles N(0, 1), momenta N(0, 0.2^2) and N(0, 0.3^2) (Finzi et al. 2023, app. B)."""
        q, p = jax.random.normal(key, (2, 2))
        momentum = jnp.array([0.2, 0.3]) * p
        return jnp.concatenate([q, jnp.linalg.solve(self.mass(q), momentum)])

    @property
    def spin_up(self):
        return 0.0

    @property
    def angles(self):
        return (0, 1)
