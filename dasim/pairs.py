"""Training pairs of a state and the next one, from a simulation or from weather reports."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from dasim import config as schema
from dasim import weather
from dasim.fields import Grid, Tabulated, noise_process, resample
from dasim.functions import measured_law
from dasim.problems import climate, system_transition
from dasim.transitions import phases
from dasim.types import Key


@dataclass(frozen=True)
class Pairs:
    """Training pairs of (condition, next state).

    Attributes:
        draw: function of (key, n) to a batch, jit-able.
        held_out: pairs kept apart.
        description: what they are, for the prior's header.
    """

    draw: object
    held_out: tuple
    description: str


def simulated_pairs(system: schema.System, perturbation: float, key: Key) -> Pairs:
    """Ancestors from the climate with noise of a random level added, and their next states.

    The noise, up to `perturbation` standard deviations of the state's units, shows the prior
    states off the attractor, where an analysis may put an ensemble.
    """
    transition = system_transition(system)
    bank = _bank(transition)

    def draw(states, key, n):
        noise = lambda key, x: jax.random.normal(key, x.shape)
        x, after = _perturbed(transition, states, noise, perturbation, key, n)
        return x.reshape(n, -1), after.reshape(n, -1)

    train_key, held_key = jax.random.split(key)
    return Pairs(
        jax.tree_util.Partial(draw, bank(train_key)),
        draw(bank(held_key), jax.random.fold_in(held_key, 1), 4096),
        f"{described(system)}, ancestors perturbed by up to {perturbation}",
    )


def _bank(transition):
    """A function of a key to states of the climate, `(51200, *state)`."""

    @jax.jit
    def bank(key):
        start = climate(transition, 256, key)
        sample = jax.vmap(transition.sample, (0, None, 0))

        def step(x, k):
            x = sample(x, 0.0, jax.random.split(jax.random.fold_in(key, k), len(x)))
            return x, x

        return jax.lax.scan(step, start, jnp.arange(200))[1].reshape(-1, *transition.shape)

    return bank


def _perturbed(transition, states, noise, perturbation: float, key: Key, n: int):
    """`n` of the states, with `noise(key, x)` of a random level added, and their next states."""
    pick, level_key, noise_key, step_key = jax.random.split(key, 4)
    x = states[jax.random.randint(pick, (n,), 0, len(states))]
    one_each = (n,) + (1,) * (x.ndim - 1)
    level = perturbation * jax.random.uniform(level_key, one_each) ** 2
    x = x + level * noise(noise_key, x)
    return x, jax.vmap(transition.sample, (0, None, 0))(x, 0.0, jax.random.split(step_key, n))


def field_pairs(system: schema.System, grid: Grid, perturbation: float, key: Key) -> Pairs:
    """Pairs of fields, simulated on the system's own grid and moved to `grid`.

    Ancestors are perturbed by random fields of the climate's own spectrum, of up to
    `perturbation` times its standard deviation.

    Raises:
        ValueError: a grid that is finer than the system's.
    """
    transition = system_transition(system)
    own = transition.model.grid
    if any(n > m for n, m in zip(grid.shape, own.shape, strict=True)):
        raise ValueError(
            f"shape is {grid.shape}, expected no more points than the system's {own.shape}"
        )
    train_key, held_key = jax.random.split(key)
    bank = _bank(transition)
    states, held = bank(train_key), bank(held_key)
    anomaly = states - states.mean()
    law = measured_law(anomaly[:4096], own)
    law.pop("kind")
    noise = noise_process(Tabulated(**law), own, anomaly.std())

    def draw(noise, states, key, n):
        field = lambda key, x: jax.vmap(noise.sample)(jax.random.split(key, len(x)))
        x, after = _perturbed(transition, states, field, perturbation, key, n)
        moved = jax.vmap(lambda x: resample(x, own, grid).reshape(-1))
        return moved(x), moved(after)

    held_out = draw(noise, held, jax.random.fold_in(held_key, 1), 4096)
    return Pairs(
        jax.tree_util.Partial(draw, noise, states),
        held_out,
        f"{described(system)}, on a grid of {grid.shape}; ancestors perturbed by fields of the "
        f"climate's spectrum, up to {perturbation} of its standard deviation",
    )


def described(system: schema.System) -> str:
    """A system and its settings, for a prior's header."""
    settings = system.model_dump(exclude_none=True, exclude={"kind"}).items()
    return f"simulated {system.kind} ({', '.join(f'{k} {v}' for k, v in settings)})"


def weather_pairs(data: schema.NYCWeather, periods: tuple[float, ...]) -> Pairs:
    """Consecutive whole reports of the training blocks; the last fifth of each is held out."""
    reports = weather.load(data.path, data.train_days, data.of_days, data.censored)
    copies, n_hours, n = reports.completed.shape
    index = (reports.pairs() + n_hours * np.arange(copies)[:, None]).ravel()
    day = reports.hours[index % n_hours] // weather.DAY % data.of_days
    last = day >= 0.8 * data.train_days
    states = jnp.asarray(reports.states.reshape(-1, n))
    hours = jnp.asarray(np.tile(reports.hours, copies))

    cond = jnp.concatenate([states, phases(hours, periods)], 1)
    training, held = jnp.asarray(index[~last]), jnp.asarray(index[last])

    def draw(cond, states, training, key, n):
        i = training[jax.random.randint(key, (n,), 0, len(training))]
        return cond[i], states[i + 1]

    return Pairs(
        jax.tree_util.Partial(draw, cond, states, training),
        (cond[held], states[held + 1]),
        f"hourly weather of 2013 at {', '.join(weather.STATIONS)}: anomalies of the training "
        f"blocks ({data.train_days} of every {data.of_days} days)"
        + (f", {copies} draws of what stands behind censored reports" if data.censored else ""),
    )
