"""A figure of observations: maps of their values, or where they share a place, lines over time."""

import numpy as np
from matplotlib.figure import Figure

from dasim.plot import PALETTE, WIDTH, styled, to_bytes
from dasim.sensors.table import ObsTable

MOST = 6  # variables with a panel of their own
EXTEND = {(False, False): "neither", (True, False): "min", (False, True): "max",
          (True, True): "both"}  # fmt: skip


@styled
def observations_figure(table: ObsTable) -> bytes:
    """A PNG: a map of each variable's values, or where there is at most one place, a line of each.

    Drawn are the six variables with most values.
    """
    frame = table.frame
    count = frame["variable"].value_counts()
    shown = [name for name in table.units if name in set(count.index[:MOST])]
    places = frame[["latitude", "longitude"]].drop_duplicates().dropna()
    figure = (_maps if len(places) > 1 else _lines)(table, shown)
    left = len(table.units) - len(shown)
    title = f"{len(table):,} values" + (f"; {left} variables with fewer left out" if left else "")
    figure.suptitle(title, fontsize=10)
    return to_bytes(figure, "png")


def _label(table: ObsTable, name: str) -> str:
    return f"{name} [{table.units[name]}]" if table.units[name] else name


def _maps(table: ObsTable, shown: list[str]) -> Figure:
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    figure = Figure((WIDTH, 2.3 * rows * 2 / columns + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for name, axis in zip(shown, axes.flat, strict=False):
        mine = table.frame[table.frame["variable"] == name]
        size = float(np.clip(400 / np.sqrt(len(mine)), 2, 25))
        # a few far values would leave one colour to all others
        low, high = np.quantile(mine["value"], [0.02, 0.98])
        dots = axis.scatter(
            mine["longitude"], mine["latitude"], size, mine["value"], lw=0, vmin=low, vmax=high
        )
        extend = EXTEND[bool(mine["value"].min() < low), bool(mine["value"].max() > high)]
        figure.colorbar(dots, ax=axis, extend=extend, shrink=0.8)
        axis.set_title(f"{_label(table, name)}, {len(mine):,}")
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel("longitude [degrees east]")
    figure.supylabel("latitude [degrees north]")
    return figure


def _lines(table: ObsTable, shown: list[str]) -> Figure:
    rows = max(len(shown), 1)
    figure = Figure((WIDTH, 1.5 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    # what has no place at all may be of several: no line joins it
    style = ".-" if table.frame["latitude"].notna().any() else "."
    for i, (name, axis) in enumerate(zip(shown, axes, strict=False)):
        mine = table.frame[table.frame["variable"] == name].sort_values("time")
        axis.plot(mine["time"].to_numpy(), mine["value"], style, color=PALETTE[i], lw=0.8, ms=3)
        axis.set_title(_label(table, name))
    axes[-1].set_xlabel("time (UTC)")
    return figure
