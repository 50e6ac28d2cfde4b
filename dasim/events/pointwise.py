r"""Observations whose errors are not Gaussian, each value with an error of its own.

Each number c_i of the constraint is seen through its own law p(y_i | c_i). What a normal
c ~ N(m, S) becomes once it is seen is found by expectation propagation (Minka 2001; Rasmussen and
Williams 2006, sect. 3.6): every p(y_i | c_i) is stood in for by a Gaussian site N(t_i; c_i, r_i),
such that under the normal law of all other sites, the cavity N(m_-, v_-) of c_i, the exact law and
the site leave the same mean and variance. With log Z(m, v) = log \int p(y | c) N(c; m, v) dc and
a = dlogZ/dm, b = -d^2logZ/dm^2 at the cavity

    1 / r = b / (1 - b v_-),        t = m_- + a / b.

With one number, or independent ones, this is exact in the first two moments; the evidence

    log P(E) = sum_i [log Z_i - log N(t_i; m_-, v_- + r_i)] + log N(t; m, S + diag(r))

is exact for one number. Sites are Gaussian observations: whoever can use those can use these.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dasim.covariance import DiagonalCovariance
from dasim.events.base import AbstractEvent, GaussianEvent

SWEEPS = 8
DAMPING = 0.7  # share of the new sites in a sweep after the first
LEAST = 1e-4  # curvature of log Z below which a site is taken to be flat, in units of 1 / v
SURPRISE = 9.0  # largest a^2 / b, the squared misfit of a site in its own variance, of those


class AbstractLaw(eqx.Module):
    """The law of an observed number given the exact one, c, of all values of a cycle at once."""

    @abc.abstractmethod
    def log_z(
        self, value: Float[Array, " obs"], mean, var, std: Float[Array, " obs"] | None
    ) -> Float[Array, " obs"]:
        """log of the law's mean over c ~ N(mean, var), each by itself; var may be zero.

        `std`, where given, takes the place of the law's own standard deviations.
        """


def _slopes(law, value, mean, var, std):
    """log Z, and its first and negative second derivative in the mean."""
    total = lambda m: law.log_z(value, m, var, std)
    ones = jnp.ones_like(mean)
    first = lambda m: jax.jvp(total, (m,), (ones,))  # every number depends on its own mean alone
    (log_z, a), (_, b) = jax.jvp(first, (mean,), (ones,))
    return log_z, a, -b


def site(
    law: AbstractLaw,
    value: Float[Array, " obs"],
    mean: Float[Array, " obs"],
    var: Float[Array, " obs"],
    std: Float[Array, " obs"] | None = None,
) -> tuple[Float[Array, " obs"], Float[Array, " obs"], Float[Array, " obs"]]:
    """Natural parameters t / r and 1 / r of the sites for cavities N(mean, var), and log Z."""
    log_z, a, b = _slopes(law, value, mean, var, std)
    good = jnp.isfinite(log_z) & jnp.isfinite(a) & jnp.isfinite(b)
    a = jnp.where(good, a, 0.0)
    # heavy tails take b below zero: what is seen is doubted, and leaves more variance than there
    # was. A site cannot; it is then as wide as it can be without being itself a surprise
    doubt = jnp.minimum(a**2 / SURPRISE, 0.05 / var)
    b = jnp.maximum(jnp.where(good, b, 0.0), jnp.maximum(doubt, LEAST / var))
    # rounding, or a law that the cavity rules out, takes b v above 1
    b = jnp.minimum(b, (1 - 8 * jnp.finfo(var.dtype).eps) / var)
    return (a + mean * b) / (1 - b * var), b / (1 - b * var), log_z


class PointwiseEvent(AbstractEvent):
    """operator(x, time), each number seen through `law`; values under a false mask are left out.

    Attributes:
        operator: function of (x, t) to `(obs,)`.
        time: time of the observation.
        value: y, `(obs,)`.
        mask: `(obs,)`.
        law: p(y | c).
        std: standard deviations in place of the law's own, `(obs,)`, or None.
    """

    operator: Callable
    time: Float[Array, ""]
    value: Float[Array, " obs"]
    mask: Bool[Array, " obs"]
    law: AbstractLaw
    std: Float[Array, " obs"] | None = None

    @property
    def linear(self) -> bool:
        """False: the event is not Gaussian, whatever its operator."""
        return False

    def constraint(self, x):
        return jnp.where(self.mask, self.operator(x, self.time), 0.0)

    def log_prob(self, c_mean, c_cov):
        if c_cov is None:
            each = self.law.log_z(self.value, c_mean, jnp.zeros_like(c_mean), self.std)
            return jnp.sum(jnp.where(self.mask, each, 0.0))
        return self._propagated(c_mean, c_cov)[1]

    def log_prob_anomalies(
        self, c_mean: Float[Array, " obs"], c_anomalies: Float[Array, "member obs"]
    ) -> Float[Array, ""]:
        """`log_prob` under the covariance A^T A of `c_anomalies`."""
        return self.log_prob(c_mean, c_anomalies.T @ c_anomalies)

    def sites(self, c_mean: Float[Array, " obs"], c_cov: Float[Array, "obs obs"]) -> GaussianEvent:
        """The Gaussian event that stands in for this one under c ~ N(c_mean, c_cov)."""
        return self._propagated(c_mean, c_cov)[0]

    def _propagated(self, c_mean, c_cov):
        n, mask = len(c_mean), self.mask
        # a value with no variance of its own, as a masked one, has a site that does nothing
        variance = jnp.diag(c_cov)
        least = 1e-6 * jnp.max(jnp.where(mask, variance, 0.0)) + jnp.finfo(c_mean.dtype).tiny
        c_cov = c_cov + jnp.diag(jnp.where(variance > least, 0.0, least))

        def posterior(shift, precision):
            """Mean and variance of each number, given the sites."""
            root = jnp.sqrt(precision)
            inner = jnp.eye(n, dtype=c_cov.dtype) + root[:, None] * c_cov * root
            half = jax.scipy.linalg.solve_triangular(
                jnp.linalg.cholesky(inner), root[:, None] * c_cov, lower=True
            )
            cov_diag = jnp.maximum(jnp.diag(c_cov) - jnp.sum(half**2, 0), 0.0)
            away = shift - precision * c_mean
            mean = c_mean + c_cov @ away - half.T @ (half @ away)
            return mean, cov_diag

        def cavity(shift, precision):
            mean, var = posterior(shift, precision)
            left = jnp.maximum(1 - precision * var, 1e-4)
            alone = var / left
            return (mean - var * shift) / left, jnp.maximum(alone, 1e-3 * least)

        def sweep(i, sites):
            shift, precision = sites
            m, v = cavity(shift, precision)
            new_shift, new_precision, _ = site(self.law, self.value, m, v, self.std)
            share = jnp.where(i == 0, 1.0, DAMPING)
            mix = lambda new, old: jnp.where(mask, share * new + (1 - share) * old, 0.0)
            return mix(new_shift, shift), mix(new_precision, precision)

        none = jnp.zeros_like(c_mean)
        shift, precision = jax.lax.fori_loop(0, SWEEPS, sweep, (none, none))
        safe = jnp.where(mask, jnp.maximum(precision, jnp.finfo(c_mean.dtype).tiny ** 0.5), 1.0)
        value, spread = jnp.where(mask, shift / safe, 0.0), 1 / safe
        near = GaussianEvent(self.operator, self.time, value, mask, DiagonalCovariance(spread))
        m, v = cavity(shift, precision)
        log_z = self.law.log_z(self.value, m, v, self.std)
        total = v + spread
        normal = -0.5 * ((value - m) ** 2 / total + jnp.log(2 * jnp.pi * total))
        each = jnp.sum(jnp.where(mask, log_z - normal, 0.0))
        return near, each + near.log_prob(c_mean, c_cov)


def sites(
    event: AbstractEvent, c_mean: Float[Array, " obs"], c_cov: Callable[[], Array]
) -> GaussianEvent:
    """A Gaussian event in place of `event` where c ~ N(c_mean, c_cov()); itself if it is one."""
    if isinstance(event, GaussianEvent):
        return event
    if isinstance(event, PointwiseEvent):
        return event.sites(c_mean, c_cov())
    raise TypeError(
        f"{type(event).__name__} is not an event of observations: expected a GaussianEvent or a "
        "PointwiseEvent"
    )
