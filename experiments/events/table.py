"""The tables of README.md, and the figure of the sweeps."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dasim.pages import fill

HERE = Path(__file__).parent
METHODS = "splitting", "smc", "noise-splitting", "density"
COLOURS = dict(zip(METHODS, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True))


def head(*titles: str) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def gaussian(results: dict) -> list[str]:
    lines = head("method", "P", "mean error of log10 P", "RMS", "interval covers", "network calls")
    for method, rows in results.get("gaussian", {}).items():
        for p, r in rows.items():
            lines.append(
                f"| {method} | {p} | {r['bias']:+.3f} | {r['rms']:.3f} "
                f"| {r['covered']:.2f} of {r['repetitions']} | {r['calls']:,} |"
            )
    return lines


def systems(results: dict) -> list[str]:
    lines = head(
        "system",
        "event",
        "truth",
        "prior, counted",
        "method, draws",
        "estimates, by seed",
        "intervals that hold the counted",
        "calls",
        "plain draws' calls for the error",
    )
    for name, r in priors(results).items():
        for label, true in r["truth"].items():
            if label == "mode":
                continue
            what = "of the paper" if label == "event" else f"sweep, {label}"
            share, counts = counted(r, label), r["counts"]
            start = f"| {name} | {what} | {true:.3g} | {share:.3g} of {counts['n']:,} "
            rows = {m: list(r.get(m, {}).get(label, {}).values()) for m in METHODS}
            rows = {m: found for m, found in rows.items() if found}
            if not rows:
                lines.append(start + "| | | | | |")
            for method, found in rows.items():
                told = ", ".join(f"{e['probability']:.2g}" for e in found)
                held = sum(holds(e, share) for e in found)
                calls, n = (np.mean([e[k] for e in found]) for k in ("calls", "n"))
                first = found[0].get("first", n)
                before = f" after {first:,}" if first > n else ""
                lines.append(
                    start + f"| {method}, {n:,.0f}{before} | {told} | {held} of {len(found)} "
                    f"| {calls:,.0f} "
                    f"| {plainly(found, counts):,.0f} |"
                )
                start = "| | | | "
    return lines


def priors(results: dict) -> dict:
    """Those of the results that are of a prior whose draws were counted."""
    return {name: r for name, r in results.items() if "counts" in r}


def counted(r: dict, label: str) -> float:
    """Share of a prior's plain draws that are in an event."""
    return r["counts"][label] / r["counts"]["n"]


def holds(estimate: dict, share: float) -> bool:
    return estimate["low"] <= share <= estimate["high"]


def log(probability: float) -> float:
    """Finite where no draw was in the event."""
    return math.log(max(probability, 1e-12))


def plainly(found: list[dict], counts: dict) -> float:
    """Calls of as many plain draws as have the error of some estimates, on average."""
    p = np.exp(np.mean([log(e["probability"]) for e in found]))
    # the standard deviation of log P that an interval tells
    variance = np.mean([((log(e["high"]) - log(e["low"])) / (2 * 1.96)) ** 2 for e in found])
    return (1 - p) / p / variance * counts["calls"] / counts["n"]


def methods(results: dict) -> list[str]:
    """All events of all systems together."""
    lines = head(
        "method",
        "estimates",
        "intervals that hold the counted",
        "RMS error of log10 P from the counted, down to 0.01",
        "below",
        "from the truth, down to 0.01",
        "below",
    )
    for method in METHODS:
        held, errors = [], {}
        for r in priors(results).values():
            for label, seeds in r.get(method, {}).items():
                share, true = counted(r, label), r["truth"][label]
                for e in seeds.values():
                    held.append(holds(e, share))
                    for of, p in (("counted", share), ("truth", true)):
                        error = (log(e["probability"]) - log(p)) / math.log(10)
                        errors.setdefault((of, true > 0.005), []).append(error)
        if held:
            kinds = itertools.product(("counted", "truth"), (True, False))
            told = [rms(errors.get(kind, [])) for kind in kinds]
            lines.append(f"| {method} | {len(held)} | {np.mean(held):.2f} | {' | '.join(told)} |")
    errors = {True: [], False: []}
    for r in priors(results).values():
        for label, true in r["truth"].items():
            if label != "mode":
                error = (log(counted(r, label)) - log(true)) / math.log(10)
                errors[true > 0.005].append(error)
    told = [rms(e) for e in errors.values()]
    lines.append(f"| counted | {sum(map(len, errors.values()))} | | | | {' | '.join(told)} |")
    return lines


def rms(errors: list[float]) -> str:
    return f"{np.sqrt(np.mean(np.square(errors))):.2f}" if errors else ""


def draws(results: dict) -> list[str]:
    lines = head(
        "system",
        "sampler",
        "inside",
        "first mode (truth)",
        "functional: 2.5, 50, 97.5 % (truth)",
        "KS from the truth: event, others",
        "from the prior in the event",
        "draws",
        "distinct",
    )
    for name, r in results.items():
        for label, d in r.get("draws", {}).items():
            lines.append(
                f"| {name} | {label} | {d['inside']:.3f} | {d['mode']:.3f} ({d['true mode']:.3f}) "
                f"| {listed(d)} "
                f"| {distances(d['ks'])} | {distances(d.get('ks of the prior'))} "
                f"| {d.get('n', 500)} | {d['distinct']} |"
            )
    return lines


def distances(tests: dict | None) -> str:
    """Kolmogorov's and Smirnov's distances; a star where p > 0.01."""
    ordered = [test for _, test in sorted((tests or {}).items())]  # "event" is the first
    return ", ".join(f"{d:.2f}{'*' * (p > 0.01)}" for d, p in ordered)


