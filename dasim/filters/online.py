r"""Biases and error variances of the observations, learned from the innovations as cycles go by.

The bias of observation i is a sum of predictors, b_i = p_i^T beta. With the forecast's mean c in
observation space and its variance s, the innovations y_i - c_i are taken for p_i^T beta and an
error of variance s_i + r_i: a recursive regression whose past counts less and less (the adaptive
correction of Dee 2005, QJRMS 131, 3323, by a filter of its own for the bias, Dee and da Silva
1998, QJRMS 124, 269). The filter inside is given y - p^T beta, with the beta of the cycle before.

The factor on the error variance is sum e / sum r, summed likewise (Li, Kalnay and Miyoshi 2009,
QJRMS 135, 523), with e the mean of two estimates of r that are right for the gain that suits it:
d_a d_b, with the innovations of analysis and forecast (Desroziers et al. 2005, QJRMS 131, 3385),
and d_b^2 - s (Dee 1995, MWR 123, 1128). An analysis that fits too well makes the first too small,
a forecast that is lost the second too large.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.filters.base import AbstractFilter
from dasim.observe import Gaussian
from dasim.types import Learned, State

NAMED = {
    "constant": lambda c: jnp.ones_like(c),
    "value": lambda c: c,
}
FACTORS = 0.02, 50.0  # bounds of the factor on a variance
WORTH = 20.0  # observations that the factor 1 is worth


class Predictors(eqx.Module):
    """Predictors by name: `constant`, and `value`, the forecast of what is observed."""

    names: tuple[str, ...] = eqx.field(static=True, converter=tuple)

    def __check_init__(self):
        unknown = [n for n in self.names if n not in NAMED]
        if unknown or not self.names:
            raise ValueError(
                f"predictors are {list(self.names)}, expected some of {', '.join(NAMED)}"
            )

    def __call__(self, x: State, t, c: Float[Array, " obs"]) -> Float[Array, "obs p"]:
        return jnp.stack([NAMED[name](c) for name in self.names], -1)


class OnlineState(NamedTuple):
    """What the wrapped filter remembers, and what has been learned.

    Attributes:
        filter: the inner filter's state.
        mean: of the last analysis, `(*state)`.
        precision: of the coefficients, `(group, p, p)`.
        beta: coefficients, `(group, p)`.
        found, expected: weighted sums of e / r and of ones, `(group,)`.
    """

    filter: Any
    mean: State
    precision: Float[Array, "group p p"]
    beta: Float[Array, "group p"]
    found: Float[Array, " group"]
    expected: Float[Array, " group"]


class OnlineErrors(AbstractFilter):
    """A filter whose observations are corrected for what was learned about their errors.

    What every sensor shares with the model cannot be told from the model's own bias.

    Attributes:
        filter: any filter; errors have to be Gaussian.
        n_obs: number of observations of a cycle.
        predictors: `(x, t, c) -> (obs, p)` of the forecast of the mean and its values in
            observation space; None for no bias.
        spread: standard deviation of each coefficient before the first cycle, `(p,)`.
        variance: whether a factor on the error variances is learned.
        groups: a number for each observation; those of one number share coefficients and
            factor. Each its own if None.
        memory: cycles after which what was seen counts 1 / e.
    """

    filter: AbstractFilter
    n_obs: int = eqx.field(static=True)
    predictors: Callable | None = None
    spread: tuple[float, ...] = eqx.field(static=True, default=(1.0,))
    variance: bool = eqx.field(static=True, default=False)
    groups: tuple[int, ...] | None = eqx.field(static=True, default=None)
    memory: float = eqx.field(static=True, default=100.0)

    def __check_init__(self):
        if self.predictors is None and not self.variance:
            raise ValueError("OnlineErrors: give predictors, variance=True, or both")
        if not self.memory > 1 or not all(s > 0 for s in self.spread):
            raise ValueError(
                f"OnlineErrors: memory is {self.memory} and spread {self.spread}, expected more "
                "than one cycle and positive numbers"
            )
        if self.groups is not None and len(self.groups) != self.n_obs:
            raise ValueError(
                f"OnlineErrors: {len(self.groups)} groups for {self.n_obs} observations"
            )

    @property
    def lag(self) -> int:
        """That of the filter."""
        return getattr(self.filter, "lag", 0)

    def init(self, ensemble, key):
        p = 0 if self.predictors is None else len(self.spread)
        group, dtype = 1 + int(self._groups().max()), ensemble.dtype
        worth = jnp.full(group, WORTH, dtype)
        return OnlineState(
            self.filter.init(ensemble, key),
            ensemble.mean(0),
            jnp.tile(self._prior(p, dtype), (group, 1, 1)),
            jnp.zeros((group, p), dtype),
            worth,
            worth,
        )

    def step(self, transition, observation, state, obs, key):
        if not isinstance(observation.error, Gaussian):
            raise TypeError(
                "biases and variances are learned of Gaussian observation errors, not of "
                f"{type(observation.error).__name__}"
            )
        groups, keep = self._groups(), 1 - 1 / self.memory
        r = observation.error.covariance(obs.mask, obs.std).diagonal()
        factor = jnp.clip(state.found / state.expected, *FACTORS)[groups]
        std = jnp.sqrt(r * factor) if self.variance else obs.std
        ahead = transition.mean(state.mean, obs.time - transition.interval)
        value = jnp.where(obs.mask, obs.value, 0.0)
        bias = jnp.zeros_like(value)
        if self.predictors is not None:
            p = self.predictors(ahead, obs.time, observation.operator(ahead, obs.time))
            bias = jnp.sum(p * state.beta[groups], -1)
        seen = eqx.tree_at(
            lambda o: (o.value, o.std), obs, (value - bias, std), is_leaf=lambda a: a is None
        )
        inner, info = self.filter.step(transition, observation, state.filter, seen, key)
        used = obs.mask if info.used is None else info.used
        before, after = (
            jax.vmap(lambda x: observation.operator(x, obs.time))(e)
            for e in (info.forecast, info.analysis)
        )
        total = lambda a: jax.ops.segment_sum(a, groups, len(state.expected))
        ours = state._replace(filter=inner, mean=info.analysis.mean(0))
        if self.predictors is not None:
            p = self.predictors(info.forecast.mean(0), obs.time, before.mean(0))
            weight = jnp.where(used, 1 / (before.var(0, ddof=1) + r * factor), 0.0)
            seen_by = total(weight[:, None, None] * p[:, :, None] * p[:, None, :])
            pull = total((weight * (value - before.mean(0)))[:, None] * p)
            fading = (1 - keep) * self._prior(p.shape[1], p.dtype)
            precision = keep * state.precision + fading + seen_by
            known = keep * jnp.einsum("gij,gj->gi", state.precision, state.beta)
            beta = jnp.linalg.solve(precision, (known + pull)[..., None])[..., 0]
            ours = ours._replace(precision=precision, beta=beta)
        if self.variance:
            d_b, d_a = (value - bias - c.mean(0) for c in (before, after))
            e = (d_a * d_b + d_b**2 - before.var(0, ddof=1)) / 2
            fading = (1 - keep) * WORTH
            ours = ours._replace(
                found=keep * state.found + fading + total(jnp.where(used, e / r, 0.0)),
                expected=keep * state.expected + fading + total(used.astype(r.dtype)),
            )
        learned = Learned(bias, jnp.sqrt(r * factor) if self.variance else jnp.sqrt(r))
        return ours, info._replace(learned=learned)

    def _groups(self) -> np.ndarray:
        return np.arange(self.n_obs) if self.groups is None else np.asarray(self.groups)

    def _prior(self, p: int, dtype) -> Float[Array, "p p"]:
        spread = jnp.asarray(self.spread[:p], dtype)
        return jnp.diag(spread**-2)
