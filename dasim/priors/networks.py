"""Networks from fields on a state's grid, and scalars, to one field.

Both take `fields`, `(k, n)`: k numbers at each of the n state variables, and `scalars`,
`(s,)`, and give `(n,)`. The noise level and the time of day are scalars; the ancestor and the
noisy state are fields.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.types import Key


class AbstractNetwork(eqx.Module):
    """A function of fields and scalars."""

    @abc.abstractmethod
    def __call__(
        self, fields: Float[Array, "k n"], scalars: Float[Array, " s"]
    ) -> Float[Array, " n"]:
        """The output field."""


def zero_layer(layer):
    """A layer with all weights zero."""
    return jax.tree.map(jnp.zeros_like, layer, is_leaf=eqx.is_array)


class MLP(AbstractNetwork):
    """A residual multilayer perceptron on everything at once; its output starts at zero."""

    first: eqx.nn.Linear
    hidden: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear

    def __init__(self, k: int, n: int, s: int, width: int, depth: int, key: Key):
        keys = jax.random.split(key, depth + 2)
        self.first = eqx.nn.Linear(k * n + s, width, key=keys[0])
        self.hidden = tuple(eqx.nn.Linear(width, width, key=q) for q in keys[2:])
        self.last = zero_layer(eqx.nn.Linear(width, n, key=keys[1]))

    def __call__(self, fields, scalars):
        h = self.first(jnp.concatenate([fields.reshape(-1), scalars]))
        for layer in self.hidden:
            h = h + layer(jax.nn.silu(h))
        return self.last(jax.nn.silu(h))


def _gather(h: Float[Array, "n c"], width: int) -> Float[Array, "n wc"]:
    """Each site's periodic neighbourhood of `width` sites, so that a convolution is one product."""
    half = width // 2
    return jnp.concatenate([jnp.roll(h, j, 0) for j in range(half, half - width, -1)], 1)


class PeriodicConv(AbstractNetwork):
    """Gated convolutions on a ring, each block applied `repeats` times with the same weights.

    A block adds W_o [a * tanh(b)] to the features, where a and b are convolutions of them, b
    scaled and shifted by the scalars: products of neighbours, from which advection is made.
    Repeating a block makes it a learned time step.
    """

    lift: eqx.nn.Linear
    gates: tuple[eqx.nn.Linear, ...]
    films: tuple[eqx.nn.Linear, ...]
    outs: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear
    width: int = eqx.field(static=True)
    repeats: int = eqx.field(static=True)

    def __init__(
        self, k: int, s: int, channels: int, depth: int, width: int, repeats: int, key: Key
    ):
        keys = jax.random.split(key, 3 * depth + 2)
        self.lift = eqx.nn.Linear(width * k, channels, key=keys[0])
        self.last = zero_layer(eqx.nn.Linear(channels, 1, key=keys[1]))
        self.gates = tuple(
            eqx.nn.Linear(width * channels, 2 * channels, key=q) for q in keys[2 : depth + 2]
        )
        self.films = tuple(
            zero_layer(eqx.nn.Linear(s, 2 * channels, key=q))
            for q in keys[depth + 2 : 2 * depth + 2]
        )
        self.outs = tuple(
            eqx.tree_at(lambda m: m.weight, layer, layer.weight / (repeats * depth) ** 0.5)
            for layer in (eqx.nn.Linear(channels, channels, key=q) for q in keys[2 * depth + 2 :])
        )
        self.width, self.repeats = width, repeats

    def __call__(self, fields, scalars):
        h = jax.vmap(self.lift)(_gather(fields.T, self.width))

        def sweep(h, _):
            for gate, film, out in zip(self.gates, self.films, self.outs, strict=True):
                a, b = jnp.split(jax.vmap(gate)(_gather(h, self.width)), 2, 1)
                scale, shift = jnp.split(film(scalars), 2)
                h = h + jax.vmap(out)(a * jnp.tanh(b * (1 + scale) + shift))
            return h, None

        h = jax.lax.scan(sweep, h, None, length=self.repeats)[0]
        return jax.vmap(self.last)(h)[:, 0]
