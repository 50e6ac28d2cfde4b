r"""3D-Var and 4D-Var with a fixed background covariance.

Talagrand and Courtier (1987); cycled as the IEnKS is (Bocquet and Sakov 2013): a window of `lag`
cycles moves on by one each time, and takes up the observations at its end. In the control w,
x_0 = x_b + B^(1/2) w, the cost is a sum of squares,

    J(w) = |w|^2 / 2 + |R^(-1/2) (y - h(M(x_0)))|^2 / 2,

whose Jacobian is that of the model by automatic differentiation; Gauss-Newton steps of
optimistix. 3D-Var has no model in it: its window is the time of the observations. The analysis
covariance is the inverse of the Gauss-Newton Hessian, carried to the end of the window.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, Int

from dasim.covariance import flatten
from dasim.filters.base import (
    AbstractFilter,
    check_ensemble,
    describe,
    flat_event,
    gaussian_event,
)
from dasim.filters.gaussian import draw, linearize, symmetric_root
from dasim.filters.windows import advance, check_lag, slide
from dasim.types import Ensemble


class Trajectory(NamedTuple):
    """The state at the beginning of the window, its age in cycles, and the analysis drawn."""

    mean: Float[Array, " n"]
    age: Int[Array, ""]
    ensemble: Ensemble


def _minimize(model, event, background, root, iterations):
    """The control at the least cost, the state there, the end of its window, and their spread."""
    whiten = event.cov.whiten

    def residual(w, args):
        c = event.constraint(model(background + root @ w))
        return jnp.concatenate([w, whiten(event.innovation(c))])

    solver = optx.GaussNewton(rtol=1e-4, atol=1e-4)
    start = jnp.zeros_like(background)
    w = optx.least_squares(
        residual, solver, start, options={"jac": "fwd"}, max_steps=iterations, throw=False
    ).value
    end, tangent = linearize(lambda w: model(background + root @ w), w)
    _, h = linearize(event.constraint, end)
    y = jax.vmap(whiten, 1, 1)(h @ tangent)
    hessian = jnp.eye(w.size, dtype=w.dtype) + y.T @ y
    inner = jnp.linalg.cholesky(hessian)
    spread = jax.scipy.linalg.solve_triangular(inner, tangent.T, lower=True).T
    return background + root @ w, end, spread


class Var3D(AbstractFilter):
    """The analysis that fits background and observations of one time best.

    Attributes:
        background: B, `(n, n)`, positive semi-definite.
        iterations: largest number of Gauss-Newton steps; one is enough for a linear operator.
    """

    background: Float[Array, "n n"]
    iterations: int = eqx.field(static=True, default=10)

    def init(self, ensemble, key):
        mean = flatten(check_ensemble(ensemble)).mean(0)
        return Trajectory(mean, jnp.zeros((), int), ensemble)

    def step(self, transition, observation, state, obs, key):
        forecast_key, analysis_key = jax.random.split(key)
        start, shape = obs.time - transition.interval, state.ensemble.shape[1:]
        mean = transition.mean(state.mean.reshape(shape), start).reshape(-1)
        root = symmetric_root(self.background.astype(mean.dtype))
        forecast = draw(mean, root, state.ensemble, forecast_key)
        event = gaussian_event(observation, obs)
        after, _, spread = _minimize(
            lambda x: x, flat_event(event, shape), mean, root, self.iterations
        )
        seen = obs.mask.any()
        drawn = draw(after, spread, state.ensemble, analysis_key)
        analysis = jnp.where(seen, drawn, forecast)
        after = Trajectory(jnp.where(seen, after, mean), state.age, analysis)
        return after, describe(event, forecast, analysis, obs)


class Var4D(AbstractFilter):
    """The trajectory over the last `lag` cycles that fits background and observations best.

    The model is taken as perfect: a transition's noise is left out.

    Attributes:
        background: B at the beginning of the window, `(n, n)`, positive semi-definite.
        lag: cycles from the beginning of the window to its end.
        iterations: largest number of Gauss-Newton steps.
    """

    background: Float[Array, "n n"]
    lag: int = eqx.field(static=True, default=1, converter=check_lag)
    iterations: int = eqx.field(static=True, default=10)

    def init(self, ensemble, key):
        mean = flatten(check_ensemble(ensemble)).mean(0)
        return Trajectory(mean, jnp.zeros((), int), ensemble)

    def step(self, transition, observation, state, obs, key):
        forecast_key, analysis_key = jax.random.split(key)
        shape, length = state.ensemble.shape[1:], state.age + 1
        start = obs.time - length * transition.interval

        def forward(x, i):
            t = start + i * transition.interval
            return transition.mean(x.reshape(shape), t).reshape(-1)

        def model(x):
            return advance(forward, x, length)

        root = symmetric_root(self.background.astype(state.mean.dtype))
        before, tangent = linearize(model, state.mean)
        forecast = draw(before, tangent @ root, state.ensemble, forecast_key)
        event = gaussian_event(observation, obs)
        first, end, spread = _minimize(
            model, flat_event(event, shape), state.mean, root, self.iterations
        )
        seen = obs.mask.any()
        drawn = draw(end, spread, state.ensemble, analysis_key)
        analysis = jnp.where(seen, drawn, forecast)
        first = jnp.where(seen, first, state.mean)
        after = Trajectory(*slide(forward, first, length, self.lag), analysis)
        return after, describe(event, forecast, analysis, obs)
