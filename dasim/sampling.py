"""Draws of a prior and probabilities of events, as commands ask for them, and their files."""

import json
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from dasim.conditioning import EventProbability, conditional_draws, event_probability
from dasim.events.base import AbstractEvent
from dasim.events.language import parse_event
from dasim.plot_events import draws_figure
from dasim.priors import DiffusionPrior, FieldDenoiser
from dasim.priors import sample as plain_draw
from dasim.priors.store import write_atomically, writing
from dasim.problems import find_prior
from dasim.trained import load_prior
from dasim.transitions import DiffusionTransition
from dasim.types import DasimError, DataError


class Asked(NamedTuple):
    """What a command asks.

    Attributes:
        name: of the prior.
        prior: of a transition or of trajectories.
        cond: what its denoiser takes.
        interval: between the steps of a trajectory; None for a state.
        expression, event: what is to hold; None for anything.
    """

    name: str
    prior: DiffusionPrior | DiffusionTransition
    cond: jax.Array | None
    interval: float | None
    expression: str | None
    event: AbstractEvent | None


def ask(name: str, expression: str | None, given: Path | None) -> Asked:
    """A prior, an event, and the states that are known.

    Raises:
        DasimError: an unknown prior, an expression that is no event, or a file of known states
            of another shape.
    """
    path = find_prior(name, "prior")
    prior, header = load_prior(path)
    field = isinstance(prior, DiffusionPrior) and isinstance(prior.denoiser, FieldDenoiser)
    trajectory = isinstance(prior, DiffusionPrior) and not field
    known = None if given is None else _known(given)
    if field:
        if known is not None:
            raise DasimError(f"{path.stem}: is a prior without an ancestor: leave --given out")
        cond, interval = None, None
    elif trajectory:
        wanted = prior.denoiser.given, prior.shape[1]
        if known is not None and known.shape != wanted:
            raise DataError(
                f"{given}: has shape {known.shape}, expected the window's first {wanted[0]} states "
                f"of {wanted[1]} variables"
            )
        cond, interval = known, header["spec"]["interval"]
    else:
        if known is None:
            raise DasimError(
                f"{path.stem}: is the prior of a transition: give the state that it starts from "
                "with --given"
            )
        if known.size != np.prod(prior.shape):
            raise DataError(f"{given}: has {known.size} numbers, expected {prior.shape}")
        cond, interval = prior.condition(known.reshape(prior.shape), jnp.zeros(())), None
    event = None if expression is None else parse_event(expression, prior.shape, trajectory)
    return Asked(path.stem, prior, cond, interval, expression, event)


def _known(path: Path) -> jax.Array:
    try:
        values = np.loadtxt(path, delimiter="," if "," in path.read_text() else None, ndmin=2)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: not a table of numbers, one state a line: {error}") from None
    if not np.isfinite(values).all():
        line = int(np.argwhere(~np.isfinite(values))[0, 0]) + 1
        raise DataError(f"{path}: line {line} of the states is not finite")
    return jnp.asarray(values, jnp.float32)


def sample(asked: Asked, method: str, n: int, seed: int, levels: int, folder: Path) -> list[Path]:
    """Draws, written as `samples.nc` and `samples.png`; the files.

    Raises:
        DasimError: a folder that cannot be written, an unknown method, or an event that no draw
            meets.
    """
    prior, key = asked.prior, jax.random.key(seed)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if asked.event is None:
        x = _plain(prior, asked.cond, jax.random.split(key, n))
    else:
        try:
            x = conditional_draws(prior, asked.event, key, n, asked.cond, levels, method=method)
        except (ValueError, TypeError) as error:
            raise DasimError(f"event {asked.expression!r}: {error}") from None
    return _written(asked, np.asarray(x), None, {"seed": seed}, folder / "samples.nc")


@eqx.filter_jit
def _plain(prior, cond, keys):
    def one(key):
        x = plain_draw(prior.denoiser, prior.schedule, cond, key, prior.n_steps)
        return x.reshape(prior.shape)

    return jax.lax.map(one, keys, batch_size=128)


def probability(
    asked: Asked, method: str, n: int, first: int | None, seed: int, levels: int, folder: Path
) -> tuple[EventProbability, list[Path]]:
    """The estimate, written as `probability.json`, with its draws and a figure; and the files.

    Raises:
        DasimError: an unknown method, an unreachable event, a folder that cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    key = jax.random.key(seed)
    try:
        found = event_probability(
            asked.prior, asked.event, key, method, asked.cond, n=n, levels=levels, first=first
        )
    except (ValueError, TypeError) as error:
        raise DasimError(str(error)) from None
    numbers = {k: getattr(found, k) for k in ("method", "probability", "low", "high", "calls")}
    path = folder / "probability.json"
    with writing(path):
        content = {"prior": asked.name, "event": asked.expression, "seed": seed} | numbers
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    weights = np.exp(np.asarray(found.log_weights, float))
    files = []
    if len(weights):
        draws = np.asarray(found.draws)
        files = _written(asked, draws, weights, numbers, folder / "draws.nc")
    return found, [path, *files]


def _written(asked: Asked, x: np.ndarray, weights, attributes: dict, path: Path) -> list[Path]:
    """Draws as NetCDF by CF, and their figure."""
    space = [f"x{i}" for i in range(x.ndim - 2)] or ["variable"]
    if asked.interval is None:
        names = ["realization", "variable"] if x.ndim == 2 else ["realization", "y", "x"][: x.ndim]
    else:
        names = ["realization", "time", *space]
    data = xr.Dataset(
        {"state": (names, x.astype(np.float32), {"long_name": "state", "units": "1"})},
        {"realization": ("realization", np.arange(len(x)), {"standard_name": "realization"})},
        {
            "Conventions": "CF-1.11",
            "title": f"dasim: draws of {asked.name}",
            "prior": asked.name,
            "event": asked.expression or "none",
            **attributes,
        },
    )
    if asked.interval is not None:
        time = np.arange(x.shape[1]) * asked.interval
        data = data.assign_coords(
            time=("time", time, {"long_name": "model time since the window's first state"})
        )
    if weights is not None:
        told = {"long_name": "weight of the draw", "units": "1"}
        data["weight"] = ("realization", weights, told)
    figure = path.with_suffix(".png")
    with writing(path):
        data.to_netcdf(path)
    with writing(figure):
        title = asked.name if asked.expression is None else f"{asked.name} given {asked.expression}"
        write_atomically(figure, draws_figure(x, weights, asked.interval, title))
    return [path, figure]
