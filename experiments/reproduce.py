"""The published tables of classical filters, measured: every folder here with a table.yaml.

    python experiments/reproduce.py [folder[/method] ...]

Each row is run on three truths; scores go to the folder's results.json row by row, and the
table into its README.md. Without arguments all folders, about half an hour on two cores.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import numpy as np
import yaml

from dasim import config as schema
from dasim import tuning

HERE = Path(__file__).parent
SEEDS = 3


def run_of(table: dict, row: dict) -> schema.Run:
    """The config of one row."""
    return schema.Run.model_validate(
        table["run"] | row.get("run", {}) | {"methods": [row["method"]]}
    )


def verdict(row: dict, result: dict) -> str:
    """Whether the RMSE is within 10 % (15 % for up to ten members) of the published one."""
    members = row["method"].get("members", 40)
    tolerance = 0.15 if members <= 10 else 0.10
    if result["diverged"]:
        return f"{result['diverged']} of {SEEDS} truths lost"
    off = result["rmse_analysis"] / row["expected"] - 1
    if abs(off) <= tolerance + 1e-9:
        return f"{off:+.0%}"
    return f"{off:+.0%} " + ("(missed)" if off > 0 else "(better)")


def write_readme(folder: Path, table: dict, results: dict):
    """The folder's README.md: the measured table."""
    lines = [
        f"# {table['title']}",
        "",
        f"Settings and expected RMSE: {table['source']}. They stand in `table.yaml` (inflation acts on the analysis, "
        "as DAPPER's does; half-widths are 1.82 times its `loc_rad`); all scores are in `results.json`.",
        "",
        f"    python experiments/reproduce.py {folder.name}",
        "",
        f"{SEEDS} truths; the scored cycles of each stand in the table. RMSE, spread and CRPS are those of the analysis.",
        "",
        "| method | published | RMSE | off | spread | CRPS | cycles | DAPPER 1.7.1 here |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for row in table["rows"]:
        name = row["method"]["name"]
        if name not in results:
            continue
        r = results[name]
        mark = ""
        if "note" in row:
            notes.append(f"{len(notes) + 1}. {name}: {row['note']}.")
            mark = f" [{len(notes)}]"
        lines.append(
            f"| {name}{mark} | {row['expected']:g} | {r['rmse_analysis']:.3f} ± {r['rmse_analysis_stderr']:.3f} "
            f"| {verdict(row, r)} | {r['spread_analysis']:.3f} | {r['crps_analysis']:.3f} | {r['scored_cycles']} "
            f"| {row.get('dapper', '')} |"
        )
    lines += ["", *notes] if notes else []
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def write_index(folders: list[Path]):
    """experiments/README.md: how many rows of each table are met."""
    lines = [
        "# Experiments",
        "",
        "Each folder holds its settings, what is expected and what was measured.",
        "",
        "- [headline](headline/README.md): the conditional score filter against tuned baselines, case by case.",
        "- [priors](priors/README.md): forecasts and climates of the shipped priors.",
        "- [nyc_weather](nyc_weather/README.md): hourly weather with a withheld airport.",
        "- [nyc_weather_events](nyc_weather_events/README.md): visibility and precipitation with a withheld airport.",
        "",
        "Published tables of classical filters, RMSE of the analysis within 10 % (15 % for up to ten members), "
        "or better (`python experiments/reproduce.py`):",
        "",
        "| table | rows met | better | missed |",
        "|---|---|---|---|",
    ]
    for folder in folders:
        file = folder / "results.json"
        if not file.exists():
            continue
        table, results = (
            yaml.safe_load((folder / "table.yaml").read_text()),
            json.loads(file.read_text()),
        )
        rows = [(r["method"]["name"], verdict(r, results[r["method"]["name"]]))
                for r in table["rows"] if r["method"]["name"] in results]  # fmt: skip
        missed = [n for n, v in rows if "missed" in v or "lost" in v]
        better = [n for n, v in rows if "better" in v]
        met = len(rows) - len(missed) - len(better)
        lines.append(
            f"| [{folder.name}]({folder.name}/README.md) | {met} of {len(rows)} | {', '.join(better) or '–'} "
            f"| {', '.join(missed) or '–'} |"
        )
    (HERE / "README.md").write_text("\n".join(lines) + "\n")


def main(wanted: list[str]):
    """Measure the wanted tables or rows."""
    folders = sorted(p.parent for p in HERE.glob("*/table.yaml"))
    for folder in folders:
        names = [w.partition("/")[2] for w in wanted if w.partition("/")[0] == folder.name]
        if wanted and not names:
            continue
        table = yaml.safe_load((folder / "table.yaml").read_text())
        file = folder / "results.json"
        results = json.loads(file.read_text()) if file.exists() else {}
        for row in table["rows"]:
            name = row["method"]["name"]
            if names and "" not in names and name not in names:
                continue
            run = run_of(table, row)
            result = tuning.measure(run, list(run.methods), tuning.twins(run, SEEDS))[0]
            result["scored_cycles"] = run.cycle.n_cycles - run.cycle.burn_in
            results[name] = {k: _short(v) for k, v in result.items()}
            file.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{folder.name:14s} {name:16s} {row['expected']:<6g} {result['rmse_analysis']:.3f} "
                  f"± {result['rmse_analysis_stderr']:.3f}  {verdict(row, result)}", flush=True)  # fmt: skip
        write_readme(folder, table, results)
    write_index(folders)


def _short(value):
    if isinstance(value, list):
        return [_short(v) for v in value]
    return (
        float(np.format_float_positional(value, 4, fractional=False))
        if isinstance(value, float)
        else value
    )


if __name__ == "__main__":
    main([w.rstrip("/") for w in sys.argv[1:]])
