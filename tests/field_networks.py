"""Helpers for priors of functions: two boxes, networks whose output is not zero, smooth fields."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.fields import Grid, resample
from dasim.priors import FourierNetwork

rng = np.random.default_rng
KEY = jax.random.key(0)
RING, ROD = Grid((32,), (2.0,)), Grid((32,), (2.0,), "bounded")
EDGES = pytest.mark.parametrize("box", [RING, ROD], ids=["periodic", "bounded"])
moved = jax.jit(resample, static_argnums=(1, 2))  # compiled as one program


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
