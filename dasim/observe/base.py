"""Observations: an operator and an error model; Gaussian errors."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dasim.covariance import AbstractCovariance, DenseCovariance, DiagonalCovariance, as_covariance
from dasim.events import AbstractEvent, GaussianEvent
from dasim.observe.quality import AbstractCheck, Innovation
from dasim.types import DataError, Ensemble, Key, Observations, State


class AbstractError(eqx.Module):
    """The law of an observed value given the exact one."""

    @abc.abstractmethod
    def sample(self, c: Float[Array, " obs"], t, key: Key) -> Float[Array, " obs"]:
        """An observed value given the exact `c`."""

    @abc.abstractmethod
    def event(self, operator, obs: Observations) -> AbstractEvent:
        """The event that one cycle's observations make known."""

    def nearest(
        self, obs: Observations, c: Float[Array, " obs"]
    ) -> tuple[Float[Array, " obs"], Float[Array, " obs"]]:
        """Of the values that a reading may stand for the nearest to c, and its error's std.

        Raises:
            TypeError: an error model that has none, which quality control cannot judge.
        """
        raise TypeError(f"{type(self).__name__} tells quality control nothing: leave checks out")


class Gaussian(AbstractError):
    """Additive normal errors.

    Attributes:
        std: standard deviation, a scalar or `(obs,)`; None where `cov` is given.
        cov: full error covariance R, `(obs, obs)`; None where `std` is given.
    """

    std: Float[Array, "..."] | None
    cov: Float[Array, "obs obs"] | None

    def __init__(self, std=None, cov=None):
        """Give one of `std` and `cov`.

        Raises:
            ValueError: both or neither, a std that is not positive, or a cov that is not
                symmetric positive definite.
        """
        if (std is None) == (cov is None):
            raise ValueError("Gaussian takes either std or cov: give exactly one of them")
        if std is not None and not isinstance(std, jax.core.Tracer):
            if not np.all(np.isfinite(std)) or not np.all(np.asarray(std) > 0):
                raise ValueError(f"Gaussian: std is {std}, expected positive numbers")
        if cov is not None:
            as_covariance(cov, np.shape(cov)[0], "Gaussian: cov")
            if np.linalg.eigvalsh(np.asarray(cov)).min() <= 0:
                raise ValueError("Gaussian: cov is not positive definite")
        self.std = None if std is None else jnp.asarray(std, float)
        self.cov = None if cov is None else jnp.asarray(cov, float)

    def covariance(self, mask: Bool[Array, " obs"], std=None) -> AbstractCovariance:
        """R with the rows and columns of masked values those of the identity.

        `std`, where given, takes the place of the standard deviations and keeps correlations.
        """
        if self.cov is None:
            scale = self.std if std is None else std
            return DiagonalCovariance(jnp.where(mask, scale, 1.0) ** 2 * jnp.ones(mask.shape))
        matrix = self.cov
        if std is not None:
            ratio = std / jnp.sqrt(jnp.diag(matrix))
            matrix = matrix * ratio[:, None] * ratio[None, :]
        both = mask[:, None] & mask[None, :]
        return DenseCovariance.from_matrix(
            jnp.where(both, matrix, jnp.eye(len(mask), dtype=matrix.dtype))
        )

    def sample(self, c, t, key):
        noise = jax.random.normal(key, c.shape, c.dtype)
        return c + self.covariance(jnp.ones(c.shape, bool)).sqrt(noise)

    def nearest(self, obs, c):
        own = jnp.sqrt(self.covariance(obs.mask, obs.std).diagonal())
        return jnp.where(obs.mask, obs.value, 0.0), own

    def event(self, operator, obs):
        # a NaN under a false mask would poison gradients and products with zero
        value = jnp.where(obs.mask, obs.value, 0.0)
        cov = self.covariance(obs.mask, obs.std)
        return GaussianEvent(operator, obs.time, value, obs.mask, cov)


def along_track(
    std: float, distance: Float[np.ndarray, " obs"], length: float, independent: float = 0.0
) -> Gaussian:
    """Gaussian errors correlated along a track, as exp(-separation / length).

    Args:
        std: standard deviation of the whole error.
        distance: of each value along the track, in the unit of `length`.
        independent: share of the variance that is each value's own.

    Raises:
        ValueError: a length that is not positive, a share outside [0, 1), or two values at one
            place with nothing of their own, whose covariance would be singular.
    """
    distance = np.asarray(distance, float)
    if not length > 0 or not 0 <= independent < 1:
        raise ValueError(
            f"along_track: length is {length} and independent {independent}, expected a positive "
            "length and a share in [0, 1)"
        )
    apart = np.abs(distance[:, None] - distance)
    if independent == 0 and len(distance) > 1 and len(np.unique(distance)) < len(distance):
        raise ValueError("along_track: two values at one distance; give a share `independent`")
    correlation = (1 - independent) * np.exp(-apart / length) + independent * np.eye(len(distance))
    return Gaussian(cov=std**2 * correlation)


