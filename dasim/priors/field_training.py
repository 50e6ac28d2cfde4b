"""Training of denoisers of functions: their loss, and the gains that are measured after it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields import FieldCovariance
from dasim.priors.functions import FieldDenoiser, WaveGains
from dasim.priors.schedules import AbstractSchedule
from dasim.priors.train import Batch, levels_and_noise
from dasim.types import Key

LEAST = 1e-12  # power of a wave that has any, over the largest


def field_loss(
    denoiser: FieldDenoiser,
    schedule: AbstractSchedule,
    batch: Batch,
    key: Key,
    whitened: bool = False,
) -> Float[Array, ""]:
    """The mean square of what G leaves of (s u - e) / sqrt(1 + s^2), over the noise's variance.

    Args:
        whitened: over that of what a Gaussian field would leave instead, wave by wave.
    """
    cond, target = batch
    levels, noise = levels_and_noise(schedule, target, key)

    def one(cond, target, s, e):
        wrong = -_left(denoiser, cond, target, s, e)[1]
        if whitened:
            wrong = denoiser.times(wrong, FieldCovariance.inverse(denoiser.scales(s)[1]))
        else:
            wrong = wrong / denoiser.noise.std
        return jnp.mean(wrong**2)

    return jnp.mean(jax.vmap(one)(cond, target, levels, noise))


def _left(denoiser, cond, target, s, e):
    """w, and what G of it leaves of what it is trained to give."""
    u = target - jax.lax.stop_gradient(denoiser.mean(cond))
    e, root = denoiser.noise.sqrt(e), jnp.sqrt(1 + s**2)
    w = (u + s * e) / root
    return w, (s * u - e) / root - denoiser.drift(w, s, cond)


def measured_gains(
    denoiser: FieldDenoiser,
    schedule: AbstractSchedule,
    draw: Callable[[Key, int], Batch],
    key: Key,
    n_levels: int,
    rounds: int = 64,
    batch: int = 64,
) -> WaveGains:
    """What a denoiser without gains lacks of its linear part, at levels of the schedule's spread.

    Args:
        draw: function of (key, n) to n pairs of a condition and a field.
        rounds: batches drawn for each level.
    """
    grid = denoiser.grid
    gains = WaveGains.zeros(grid, denoiser.network.network.inner or grid, n_levels)
    k = np.sqrt(sum(np.meshgrid(*(a**2 for a in grid.wavenumbers), indexing="ij")))
    count = gains.values.shape[1]
    place = np.minimum(np.round(k / gains.step).astype(int), count)  # the last: none
    levels = schedule.draw((jnp.arange(n_levels) + 0.5) / n_levels)

    @eqx.filter_jit
    def sums(denoiser, draw, level, key):
        def one(cond, target, e):
            w, left = _left(denoiser, cond, target, level, e)
            a, b = (grid.coefficients(x.reshape(grid.shape)) for x in (w, left))
            return jnp.stack([(a.conj() * b).real, jnp.abs(a) ** 2])

        def round_of(total, key):
            draw_key, noise_key = jax.random.split(key)
            cond, target = draw(draw_key, batch)
            noise = jax.random.normal(noise_key, target.shape, target.dtype)
            return total + jax.vmap(one)(cond, target, noise).sum(0), None

        start = jnp.zeros((2, *grid.shape))
        total = jax.lax.scan(round_of, start, jax.random.split(key, rounds))[0]
        flat = jnp.zeros((2, count + 1)).at[:, place.reshape(-1)].add(total.reshape(2, -1))
        wrong, power = flat[:, :-1]
        there = power > LEAST * power.max()  # else it is rounding alone
        return jnp.where(there, wrong / jnp.where(there, power, 1.0), 0.0)

    keys = jax.random.split(key, n_levels)
    values = jnp.stack([sums(denoiser, draw, s, k) for s, k in zip(levels, keys, strict=True)])
    return WaveGains(values, jnp.arctan(levels), gains.step)
