"""Twin experiments: a simulated truth observed with simulated errors."""

from functools import cache, cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dasim import config as schema
from dasim import models, observe
from dasim.localization import Localization
from dasim.observe import AbstractError, Gaussian, Observation, Select, check_observations
from dasim.operators import FieldValues
from dasim.problems.base import Problem, checks, quality
from dasim.transitions import ModelTransition, simulate
from dasim.types import Ensemble, Key

FUNCTIONS = {"identity": None, "arctan": jnp.arctan, "abs": jnp.abs, "square": jnp.square}
MODELS = {
    "lorenz63": models.Lorenz63,
    "lorenz84": models.Lorenz84,
    "lorenz96": models.Lorenz96,
    "lorenz96-two-scale": models.TwoScaleLorenz96,
    "kuramoto-sivashinsky": models.KuramotoSivashinsky,
    "burgers": models.Burgers,
    "korteweg-de-vries": models.KortewegDeVries,
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


@cache
def observed_function(name: str, shift: float, scale: float):
    """The function of a config's `observe`, the same object for the same settings."""
    function = FUNCTIONS[name]
    if (shift, scale) == (0.0, 1.0):
        return function
    return lambda v: function((v - shift) / scale)


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


class Twin(Problem):
    """A simulated truth observed with simulated errors."""

    kind = "twin"
    folds = ("all",)

    def __init__(self, run: schema.Run, key: Key):
        self.dynamics = system_transition(run.system)
        size, seen = int(np.prod(self.dynamics.shape)), run.observe
        if sum(w is not None for w in (seen.every, seen.sites, seen.positions)) != 1:
            raise schema.ConfigError("observe: give exactly one of every, sites and positions")
        if (seen.readings, seen.wind) != ("events", "components"):
            raise schema.ConfigError("observe: readings and wind belong to real sensors")
        if isinstance(seen.std, dict) or seen.withhold is not None:
            raise schema.ConfigError(
                "observe: std by quantity and withhold belong to real sensors; "
                "a twin experiment takes one std"
            )
        self.sites, self.positions = None, None
        operator, self.obs_coords = self._sensors(seen, size)
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
        check_observations(self.observations, len(self.obs_coords), "simulated observations")
        kept = quality(run, self.observations) == observe.Quality.PASSED
        self.observations = eqx.tree_at(lambda o: o.mask, self.observations, jnp.asarray(kept))
        self.masks = kept[None]
        self.segment = run.cycle.n_cycles
        self.scored = np.arange(run.cycle.n_cycles) >= run.cycle.burn_in

    def _sensors(self, seen: schema.Observe, size: int):
        """The operator, and where its sensors are in grid points."""
        model = self.dynamics.model
        function = observed_function(seen.function, seen.shift, seen.scale)
        if seen.positions is None:
            sites = self.sites = seen.sites or list(range(0, size, seen.every))
            if max(sites) >= size:
                raise schema.ConfigError(
                    f"observe.sites: {max(sites)} is outside the state's {size} variables (0 to "
                    f"{size - 1})"
                )
            return Select(sites, function), model.coords[np.asarray(sites)]
        if model.grid is None:
            raise schema.ConfigError(
                "observe.positions: belong to a system that is a field on a grid; give sites"
            )
        lengths = [len(p) if isinstance(p, list) else 1 for p in seen.positions]
        if set(lengths) != {len(model.grid.shape)}:
            raise schema.ConfigError(
                f"observe.positions: give {len(model.grid.shape)} coordinates for each sensor"
            )
        positions = np.asarray(seen.positions, float).reshape(len(lengths), -1)
        self.positions = positions
        points = positions * np.asarray(model.grid.shape) / np.asarray(model.grid.lengths)
        values = FieldValues(model.grid, positions)
        return (
            values if seen.function == "identity" else values.then(lambda v, t: function(v))
        ), points

    def _error(self, run: schema.Run, operator) -> AbstractError:
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
        return Localization(radius, model.coords, self.obs_coords, model.period)
