"""Problems whose observations are those of real sensors, of which each fold withholds some."""

import abc

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from dasim.problems.base import Problem


class RealSensors(Problem):
    """What real sensors reported; a sensor is one quantity at one station.

    Values are in the quantities' own units, whatever the state is made of.

    Attributes:
        epoch: the time from which hours are counted.
        hours: of the cycles, `(cycle,)`.
        station, quantity: of each sensor, `(sensor,)`.
        units: of each quantity.
        names: of each quantity in files of feedback.
        latitude, longitude: of each sensor, in degrees, `(sensor,)`.
        values: reports, NaN where there is none, `(cycle, sensor)`.
        codes: `dasim.observe.Quality` of each, `(cycle, sensor)`.
        std: standard deviation of their errors, `(sensor,)` or `(cycle, sensor)`.
        added_std: of the error that members in own units lack, of the same shape.
        withheld: what each fold is verified with, `(fold, cycle, sensor)`.
        scale: what scores are divided by before they are averaged over sensors, `(sensor,)`.
        axes: coordinates of the grid that the state is a field on; None where it is that of the
            sensors themselves.
        law: mean, std and length of a field that these sensors see, of which the states are the
            anomalies from the mean; None where there are no `axes`.
        unit: of each sensor's assimilated values, in its own, `(sensor,)` or one for all.
        censored: the quantities of the sensors whose reports are censored, by number.
    """

    kind = "real"
    epoch: pd.Timestamp
    hours: Float[np.ndarray, " cycle"]
    station: np.ndarray
    quantity: np.ndarray
    units: dict[str, str]
    names: dict[str, str]
    latitude: np.ndarray
    longitude: np.ndarray
    values: Float[np.ndarray, "cycle sensor"]
    codes: np.ndarray
    std: np.ndarray
    added_std: np.ndarray
    withheld: Bool[np.ndarray, "fold cycle sensor"]
    scale: Float[np.ndarray, " sensor"]
    axes: dict[str, np.ndarray] | None = None
    law: dict[str, float | None] | None = None
    unit: Float[np.ndarray, " sensor"] | float = 1.0
    censored: dict[int, str] = {}

    @property
    def sensors(self) -> list[str]:
        """STATION.QUANTITY of each."""
        return [f"{s}.{q}" for s, q in zip(self.station, self.quantity, strict=True)]

    @abc.abstractmethod
    def sensed(
        self, members: Float[np.ndarray, "member fold cycle *state"], rows: slice
    ) -> Float[np.ndarray, "member cycle fold sensor"]:
        """What members of the cycles `rows` have in place of the reports."""

    def reported(self, values: Float[np.ndarray, "... sensor"]) -> Float[np.ndarray, "... sensor"]:
        """What would be reported of values in own units."""
        return values

    @property
    @abc.abstractmethod
    def references(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and std, `(cycle, sensor)` each, of forecasts that use no other station."""
