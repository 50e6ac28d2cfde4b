"""Schemas of the systems of twin experiments."""

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from dasim.config.section import Section


class Shock(Section):
    """Rare shocks to the truth, which the filters' model does not have; see `models.Shocked`."""

    size: PositiveFloat
    probability: float = Field(ge=0, le=1, description="of a shock in one step")


class SystemSection(Section):
    """What every system has."""

    interval: PositiveFloat
    noise: float = Field(0.0, ge=0, description="standard deviation of the noise added each step")
    shock: Shock | None = None


class Lorenz63System(SystemSection):
    """Lorenz-63."""

    kind: Literal["lorenz63"]
    dt: PositiveFloat = 0.01
    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3


class Lorenz96System(SystemSection):
    """Lorenz-96."""

    kind: Literal["lorenz96"]
    size: int = Field(40, ge=4)
    forcing: float = 8.0
    dt: PositiveFloat = 0.05


class Lorenz84System(SystemSection):
    """Lorenz-84."""

    kind: Literal["lorenz84"]
    dt: PositiveFloat = 0.05
    a: float = 0.25
    b: float = 4.0
    forcing: float = 8.0
    asymmetry: float = 1.23


class TwoScaleLorenz96System(SystemSection):
    """Lorenz-96 with fast variables."""

    kind: Literal["lorenz96-two-scale"]
    slow: int = Field(8, ge=4)
    fast: PositiveInt = 32
    forcing: float = 20.0
    coupling: float = 1.0
    space_ratio: PositiveFloat = 10.0
    time_ratio: PositiveFloat = 10.0
    dt: PositiveFloat = 0.005


class KuramotoSivashinskySystem(SystemSection):
    """The equation of Kuramoto and Sivashinsky."""

    kind: Literal["kuramoto-sivashinsky"]
    size: int = Field(128, ge=8)
    length: PositiveFloat = 32 * math.pi
    dt: PositiveFloat = 0.5


class BurgersSystem(SystemSection):
    """The viscous equation of Burgers, without a forcing."""

    kind: Literal["burgers"]
    size: int = Field(128, ge=8)
    length: PositiveFloat = 2 * math.pi
    viscosity: PositiveFloat = 0.05
    dt: PositiveFloat = 0.01


class KortewegDeVriesSystem(SystemSection):
    """The equation of Korteweg and de Vries."""

    kind: Literal["korteweg-de-vries"]
    size: int = Field(128, ge=8)
    length: PositiveFloat = 20.0
    dispersion: PositiveFloat = 1.0
    dt: PositiveFloat = 0.002


class KolmogorovSystem(SystemSection):
    """Kolmogorov flow."""

    kind: Literal["kolmogorov"]
    size: PositiveInt = 64
    reynolds: PositiveFloat = 100.0
    wavenumber: PositiveInt = 4
    drag: float = Field(0.1, ge=0)
    dt: PositiveFloat = 0.02


class FitzHughNagumoSystem(SystemSection):
    """Two coupled cells of FitzHugh and Nagumo."""

    kind: Literal["fitzhugh-nagumo"]
    dt: PositiveFloat = 0.5
    a: float = -0.025794
    b: tuple[float, float] = (0.0065, 0.0135)
    c: float = 0.02
    k: float = 0.128
    scale: PositiveFloat = 5.0


class DoublePendulumSystem(SystemSection):
    """The double pendulum."""

    kind: Literal["double-pendulum"]
    dt: PositiveFloat = 0.02


System = Annotated[
    Lorenz63System
    | Lorenz96System
    | Lorenz84System
    | TwoScaleLorenz96System
    | KuramotoSivashinskySystem
    | BurgersSystem
    | KortewegDeVriesSystem
    | KolmogorovSystem
    | FitzHughNagumoSystem
    | DoublePendulumSystem,
    Field(discriminator="kind"),
]
