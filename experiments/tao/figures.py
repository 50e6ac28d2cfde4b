"""Figures of the experiment: a withheld mooring through 1997/98, maps, Nino 3.4."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def draw(folder: Path, field, moorings, months, lead_in, found):
    """mooring.png and maps.png."""
    _, analysis, later, states, *_ = found
    counts = slice(lead_in, None)
    when = field.months[months][counts]
    values = moorings.values[months][counts]
    # on the equator, where the event was largest
    on_equator = np.flatnonzero(moorings.place[:, 0] == 0)
    j = on_equator[np.argmax(np.nanmax(values[:, on_equator], 0))]
    fig = Figure((9, 3.2), layout="constrained")
    axis = fig.subplots()
    low, high = np.quantile(analysis[counts, :, j], [0.05, 0.95], axis=1)
    axis.fill_between(when, low, high, color="#0072B2", alpha=0.25, lw=0, label="90 % of members")
    axis.plot(when, analysis[counts, :, j].mean(1), color="#0072B2", label="analysis, withheld")
    ahead = later[lead_in - 3 : len(months) - 3, 2, :, j].mean(1)
    axis.plot(when, ahead, color="#D55E00", lw=1.2, label="forecast of 3 months")
    axis.plot(when, values[:, j], "k.", label="the mooring's monthly means")
    place = f"{moorings.place[j, 1]:.0f}E, equator"
    axis.set(ylabel="anomaly [K]", title=f"withheld mooring at {place}")
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    fig.savefig(folder / "mooring.png", dpi=110)

    shown = [when.get_loc(m) for m in ("1996-12-01", "1997-06-01", "1997-12-01", "1998-06-01")]
    k = len(field.modes)
    fig = Figure((11, 6.4), layout="constrained")
    axes = fig.subplots(4, 2)
    sea = np.isfinite(field.anomalies).all(0)
    for row, i in enumerate(shown):
        members = np.tensordot(states[lead_in + i][:, :k], field.modes, 1)
        for axis, picture, most, cmap, label in (
            (axes[row, 0], members.mean(0), 4.0, "RdBu_r", "analysis [K]"),
            (axes[row, 1], members.std(0), 0.6, "viridis", "spread [K]"),
        ):
            picture = np.where(sea, picture, np.nan)
            least = -most if cmap == "RdBu_r" else 0.0
            mesh = axis.pcolormesh(
                field.lon, field.lat, picture, cmap=cmap, vmin=least, vmax=most, shading="nearest"
            )
            axis.plot(moorings.place[:, 1], moorings.place[:, 0], "k.", ms=2)
            axis.set(title=f"{when[i]:%Y-%m}, {label}", ylabel="latitude")
            axis.title.set_fontsize(9)
            fig.colorbar(mesh, ax=axis)
    for axis in axes[-1]:
        axis.set(xlabel="longitude east")
    fig.savefig(folder / "maps.png", dpi=100)


def draw_index(folder: Path, field, months, lead_in, runs):
    """nino34.png: forecasts of Nino 3.4 by two models, from every third analysis."""
    when, truth = field.months[months], field.index[months]
    shown = [name for name in runs if name != "linear"]
    fig = Figure((9, 2.6 * len(shown)), layout="constrained")
    axes = fig.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, shown, strict=True):
        forecasts = runs[name][-1]
        for k in range(lead_in, len(months) - 1, 3):
            n = min(forecasts.shape[1], len(months) - 1 - k)
            ahead = when[k + 1 : k + 1 + n]
            low, high = np.quantile(forecasts[k, :n], [0.05, 0.95], axis=1)
            first = k == lead_in
            band, line = ("90 % of members", "their mean") if first else (None, None)
            axis.fill_between(ahead, low, high, color="#D55E00", alpha=0.15, lw=0, label=band)
            axis.plot(ahead, forecasts[k, :n].mean(1), color="#D55E00", lw=1.2, label=line)
        axis.plot(when[lead_in:], truth[lead_in:], "k-", lw=1.6, label="Kaplan")
        axis.set(ylabel="Nino 3.4 [K]", title=name)
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    fig.savefig(folder / "nino34.png", dpi=110)
