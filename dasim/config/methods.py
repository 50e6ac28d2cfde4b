"""Schemas of methods: filters and smoothers with their settings, and what tuning tries."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from dasim.config.section import NAME, Section


class Method(Section):
    """One way to assimilate: a filter with a transition."""

    name: str = Field(pattern=NAME, max_length=60)
    transition: str = "model"
    members: int | None = Field(None, ge=2)


class MultiplicativeSection(Section):
    """`dasim.filters.MultiplicativeInflation`."""

    kind: Literal["multiplicative"]
    factor: PositiveFloat
    after: bool = False


class AdditiveSection(Section):
    """`dasim.filters.AdditiveInflation` with independent draws."""

    kind: Literal["additive"]
    std: PositiveFloat


class RTPPSection(Section):
    """`dasim.filters.RTPP`."""

    kind: Literal["rtpp"]
    alpha: float = Field(ge=0, le=1.5)


class RTPSSection(Section):
    """`dasim.filters.RTPS`."""

    kind: Literal["rtps"]
    alpha: float = Field(ge=0, le=1.5)


class AdaptiveSection(Section):
    """`dasim.filters.AdaptiveInflation`, tapered by `localization_radius`."""

    kind: Literal["adaptive"]
    std: PositiveFloat = 0.6
    damping: float = Field(0.9, ge=0, le=1)
    initial: PositiveFloat = 1.0
    localization_radius: PositiveFloat | None = None


OneInflation = Annotated[
    MultiplicativeSection | AdditiveSection | RTPPSection | RTPSSection | AdaptiveSection,
    Field(discriminator="kind"),
]
# the tags stand in the paths of errors, from where _explain takes them out
NUMBER, SECTION, SEVERAL = "<number>", "<section>", "<several>"


def _which(value) -> str:
    if isinstance(value, list | tuple):
        return SEVERAL
    return SECTION if isinstance(value, dict | Section) else NUMBER


Single = Annotated[
    Annotated[PositiveFloat, Tag(NUMBER)] | Annotated[OneInflation, Tag(SECTION)],
    Discriminator(lambda value: NUMBER if _which(value) == SEVERAL else _which(value)),
]
Inflation = Annotated[
    Annotated[PositiveFloat, Tag(NUMBER)]
    | Annotated[OneInflation, Tag(SECTION)]
    | Annotated[list[Single], Field(min_length=1), Tag(SEVERAL)],
    Discriminator(_which),
]


class InflatedMethod(Method):
    """A method with inflation: a factor on the prior anomalies, another kind, or several."""

    inflation: Inflation = 1.0


class LocalizedMethod(InflatedMethod):
    """A method with inflation and localisation."""

    localization_radius: PositiveFloat | None = None


class StochasticEnKFMethod(LocalizedMethod):
    """`dasim.filters.StochasticEnKF`."""

    kind: Literal["StochasticEnKF"]


class DEnKFMethod(LocalizedMethod):
    """`dasim.filters.DEnKF`."""

    kind: Literal["DEnKF"]


class ETKFMethod(LocalizedMethod):
    """`dasim.filters.ETKF`."""

    kind: Literal["ETKF"]
    rotation: bool = True


class LETKFMethod(LocalizedMethod):
    """`dasim.filters.LETKF`."""

    kind: Literal["LETKF"]
    rotation: bool = False
    block: PositiveInt = 1


class GETKFMethod(InflatedMethod):
    """`dasim.filters.GETKF`."""

    kind: Literal["GETKF"]
    localization_radius: PositiveFloat
    fraction: float = Field(0.99, gt=0, le=1)
    rotation: bool = False


class EAKFMethod(LocalizedMethod):
    """`dasim.filters.EAKF`."""

    kind: Literal["EAKF"]
    rotation: bool = False


class RHFMethod(LocalizedMethod):
    """`dasim.filters.RHF`."""

    kind: Literal["RHF"]
    rotation: bool = False


class ESRFMethod(InflatedMethod):
    """`dasim.filters.ESRF`."""

    kind: Literal["ESRF"]
    rotation: bool = True


class EnKFNMethod(InflatedMethod):
    """`dasim.filters.EnKFN`."""

    kind: Literal["EnKFN"]
    certainty: PositiveFloat = 1.0
    rotation: bool = True


class EnSFMethod(LocalizedMethod):
    """`dasim.filters.EnSF`."""

    kind: Literal["EnSF"]
    steps: PositiveInt = 100
    end: float = Field(0.05, gt=0, lt=1)
    gaussian: bool = False


Guidance = Literal["dps", "pigdm", "mmps"]


class GuidedForecastMethod(Method):
    """`dasim.filters.GuidedForecast`; `strength` is of dps alone."""

    kind: Literal["GuidedForecast"]
    guidance: Guidance
    strength: PositiveFloat = 1.0
    inflation: PositiveFloat = 1.0
    n_steps: PositiveInt = 16


class EnKSMethod(LocalizedMethod):
    """`dasim.filters.EnKS` around an ETKF."""

    kind: Literal["EnKS"]
    lag: PositiveInt = 1
    rotation: bool = True


class IEnKSMethod(Method):
    """`dasim.filters.IEnKS`."""

    kind: Literal["IEnKS"]
    lag: PositiveInt = 1
    iterations: PositiveInt = 10
    tolerance: float = Field(1e-5, ge=0)
    inflation: PositiveFloat = 1.0
    certainty: PositiveFloat | None = None
    mda: bool = False
    rotation: bool = False


class ClimatologyMethod(Method):
    """`dasim.filters.Climatology`."""

    kind: Literal["Climatology"]


class OptimalInterpolationMethod(Method):
    """`dasim.filters.OptimalInterpolation`."""

    kind: Literal["OptimalInterpolation"]


class VariationalMethod(Method):
    """A method with a fixed background covariance: `scale` times the climate's or the identity."""

    background: Literal["climate", "identity"] = "climate"
    scale: PositiveFloat = 1.0
    iterations: PositiveInt = 10


