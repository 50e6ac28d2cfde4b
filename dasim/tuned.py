"""Files of a tuning: the scores of every setting, a figure for each method, the tuned config."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import yaml
from pydantic import ValidationError

from dasim import config as schema
from dasim import plot, tuning
from dasim.build import make_filter
from dasim.priors.store import without_nan, write_atomically, writing
from dasim.types import DivergedError

Progress = Callable[[str, int, int], None]


def tune(
    run: schema.Run,
    folder: Path,
    names: list[str] | tuple[str, ...] = (),
    command: str = "dasim tune",
    progress: Progress | None = None,
    told: Callable[[str, dict], None] | None = None,
) -> dict:
    """Measure the settings of each method and write the files of a tuning into `folder`.

    Args:
        run: the config; its `tune` says what is tried.
        names: methods to tune, all if empty.
        command: what stands in the tuned config as its origin.
        progress: called with a method, the number of its settings measured, and of all.
        told: called with a method and its entry of `tune.json` as soon as that is written.

    Returns:
        What stands in `tune.json`.

    Raises:
        ConfigError: a grid, a method or a problem that cannot be; nothing was computed then.
        DivergedError: at the end, if no method kept all truths with any setting.
    """
    with jax.enable_x64(run.precision == "float64"):
        return _tune(run, Path(folder), names, command, progress, told or (lambda *_: None))


def _tune(run, folder, names, command, progress, told):
    known = [m.name for m in run.methods]
    for name in names:
        if name not in known:
            raise schema.ConfigError(f"--method {name}: the config has {', '.join(known)}")
    tuning.check_grid(run)
    methods = [m for m in run.methods if not names or m.name in names]
    plans = {m.name: tuning.candidates(m, run.tune, run.seed) for m in methods}
    if not any(plans.values()):
        raise schema.ConfigError(
            f"nothing to tune: {', '.join(plans)} has none of the settings of tune.grid "
            f"({', '.join(run.tune.grid)})"
        )
    tried = {m.name: [tuning.with_settings(m, s) for s in plans[m.name]] for m in methods}
    for method in (m for of_one in tried.values() for m in of_one):
        with_methods(run, {method.name: method})
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # an older one, lest it be taken for this tuning's
        (folder / "tuned.yaml").unlink(missing_ok=True)
    problems = tuning.twins(run, run.tune.seeds)
    for method in (m for of_one in tried.values() for m in of_one):
        make_filter(method, problems[0])
        problems[0].transition(method.transition)
    scored = problems[0].scored
    result: dict = {
        "name": run.name,
        "score": run.tune.score,
        "seeds": run.tune.seeds,
        "cycles": {"total": len(scored), "scored": int(scored.sum())},
        "methods": {},
    }
    winners = {}
    for method in methods:
        settings = plans[method.name]
        scores: list[dict] = []
        if settings:
            report = None if progress is None else _named(progress, method.name)
            scores = tuning.measure(run, tried[method.name], problems, report)
        best = tuning.best(scores, run.tune.score)
        if best is not None:
            winners[method.name] = tried[method.name][best]
        entry = {
            "winner": best,
            "settings": None if best is None else settings[best],
            "edge": [] if best is None else tuning.edges(method, settings[best], run.tune),
            "rows": [
                {"settings": a, "scores": without_nan(b)}
                for a, b in zip(settings, scores, strict=True)
            ],
        }
        result["methods"][method.name] = entry
        _write(folder / "tune.json", json.dumps(result, indent=1))
        figure = draw(run, method.name, settings, scores, best)
        if figure is not None:
            _write(folder / f"{method.name}.png", plot.to_bytes(figure, "png"))
        told(method.name, entry)
    if not winners:
        raise DivergedError(
            f"no method could be tuned: every setting of {', '.join(n for n in plans if plans[n])} "
            f"lost a truth. The scores are in {folder / 'tune.json'}. Try more inflation, smaller "
            "localization radii or more members."
        )
    tuned = with_methods(run, winners).model_dump(mode="json", exclude_unset=True)
    tuned = {"name": run.name, **tuned}  # in the order in which a config is written
    tuned["methods"] = [{"name": m["name"], "kind": m["kind"], **m} for m in tuned["methods"]]
    origin = f"# {' '.join(command.split())}\n"
    _write(folder / "tuned.yaml", origin + yaml.safe_dump(tuned, sort_keys=False))
    return result


def _named(progress, name):
    return lambda done, total: progress(name, done, total)


def with_methods(run: schema.Run, methods: dict[str, schema.Method]) -> schema.Run:
    """The run with the methods of these names replaced.

    Raises:
        ConfigError: a setting that the run cannot have.
    """
    content = run.model_dump(exclude_unset=True)
    content["methods"] = [methods.get(m.name, m) for m in run.methods]
    try:
        return schema.Run.model_validate(content)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise schema.ConfigError(f"tune.grid: {message}") from None


def draw(run: schema.Run, name: str, settings: list[dict], scores: list[dict], best: int | None):
    """A map over two settings of a grid, a line over one of numbers, or None."""
    if not settings:
        return None
    values = {k: _distinct([s[k] for s in settings]) for k in settings[0]}
    varied = [k for k, v in values.items() if len(v) > 1]
    whole = len(settings) == np.prod([len(v) for v in values.values()])
    column = lambda key: np.array([s[key] for s in scores], float)
    score = f"{run.tune.score}_analysis"
    label = f"{run.tune.score.upper()} of the analysis"
    title = f"{run.name}: {name}, {run.tune.seeds} truth{'s' if run.tune.seeds > 1 else ''}"
    if len(varied) == 1 and tuning.all_numbers(values[varied[0]]):
        x = np.array([s[varied[0]] for s in settings], float)
        order = np.argsort(x, kind="stable")
        at = None if best is None else int(np.flatnonzero(order == best)[0])
        mean, error, lost = (column(k)[order] for k in (score, f"{score}_stderr", "diverged"))
        return plot.score_line(x[order], mean, error, lost, at, varied[0], title, label)
    if len(varied) == 2 and whole and all(tuning.all_numbers(values[k]) for k in varied):
        a, b = varied  # the grid is in the order of its product
        shape = len(values[a]), len(values[b])
        at = None if best is None else tuple(int(i) for i in np.unravel_index(best, shape))[::-1]
        mean, lost = (column(k).reshape(shape).T for k in (score, "diverged"))
        return plot.score_map(mean, lost, at, (b, values[b]), (a, values[a]), title, label)
    return None


def _distinct(values: list) -> list:
    return [v for i, v in enumerate(values) if v not in values[:i]]


def _write(path: Path, content: str | bytes):
    with writing(path):
        write_atomically(path, content if isinstance(content, bytes) else content.encode())
