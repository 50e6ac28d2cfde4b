"""Errors that are not Gaussian: what they share, and several kinds in one cycle.

Filters that take events use each as the event that it is. An EnKF needs a Gaussian: `stand_in`
gives the best one that does not depend on the filter's own state, and a `StandInWarning` says so.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.covariance import DiagonalCovariance
from dasim.events import AbstractLaw, GaussianEvent, PointwiseEvent
from dasim.observe.base import AbstractError, Gaussian


class StandInWarning(UserWarning):
    """A filter that needs Gaussian errors was given others, and takes a Gaussian in their place."""


def positive(name: str, what: str, value) -> Float[Array, "..."]:
    """`value` as an array; a ValueError unless all of it is positive."""
    traced = isinstance(value, jax.core.Tracer)
    if not traced and not (np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0)):
        raise ValueError(f"{name}: {what} is {value}, expected positive numbers")
    return jnp.asarray(value, float)


class AbstractPointwiseError(AbstractError, AbstractLaw):
    """An error by which each number is seen by itself."""

    @abc.abstractmethod
    def gaussian(self, value, std) -> tuple[Float[Array, " obs"], Float[Array, " obs"]]:
        """Values and standard deviations of the Gaussian stand-in for readings `value`."""

    def near(self, value: Float[Array, " obs"], c: Float[Array, " obs"]) -> Float[Array, " obs"]:
        """c, or what means the same and lies nearer to the value."""
        return c

    @property
    def moves(self) -> bool:
        """Whether `near` changes anything; a stand-in of a linear operator is linear if not."""
        return type(self).near is not AbstractPointwiseError.near

    def nearest(self, obs, c):
        value = jnp.where(obs.mask, obs.value, 0.0)
        middle, std = self.gaussian(value, obs.std)
        return middle + c - self.near(middle, c), jnp.where(obs.mask, std, 1.0)

    def event(self, operator, obs):
        value = jnp.where(obs.mask, obs.value, 0.0)
        std = None if obs.std is None else jnp.where(obs.mask, obs.std, 1.0)
        return PointwiseEvent(operator, obs.time, value, obs.mask, self, std)

    def stand_in(self, operator, obs) -> GaussianEvent:
        """The Gaussian event of readings under a mask.

        Raises:
            ValueError: the error has none without more being told.
        """
        event = self.event(operator, obs)
        value, std = self.gaussian(event.value, event.std)
        value = jnp.where(obs.mask, value, 0.0)
        cov = DiagonalCovariance(jnp.where(obs.mask, std, 1.0) ** 2)
        if self.moves:
            return GaussianEvent(
                lambda x, t: self.near(value, operator(x, t)), obs.time, value, obs.mask, cov
            )
        return GaussianEvent(operator, obs.time, value, obs.mask, cov)


class StandIn(AbstractError):
    """The Gaussian stand-in of `error` in its place, for filters that could use the event.

    Attributes:
        error: of single values.
    """

    error: AbstractPointwiseError

    def event(self, operator, obs):
        return self.error.stand_in(operator, obs)

    def sample(self, c, t, key):
        return self.error.sample(c, t, key)

    def nearest(self, obs, c):
        return self.error.nearest(obs, c)


def spread(own: Float[Array, "..."], std) -> Float[Array, "..."]:
    """The standard deviations that hold: those of the observations where they have some."""
    return own if std is None else std


def log_normal(x, var):
    """log N(x; 0, var)."""
    return -0.5 * (x**2 / var + jnp.log(2 * jnp.pi * var))


class Joint(AbstractPointwiseError):
    """Several kinds of error in one cycle's values.

    Attributes:
        errors: of each kind; `Gaussian` ones by their standard deviations.
        groups: the numbers of the values that have it, of each kind.
    """

    errors: tuple[AbstractError, ...]
    groups: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def __init__(self, parts):
        """`parts`: pairs of an error and the numbers of the values that have it.

        Raises:
            ValueError: numbers that are not each of 0, 1, ... once, or a full covariance.
        """
        self.errors = tuple(_as_pointwise(error) for error, _ in parts)
        self.groups = tuple(tuple(int(i) for i in numbers) for _, numbers in parts)
        every = sorted(i for numbers in self.groups for i in numbers)
        if every != list(range(len(every))):
            raise ValueError(
                f"Joint: the parts have values {every}, expected each of 0, 1, ... once"
            )

    def _parts(self, *arrays):
        """Each error with its numbers and its share of the arrays, None where they are None."""
        for error, numbers in zip(self.errors, self.groups, strict=True):
            index = jnp.asarray(numbers)
            yield error, index, [None if a is None else jnp.asarray(a)[index] for a in arrays]

    def log_z(self, value, mean, var, std):
        total = jnp.zeros_like(mean)
        for error, index, own in self._parts(value, mean, jnp.broadcast_to(var, mean.shape), std):
            total = total.at[index].set(error.log_z(*own))
        return total

    def gaussian(self, value, std):
        values, spreads = jnp.zeros_like(value), jnp.zeros_like(value)
        for error, index, own in self._parts(value, std):
            middle, width = error.gaussian(*own)
            values, spreads = values.at[index].set(middle), spreads.at[index].set(width)
        return values, spreads

    @property
    def moves(self):
        return any(error.moves for error in self.errors)

    def near(self, value, c):
        for error, index, own in self._parts(value, c):
            c = c.at[index].set(error.near(*own))
        return c

    def sample(self, c, t, key):
        keys = jax.random.split(key, len(self.errors))
        seen = c
        for k, (error, index, (own,)) in zip(keys, self._parts(c), strict=True):
            seen = seen.at[index].set(error.sample(own, t, k))
        return seen


class _Normal(AbstractPointwiseError):
    """A Gaussian error beside others."""

    std: Float[Array, "..."]

    def log_z(self, value, mean, var, std):
        return log_normal(value - mean, var + spread(self.std, std) ** 2)

    def gaussian(self, value, std):
        return value, jnp.broadcast_to(spread(self.std, std), value.shape)

    def sample(self, c, t, key):
        return c + self.std * jax.random.normal(key, c.shape, c.dtype)


def _as_pointwise(error: AbstractError) -> AbstractPointwiseError:
    if isinstance(error, Gaussian):
        if error.std is None:
            raise ValueError("Joint: a Gaussian beside other errors has std, not cov")
        return _Normal(error.std)
    if not isinstance(error, AbstractPointwiseError):
        raise ValueError(f"Joint: {type(error).__name__} is not an error of single values")
    return error