class Var3DMethod(VariationalMethod):
    """`dasim.filters.Var3D`."""

    kind: Literal["Var3D"]


class Var4DMethod(VariationalMethod):
    """`dasim.filters.Var4D`."""

    kind: Literal["Var4D"]
    lag: PositiveInt = 1


class ExtendedKalmanMethod(Method):
    """`dasim.filters.ExtendedKalmanFilter`."""

    kind: Literal["ExtendedKalmanFilter"]
    inflation: PositiveFloat = 1.0


class KalmanMethod(Method):
    """`dasim.filters.KalmanFilter`."""

    kind: Literal["KalmanFilter"]


class ConditionalScoreMethod(Method):
    """`dasim.filters.ConditionalScoreFilter`."""

    kind: Literal["ConditionalScoreFilter"]
    inflation: PositiveFloat | None = None
    localization_radius: PositiveFloat | None = None
    linearization: Literal["derivative", "statistical"] = "derivative"
    lag: PositiveInt = 1
    evaluations: PositiveInt = 64
    iterations: PositiveInt = 4
    guide_levels: PositiveInt = 8
    relinearizations: PositiveInt = 1
    cap: PositiveFloat = 4.0
    guidance: Guidance | None = None
    strength: PositiveFloat = 1.0
    rotation: bool = True
    adaptive: bool = True
    weighted: bool | None = None
    bandwidths: list[Annotated[float, Field(gt=0, le=1)]] = Field([0.15, 0.4, 0.8], min_length=1)
    draws: PositiveInt = 4
    weighted_levels: PositiveInt = 1


class BootstrapParticleMethod(Method):
    """`dasim.filters.BootstrapParticleFilter`."""

    kind: Literal["BootstrapParticleFilter"]
    threshold: float = Field(0.5, gt=0, le=1)
    bandwidth: float = Field(0.0, ge=0)


class GaussianMixtureMethod(InflatedMethod):
    """`dasim.filters.GaussianMixtureFilter`."""

    kind: Literal["GaussianMixtureFilter"]
    bandwidth: PositiveFloat = 1.0


AnyMethod = Annotated[
    StochasticEnKFMethod
    | DEnKFMethod
    | ETKFMethod
    | LETKFMethod
    | GETKFMethod
    | EAKFMethod
    | ESRFMethod
    | RHFMethod
    | EnKFNMethod
    | EnSFMethod
    | GuidedForecastMethod
    | EnKSMethod
    | IEnKSMethod
    | ClimatologyMethod
    | OptimalInterpolationMethod
    | Var3DMethod
    | Var4DMethod
    | ExtendedKalmanMethod
    | KalmanMethod
    | ConditionalScoreMethod
    | BootstrapParticleMethod
    | GaussianMixtureMethod,
    Field(discriminator="kind"),
]


class Tune(Section):
    """`dasim tune`: which values to try, on how many truths, and what decides.

    The keys of `grid` are settings of a method, dotted for those in a section
    (`inflation.factor`); a method tries those that it has.
    """

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {
            "inflation": [1.0, 1.01, 1.02, 1.04, 1.07, 1.1, 1.15, 1.2],
            "localization_radius": [2.0, 4.0, 6.0, 8.0, 11.0, 15.0],
        },
        min_length=1,
    )
    seeds: PositiveInt = 3
    random: PositiveInt | None = Field(
        None, description="draw so many settings from the grid's ranges instead of all of it"
    )
    score: Literal["crps", "rmse"] = "crps"
