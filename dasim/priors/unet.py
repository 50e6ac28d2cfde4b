r"""A U-Net over the steps of a trajectory.

As the score networks of Song et al. (2021, arXiv 2011.13456) in one dimension: residual blocks at
coarser and coarser steps and back, self-attention at the coarsest, the noise level everywhere.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.priors.networks import zero_layer
from dasim.types import Key

LEVELS = 16  # sines and cosines of the logarithm of the noise level


def waves(level: Float[Array, ""]) -> Float[Array, " w"]:
    """Sines and cosines of the logarithm of a noise level."""
    angles = level * 2.0 ** jnp.linspace(-3, 3, LEVELS)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def _convolved(layer: eqx.nn.Linear, h: Float[Array, "t c"]) -> Float[Array, "t d"]:
    """A convolution of width three that sees zeros beyond the ends, as one product."""
    edge = jnp.zeros_like(h[:1])
    before, after = jnp.concatenate([edge, h[:-1]]), jnp.concatenate([h[1:], edge])
    return jax.vmap(layer)(jnp.concatenate([before, h, after], 1))


def _normalized(h: Float[Array, "t c"]) -> Float[Array, "t c"]:
    return h / jnp.sqrt(jnp.mean(h**2) + 1e-5)


class ResidualBlock(eqx.Module):
    """Two convolutions, the second one's input scaled and shifted by the embedded noise level."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear
    film: eqx.nn.Linear

    def __init__(self, channels: int, embedding: int, key: Key):
        a, b, c = jax.random.split(key, 3)
        self.first = eqx.nn.Linear(3 * channels, channels, key=a)
        self.second = zero_layer(eqx.nn.Linear(3 * channels, channels, key=b))
        self.film = eqx.nn.Linear(embedding, 2 * channels, key=c)

    def __call__(self, h: Float[Array, "t c"], level: Float[Array, " e"]) -> Float[Array, "t c"]:
        scale, shift = jnp.split(self.film(level), 2)
        inner = _convolved(self.first, jax.nn.silu(_normalized(h)))
        inner = jax.nn.silu(_normalized(inner) * (1 + scale) + shift)
        return h + _convolved(self.second, inner)


class UNet(eqx.Module):
    """From channels at each step, and a noise level, to channels at each step.

    The number of steps is a multiple of 2 to the power of the number of coarser resolutions.

    Attributes:
        channels: at each resolution, the finest first.
    """

    embed: eqx.nn.MLP
    lift: eqx.nn.Linear
    down: list[ResidualBlock]
    coarsen: list[eqx.nn.Linear]
    middle: list[ResidualBlock]
    attention: eqx.nn.MultiheadAttention
    place: Float[Array, "t c"]
    refine: list[eqx.nn.Linear]
    up: list[ResidualBlock]
    last: eqx.nn.Linear
    channels: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        steps: int,
        inputs: int,
        outputs: int,
        channels: tuple[int, ...],
        key: Key,
    ):
        """Raises ValueError for steps that cannot be halved as often as the channels ask."""
        halvings = len(channels) - 1
        if steps % 2**halvings:
            raise ValueError(
                f"a window of {steps} steps cannot be halved {halvings} times, once for each "
                f"channel number after the first: take a multiple of {2**halvings}"
            )
        keys = iter(jax.random.split(key, 8 * len(channels) + 8))
        width, coarsest, left = 2 * channels[0], channels[-1], steps // 2**halvings
        pairs = list(zip(channels[:-1], channels[1:], strict=True))
        self.embed = eqx.nn.MLP(2 * LEVELS, width, width, 1, jax.nn.silu, key=next(keys))
        self.lift = eqx.nn.Linear(3 * inputs, channels[0], key=next(keys))
        self.down = [ResidualBlock(c, width, next(keys)) for c in channels[:-1]]
        self.coarsen = [eqx.nn.Linear(2 * a, b, key=next(keys)) for a, b in pairs]
        self.middle = [ResidualBlock(coarsest, width, next(keys)) for _ in range(2)]
        self.attention = eqx.nn.MultiheadAttention(4, coarsest, key=next(keys))
        self.place = 0.1 * jax.random.normal(next(keys), (left, coarsest))
        self.refine = [eqx.nn.Linear(b + 2 * a, 2 * a, key=next(keys)) for a, b in pairs]
        self.up = [ResidualBlock(c, width, next(keys)) for c in channels[:-1]]
        self.last = zero_layer(eqx.nn.Linear(channels[0], outputs, key=next(keys)))
        self.channels = channels

    def __call__(
        self, fields: Float[Array, "t inputs"], level: Float[Array, ""]
    ) -> Float[Array, "t outputs"]:
        """`level` is the logarithm of the noise level."""
        embedded = jax.nn.silu(self.embed(waves(level)))
        h, skipped = _convolved(self.lift, fields), []
        for block, coarsen in zip(self.down, self.coarsen, strict=True):
            h = block(h, embedded)
            pairs = h.reshape(len(h) // 2, -1)
            skipped.append(pairs)
            h = jax.vmap(coarsen)(pairs)
        h = self.middle[0](h, embedded)
        at = _normalized(h) + self.place
        h = self.middle[1](h + self.attention(at, at, at), embedded)
        for block, refine, pairs in reversed(list(zip(self.up, self.refine, skipped, strict=True))):
            h = jax.vmap(refine)(jnp.concatenate([h, pairs], 1)) + pairs
            h = block(h.reshape(2 * len(h), -1), embedded)
        return jax.vmap(self.last)(jax.nn.silu(_normalized(h)))
