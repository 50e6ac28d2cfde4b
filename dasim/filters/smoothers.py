r"""The ensemble Kalman smoother, and the ensemble Rauch-Tung-Striebel smoother.

EnKS (Evensen and van Leeuwen 2000), fixed lag: the analysis acts on the ensembles of the last
`lag` cycles as if they were one long state. EnRTS (Raanes 2016): backwards from the last cycle,

    x_k^i <- x_k^i + J (x_{k+1}^{s,i} - x_{k+1}^{f,i}),    J = X_k X_{k+1}^{f +},

with the pseudo-inverse in ensemble space.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import flatten
from dasim.filters.base import (
    AbstractEnsembleFilter,
    AbstractFilter,
    check_ensemble,
    constraints,
    describe,
    flat_event,
    gaussian_event,
    propagate,
)
from dasim.filters.getkf import GETKF
from dasim.filters.windows import check_lag
from dasim.types import Analysis


class Window(NamedTuple):
    """The ensembles of the last cycles, the oldest first, and what the inflation remembers."""

    ensembles: Float[Array, "window member *state"]
    inflation: Any


class EnKS(AbstractFilter):
    """A fixed-lag smoother around an ensemble filter.

    `info.smoothed` is the ensemble `lag` cycles ago; the initial one before there were so many.
    A rotation turns all ensembles of the window alike. Inflation acts on the present one alone.

    Attributes:
        filter: the filter whose analysis is extended to the past.
        lag: how many cycles back.
    """

    filter: AbstractEnsembleFilter
    lag: int = eqx.field(static=True)

    def __init__(self, filter: AbstractEnsembleFilter, lag: int = 1):
        """Raises ValueError for a lag below one cycle, or a GETKF."""
        self.lag = check_lag(lag)
        if isinstance(filter, GETKF):
            raise ValueError("EnKS: the modes of a GETKF are those of one state; take an ETKF")
        localization = getattr(filter, "localization", None)
        if localization is not None:
            filter = eqx.tree_at(
                lambda f: f.localization, filter, localization.repeat(self.lag + 1)
            )
        self.filter = filter

    def init(self, ensemble, key):
        check_ensemble(ensemble)
        window = jnp.broadcast_to(ensemble, (self.lag + 1, *ensemble.shape))
        return Window(window, self.filter.inflation.init(flatten(ensemble)))

    def step(self, transition, observation, state, obs, key):
        forecast_key, inflation_key, analysis_key = jax.random.split(key, 3)
        inflation = self.filter.inflation
        present = state.ensembles[-1]
        forecast = propagate(transition, present, obs.time - transition.interval, forecast_key)
        event = gaussian_event(observation, obs)
        size = flatten(present).shape[1]
        flat = flat_event(event, present.shape[1:])
        prior, updated = inflation.prior(state.inflation, flatten(forecast), flat, inflation_key)
        joint = jnp.concatenate([*map(flatten, state.ensembles[1:]), prior], 1)
        # of the states one after another the last is observed
        last = eqx.tree_at(lambda e: e.operator, flat, lambda x, t: flat.operator(x[-size:], t))
        analysed = self.filter.analyse(joint, constraints(flat, prior), last, analysis_key)
        now = inflation.posterior(prior, analysed[:, -size:])
        analysed = jnp.concatenate([analysed[:, :-size], now], 1)
        unseen = jnp.concatenate([joint[:, :-size], flatten(forecast)], 1)
        seen = obs.mask.any()
        window = jnp.where(seen, analysed, unseen).reshape(len(joint), self.lag + 1, -1)
        window = jnp.moveaxis(window, 1, 0).reshape(state.ensembles.shape)
        updated = jax.tree.map(lambda a, b: jnp.where(seen, a, b), updated, state.inflation)
        info = describe(event, forecast, window[-1], obs, window[0])
        return Window(window, updated), info


@eqx.filter_jit
def ensemble_rts(saved: Analysis, damping: float = 1.0) -> Float[Array, "cycle member *state"]:
    """Smoothed ensembles of all cycles, from what `cycle` kept of each.

    Args:
        saved: its forecasts and analyses, `(cycle, member, *state)`; from a filter whose members
            keep their identity from an analysis to the next forecast.
        damping: factor on J, at most 1, against sampling error.
    """
    forecasts, analyses = (a.reshape(*a.shape[:2], -1) for a in (saved.forecast, saved.analysis))

    def back(later, item):
        analysis, forecast = item  # at k, and at k + 1
        x, xf = analysis - analysis.mean(0), forecast - forecast.mean(0)
        values, vectors = jnp.linalg.eigh(xf @ xf.T)
        kept = values > 1e-6 * values[-1]
        inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1.0), 0.0)
        weights = ((later - forecast) @ xf.T @ vectors) * inverse @ vectors.T
        smoothed = analysis + damping * weights @ x
        return smoothed, smoothed

    last = analyses[-1]
    _, earlier = jax.lax.scan(back, last, (analyses[:-1], forecasts[1:]), reverse=True)
    return jnp.concatenate([earlier, last[None]]).reshape(saved.analysis.shape)
