r"""Events: what is known of a state, as a constraint and the probability that it holds.

An event E has a constraint c = C(x); `log_prob` is log P(E | c ~ N(c_mean, c_cov)). An
observation y = h(x) + noise is the event of C = h whose probability under a normal c is

    log N(y; c_mean, c_cov + R).
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dasim.covariance import AbstractCovariance
from dasim.types import State


class AbstractEvent(eqx.Module):
    """Something known of a state."""

    @abc.abstractmethod
    def constraint(self, x: State) -> Float[Array, " obs"]:
        """c = C(x)."""

    @abc.abstractmethod
    def log_prob(
        self, c_mean: Float[Array, " obs"], c_cov: Float[Array, "obs obs"] | None
    ) -> Float[Array, ""]:
        """log P(E | c ~ N(c_mean, c_cov)); None stands for c known exactly."""


class GaussianEvent(AbstractEvent):
    """y = operator(x, time) + N(0, R), with the values under a false mask left out.

    Attributes:
        operator: function of (x, t) to `(obs,)`.
        time: time of the observation.
        value: y, `(obs,)`.
        mask: `(obs,)`.
        cov: R; rows and columns of masked values are those of the identity, so that a
            masked value, whose constraint is constant, moves nothing.
    """

    operator: Callable[[State, Float[Array, ""]], Float[Array, " obs"]]
    time: Float[Array, ""]
    value: Float[Array, " obs"]
    mask: Bool[Array, " obs"]
    cov: AbstractCovariance

    @property
    def linear(self) -> bool:
        """Whether the operator says of itself that it is linear."""
        return getattr(self.operator, "linear", False)

    def constraint(self, x):
        return jnp.where(self.mask, self.operator(x, self.time), 0.0)

    def innovation(self, c: Float[Array, " obs"]) -> Float[Array, " obs"]:
        """y - c, zero where nothing was observed."""
        return jnp.where(self.mask, self.value - c, 0.0)

    def log_prob(self, c_mean, c_cov):
        innovation = self.innovation(c_mean)
        if c_cov is None:
            misfit, log_det = self.cov.whiten(innovation), self.cov.log_det()
        else:
            root = jnp.linalg.cholesky(self.cov.dense() + c_cov)
            misfit = jax.scipy.linalg.solve_triangular(root, innovation, lower=True)
            log_det = 2 * jnp.sum(jnp.log(jnp.diag(root)))
        return -0.5 * (jnp.sum(misfit**2) + log_det + self.mask.sum() * jnp.log(2 * jnp.pi))

    def log_prob_anomalies(
        self, c_mean: Float[Array, " obs"], c_anomalies: Float[Array, "member obs"]
    ) -> Float[Array, ""]:
        """`log_prob` under the covariance A^T A of `c_anomalies`, in the smaller space."""
        members, obs = c_anomalies.shape
        if members >= obs:
            return self.log_prob(c_mean, c_anomalies.T @ c_anomalies)
        y = jax.vmap(self.cov.whiten)(c_anomalies)
        d = self.cov.whiten(self.innovation(c_mean))
        root = jnp.linalg.cholesky(jnp.eye(members, dtype=y.dtype) + y @ y.T)
        explained = jax.scipy.linalg.solve_triangular(root, y @ d, lower=True)
        log_det = self.cov.log_det() + 2 * jnp.sum(jnp.log(jnp.diag(root)))
        misfit2 = jnp.sum(d**2) - jnp.sum(explained**2)
        return -0.5 * (misfit2 + log_det + self.mask.sum() * jnp.log(2 * jnp.pi))
