"""Helpers for priors of functions: boxes, networks whose output is not zero, fields, denoisers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.fields import Grid, Matern, SquaredExponential, noise_process, resample
from dasim.priors import (
    FieldDenoiser,
    FourierNetwork,
    GaussianFieldDenoiser,
    OnGrid,
    flow,
)

rng = np.random.default_rng
KEY = jax.random.key(0)
RING, ROD = Grid((32,), (2.0,)), Grid((32,), (2.0,), "bounded")
EDGES = pytest.mark.parametrize("box", [RING, ROD], ids=["periodic", "bounded"])
NARROW = SquaredExponential(0.25)  # waves beyond the eighth of the box have 1e-7 of its variance

# each compiled as one program
moved = jax.jit(resample, static_argnums=(1, 2))
drawn = eqx.filter_jit(flow)
dense_of = eqx.filter_jit(lambda cov: cov.dense())


def stirred(network):
    """A network whose output is not zero, and heeds the scalars."""

    def normal(layers):
        leaves, tree = jax.tree.flatten(layers)
        return jax.tree.unflatten(tree, [jnp.asarray(rng(1).normal(size=a.shape)) for a in leaves])

    return eqx.tree_at(lambda n: (n.last, n.films), network, replace_fn=normal)


def network(box=RING, inner=None, located=False, modes=(4,), fields=2, depth=1):
    return stirred(FourierNetwork(fields, 1, box, modes, 4, depth, KEY, inner, located))


def smooth(grid, highest=8, fields=2):
    """Fields of few waves, the same functions on every grid."""
    k, (x,), (length,) = np.arange(highest + 1), grid.points, grid.lengths
    size, phase = rng(2).normal(size=(2, fields, len(k), 1))
    turns = 2 if grid.edges == "periodic" else 1
    angle = np.pi * turns * k[:, None] * x / length + phase * (turns - 1)
    return jnp.asarray((size * np.cos(angle)).sum(1))


def gaussian(box, n=8):
    """A field, under noise of another law."""
    grid = box.at((n,))
    law, noise = (
        noise_process(Matern(0.6, 1.5), grid, 1.3),
        noise_process(Matern(0.3, 0.5), grid, 0.9),
    )
    return GaussianFieldDenoiser(jnp.asarray(0.4), law, noise)


def matrices(denoiser):
    return np.asarray(dense_of(denoiser.law)), np.asarray(dense_of(denoiser.noise))


def trained(box, grid=None, spectrum=None, **options):
    """A denoiser as if it had been trained."""
    noise = noise_process(spectrum or Matern(0.5, 1.5), grid or box, 1.7)
    return FieldDenoiser(jnp.asarray(0.4), noise, OnGrid(network(box, fields=1, **options), box))
