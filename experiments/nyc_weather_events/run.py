"""Visibility and precipitation at withheld airports: events beside Gaussian stand-ins.

    python experiments/nyc_weather_events/run.py [--seeds 3] [--work DIR] [--variants events,plain]

Runs the methods of configs/nyc-weather-events.yaml with each way to take the readings, and each
seed; what --work holds is not run again. Writes results.json and README.md's tables.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import jax
import numpy as np
import typer

from dasim import config as schema
from dasim.diagnostics import time_mean
from dasim.experiment import MethodRun
from dasim.pages import fill
from dasim.problems import make_problem
from dasim.reportable import EVENTS
from dasim.withheld import event_scores

HERE = Path(__file__).parent
SCORE = "ConditionalScore"
# settings of `observe`, and the methods; one that needs a Gaussian takes the climate's for an event
VARIANTS = {
    "events": ({}, None),
    "climate": ({"readings": "climate"}, [SCORE]),
    "plain": ({"readings": "plain"}, None),
    "reported winds": ({"wind": "reported"}, [SCORE]),
}
ONCE = ("plain", "reported winds")  # for the first seed alone
QUANTITIES = ("visib", "precip")
OVERALL = ("rmse_analysis", "spread_analysis", "crps_analysis", "coverage_90_analysis")


def label(method: str, variant: str) -> str:
    if variant == "events" and method != SCORE:
        variant = "climate"
    return f"{method}, {variant}"


def measure(seed, problem, settings, method) -> tuple[dict, dict]:
    """Scores of one run, and the hourly ones of censored quantities and events."""
    with tempfile.TemporaryDirectory() as folder:
        one = MethodRun(method, problem, settings.model_copy(update={"seed": seed}), Path(folder))
        timing = one.execute(False, lambda *_: None)
        overall, withheld = one.file.scores(), one.file.withheld_scores()
        crps, chance = one.file.read("crps_analysis"), one.file.read("chance")
        events = one.file.withheld_events()
    names = problem.reports.variables
    hourly = {"chance": chance[problem.scored]}
    for q in QUANTITIES:
        columns = [names.index(f"{s}.{q}") for s in problem.folds]
        hourly[q] = crps[problem.scored][:, range(len(columns)), columns]
    entry = {k: overall[k] for k in OVERALL} | {"withheld": withheld, "events": events} | timing
    return entry, hourly


def run_all(seeds: int, work: Path, variants: list[str]):
    base = schema.read(schema.find_config("nyc-weather-events"), schema.Run, [])
    problems = {}
    for seed in range(seeds):
        for variant, (changed, chosen) in VARIANTS.items():
            if variant not in variants or (seed and variant in ONCE):
                continue
            for method in base.methods:
                if chosen is not None and method.name not in chosen:
                    continue
                name = label(method.name, variant)
                path = work / f"{name.replace(', ', '-')}-{seed}"
                if path.with_suffix(".json").exists():
                    continue
                seen = base.observe.model_copy(update=changed)
                settings = base.model_copy(update={"observe": seen})
                if variant not in problems:
                    problems[variant] = make_problem(settings, jax.random.key(0))
                entry, hourly = measure(seed, problems[variant], settings, method)
                work.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(path.with_suffix(".npz"), **hourly)
                path.with_suffix(".json").write_text(json.dumps(entry))
                print(name, seed, entry["events"], flush=True)
    return problems.get("events") or make_problem(base, jax.random.key(0))


def collect(work: Path, problem) -> tuple[dict, dict]:
    """Means and standard deviations over seeds, and hourly scores averaged over seeds."""
    found: dict[str, list[Path]] = {}
    for path in sorted(work.glob("*.json")):
        stem, _ = path.stem.rsplit("-", 1)
        found.setdefault(", ".join(stem.rsplit("-", 1)), []).append(path)
    summary, hourly = {}, {}
    stations = problem.folds
    came = {}
    for name, (quantity, low, high) in EVENTS.items():
        columns = [problem.reports.variables.index(f"{s}.{quantity}") for s in stations]
        root = problem.reports.values[problem.index][problem.scored][:, columns]
        came[name] = np.where(np.isnan(root), np.nan, (low < root) & (root < high))
    for name, paths in found.items():
        entries = [json.loads(p.read_text()) for p in paths]
        series = [np.load(p.with_suffix(".npz")) for p in paths]
        row = {"seeds": len(entries)}
        for key in (*OVERALL, "seconds_per_cycle"):
            row[key] = spread_over([e[key] for e in entries])
        for s in stations:
            for q in problem.reports.quantities:
                for key in ("rmse", "spread", "crps", "coverage_90"):
                    values = [e["withheld"][s][q][key] for e in entries]
                    row[f"{s}.{q}.{key}"] = spread_over(values)
            for event in EVENTS:
                for key in ("brier", "skill", "frequency"):
                    values = [e["events"][s][event][key] for e in entries]
                    row[f"{s}.{event}.{key}"] = spread_over(values)
        summary[name] = row
        hourly[name] = {q: np.mean([h[q] for h in series], 0) for q in QUANTITIES}
        for k, event in enumerate(EVENTS):
            each = [(h["chance"][..., k] - came[event]) ** 2 for h in series]
            hourly[name][event] = np.mean(each, 0)
    return summary, hourly


def spread_over(values) -> list[float]:
    ddof = min(1, len(values) - 1)
    return [float(np.mean(values)), float(np.std(values, ddof=ddof))]


def differences(hourly: dict) -> dict:
    """Mean score of the score filter with events less that of each other, and its error."""
    ours = hourly[f"{SCORE}, events"]
    out = {}
    for name, other in hourly.items():
        if name == f"{SCORE}, events":
            continue
        out[name] = {}
        for key in ours:
            both = np.isfinite(ours[key] + other[key])
            with np.errstate(invalid="ignore"):
                gap = np.where(both, ours[key] - other[key], 0).sum(1) / both.sum(1)
            out[name][key] = list(time_mean(gap))
    return out


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def told(pair, digits) -> str:
    one = f"{pair[0]:.{digits}f}"
    return f"{one} ± {pair[1]:.{digits}f}" if pair[1] else one  # of one seed there is none


def mean_over(row: dict, what: str, key: str, stations) -> float:
    return float(np.mean([row[f"{s}.{what}.{key}"][0] for s in stations]))


def write(summary: dict, persistence: dict, gaps: dict, stations):
    parts = {}
    heads = ["method, readings", "RMSE", "spread with error", "CRPS", "90 % coverage", "s / cycle"]
    rows = [
        [name, *(told(row[k], 4) for k in OVERALL), f"{row['seconds_per_cycle'][0]:.3f}"]
        for name, row in summary.items()
    ]
    parts["all withheld variables"] = table(heads, rows)
    for q, digits in (("visib", 3), ("precip", 5)):
        head = [
            "method, readings",
            *(f"{s}: RMSE / spread / CRPS / 90 %" for s in stations),
            "CRPS",
        ]
        rows = []
        for name, row in summary.items():
            cells = [
                " / ".join(
                    f"{row[f'{s}.{q}.{k}'][0]:.{d}f}"
                    for k, d in (("rmse", digits), ("spread", digits), ("crps", digits),
                                 ("coverage_90", 3))
                )
                for s in stations
            ]  # fmt: skip
            rows.append([name, *cells, f"{mean_over(row, q, 'crps', stations):.{digits}f}"])
        parts[q] = table(head, rows)
    head = ["method, readings", *(f"{s}: RMSE / CRPS / 90 %" for s in "uv")]
    rows = []
    for name, row in summary.items():
        each = [
            [mean_over(row, w, k, stations) for k in ("rmse", "crps", "coverage_90")] for w in "uv"
        ]
        rows.append([name, *(f"{e:.3f} / {c:.3f} / {b:.3f}" for e, c, b in each)])
    parts["winds"] = table(head, rows)
    for event in EVENTS:
        head = ["method, readings", *(f"{s}: Brier / skill" for s in stations), "skill"]
        cells = [
            f"{persistence[s][event]['brier']:.4f} / {persistence[s][event]['skill']:.3f}"
            for s in stations
        ]
        mean = np.mean([persistence[s][event]["skill"] for s in stations])
        rows = [["persistence of the withheld station", *cells, f"{mean:.3f}"]]
        for name, row in summary.items():
            cells = [
                f"{row[f'{s}.{event}.brier'][0]:.4f} / {told(row[f'{s}.{event}.skill'], 3)}"
                for s in stations
            ]
            rows.append([name, *cells, f"{mean_over(row, event, 'skill', stations):.3f}"])
        parts[event] = table(head, rows)
    keys = [*QUANTITIES, *EVENTS]
    head = [f"{SCORE}, events, less", "CRPS of visib (mi)", "CRPS of precip (in)"]
    head += [f"Brier, {event}" for event in EVENTS]
    rows = [[name, *(f"{g[k][0]:+.5f} ± {g[k][1]:.5f}" for k in keys)] for name, g in gaps.items()]
    parts["differences"] = table(head, rows)
    fill(HERE / "README.md", parts)


def main(
    seeds: Annotated[int, typer.Option()] = 3,
    variants: Annotated[str, typer.Option(help="of VARIANTS, joined by commas")] = ",".join(
        VARIANTS
    ),
    work: Annotated[Path, typer.Option()] = Path("runs/nyc-weather-events-record"),
):
    problem = run_all(seeds, work, variants.split(","))
    summary, hourly = collect(work, problem)
    persistence, gaps = event_scores(problem), differences(hourly)
    results = {"methods": summary, "persistence": persistence, "differences": gaps}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    write(summary, persistence, gaps, problem.folds)


if __name__ == "__main__":
    typer.run(main)