def listed(row: dict) -> str:
    """The functional's quantiles, and the truth's."""
    if "quantiles" not in row:
        return ""
    told = lambda q: f"{q:.2f}" if abs(q) < 1000 else f"{q:.1e}"
    own, true = (", ".join(map(told, row[k])) for k in ("quantiles", "true quantiles"))
    return f"{own} ({true})"


def likelihoods(results: dict) -> list[str]:
    lines = head("system", "prior, nats per number", "normal law, nats per number")
    for name, r in results.items():
        if "likelihood" in r:
            x = r["likelihood"]
            lines.append(
                f"| {name} | {x['prior']:.2f} ± {x['error']:.2f} | {x['normal law']:.2f} |"
            )
    return lines


def climates(results: dict) -> list[str]:
    lines = head("system", "of", "mean", "std", "quantiles", "correlation in time")
    for name, r in results.items():
        for label, x in r.get("climate", {}).items():
            told = " | ".join(f"{v:.3f}" for v in x.values())
            lines.append(f"| {name} | {label} | {told} |")
    return lines


def descents(results: dict) -> list[str]:
    found = {name: r["descent"] for name, r in results.items() if "descent" in r}
    starts = list(next(iter(found.values()))) if found else []
    lines = head("system", "what", *(f"from {k}" if k[0].isdigit() else k for k in starts))
    for name, table in found.items():
        for what in table[starts[-1]]:
            label = f"share past the threshold of {what}" if what[0].isdigit() else what
            values = (table[k].get(what) for k in starts)
            told = " | ".join("" if x is None else f"{x:.3g}" for x in values)
            lines.append(f"| {name} | {label} | {told} |")
    return lines


def forecasts(results: dict) -> list[str]:
    found = [(name, r["forecast"]) for name, r in results.items() if "forecast" in r]
    leads = list(next(iter(found[0][1].values()))) if found else []
    lines = head("system", "forecast", *(f"step {k}" for k in leads))
    for name, rows in found:
        for label, x in rows.items():
            lines.append(f"| {name} | {label} | {' | '.join(f'{x[k]:.3f}' for k in leads)} |")
    return lines


def cycling(_: dict) -> list[str]:
    """Brier skill by seed, the other scores their means."""
    seeds = list(json.loads((HERE / "cycling.json").read_text()).values())
    lines = head(
        "event", "method", "Brier", "skill", "of each seed", "reliability", "resolution",
        "ROC area", "came",
    )  # fmt: skip
    for event, methods in seeds[0]["events"].items():
        for method in methods:
            rows = [s["events"][event][method] for s in seeds]
            mean = {k: sum(r[k] for r in rows) / len(rows) for k in rows[0]}
            each = ", ".join(f"{r['brier_skill']:.2f}" for r in rows)
            lines.append(
                f"| {event} | {method} | {mean['brier']:.3f} | {mean['brier_skill']:.3f} "
                f"| {each} | {mean['reliability']:.3f} | {mean['resolution']:.3f} "
                f"| {mean['roc_area']:.3f} | {mean['base_rate']:.3f} |"
            )
    return lines


def analyses(_: dict) -> list[str]:
    """Scores of the analyses behind the events, means over the seeds."""
    seeds = list(json.loads((HERE / "cycling.json").read_text()).values())
    lines = head("method", "CRPS", "RMSE", "spread / RMSE", "90 % coverage")
    for method in seeds[0]["analyses"]:
        rows = [s["analyses"][method] for s in seeds]
        crps, rmse, spread, coverage = (
            sum(r[k] for r in rows) / len(rows) for k in ("crps", "rmse", "spread", "coverage_90")
        )
        lines.append(
            f"| {method} | {crps:.3f} | {rmse:.3f} | {spread / rmse:.2f} | {coverage:.3f} |"
        )
    return lines


def figure(results: dict):
    names = [n for n in results if n != "gaussian"]
    fig = Figure((3.4 * len(names), 3.3), layout="constrained")
    for axis, name in zip(fig.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        r = results[name]
        labels = list(r["thresholds"])
        levels = [r["thresholds"][k] for k in labels]
        axis.semilogy(levels, [r["truth"][k] for k in labels], "k-", lw=1.5, label="true system")
        if "counts" in r:
            share = [counted(r, k) or math.nan for k in labels]
            axis.semilogy(levels, share, "kx", ms=7, label="prior, counted")
        for shift, method in enumerate(METHODS):
            found = r.get(method, {})
            width = 0.012 * (levels[-1] - levels[0]) * (shift + 1)
            for level, k in zip(levels, labels, strict=True):
                for seed, e in enumerate(found.get(k, {}).values()):
                    p = e["probability"]
                    error = [[p - e["low"]], [e["high"] - p]]
                    named = axis.get_legend_handles_labels()[1]
                    axis.errorbar(
                        level + width * (1 + seed),
                        p,
                        error,
                        fmt="o",
                        ms=4,
                        color=COLOURS[method],
                        label=None if method in named else method,
                    )
        axis.set(title=name, xlabel="threshold", ylim=(1e-5, 1))
        axis.legend(frameon=False, fontsize=7)
    fig.axes[0].set(ylabel="probability")
    fig.savefig(HERE / "sweeps.png", dpi=110)


def write(results: dict):
    """README.md between its marks."""
    kinds = (
        gaussian, systems, methods, draws, likelihoods, climates, descents, forecasts, cycling,
        analyses,
    )  # fmt: skip
    fill(HERE / "README.md", {kind.__name__: kind(results) for kind in kinds})
    figure(results)


if __name__ == "__main__":
    write(json.loads((HERE / "results.json").read_text()))
