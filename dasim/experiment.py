"""A run: chunks of cycles with progress, files and checkpoints."""

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import yaml

from dasim import config as schema
from dasim import forecasts
from dasim.build import make_filter
from dasim.cycling import scan_cycles
from dasim.feedback import write_feedback
from dasim.priors.store import (
    GO_ON,
    load_arrays,
    read_header,
    save_arrays,
    without_nan,
    write_atomically,
    writing,
)
from dasim.problems import Problem, make_problem
from dasim.report import write_report
from dasim.results import MethodFile
from dasim.types import Analysis, DasimError, DivergedError
from dasim.withheld import event_scores, reference_scores

Progress = Callable[[str, int, int, str], None]


def _writing(path: Path):
    return writing(path, GO_ON)


def _keep(info: Analysis):
    return info.forecast, info.analysis, info.log_evidence, info.used, info.learned


@eqx.filter_jit
def _run_chunk(filter, transition, observation, states, observations, masks, keys, start):
    """All folds of one chunk; `states`, `masks` and `keys` have a leading fold axis."""

    def one(state, mask, key):
        seen = eqx.tree_at(lambda o: o.mask, observations, mask)
        return scan_cycles(filter, transition, observation, state, seen, key, start, _keep)

    return jax.vmap(one)(states, masks, keys)


