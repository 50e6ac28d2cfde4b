r"""Many settings of a method on several truths at once: scores with standard errors, and the best.

Settings whose filters differ in numbers alone (inflation, localisation radius, ...) run as one
`vmap`, in batches where memory is short; each filter and truth draws as it would alone. RMSE,
spread and fair CRPS (Ferro 2014) are taken cycle by cycle on the device; their time means carry
standard errors that account for autocorrelation (`dasim.diagnostics.time_mean`).
"""

import difflib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import ValidationError

from dasim import config as schema
from dasim.build import make_filter
from dasim.covariance import flatten
from dasim.diagnostics import time_mean
from dasim.filters import AbstractFilter
from dasim.problems import Twin, make_problem

BATCH_NUMBERS = 2**27  # of the ensembles and local analyses that one batch holds
CPU_BATCH = 16  # settings at a time on a CPU, which more of them would not make faster
METRICS = ("rmse", "spread", "crps", "coverage_90")
Progress = Callable[[int, int], None]


class Series(NamedTuple):
    """Scores of each cycle, forecast and analysis, `(..., cycle, 2)`."""

    rmse: Float[Array, "..."]
    spread: Float[Array, "..."]
    crps: Float[Array, "..."]
    coverage_90: Float[Array, "..."]


def fair_crps(members: Float[Array, "member n"], truth: Float[Array, " n"]) -> Float[Array, ""]:
    """Mean over the variables, inside compiled code; `dasim.diagnostics.fair_crps` outside it."""
    n = members.shape[0]
    ranked = jnp.sort(members, 0)
    weights = (2.0 * jnp.arange(1, n + 1) - n - 1).astype(members.dtype)
    apart = weights @ ranked / (n * (n - 1.0))
    return jnp.mean(jnp.abs(members - truth).mean(0) - apart)


def _score(ensemble, truth):
    members, truth = flatten(ensemble), truth.reshape(-1)
    error = members.mean(0) - truth
    spread = jnp.sqrt(members.var(0, ddof=1).mean())
    count = members.shape[0]
    lowest = max(0.0, (0.05 * (count + 1) - 1) / (count - 1))  # the rank (N + 1) p
    low, high = jnp.quantile(members, jnp.array([lowest, 1 - lowest]), axis=0)
    covered = jnp.mean((low <= truth) & (truth <= high), dtype=members.dtype)
    return Series(jnp.sqrt(jnp.mean(error**2)), spread, fair_crps(members, truth), covered)


def _run(filter, transition, observation, ensemble, observations, truth, key) -> Series:
    """One filter on one truth."""
    init_key, key = jax.random.split(key)

    def body(state, item):
        k, obs, x = item
        state, info = filter.step(transition, observation, state, obs, jax.random.fold_in(key, k))
        both = _score(info.forecast, x), _score(info.analysis, x)
        return state, jax.tree.map(lambda *a: jnp.stack(a), *both)

    items = (jnp.arange(observations.n_cycles), observations, truth)
    return jax.lax.scan(body, filter.init(ensemble, init_key), items)[1]


@eqx.filter_jit
def _run_all(numbers, rest, transition, observation, ensembles, observations, truths, keys):
    """All filters (leading axis of `numbers`) on all truths (leading axis of the others)."""

    def one(own):
        filter = eqx.combine(own[1], rest)
        run = lambda *truth: _run(filter, transition, observation, *truth)
        return jax.vmap(run)(ensembles, observations, truths, keys)

    return jax.vmap(one)(numbers)


def _groups(filters: list[AbstractFilter]) -> list[list[int]]:
    """Indices of the filters that one compilation can run."""
    found: dict[Any, list[int]] = {}
    for i, filter in enumerate(filters):
        arrays, rest = eqx.partition(filter, eqx.is_array)
        shapes = tuple((a.shape, a.dtype) for a in jax.tree.leaves(arrays))
        alike = (jax.tree.structure(filter), shapes, tuple(map(repr, jax.tree.leaves(rest))))
        found.setdefault(alike, []).append(i)
    return list(found.values())


def _stacked(filters: list[AbstractFilter]):
    """The arrays of filters of one group with a leading axis, and the rest, which they share."""
    numbers, rests = zip(*(eqx.partition(f, eqx.is_array) for f in filters), strict=True)
    # the count is an axis for filters that have no arrays, too
    return (jnp.arange(len(filters)), jax.tree.map(lambda *a: jnp.stack(a), *numbers)), rests[0]


