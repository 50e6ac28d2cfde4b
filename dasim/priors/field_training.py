"""Training of denoisers of functions: their loss, and the gains that are measured after it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.fields import FieldCovariance
from dasim.priors.functions import FieldDenoiser
from dasim.priors.sampler import angle_weights
from dasim.priors.schedules import AbstractSchedule
from dasim.priors.train import Batch, levels_and_noise
from dasim.priors.waves import WaveGains
from dasim.types import Key

LEAST = 1e-12  # power of a wave that has any, over the largest
MOST = 4.0  # factor on a wave by the gain of one step
BATCH = 64


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
        u = target - jax.lax.stop_gradient(denoiser.mean(cond))
        e, root = denoiser.noise.sqrt(e), jnp.sqrt(1 + s**2)
        wrong = denoiser.drift((u + s * e) / root, s, cond) - (s * u - e) / root
        if whitened:
            wrong = denoiser.times(wrong, FieldCovariance.inverse(denoiser.scales(s)[1]))
        else:
            wrong = wrong / jnp.sqrt(denoiser.noise.values.mean())
        return jnp.mean(wrong**2)

    return jnp.mean(jax.vmap(one)(cond, target, levels, noise))


def measured_gains(
    denoiser: FieldDenoiser,
    schedule: AbstractSchedule,
    draw: Callable[[Key, int], Batch],
    key: Key,
    n_steps: int,
    count: int = 2048,
) -> WaveGains:
    """The gains with which draws have the spectrum of the fields at every step.

    The draws are made step by step, and at each the gain of the waves of each length is what
    their power at the next level, cos(a)^2 L + sin(a)^2 N, asks for. It is zero for an exact
    denoiser and small steps.

    Args:
        denoiser: without gains.
        schedule: whose levels the draws pass.
        draw: function of (key, n) to n pairs of a flat condition and a flat field, `(n, k)` and
            `(n, grid.size)`; jit-able.
        n_steps: network calls of a draw.
        count: of the draws; the fields' spectrum is that of four times as many.
    """
    grid = denoiser.grid
    gains = WaveGains.zeros(grid, denoiser.network.network.inner or grid, n_steps)
    coefficients = lambda x: grid.coefficients(x.reshape(grid.shape))

    def power(x, y):
        """Mean products of the waves of two lists of fields, by length."""

        def one(total, pair):
            a, b = map(coefficients, pair)
            return total + (a.conj() * b).real, None

        total = jax.lax.scan(one, jnp.zeros(grid.shape, x.dtype), (x, y))[0] / len(x)
        return gains.summed(total, grid)

    def scaled(denoiser, w, factor):
        """Fields with the waves of each length multiplied; nothing beyond the last length."""
        by = gains.spread(factor, grid)
        return jax.lax.map(lambda x: denoiser.times(x, by), w, batch_size=BATCH)

    @eqx.filter_jit
    def run(denoiser, draw, key):
        draw_key, noise_key = jax.random.split(key)
        cond, target = draw(draw_key, 4 * count)
        u = target - jax.lax.map(denoiser.mean, cond, batch_size=BATCH)
        cond, noise = cond[:count], jax.random.normal(noise_key, u[:count].shape, u.dtype)
        field = power(u, u)
        of_noise = gains.summed(denoiser.noise.values, grid)

        def step(carry, at):
            w, last = carry
            s, angle, (reach, before) = at
            made = jax.lax.map(lambda a: denoiser.drift(a[0], s, a[1]), (w, cond), batch_size=BATCH)
            # the step of `integrated` is w (1 - reach b) + rest, with b the gain
            rest = -reach * made + before * last
            own, cross, other = power(w, w), power(w, rest), power(rest, rest)
            wanted = field * jnp.cos(angle) ** 2 + of_noise * jnp.sin(angle) ** 2
            there = (own > LEAST * own.max()) & (field > LEAST * field.max())
            own = jnp.where(there, own, 1.0)
            factor = jnp.sqrt(jnp.maximum(cross**2 - own * (other - wanted), 0.0)) - cross
            factor = jnp.clip(factor / own, 1 / MOST, MOST)
            gain = jnp.where(there, (1 - factor) / reach, 0.0)
            slope = -(made + scaled(denoiser, w, gain))
            return (w + reach * slope + before * last, slope), gain

        start = jax.lax.map(denoiser.noise.sqrt, noise, batch_size=BATCH)
        # else the first gain is what the noise has too much of by chance
        own = power(start, start)
        by_chance = jnp.sqrt(of_noise / jnp.where(own > 0, own, 1.0))
        start = start + scaled(denoiser, start, jnp.where(own > 0, by_chance - 1, 0.0))
        levels = schedule.levels(n_steps).astype(start.dtype)
        angles = jnp.arctan(levels)
        each = levels[:-1], angles[1:], angle_weights(levels)
        return jax.lax.scan(step, (start, jnp.zeros_like(start)), each)[1][::-1], angles[:-1][::-1]

    values, angles = run(denoiser, draw, key)
    return WaveGains(values, angles, gains.step)
