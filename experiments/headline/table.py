"""The headline table and its figures, from results.json."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dasim.pages import fill

HERE = Path(__file__).parent
COLUMNS = (
    "method", "settings", "CRPS", "to the reference", "RMSE", "spread / RMSE", "90 % coverage",
    "evaluations", "ms a cycle",
)  # fmt: skip


def ours(name: str) -> bool:
    return name.startswith("score")


def reference(family: dict, entries: dict) -> tuple[str, float]:
    """What a case's CRPS is compared with: the named method, or the best baseline."""
    measured = {k: e["crps_analysis"] for k, e in entries.items() if "settings" in e}
    if family["reference"] in measured:
        return family["reference"], measured[family["reference"]]
    baselines = {k: v for k, v in measured.items() if not ours(k)}
    name = min(baselines, key=baselines.get)
    return name, baselines[name]


def write(plan: dict, results: dict):
    """README.md between its two marks, and the figures."""
    lines, points = [], []
    for case in plan["cases"]:
        entries = results.get(str(case["number"]))
        if not entries:
            continue
        family = plan["families"][case["family"]]
        entries = {m["name"]: entries[m["name"]] for m in family["methods"] if m["name"] in entries}
        if not any("settings" in e and not ours(k) for k, e in entries.items()):
            continue
        name, base = reference(family, entries)
        points.append((case, entries, name, base))
        truths = f", {case['truths']} truths" if "truths" in case else ""
        lines += [f"## {case['number']}. {case['title']}{truths}", ""]
        lines += [f"Target of `score`: {case['target']}. Reference: {name}.", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        lines += [_row(k, e, base) for k, e in entries.items()]
        lines += [f"\n{note}" for note in case.get("notes", [])] + [""]
    fill(HERE / "README.md", {"table": lines[:-1]})
    if points:
        _cases(points)
        _whole(points)


def _row(name: str, e: dict, base: float) -> str:
    if "settings" not in e:
        return f"| {name} | each of {e['tried']} lost a truth" + " |" * (len(COLUMNS) - 1)
    given = ((k, "none" if v is None else f"{v:g}") for k, v in e["settings"].items())
    settings = ", ".join(f"{k} {v}" for k, v in given) or "defaults"
    cells = (
        name,
        settings,
        f"{e['crps_analysis']:.4g} ± {e['crps_analysis_stderr']:.2g}",
        f"{e['crps_analysis'] / base:.3f}",
        f"{e['rmse_analysis']:.4g}",
        f"{e['spread_analysis'] / e['rmse_analysis']:.3f}",
        f"{e['coverage_90_analysis']:.3f}",
        f"{e['evaluations']:g}" if "evaluations" in e else "",
        f"{e['seconds_per_cycle'] * 1e3:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def _cases(points):
    """CRPS over the reference's against milliseconds a cycle, a panel a case."""
    rows = -(-len(points) // 3)
    fig, axes = plt.subplots(rows, 3, figsize=(13.5, 3.7 * rows), squeeze=False)
    for ax in axes.flat[len(points) :]:
        ax.set_axis_off()
    for ax, (case, entries, name, base) in zip(axes.flat, points, strict=False):
        measured = {k: e for k, e in entries.items() if "settings" in e}
        windows = [k for k in measured if "-lag-" in k]
        best = min(windows, key=lambda k: measured[k]["crps_analysis"], default=None)
        for k in set(windows) - {best}:  # of the windows the best one is room enough
            del measured[k]
        ordered = sorted(measured.items(), key=lambda item: item[1]["seconds_per_cycle"])
        for k, (label, e) in enumerate(ordered):
            at = 1e3 * e["seconds_per_cycle"], e["crps_analysis"] / base
            mark, color = ("o", "tab:red") if ours(label) else ("s", "tab:gray")
            ax.plot(*at, mark, color=color, ms=6)
            last = k >= len(ordered) - 2
            side = {"xytext": (-7 if last else 7, 5 if k % 2 else -11)}
            side["ha"] = "right" if last else "left"
            ax.annotate(label, at, textcoords="offset points", fontsize=8, **side)
        ax.axhline(1.0, color="k", lw=0.8, ls=":")
        ax.set(xscale="log", yscale="log", title=f"case {case['number']}")
        ax.set_ylabel(f"CRPS / that of {name}")
        ax.margins(x=0.2, y=0.15)
        _plain(ax.xaxis)
        _plain(ax.yaxis)
    for ax in axes[-1]:
        ax.set_xlabel("milliseconds a cycle")
    fig.tight_layout()
    fig.savefig(HERE / "cases.png", dpi=90)
    plt.close(fig)


def _plain(axis):
    """Ticks of a logarithmic axis as plain numbers, as many as there is room for."""
    low, high = axis.get_view_interval()
    few, some, many = (1.0, 3.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (*range(1, 10), 1.2)
    subs = many if high < 3 * low else some if high < 30 * low else few
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=subs))
    axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _whole(points):
    """All cases at once: CRPS over that of the best tuned baseline against cost over its cost."""
    fig, ax = plt.subplots(figsize=(7.5, 5))
    styles = {"score": ("o", "tab:red"), "score-24": ("v", "tab:orange")}
    styles |= {"score-lag-2": ("^", "tab:green"), "score-learned": ("D", "tab:blue")}
    for name, (mark, color) in styles.items():
        shown = name
        for case, entries, _, _ in points:
            e = entries.get(name, {})
            rest = [
                b
                for k, b in entries.items()
                if "settings" in b and not ours(k) and k != "particles-20000"
            ]
            if "settings" not in e or not rest:
                continue
            best = min(rest, key=lambda b: b["crps_analysis"])
            at = (
                e["seconds_per_cycle"] / best["seconds_per_cycle"],
                e["crps_analysis"] / best["crps_analysis"],
            )
            ax.plot(*at, mark, color=color, ms=7, label=shown)
            shown = None
            number = str(case["number"])
            ax.annotate(number, at, xytext=(6, 4), textcoords="offset points", fontsize=9)
    ax.axhline(1.0, color="k", lw=0.8, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="time a cycle / that of the best tuned baseline")
    ax.set_ylabel("CRPS / that of the best tuned baseline")
    _plain(ax.xaxis)
    _plain(ax.yaxis)
    ax.legend(title="numbers are cases")
    fig.tight_layout()
    fig.savefig(HERE / "whole.png", dpi=110)
    plt.close(fig)
