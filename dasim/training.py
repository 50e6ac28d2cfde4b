"""The training of a prior, as its config says."""

from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax

from dasim import config as schema
from dasim.functions import (
    FunctionSpec,
    OperatorSpec,
    save_function_prior,
    train_function_prior,
)
from dasim.pairs import Pairs, described, field_pairs, simulated_pairs, weather_pairs
from dasim.priors.sampler import DEFAULT_STEPS
from dasim.priors.store import GO_ON, writing
from dasim.priors.train import FitSettings
from dasim.problems import find_prior, system_transition
from dasim.trained import NetworkSpec, PriorSpec, load_prior, save_prior, train_transition
from dasim.trajectories import (
    StepSpec,
    TrajectorySpec,
    save_trajectory_prior,
    simulated_windows,
    train_trajectory_prior,
)
from dasim.weather import DAY, YEAR, quantities, variables

# whose variables all have one law
NETWORKS = "mean", "residual"
RINGS = "lorenz96", "kuramoto-sivashinsky", "burgers", "korteweg-de-vries"


def train(
    settings: schema.Train,
    path: Path,
    checkpoint: Path | None = None,
    report: Callable[[str, int, int, float, float], None] | None = None,
) -> dict:
    """Train a prior as its config says and write it to `path`; its held-out figures."""
    with writing(path, GO_ON):  # before the work, not after it
        path.parent.mkdir(parents=True, exist_ok=True)
        if checkpoint is not None:
            checkpoint.mkdir(parents=True, exist_ok=True)
    key = jax.random.key(settings.seed)
    if settings.window is not None:
        return _train_window(settings, path, checkpoint, report, key)
    if settings.functions is not None:
        return _train_functions(settings, path, checkpoint, report, key)
    networks = {
        "mean": NetworkSpec(**settings.mean.model_dump()),
        "residual": NetworkSpec(**settings.residual.model_dump()),
        "schedule": settings.schedule,
    }
    start = None if settings.start is None else load_prior(find_prior(settings.start, "start"))[0]
    if settings.system is not None:
        transition = system_transition(settings.system)
        alike = settings.system.kind in RINGS
        spec = PriorSpec(transition.shape, transition.interval, alike=alike, **networks)
        pairs: Pairs = simulated_pairs(settings.system, settings.perturbation, key)
    else:
        spec = PriorSpec(
            (len(variables(quantities(settings.data.censored))),), 1.0, (DAY, YEAR), **networks
        )
        pairs = weather_pairs(settings.data, spec.periods)
    trained, figures = train_transition(
        spec,
        pairs.draw,
        pairs.held_out,
        jax.random.fold_in(key, 1),
        FitSettings(**settings.fit_mean.model_dump()),
        FitSettings(**settings.fit_residual.model_dump()),
        checkpoint,
        report,
        start,
    )
    header = _header(settings, pairs.description, figures)
    with writing(path, GO_ON):
        save_prior(path, trained, spec, header)
    return header


def _header(settings: schema.Train, description: str, figures: dict) -> dict:
    strange = None
    if settings.window is not None:
        strange = schema.OF_TRANSITIONS
    elif settings.functions is not None:
        strange = schema.OF_VECTORS
    return {
        "name": settings.name,
        "config": settings.model_dump(mode="json", exclude_none=True, exclude=strange),
        "data": {"description": description},
        "held_out": figures,
    }


def _train_window(settings: schema.Train, path: Path, checkpoint, report, key) -> dict:
    window, transition = settings.window, system_transition(settings.system)
    sizes = {k: getattr(window, k) for k in ("steps", "given", "channels", "n_steps", "sigma_max")}
    if len(transition.shape) != 1:
        raise schema.ConfigError(
            f"window: states of shape {transition.shape}; a prior of trajectories takes vectors"
        )
    (size,) = transition.shape
    fits, step = {"window": FitSettings(**window.fit.model_dump())}, None
    if window.step is not None:
        sizes_of_step = window.step.width, window.step.depth
        how = window.step.substeps, window.step.spin_up
        step = StepSpec(*sizes_of_step, transition.model.angles, *how)
        fits["step"] = FitSettings(**window.step.fit.model_dump())
        fits["error"] = FitSettings(**window.step.fit_error.model_dump())
        fits["first"] = FitSettings(**window.step.fit_first.model_dump())
    earlier = 0 if step is None else step.spin_up
    reach = earlier * transition.interval
    spin_up = transition.model.spin_up if window.spin_up is None else window.spin_up
    if spin_up < reach:
        raise schema.ConfigError(
            f"window: step.spin_up is {earlier} steps, {reach:g} of time, of the {spin_up:g} "
            "before a window; lower it, or raise spin_up"
        )
    spec = TrajectorySpec(
        state=size, interval=transition.interval, schedule=settings.schedule, step=step, **sizes
    )

    try:
        eqx.filter_eval_shape(spec.build, key)
    except ValueError as error:
        raise schema.ConfigError(f"window: {error}") from None

    def windows(key, count):
        arguments = transition.model, spec.interval, earlier + spec.steps, count, key
        return simulated_windows(*arguments, window.start, spin_up - reach)

    prior, figures = train_trajectory_prior(
        spec, windows, window.count, fits, key, checkpoint, report
    )
    what = f"windows of {spec.steps} states of {described(settings.system)}"
    header = _header(settings, what, figures)
    with writing(path, GO_ON):
        save_trajectory_prior(path, prior, spec, header)
    return header


def _train_functions(settings: schema.Train, path: Path, checkpoint, report, key) -> dict:
    asked, transition = settings.functions, system_transition(settings.system)
    grid = transition.model.grid
    if grid is None:
        raise schema.ConfigError(
            f"functions: the states of {settings.system.kind} are no field on a grid"
        )
    shape = asked.shape or grid.shape
    networks = {name: OperatorSpec(**getattr(asked, name).model_dump()) for name in NETWORKS}
    spec = FunctionSpec(
        shape,
        grid.lengths,
        interval=transition.interval,
        inner=asked.inner or shape,
        whitened=asked.whitened,
        balanced=asked.balanced,
        gains=asked.gains,
        schedule=settings.schedule,
        n_steps=DEFAULT_STEPS,
        **networks,
    )
    try:
        eqx.filter_eval_shape(spec.build, key)
        pairs = field_pairs(settings.system, spec.grid, settings.perturbation, key)
    except ValueError as error:
        raise schema.ConfigError(f"functions: {error}") from None
    prior, spec, figures = train_function_prior(
        spec,
        pairs.draw,
        pairs.held_out,
        jax.random.fold_in(key, 1),
        FitSettings(**settings.fit_residual.model_dump()),
        FitSettings(**settings.fit_mean.model_dump()),
        checkpoint,
        report,
    )
    header = _header(settings, pairs.description, figures)
    with writing(path, GO_ON):
        save_function_prior(path, prior, spec, header)
    return header
