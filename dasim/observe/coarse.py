r"""Instruments that tell less than a number: saturated, quantised, yes or no.

What is read is a coarse function of c + N(0, std^2): the reading is the event that this lies in an
interval, of probability Phi((high - m) / w) - Phi((low - m) / w), w^2 = v + std^2, under
c ~ N(m, v); in logarithms that hold far out in the tails (`dasim.events.normal`).

The Gaussian stand-in, with `climate` = (mean, std) of c: the site of `dasim.events.pointwise`
under that normal law, which leaves the moments of c given the reading.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.events.normal import log_interval
from dasim.events.pointwise import site
from dasim.observe.pointwise import AbstractPointwiseError, log_normal, positive, spread

Climate = tuple[Float[Array, "..."], Float[Array, "..."]]


def _climate(name: str, climate) -> Climate | None:
    if climate is None:
        return None
    mean, std = climate
    return jnp.asarray(mean, float), positive(name, "the climate's std", std)


class _AbstractCoarse(AbstractPointwiseError):
    """A reading that is an interval, or a number that is read as it is."""

    std: eqx.AbstractVar[Float[Array, "..."]]
    climate: eqx.AbstractVar[Climate | None]

    @abc.abstractmethod
    def interval(self, value) -> tuple[Array, Array]:
        """Its ends; both are the reading where it is read as it is."""

    @abc.abstractmethod
    def _plain(self, value, std):
        """The stand-in without a climate."""

    @abc.abstractmethod
    def read(self, noisy: Float[Array, " obs"]) -> Float[Array, " obs"]:
        """What is read of an exact value with its noise."""

    def log_z(self, value, mean, var, std):
        low, high = self.interval(value)
        exact = low == high
        total = var + spread(self.std, std) ** 2
        wide = jnp.sqrt(total)
        ends = [jnp.where(exact, a, (b - mean) / wide) for a, b in ((-1.0, low), (1.0, high))]
        return jnp.where(exact, log_normal(value - mean, total), log_interval(*ends))

    def gaussian(self, value, std):
        own = jnp.broadcast_to(spread(self.std, std), value.shape)
        if self.climate is None:
            return self._plain(value, own)
        mean, width = (jnp.broadcast_to(a, value.shape).astype(value.dtype) for a in self.climate)
        shift, precision, _ = site(self, value, mean, width**2, own)
        return shift / precision, 1 / jnp.sqrt(precision)

    def nearest(self, obs, c):
        low, high = self.interval(jnp.where(obs.mask, obs.value, 0.0))
        std = jnp.broadcast_to(spread(self.std, obs.std), c.shape)
        return jnp.clip(c, low, high), jnp.where(obs.mask, std, 1.0)

    def sample(self, c, t, key):
        return self.read(c + self.std * jax.random.normal(key, c.shape, c.dtype))


class Censored(_AbstractCoarse):
    """A detection limit below, a saturation above, or both; between them a normal error.

    Attributes:
        std: standard deviation of the error, a number or `(obs,)`.
        low, high: limits; a reading at or beyond one says no more than that. None for none.
        climate: mean and standard deviation of the exact value, for the Gaussian stand-in. Without
            it a reading at a limit is taken as any other.
    """

    std: Float[Array, "..."]
    low: Float[Array, "..."] | None
    high: Float[Array, "..."] | None
    climate: Climate | None

    def __init__(self, std, low=None, high=None, climate=None):
        """Raises ValueError without a limit, or for limits or a std that make no sense."""
        if low is None and high is None:
            raise ValueError("Censored: give low, high or both; without a limit it is Gaussian")
        self.std = positive("Censored", "std", std)
        self.low = None if low is None else jnp.asarray(low, float)
        self.high = None if high is None else jnp.asarray(high, float)
        if None not in (self.low, self.high) and not jnp.all(self.low < self.high):
            raise ValueError(f"Censored: low is {low}, expected below high, {high}")
        self.climate = _climate("Censored", climate)

    def interval(self, value):
        low, high = value, value
        if self.low is not None:
            below = value <= self.low
            low, high = jnp.where(below, -jnp.inf, low), jnp.where(below, self.low, high)
        if self.high is not None:
            above = value >= self.high
            low, high = jnp.where(above, self.high, low), jnp.where(above, jnp.inf, high)
        return low, high

    def _plain(self, value, std):
        return self.read(value), std

    def read(self, noisy):
        return jnp.clip(noisy, self.low, self.high)


class Quantised(_AbstractCoarse):
    """A reading in whole steps: y for all between y - step / 2 and y + step / 2.

    Attributes:
        step: of the readings, which are its multiples plus `offset`.
        std: standard deviation of the error before the reading, a number or `(obs,)`.
        climate: see `Censored`; without it the stand-in has the variance std^2 + step^2 / 12, that
            of a uniform law over the step beside the error's.
    """

    step: Float[Array, "..."]
    std: Float[Array, "..."]
    offset: Float[Array, "..."]
    climate: Climate | None

    def __init__(self, step, std, offset=0.0, climate=None):
        """Raises ValueError for a step or std that is not positive."""
        self.step = positive("Quantised", "step", step)
        self.std = positive("Quantised", "std", std)
        self.offset = jnp.asarray(offset, float)
        self.climate = _climate("Quantised", climate)

    def interval(self, value):
        return value - 0.5 * self.step, value + 0.5 * self.step

    def _plain(self, value, std):
        return value, jnp.sqrt(std**2 + self.step**2 / 12)

    def read(self, noisy):
        return jnp.round((noisy - self.offset) / self.step) * self.step + self.offset


class Threshold(_AbstractCoarse):
    """Yes (1) where the value with its noise is at or above a level, no (0) where it is below.

    Attributes:
        level: a number or `(obs,)`.
        std: standard deviation of the error before the comparison.
        climate: see `Censored`; without it there is no Gaussian stand-in.
    """

    level: Float[Array, "..."]
    std: Float[Array, "..."]
    climate: Climate | None

    def __init__(self, level, std, climate=None):
        """Raises ValueError for a std that is not positive."""
        self.level = jnp.asarray(level, float)
        self.std = positive("Threshold", "std", std)
        self.climate = _climate("Threshold", climate)

    def interval(self, value):
        yes = value > 0.5
        return jnp.where(yes, self.level, -jnp.inf), jnp.where(yes, jnp.inf, self.level)

    def _plain(self, value, std):
        raise ValueError(
            "Threshold has no Gaussian stand-in unless it knows the climate: give climate=(mean, "
            "std) of the exact value, or take a filter that uses events"
        )

    def read(self, noisy):
        return jnp.where(noisy >= self.level, 1.0, 0.0).astype(noisy.dtype)