class Observation(eqx.Module):
    """p(y | x) at a cycle: `operator(x, t)` seen through `error`.

    Attributes:
        operator: any JAX function of a state and the time, to `(obs,)`.
        error: the error model.
        checks: quality control against the forecast, in this order; filters that make no
            ensemble forecast refuse it.
    """

    operator: Callable[[State, Float[Array, ""]], Float[Array, " obs"]]
    error: AbstractError
    checks: tuple[AbstractCheck, ...] = ()

    def event(self, obs: Observations) -> AbstractEvent:
        """One cycle's observations as an event about the state."""
        return self.error.event(self.operator, obs)

    def screened(self, obs: Observations, forecast: Ensemble) -> Observations:
        """One cycle's observations without those that the checks leave out."""
        if not self.checks:
            return obs
        c = jax.vmap(lambda x: self.operator(x, obs.time))(forecast)
        value, std = self.error.nearest(obs, c.mean(0))
        anomalies = (c - c.mean(0)) / (len(c) - 1) ** 0.5
        mask = obs.mask
        for check in self.checks:
            difference = jnp.where(mask, value - c.mean(0), 0.0)
            mask = mask & check(Innovation(difference, anomalies, std**2, mask))
        return Observations(obs.time, obs.value, mask, obs.std)

    def sample(self, x: State, t, key: Key) -> Float[Array, " obs"]:
        """A synthetic observation of `x`."""
        return self.error.sample(self.operator(x, t), t, key)

    def n_obs(self, x: State) -> int:
        """Number of values that the operator gives."""
        shape = jax.eval_shape(self.operator, x, jnp.zeros(())).shape
        if len(shape) != 1:
            raise ValueError(f"the observation operator gives shape {shape}, expected (obs,)")
        return shape[0]


class Select(eqx.Module):
    """The operator that reads the flat state at `indices`, `(obs,)`, then applies `function`."""

    indices: tuple[int, ...] = eqx.field(static=True)
    function: Callable[[Array], Array] | None = eqx.field(static=True)

    def __init__(self, indices, function: Callable[[Array], Array] | None = None):
        self.indices = tuple(int(i) for i in indices)
        self.function = function

    @property
    def linear(self) -> bool:
        return self.function is None

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        values = x.reshape(-1)[jnp.asarray(self.indices)]
        return values if self.function is None else self.function(values)


def check_observations(observations: Observations, n_obs: int | None = None, where="observations"):
    """Refuse shapes that do not fit and values that no filter can use.

    Raises:
        DataError: naming the first bad variable, cycle and index.
    """
    time, value, mask = map(np.asarray, (observations.time, observations.value, observations.mask))
    if value.ndim != 2 or mask.shape != value.shape or time.shape != value.shape[:1]:
        raise DataError(
            f"{where}: time {time.shape}, value {value.shape} and mask {mask.shape} do not fit; "
            "expected (cycle,), (cycle, obs) and (cycle, obs)"
        )
    if n_obs is not None and value.shape[1] != n_obs:
        raise DataError(
            f"{where}: value has {value.shape[1]} observations a cycle, the operator gives {n_obs}"
        )
    if mask.dtype != bool:
        raise DataError(f"{where}: mask has type {mask.dtype}, expected bool")
    fields = {"value": value}
    if observations.std is not None:
        fields["std"] = np.asarray(observations.std)
        if fields["std"].shape != value.shape:
            raise DataError(f"{where}: std has shape {fields['std'].shape}, expected {value.shape}")
    for name, array in fields.items():
        bad = mask & ~np.isfinite(array) if name == "value" else mask & ~(array > 0)
        if bad.any():
            cycle, index = np.argwhere(bad)[0]
            wanted = "a finite number" if name == "value" else "a positive number"
            raise DataError(
                f"{where}: {name}[{cycle}, {index}] (cycle {cycle}, observation {index}) is "
                f"{array[cycle, index]}, expected {wanted}; "
                f"{int(bad.sum())} such values. Set mask to false where a value is missing."
            )
