r"""Values and means of a field: what a sensor reads is the same whatever the grid.

Both are sums over the functions of the grid (`dasim.fields.grids`), whose means are known: that of
cos(k x) over an interval of width w about x is cos(k x) sin(k w / 2) / (k w / 2).
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields import Grid
from dasim.operators.base import AbstractOperator
from dasim.types import State


class _Weighted(AbstractOperator):
    """Weighted sums of the values on a grid."""

    grid: eqx.AbstractVar[Grid]
    weights: eqx.AbstractVar[Float[Array, "obs size"]]

    @property
    def linear(self):
        return True

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        if x.shape != self.grid.shape:
            raise ValueError(
                f"a state of shape {x.shape}, expected one on the operator's grid, "
                f"{self.grid.shape}: make the operator for the states' grid"
            )
        return self.weights.astype(x.dtype) @ x.reshape(-1)


class FieldValues(_Weighted):
    """The field's expansion (`dasim.fields.grids`) at points: exact for all that the grid resolves.

    Attributes:
        grid: of the states.
        weights: of the states' values, `(obs, size)`.
    """

    grid: Grid
    weights: Float[Array, "obs size"]

    def __init__(self, grid: Grid, positions):
        """Sensors at `positions`, `(obs, axis)`, in the unit of the box; wrapped if periodic.

        Raises:
            ValueError: positions of another shape, or outside a box that is not periodic.
        """
        self.grid = grid
        self.weights = jnp.asarray(grid.basis(_inside(grid, positions)), float)


class FieldMeans(_Weighted):
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
        width = np.broadcast_to(np.asarray(width, float), positions.shape[1:])
        if not (width > 0).all():
            raise ValueError(f"width is {width}, expected positive ones")
        for side in (-0.5, 0.5):
            _inside(grid, positions + side * width)
        self.grid = grid
        self.weights = jnp.asarray(grid.basis(positions, width), float)


def _inside(grid: Grid, positions) -> np.ndarray:
    positions = np.asarray(positions, float)
    if positions.ndim != 2 or positions.shape[1] != len(grid.shape):
        raise ValueError(
            f"positions have shape {positions.shape}, expected (obs, {len(grid.shape)})"
        )
    if grid.edges == "periodic":
        inside = np.isfinite(positions)
    else:
        inside = (positions >= 0) & (positions <= np.asarray(grid.lengths))
    outside = ~inside.all(1)
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(
            f"position {i} is {positions[i]}, outside the box of lengths {grid.lengths}"
        )
    return positions
