"""The headline table: the conditional score filter against tuned baselines, case by case.

    python experiments/headline/run.py [case number ...] [--methods name,name]

Every method tries the settings of its grid in cases.yaml on three truths; the best CRPS stands in
the table. Writes results.json method by method, README.md's table and its figures (table.py).
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import jax
import numpy as np
import yaml
from table import ours, write

from dasim import config as schema
from dasim import tuning
from dasim.build import make_filter
from dasim.cycling import cycle, keep_mean

HERE = Path(__file__).parent
SEEDS = 3  # truths, where a case does not say how many
RESULTS = HERE / "results.json"


def runs(case: dict, plan: dict) -> tuple[schema.Run, dict[str, list[dict]]]:
    """A case's config, and the settings that each method tries."""
    family = plan["families"][case["family"]]
    learned, grids = case.get("learned"), family["grids"] | case.get("grids", {})
    methods = [
        m | ({"transition": learned} if m.get("transition") == "learned" else {})
        for m in family["methods"]
        if learned or m.get("transition") != "learned"
    ]
    content = plan["defaults"] | case["run"] | {"methods": methods}
    run = schema.Run.model_validate(content)
    best = known().get(str(case["number"]), {}).get("score", {}).get("settings", {})
    tried = {}
    for method in run.methods:
        grid = grids.get(method.name)
        if grid is None and ours(method.name):
            tried[method.name] = [best]
            continue
        found = [] if grid is None else tuning.candidates(method, schema.Tune(grid=grid))
        tried[method.name] = found or [{}]
    return run, tried


def truths(case: dict, run: schema.Run) -> list:
    """As many twins as the case says."""
    return tuning.twins(run, case.get("truths", SEEDS))


def seconds_per_cycle(run, method, problem) -> float:
    """Of the method alone on one truth, compiled, the better of two runs."""
    key = jax.random.key(0)
    ensemble = problem.ensemble(method.members or run.members, key)
    few = problem.observations[:100]
    arguments = make_filter(method, problem), problem.transition(method.transition)

    def once():
        begin = time.perf_counter()
        out = cycle(*arguments, problem.observation, ensemble, few, key, keep_mean)
        jax.block_until_ready(out)
        return time.perf_counter() - begin

    once()
    return min(once(), once()) / 100


def evaluations(run, method, problem) -> int:
    """Of the model or the network, a member and cycle, at most; a derivative's product is two."""
    transition = problem.transition(method.transition)
    if method.kind == "ConditionalScoreFilter":
        filter = make_filter(method, problem)
        size, seen = int(np.prod(problem.shape)), problem.observations.value.shape[1]
        return filter.count(transition, method.members or run.members, size, seen)
    if method.kind == "GuidedForecast":
        return make_filter(method, problem).count(transition)
    runs = 1 + method.iterations if method.kind == "IEnKS" else 1
    return runs * transition.calls


def main(arguments: list[str]):
    """Measure the wanted cases."""
    plan = yaml.safe_load((HERE / "cases.yaml").read_text())
    chosen = None
    if "--methods" in arguments:
        at = arguments.index("--methods")
        chosen, arguments = arguments[at + 1].split(","), arguments[:at]
    for case in plan["cases"]:
        number = str(case["number"])
        if arguments and number not in arguments:
            continue
        run, tried = runs(case, plan)
        problems = truths(case, run)
        for method in run.methods:
            name, settings = method.name, tried[method.name]
            if chosen is not None and name not in chosen:
                continue
            methods = [tuning.with_settings(method, s) for s in settings]
            rows = tuning.measure(run, methods, problems)
            best = tuning.best(rows, "crps")
            entry: dict = {"tried": len(rows)}
            if best is not None:
                cost = seconds_per_cycle(run, methods[best], problems[0])
                entry |= {"settings": settings[best], "seconds_per_cycle": cost}
                entry |= {"evaluations": evaluations(run, methods[best], problems[0])} | rows[best]
            entry["lost"] = sum(r["diverged"] > 0 for r in rows)
            entry = shortened(entry)
            results = known()  # anew: other cases may be measured at the same time
            results.setdefault(number, {})[name] = entry
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(number, f"{name:16s}", brief(entry), flush=True)
    write(plan, known())


def known() -> dict:
    """What was measured so far, by case and method."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def brief(entry: dict) -> str:
    if "settings" not in entry:
        return "every setting lost a truth"
    return (
        f"CRPS {entry['crps_analysis']:.3f} RMSE {entry['rmse_analysis']:.3f} "
        f"spread {entry['spread_analysis']:.3f} coverage {entry['coverage_90_analysis']:.3f} "
        f"{entry['settings']} {entry['seconds_per_cycle'] * 1e3:.2f} ms"
    )


def shortened(value):
    """Numbers of four digits."""
    if isinstance(value, dict):
        return {k: shortened(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shortened(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main(sys.argv[1:])
