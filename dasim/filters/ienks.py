r"""The iterative ensemble Kalman smoother, IEnKS; with a lag of one cycle, the IEnKF.

Sakov, Oliver and Bertino (2012); Bocquet and Sakov (2013, 2014). The state x_0 + w X at the
beginning of a window of `lag` cycles is sought, w having N weights, that fits the observations at
its end (those before were used when they came):

    J(w) = |R^(-1/2) (y - h(M(x_0 + w X)))|^2 / 2 + z |w|^2 / 2,    z = N - 1,

by Gauss-Newton steps, halved where they raise J or overflow the model. Their sensitivities are
those of an ensemble with the posterior's own spread, carried through the model ("transform"
version). In the finite-size form z follows w (Bocquet, Raanes and Hannart 2015;
`dasim.filters.enkf_n`). Multiple data assimilation (Emerick and Reynolds 2013) makes `iterations`
updates with errors inflated to iterations x R instead.

The transition's noise, where it has any, is drawn once a cycle and kept through the iterations:
it is not itself estimated.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dasim.covariance import flatten, inflate
from dasim.filters.base import (
    AbstractFilter,
    check_ensemble,
    constraints,
    describe,
    gaussian_event,
)
from dasim.filters.enkf_n import check_certainty, hyperprior
from dasim.filters.inflation import check_factor
from dasim.filters.square_root import rotate
from dasim.filters.windows import advance, check_lag, slide
from dasim.types import Ensemble


class WindowState(NamedTuple):
    """The ensemble at the beginning of the window, and the cycles from there to the last one."""

    ensemble: Ensemble
    age: Int[Array, ""]


class _Iterate(NamedTuple):
    """The next trial is `base + change` under `transform`; `end` is that of `base`."""

    base: Float[Array, " member"]
    cost: Float[Array, ""]
    transform: Float[Array, "member member"]
    inverse: Float[Array, "member member"]
    change: Float[Array, " member"]
    last: Float[Array, "member member"]
    end: Ensemble
    number: Int[Array, ""]


class IEnKS(AbstractFilter):
    """A smoother over the last `lag` cycles that iterates through the model.

    `info.smoothed` is the ensemble at the beginning of the window.

    Attributes:
        lag: cycles from the beginning of the window to its end.
        iterations: largest number of trials of a Gauss-Newton step; of updates with `mda`.
        tolerance: stop when |change of w|^2 falls below `tolerance` N.
        inflation: factor on the smoothed anomalies.
        certainty: of the finite-size form (DAPPER's `xN`), or None for none.
        mda: multiple data assimilation instead of an optimisation.
        rotation: turn the smoothed anomalies at random.
    """

    lag: int = eqx.field(static=True, default=1, converter=check_lag)
    iterations: int = eqx.field(static=True, default=10)
    tolerance: float = eqx.field(static=True, default=1e-5)
    inflation: Float[Array, ""] = eqx.field(default=1.0, converter=check_factor)
    certainty: Float[Array, ""] | None = eqx.field(
        default=None, converter=lambda c: None if c is None else check_certainty(c)
    )
    mda: bool = eqx.field(static=True, default=False)
    rotation: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}, expected at least 1")

    def init(self, ensemble, key):
        return WindowState(check_ensemble(ensemble), jnp.zeros((), int))

    def step(self, transition, observation, state, obs, key):
        noise_key, rotation_key = jax.random.split(key)
        event = gaussian_event(observation, obs)
        shape, n = state.ensemble.shape, len(state.ensemble)
        length = state.age + 1
        start = obs.time - length * transition.interval

        def forward(ensemble, i):
            keys = jax.random.split(jax.random.fold_in(noise_key, i), n)
            t = start + i * transition.interval
            return jax.vmap(transition.sample, (0, None, 0))(ensemble, t, keys)

        base = flatten(state.ensemble)
        mean = base.mean(0)
        anomalies = base - mean

        def combine(weights, transform):
            return (mean + (weights + transform) @ anomalies).reshape(shape)

        def run(weights, transform):
            return advance(forward, combine(weights, transform), length)

        forecast = run(jnp.zeros(n, base.dtype), jnp.eye(n, dtype=base.dtype))
        found = self._search(run, forecast, event)
        end = flatten(forecast)
        moved = (found.change + found.transform - found.last) @ (end - end.mean(0))
        seen = obs.mask.any()
        analysis = jnp.where(seen, found.end + moved.reshape(shape), forecast)
        smoothed = flatten(combine(found.base + found.change, found.transform))
        smoothed = inflate(smoothed, self.inflation.astype(base.dtype))
        if self.rotation:
            centre = smoothed.mean(0)
            smoothed = centre + rotate(smoothed - centre, rotation_key)
        smoothed = jnp.where(seen, smoothed, base).reshape(shape)
        after = WindowState(*slide(forward, smoothed, length, self.lag))
        return after, describe(event, forecast, analysis, obs, smoothed)

    def _search(self, run, forecast, event) -> _Iterate:
        n, dtype = len(forecast), forecast.dtype
        eye = jnp.eye(n, dtype=dtype)

        def update(it: _Iterate, end: Ensemble) -> _Iterate:
            weights = it.base + it.change
            c = constraints(event, end)
            c_mean = c.mean(0)
            y = jax.vmap(event.cov.whiten)(c - c_mean)
            d = event.cov.whiten(event.innovation(c_mean))
            y = it.inverse @ y  # of the unconditioned anomalies
            g, vectors = jnp.linalg.eigh(y @ y.T, symmetrize_input=False)
            g = jnp.maximum(g, 0.0)
            z = self._precision(g, weights)
            if self.mda:
                z = z * self.iterations
            power = lambda p: (vectors * (g + z) ** p) @ vectors.T
            if self.mda:
                change = (y @ d) @ power(-1.0) @ it.transform
                transform, inverse = jnp.sqrt(z) * power(-0.5) @ it.transform, eye
            else:
                change = power(-1.0) @ (y @ d - z * weights)
                transform = jnp.sqrt(n - 1.0) * power(-0.5)
                inverse = power(0.5) / jnp.sqrt(n - 1.0)
            cost = 0.5 * (d @ d + z * weights @ weights)
            worse = (cost > it.cost) & (it.number >= 2) & (not self.mda)
            taken = _Iterate(
                weights, cost, transform, inverse, change, it.transform, end, it.number + 1
            )
            failed = worse | ~(jnp.isfinite(change).all() & jnp.isfinite(end).all())
            back = it._replace(change=it.change / 2, number=it.number + 1)
            return jax.tree.map(lambda a, b: jnp.where(failed, a, b), back, taken)

        def unfinished(it: _Iterate):
            moving = jnp.sum(it.change**2) >= self.tolerance * n
            return (it.number < self.iterations) & (moving | self.mda)

        zero = jnp.zeros(n, dtype)
        first = _Iterate(
            zero, jnp.asarray(jnp.inf, dtype), eye, eye, zero, eye, forecast, jnp.zeros((), int)
        )
        return jax.lax.while_loop(
            unfinished,
            lambda it: update(it, run(it.base + it.change, it.transform)),
            update(first, forecast),
        )

    def _precision(self, g, weights):
        """z, the precision of the prior."""
        n = weights.size
        if self.certainty is None:
            return jnp.asarray(n - 1.0, weights.dtype)
        e, c = hyperprior(g / (n - 1), n, self.certainty.astype(weights.dtype))
        return (n - 1) * c / (e + weights @ weights)
