"""Problems: what a run assimilates, made from its config.

A twin experiment simulates a truth and its observations; real sensors bring theirs, with some
withheld in each fold.
"""

import abc
from functools import cache, cached_property
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dasim import config as schema
from dasim import models, observe, weather
from dasim.localization import Localization
from dasim.observe import AbstractError, Gaussian, Observation, Select, check_observations
from dasim.trained import load_prior
from dasim.transitions import AbstractTransition, ModelTransition, simulate
from dasim.types import DataError, Ensemble, Key, Observations

FUNCTIONS = {"identity": None, "arctan": jnp.arctan, "abs": jnp.abs, "square": jnp.square}
MODELS = {
    "lorenz63": models.Lorenz63,
    "lorenz84": models.Lorenz84,
    "lorenz96": models.Lorenz96,
    "lorenz96-two-scale": models.TwoScaleLorenz96,
    "kuramoto-sivashinsky": models.KuramotoSivashinsky,
    "kolmogorov": models.KolmogorovFlow,
    "fitzhugh-nagumo": models.FitzHughNagumo,
    "double-pendulum": models.DoublePendulum,
}
ERRORS = {
    "censored": observe.Censored,
    "quantised": observe.Quantised,
    "threshold": observe.Threshold,
    "student-t": observe.StudentT,
    "huber": observe.Huber,
    "contaminated": observe.Contaminated,
}
CLIMATE = 2048  # states from which the climate of what is observed is known
SHIPPED = Path(__file__).parent / "shipped"


@cache
def observed_function(name: str, shift: float, scale: float):
    """The function of a config's `observe`, the same object for the same settings."""
    function = FUNCTIONS[name]
    if (shift, scale) == (0.0, 1.0):
        return function
    return lambda v: function((v - shift) / scale)


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


def system_transition(system: schema.System) -> ModelTransition:
    """The numerical model of a config's system, over its interval."""
    n_steps = round(system.interval / system.dt)
    if n_steps < 1 or abs(n_steps * system.dt - system.interval) > 1e-6 * system.interval:
        raise schema.ConfigError(
            f"system.interval: {system.interval} is not a whole number of steps of {system.dt}"
        )
    parameters = system.model_dump(exclude={"kind", "interval", "noise", "shock"})
    try:
        model = MODELS[system.kind](**parameters)
    except ValueError as error:
        raise schema.ConfigError(f"system: {error}") from None
    return ModelTransition(model, n_steps, system.noise or None)


def climate(transition: ModelTransition, members: int, key: Key) -> Ensemble:
    """States drawn from the system's climate: independent starts, run for long."""
    model = transition.model
    spin_up = ModelTransition(model, max(1, round(model.spin_up / model.dt)))
    start = jax.vmap(model.start)(jax.random.split(key, members))
    return _propagated(spin_up, start)


