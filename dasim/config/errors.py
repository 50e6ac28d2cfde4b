"""Schemas of errors of observations and of their quality control; see `dasim.observe`."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic import model_validator as validator

from dasim.config.section import Section


class CoarseSection(Section):
    """What instruments that tell less than a number have."""

    stand_in: Literal["climate", "plain"] = Field(
        "climate", description="moments for filters that need a Gaussian: given the climate, or not"
    )


class CensoredError(CoarseSection):
    """A detection limit, a saturation, or both."""

    kind: Literal["censored"]
    low: float | None = None
    high: float | None = None

    @validator(mode="after")
    def _limits(self):
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")
        if None not in (self.low, self.high) and self.low >= self.high:
            raise ValueError(f"low is {self.low}, expected below high, {self.high}")
        return self


class QuantisedError(CoarseSection):
    """Readings in whole steps."""

    kind: Literal["quantised"]
    step: PositiveFloat
    offset: float = 0.0


class ThresholdError(CoarseSection):
    """Yes or no."""

    kind: Literal["threshold"]
    level: float


class StudentTError(Section):
    """Student's t; the section's std is its scale."""

    kind: Literal["student-t"]
    dof: PositiveFloat = 4.0


class HuberError(Section):
    """Normal, with exponential tails."""

    kind: Literal["huber"]
    k: PositiveFloat = 1.345


class ContaminatedError(Section):
    """Normal, but for gross errors."""

    kind: Literal["contaminated"]
    gross: float = Field(0.05, gt=0, lt=1, description="chance of a gross error")
    reach: PositiveFloat = Field(30.0, description="of gross errors, in standard deviations")


ErrorModel = Annotated[
    CensoredError
    | QuantisedError
    | ThresholdError
    | StudentTError
    | HuberError
    | ContaminatedError,
    Field(discriminator="kind"),
]


class QualityControl(Section):
    """What is left out of a cycle's observations."""

    range: tuple[float, float] | None = Field(None, description="the least and the largest value")
    blacklist: list[Annotated[int, Field(ge=0)]] = Field([], description="numbers of observations")
    stuck: PositiveInt | None = Field(
        None, ge=2, description="successive equal reports from which a sensor is taken to be stuck"
    )
    background: PositiveFloat | None = Field(
        None, description="limit on the distance from the forecast, in total spreads"
    )
    buddy: PositiveFloat | None = Field(
        None, description="limit on that from what the other observations say, likewise"
    )
    most: float = Field(0.5, gt=0, le=1, description="largest share that the last two leave out")

    @validator(mode="after")
    def _limits(self):
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range is {list(self.range)}, expected the lower end first")
        return self


class ErrorEstimation(Section):
    """What is learned about the observations' errors; see `dasim.filters.OnlineErrors`."""

    bias: dict[Literal["constant", "value"], PositiveFloat] = Field(
        {}, description="predictors of the bias, and what is expected of their coefficients' size"
    )
    std: bool = Field(False, description="a factor on the error's standard deviation")
    shared: bool = Field(False, description="one bias and one factor for all sensors")
    memory: float = Field(100.0, gt=1, description="cycles after which the past counts 1 / e")

    @validator(mode="after")
    def _something(self):
        if not self.bias and not self.std:
            raise ValueError("give bias, std: true, or both")
        return self
