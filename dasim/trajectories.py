"""Trained priors of trajectories: their data, specification, training and files."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.models.base import AbstractModel
from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.prior import DiffusionPrior
from dasim.priors.schedules import AbstractSchedule, SubVPSchedule, VESchedule, VPSchedule
from dasim.priors.store import load_arrays, save_arrays
from dasim.priors.train import FitSettings, fit, levels_and_noise, residual_loss
from dasim.priors.unet import UNet
from dasim.priors.windows import LeadingPart, WindowDenoiser
from dasim.transitions import ModelTransition
from dasim.types import Key

FORMAT = "dasim-trajectory-prior-1"
HELD_OUT = 2048
TOLD = 0.5  # of the windows in training
OTHERS = 2048  # windows that may be behind a noisy one, at each step of the training
SCHEDULES: dict[str, AbstractSchedule] = {
    # a window on an attractor is thin: finer levels than those of a transition, and coarser
    # ones, as its variables hang together over many steps
    "ve": VESchedule(sigma_min=0.005, sigma_max=80.0, rho=7.0),
    "vp": VPSchedule(t_min=1e-4),
    "sub-vp": SubVPSchedule(t_min=5e-3),
}

Windows = Float[Array, "window steps *state"]


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
        rank: leading directions of the windows that have a part of their own; none for a denoiser
            that is a U-Net alone.
        width, depth: of that part's hidden layers, and how many.
    """

    steps: int
    state: int
    interval: float
    given: int = 3
    channels: tuple[int, ...] = (32, 64, 64)
    schedule: Literal["ve", "vp", "sub-vp"] = "ve"
    n_steps: int = 20
    rank: int = 0
    width: int = 256
    depth: int = 4

    def build(self, key: Key) -> DiffusionPrior:
        """An untrained prior.

        Raises:
            ValueError: the steps cannot be halved as often as the channels ask, or fewer steps
                than first states.
        """
        if not 0 < self.given < self.steps:
            raise ValueError(f"given is {self.given}, expected 1 to {self.steps - 1} states")
        d, n = self.state, self.steps * self.state
        if self.rank >= n:
            raise ValueError(f"rank is {self.rank}, expected fewer than a window's {n} numbers")
        unet_key, leading_key = jax.random.split(key)
        network = UNet(self.steps, 2 * d + 1, d, tuple(self.channels), unet_key)
        leading = None
        if self.rank:
            leading = LeadingPart(self.rank, n, self.width, self.depth, leading_key)
        center, scale = jnp.zeros(d), jnp.ones(d)
        denoiser = WindowDenoiser(center, scale, leading, network, self.steps, self.given)
        return DiffusionPrior(denoiser, (self.steps, d), SCHEDULES[self.schedule], self.n_steps)


