r"""Operator networks: from functions to functions, with one set of weights for every grid.

Layers of Li et al. (2021, arXiv 2010.08895): the lowest waves of the features are multiplied by
matrices, all else is done point by point. Products of values make waves that a coarse grid takes
for others, so the features live on an inner grid of their own, of more points than waves: fields
are moved to it by their coefficients and the result is moved back. The network is then the same
function of the waves that the inner grid holds on every grid, and gives nothing beyond them.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields.grids import Grid, resample
from dasim.priors.networks import AbstractNetwork, zero_layer
from dasim.types import Key


def check_grid(grid: Grid, inner: Grid, modes: tuple[int, ...]):
    """Raise where a network of an inner grid and so many waves cannot serve a grid.

    Raises:
        ValueError: another box, too few points for the waves, or an odd number of them.
    """
    if (grid.lengths, grid.edges) != (inner.lengths, inner.edges):
        raise ValueError(
            f"the grid is a {grid.edges} box of lengths {grid.lengths}, the prior is of a "
            f"{inner.edges} one of lengths {inner.lengths}: it cannot leave its box"
        )
    least = tuple(2 * m if grid.edges == "periodic" else m for m in modes)
    few = any(n < low for n, low in zip(grid.shape, least, strict=True))
    odd = grid.edges == "periodic" and any(n % 2 for n in grid.shape)
    if few or odd or len(grid.shape) != len(inner.shape):
        even = "even numbers of " if grid.edges == "periodic" else ""
        sizes = " by ".join(str(n) for n in least)
        raise ValueError(
            f"a grid of shape {grid.shape} cannot serve this prior: it needs {even}at least "
            f"{sizes} points for its {' by '.join(map(str, modes))} waves (it was trained on "
            f"{inner.shape})"
        )


class SpectralLayer(eqx.Module):
    """The lowest waves of some channels times a matrix for each wave.

    Attributes:
        weight: of the waves, `(out, in, *wave)`; two numbers, real and imaginary, along a last
            axis where periodic.
        modes: waves along each axis.
    """

    weight: Float[Array, "out in *wave"]
    modes: tuple[int, ...] = eqx.field(static=True)
    edges: str = eqx.field(static=True)

    def __init__(self, k: int, out: int, modes: tuple[int, ...], edges: str, key: Key):
        self.modes, self.edges = tuple(modes), edges
        if edges == "periodic":
            # positive and negative waves of all axes but the last
            waves = tuple(2 * m - 1 for m in modes[:-1]) + (modes[-1], 2)
        else:
            waves = tuple(modes)
        self.weight = jax.random.normal(key, (out, k, *waves)) * (1 / k) ** 0.5

    def __call__(self, h: Float[Array, "k *grid"]) -> Float[Array, "out *grid"]:
        axes = [
            _waves(n, m, self.edges, i == len(self.modes) - 1)
            for i, (n, m) in enumerate(zip(h.shape[1:], self.modes, strict=True))
        ]
        kind = jnp.result_type(h, 1j) if self.edges == "periodic" else h.dtype
        made = h
        for i, (wave, share) in enumerate(axes, 1):
            matrix = jnp.asarray(wave * share[:, None] / wave.shape[1], kind)
            made = jnp.moveaxis(jnp.tensordot(made, matrix, (i, 1)), -1, i)
        weight = self.weight
        if self.edges == "periodic":
            weight = jax.lax.complex(weight[..., 0], weight[..., 1])
        made = jnp.einsum("oi...,i...->o...", weight, made)
        for i, (wave, _) in enumerate(axes, 1):
            matrix = jnp.asarray(wave.conj(), kind)
            made = jnp.moveaxis(jnp.tensordot(made, matrix, (i, 0)), -1, i)
        return made.real


def _waves(n: int, modes: int, edges: str, last: bool) -> tuple[np.ndarray, np.ndarray]:
    """The waves of an axis at its points, `(wave, n)`, and for how many functions each stands.

    So few waves are sooner found by a product with them than by a fast transform of all.
    """
    if edges == "periodic":
        # a real field's waves come in pairs: one of each along the last axis
        k = np.arange(modes) if last else np.arange(-modes + 1, modes)
        share = np.where((k > 0) & last, 2.0, 1.0)
        return np.exp(-2j * np.pi * np.outer(k, np.arange(n)) / n), share
    k = np.arange(modes)
    return np.cos(np.pi * np.outer(k, np.arange(n) + 0.5) / n), np.where(k > 0, 2.0, 1.0)


class FourierNetwork(eqx.Module):
    """Gated Fourier layers, scaled and shifted by the scalars.

    A block adds W_o [a * tanh(b)] to the features, where a and b are a spectral layer and a
    pointwise one of them (the products of values from which advection is made, as in
    `PeriodicConv`).

    Attributes:
        inner: grid of the features; None for that of the fields.
        box: a grid of the box it was made for.
        modes: waves along each axis.
        located: whether the network is told where a point is.
    """

    inner: Grid | None = eqx.field(static=True)
    box: Grid = eqx.field(static=True)
    modes: tuple[int, ...] = eqx.field(static=True)
    located: bool = eqx.field(static=True)
    lift: eqx.nn.Linear
    waves: tuple[SpectralLayer, ...]
    points: tuple[eqx.nn.Linear, ...]
    films: tuple[eqx.nn.Linear, ...]
    outs: tuple[eqx.nn.Linear, ...]
    last: eqx.nn.Linear

    def __init__(
        self,
        k: int,
        s: int,
        box: Grid,
        modes: tuple[int, ...],
        channels: int,
        depth: int,
        key: Key,
        inner: Grid | None = None,
        located: bool = False,
    ):
        """A network of k fields and s scalars whose output is zero.

        Raises:
            ValueError: grids that cannot hold the waves, or a pinned one.
        """
        if box.edges == "pinned":
            raise ValueError("a Fourier network works on periodic or bounded grids, not on pinned")
        check_grid(box, box if inner is None else inner, modes)
        if inner is not None:
            check_grid(inner, box, modes)
        self.inner, self.box, self.modes, self.located = inner, box, tuple(modes), located
        keys = jax.random.split(key, 2 + 4 * depth)
        places = _places(box).shape[0] if located else 0
        self.lift = eqx.nn.Linear(k + places, channels, key=keys[0])
        self.last = zero_layer(eqx.nn.Linear(channels, 1, key=keys[1]))
        wave, point, film, out = keys[2:].reshape(4, depth)
        self.waves = tuple(SpectralLayer(channels, 2 * channels, modes, box.edges, q) for q in wave)
        self.points = tuple(eqx.nn.Linear(channels, 2 * channels, key=q) for q in point)
        self.films = tuple(zero_layer(eqx.nn.Linear(max(s, 1), 2 * channels, key=q)) for q in film)
        self.outs = tuple(
            eqx.tree_at(lambda m: m.weight, layer, layer.weight / depth**0.5)
            for layer in (eqx.nn.Linear(channels, channels, key=q) for q in out)
        )

    def __call__(
        self, fields: Float[Array, "k *grid"], scalars: Float[Array, " s"], grid: Grid
    ) -> Float[Array, "*grid"]:
        """The output on `grid`, on which the fields are."""
        inner = grid if self.inner is None else self.inner
        h = jax.vmap(lambda x: resample(x, grid, inner))(fields)
        if self.located:
            h = jnp.concatenate([h, _places(inner).astype(h.dtype)])
        wide = lambda v: v.reshape(-1, *([1] * len(inner.shape)))
        each = lambda layer, h: jnp.einsum("oi,i...->o...", layer.weight, h) + wide(layer.bias)
        scalars = scalars if scalars.size else jnp.zeros(1, h.dtype)
        h = each(self.lift, h)
        blocks = zip(self.waves, self.points, self.films, self.outs, strict=True)
        for wave, point, film, out in blocks:
            a, b = jnp.split(wave(h) + each(point, h), 2)
            scale, shift = jnp.split(film(scalars), 2)
            h = h + each(out, a * jnp.tanh(b * (1 + wide(scale)) + wide(shift)))
        return resample(each(self.last, h)[0], inner, grid)


class OnGrid(AbstractNetwork):
    """An operator network for flat fields on one grid.

    Attributes:
        network: its weights.
        grid: where the fields are.
    """

    network: FourierNetwork
    grid: Grid = eqx.field(static=True)

    def __check_init__(self):
        network = self.network
        check_grid(self.grid, network.inner or network.box, network.modes)

    def __call__(self, fields, scalars):
        fields = fields.reshape(len(fields), *self.grid.shape)
        return self.network(fields, scalars, self.grid).reshape(-1)


def _places(grid: Grid) -> Float[Array, "channel *grid"]:
    """Where each point is, in numbers that are smooth over the box."""
    channels = []
    mesh = jnp.meshgrid(*(jnp.asarray(x) for x in grid.points), indexing="ij")
    for x, length in zip(mesh, grid.lengths, strict=True):
        if grid.edges == "periodic":
            angle = 2 * jnp.pi * x / length
            channels += [jnp.cos(angle), jnp.sin(angle)]
        else:
            channels.append(jnp.cos(jnp.pi * x / length))
    return jnp.stack(channels)
