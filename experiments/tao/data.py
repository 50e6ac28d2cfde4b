"""Kaplan's field and the TAO moorings: reading, empirical orthogonal functions, seasons."""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from dasim.models.seasonal import harmonics
from dasim.operators import Interpolate
from dasim.types import DataError

LATITUDES = -12, -10, -8, -5, -2, 0, 2, 5, 8, 9, 12  # where moorings are meant to be
LONGITUDES = 137, 147, 156, 165, 180, 190, 205, 220, 235, 250, 265
REGION = 180.0, 265.0
DAYS = 10  # of a month, at least, for its mean
MODES_YEARS = 1950, 1989
SEASON_YEAR = 1995  # last one from which offsets and seasons of the moorings are known


class Field(NamedTuple):
    """The field in its leading modes.

    Attributes:
        months: of the coefficients.
        coefficients: `(month, mode)`, of unit variance in the fitted years.
        modes: `(mode, lat, lon)`, in K; zero on land.
        lat, lon: degrees north and east.
        anomalies: the field itself, `(month, lat, lon)`, NaN on land.
        index: Nino 3.4, its mean between 5S and 5N, 170W and 120W, `(month,)`.
        mode_index: of the modes, `(mode,)`.
    """

    months: pd.DatetimeIndex
    coefficients: np.ndarray
    modes: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    anomalies: np.ndarray
    index: np.ndarray
    mode_index: np.ndarray


class Moorings(NamedTuple):
    """Monthly means.

    Attributes:
        months: of the values, the same as the field's.
        values: anomalies without offset and season, `(month, mooring)`, NaN where missing.
        place: latitude and longitude east, `(mooring, 2)`.
        modes: those of the field at the moorings, `(mode, mooring)`.
    """

    months: pd.DatetimeIndex
    values: np.ndarray
    place: np.ndarray
    modes: np.ndarray


def read_field(path: Path, count: int) -> Field:
    """The field between 20 degrees south and north, in modes of 1950 to 1989.

    Raises:
        DataError: another file, or one without those years.
    """
    with xr.open_dataset(path) as data:
        if "ssta" not in data:
            raise DataError(f"{path}: has no variable ssta")
        field = data["ssta"].sel(lat=slice(-20, 20)).sel(time=slice("1950", "2000")).load()
    lat, lon = field["lat"].values, field["lon"].values
    anomalies = np.asarray(field.values, float)
    months = pd.DatetimeIndex(field["time"].values)
    fitted = (months.year >= MODES_YEARS[0]) & (months.year <= MODES_YEARS[1])
    if fitted.sum() != 12 * (MODES_YEARS[1] - MODES_YEARS[0] + 1):
        raise DataError(f"{path}: variable ssta: not all months of {MODES_YEARS}")
    sea = np.isfinite(anomalies).all(0)
    weight = np.sqrt(np.cos(np.deg2rad(lat)))[:, None] * np.ones(len(lon))
    flat = (anomalies * weight)[:, sea]
    flat = flat - flat[fitted].mean(0)
    _, _, rows = np.linalg.svd(flat[fitted], full_matrices=False)
    raw = flat @ rows[:count].T
    scale = raw[fitted].std(0)
    modes = np.zeros((count, *sea.shape))
    modes[:, sea] = rows[:count] * scale[:, None] / weight[sea]
    box = np.ix_(np.abs(lat) < 5, (lon > 190) & (lon < 240))
    inside = lambda a: a[(..., *box)].mean((-2, -1))
    parts = modes, lat, lon, anomalies, inside(anomalies), inside(modes)
    return Field(months, raw / scale, *parts)


def read_daily(path: Path) -> pd.DataFrame:
    """Days, places and sea surface temperatures: columns time, lat, lon (east), sst.

    Raises:
        DataError: naming the line that is not as it should be.
    """
    opened = gzip.open(path, "rt") if str(path).endswith(".gz") else open(path)
    names = [
        "obs",
        "year",
        "month",
        "day",
        "date",
        "lat",
        "lon",
        "u",
        "v",
        "humidity",
        "air",
        "sst",
    ]
    with opened as file:
        try:
            table = pd.read_csv(file, sep=r"\s+", names=names, na_values=["."])
        except (ValueError, OSError) as error:
            raise DataError(f"{path}: not the table of moorings: {error}") from None
    for name in ("lat", "lon", "sst"):
        if not pd.api.types.is_numeric_dtype(table[name]):
            wrong = pd.to_numeric(table[name], errors="coerce").isna() & table[name].notna()
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(f"{path}: line {row + 1}: {name} is {table[name][row]!r}")
    table["time"] = pd.to_datetime(
        {"year": 1900 + table["year"], "month": table["month"], "day": table["day"]}
    )
    table["lon"] = table["lon"] % 360
    return table[["time", "lat", "lon", "sst"]].dropna()


def monthly(daily: pd.DataFrame, months: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
    """Monthly means `(month, mooring)` in K or degC, and the moorings' places."""
    near = lambda given, wanted: np.asarray(wanted)[
        np.abs(given.to_numpy()[:, None] - np.asarray(wanted)).argmin(1)
    ]
    daily = daily.assign(row=near(daily["lat"], LATITUDES), column=near(daily["lon"], LONGITUDES))
    away = (daily["lat"] - daily["row"]).abs() + (daily["lon"] - daily["column"]).abs()
    inside = (daily["column"] >= REGION[0]) & (daily["column"] <= REGION[1]) & (away < 3)
    daily = daily[inside].assign(month=daily["time"].dt.to_period("M").dt.to_timestamp())
    groups = daily.groupby(["row", "column", "month"])["sst"]
    mean = groups.mean()[groups.count() >= DAYS]
    table = mean.unstack(["row", "column"]).reindex(months)
    table = table.loc[:, table.notna().sum() >= 24].sort_index(axis=1, level=[1, 0])
    return table.to_numpy(), np.array([(float(a), float(b)) for a, b in table.columns])


def read_moorings(path: Path, field: Field) -> Moorings:
    """Monthly anomalies: offset and season (two harmonics) are those of the difference to the
    field up to 1995."""
    values, place = monthly(read_daily(path), field.months)
    axes = field.lat, field.lon
    # the field begins at 182.5E: moorings at 180E are given its edge
    at = Interpolate(axes, np.clip(place, [min(a) for a in axes], [max(a) for a in axes]))
    filled = np.nan_to_num(field.anomalies)
    known = np.stack([np.asarray(at(f, 0.0)) for f in filled])
    modes = np.stack([np.asarray(at(m, 0.0)) for m in field.modes])
    t = np.arange(len(field.months), dtype=float)
    regressors = harmonics(t, 12.0, 2)
    early = field.months.year <= SEASON_YEAR
    out, kept = np.full_like(values, np.nan), []
    for j in range(values.shape[1]):
        use = early & np.isfinite(values[:, j])
        if use.sum() < 18:
            continue
        kept.append(j)
        difference = values[use, j] - known[use, j]
        weights = np.linalg.lstsq(regressors[use], difference, rcond=None)[0]
        out[:, j] = values[:, j] - regressors @ weights
    return Moorings(field.months, out[:, kept], place[kept], modes[:, kept])
