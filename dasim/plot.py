"""Figures from the results of a run, and the reductions they draw.

Spread-skill (Fortin et al. 2014): where the ensemble variance is `s^2` the mean squared error of a
calibrated ensemble's mean is `(m + 1) / m s^2`, so bins of equal spread lie close to the 1:1 line.

A figure is a `matplotlib.figure.Figure`, made without pyplot; methods are the keys of dictionaries
and have the colours of `method_colours` in every figure.
"""

import io
import math

import matplotlib
import matplotlib.dates  # lets axes take datetime64
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's palette without black (the truth's) and yellow (illegible), with one of Tol's.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255")
REFERENCE, MISSING = "#222222", "#dddddd"
DASHED = {"color": REFERENCE, "lw": 1.1, "ls": (0, (4, 2))}
WIDTH = 9.6
styled = matplotlib.rc_context(
    {
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.labelsize": 10,
        "legend.frameon": False,
        "svg.hashsalt": "dasim",
        "date.converter": "concise",
    }
)


def method_colours(names):
    """A colour for each of `names`; repeats after the seventh."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def spread_skill_bins(spread, error, bins=10):
    """RMS spread and RMS error, each `(bins,)`, in bins of equal population of `spread`.

    `spread` and `error` have one shape; only pairs of finite values count.
    """
    good = np.isfinite(spread) & np.isfinite(error)
    order = np.argsort(spread[good], kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    rms = lambda x: np.array([np.sqrt(np.mean(x[good][part] ** 2)) for part in parts])
    return rms(spread), rms(error)


def running_mean(values, width):
    """Centred mean over `width` steps of the finite ones of `values` `(time,)`; NaN without any."""
    good = np.isfinite(values)
    pad, window = (width // 2, width - 1 - width // 2), np.ones(width)
    total = np.convolve(np.pad(np.where(good, values, 0.0), pad), window, "valid")
    count = np.convolve(np.pad(good * 1.0, pad), window, "valid").round()
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def smoothing_width(n_cycles):
    """Cycles in the running mean of a series: one up to 400 cycles, a hundredth of them beyond."""
    return 1 if n_cycles <= 400 else n_cycles // 100


def _panels(n, height, xlabel, ylabel, **kwargs):
    """A figure of `n` panels, at most three in a row; the panels, and whether there is one only."""
    columns = 2 if n == 4 else min(n, 3)
    rows = math.ceil(n / columns)
    height *= 1.3 if rows == 1 else rows
    fig = Figure(figsize=(WIDTH, height + 0.6), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, **kwargs).ravel()
    for ax in axes[n:]:
        ax.set_visible(False)
    for ax in axes[n - columns : n]:
        ax.tick_params(labelbottom=True)
    fig.supxlabel(xlabel)
    fig.supylabel(ylabel)
    return fig, axes[:n]


def _wide_range(values):
    """Limits for a logarithmic axis, or None where a linear one shows `values` well."""
    values = values[np.isfinite(values) & (values > 0)]
    low, high = np.quantile(values, [0.01, 0.995]) if len(values) else (1.0, 1.0)
    return (low / 1.6, high * 1.6) if high > 20 * low else None


@styled
def error_over_time(times, series, colours, scored, ylabel, xlabel):
    """RMSE (solid) and spread (dashed) over `times` `(time,)`, a panel for each method.

    `series` is `{method: (rmse (time,), spread (time,))}`; where `scored` `(time,)` is false the
    panel is shaded.  Long series are running means over `smoothing_width` cycles.
    """
    width = smoothing_width(len(times))
    series = {name: [running_mean(x, width) for x in pair] for name, pair in series.items()}
    steps = np.diff(times)
    gap = np.append(False, steps > 1.5 * np.median(steps))  # no line from one window to the next
    fig, axes = _panels(len(series), 1.9, xlabel, ylabel, sharex=True, sharey=True)
    for ax, (name, (rmse, spread)) in zip(axes, series.items(), strict=True):
        rest = {"where": ~scored, "transform": ax.get_xaxis_transform(), "color": MISSING, "lw": 0}
        ax.fill_between(times, 0, 1, **rest)
        ax.plot(times, np.where(gap, np.nan, rmse), color=colours[name], lw=1.3, label="RMSE")
        ax.plot(times, np.where(gap, np.nan, spread), **DASHED, label="spread")
        ax.set(title=name, xlim=(times[0], times[-1]))
    if limits := _wide_range(np.ravel(list(series.values()))):
        axes[0].set(yscale="log", ylim=limits)
    else:
        axes[0].set_ylim(bottom=0)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return fig


@styled
def rank_histograms(counts, p_values, colours, top=4.0):
    """Rank histograms relative to the flat expectation, a panel for each method.

    `counts` is `{method: (m + 1,)}`; ranks are merged into at most 20 bars, cut off at `top`.
    `p_values` `{method: p}` of a test of its shape stand beside the number of values.
    """
    ylabel = "frequency / flat expectation"
    fig, axes = _panels(len(counts), 1.8, "rank / number of ranks", ylabel, sharey=True)
    highest = 1.5
    for ax, (name, count) in zip(axes, counts.items(), strict=True):
        bars = len(count) // math.ceil(len(count) / 20)
        edges = np.linspace(0, len(count), bars + 1).round().astype(int)
        expected = max(count.sum(), 1) * np.diff(edges) / len(count)
        share = np.add.reduceat(count, edges[:-1]) / expected
        place = edges / len(count)
        style = {"color": colours[name], "edgecolor": "white", "lw": 0.6}
        ax.bar(place[:-1], share, np.diff(place), align="edge", **style)
        ax.axhline(1.0, **DASHED)
        p = p_values[name]
        test = "" if np.isnan(p) else ", p < 0.001" if p < 0.001 else f", p = {p:.2g}"
        ax.set(title=f"{name} ({count.sum()} values{test})", xlim=(0, 1))
        highest = max(highest, 1.05 * share.max())
    axes[0].set_ylim(0, min(highest, top))
    return fig


@styled
def spread_skill(points, colours, units):
    """Binned spread-skill diagram of `points` `{method: (rms spread (b,), rms error (b,))}`."""
    fig = Figure(figsize=(0.72 * WIDTH, 4.8), layout="constrained")
    ax = fig.subplots()
    for i, (name, (spread, error)) in enumerate(points.items()):
        style = {"color": colours[name], "marker": "osD^vP*"[i % 7], "ms": 4.5, "lw": 1.2}
        ax.plot(spread, error, **style, label=name)
    values = np.concatenate([np.ravel(pair) for pair in points.values()])
    if limits := _wide_range(values):
        ax.set(xscale="log", yscale="log")
        for axis in (ax.xaxis, ax.yaxis):  # few plain numbers: powers of ten would overlap
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    limits = limits or (0.0, 1.08 * values.max(initial=1e-9))
    ax.plot(limits, limits, **DASHED, label="1:1")
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    ax.set(xlabel=f"RMS spread of a bin ({units})", ylabel=f"RMSE of a bin's means ({units})")
    ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    return fig


@styled
def hovmoller(times, truth, means, ylabel, xlabel, units):
    """Truth `(time, site)`, then a row for each method: its mean and the mean's error.

    `means` is `{method: (time, site)}`, NaN where missing; `times` `(time,)` are equally spaced.
    """
    rows = len(means) + 1
    fig = Figure(figsize=(WIDTH, 1.5 * rows + 0.6), layout="constrained")
    axes = fig.subplots(rows, 2, sharex=True, sharey=True)
    axes[0, 1].set_visible(False)
    step = times[1] - times[0] if len(times) > 1 else 1.0
    extent = (times[0] - step / 2, times[-1] + step / 2, -0.5, truth.shape[1] - 0.5)
    centre = truth.mean()
    half = np.quantile(np.abs(truth - centre), 0.995)
    sizes = np.abs(np.concatenate([mean - truth for mean in means.values()]))
    sizes = sizes[np.isfinite(sizes)]
    limit = min(np.quantile(sizes, 0.98), half) if len(sizes) else half

    def draw(ax, field, title, low, high, cmap):
        ax.set(title=title, facecolor=MISSING)
        style = {"aspect": "auto", "origin": "lower", "interpolation": "nearest", "cmap": cmap}
        return ax.imshow(field.T, extent=extent, vmin=low, vmax=high, **style)

    value = (centre - half, centre + half, "cividis")
    state = draw(axes[0, 0], truth, "truth", *value)
    for (left, right), (name, mean) in zip(axes[1:], means.items(), strict=True):
        draw(left, mean, f"{name}: analysis mean", *value)
        error = draw(right, mean - truth, f"{name}: mean minus truth", -limit, limit, "RdBu_r")
    for image, column, name in ((state, 0, "state"), (error, 1, "error")):
        style = {"location": "bottom", "aspect": 40, "pad": 0.01}
        fig.colorbar(image, ax=axes[:, column], label=f"{name} ({units})", **style)
        axes[-1, column].set_xlabel(xlabel)
    fig.supylabel(ylabel)
    return fig


@styled
def ensemble_series(times, reference, mean, low, high, labels, colour, xlabel, kind, points):
    """Reference, ensemble mean and 90 % band over `times` `(time,)`, a panel for each variable.

    `reference`, `mean`, `low` and `high` are `(time, variable)`, NaN where missing; `labels`
    `(variable,)` are the y labels, with units; `kind` names the reference, and `points` draws it
    as dots (observations), not as a line (truth).
    """
    n = len(labels)
    fig = Figure(figsize=(WIDTH, 1.55 * n + 0.7), layout="constrained")
    axes = fig.subplots(n, 1, sharex=True, squeeze=False)[:, 0]
    style = {"color": REFERENCE, "ls": "none", "marker": ".", "ms": 3.5} if points else DASHED
    for i, ax in enumerate(axes):
        ax.fill_between(
            times, low[:, i], high[:, i], color=colour, alpha=0.25, lw=0, label="90 % band"
        )
        ax.plot(times, mean[:, i], color=colour, lw=1.3, label="analysis mean")
        ax.plot(times, reference[:, i], **style, label=kind)
        ax.set(ylabel=labels[i], xlim=(times[0], times[-1]))
    axes[-1].set_xlabel(xlabel)
    fig.align_ylabels(axes)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return fig


@styled
def score_map(scores, lost, best, rows, columns, title, label):
    """Scores over two settings, those with diverged truths hatched, the best one outlined.

    `scores` and the numbers `lost` of truths are `(row, column)`; `best` is a pair of indices or
    None; `rows` and `columns` are each `(name, values)`.
    """
    height, width = scores.shape
    fig = Figure(figsize=(2.4 + 0.62 * width, 1.7 + 0.4 * height), layout="constrained")
    ax = fig.subplots()
    good = np.where((lost == 0) & np.isfinite(scores), scores, np.nan)
    low, high = (np.nanmin(good), np.nanmax(good)) if np.isfinite(good).any() else (0.0, 1.0)
    wide = low > 0 and high > 10 * low
    norm = LogNorm(low, high) if wide else Normalize(low, high)
    image = ax.imshow(good, norm=norm, cmap="viridis_r", aspect="auto", origin="lower")
    hatched = {"fc": MISSING, "ec": "white", "hatch": "////", "lw": 0}
    outline = lambda i, j, **style: ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **style))
    for (i, j), value in np.ndenumerate(good):
        if np.isnan(value):
            outline(i, j, **hatched)
            continue
        dark = np.dot(image.cmap(norm(value))[:3], (0.299, 0.587, 0.114)) < 0.45
        style = {"ha": "center", "va": "center", "size": 8, "color": "white" if dark else "black"}
        ax.text(j, i, f"{value:#.3g}".rstrip("."), **style)
    if best is not None:
        outline(*best, fill=False, ec=PALETTE[1], lw=2.5, clip_on=False)
    ax.set(xlabel=columns[0], xticks=range(width), xticklabels=columns[1], title=title)
    ax.set(ylabel=rows[0], yticks=range(height), yticklabels=rows[1])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if np.isnan(good).any():
        fig.legend(handles=[Patch(**hatched, label="diverged")], loc="outside lower right")
    style = {"ticks": LogLocator(subs=(1, 2, 5)), "format": "{x:g}"} if wide else {}
    fig.colorbar(image, ax=ax, label=label, aspect=25, **style).minorticks_off()
    return fig


@styled
def score_line(values, scores, stderr, lost, best, name, title, label):
    """Scores with two standard errors over the `values` of one setting, each `(setting,)`.

    `lost` `(setting,)` are the numbers of diverged truths; `best` is an index or None.
    """
    fig = Figure(figsize=(0.6 * WIDTH, 3.4), layout="constrained")
    ax = fig.subplots()
    good = (lost == 0) & np.isfinite(scores)
    style = {"color": PALETTE[0], "marker": "o", "ms": 4, "lw": 1.2, "capsize": 2.5}
    errors = 2 * np.nan_to_num(stderr[good])
    ax.errorbar(values[good], scores[good], errors, **style, label="± 2 standard errors")
    for i, value in enumerate(values[~good]):
        ax.axvline(value, color="#999999", lw=1.2, ls=":", label="" if i else "diverged")
    if best is not None:
        style = {"ls": "none", "marker": "o", "ms": 10, "mfc": "none", "mec": PALETTE[1], "mew": 2}
        ax.plot(values[best], scores[best], **style, label="least")
    if limits := _wide_range(scores[good]):
        ax.set(yscale="log", ylim=limits)
    if values.min() > 0 and values.max() > 100 * values.min():
        ax.set_xscale("log")
    ax.set(xlabel=name, ylabel=label, title=title)
    ax.legend()
    return fig


@styled
def to_bytes(fig, kind):
    """The figure as a file of `kind` "svg" or "png"; the same bytes for the same figure."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    fig.savefig(buffer, format=kind, dpi=130, metadata=metadata)
    return buffer.getvalue()
