"""Assimilation at moorings withheld in four folds, and forecasts from each analysis."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from data import Moorings
from scores import LEADS

import dasim
from dasim.diagnostics import variance_scale
from dasim.filters import ConditionalScoreFilter, ExtendedKalmanFilter
from dasim.operators import Modes

FOLDS = 4
DISCOUNT = 0.9  # of what innovations said of the variances, from month to month


@partial(jax.jit, static_argnames=("filter_kind",))
def _run(filter_kind, transition, basis, index, error, value, mask, time, first, key):
    """Analyses of one fold, and forecasts from each, at the moorings and of an index."""
    filter = FILTERS[filter_kind]
    observation = dasim.Observation(Modes(basis), error)
    observations = dasim.Observations(time, value, mask)
    _, saved = dasim.cycle(
        filter,
        transition,
        observation,
        first,
        observations,
        key,
        lambda i: (i.forecast, i.analysis),
    )
    forecast, analysis = saved

    def ahead(members, t, key):
        def step(x, i):
            keys = jax.random.split(jax.random.fold_in(key, i), len(x))
            x = jax.vmap(transition.sample, (0, None, 0))(x, t + i, keys)
            return x, jnp.concatenate([x @ basis, (x @ index)[:, None]], 1)

        return jax.lax.scan(step, members, jnp.arange(max(LEADS)))[1]

    keys = jax.random.split(jax.random.fold_in(key, 7), len(time))
    later = jax.lax.map(lambda a: ahead(*a), (analysis, time, keys))
    return forecast @ basis, analysis @ basis, later, analysis


FILTERS = {
    "kalman": ExtendedKalmanFilter(),
    "score": ConditionalScoreFilter(weighted=False),
}


def scale_of(forecast, value, used, r) -> np.ndarray:
    """Factor on all variances, `(month,)`, by the innovations up to each month."""
    found = np.full(len(value), np.nan)
    for k, (members, y, seen) in enumerate(zip(forecast, value, used, strict=True)):
        if seen.sum() < 3:
            continue
        d = (y - members.mean(0))[seen]
        s = np.cov(members[:, seen].T) + r[np.ix_(seen, seen)]
        found[k] = d @ np.linalg.solve(s, d) / seen.sum()
    return variance_scale(found, DISCOUNT)


def widened(members, scale):
    """Members with their variances multiplied, `scale` of the leading axes and `(month,)`."""
    mean = members.mean(-2, keepdims=True)
    factor = np.sqrt(scale).reshape(len(scale), *[1] * (members.ndim - 1))
    return mean + factor * (members - mean)


def assimilate(
    kind, transition, basis, index, error, r, moorings: Moorings, months, first, key=None
):
    """Everything at the moorings: background, analysis, forecasts `(month, member, mooring)`,
    those of a mooring from the fold that withholds it; the states of the last fold; the factor on
    the variances, `(month, mooring)`; and the last fold's forecasts of the index."""
    key = jax.random.key(0) if key is None else key
    value = moorings.values[months]
    seen = np.isfinite(value)
    filled = jnp.asarray(np.where(seen, value, 0.0))
    time = jnp.asarray(months, float)
    parts = None
    for fold in range(FOLDS):
        out = np.arange(value.shape[1]) % FOLDS == fold
        got = _run(
            kind, transition, basis, index, error, filled, jnp.asarray(seen & ~out), time, first,
            jax.random.fold_in(key, fold),
        )  # fmt: skip
        background, analysis, later, states = (np.asarray(g, float) for g in got)
        scale = scale_of(background, value, seen & ~out, np.asarray(r))
        before = np.concatenate([[1.0], scale[:-1]])
        later = widened(later, scale)
        own = [widened(background, before), widened(analysis, scale), later[..., :-1]]
        own.append(np.broadcast_to(scale[:, None], value.shape))
        if parts is None:
            parts = own
        parts = [np.where(out, new, old) for new, old in zip(own, parts, strict=True)]
    return *parts[:3], states, parts[3], later[..., -1]
