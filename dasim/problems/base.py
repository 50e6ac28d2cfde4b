"""What every problem has, and what of a config is the same for all of them."""

import abc
from pathlib import Path

import numpy as np

from dasim import config as schema
from dasim import observe
from dasim.localization import Localization
from dasim.observe import Observation
from dasim.trained import load_prior
from dasim.transitions import AbstractTransition
from dasim.types import DataError, Ensemble, Key, Observations

SHIPPED = Path(__file__).parents[1] / "shipped"


def find_prior(name: str, setting: str = "prior", besides: str = "") -> Path:
    """A prior's file: a path as given, or a shipped prior by name.

    Args:
        setting: what `name` was given as, for the message where there is none of that name.
        besides: what else the setting takes.
    """
    given = Path(name)
    if given.suffix == ".safetensors":
        return given
    path = SHIPPED / f"{name}.safetensors"
    if path.exists():
        return path
    known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors"))) or "none"
    raise DataError(
        f"{setting}: {name!r} is neither {besides}a shipped prior ({known}), "
        "nor the path of a .safetensors file"
    )


def checks(run: schema.Run) -> tuple[observe.AbstractCheck, ...]:
    """The checks of a config against the forecast."""
    asked = run.quality_control or schema.QualityControl()
    kinds = (observe.BackgroundCheck, asked.background), (observe.BuddyCheck, asked.buddy)
    return tuple(check(limit, asked.most) for check, limit in kinds if limit is not None)


def quality(run: schema.Run, observations: Observations) -> np.ndarray:
    """A `dasim.observe.Quality` for each value, by the config's checks of it by itself."""
    asked = run.quality_control or schema.QualityControl()
    return observe.quality(observations, asked.range, asked.blacklist, asked.stuck)


class Problem(abc.ABC):
    """What a run assimilates.

    Attributes:
        kind: "twin" or "real".
        observation: operator and errors.
        observations: all cycles; its mask is replaced by each fold's.
        masks: what each fold assimilates, `(fold, cycle, obs)`.
        folds: a name for each fold.
        segment: cycles after which the ensemble is drawn anew.
        scored: cycles that count, `(cycle,)`.
        error_estimation: what every method is to learn about the observations' errors.
    """

    kind: str
    observation: Observation
    observations: Observations
    masks: np.ndarray
    folds: tuple[str, ...]
    segment: int
    scored: np.ndarray
    error_estimation: schema.ErrorEstimation | None = None

    @property
    def n_cycles(self) -> int:
        return len(self.scored)

    @abc.abstractmethod
    def ensemble(self, members: int, key: Key) -> Ensemble:
        """Members from the climate."""

    @property
    @abc.abstractmethod
    def climate_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean `(n,)` and covariance `(n, n)` of the climate."""

    @property
    def initial_moments(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and covariance of the first state, where they are known exactly."""
        return None

    @abc.abstractmethod
    def model(self, name: str) -> AbstractTransition:
        """The transition "model" or "linear", whichever the problem has."""

    @abc.abstractmethod
    def localization(self, radius: float) -> Localization:
        """Tapers of half-width `radius` on the problem's coordinates."""

    def transition(self, name: str) -> AbstractTransition:
        """A transition by its name in a config.

        Raises:
            DataError: an unknown name, a broken file, or a prior of another system.
        """
        if name in ("model", "linear"):
            return self.model(name)
        transition, _ = load_prior(
            find_prior(name, "transition", "'model' nor 'linear', nor "), self.shape, self.interval
        )
        return transition

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of a state."""

    @property
    @abc.abstractmethod
    def interval(self) -> float:
        """Time between cycles."""