def simulated_windows(
    model: AbstractModel,
    interval: float,
    steps: int,
    count: int,
    key: Key,
    start: float = 1.0,
    spin_up: float | None = None,
) -> Windows:
    """Windows of as many independent trajectories, `(count, steps, *state)`, angles wrapped.

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
        return model.wrapped(jnp.moveaxis(path, 0, 1))

    return run(key)


def drawer(windows: Windows, given: int, told: float = TOLD, others: int = 0):
    """A function of (key, n) to n conditions, as many flat windows, and others of their law.

    Args:
        told: share of the conditions that tell the first states.
    """

    def draw(windows, key, n):
        pick, tell, more = jax.random.split(key, 3)
        x = windows[jax.random.randint(pick, (n,), 0, len(windows))]
        known = jax.random.bernoulli(tell, told, (n, 1, 1))
        known = jnp.broadcast_to(known, (n, given, 1)).astype(x.dtype)
        cond = jnp.concatenate([x[:, :given], known], 2)
        beside = windows[jax.random.randint(more, (others,), 0, len(windows))]
        return cond, x.reshape(n, -1), beside.reshape(others, x[0].size)

    return jax.tree_util.Partial(draw, windows)


def window_loss(
    denoiser: AbstractDenoiser,
    levels: Float[Array, " batch"],
    noise: Float[Array, "batch n"],
    batch,
) -> Float[Array, ""]:
    """The denoising loss, its targets averaged where many windows could be behind a noisy one.

    Of a noisy window z that nothing is told of, any of the batch's other windows may be the source
    in place of the one it was made from. The mean over all of them, weighted by the likelihood of
    z, has the same expectation given z as that one (its mean given z and the set of them), and far
    less variance at high levels (Xu et al. 2023, arXiv 2302.00670, eq. 5).
    """
    cond, x, others = batch
    center, cov = denoiser.mean(), denoiser.cov()
    u, beside = (cov.whiten(a - center) for a in (x, others))
    s = levels[:, None]
    z = u + s * noise
    known = cond[:, :1, -1]
    squares = jnp.sum(z**2, 1)[:, None] - 2 * z @ beside.T + jnp.sum(beside**2, 1)
    squares = jnp.where(known > 0, jnp.inf, squares)
    squares = jnp.concatenate([jnp.sum((s * noise) ** 2, 1)[:, None], squares], 1)
    weights = jax.nn.softmax(-0.5 * squares / s**2, 1)
    source = weights[:, :1] * u + weights[:, 1:] @ beside
    source, noise = jax.lax.stop_gradient((source, (z - source) / s))
    return residual_loss(denoiser, cond, center + cov.sqrt(source), levels, noise)


Report = Callable[[str, int, int, float, float], None]


def train_trajectory_prior(
    spec: TrajectorySpec,
    windows: Callable[[Key, int], Windows],
    bank: int,
    settings: FitSettings,
    leading: FitSettings,
    key: Key,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> tuple[DiffusionPrior, dict]:
    """Fit the denoiser of a window.

    Args:
        windows: function of (key, count) to windows.
        bank: how many of them the training picks from.
        settings, leading: of the U-Net's fit, and of that of the leading part before it.
        checkpoint: folder for the state of an interrupted training.
        report: called with (stage, step, steps, training loss, held-out loss).

    Returns:
        The prior, and the held-out figures for its header.
    """
    build_key, bank_key, held_key, tell_key, fit_key = jax.random.split(key, 5)
    prior = spec.build(build_key)
    training, held_out = windows(bank_key, bank), windows(held_key, HELD_OUT)
    schedule = prior.schedule
    center, scale = training.mean((0, 1)), training.std((0, 1))
    denoiser = eqx.tree_at(lambda d: (d.center, d.scale), prior.denoiser, (center, scale))

    def stage(number, name, denoiser, part, settings, known, draw_level):
        def loss(denoiser, batch, key):
            levels, noise = levels_and_noise(draw_level, batch[1], key)
            return window_loss(denoiser, levels, noise, batch)

        def told(i, a, b):
            if report is not None:
                report(name, i, settings.n_steps, a, b)

        return fit(
            denoiser,
            loss,
            drawer(training, spec.given, known, OTHERS),
            drawer(held_out, spec.given, known)(tell_key, HELD_OUT),
            jax.random.fold_in(fit_key, number),
            settings,
            part,
            None if checkpoint is None else Path(checkpoint) / f"{name}.safetensors",
            told,
        )

    figures = {}
    if spec.rank:
        flat = ((training - center) / scale).reshape(bank, -1)
        alone = eqx.tree_at(
            lambda d: (d.leading, d.network),
            denoiser,
            (denoiser.leading.of_windows(flat), None),
        )
        # the upper half of the levels: below, the leading directions are seen as they are
        upper = lambda u: schedule.draw((1 + u) / 2)
        found = stage(0, "leading", alone, lambda d: d.leading.network, leading, 0.0, upper)
        denoiser = eqx.tree_at(lambda d: d.leading, denoiser, found.model.leading)
        figures["leading_loss"] = found.loss
    found = stage(1, "window", denoiser, lambda d: d.network, settings, TOLD, schedule.draw)
    figures |= {"denoising_loss": found.loss, "steps": found.steps, "windows": bank}
    return eqx.tree_at(lambda p: p.denoiser, prior, found.model), figures


def save_trajectory_prior(path: Path, prior: DiffusionPrior, spec: TrajectorySpec, header: dict):
    """Write a trained prior, its networks in half precision, with its `spec` and the `header`."""
    halved = jax.tree.map(
        lambda a: a.astype(jnp.float16) if eqx.is_inexact_array(a) else a, networks(prior.denoiser)
    )
    prior = eqx.tree_at(lambda p: networks(p.denoiser), prior, halved)
    save_arrays(path, prior, {"format": FORMAT, "spec": asdict(spec), **header})


def networks(denoiser: WindowDenoiser) -> list[eqx.Module]:
    """The networks of a denoiser."""
    return [denoiser.network] + ([denoiser.leading.network] if denoiser.leading else [])


def load_trajectory_prior(path: Path, header: dict) -> DiffusionPrior:
    """The prior in a file whose header was read.

    Raises:
        DataError: the file is broken.
    """
    fields = dict(header["spec"])
    spec = TrajectorySpec(**(fields | {"channels": tuple(fields["channels"])}))
    return load_arrays(path, spec.build(jax.random.key(0)))[0]
