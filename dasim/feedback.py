"""Feedback of a run with real sensors: what became of each report, in IODA files.

For each method and fold (or withheld station) `METHOD-FOLD.nc` has the reports with the forecast
in their place (`HofX`, the ensemble's mean), report minus forecast (`ombg`) and minus analysis
(`oman`), the error that was used (`EffectiveError`), whether it was (`used`), whether it was
withheld (`withheld`), and why it was not used (`EffectiveQC`, the numbers of
`dasim.observe.Quality`).
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from dasim.observe import Quality
from dasim.results import MethodFile
from dasim.sensors import make_table, write_ioda


def write_feedback(folder: Path, name: str, file: MethodFile, problem):
    """One file for each fold, of the cycles that count and those before."""
    folder.mkdir(parents=True, exist_ok=True)
    # of a report at its limit there is no standard deviation
    std = np.where(problem.added_std > 0, problem.std, np.nan)
    std = np.broadcast_to(std, problem.values.shape)
    time, column = np.nonzero(np.isfinite(problem.values))
    value, own_std = problem.values[time, column], std[time, column]
    stations, number = np.unique(problem.station, return_inverse=True)
    hours = problem.hours[time]
    epoch = pd.Timestamp(problem.epoch).tz_localize(None)
    ahead, after, used = (file.read(f) for f in ("error_forecast", "error_analysis", "used"))
    for fold, withheld in enumerate(problem.folds):
        cell = time, fold, column
        kept, out = used[cell] > 0, problem.withheld[fold, time, column]
        own = problem.codes[time, column]
        codes = np.where(kept | (own > 0), own, Quality.FORECAST)
        codes = np.where(out, Quality.WITHHELD, codes)
        table = make_table(
            f"feedback of {name}",
            {problem.names[q]: unit for q, unit in problem.units.items()},
            variable=np.array([problem.names[q] for q in problem.quantity])[column],
            time=epoch + np.round(hours * 3600).astype("timedelta64[s]"),
            value=value,
            latitude=problem.latitude[column],
            longitude=problem.longitude[column],
            station=problem.station[column],
            std=own_std,
            record=time * len(stations) + number[column],
            extra={
                "HofX": value + ahead[cell],
                "ombg": -ahead[cell],
                "oman": -after[cell],
                "EffectiveError": own_std,
                "EffectiveQC": codes.astype(float),
                "used": kept.astype(float),
                "withheld": out.astype(float),
            },
        )
        plain = re.sub(r"[^\w.+-]", "_", withheld)
        write_ioda(folder / f"{name}-{plain}.nc", table)
