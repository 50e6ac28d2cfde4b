"""Schemas of a run and of the training of a prior."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic import model_validator as validator

from dasim.config.data import Data, ObservationFile, Withhold
from dasim.config.errors import ErrorEstimation, ErrorModel, QualityControl
from dasim.config.methods import AnyMethod, Tune
from dasim.config.section import NAME, Section
from dasim.config.systems import System


class Observe(Section):
    """What is observed: of a system, sites and a function; of real sensors, error and folds."""

    every: PositiveInt | None = None
    sites: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=1)
    positions: list[float | list[float]] | None = Field(
        None, min_length=1, description="of sensors in the box of a system that is a field"
    )
    function: Literal["identity", "arctan", "abs", "square"] = "identity"
    shift: float = Field(0.0, description="the function is applied to (x - shift) / scale")
    scale: PositiveFloat = 1.0
    std: PositiveFloat | dict[str, PositiveFloat] | None = None
    error: ErrorModel | None = Field(
        None, description="what is read of a value with its error; left out: that"
    )
    withhold: Withhold | None = Field(
        None, description="of real sensors: stations, each in a fold of its own, or folds"
    )
    readings: Literal["events", "climate", "plain"] = Field(
        "events",
        description="what a filter of events makes of censored reports: events, or the Gaussian "
        "stand-in with the climate's moments or plain; other filters take a stand-in anyway",
    )
    wind: Literal["components", "reported"] = Field(
        "components", description="of real sensors: as u and v, or as speed and direction"
    )

    @validator(mode="after")
    def _function(self):
        if self.function == "identity" and (self.shift, self.scale) != (0.0, 1.0):
            raise ValueError("shift and scale belong to a function other than the identity")
        return self


class Cycle(Section):
    """How many cycles, which count, and what is kept of them."""

    n_cycles: PositiveInt | None = None
    burn_in: int = Field(0, ge=0)
    chunk: PositiveInt = 50
    save_forecast: bool = True
    initial_std: PositiveFloat | None = Field(
        None, description="spread of the first ensemble about the truth; left out: the climate"
    )


class Sourced(Section):
    """A section with one of `system` and `data`."""

    system: System | None = None
    data: Data | None = None

    @validator(mode="after")
    def _one_source(self):
        if (self.system is None) == (self.data is None):
            raise ValueError(
                "give exactly one of system (a twin experiment) and data (real sensors)"
            )
        return self


class EventSection(Section):
    """An event whose probability each analysis forecasts; see `dasim.forecasts`."""

    name: str = Field(pattern=NAME, max_length=60)
    when: str = Field(description="an expression; see `dasim.events.language`")
    within: PositiveInt = Field(1, description="cycles after the analysis")


class Run(Sourced):
    """`dasim run`."""

    name: str = Field(pattern=NAME, max_length=60)
    seed: int = Field(0, ge=0)
    precision: Literal["float32", "float64"] = "float32"
    observe: Observe
    cycle: Cycle = Cycle()
    members: int = Field(ge=2)
    methods: list[AnyMethod] = Field(min_length=1)
    events: list[EventSection] = []
    quality_control: QualityControl | None = None
    error_estimation: ErrorEstimation | None = None
    tune: Tune = Tune()

    @validator(mode="after")
    def _events(self):
        names = [e.name for e in self.events]
        if len(set(names)) < len(names):
            raise ValueError("two events have one name: names must differ")
        if self.events and self.system is None:
            raise ValueError("events: are forecast in twin experiments, whose truth is known")
        for i, event in enumerate(self.events):
            left = (self.cycle.n_cycles or 0) - self.cycle.burn_in
            if event.within >= left:
                raise ValueError(
                    f"events[{i}].within: {event.within} cycles, expected fewer than the {left} "
                    "scored ones"
                )
        return self

    @validator(mode="after")
    def _fits(self):
        names = [m.name for m in self.methods]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise ValueError(f"two methods have the name {sorted(twice)[0]!r}: names must differ")
        for i, method in enumerate(self.methods):
            lag = getattr(method, "lag", 0)
            if self.cycle.n_cycles is not None and lag > self.cycle.n_cycles:
                raise ValueError(
                    f"methods[{i}].lag: {lag} cycles are more than the run's "
                    f"{self.cycle.n_cycles} (cycle.n_cycles)"
                )
        if self.observe.std is None and not isinstance(self.data, ObservationFile):
            raise ValueError("observe.std: is missing")
        if self.system is not None:
            if self.cycle.n_cycles is None:
                raise ValueError("cycle.n_cycles is missing")
            if self.cycle.burn_in >= self.cycle.n_cycles:
                raise ValueError(
                    f"cycle.burn_in is {self.cycle.burn_in}, expected fewer than the "
                    f"{self.cycle.n_cycles} cycles of cycle.n_cycles"
                )
        return self


class Network(Section):
    """A network of a prior; see `dasim.trained.NetworkSpec`."""

    kind: Literal["mlp", "conv"] = "mlp"
    width: PositiveInt = 64
    depth: PositiveInt = 2
    kernel: PositiveInt = 5
    repeats: PositiveInt = 1


class Fit(Section):
    """How to fit; see `dasim.priors.train.FitSettings`."""

    n_steps: PositiveInt = 5000
    batch: PositiveInt = 256
    learning_rate: PositiveFloat = 2e-3
    weight_decay: float = Field(1e-4, ge=0)
    ema: float = Field(0.998, ge=0, lt=1)
    check: PositiveInt = 250
    patience: PositiveInt = 20
    optimizer: Literal["adamw", "muon"] = "adamw"


class Step(Section):
    """A window as a first state and the errors of a learned step; see `dasim.priors.steps`."""

    width: PositiveInt = 64
    depth: PositiveInt = 4
    substeps: int = Field(
        0, ge=0, description="of a flow with a polynomial tendency in place of a perceptron"
    )
    spin_up: int = Field(
        0, ge=0, description="steps from a first state that is drawn to the window's own"
    )
    fit: Fit = Fit()
    fit_error: Fit = Fit()
    fit_first: Fit = Fit()


class Window(Section):
    """A prior of trajectories; see `dasim.trajectories`."""

    steps: int = Field(60, ge=2)
    given: PositiveInt = Field(3, description="first states that the prior may be told")
    channels: tuple[PositiveInt, ...] = Field((32, 64, 64), min_length=1)
    n_steps: PositiveInt = Field(20, description="network calls of a draw")
    sigma_max: PositiveFloat | None = Field(
        None, description="largest noise level of schedule ve; 80 if left out"
    )
    count: PositiveInt = Field(32768, description="simulated windows to train on")
    start: PositiveFloat = Field(1.0, description="factor on the model's random first states")
    spin_up: float | None = Field(None, ge=0, description="time from those to a window's first")
    fit: Fit = Fit()
    step: Step | None = Field(
        None, description="windows are coordinates by a learned step; states if left out"
    )


class Operator(Section):
    """An operator network; see `dasim.functions.OperatorSpec`."""

    modes: tuple[PositiveInt, ...] = Field(min_length=1)
    channels: PositiveInt = 24
    depth: PositiveInt = 3
    located: bool = False


class Functions(Section):
    """The prior of a transition of fields, for every grid; see `dasim.functions`."""

    shape: tuple[PositiveInt, ...] | None = Field(
        None, description="grid of the training; the system's own if left out"
    )
    inner: tuple[PositiveInt, ...] | None = Field(
        None, description="grid of the networks' features; that of the training if left out"
    )
    mean: Operator
    residual: Operator
    whitened: bool = False
    balanced: bool = Field(False, description="the denoiser's network is scaled wave by wave")
    gains: bool = Field(
        False, description="measured after the training: draws have the fields' own spectrum"
    )


# settings of `Train` that have no meaning for a window
OF_TRANSITIONS = {"mean", "residual", "start", "fit_mean", "fit_residual", "perturbation"}
OF_VECTORS = {"mean", "residual", "start"}


class Train(Sourced):
    """`dasim train`: the prior of a transition, or with `window` one of trajectories."""

    name: str = Field(pattern=NAME, max_length=60)
    seed: int = Field(0, ge=0)
    mean: Network = Network()
    residual: Network = Network()
    schedule: Literal["ve", "vp", "sub-vp"] = "ve"
    window: Window | None = None
    functions: Functions | None = None
    start: str | None = Field(None, description="a prior from whose weights the mean starts")
    fit_mean: Fit = Fit()
    fit_residual: Fit = Fit()
    perturbation: float = Field(1.0, ge=0, description="largest noise added to simulated ancestors")

    @validator(mode="after")
    def _of_pairs(self):
        if isinstance(self.data, ObservationFile):
            raise ValueError("data: a prior is trained on a system or on nyc-weather")
        return self

    @validator(mode="after")
    def _of_functions(self):
        if self.functions is None:
            return self
        stray = sorted(OF_VECTORS & self.model_fields_set)
        if stray:
            raise ValueError(f"{stray[0]} belongs to the prior of vectors, not to one of functions")
        if self.system is None or self.window is not None:
            raise ValueError("functions: a prior of functions is trained on a system's transition")
        return self

    @validator(mode="after")
    def _of_one_kind(self):
        if self.window is None:
            return self
        stray = sorted(OF_TRANSITIONS & self.model_fields_set)
        if stray:
            raise ValueError(f"{stray[0]} belongs to the prior of a transition, not to a window")
        if self.system is None:
            raise ValueError("window: a prior of trajectories is trained on a system")
        return self
