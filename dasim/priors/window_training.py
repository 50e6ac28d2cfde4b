"""Training of the denoiser of a window: what is drawn, and the loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.schedules import AbstractSchedule
from dasim.priors.train import levels_and_noise, residual_loss
from dasim.types import Key

Windows = Float[Array, "window steps *state"]


def drawer(
    windows: Windows,
    coordinates: Float[Array, "window n"],
    given: int,
    others: int = 0,
    told: float = 0.5,
) -> Callable[[Key, int], tuple]:
    """A function of (key, n) to n conditions, windows' coordinates, and others of their law.

    Args:
        coordinates: of the windows, as the denoiser encodes them.
        told: share of the conditions that tell the first states.
    """

    def draw(windows, coordinates, key, n):
        pick, tell, more = jax.random.split(key, 3)
        at = jax.random.randint(pick, (n,), 0, len(windows))
        known = jax.random.bernoulli(tell, told, (n, 1, 1))
        known = jnp.broadcast_to(known, (n, given, 1)).astype(windows.dtype)
        cond = jnp.concatenate([windows[at, :given], known], 2)
        beside = coordinates[jax.random.randint(more, (others,), 0, len(windows))]
        return cond, coordinates[at], beside

    return jax.tree_util.Partial(draw, windows, coordinates)


def window_loss(
    denoiser: AbstractDenoiser,
    schedule: AbstractSchedule,
    batch: tuple,
    key: Key,
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