def twins(run: schema.Run, seeds: int) -> list[Twin]:
    """The twin experiment of a config with as many truths, the first that of `dasim run`."""
    if run.system is None:
        raise schema.ConfigError("tune: needs a twin experiment (system), whose truth is known")
    return [make_problem(run, jax.random.key(run.seed + s)) for s in range(seeds)]


def measure(
    run: schema.Run,
    methods: list[schema.Method],
    problems: list[Twin],
    progress: Progress | None = None,
) -> list[dict]:
    """Scores of each method over the truths of `problems`, which are alike but for their seeds.

    Returns:
        For each method: `rmse_analysis` and so on with `_stderr`, `rmse_of_seeds`, and
        `diverged`, the number of truths that were lost.

    Raises:
        ConfigError: a setting that the problem or the filter cannot have.
    """
    found = series_of(run, methods, problems, progress)
    return [_summary(series, problems[0].scored) for series in found]


def series_of(
    run: schema.Run,
    methods: list[schema.Method],
    problems: list[Twin],
    progress: Progress | None = None,
) -> list[Series]:
    """The scores of `measure` cycle by cycle, `(truth, cycle, 2)`, for each method.

    Raises:
        ConfigError: a setting that the problem or the filter cannot have.
    """
    first = problems[0]
    filters = [make_filter(m, first) for m in methods]
    alike: dict[tuple, list[int]] = {}
    for i, m in enumerate(methods):
        alike.setdefault((m.members or run.members, m.transition), []).append(i)
    observations = jax.tree.map(lambda *a: jnp.stack(a), *(p.observations for p in problems))
    truths = jnp.stack([jnp.asarray(p.truth) for p in problems])
    results: dict[int, Series] = {}
    done = 0
    for (members, name), indices in alike.items():
        transition = first.transition(name)
        seeds = (jax.random.key(run.seed + s) for s in range(len(problems)))
        keys = [jax.random.fold_in(k, members) for k in seeds]
        starts = zip(problems, (jax.random.fold_in(k, 1) for k in keys), strict=True)
        ensembles = jnp.stack([p.ensemble(members, k) for p, k in starts]).astype(truths.dtype)
        keys = jnp.stack([jax.random.fold_in(k, 2) for k in keys])
        most = BATCH_NUMBERS // (ensembles.size * observations.value.shape[-1])
        most = max(1, min(most, CPU_BATCH) if jax.default_backend() == "cpu" else most)
        for group in _groups([filters[i] for i in indices]):
            chosen = [indices[g] for g in group]
            numbers, rest = _stacked([filters[i] for i in chosen])
            length = -(-len(chosen) // -(-len(chosen) // most))
            for start in range(0, len(chosen), length):
                # the last batch repeats its last filter: one compilation does for all
                rows = np.minimum(np.arange(start, start + length), len(chosen) - 1)
                series = _run_all(
                    jax.tree.map(lambda a, rows=rows: a[rows], numbers), rest, transition,
                    first.observation, ensembles, observations, truths, keys,
                )  # fmt: skip
                series = jax.tree.map(lambda a: np.asarray(a, float), series)
                batch = chosen[start : start + length]
                for row, i in enumerate(batch):
                    results[i] = Series(*(a[row] for a in series))
                done += len(batch)
                if progress is not None:
                    progress(done, len(methods))
    return [results[i] for i in range(len(methods))]


def _summary(series: Series, scored) -> dict:
    """Time means over the scored cycles, then the mean over the truths."""
    out: dict[str, Any] = {}
    finite = np.isfinite(series.rmse).all((1, 2))
    out["diverged"] = int((~finite).sum())
    for name in METRICS:
        for stage, values in zip(
            ("forecast", "analysis"), np.moveaxis(getattr(series, name), -1, 0), strict=True
        ):
            means = [time_mean(row[scored]) for row in values[finite]]
            average = np.mean([m for m, _ in means]) if means else np.nan
            error = np.sqrt(np.sum([e**2 for _, e in means])) / len(means) if means else np.nan
            out[f"{name}_{stage}"], out[f"{name}_{stage}_stderr"] = float(average), float(error)
            if name == "rmse" and stage == "analysis":
                out["rmse_of_seeds"] = [m for m, _ in means]
    return out


def settings_of(method: schema.Method) -> dict[str, Any]:
    """What can be tuned of a method: `{setting: value}`, dotted for those in a section."""
    found: dict[str, Any] = {}
    for key, value in method:
        if key not in ("name", "kind"):
            found[key] = value
        if isinstance(value, schema.Section):
            found |= {f"{key}.{k}": v for k, v in value if k != "kind"}
    return found


def _numbers(values: list) -> list:
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def all_numbers(values: list) -> bool:
    """Whether values are plain numbers."""
    return len(_numbers(values)) == len(values)


def own_grid(method: schema.Method, tune: schema.Tune) -> dict[str, list]:
    """The part of the grid that a method has; plain numbers do not replace a section."""
    own = settings_of(method)
    whole = {k for k, v in own.items() if isinstance(v, schema.Section | list)}
    return {
        key: values
        for key, values in tune.grid.items()
        if key in own and not (key in whole and all_numbers(values))
    }


def check_grid(run: schema.Run):
    """Refuse a grid with a key that no method of the run has; the default grid may have some."""
    if "grid" not in run.tune.model_fields_set:
        return
    used = {key for m in run.methods for key in own_grid(m, run.tune)}
    known = sorted({key for m in run.methods for key in settings_of(m)})
    for key in run.tune.grid:
        if key not in used:
            near = difflib.get_close_matches(key, [k for k in known if k != key], 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise schema.ConfigError(
                f"tune.grid: no method has {key!r} as a setting to try; {hint}"
                f"the methods have: {', '.join(known)}"
            )


def candidates(method: schema.Method, tune: schema.Tune, seed: int = 0) -> list[dict]:
    """The settings to try of one method: all of the grid, or random ones within its ranges."""
    fields = own_grid(method, tune)
    if not fields:
        return []
    if tune.random is None:
        return [
            dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())
        ]
    rng = np.random.default_rng(seed)
    return [{k: _random_value(rng, v) for k, v in fields.items()} for _ in range(tune.random)]


def _random_value(rng, values: list):
    if not all_numbers(values):
        return values[rng.integers(len(values))]
    low, high = min(values), max(values)
    if all(isinstance(v, int) for v in values):
        return int(rng.integers(low, high + 1))
    return float(np.clip(float(f"{rng.uniform(low, high):.5g}"), low, high))


def with_settings(method: schema.Method, settings: dict) -> schema.Method:
    """The method with some settings replaced; keys may be dotted.

    Raises:
        ConfigError: a setting that the method cannot have.
    """
    content = method.model_dump(exclude_unset=True)
    for path, value in settings.items():
        *parents, last = path.split(".")
        place = content
        for part in parents:
            if not isinstance(place.get(part), dict):
                raise schema.ConfigError(
                    f"tune.grid: {path} names a section that {method.name} does not have"
                )
            place = place[part]
        place[last] = value
    try:
        return type(method).model_validate(content)
    except ValidationError as error:
        tried = ", ".join(f"{k}={v}" for k, v in settings.items())
        raise schema.ConfigError(
            f"tune.grid: {method.name} cannot have {tried}: {error.errors()[0]['msg']}"
        ) from None


def best(rows: list[dict], score: str) -> int | None:
    """Index of the row with the least `score` among those that lost no truth."""
    kept = [
        i for i, r in enumerate(rows) if r["diverged"] == 0 and np.isfinite(r[f"{score}_analysis"])
    ]
    return min(kept, key=lambda i: rows[i][f"{score}_analysis"]) if kept else None


def edges(method: schema.Method, settings: dict, tune: schema.Tune) -> list[str]:
    """Keys whose value is the least or the greatest of the grid, though the method could go on."""

    def possible(key, value):
        try:
            with_settings(method, settings | {key: value})
        except schema.ConfigError:
            return False
        return True

    found = []
    for key, value in settings.items():
        values = sorted(set(_numbers(tune.grid[key])))
        if tune.random is not None or len(values) < 2 or value not in (values[0], values[-1]):
            continue
        step = 1 if value == values[-1] else -1
        small = 0.01 * step * (values[-1] - values[0])
        if possible(key, value + step) or possible(key, value + small):
            found.append(key)
    return found
