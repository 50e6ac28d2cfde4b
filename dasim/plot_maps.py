"""Maps of a run whose state is a field of latitude and longitude."""

import numpy as np
from matplotlib.figure import Figure

from dasim.plot import WIDTH, styled


@styled
def withheld_map(axes, field, places, error, unit, time):
    """The analysis mean, and beside it the analysis mean minus reports at withheld sensors.

    Args:
        axes: latitude `(i,)` and longitude `(j,)` of the grid.
        field: the mean, `(i, j)`.
        places: latitude and longitude of the sensors, `(sensor, 2)`.
        error: at them, `(sensor,)`.
        unit: of both.
        time: of the analysis.
    """
    figure = Figure((WIDTH, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    latitude, longitude = axes
    half = [(line[1] - line[0]) / 2 for line in (longitude, latitude)]
    ends = [
        (line[0] - h, line[-1] + h) for line, h in zip((longitude, latitude), half, strict=True)
    ]
    shown = left.imshow(field, origin="lower", extent=(*ends[0], *ends[1]), aspect="auto")
    figure.colorbar(shown, ax=left, label=unit, location="bottom", shrink=0.8)
    left.set_title(f"Analysis mean, {np.datetime_as_string(time, 'm')} UTC")
    # a few gross errors would leave one colour to all others
    limit = max(float(np.quantile(np.abs(error), 0.98)), 1e-12)
    size = float(np.clip(400 / np.sqrt(len(error)), 2, 25))
    dots = right.scatter(
        places[:, 1], places[:, 0], size, error, lw=0, vmin=-limit, vmax=limit, cmap="RdBu_r"
    )
    figure.colorbar(dots, ax=right, label=unit, location="bottom", shrink=0.8, extend="both")
    right.set_title(f"Analysis mean minus report, {len(error):,} withheld sensors")
    figure.supxlabel("longitude [degrees east]")
    figure.supylabel("latitude [degrees north]")
    return figure
