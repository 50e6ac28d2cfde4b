r"""Counts, and directions.

A count y of a rate c has p(y | c) = c^y e^-c / y!, as a function of c a gamma density, whose mean
over c ~ N(m, v), c > 0, is taken on a grid about the mass of the product. A direction is seen up to
whole turns: its error is a normal law wrapped around the circle.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from dasim.events.normal import log_interval
from dasim.observe.pointwise import AbstractPointwiseError, log_normal, positive, spread

GRID, REACH = 129, 8.0  # points, and standard deviations to each side
TURNS = 2  # to each side


class Poisson(AbstractPointwiseError):
    """A count whose expected value is the exact one.

    Attributes:
        least: smallest rate; what the operator gives below is taken for it.
    """

    least: float = eqx.field(static=True, default=1e-3)

    def __check_init__(self):
        positive("Poisson", "least", self.least)

    def _log_p(self, value, c):
        return value * jnp.log(c) - c - gammaln(value + 1)

    def log_z(self, value, mean, var, std):
        certain = var <= 0
        safe = jnp.where(certain, 1.0, var)
        at = self._log_p(value, jnp.maximum(mean, self.least))
        # bounds of the product's mass; the integral does not depend on them
        m, v = jax.lax.stop_gradient(mean), jax.lax.stop_gradient(safe)
        precision = 1 / v + 1 / (value + 1)
        middle, width = (m / v + 1) / precision, REACH / jnp.sqrt(precision)
        middle = jnp.maximum(middle, 0.0)
        low = jnp.maximum(middle - width, self.least)
        share = jnp.linspace(0.0, 1.0, GRID, dtype=mean.dtype)[:, None]
        c = low + share * (middle + width + self.least - low)
        each = self._log_p(value, c) + log_normal(c - mean, safe)
        # the trapezoidal rule: of a count of zero the density ends abruptly
        each = each.at[jnp.array([0, -1])].add(-jnp.log(2.0))
        found = jax.nn.logsumexp(each, axis=0) + jnp.log(c[1] - c[0])
        return jnp.where(certain, at, found)

    def gaussian(self, value, std):
        # the mean and variance of the rate given the count alone
        return value + 1.0, jnp.sqrt(value + 1.0)

    def sample(self, c, t, key):
        return jax.random.poisson(key, jnp.maximum(c, self.least)).astype(c.dtype)


class Circular(AbstractPointwiseError):
    """A direction.

    Attributes:
        std: standard deviation of the error, a number or `(obs,)`, in the direction's unit.
        period: of the directions, 360 degrees.
        step: readings are whole multiples of it; None for readings that are not quantised.
    """

    std: Float[Array, "..."]
    period: float = eqx.field(static=True)
    step: float | None = eqx.field(static=True)

    def __init__(self, std, period=360.0, step=None):
        """Raises ValueError for what is not positive."""
        self.std = positive("Circular", "std", std)
        positive("Circular", "period", period)
        if step is not None:
            positive("Circular", "step", step)
        self.period, self.step = float(period), None if step is None else float(step)

    def near(self, value, c):
        turns = jax.lax.stop_gradient(jnp.round((c - value) / self.period))
        return c - self.period * turns

    def log_z(self, value, mean, var, std):
        total = var + spread(self.std, std) ** 2
        turns = jnp.arange(-TURNS, TURNS + 1, dtype=mean.dtype)[:, None] * self.period
        away = value - self.near(value, mean) + turns
        if self.step is None:
            return jax.nn.logsumexp(log_normal(away, total), axis=0)
        wide, half = jnp.sqrt(total), 0.5 * self.step
        each = log_interval((away - half) / wide, (away + half) / wide)
        return jax.nn.logsumexp(each, axis=0)

    def gaussian(self, value, std):
        own = spread(self.std, std)
        wide = own if self.step is None else jnp.sqrt(own**2 + self.step**2 / 12)
        return value, jnp.broadcast_to(wide, value.shape)

    def sample(self, c, t, key):
        noisy = c + self.std * jax.random.normal(key, c.shape, c.dtype)
        if self.step is not None:
            noisy = self.step * jnp.round(noisy / self.step)
        return jnp.mod(noisy, self.period)
