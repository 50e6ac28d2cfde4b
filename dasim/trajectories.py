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
from dasim.priors.windows import WindowDenoiser
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
    """

    steps: int
    state: int
    interval: float
    given: int = 3
    channels: tuple[int, ...] = (32, 64, 64)
    whole: int = 0
    schedule: Literal["ve", "vp", "sub-vp"] = "ve"
    n_steps: int = 20

    def build(self, key: Key) -> DiffusionPrior:
        """An untrained prior.

        Raises:
            ValueError: the steps cannot be halved as often as the channels ask, or fewer steps
                than first states.
        """
        if not 0 < self.given < self.steps:
            raise ValueError(f"given is {self.given}, expected 1 to {self.steps - 1} states")
        d = self.state
        network = UNet(self.steps, 2 * d + 1, d, tuple(self.channels), key, self.whole)
        denoiser = WindowDenoiser(jnp.zeros(d), jnp.ones(d), network, self.steps, self.given)
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
    fitted = fit(
        denoiser,
        lambda d, batch, k: window_loss(d, prior.schedule, batch, k),
        drawer(training, spec.given, OTHERS),
        held_out,
        fit_key,
        settings,
        lambda d: d.network,
        None if checkpoint is None else Path(checkpoint) / "window.safetensors",
        None if report is None else lambda i, a, b: report("window", i, settings.n_steps, a, b),
    )
    figures = {"denoising_loss": fitted.loss, "steps": fitted.steps, "windows": bank}
    return eqx.tree_at(lambda p: p.denoiser, prior, fitted.model), figures


def save_trajectory_prior(path: Path, prior: DiffusionPrior, spec: TrajectorySpec, header: dict):
    """Write a trained prior with its `spec` and whatever else `header` says.

    The network's weights are rounded to half precision.
    """
    network = jax.tree.map(
        lambda a: a.astype(jnp.float16), eqx.filter(prior.denoiser.network, eqx.is_array)
    )
    prior = eqx.tree_at(lambda p: p.denoiser.network, prior, network)
    save_arrays(path, prior, {"format": FORMAT, "spec": asdict(spec), **header})


def load_trajectory_prior(path: Path, header: dict) -> DiffusionPrior:
    """The prior in a file whose header was read.

    Raises:
        DataError: the file is broken.
    """
    fields = dict(header["spec"])
    spec = TrajectorySpec(**(fields | {"channels": tuple(fields["channels"])}))
    return load_arrays(path, spec.build(jax.random.key(0)))[0]
