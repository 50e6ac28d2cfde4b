"""The headline table: the conditional score filter against tuned baselines, case by case.

    python experiments/headline/run.py [case number ...] [--methods name,name]

Every method tries the settings of its grid in cases.yaml on three truths; the best CRPS stands in
the table. Writes results.json method by method, README.md's table and a figure for each case.
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

from dasim import config as schema
from dasim import tuning
from dasim.build import make_filter
from dasim.cycling import cycle, keep_mean

HERE = Path(__file__).parent
SEEDS = 3
RESULTS = HERE / "results.json"


def runs(case: dict, plan: dict) -> tuple[schema.Run, dict[str, list[dict]]]:
    """A case's config, and the settings that each method tries."""
    methods = [
        m | ({"transition": case["learned"]} if m.get("transition") == "learned" else {})
        for m in plan["methods"]
    ]
    content = plan["defaults"] | case["run"] | {"methods": methods}
    run = schema.Run.model_validate(content)
    tried = {}
    for method in run.methods:
        grid = plan["grids"].get(method.name)
        found = [] if grid is None else tuning.candidates(method, schema.Tune(grid=grid))
        tried[method.name] = found or [{}]
    return run, tried


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


def main(arguments: list[str]):
    """Measure the wanted cases."""
    plan = yaml.safe_load((HERE / "cases.yaml").read_text())
    chosen = None
    if "--methods" in arguments:
        at = arguments.index("--methods")
        chosen, arguments = arguments[at + 1].split(","), arguments[:at]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for case in plan["cases"]:
        number = str(case["number"])
        if arguments and number not in arguments:
            continue
        run, tried = runs(case, plan)
        problems = tuning.twins(run, SEEDS)
        for method in run.methods:
            name, settings = method.name, tried[method.name]
            if chosen is not None and name not in chosen:
                continue
            methods = [tuning.with_settings(method, s) for s in settings]
            rows = tuning.measure(run, methods, problems)
            best = tuning.best(rows, "crps")
            entry = {"tried": len(rows)}
            if best is not None:
                cost = seconds_per_cycle(run, methods[best], problems[0])
                entry |= {"settings": settings[best], "seconds_per_cycle": cost} | rows[best]
            entry["lost"] = sum(r["diverged"] > 0 for r in rows)
            results.setdefault(number, {})[name] = shortened(entry)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(number, f"{name:16s}", brief(results[number][name]), flush=True)
    write(plan, results)


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


def write(plan: dict, results: dict):
    """README.md between its two marks, and figure.png."""
    lines = []
    for case in plan["cases"]:
        entries = results.get(str(case["number"]))
        if not entries:
            continue
        reference = entries.get("particles-20000", {}).get("crps_analysis", np.nan)
        lines += [
            f"## {case['number']}. {case['title']}",
            "",
            f"Target of `score`: {case['target']}.",
            "",
            "| method | settings | CRPS | to the particle filter | RMSE | spread / RMSE | "
            "90 % coverage | ms a cycle |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, e in entries.items():
            if "settings" not in e:
                lines.append(f"| {name} | all {e['tried']} lost a truth | | | | | | |")
                continue
            settings = ", ".join(f"{k} {v:g}" for k, v in e["settings"].items()) or "defaults"
            lines.append(
                f"| {name} | {settings} | {e['crps_analysis']:.3f} ± {e['crps_analysis_stderr']:.3f} "
                f"| {e['crps_analysis'] / reference:.3f} | {e['rmse_analysis']:.3f} "
                f"| {e['spread_analysis'] / e['rmse_analysis']:.3f} | {e['coverage_90_analysis']:.3f} "
                f"| {e['seconds_per_cycle'] * 1e3:.2f} |"
            )
        lines.append("")
    page = HERE / "README.md"
    text = page.read_text()
    head, tail = text.split("<!-- table -->")[0], text.split("<!-- end -->")[1]
    page.write_text(f"{head}<!-- table -->\n\n" + "\n".join(lines) + f"\n<!-- end -->{tail}")
    figure(plan, results)


def figure(plan: dict, results: dict):
    """CRPS over that of the particle filter against seconds per cycle, a panel a case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = [c for c in plan["cases"] if str(c["number"]) in results]
    fig, axes = plt.subplots(
        1, len(cases), figsize=(4.6 * len(cases), 4.0), sharey=True, squeeze=False
    )
    for ax, case in zip(axes[0], cases, strict=True):
        entries = {k: e for k, e in results[str(case["number"])].items() if "settings" in e}
        reference = entries["particles-20000"]["crps_analysis"]
        ordered = sorted(entries.items(), key=lambda item: item[1]["seconds_per_cycle"])
        for k, (name, e) in enumerate(ordered):
            at = 1e3 * e["seconds_per_cycle"], e["crps_analysis"] / reference
            ours, last = name.startswith("score"), k >= len(ordered) - 2
            ax.plot(*at, "o" if ours else "s", color="tab:red" if ours else "tab:gray", ms=6)
            place = dict(
                xytext=(-7 if last else 7, 5 if k % 2 else -11), ha="right" if last else "left"
            )
            ax.annotate(name, at, textcoords="offset points", fontsize=8, **place)
        ax.axhline(1.0, color="k", lw=0.8, ls=":")
        ax.set(xscale="log", xlabel="milliseconds a cycle", title=f"case {case['number']}")
        ax.margins(x=0.15, y=0.1)
    axes[0, 0].set_ylabel("CRPS / CRPS of 20,000 particles")
    fig.tight_layout()
    fig.savefig(HERE / "figure.png", dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main(sys.argv[1:])
