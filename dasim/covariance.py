r"""Covariances as operators, ensemble anomalies, and Gaspari-Cohn localisation.

A covariance C is used through products: `apply` (C v), `sqrt` (C^(1/2) v, the symmetric root)
and `whiten` (C^(-1/2) v).

The taper is the fifth-order piecewise rational function of Gaspari and Cohn (1999), eq. 4.10;
`radius` is its half-width, so it is zero from twice the radius on.
"""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class AbstractCovariance(eqx.Module):
    """A symmetric positive semi-definite operator on flat states of `size` numbers."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Length of the vectors it acts on."""

    @abc.abstractmethod
    def apply(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """C v."""

    @abc.abstractmethod
    def sqrt(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """C^(1/2) v: white noise in, a draw from N(0, C) out."""

    @abc.abstractmethod
    def whiten(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """C^(-1/2) v, zero along directions in which C is zero."""

    @abc.abstractmethod
    def log_det(self) -> Float[Array, ""]:
        """Log of the determinant."""

    @abc.abstractmethod
    def dense(self) -> Float[Array, "n n"]:
        """The matrix."""


class DiagonalCovariance(AbstractCovariance):
    """Independent components of the given `variance`, `(n,)`."""

    variance: Float[Array, " n"]

    @property
    def size(self):
        return self.variance.shape[-1]

    def apply(self, v):
        return self.variance * v

    def sqrt(self, v):
        return jnp.sqrt(self.variance) * v

    def whiten(self, v):
        return v * _inverse_root(self.variance)

    def log_det(self):
        return jnp.sum(jnp.log(self.variance))

    def dense(self):
        return jnp.diag(self.variance)


class DenseCovariance(AbstractCovariance):
    """A full matrix, held by its eigenvectors and eigenvalues.

    Build it from a matrix with `DenseCovariance.from_matrix`.
    """

    vectors: Float[Array, "n n"]
    values: Float[Array, " n"]

    @classmethod
    def from_matrix(cls, matrix: Float[Array, "n n"]) -> "DenseCovariance":
        values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
        return cls(vectors, jnp.maximum(values, 0.0))

    @property
    def size(self):
        return self.values.shape[-1]

    def apply(self, v):
        return self.vectors @ (self.values * (self.vectors.T @ v))

    def sqrt(self, v):
        return self.vectors @ (jnp.sqrt(self.values) * (self.vectors.T @ v))

    def whiten(self, v):
        return self.vectors @ (_inverse_root(self.values) * (self.vectors.T @ v))

    def log_det(self):
        return jnp.sum(jnp.log(self.values))

    def dense(self):
        return (self.vectors * self.values) @ self.vectors.T


def _inverse_root(values):
    return jnp.where(values > 0, 1 / jnp.sqrt(jnp.where(values > 0, values, 1.0)), 0.0)


def as_covariance(value, size: int, what: str = "covariance") -> AbstractCovariance:
    """A covariance from a scalar standard deviation, `(size,)` standard deviations or a matrix.

    Raises:
        ValueError: of another shape, not finite, or not positive semi-definite.
    """
    if isinstance(value, AbstractCovariance):
        if value.size != size:
            raise ValueError(f"{what} acts on {value.size} numbers, the state has {size}")
        return value
    array = np.asarray(value, dtype=float)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{what} has values that are not finite: {array}")
    if array.ndim == 2:
        if array.shape != (size, size):
            raise ValueError(f"{what} has shape {array.shape}, expected ({size}, {size})")
        if not np.allclose(array, array.T, rtol=1e-5, atol=1e-8 * np.abs(array).max()):
            raise ValueError(f"{what} is not symmetric")
        lowest = np.linalg.eigvalsh(array).min()
        if lowest < -1e-6 * np.abs(array).max():
            raise ValueError(f"{what} is not positive semi-definite: eigenvalue {lowest:.3g}")
        return DenseCovariance.from_matrix(jnp.asarray(array))
    if array.shape not in ((), (size,)):
        raise ValueError(
            f"{what} has shape {array.shape}, expected a scalar, ({size},) or a matrix"
        )
    if np.any(array < 0):
        raise ValueError(f"{what}: a standard deviation is negative: {array.min():.3g}")
    return DiagonalCovariance(jnp.broadcast_to(jnp.asarray(array**2), (size,)))


def flatten(ensemble: Float[Array, "member *state"]) -> Float[Array, "member n"]:
    """Members as flat vectors."""
    return ensemble.reshape(ensemble.shape[0], -1)


def anomalies(
    ensemble: Float[Array, "member n"],
) -> tuple[Float[Array, " n"], Float[Array, "member n"]]:
    """The ensemble mean, and the deviations from it divided by sqrt(member - 1)."""
    mean = ensemble.mean(0)
    return mean, (ensemble - mean) / jnp.sqrt(ensemble.shape[0] - 1.0)


def inflate(
    ensemble: Float[Array, "member *state"], factor: Float[Array, ""] | float
) -> Float[Array, "member *state"]:
    """Multiplicative inflation: the anomalies times `factor`, the variance times its square."""
    mean = ensemble.mean(0)
    return mean + factor * (ensemble - mean)


def gaspari_cohn(distance: Float[Array, "..."], radius) -> Float[Array, "..."]:
    """The taper at `distance`, 1 at zero and 0 from 2 `radius` on (Gaspari and Cohn 1999, 4.10)."""
    r = distance / radius
    near = 1 + r**2 * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    safe = jnp.maximum(r, 1.0)
    far = 4 - 5 * safe + safe**2 * (5 / 3 + safe * (5 / 8 + safe * (-1 / 2 + safe / 12)))
    far = far - 2 / (3 * safe)
    return jnp.where(r < 1, near, jnp.where(r < 2, jnp.maximum(far, 0.0), 0.0))


def distances(a: Float[Array, "i d"], b: Float[Array, "j d"], period=None) -> Float[Array, "i j"]:
    """Euclidean distances between points; `period` gives each axis' length, inf for none."""
    difference = jnp.abs(a[:, None, :] - b[None, :, :])
    if period is not None:
        wrapped = jnp.mod(difference, jnp.where(jnp.isinf(period), 1.0, period))
        shortest = jnp.minimum(wrapped, period - wrapped)
        difference = jnp.where(jnp.isinf(period), difference, shortest)
    return jnp.sqrt(jnp.sum(difference**2, -1))


class Localization(eqx.Module):
    """Gaspari-Cohn tapers among state variables and observations.

    Attributes:
        radius: half-width of the taper, in the units of the coordinates.
        state_distance: `(n, n)`; obs_distance: `(n, obs)`; obs_obs_distance: `(obs, obs)`.
    """

    radius: Float[Array, ""]
    state_distance: Float[Array, "n n"]
    obs_distance: Float[Array, "n obs"]
    obs_obs_distance: Float[Array, "obs obs"]

    def __init__(
        self, radius, state_coords, obs_coords, period: Sequence[float | None] | None = None
    ):
        """Tapers of half-width `radius` from coordinates.

        Args:
            radius: half-width, positive.
            state_coords: coordinates of the flat state's variables, `(n,)` or `(n, d)`.
            obs_coords: coordinates of the observations, `(obs,)` or `(obs, d)`.
            period: length of each axis that closes on itself; None or inf for one that does not.

        Raises:
            ValueError: a radius that is not positive, or coordinates of different dimension.
        """
        if isinstance(radius, int | float) and not radius > 0:
            raise ValueError(
                f"localization radius is {radius}, expected a positive half-width; "
                "leave localization out to switch it off"
            )
        state, obs = (
            jnp.asarray(c, float).reshape(np.shape(c)[0], -1) for c in (state_coords, obs_coords)
        )
        if state.shape[1] != obs.shape[1]:
            raise ValueError(
                f"state coordinates have {state.shape[1]} axes, observations {obs.shape[1]}"
            )
        if period is not None:
            lengths = [np.inf if p is None else float(p) for p in np.atleast_1d(period)]
            if len(lengths) != state.shape[1] or not all(p > 0 for p in lengths):
                raise ValueError(
                    f"period is {period}, expected a positive length (or None) "
                    f"for each of {state.shape[1]} axes"
                )
            period = jnp.asarray(lengths)
        self.radius = jnp.asarray(radius, float)
        self.state_distance = distances(state, state, period)
        self.obs_distance = distances(state, obs, period)
        self.obs_obs_distance = distances(obs, obs, period)

    @property
    def state_state(self) -> Float[Array, "n n"]:
        return gaspari_cohn(self.state_distance, self.radius)

    @property
    def state_obs(self) -> Float[Array, "n obs"]:
        return gaspari_cohn(self.obs_distance, self.radius)

    @property
    def obs_obs(self) -> Float[Array, "obs obs"]:
        return gaspari_cohn(self.obs_obs_distance, self.radius)


def ring(size: int, sites, radius) -> Localization:
    """Localisation on a ring of `size` grid points with observations at the indices `sites`."""
    return Localization(radius, np.arange(size), np.asarray(sites), period=[size])
