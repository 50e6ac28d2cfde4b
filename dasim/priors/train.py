r"""Training: a mean by regression, then the network of what is left, with one fitting loop.

Stage one minimises |B^(-1/2) (x' - m(x))|^2, with B the covariance of what persistence or a linear
regression leaves; the covariance C of what remains is taken from held-out
pairs; stage two minimises the denoising loss on u = C^(-1/2) (x' - m(x)),

    E | F(v) - (s u - e) / sqrt(1 + s^2) |^2,   v = (u + s e) / sqrt(1 + s^2),

with s from the schedule: the EDM loss of Karras et al. (2022) weighted so that every level
counts alike.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float

from dasim.covariance import AbstractCovariance
from dasim.priors.denoisers import AbstractDenoiser, MeanNetwork
from dasim.priors.schedules import AbstractSchedule
from dasim.priors.store import load_arrays, save_arrays
from dasim.types import DasimError, Key

Batch = tuple[Float[Array, "batch *cond"], Float[Array, "batch n"]]
OPTIMIZERS = {"adamw": optax.adamw, "muon": partial(optax.contrib.muon, consistent_rms=0.2)}


class FitSettings(NamedTuple):
    """How to fit.

    `n_steps` gradient steps of `batch` pairs; cosine decay from `learning_rate` after a short
    warm-up; averaged weights with `ema` a step; a look at the held-out loss every `check`
    steps, and a stop after `patience` looks without a better one. The `optimizer` is "adamw", or
    "muon" (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), which makes the steps
    of all matrices orthogonal, of AdamW's size (Liu et al. 2025, arXiv 2502.16982, eq. 4).
    """

    n_steps: int = 5000
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    ema: float = 0.998
    check: int = 250
    patience: int = 20
    optimizer: Literal["adamw", "muon"] = "adamw"


class FitResult(NamedTuple):
    """The model with the lowest held-out loss, that loss, and the steps taken."""

    model: eqx.Module
    loss: float
    steps: int


def regression_loss(
    model: MeanNetwork, scale: AbstractCovariance, batch: Batch, key: Key
) -> Float[Array, ""]:
    """Mean square error of m, in units of the covariance `scale`."""
    cond, target = batch
    return jnp.mean(jax.vmap(lambda c, x: scale.whiten(x - model(c)))(cond, target) ** 2)


def denoising_loss(
    denoiser: AbstractDenoiser, schedule: AbstractSchedule, batch: Batch, key: Key
) -> Float[Array, ""]:
    """The loss of stage two; 1 for F = 0 if the residual is Gaussian with covariance C."""
    cond, target = batch
    return residual_loss(denoiser, cond, target, *levels_and_noise(schedule, target, key))


def residual_loss(
    denoiser: AbstractDenoiser,
    cond: Float[Array, "batch *cond"],
    target: Float[Array, "batch n"],
    levels: Float[Array, " batch"],
    noise: Float[Array, "batch n"],
) -> Float[Array, ""]:
    """The loss of stage two for these levels and this noise."""

    def one(cond, target, s, e):
        u = denoiser.cov(cond).whiten(target - jax.lax.stop_gradient(denoiser.mean(cond)))
        root = jnp.sqrt(1 + s**2)
        wanted = (s * u - e) / root
        return jnp.mean((denoiser.correction((u + s * e) / root, s, cond) - wanted) ** 2)

    return jnp.mean(jax.vmap(one)(cond, target, levels, noise))


def levels_and_noise(
    schedule: AbstractSchedule, target: Float[Array, "batch n"], key: Key
) -> tuple[Float[Array, " batch"], Float[Array, "batch n"]]:
    """A noise level and standard normal numbers for each of a batch."""
    level_key, noise_key = jax.random.split(key)
    # stratified levels: the same spread of noise in every batch
    uniform = (jnp.arange(len(target)) + jax.random.uniform(level_key)) / len(target)
    return schedule.draw(uniform), jax.random.normal(noise_key, target.shape, target.dtype)


def fit(
    model: eqx.Module,
    loss: Callable[[eqx.Module, tuple, Key], Float[Array, ""]],
    draw: Callable[[Key, int], tuple],
    held_out: tuple,
    key: Key,
    settings: FitSettings,
    trainable: Callable[[eqx.Module], object] | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int, float, float], None] | None = None,
) -> FitResult:
    """Minimise `loss` by AdamW; keep the averaged weights with the lowest held-out loss.

    Args:
        loss: function of (model, batch, key).
        draw: function of (key, n) to a batch of n pairs, or of what `loss` takes, jit-able; a
            `jax.tree_util.Partial` where it holds large arrays.
        held_out: pairs that are never drawn.
        trainable: picks the part of the model that moves; all arrays by default.
        checkpoint: file to which everything is saved at every look, and from which an
            interrupted fit goes on.
        progress: called with (step, training loss, held-out loss) at every look.

    Raises:
        DasimError: the loss is not finite.
    """
    spec = jax.tree.map(lambda _: False, model)
    if trainable is None:
        spec = jax.tree.map(eqx.is_inexact_array, model)
    else:
        part = trainable(model)
        spec = eqx.tree_at(trainable, spec, jax.tree.map(eqx.is_inexact_array, part))
    weights, fixed = eqx.partition(model, spec)
    warmup = min(200, settings.n_steps // 10)
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, warmup, settings.n_steps, 0.01 * settings.learning_rate
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        OPTIMIZERS[settings.optimizer](rate, weight_decay=settings.weight_decay),
    )

    def step(carry, i, draw, fixed):
        weights, average, state = carry
        batch_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
        batch = draw(batch_key, settings.batch)
        value, grads = jax.value_and_grad(lambda w: loss(eqx.combine(w, fixed), batch, loss_key))(
            weights
        )
        updates, state = optimizer.update(grads, state, weights)
        weights = optax.apply_updates(weights, updates)
        decay = jnp.minimum(settings.ema, (1.0 + i) / (10.0 + i))
        average = jax.tree.map(lambda a, w: decay * a + (1 - decay) * w, average, weights)
        return (weights, average, state), value

    # all large arrays are arguments: as constants they would be folded at compile time
    @eqx.filter_jit
    def advance(carry, start, draw, fixed, held_out):
        numbers = start + jnp.arange(settings.check)
        carry, values = jax.lax.scan(lambda c, i: step(c, i, draw, fixed), carry, numbers)
        value = loss(eqx.combine(carry[1], fixed), held_out, jax.random.fold_in(key, 2**31 - 1))
        return carry, values.mean(), value

    carry = (weights, weights, optimizer.init(weights))
    best, best_loss, done, stale = weights, jnp.inf, 0, 0
    if checkpoint is not None and checkpoint.exists():
        (carry, best), header = load_arrays(checkpoint, (carry, best))
        best_loss, done, stale = header["best_loss"], header["done"], header["stale"]
    while done < settings.n_steps and stale < settings.patience:
        carry, training, value = advance(carry, jnp.asarray(done), draw, fixed, held_out)
        done += settings.check
        training, value = float(training), float(value)
        if not jnp.isfinite(value):
            raise DasimError(
                f"training: the held-out loss is {value} after {done} steps; "
                f"lower learning_rate (now {settings.learning_rate})"
            )
        stale += 1
        if value < best_loss:
            best, best_loss, stale = carry[1], value, 0
        if checkpoint is not None:
            save_arrays(
                checkpoint,
                (carry, best),
                {"best_loss": float(best_loss), "done": done, "stale": stale},
            )
        if progress is not None:
            progress(done, training, value)
    return FitResult(eqx.combine(best, fixed), float(best_loss), done)
