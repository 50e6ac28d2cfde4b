r"""Covariances as operators, and ensemble anomalies.

A covariance C is used through products: `apply` (C v), `sqrt` (C^(1/2) v, the symmetric root)
and `whiten` (C^(-1/2) v).
"""

import abc

import equinox as eqx
import jax
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
    def diagonal(self) -> Float[Array, " n"]:
        """The variances."""

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

    def diagonal(self):
        return self.variance

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

    def diagonal(self):
        return self.vectors**2 @ self.values

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


def solve_definite(matrix: Float[Array, "n n"], b: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
    """matrix^-1 b of a symmetric positive definite matrix, all columns of b at once."""
    # jax.scipy.linalg.solve takes the columns one by one
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), b)


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
    ensemble: Float[Array, "member *state"], factor: Float[Array, "..."] | float
) -> Float[Array, "member *state"]:
    """Multiplicative inflation: the anomalies times `factor`, the variance times its square.

    A `factor` of the shape of a state is one for each variable.
    """
    mean = ensemble.mean(0)
    return mean + factor * (ensemble - mean)
