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
from dasim.priors.train import FitResult, FitSettings, fit, levels_and_noise, residual_loss
from dasim.priors.unet import UNet
from dasim.priors.windows import Autoguidance, WindowDenoiser
from dasim.transitions import ModelTransition
from dasim.types import Key

FORMAT = "dasim-trajectory-prior-1"
HELD_OUT = 2048
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
class AutoguidanceSpec:
    """The weaker network of a trajectory prior; see `dasim.priors.windows.Autoguidance`.

    Attributes:
        channels: of its U-Net, at each resolution.
        n_steps: gradient steps of its training.
        strength, low, high: how far, and between which noise levels, draws are moved away from it.
    """

    channels: tuple[int, ...] = (16, 16, 16)
    n_steps: int = 4000
    strength: float = 0.3
    low: float = 1.0
    high: float = 12.0


@dataclass(frozen=True)
class TrajectorySpec:
    """All that is needed to make a trajectory prior's arrays anew before they are filled.

    Attributes:
        steps: states of a window.
        state: variables of a state.
        interval: time between two states.
        given: first states that the prior may be told.
        channels: of the U-Net, at each resolution.
        whole: width of its perceptron on all steps at once; none where zero.
        schedule: "ve", "vp" or "sub-vp".
        n_steps: network calls of a draw.
        autoguidance: the weaker network; None for a prior without.
    """

    steps: int
    state: int
    interval: float
    given: int = 3
    channels: tuple[int, ...] = (32, 64, 64)
    whole: int = 0
    schedule: Literal["ve", "vp", "sub-vp"] = "ve"
    n_steps: int = 20
    autoguidance: AutoguidanceSpec | None = None

    def build(self, key: Key) -> DiffusionPrior:
        """An untrained prior.

        Raises:
            ValueError: the steps cannot be halved as often as the channels ask, or fewer steps
                than first states.
        """
        if not 0 < self.given < self.steps:
            raise ValueError(f"given is {self.given}, expected 1 to {self.steps - 1} states")
        d, guide = self.state, self.autoguidance
        network = UNet(self.steps, 2 * d + 1, d, tuple(self.channels), key, self.whole)
        if guide is not None:
            weaker = UNet(
                self.steps, 2 * d + 1, d, tuple(guide.channels), jax.random.fold_in(key, 1)
            )
            guide = Autoguidance(weaker, guide.strength, guide.low, guide.high)
        denoiser = WindowDenoiser(jnp.zeros(d), jnp.ones(d), network, self.steps, self.given, guide)
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


def drawer(windows: Windows, given: int, others: int = 0):
    """A function of (key, n) to n conditions, as many flat windows, and others of their law.

    Half of the conditions tell the first states.
    """

    def draw(windows, key, n):
        pick, tell, more = jax.random.split(key, 3)
        x = windows[jax.random.randint(pick, (n,), 0, len(windows))]
        known = jax.random.bernoulli(tell, 0.5, (n, 1, 1))
        known = jnp.broadcast_to(known, (n, given, 1)).astype(x.dtype)
        cond = jnp.concatenate([x[:, :given], known], 2)
        beside = windows[jax.random.randint(more, (others,), 0, len(windows))]
        return cond, x.reshape(n, -1), beside.reshape(others, x[0].size)

    return jax.tree_util.Partial(draw, windows)


def window_loss(
    denoiser: AbstractDenoiser, schedule: AbstractSchedule, batch: tuple, key: Key
) -> Float[Array, ""]:
    """The denoising loss, its targets averaged where many windows could be behind a noisy one.

    Of a noisy window z that nothing is told of, any of the batch's other windows may be the source
    in place of the one it was made from. The mean over all of them, weighted by the likelihood of
    z, has the same expectation given z as that one (its mean given z and the set of them), and far
    less variance at high levels (Xu et al. 2023, arXiv 2302.00670, eq. 5).
    """
    cond, x, others = batch
    levels, noise = levels_and_noise(schedule, x, key)
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
    key: Key,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> tuple[DiffusionPrior, dict]:
    """Fit the denoiser of a window.

    Args:
        windows: function of (key, count) to windows.
        bank: how many of them the training picks from.
        checkpoint: folder for the state of an interrupted training.
        report: called with (stage, step, steps, training loss, held-out loss).

    Returns:
        The prior, and the held-out figures for its header.
    """
    build_key, bank_key, held_key, tell_key, fit_key = jax.random.split(key, 5)
    prior = spec.build(build_key)
    training = windows(bank_key, bank)
    held_out = drawer(windows(held_key, HELD_OUT), spec.given)(tell_key, HELD_OUT)
    denoiser = eqx.tree_at(
        lambda d: (d.center, d.scale),
        prior.denoiser,
        (training.mean((0, 1)), training.std((0, 1))),
    )

    def fitted(stage: str, network: UNet, settings: FitSettings, key: Key) -> FitResult:
        return fit(
            eqx.tree_at(
                lambda d: (d.network, d.autoguidance),
                denoiser,
                (network, None),
                is_leaf=lambda a: a is None,
            ),
            lambda d, batch, k: window_loss(d, prior.schedule, batch, k),
            drawer(training, spec.given, OTHERS),
            held_out,
            key,
            settings,
            lambda d: d.network,
            None if checkpoint is None else Path(checkpoint) / f"{stage}.safetensors",
            None if report is None else lambda i, a, b: report(stage, i, settings.n_steps, a, b),
        )

    found = fitted("window", denoiser.network, settings, fit_key)
    figures = {"denoising_loss": found.loss, "steps": found.steps, "windows": bank}
    denoiser = eqx.tree_at(lambda d: d.network, denoiser, found.model.network)
    if spec.autoguidance is not None:
        less = settings._replace(n_steps=spec.autoguidance.n_steps)
        weaker = denoiser.autoguidance.network
        found = fitted("weaker", weaker, less, jax.random.fold_in(fit_key, 1))
        figures["weaker_denoising_loss"] = found.loss
        denoiser = eqx.tree_at(lambda d: d.autoguidance.network, denoiser, found.model.network)
    return eqx.tree_at(lambda p: p.denoiser, prior, denoiser), figures


def save_trajectory_prior(path: Path, prior: DiffusionPrior, spec: TrajectorySpec, header: dict):
    """Write a trained prior with its `spec` and whatever else `header` says.

    The weights of networks are rounded to half precision.
    """
    networks = lambda p: [
        n for n in jax.tree.leaves(p, is_leaf=lambda n: isinstance(n, UNet)) if isinstance(n, UNet)
    ]
    half = jax.tree.map(lambda a: a.astype(jnp.float16), eqx.filter(networks(prior), eqx.is_array))
    prior = eqx.tree_at(networks, prior, half)
    save_arrays(path, prior, {"format": FORMAT, "spec": asdict(spec), **header})


def load_trajectory_prior(path: Path, header: dict) -> DiffusionPrior:
    """The prior in a file whose header was read.

    Raises:
        DataError: the file is broken.
    """
    fields = dict(header["spec"])
    fields["channels"] = tuple(fields["channels"])
    guide = fields.get("autoguidance")
    if guide is not None:
        channels = tuple(guide["channels"])
        fields["autoguidance"] = AutoguidanceSpec(**(guide | {"channels": channels}))
    spec = TrajectorySpec(**fields)
    return load_arrays(path, spec.build(jax.random.key(0)))[0]
