"""Figures from the results of a run, and the reductions they draw.

Rank histogram (Hamill 2001): the rank of the truth among `m` members is uniform on 0..m when truth
and members are exchangeable.  Spread-skill (Fortin et al. 2014): where the ensemble variance is
`s^2` the mean squared error of a calibrated ensemble's mean is `(m + 1) / m s^2`, so bins of equal
spread lie close to the 1:1 line.

A figure is a `matplotlib.figure.Figure`, made without pyplot; methods are the keys of dictionaries
and have the colours of `method_colours` in every figure.
"""

import io
import math

import matplotlib
import matplotlib.dates  # lets axes take datetime64
import numpy as np
from matplotlib.figure import Figure
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


def rank_counts(members, reference, std=0.0, rng=None):
    """Counts `(m + 1,)` of the rank of `reference` `(...)` among `members` `(m, ...)`.

    Observation error of standard deviation `std` (broadcast against `reference`) is added to the
    members where it is not zero, and ties are broken at random, both with the generator `rng`.
    Values that are not finite, in the reference or in any member, are left out.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    if np.any(np.asarray(std) > 0):
        members = members + std * rng.standard_normal(members.shape)
    good = np.isfinite(reference) & np.isfinite(members).all(0)
    members, reference = members[:, good], reference[good]
    ties = (members == reference).sum(0)
    rank = (members < reference).sum(0) + rng.integers(0, ties + 1)
    return np.bincount(rank, minlength=len(members) + 1)


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
def rank_histograms(counts, colours, top=4.0):
    """Rank histograms relative to the flat expectation, a panel for each method.

    `counts` is `{method: (m + 1,)}`; ranks are merged into at most 20 bars, cut off at `top`.
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
        ax.set(title=f"{name} ({count.sum()} values)", xlim=(0, 1))
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
def to_bytes(fig, kind):
    """The figure as a file of `kind` "svg" or "png"; the same bytes for the same figure."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    fig.savefig(buffer, format=kind, dpi=130, metadata=metadata)
    return buffer.getvalue()