def _chunk_length(segment: int, wanted: int) -> int:
    """The largest chunk of at most `wanted` cycles that divides a segment, or nearly."""
    n_chunks = -(-segment // wanted)
    return -(-segment // n_chunks)


@dataclass
class MethodRun:
    """One method's way through a problem."""

    method: schema.Method
    problem: Problem
    run: schema.Run
    folder: Path

    def __post_init__(self):
        self.members = self.method.members or self.run.members
        self.file = MethodFile(
            self.folder / f"{self.method.name}.nc",
            self.problem,
            self.members,
            self.run.cycle.save_forecast,
        )
        self.checkpoint = self.folder / "checkpoint" / f"{self.method.name}.safetensors"
        self.filter = make_filter(self.method, self.problem)
        self.transition = self.problem.transition(self.method.transition)
        # named, so that another method added to the config changes nothing here
        salt = zlib.crc32(self.method.name.encode())
        self.key = jax.random.fold_in(jax.random.key(self.run.seed), salt)
        folds = jnp.arange(len(self.problem.folds))
        self.fold_keys = jax.vmap(lambda f: jax.random.fold_in(self.key, f))(folds)

    def fresh(self, start: int):
        """The filter's states at the beginning of a segment."""

        def one(key):
            draw, init = jax.random.split(jax.random.fold_in(key, 2**31 + start))
            ensemble = self.problem.ensemble(self.members, draw)
            return self.filter.init(ensemble.astype(self.dtype), init)

        return jax.vmap(one)(self.fold_keys)

    @property
    def dtype(self):
        return jnp.float64 if self.run.precision == "float64" else jnp.float32

    def chunks(self) -> list[tuple[int, int, bool]]:
        """Start, number of cycles, and whether a segment begins, of each chunk."""
        segment, total = self.problem.segment, self.problem.n_cycles
        length = _chunk_length(segment, self.run.cycle.chunk)
        return [
            (start, min(length, first + segment - start), start == first)
            for first in range(0, total, segment)
            for start in range(first, first + segment, length)
        ]

    def _observations(self, start: int, n: int, length: int):
        """One chunk's observations, padded at the end with cycles in which nothing was seen."""
        rows = np.minimum(np.arange(start, start + length), start + n - 1)
        observed = jax.tree.map(
            lambda a: jnp.asarray(np.asarray(a)[rows]), self.problem.observations
        )
        real = (np.arange(length) < n)[None, :, None]
        return observed, jnp.asarray(self.problem.masks[:, rows] & real)

    def execute(self, resume: bool, progress: Progress) -> dict:
        """Run all chunks that are not done; the timing and the cycle of a divergence."""
        chunks = self.chunks()
        length = chunks[0][1]
        states = self.fresh(0)
        done, seconds, diverged = 0, 0.0, None
        if resume and self.checkpoint.exists():
            states, header = load_arrays(self.checkpoint, states)
            done, seconds, diverged = header["done"], header["seconds"], header["diverged_at"]
        else:
            self.file.create(self.method.name, self.method.kind, self.run.cycle.burn_in)
        arguments = (self.filter, self.transition, self.problem.observation)
        compiled = None
        for number, (start, n, begins) in enumerate(chunks):
            if number < done or diverged is not None:
                progress(self.method.name, start + n, self.problem.n_cycles, "")
                continue
            if begins and number:  # the first segment's were made above
                states = self.fresh(start)
            observed, masks = self._observations(start, n, length)
            inputs = (states, observed, masks, self.fold_keys, jnp.asarray(start))
            if compiled is None:
                progress(self.method.name, start, self.problem.n_cycles, "compiling")
                compiled = _run_chunk.lower(*arguments, *inputs).compile()
            began = time.perf_counter()
            states, saved = jax.block_until_ready(compiled(*arguments, *inputs))
            seconds += time.perf_counter() - began
            forecast, analysis, evidence = (np.asarray(a, float) for a in saved[:3])
            used, learned = np.asarray(saved[3]), saved[4]
            diverged = _first_bad(start, forecast[:, :n], analysis[:, :n])
            self.file.write(start, *(a[:, :n] for a in (forecast, analysis, evidence, used)))
            if learned is not None:
                self.file.write_learned(start, *(np.asarray(a, float)[:, :n] for a in learned))
            self._save(states, number + 1, seconds, diverged)
            progress(self.method.name, start + n, self.problem.n_cycles, "")
        cycles = sum(n for _, n, _ in chunks)
        return {"seconds_per_cycle": seconds / cycles, "diverged_at": diverged}

    def check_resumable(self):
        """Refuse a checkpoint that is broken, of other settings, or without its file."""
        if not self.checkpoint.exists():
            return
        header = read_header(self.checkpoint)
        if header.get("config") != self._identity():
            raise DasimError(
                f"{self.checkpoint}: belongs to a run with other settings; use another --out, "
                "or run without --resume to start afresh"
            )
        if not self.file.path.exists():
            raise DasimError(
                f"{self.file.path}: is missing though its checkpoint is there; "
                "run without --resume to start afresh"
            )
        self.file.check()

    def _identity(self) -> str:
        """What must be the same for a checkpoint to go on."""
        shared = self.run.model_dump(mode="json", exclude={"methods", "name"})
        return json.dumps([shared, self.method.model_dump(mode="json")], sort_keys=True)

    def _save(self, states, done, seconds, diverged):
        header = {"done": done, "seconds": seconds, "diverged_at": diverged}
        with _writing(self.checkpoint):
            save_arrays(self.checkpoint, states, {**header, "config": self._identity()})


def _first_bad(start: int, *ensembles: np.ndarray) -> int | None:
    """The first cycle with a value that is not finite, in `(fold, cycle, ...)` arrays."""
    bad = [~np.isfinite(e).all(axis=(0, *range(2, e.ndim))) for e in ensembles]
    cycles = np.flatnonzero(np.any(bad, 0))
    return start + int(cycles[0]) if len(cycles) else None


def run(
    settings: schema.Run, folder: Path, resume: bool = False, progress: Progress | None = None
) -> dict:
    """Assimilate, and write the files of a run into `folder`.

    Returns:
        What stands in `scores.json`.

    Raises:
        DasimError: bad settings or data, a full disk; everything computed so far is kept.
        DivergedError: after all methods are done, if one lost the truth.
    """
    report_progress = progress or (lambda *_: None)
    with jax.enable_x64(settings.precision == "float64"):
        return _run(settings, Path(folder), resume, report_progress)


def _run(settings, folder, resume, progress):
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    resolved = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    problem = make_problem(settings, jax.random.key(settings.seed))
    events = [forecasts.asked(e.name, e.when, e.within, problem.shape) for e in settings.events]
    # all methods are made before the first one runs: a bad setting costs no computing
    runs = [MethodRun(m, problem, settings, folder) for m in settings.methods]
    if resume:
        for one in runs:
            one.check_resumable()
    with _writing(folder / "config.yaml"):
        write_atomically(folder / "config.yaml", resolved.encode())
    cycles = {"total": problem.n_cycles, "scored": int(problem.scored.sum())}
    scores: dict = {"methods": {}, "cycles": cycles}
    if problem.kind == "real":
        scores["units"] = {f"{f}.{q}": u for f in problem.folds for q, u in problem.units.items()}
        if problem.law is not None:
            scores["field"] = problem.law
        scores["withheld"] = reference_scores(problem)
        if problem.censored:
            scores["withheld_events"] = {"persistence": event_scores(problem)}
    came = {e.name: forecasts.outcomes(e.event, e.within, problem.truth) for e in events}
    diverged = []
    chances, paths = ({e.name: {} for e in events} for _ in range(2))
    for one in runs:
        outcome = one.execute(resume, progress)
        scores["methods"][one.method.name] = {**one.file.scores(), **outcome}
        if problem.kind == "real":
            for station, table in one.file.withheld_scores().items():
                scores["withheld"][station][one.method.name] = table
            if problem.censored:
                scores["withheld_events"][one.method.name] = one.file.withheld_events()
            with _writing(folder / "feedback"):
                write_feedback(folder / "feedback", one.method.name, one.file, problem)
        if outcome["diverged_at"] is not None:
            diverged.append((one.method.name, outcome["diverged_at"]))
        if events:
            scores["events"] = _forecast_events(one, events, came, chances, paths, folder)
        text = json.dumps(without_nan(scores), indent=1)
        with _writing(folder / "scores.json"):
            write_atomically(folder / "scores.json", text.encode())
    with _writing(folder / "report.html"):
        write_report(folder)
    if diverged:
        names = "; ".join(f"{name} at cycle {k} of {problem.n_cycles}" for name, k in diverged)
        raise DivergedError(
            f"diverged: {names}. What was computed is in {folder}. Try more inflation, a smaller "
            "localization_radius or more members."
        )
    return scores


def _forecast_events(
    one: MethodRun,
    events: list[forecasts.Asked],
    came: dict,
    chances: dict,
    paths: dict,
    folder: Path,
) -> dict:
    """Forecasts from one method's analyses, added to `chances`; all scores so far.

    The sample paths, added to `paths`, are all from the analysis that the first method doubts most.
    """
    problem = one.problem
    analysis = jnp.asarray(np.moveaxis(one.file.read("analysis"), 0, 1), one.dtype)
    time = np.asarray(problem.observations.time)
    table = {}
    for number, ask in enumerate(events):
        key = jax.random.fold_in(one.key, 2**31 - 1 - number)
        chance = np.array(
            forecasts.probabilities(
                one.transition, ask.event, ask.within, analysis, jnp.asarray(time), key
            )
        )
        chance[~np.isfinite(np.asarray(analysis)).all(tuple(range(1, analysis.ndim)))] = np.nan
        chances[ask.name][one.method.name] = chance
        known = came[ask.name]
        if paths[ask.name]:
            cycle = next(iter(paths[ask.name].values())).cycle
        else:
            cycle = forecasts.doubtful_cycle(chance, known, problem.scored)
        if cycle is not None and np.isfinite(chance[cycle]):
            paths[ask.name][one.method.name] = forecasts.sample_paths(
                one.transition, ask, analysis, jnp.asarray(time), problem.truth, cycle, key
            )
        kept = problem.scored[: len(known)]
        table[ask.name] = {
            method: forecasts.scores(p[: len(known)][kept], known[kept])
            for method, p in chances[ask.name].items()
        }
    with _writing(folder / "events.nc"):
        forecasts.write_events(
            folder / "events.nc", events, time, problem.scored, came, chances, paths
        )
    return table
