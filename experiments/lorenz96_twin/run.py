"""Lorenz-96, every second site, R = 0.5, interval 0.4: the filters of configs/lorenz96.yaml,
the EnKF and the LETKF tuned over inflation and localisation, on three truths.

    python experiments/lorenz96_twin/run.py [baseline] [learned] [score]

Writes results.json beside this file, part by part, and prints its table. About 40 minutes on
two cores.
"""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

from dasim import config as schema
from dasim.build import make_filter
from dasim.cycling import cycle
from dasim.diagnostics import Scores, score, summarize
from dasim.problems import Twin

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
RADII, INFLATIONS = (4.0, 5.0, 6.0, 8.0, 10.0, 12.0), (1.0, 1.02, 1.04, 1.07, 1.1, 1.15)
LEARNED = "lorenz96-0.4"


def keep_analysis(info):
    return info.analysis


def measure(run: schema.Run, problems: list[Twin], method: dict) -> dict:
    """Scores of one method, mean over the truths, and those of each."""
    method = schema.Run.model_validate(
        run.model_dump() | {"methods": [{"name": "one", **method}]}
    ).methods[0]
    rows = []
    for seed, problem in zip(SEEDS, problems, strict=True):
        key = jax.random.fold_in(jax.random.key(seed), 1000)
        ensemble = problem.ensemble(run.members, jax.random.fold_in(key, 1))
        transition = problem.transition(method.transition)
        began = time.perf_counter()
        _, members = cycle(
            make_filter(method, problem), transition, problem.observation, ensemble,
            problem.observations, key, keep_analysis,
        )  # fmt: skip
        members = np.asarray(members)
        seconds = time.perf_counter() - began
        scored = problem.scored
        result: Scores = score(np.moveaxis(members, 1, 0)[:, scored], problem.truth[scored])
        rows.append(
            {k: v for k, v in summarize(result, (1,), np.ones((), bool)).items()}
            | {"seconds_per_cycle": seconds / problem.n_cycles}
        )
    mean = {
        k: float(np.mean([r[k] for r in rows])) for k in ("crps", "rmse", "spread", "coverage_90")
    }
    mean["ratio"] = mean["spread"] / mean["rmse"]
    mean["seconds_per_cycle"] = float(np.median([r["seconds_per_cycle"] for r in rows]))
    return mean | {"crps_of_seeds": [r["crps"] for r in rows]}


def main(parts: list[str]):
    """Run the named parts and record them."""
    run = schema.read(schema.find_config("configs/lorenz96.yaml"), schema.Run)
    problems = [Twin(run, jax.random.key(seed)) for seed in SEEDS]
    file = HERE / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}

    def record(name, method):
        results[name] = {"method": method} | measure(run, problems, method)
        file.write_text(json.dumps(results, indent=1) + "\n")
        shown = {k: round(v, 4) for k, v in results[name].items() if isinstance(v, float)}
        print(name, shown, flush=True)

    if "baseline" in parts:
        for kind in ("StochasticEnKF", "LETKF"):
            for radius in RADII:
                for inflation in INFLATIONS:
                    method = {"kind": kind, "localization_radius": radius, "inflation": inflation}
                    record(f"{kind} radius {radius} inflation {inflation}", method)
    if "learned" in parts:
        for radius in (6.0, 10.0):
            for inflation in (1.02, 1.07):
                method = {"kind": "StochasticEnKF", "localization_radius": radius}
                method |= {"inflation": inflation, "transition": LEARNED}
                record(f"StochasticEnKF learned radius {radius} inflation {inflation}", method)
    if "score" in parts:
        shipped = [m for m in run.methods if m.kind == "ConditionalScoreFilter"]
        for method in shipped:
            record(method.name, method.model_dump(exclude={"name"}))


if __name__ == "__main__":
    main(sys.argv[1:] or ["baseline", "learned", "score"])
