"""x_{k+1} = A x_k + b + noise of N(0, Q): the case in which the Kalman filter is exact."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.covariance import AbstractCovariance, as_covariance
from dasim.models.base import AbstractModel


class LinearGaussian(AbstractModel):
    """A linear step with additive Gaussian noise.

    Attributes:
        matrix: A, `(n, n)`.
        offset: b, `(n,)`.
        cov: Q, or None for no noise.
        dt: length of one step.
    """

    matrix: Float[Array, "n n"]
    offset: Float[Array, " n"]
    cov: AbstractCovariance | None
    dt: float = eqx.field(static=True)

    def __init__(self, matrix, cov=None, offset=None, dt: float = 1.0):
        """See the class; `cov` may be a matrix, or standard deviations (a scalar or `(n,)`).

        Raises:
            ValueError: shapes that do not fit or a covariance that is none.
        """
        matrix = jnp.asarray(matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix has shape {matrix.shape}, expected a square one")
        n = matrix.shape[0]
        self.matrix = matrix
        self.offset = jnp.zeros(n, matrix.dtype) if offset is None else jnp.asarray(offset)
        if np.shape(self.offset) != (n,):
            raise ValueError(f"offset has shape {np.shape(self.offset)}, expected ({n},)")
        self.cov = None if cov is None else as_covariance(cov, n, "cov")
        self.dt = float(dt)

    @property
    def shape(self):
        return (self.matrix.shape[0],)

    @property
    def linear(self):
        return True

    def step(self, x, t, key):
        mean = self.matrix @ x + self.offset
        if key is None or self.cov is None:
            return mean
        return mean + self.cov.sqrt(jax.random.normal(key, x.shape, x.dtype))

    def step_cov(self, x, t):
        return self.cov
