"""Cycling on grids: what the cases of this folder share.

The truth is simulated on the finest grid; every method sees the same readings of it, and is scored
on the points that all grids share.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import numpy as np

from dasim.cycling import cycle
from dasim.diagnostics import score, summarize
from dasim.observe import Observation
from dasim.problems.twin import climate
from dasim.transitions import ModelTransition, simulate

TRUTHS = 3


class Case(NamedTuple):
    """A case.

    Attributes:
        transition: the true model on a grid of so many points an axis.
        observation: what its states are seen through.
        finest, coarsest: the grid of the truth, and that of the scores.
        members: of an ensemble.
        cycles, burn_in: how many there are, and how many of them are not scored.
    """

    transition: Callable[[int], ModelTransition]
    observation: Callable[[int], Observation]
    finest: int
    coarsest: int
    members: int
    cycles: int
    burn_in: int

    def every(self, stride: int, fields):
        """Every so many points of fields `(count, *grid)` along each axis of the grid."""
        return fields[(slice(None), *[slice(None, None, stride)] * (fields.ndim - 1))]


@cache
def kept(case: Case, size: int):
    """What is saved of a cycle; one function for all runs, lest each compiles anew."""
    return lambda info: case.every(size // case.coarsest, info.analysis)


@cache
def twin(case: Case, seed: int):
    """A truth on the finest grid, the readings, first ensembles, and a key."""
    fine, key = case.transition(case.finest), jax.random.fold_in(jax.random.key(0), seed)
    truth_key, start_key, ensemble_key = jax.random.split(key, 3)
    states = climate(fine, case.members + 1, jax.random.fold_in(start_key, 0))
    seen = case.observation(case.finest)
    truth, readings = simulate(fine, seen, states[0], case.cycles, truth_key)
    return np.asarray(truth), readings, states[1:], ensemble_key


def cycled(case: Case, filter, transition, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A truth `(cycle, *grid)` and its analyses `(member, cycle, *grid)`, on the coarsest grid."""
    truth, readings, ensemble, key = twin(case, seed)
    size = transition.shape[0]
    start = case.every(case.finest // size, ensemble)
    seen = case.observation(size)
    _, analysis = cycle(filter, transition, seen, start, readings, key, kept(case, size))
    truth = case.every(case.finest // case.coarsest, truth)
    return truth, np.moveaxis(np.asarray(analysis), 0, 1)


def measured(case: Case, filter, transition, seed: int) -> dict:
    """Scores of one truth's run."""
    twin(case, seed)  # before the clock starts: all methods share it
    began = time.perf_counter()
    truth, analysis = cycled(case, filter, transition, seed)
    seconds = (time.perf_counter() - began) / case.cycles
    axes = tuple(range(1, truth.ndim))
    scored = np.expand_dims(np.arange(case.cycles) >= case.burn_in, axes)
    return summarize(score(analysis, truth), axes, scored) | {"seconds_per_cycle": seconds}


def averaged(each: list[dict]) -> dict:
    """Means of the scores of several truths."""
    names = "crps", "rmse", "spread", "coverage_90", "seconds_per_cycle"
    found = {k: float(np.mean([e[k] for e in each])) for k in names}
    found["ratio"] = found["spread"] / found["rmse"]
    found["crps_each"] = [e["crps"] for e in each]
    return found


def tuned(case: Case, make: Callable, settings: list[tuple], finalists: int | None = None) -> dict:
    """The best of some settings over all truths.

    Args:
        make: function of a setting to a filter and a transition.
        finalists: so many, the best on the first truth, see the others; None for all.
    """

    def crps(found: dict) -> float:
        return found["crps"] if np.isfinite(found["crps"]) else np.inf  # a truth was lost

    first = [(measured(case, *make(s), 0), s) for s in settings]
    best = sorted(first, key=lambda item: crps(item[0]))[:finalists]
    others = range(1, TRUTHS)
    found = [
        averaged([one, *(measured(case, *make(s), seed) for seed in others)]) | {"setting": list(s)}
        for one, s in best
    ]
    return min(found, key=crps)
