"""Values and means of a field: what a sensor reads is the same whatever the grid."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields import Grid
from dasim.operators.base import AbstractOperator
from dasim.types import State

NODES = 12  # of Gauss's quadrature along each axis


class FieldValues(AbstractOperator):
    """The field's expansion (`dasim.fields.grids`) at points: exact for all that the grid resolves.

    Attributes:
        grid: of the states.
        weights: of the states' values, `(obs, size)`.
    """

    grid: Grid
    weights: Float[Array, "obs size"]

    def __init__(self, grid: Grid, positions):
        """Sensors at `positions`, `(obs, axis)`, in the unit of the grid's box; wrapped if periodic.

        Raises:
            ValueError: positions of another shape, or outside a box that is not periodic.
        """
        self.grid = grid
        self.weights = jnp.asarray(grid.basis(_inside(grid, positions)), float)

    @property
    def linear(self):
        return True

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        return _read(self, x)


class FieldMeans(AbstractOperator):
    """The field's mean over a box about each of some points.

    Attributes:
        grid: of the states.
        weights: of the states' values, `(obs, size)`.
    """

    grid: Grid
    weights: Float[Array, "obs size"]

    def __init__(self, grid: Grid, positions, width):
        """Means over boxes of `width`, a number or one for each axis, centred at `positions`.

        Raises:
            ValueError: positions of another shape, a box that reaches outside one that is not
                periodic, or a width that is not positive.
        """
        positions = _inside(grid, positions)
        axes = positions.shape[1]
        width = np.broadcast_to(np.asarray(width, float), (axes,))
        if not (width > 0).all():
            raise ValueError(f"width is {width}, expected positive ones")
        nodes, shares = np.polynomial.legendre.leggauss(NODES)
        offsets = np.stack(np.meshgrid(*[nodes / 2] * axes, indexing="ij"), -1).reshape(-1, axes)
        share = np.prod(np.meshgrid(*[shares / 2] * axes, indexing="ij"), 0).reshape(-1)
        for corner in (-0.5, 0.5):
            _inside(grid, positions + corner * width)
        points = positions[:, None] + offsets * width
        basis = grid.basis(points.reshape(-1, axes)).reshape(len(positions), len(share), -1)
        self.grid = grid
        self.weights = jnp.asarray(share @ basis, float)

    @property
    def linear(self):
        return True

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        return _read(self, x)


def _inside(grid: Grid, positions) -> np.ndarray:
    positions = np.asarray(positions, float)
    if positions.ndim != 2 or positions.shape[1] != len(grid.shape):
        raise ValueError(
            f"positions have shape {positions.shape}, expected (obs, {len(grid.shape)})"
        )
    outside = ((positions < 0) | (positions > np.asarray(grid.lengths))).any(1)
    if grid.edges != "periodic" and outside.any():
        i = int(np.argmax(outside))
        raise ValueError(
            f"position {i} is {positions[i]}, outside the box of lengths {grid.lengths}"
        )
    return positions


def _read(operator: FieldValues | FieldMeans, x: State) -> Float[Array, " obs"]:
    if x.shape != operator.grid.shape:
        raise ValueError(
            f"a state of shape {x.shape}, expected one on the operator's grid, "
            f"{operator.grid.shape}: make the operator for the states' grid"
        )
    return operator.weights.astype(x.dtype) @ x.reshape(-1)
