"""Figures of events: draws of a prior given one, and forecasts of one against what came."""

import numpy as np
from matplotlib.figure import Figure

from dasim.diagnostics import reliability, roc
from dasim.plot import DASHED, PALETTE, REFERENCE, WIDTH, styled, to_bytes

SHOWN = 100  # cycles of the forecasts over time


@styled
def draws_figure(draws, weights, interval, title) -> bytes:
    """Draws of a prior as a PNG: paths of a trajectory's variables, histograms of a state's.

    Args:
        draws: `(draw, step, variable)`, or `(draw, *state)` where `interval` is None.
        weights: `(draw,)`, or None for even ones.
        interval: between steps.
    """
    rng = np.random.default_rng(0)
    p = np.full(len(draws), 1 / len(draws)) if weights is None else weights / weights.sum()
    if interval is None:
        flat = draws.reshape(len(draws), -1)
        shown = np.arange(min(flat.shape[1], 6))
        figure = Figure((WIDTH, 2.6), layout="constrained")
        for axis, i in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            axis.hist(flat[:, i], 40, weights=p, color=PALETTE[0])
            axis.set(xlabel=f"x[{i}]", yticks=[])
    else:
        picks = rng.choice(len(draws), 40, p=p)
        count = min(draws.shape[2], 6)
        figure = Figure((WIDTH, 1.7 * count + 0.5), layout="constrained")
        time = np.arange(draws.shape[1]) * interval
        order = rng.choice(len(draws), 2000, p=p)
        for i, axis in enumerate(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]):
            low, middle, high = np.quantile(draws[order, :, i], [0.05, 0.5, 0.95], axis=0)
            axis.plot(time, draws[picks, :, i].T, color=PALETTE[0], lw=0.6, alpha=0.35)
            band = {"color": PALETTE[5], "alpha": 0.3, "lw": 0, "label": "90 % of the draws"}
            axis.fill_between(time, low, high, **band)
            axis.plot(time, middle, color=PALETTE[1], lw=1.4, label="median")
            axis.set(ylabel=f"x[{i}]")
        axis.set(xlabel="model time", xlim=(0, time[-1]))
        handles = axis.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower right", ncols=2, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return to_bytes(figure, "png")


@styled
def event_figure(time, forecasts, happened, colours) -> Figure:
    """Reliability, ROC, and the last forecasts over time.

    Args:
        forecasts: `{method: (time,)}`, the probabilities.
        happened: 1 where the event came, 0 where not, NaN where it is not known, `(time,)`.
        colours: of the methods.
    """
    figure = Figure((WIDTH, 5.6), layout="constrained")
    axes = figure.subplot_mosaic([["reliability", "roc"], ["time", "time"]], height_ratios=[3, 2])
    known = np.isfinite(happened)
    for i, (name, p) in enumerate(forecasts.items()):
        style = {"color": colours[name], "marker": "osD^vP*"[i % 7], "ms": 4.5, "lw": 1.2}
        found = reliability(p, happened)
        some = found.count > 0
        axes["reliability"].plot(
            found.probability[some], found.frequency[some], **style, label=name
        )
        good = known & np.isfinite(p)
        curve = roc(p[good], happened[good])
        label = f"{name}, area {curve.area:.3f}"
        axes["roc"].plot(curve.false_alarms, curve.hits, color=colours[name], lw=1.4, label=label)
        axes["time"].plot(time[-SHOWN:], p[-SHOWN:], color=colours[name], lw=1.1)
    for axis in (axes["reliability"], axes["roc"]):
        axis.plot([0, 1], [0, 1], **DASHED)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.legend(fontsize=8)
    axes["reliability"].set(xlabel="forecast probability", ylabel="observed frequency")
    axes["roc"].set(xlabel="false alarm rate", ylabel="hit rate")
    came = np.flatnonzero(happened[-SHOWN:] == 1)
    axes["time"].plot(time[-SHOWN:][came], np.full(len(came), 1.05), "|", color=REFERENCE, ms=7)
    axes["time"].set(xlabel="model time", ylabel="probability", ylim=(0, 1.1))
    return figure


@styled
def paths_figure(paths, holds, truth, name, colours) -> Figure:
    """Forecasts of one analysis by each method: those in which the event holds, and the rest.

    Args:
        paths: `{method: (member, lead)}`, of the variable `name`.
        holds: `{method: (member,)}`.
        truth: `(lead,)`.
    """
    columns = min(len(paths), 3)
    rows = -(-len(paths) // columns)
    figure = Figure((WIDTH, 2.3 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    lead = np.arange(len(truth))
    for axis, (method, members) in zip(axes.flat, paths.items(), strict=False):
        inside = holds[method] > 0
        rest = {"color": "0.75", "lw": 0.7, "label": "it does not hold"}
        for which, style in (
            (~inside, rest),
            (inside, {"color": colours[method], "lw": 0.8, "alpha": 0.7, "label": "it holds"}),
        ):
            for line in axis.plot(lead, members[which].T, **style)[1:]:
                line.set_label("_")
        axis.plot(lead, truth, color=REFERENCE, lw=1.8, label="truth")
        axis.set_title(f"{method}, {inside.mean():.0%}", fontsize=9)
    for axis in axes.flat[len(paths) :]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set(ylabel=name)
    for axis in axes[-1]:
        axis.set(xlabel="cycles after the analysis", xticks=lead)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3, fontsize=8)
    return figure
