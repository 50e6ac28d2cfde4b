r"""The Kalman filter (Kalman 1960) and its extension to nonlinear models (Jazwinski 1970, ch. 8).

With A the Jacobian of the transition's mean at the last mean, and Q its residual covariance,

    m <- f(m),  P <- a^2 A P A^T + Q,    then the update with the operator linearised at m.

Both carry a D x D covariance; `info` shows draws from the normal law, as many as the initial
ensemble has, with the exact mean.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.filters.base import (
    AbstractFilter,
    check_ensemble,
    describe,
    flat_event,
    gaussian_event,
)
from dasim.filters.gaussian import (
    GaussianState,
    draw,
    kalman_update,
    linearize,
    moments,
    symmetric_root,
)
from dasim.filters.inflation import check_factor
from dasim.observe import Observation
from dasim.transitions import AbstractTransition


def gaussian_step(inflation, transition, observation, state, obs, key):
    """One cycle of the extended Kalman filter."""
    forecast_key, analysis_key = jax.random.split(key)
    start, shape = obs.time - transition.interval, state.ensemble.shape[1:]

    def mean_of(x):
        return transition.mean(x.reshape(shape), start).reshape(-1)

    mean, tangent = linearize(mean_of, state.mean)
    spread = inflation * tangent @ state.root
    cov = spread @ spread.T
    residual = transition.residual_cov(state.mean.reshape(shape), start)
    if residual is not None:
        cov = cov + residual.dense().astype(cov.dtype)
    root = symmetric_root(cov)
    forecast = draw(mean, root, state.ensemble, forecast_key)
    event = gaussian_event(observation, obs)
    new_mean, new_cov = kalman_update(mean, cov, flat_event(event, shape))
    new_root = symmetric_root(new_cov)
    drawn = draw(new_mean, new_root, state.ensemble, analysis_key)
    seen = obs.mask.any()
    after = GaussianState(
        jnp.where(seen, new_mean, mean),
        jnp.where(seen, new_root, root),
        jnp.where(seen, drawn, forecast),
    )
    return after, describe(event, forecast, after.ensemble, obs)


class ExtendedKalmanFilter(AbstractFilter):
    """The transition and the operator linearised at the mean, by automatic differentiation.

    Attributes:
        inflation: factor on the forecast's standard deviations, model noise not included.
    """

    inflation: Float[Array, ""] = eqx.field(default=1.0, converter=check_factor)

    def init(self, ensemble, key):
        return moments(ensemble)

    def step(self, transition, observation, state, obs, key):
        inflation = self.inflation.astype(state.mean.dtype)
        return gaussian_step(inflation, transition, observation, state, obs, key)


class KalmanFilter(AbstractFilter):
    """The exact posterior of a linear Gaussian problem; refuses any other.

    Attributes:
        initial: mean `(n,)` and covariance `(n, n)` of the first state; the moments of the first
            ensemble where None.
    """

    initial: tuple[Float[Array, " n"], Float[Array, "n n"]] | None = None

    def init(self, ensemble, key):
        if self.initial is None:
            return moments(ensemble)
        ensemble = check_ensemble(ensemble)
        mean, cov = (a.astype(ensemble.dtype) for a in self.initial)
        return GaussianState(mean, symmetric_root(cov), ensemble)

    @staticmethod
    def check(transition: AbstractTransition, observation: Observation):
        """Refuse a problem that is not linear.

        Raises:
            ValueError: the transition or the operator does not say of itself that it is linear.
        """
        if not transition.linear:
            raise ValueError(
                "the Kalman filter is exact for linear transitions alone; take "
                "ExtendedKalmanFilter or an ensemble filter"
            )
        if not getattr(observation.operator, "linear", False):
            raise ValueError(
                "the Kalman filter is exact for linear operators alone; if yours is one, let it "
                "say so by an attribute linear = True"
            )

    def step(self, transition, observation, state, obs, key):
        self.check(transition, observation)
        one = jnp.ones((), state.mean.dtype)
        return gaussian_step(one, transition, observation, state, obs, key)
