r"""Inflation: what keeps an ensemble from trusting itself too much.

Multiplicative: x' <- a x', so that variances grow by a^2 (Anderson and Anderson 1999), before
the analysis or after it. Additive: x_i <- x_i + q_i (Houtekamer and Mitchell 2005). Relaxation
of the analysis anomalies to the prior's (RTPP, Zhang, Snyder and Sun 2004) or of their spread
(RTPS, Whitaker and Hamill 2012, eq. 2):

    x_a' <- (1 - a) x_a' + a x_b',        x_a' <- x_a' (1 + a (s_b - s_a) / s_a).

`AdaptiveInflation` estimates a variance factor for each variable from the innovations.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import AbstractCovariance, inflate
from dasim.events import GaussianEvent
from dasim.localization import Localization
from dasim.types import Key

Members = Float[Array, "member n"]


class AbstractInflation(eqx.Module):
    """Acts on flat members before and after the analysis."""

    @abc.abstractmethod
    def init(self, members: Members) -> Any:
        """What is remembered from cycle to cycle."""

    @abc.abstractmethod
    def prior(
        self, state: Any, members: Members, event: GaussianEvent, key: Key
    ) -> tuple[Members, Any]:
        """The members to analyse, and the next state; the event is about flat states."""

    @abc.abstractmethod
    def posterior(self, prior: Members, analysis: Members) -> Members:
        """The analysis members, given those that were analysed."""


class AbstractFixedInflation(AbstractInflation):
    """Inflation that remembers nothing."""

    def init(self, members):
        return None


class MultiplicativeInflation(AbstractFixedInflation):
    """Anomalies times `factor`, of the forecast or, with `after`, of the analysis.

    Attributes:
        factor: factor on the anomalies, positive, a scalar or `(n,)`.
        after: inflate the analysis instead of the forecast.
    """

    factor: Float[Array, "..."]
    after: bool = eqx.field(static=True)

    def __init__(self, factor=1.0, after: bool = False):
        """Raises ValueError for a factor that is not positive."""
        self.factor = check_factor(factor)
        self.after = after

    def prior(self, state, members, event, key):
        return (members if self.after else self._apply(members)), state

    def posterior(self, prior, analysis):
        return self._apply(analysis) if self.after else analysis

    def _apply(self, members):
        return inflate(members, self.factor.astype(members.dtype))


class AdditiveInflation(AbstractFixedInflation):
    """Draws from N(0, cov), centred, added to the forecast.

    Attributes:
        cov: a covariance of flat states; see `dasim.covariance.as_covariance`.
    """

    cov: AbstractCovariance

    def prior(self, state, members, event, key):
        noise = jax.vmap(self.cov.sqrt)(jax.random.normal(key, members.shape, members.dtype))
        return members + noise - noise.mean(0), state

    def posterior(self, prior, analysis):
        return analysis


class RTPP(AbstractFixedInflation):
    """Relaxation of the analysis anomalies to the prior's by the share `alpha`."""

    alpha: Float[Array, ""] = eqx.field(converter=lambda a: check_share(a, "RTPP"))

    def prior(self, state, members, event, key):
        return members, state

    def posterior(self, prior, analysis):
        alpha = self.alpha.astype(prior.dtype)
        mean = analysis.mean(0)
        return mean + (1 - alpha) * (analysis - mean) + alpha * (prior - prior.mean(0))


class RTPS(AbstractFixedInflation):
    """Relaxation of the analysis spread of each variable to the prior's by the share `alpha`."""

    alpha: Float[Array, ""] = eqx.field(converter=lambda a: check_share(a, "RTPS"))

    def prior(self, state, members, event, key):
        return members, state

    def posterior(self, prior, analysis):
        before, after = prior.std(0, ddof=1), analysis.std(0, ddof=1)
        safe = jnp.where(after > 0, after, 1.0)
        return inflate(analysis, 1 + self.alpha.astype(prior.dtype) * (before - after) / safe)


class CombinedInflation(AbstractInflation):
    """Several, one after another."""

    parts: tuple[AbstractInflation, ...] = eqx.field(converter=tuple)

    def init(self, members):
        return tuple(part.init(members) for part in self.parts)

    def prior(self, state, members, event, key):
        after = []
        for i, (part, own) in enumerate(zip(self.parts, state, strict=True)):
            members, own = part.prior(own, members, event, jax.random.fold_in(key, i))
            after.append(own)
        return members, tuple(after)

    def posterior(self, prior, analysis):
        for part in self.parts:
            analysis = part.posterior(prior, analysis)
        return analysis


