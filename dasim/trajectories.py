"""Trained priors of trajectories: their data, specification, training and files."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim.models.base import AbstractModel
from dasim.priors.networks import MLP
from dasim.priors.prior import DiffusionPrior
from dasim.priors.schedules import AbstractSchedule, SubVPSchedule, VESchedule, VPSchedule
from dasim.priors.steps import STAGES, LearnedStep, fitted_flow, pair_drawer, standardized
from dasim.priors.store import load_built, save_arrays
from dasim.priors.train import FitResult, FitSettings, fit
from dasim.priors.unet import LEVELS, UNet
from dasim.priors.window_training import Windows, drawer, window_loss
from dasim.priors.windows import StateDenoiser, WindowDenoiser
from dasim.transitions import ModelTransition
from dasim.types import Key

FORMAT = "dasim-trajectory-prior-1"
HELD_OUT = 2048
PAIRS = 16384  # held out, for a step
BATCH = 1024  # windows encoded at a time
OTHERS = 2048  # windows that may be behind a noisy one, at each step of the training
SCHEDULES: dict[str, AbstractSchedule] = {
    # a window on an attractor is thin: finer levels than those of a transition, and coarser
    # ones, as its variables hang together over many steps
    "ve": VESchedule(sigma_min=0.005, sigma_max=80.0, rho=7.0),
    "vp": VPSchedule(t_min=1e-4),
    "sub-vp": SubVPSchedule(t_min=5e-3),
}


@dataclass(frozen=True)
class StepSpec:
    """A window as a first state and the errors of a learned step.

    Attributes:
        width, depth: of the perceptrons, of the step and of the first state's denoiser.
        angles: variables that are angles.
        substeps: of a polynomial flow in place of the step's perceptron; none where zero.
        spin_up: steps from the first state that is drawn to the window's own.
    """

    width: int = 64
    depth: int = 4
    angles: tuple[int, ...] = ()
    substeps: int = 0
    spin_up: int = 0


@dataclass(frozen=True)
class TrajectorySpec:
    """All that is needed to make a trajectory prior's arrays anew before they are filled.

    Attributes:
        steps: states of a window.
        state: variables of a state.
        interval: time between two states.
        given: first states that the prior may be told.
        channels: of the U-Net, at each resolution.
        schedule: "ve", "vp" or "sub-vp".
        n_steps: network calls of a draw.
        sigma_max: largest noise level of "ve", over the coordinates' standard deviations, where it
            is not that of `SCHEDULES`. States hang together over many steps and need a large one;
            a first state and errors do not.
        step: by which windows are coordinates; None for the states themselves.
    """

    steps: int
    state: int
    interval: float
    given: int = 3
    channels: tuple[int, ...] = (32, 64, 64)
    schedule: Literal["ve", "vp", "sub-vp"] = "ve"
    n_steps: int = 20
    sigma_max: float | None = None
    step: StepSpec | None = None

    def build(self, key: Key) -> DiffusionPrior:
        """An untrained prior.

        Raises:
            ValueError: the steps cannot be halved as often as the channels ask, fewer steps than
                first states, or a largest noise level below the least or of another schedule
                than "ve".
        """
        if not 0 < self.given < self.steps:
            raise ValueError(f"given is {self.given}, expected 1 to {self.steps - 1} states")
        d, coordinates = self.state, {}
        if self.step is not None:
            own, first = jax.random.split(jax.random.fold_in(key, 1))
            size = self.step.width, self.step.depth
            coordinates = {
                "step": LearnedStep(d, self.step.angles, *size, own, self.step.substeps),
                "first": StateDenoiser(MLP(1, d, 2 * LEVELS, *size, first)),
                "spin_up": self.step.spin_up,
            }
        network = UNet(self.steps, 2 * d + 1, d, tuple(self.channels), key)
        denoiser = WindowDenoiser(
            jnp.zeros(d), jnp.ones(d), network, self.steps, self.given, **coordinates
        )
        schedule = SCHEDULES[self.schedule]
        if self.sigma_max is not None:
            if not isinstance(schedule, VESchedule):
                raise ValueError(
                    f"sigma_max is a noise level of schedule ve, not of {self.schedule}; leave it "
                    "out, or use ve"
                )
            schedule = replace(schedule, sigma_max=self.sigma_max)
        return DiffusionPrior(denoiser, (self.steps, d), schedule, self.n_steps)


def simulated_windows(
    model: AbstractModel,
    interval: float,
    steps: int,
    count: int,
    key: Key,
    start: float = 1.0,
    spin_up: float | None = None,
) -> Windows:
    """Windows of as many independent trajectories, `(count, steps, *state)`.

    Args:
        start: factor on the model's random first states.
        spin_up: time from those to the window's first state; the model's own where None.
    """
    spin_up = model.spin_up if spin_up is None else spin_up
    before, between = (round(time / model.dt) for time in (spin_up, interval))
    step = jax.vmap(ModelTransition(model, between).mean, (0, None))

    @jax.jit
    def run(key):
        x = start * jax.vmap(model.start)(jax.random.split(key, count))
        if before:
            x = jax.vmap(ModelTransition(model, before).mean, (0, None))(x, jnp.zeros(()))
        path = jax.lax.scan(lambda x, _: (step(x, jnp.zeros(())), x), x, None, length=steps)[1]
        return jnp.moveaxis(path, 0, 1)

    return run(key)


Report = Callable[[str, int, int, float, float], None]


def train_trajectory_prior(
    spec: TrajectorySpec,
    windows: Callable[[Key, int], Windows],
    bank: int,
    settings: dict[str, FitSettings],
    key: Key,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> tuple[DiffusionPrior, dict]:
    """Fit the step, if there is one, and the denoiser of a window.

    Args:
        windows: function of (key, count) to windows; those of a prior with a spin-up begin with
            as many states more.
        bank: how many of them the training picks from.
        settings: of the stages "window", and with a step "step", "error" and "first".
        checkpoint: folder for the state of an interrupted training.
        report: called with (stage, step, steps, training loss, held-out loss).

    Returns:
        The prior, and the held-out figures for its header.
    """
    build_key, bank_key, held_key, tell_key, fit_key = jax.random.split(key, 5)
    prior = spec.build(build_key)
    training, held_out = windows(bank_key, bank), windows(held_key, HELD_OUT)
    earliest = training[:, :1], held_out[:, :1]
    training, held_out = (x[:, prior.denoiser.spin_up :] for x in (training, held_out))
    denoiser = eqx.tree_at(
        lambda d: (d.center, d.scale),
        prior.denoiser,
        (training.mean((0, 1)), training.std((0, 1))),
    )
    figures = {"windows": bank}
    loss = lambda d, batch, k: window_loss(d, prior.schedule, batch, k)

    def fitted(stage: str, *arguments) -> FitResult:
        n = settings[stage].n_steps
        found = fit(
            *arguments,
            None if checkpoint is None else Path(checkpoint) / f"{stage}.safetensors",
            None if report is None else lambda i, a, b: report(stage, i, n, a, b),
        )
        figures[f"{stage}_loss"] = found.loss
        return found

    if spec.step is not None:
        step = standardized(denoiser.step, training)
        stages = list(enumerate(STAGES, 4))
        if spec.step.substeps:
            step = fitted_flow(step, training[:HELD_OUT], jax.random.fold_in(fit_key, 3))
            stages = stages[1:]
        for number, (stage, stage_loss, part) in stages:
            pairs = pair_drawer(training), pair_drawer(held_out)(tell_key, PAIRS)
            own = jax.random.fold_in(fit_key, number)
            step = fitted(stage, step, stage_loss, *pairs, own, settings[stage], part).model
        starts = (jax.vmap(step.encode)(x)[:, 0] for x in earliest)
        starts, held_starts = (drawer(x[:, None], x, 1, OTHERS, 0.0) for x in starts)
        first = fitted(
            "first",
            denoiser.first,
            loss,
            starts,
            held_starts(tell_key, HELD_OUT),
            jax.random.fold_in(fit_key, 1),
            settings["first"],
            lambda d: d.network,
        ).model
        denoiser = eqx.tree_at(lambda d: (d.step, d.first), denoiser, (step, first))
    one = lambda x: denoiser.encode(x.reshape(-1), x[: spec.given])
    encoded = jax.jit(lambda x: jax.lax.map(one, x, batch_size=BATCH))
    # errors are nearly white: no two windows of them could be taken for one another
    others = OTHERS if spec.step is None else 0
    training, held_out = (
        drawer(x, encoded(x), spec.given, n) for x, n in ((training, others), (held_out, 0))
    )
    found = fitted(
        "window",
        denoiser,
        loss,
        training,
        held_out(tell_key, HELD_OUT),
        fit_key,
        settings["window"],
        lambda d: d.network,
    )
    figures |= {"denoising_loss": figures.pop("window_loss"), "steps": found.steps}
    return eqx.tree_at(lambda p: p.denoiser, prior, found.model), figures


def save_trajectory_prior(path: Path, prior: DiffusionPrior, spec: TrajectorySpec, header: dict):
    """Write a trained prior with its `spec` and whatever else `header` says.

    The weights of the denoiser's network are rounded to half precision.
    """
    network = lambda p: p.denoiser.network
    half = jax.tree.map(lambda a: a.astype(jnp.float16) if eqx.is_array(a) else a, network(prior))
    prior = eqx.tree_at(network, prior, half)
    save_arrays(path, prior, {"format": FORMAT, "spec": asdict(spec), **header})


def load_trajectory_prior(path: Path, header: dict) -> DiffusionPrior:
    """The prior in a file whose header was read.

    Raises:
        DataError: the file is broken.
    """
    fields = dict(header["spec"])
    fields["channels"] = tuple(fields["channels"])
    if fields.get("step") is not None:
        fields["step"] = StepSpec(**(fields["step"] | {"angles": tuple(fields["step"]["angles"])}))
    spec = TrajectorySpec(**fields)
    return load_built(path, spec.build)
