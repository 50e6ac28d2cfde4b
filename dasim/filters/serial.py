r"""Serial ensemble filters: one observation after another, in random order.

The ensemble adjustment Kalman filter (Anderson 2003) and the rank histogram filter (Anderson
2010) work in two steps: new values u_i of the observed quantity y_i, and the regression of
every variable, and of every observation still to come, on it (tapered by distance):

    x_i <- x_i + rho cov(x, y) / var(y) (u_i - y_i).

The EAKF shifts and contracts, u_i = m_a + sqrt(v_a / v) (y_i - m); without localisation its
ensemble is that of the serial square-root filter of Whitaker and Hamill (2002). The RHF gives
every gap between sorted values the probability 1 / (N + 1), weighs it by the mean likelihood of
its ends, and takes the quantiles n / (N + 1) of the result; its tails are those of a normal law
with the ensemble's variance, times the likelihood.

`ESRF` is that square-root filter in ensemble space (Potter's scheme): for a state of any size,
it works with N x N numbers alone.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtri
from jaxtyping import Array, Float

from dasim.covariance import anomalies
from dasim.filters.base import AbstractEnsembleFilter
from dasim.filters.inflation import AbstractInflation, as_inflation
from dasim.filters.square_root import assemble
from dasim.localization import Localization

Values = Float[Array, " member"]


def regress(
    adjust: Callable[[Values, Float[Array, ""]], Values], members, c, event, localization, key
):
    """Members after all observations, whose values `adjust(y, observed)` gives one by one.

    `adjust` works in units of the observation's standard deviation.
    """
    n_obs, n = c.shape[1], members.shape[1]
    c = jax.vmap(event.cov.whiten)(c)
    observed = event.cov.whiten(jnp.where(event.mask, event.value, 0.0))
    joint = jnp.concatenate([members, c], 1)
    order = jax.random.permutation(key, n_obs)
    taper = None
    if localization is not None:
        taper = jnp.concatenate([localization.state_obs, localization.obs_obs]).T
        taper = taper.astype(joint.dtype)

    def one(joint, j):
        y = joint[:, n + j]
        deviation = y - y.mean()
        variance = jnp.sum(deviation**2)
        used = event.mask[j] & (variance > 0)
        slope = deviation @ (joint - joint.mean(0)) / jnp.where(used, variance, 1.0)
        if taper is not None:
            slope = slope * taper[j]
        change = jnp.where(used, adjust(y, observed[j]) - y, 0.0)
        return joint + change[:, None] * slope, None

    return jax.lax.scan(one, joint, order)[0][:, :n]


def adjust_normal(y: Values, observed) -> Values:
    """The EAKF's new values, for an observation error of one."""
    mean, variance = y.mean(), y.var(ddof=1)
    contraction = 1 / (1 + variance)
    return mean + variance * contraction * (observed - mean) + jnp.sqrt(contraction) * (y - mean)


def adjust_ranks(y: Values, observed) -> Values:
    """The RHF's new values, for an observation error of one."""
    n = y.size
    order = jnp.argsort(y)
    x, std = y[order], jnp.maximum(y.std(ddof=1), 1e-6)
    log_likelihood = -0.5 * (observed - x) ** 2
    tail = std * ndtri(jnp.asarray(1 / (n + 1), x.dtype))
    centres = jnp.stack([x[0] - tail, x[-1] + tail])  # of the normal laws of the two tails
    variance = std**2 / (1 + std**2)
    means = variance * (centres / std**2 + observed)
    log_norm = -0.5 * (observed - centres) ** 2 / (1 + std**2) - 0.5 * jnp.log1p(std**2)
    ends = jnp.stack([x[0] - means[0], means[1] - x[-1]]) / jnp.sqrt(variance)
    log_tails = log_norm + log_ndtr(ends)
    shift = jnp.maximum(jnp.max(log_likelihood), jnp.max(log_tails))
    likelihood, tails = jnp.exp(log_likelihood - shift), jnp.exp(log_tails - shift)
    inner = 0.5 * (likelihood[1:] + likelihood[:-1]) / (n + 1)
    mass = tails[0] + jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(inner)])
    total = mass[-1] + tails[1]
    wanted = total * jnp.arange(1, n + 1) / (n + 1)
    norm = jnp.exp(log_norm - shift)
    floor = jnp.finfo(x.dtype).tiny

    def quantile(mass, i):
        share = jnp.clip(mass / jnp.maximum(norm[i], floor), floor, 1 - 1e-6)
        return jnp.sqrt(variance) * ndtri(share)

    new = jnp.interp(wanted, mass, x)
    new = jnp.where(wanted < tails[0], means[0] + quantile(wanted, 0), new)
    new = jnp.where(wanted > mass[-1], means[1] - quantile(total - wanted, 1), new)
    return jnp.zeros_like(y).at[order].set(new)


class AbstractSerialFilter(AbstractEnsembleFilter):
    """A filter that takes the observations one by one; a final class gives `adjust`."""

    localization: eqx.AbstractVar[Localization | None]
    rotation: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def adjust(self, y: Values, observed: Float[Array, ""]) -> Values:
        """New values of an observed quantity, for an observation error of one."""

    def analyse(self, members, c, event, key):
        order_key, key = jax.random.split(key)
        members = regress(self.adjust, members, c, event, self.localization, order_key)
        return assemble(*anomalies(members), self.rotation, key)


class EAKF(AbstractSerialFilter):
    """The serial ensemble adjustment Kalman filter.

    Attributes:
        inflation: a factor on the prior anomalies, or an inflation.
        localization: tapers of the regressions, or None.
        rotation: turn the analysis anomalies at random.
    """

    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)
    localization: Localization | None = None
    rotation: bool = eqx.field(static=True, default=False)

    def adjust(self, y, observed):
        return adjust_normal(y, observed)


class RHF(AbstractSerialFilter):
    """The rank histogram filter: the EAKF without the normal law for an observed quantity.

    Attributes:
        inflation: a factor on the prior anomalies, or an inflation.
        localization: tapers of the regressions, or None.
        rotation: turn the analysis anomalies at random.
    """

    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)
    localization: Localization | None = None
    rotation: bool = eqx.field(static=True, default=False)

    def adjust(self, y, observed):
        return adjust_ranks(y, observed)


class ESRF(AbstractEnsembleFilter):
    """The serial square-root filter in ensemble space, without localisation.

    Attributes:
        inflation: a factor on the prior anomalies, or an inflation.
        rotation: turn the analysis anomalies at random.
    """

    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)
    rotation: bool = eqx.field(static=True, default=True)

    def analyse(self, members, c, event, key):
        order_key, key = jax.random.split(key)
        mean, x = anomalies(members)
        c_mean, y = anomalies(c)
        y = jax.vmap(event.cov.whiten)(y)
        d = event.cov.whiten(event.innovation(c_mean))
        n = len(members)

        def one(carry, j):
            y, d, weights, t = carry
            y_j = y[:, j]
            variance = 1 + y_j @ y_j
            step = y_j * d[j] / variance
            shrink = y_j / (variance + jnp.sqrt(variance))
            reduce = lambda a: a - jnp.outer(shrink, y_j @ a)
            return (reduce(y), d - step @ y, weights + step @ t, reduce(t)), None

        start = (y, d, jnp.zeros(n, x.dtype), jnp.eye(n, dtype=x.dtype))
        order = jax.random.permutation(order_key, d.size)
        (_, _, weights, t), _ = jax.lax.scan(one, start, order)
        return assemble(mean + weights @ x, t @ x, self.rotation, key)