class AdaptiveInflation(AbstractInflation):
    r"""A variance factor for each variable, learned from the innovations.

    Anderson (2009): the innovation d of an observation with error variance r is N(0, theta^2),

        theta^2 = (1 + g (sqrt(lambda) - 1))^2 s^2 + r,    g = taper |correlation|,

    with s^2 the uninflated prior variance in observation space. The prior of lambda is inverse
    gamma, its mode the last value (El Gharamti 2018); with the likelihood linearised about that
    mode, l + l' (lambda - mode), the new mode is a root of a quadratic. The observations are
    taken one by one, each with the forecast's own statistics.

    Attributes:
        std: standard deviation of the prior of lambda, kept fixed (DART's `inf_sd`).
        damping: factor on lambda - 1 at the beginning of each cycle (DART's `inf_damping`).
        initial: lambda in the first cycle.
        bounds: least and greatest lambda.
        localization: taper of an observation's influence on lambda, or None.
    """

    std: float = 0.6
    damping: float = 0.9
    initial: float = 1.0
    bounds: tuple[float, float] = (1.0, 50.0)
    localization: Localization | None = None

    def __check_init__(self):
        if not self.std > 0:
            raise ValueError(f"std is {self.std}, expected a positive number")
        if not 0 <= self.damping <= 1:
            raise ValueError(f"damping is {self.damping}, expected a factor from 0 to 1")
        if not 0 < self.bounds[0] <= self.initial <= self.bounds[1]:
            raise ValueError(
                f"initial is {self.initial} with bounds {self.bounds}, expected a positive factor "
                "within them"
            )

    def init(self, members):
        return jnp.full(members.shape[1], self.initial, members.dtype)

    def prior(self, state, members, event, key):
        factor = 1 + self.damping * (state - 1)
        inflated = inflate(members, jnp.sqrt(factor))
        c = jax.vmap(event.constraint)(inflated)
        x, y = inflated - inflated.mean(0), c - c.mean(0)
        scale = jnp.sqrt(jnp.outer(jnp.sum(x**2, 0), jnp.sum(y**2, 0)))
        weight = jnp.abs(x.T @ y) / jnp.where(scale > 0, scale, 1.0)
        if self.localization is not None:
            weight = weight * self.localization.state_obs.astype(x.dtype)
        weight = jnp.where(event.mask, weight, 0.0)
        variance = jnp.sum(y**2, 0) / (len(y) - 1)
        items = (event.innovation(c.mean(0)), variance, event.cov.diagonal(), weight.T)

        def one(factor, item):
            return jnp.clip(self._mode(factor, *item), *self.bounds).astype(factor.dtype), None

        return inflated, jax.lax.scan(one, factor, items)[0]

    def posterior(self, prior, analysis):
        return analysis

    def _mode(self, factor, d, variance, r, weight):
        """The new factor from one observation whose inflated prior variance is `variance`."""
        root = jnp.sqrt(factor)
        gain = 1 + weight * (root - 1)
        theta2 = variance + r
        slope = weight * variance / (gain * root)  # of theta^2 by the factor
        q = slope / (2 * theta2) * (d**2 / theta2 - 1)  # of the log likelihood
        a = (1 - 1 / _inverse_gamma_scale(factor, self.std)) * q
        b, c = 1 - 2 * factor * q, factor * (factor * q - 1)
        # the root at which the linearised likelihood is positive, whatever the sign of q; the
        # other may be the nearer one. Written in two ways against cancellation
        root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0))
        upper = b > 0
        return jnp.where(
            upper,
            -2 * c / jnp.where(upper, b + root, 1.0),
            (root - b) / jnp.where(upper, 1.0, 2 * a),
        )


def _inverse_gamma_scale(mode, std):
    """beta / mode of the inverse gamma law with this mode and standard deviation.

    With u = beta / mode it is the largest root of u^2 (mode / std)^2 = (u - 2)^2 (u - 3).
    """
    k = (mode / std) ** 2
    u = 7 + k  # above the root, from where Newton's steps fall to it
    for _ in range(8):
        u = u - (u**3 - (7 + k) * u**2 + 16 * u - 12) / (3 * u**2 - 2 * (7 + k) * u + 16)
    return u


def check_factor(factor) -> Float[Array, "..."]:
    """An inflation factor as an array; refused if not positive."""
    if not jnp.all(jnp.asarray(factor) > 0):
        raise ValueError(f"inflation is {factor}, expected a positive factor (1 for none)")
    return jnp.asarray(factor, float)


def check_share(alpha, what: str) -> Float[Array, ""]:
    """A share as an array; refused outside 0 to 1 (a little more is used in practice: 1.5)."""
    if not 0 <= alpha <= 1.5:
        raise ValueError(f"{what}: alpha is {alpha}, expected a share from 0 to 1.5")
    return jnp.asarray(alpha, float)


def as_inflation(value) -> AbstractInflation:
    """An inflation as given, several in a sequence, or a factor on the forecast anomalies."""
    if isinstance(value, AbstractInflation):
        return value
    if isinstance(value, tuple | list):
        return CombinedInflation(tuple(as_inflation(v) for v in value))
    return MultiplicativeInflation(value)