@eqx.filter_jit
def _propagated(transition: ModelTransition, states: Ensemble) -> Ensemble:
    return jax.vmap(transition.mean, (0, None))(states, jnp.zeros(()))


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
    """

    kind: str
    observation: Observation
    observations: Observations
    masks: np.ndarray
    folds: tuple[str, ...]
    segment: int
    scored: np.ndarray

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


class Twin(Problem):
    """A simulated truth observed with simulated errors."""

    kind = "twin"
    folds = ("all",)

    def __init__(self, run: schema.Run, key: Key):
        self.dynamics = system_transition(run.system)
        size, seen = int(np.prod(self.dynamics.shape)), run.observe
        if (seen.every is None) == (seen.sites is None):
            raise schema.ConfigError("observe: give exactly one of every and sites")
        if isinstance(seen.std, dict) or seen.withhold is not None:
            raise schema.ConfigError(
                "observe: std by quantity and withhold belong to real sensors; "
                "a twin experiment takes one std"
            )
        self.sites = seen.sites or list(range(0, size, seen.every))
        if max(self.sites) >= size:
            raise schema.ConfigError(
                f"observe.sites: {max(self.sites)} is outside the state's {size} variables (0 to "
                f"{size - 1})"
            )
        function = observed_function(seen.function, seen.shift, seen.scale)
        operator = Select(self.sites, function)
        self.observation = Observation(operator, self._error(run, operator), checks(run))
        truth_key, start_key = jax.random.split(key)
        self.start = climate(self.dynamics, 1, start_key)[0]
        self.initial_std = run.cycle.initial_std
        dynamics, shock = self.dynamics, run.system.shock
        if shock is not None:
            shocked = models.Shocked(dynamics.model, shock.size, shock.probability)
            dynamics = ModelTransition(shocked, dynamics.n_steps, dynamics.noise)
        truth, self.observations = simulate(
            dynamics, self.observation, self.start, run.cycle.n_cycles, truth_key
        )
        self.truth = np.asarray(truth)
        check_observations(self.observations, len(self.sites), "simulated observations")
        kept = quality(run, self.observations) == observe.Quality.PASSED
        self.observations = eqx.tree_at(lambda o: o.mask, self.observations, jnp.asarray(kept))
        self.masks = kept[None]
        self.segment = run.cycle.n_cycles
        self.scored = np.arange(run.cycle.n_cycles) >= run.cycle.burn_in

    def _error(self, run: schema.Run, operator: Select) -> AbstractError:
        """The error model of a config."""
        seen = run.observe
        if seen.error is None:
            return Gaussian(std=seen.std)
        options = seen.error.model_dump(exclude={"kind", "stand_in"})
        if seen.error.kind in ("student-t", "huber", "contaminated"):
            return ERRORS[seen.error.kind](seen.std, **options)
        if seen.error.stand_in == "climate":
            states = climate(self.dynamics, CLIMATE, jax.random.key(1))
            exact = np.asarray(jax.vmap(lambda x: operator(x, 0.0))(states))
            options["climate"] = exact.mean(0), exact.std(0)
        return ERRORS[seen.error.kind](std=seen.std, **options)

    @property
    def shape(self):
        return self.dynamics.shape

    @property
    def interval(self):
        return self.dynamics.interval

    def ensemble(self, members, key):
        if self.initial_std is None:
            return climate(self.dynamics, members, key)
        return self.start + self.initial_std * jax.random.normal(key, (members, *self.shape))

    @cached_property
    def climate_moments(self):
        key = jax.random.key(1)  # the climate does not depend on the run's seed
        states = climate(self.dynamics, 64, key)
        sample = jax.vmap(self.dynamics.sample, (0, None, 0))

        @jax.jit
        def free_run(states):
            def step(states, k):
                keys = jax.random.split(jax.random.fold_in(key, k), len(states))
                states = sample(states, k * self.interval, keys)
                return states, states

            return jax.lax.scan(step, states, jnp.arange(500))[1]

        flat = np.asarray(free_run(states), float).reshape(500 * 64, -1)
        return flat.mean(0), np.cov(flat.T)

    def model(self, name):
        if name == "linear":
            raise schema.ConfigError(
                "transition: 'linear' is fitted to real sensors; a twin experiment has 'model'"
            )
        return self.dynamics

    def localization(self, radius):
        model = self.dynamics.model
        return Localization(radius, model.coords, model.coords[self.sites], model.period)


class WeatherStations(Problem):
    """The hourly reports of three airports, one of them withheld in each fold."""

    kind = "real"

    def __init__(self, run: schema.Run, key: Key):
        data, seen = run.data, run.observe
        if seen.every is not None or seen.sites is not None:
            raise schema.ConfigError("observe: every and sites belong to a twin experiment")
        if seen.error is not None:
            raise schema.ConfigError("observe.error belongs to a twin experiment")
        if run.cycle.initial_std is not None:
            raise schema.ConfigError("cycle.initial_std belongs to a twin experiment")
        self.reports = weather.load(data.path, data.train_days, data.of_days)
        self.folds = tuple(seen.withhold or weather.STATIONS)
        for station in self.folds:
            if station not in weather.STATIONS:
                raise schema.ConfigError(
                    f"observe.withhold: there is no station {station!r}; "
                    f"the data have {', '.join(weather.STATIONS)}"
                )
        self.std = self._error(seen.std)
        self.index, self.scored, self.segment = self._windows(data.lead_in_hours)
        if run.cycle.n_cycles is not None:
            kept = max(1, run.cycle.n_cycles // self.segment)
            self.index, self.scored = (a[: kept * self.segment] for a in (self.index, self.scored))
            if run.cycle.n_cycles < self.segment:
                self.index, self.scored = (
                    a[: run.cycle.n_cycles] for a in (self.index, self.scored)
                )
                self.segment = run.cycle.n_cycles
            if not self.scored.any():
                raise schema.ConfigError(
                    f"cycle.n_cycles: {run.cycle.n_cycles} cycles are all of the lead-in, and none "
                    f"counts: give more than data.lead_in_hours, {data.lead_in_hours}"
                )
        values = self.reports.anomalies[self.index]
        present = np.isfinite(values)
        self.observation = Observation(
            Select(range(len(weather.VARIABLES))),
            Gaussian(std=self.std / self.reports.scale),
            checks(run),
        )
        self.observations = Observations(
            jnp.asarray(self.reports.hours[self.index]),
            jnp.asarray(np.where(present, values, 0.0)),
            jnp.asarray(present),
        )
        check_observations(self.observations, len(weather.VARIABLES), "weather reports")
        station = np.array([v.split(".")[0] for v in weather.VARIABLES])
        if run.quality_control is not None and run.quality_control.range is not None:
            raise schema.ConfigError(
                "quality_control.range belongs to a twin experiment: the quantities of real "
                "sensors have units of their own"
            )
        own = eqx.tree_at(
            lambda o: o.value, self.observations, jnp.asarray(self.reports.values[self.index])
        )
        self.codes = quality(run, own)
        good = self.codes == observe.Quality.PASSED
        self.masks = np.stack([good & (station != s) for s in self.folds])
        self.station = station

    @staticmethod
    def _error(std) -> np.ndarray:
        if not isinstance(std, dict):
            raise schema.ConfigError(
                "observe.std: real sensors need one for each quantity: "
                f"{', '.join(weather.QUANTITIES)}"
            )
        unknown = sorted(set(std) - set(weather.QUANTITIES))
        missing = sorted(set(weather.QUANTITIES) - set(std))
        if unknown or missing:
            what = f"unknown variable {unknown[0]!r}" if unknown else f"{missing[0]} is missing"
            raise schema.ConfigError(
                f"observe.std: {what}; the data have {', '.join(weather.QUANTITIES)}"
            )
        return np.array([std[q] for _ in weather.STATIONS for q in weather.QUANTITIES])

    def _windows(self, lead_in: int):
        test = ~self.reports.training
        index, scored, length = [], [], None
        for block in np.unique(self.reports.block[test]):
            hours = np.flatnonzero(test & (self.reports.block == block))
            window = np.arange(hours[0] - lead_in, hours[-1] + 1)
            length = len(window) if length is None else length
            if window[0] < 0 or len(window) != length:
                continue  # a block that the year's end cuts short
            index.append(window)
            scored.append(window >= hours[0])
        if not index:
            raise DataError("the reports hold no whole test block: lower data.of_days")
        return np.concatenate(index), np.concatenate(scored), length

    @property
    def shape(self):
        return (len(weather.VARIABLES),)

    @property
    def interval(self):
        return 1.0

    @cached_property
    def _training_states(self) -> np.ndarray:
        a = self.reports.anomalies[self.reports.training]
        return a[np.isfinite(a).all(1)]

    def ensemble(self, members, key):
        picks = jax.random.randint(key, (members,), 0, len(self._training_states))
        return jnp.asarray(self._training_states)[picks]

    @cached_property
    def climate_moments(self):
        states = np.asarray(self._training_states, float)
        return states.mean(0), np.cov(states.T)

    def model(self, name):
        """The least-squares linear-Gaussian transition of the training pairs."""
        pairs, anomalies = self.reports.pairs(), self.reports.anomalies
        now, after = anomalies[pairs], anomalies[pairs + 1]
        regressors = np.concatenate([now, np.ones((len(now), 1))], 1)
        weights, *_ = np.linalg.lstsq(regressors, after, rcond=None)
        residual = after - regressors @ weights
        cov = residual.T @ residual / (len(residual) - regressors.shape[1])
        return ModelTransition(models.LinearGaussian(weights[:-1].T, cov, weights[-1]), 1)

    def localization(self, radius):
        raise schema.ConfigError(
            "localization_radius: three airports within 30 km have nothing to localise; "
            "leave it out"
        )

    @cached_property
    def references(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and std, `(time, 15)` each, of forecasts that use no other station."""
        reports = self.reports
        spread = np.broadcast_to(reports.scale, reports.values.shape)
        filled = np.empty_like(reports.values)
        filled[0] = reports.cycle[0]
        last = np.full(reports.values.shape[1], np.nan)
        for i, value in enumerate(reports.values):
            filled[i] = np.where(np.isnan(last), reports.cycle[i], last)
            last = np.where(np.isnan(value), last, value)
        error = np.nanstd((reports.values - filled)[reports.training], 0)
        persistence = filled, np.broadcast_to(error, filled.shape)
        both = {"climatology": (reports.cycle, spread), "persistence": persistence}
        return {name: (m[self.index], s[self.index]) for name, (m, s) in both.items()}


def make_problem(run: schema.Run, key: Key) -> Problem:
    """The problem that a config describes."""
    return Twin(run, key) if run.system is not None else WeatherStations(run, key)
