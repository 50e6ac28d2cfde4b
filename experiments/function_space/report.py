"""The tables and figures of this folder's README from the recorded results.

python report.py
"""

import matplotlib.pyplot as plt
import numpy as np
from record import HERE, results

from dasim.pages import fill

README = HERE / "README.md"


def header(*names: str) -> list[str]:
    """The first two lines of a table."""
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def gaussian(found: dict) -> list[str]:
    """Rows of the closed-form case."""
    rows = [
        *header(
            "edges",
            "noise",
            "points",
            "covariance, 12 steps",
            "covariance, 40 steps",
            "posterior mean, in standard errors",
            "band over the exact one, lowest to highest",
            "µs a point",
        )
    ]
    for edges, noises in found.items():
        for noise, sizes in noises.items():
            for size, f in sizes.items():
                given = "| |"
                if "curves" in f:
                    band = f"{f['band lowest']:.3f} to {f['band highest']:.3f}"
                    given = f"| {f['mean in standard errors']:.2f} | {band}"
                rows.append(
                    f"| {edges} | {noise} | {size} | {f['steps 12']['covariance']:.3f} | "
                    f"{f['steps 40']['covariance']:.4f} {given} | {f['microseconds a point']:.2f} |"
                )
    return rows


def mixture(found: dict) -> list[str]:
    """Rows of the two-mode mixture."""
    rows = [
        *header(
            "noise",
            "points",
            "share of the first mode",
            "variance over the exact one: lowest, mean, highest",
            "within a mode: lowest (inner), mean, highest",
            "first mode given the value (exact)",
        )
    ]
    for noise, sizes in found.items():
        for size, f in sizes.items():
            if size == "training":
                continue
            d, c = f["draws"], f.get("conditioned")
            given = "" if c is None else f"{c['first mode']:.3f} ({c['exact']:.3f})"
            spans = [
                ", ".join(f"{v:.3f}" for v in d.get(k, []))
                for k in ("variance", "variance within a mode")
            ]
            rows.append(
                f"| {noise} | {size} | {d['first mode']:.3f} | {spans[0]} | {spans[1]} | {given} |"
            )
    return rows


def flows(found: dict) -> list[str]:
    """Rows of the two-dimensional flows."""
    rows = [
        *header(
            "force",
            "noise",
            "points",
            "spectrum, largest error for k to 8",
            "to 15",
            "covariance",
            "histogram",
            "kurtosis (truth)",
            "MMD² × 1000 (two samples of the truth)",
        )
    ]
    for kind, noises in found.items():
        floor = 1000 * noises["truth"]["mmd"]
        for noise, sizes in noises.items():
            for size, f in sizes.items():
                if noise != "truth" and size.isdigit():
                    rows.append(
                        f"| {kind} | {noise} | {size} x {size} | "
                        f"{f['spectrum error of most energy']:.3f} | {f['spectrum error']:.3f} | "
                        f"{f['covariance error']:.3f} | "
                        f"{f['histogram error']:.3f} | {f['kurtosis']:.2f} "
                        f"({f['kurtosis of the truth']:.2f}) | "
                        f"{1000 * f['mmd']:.2f} ({floor:.2f}) |"
                    )
    return rows


SCORES = "setting", "CRPS", "of the LETKF's", "RMSE", "spread / RMSE", "coverage", "ms a cycle"


def scored(found: dict, first: str = "") -> list[str]:
    """Rows of methods that were cycled, each begun with `first`."""
    rows = []
    base = found.get("LETKF", {}).get("crps")
    for name, f in found.items():
        setting = ", ".join("none" if s is None else f"{s:g}" for s in f["setting"])
        share = "" if base is None else f"{f['crps'] / base:.2f}"
        rows.append(
            f"{first}| {name} | {setting} | {f['crps']:.4f} | {share} | "
            f"{f['rmse']:.3f} | {f['ratio']:.2f} | {f['coverage_90']:.3f} | "
            f"{1000 * f['seconds_per_cycle']:.0f} |"
        )
    return rows


def cycling(found: dict) -> list[str]:
    """Rows of one flow on several grids."""
    return [*header("method", *SCORES), *scored(found)]


def kolmogorov(found: dict) -> list[str]:
    """Rows of the two-dimensional flow, seen in several ways."""
    rows = header("seen", "method", *SCORES)
    for case, methods in found.items():
        rows += scored(methods, f"| {case} ")
    return rows


