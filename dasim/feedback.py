"""Feedback of a run with real sensors: what became of each report, in IODA files.

For each method and withheld station `METHOD-STATION.nc` has the reports with the forecast in their
place (`HofX`, the ensemble's mean), report minus forecast (`ombg`) and minus analysis (`oman`), the
error that was used (`EffectiveError`), whether it was (`used`), whether it was withheld
(`withheld`), and why it was not used (`EffectiveQC`, the numbers of `dasim.observe.Quality`).
"""

from pathlib import Path

import numpy as np

from dasim import weather
from dasim.observe import Quality
from dasim.results import MethodFile
from dasim.sensors import make_table, write_ioda

PLACES = {  # degrees north and east of the airports
    "EWR": (40.6925, -74.1687),
    "JFK": (40.6398, -73.7789),
    "LGA": (40.7772, -73.8726),
}
NAMES = {
    "temp": "airTemperature",
    "dewp": "dewPointTemperature",
    "u": "windEastward",
    "v": "windNorthward",
    "pressure": "pressureReducedToMeanSeaLevel",
    "visib": "horizontalVisibility",
    "precip": "precipitationAmount",
}


def write_feedback(folder: Path, name: str, file: MethodFile, problem):
    """One file for each withheld station, of the cycles that count and those before."""
    folder.mkdir(parents=True, exist_ok=True)
    reports = problem.reports
    report = reports.reported(reports.values[problem.index])
    std = np.where(problem.added_std > 0, problem.std, np.nan)  # of a report at its limit: none
    time, column = np.nonzero(np.isfinite(report))
    station = problem.station[column]
    quantity = np.array([v.split(".")[1] for v in reports.variables])[column]
    hours = reports.hours[problem.index][time]
    ahead, after, used = (file.read(f) for f in ("error_forecast", "error_analysis", "used"))
    places = np.array([PLACES[s] for s in station]).reshape(-1, 2)
    for fold, withheld in enumerate(problem.folds):
        cell = time, fold, column
        kept, out = used[cell] > 0, station == withheld
        own = problem.codes[time, column]
        codes = np.where(kept | (own > 0), own, Quality.FORECAST)
        codes = np.where(out, Quality.WITHHELD, codes)
        table = make_table(
            f"feedback of {name}",
            {NAMES[q]: unit for q, unit in reports.quantities.items()},
            variable=np.array([NAMES[q] for q in quantity]),
            time=weather.EPOCH.tz_localize(None) + (hours * 3600).astype("timedelta64[s]"),
            value=report[time, column],
            latitude=places[:, 0],
            longitude=places[:, 1],
            station=station,
            std=std[column],
            record=time * len(weather.STATIONS) + column // len(reports.quantities),
            extra={
                "HofX": report[time, column] + ahead[cell],
                "ombg": -ahead[cell],
                "oman": -after[cell],
                "EffectiveError": std[column],
                "EffectiveQC": codes.astype(float),
                "used": kept.astype(float),
                "withheld": out.astype(float),
            },
        )
        write_ioda(folder / f"{name}-{withheld}.nc", table)