def gaussian_figure(found: dict):
    fig, axes = plt.subplots(2, 3, figsize=(12, 5.6), sharex=True, sharey=True)
    for row, (noise, sizes) in zip(
        axes, [(n, found["bounded"][n]) for n in ("matern", "white")], strict=True
    ):
        for ax, (size, f) in zip(row, sizes.items(), strict=True):
            x, (m, s) = np.array(f["curves"]["x"]), np.array(f["curves"]["regression"])
            ax.fill_between(x, m - 1.645 * s, m + 1.645 * s, color="0.8", label="regression, 90 %")
            m, s = np.array(f["curves"]["draws"])
            ax.plot(x, m, color="C0", label="mean of draws")
            for sign in (-1.645, 1.645):
                ax.plot(
                    x,
                    m + sign * s,
                    color="C0",
                    ls="--",
                    lw=0.8,
                    label="their 90 %" if sign > 0 else None,
                )
            ax.set_title(f"{noise} noise, {size} points", fontsize=10)
    axes[0, 0].legend(fontsize=8, frameon=False)
    for ax in axes[-1]:
        ax.set_xlabel("position")
    fig.tight_layout()
    fig.savefig(HERE / "posterior.png", dpi=110)


def mixture_figure(found: dict):
    fig, axes = plt.subplots(
        len(found), 4, figsize=(12, 2.8 * len(found)), sharex=True, sharey="row", squeeze=False
    )
    for row, (noise, sizes) in zip(axes, found.items(), strict=True):
        for ax, size in zip(row, ("64", "128", "256", "512"), strict=True):
            if size not in sizes:
                ax.set_axis_off()
                continue
            x = np.array(sizes[size]["some"])
            ax.plot((np.arange(x.shape[1]) + 0.5) / x.shape[1], x.T, lw=0.8)
            ax.set_title(f"{noise} noise, {size} points", fontsize=10)
            ax.set_xlabel("v")
    fig.tight_layout()
    fig.savefig(HERE / "mixture.png", dpi=110)


def flow_figures(found: dict):
    for kind, noises in found.items():
        names = [n for n in noises if n != "truth"]
        columns, rows = min(3, len(names) + 1), -(-(len(names) + 1) // 3)
        size = 3 * columns, 0.5 + 3.2 * rows
        fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        limit = np.abs(noises["truth"]["some"]).max()
        for ax, name in zip(axes.flat, ["truth", *names], strict=False):
            ax.imshow(
                np.array(noises[name]["some"][0]).T,
                origin="lower",
                cmap="RdBu_r",
                vmin=-limit,
                vmax=limit,
            )
            ax.set_title(name, fontsize=10)
        for ax in axes.flat:
            ax.set_axis_off()
        fig.suptitle(
            f"vorticity under a {kind} force, 64 x 64 points: draws by noise, learned on 32 x 32",
            fontsize=10,
        )
        fig.savefig(HERE / f"flows-{kind}.png", dpi=110)
        fig, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
        for ax, size in zip(axes, ("32", "64", "128"), strict=True):
            for name in names:
                s = noises[name][size]["spectrum"]
                ax.loglog(np.arange(1, len(s) + 1), s, lw=1, label=name)
            s = noises["truth"]["spectrum"][size]
            ax.loglog(np.arange(1, len(s) + 1), s, color="k", lw=1.5, ls="--", label="truth")
            ax.axvline(16, color="0.7", lw=0.8)
            ax.set_title(f"{kind} force, {size} x {size} points", fontsize=10)
            ax.set_xlabel("wavenumber")
        axes[0].set_ylabel("variance")
        axes[0].set_ylim(1e-9, None)
        axes[0].legend(fontsize=8, frameon=False)
        fig.tight_layout()
        fig.savefig(HERE / f"spectra-{kind}.png", dpi=110)


def main():
    found = results()
    tables = {
        "gaussian": gaussian,
        "mixture": mixture,
        "navier-stokes": flows,
        "cycling": cycling,
        "kolmogorov": kolmogorov,
    }
    fill(README, {k: rows(found[k]) for k, rows in tables.items() if k in found})
    figures = {
        "gaussian": gaussian_figure,
        "mixture": mixture_figure,
        "navier-stokes": flow_figures,
    }
    for name, figure in figures.items():
        if name in found:
            figure(found[name])


if __name__ == "__main__":
    main()
