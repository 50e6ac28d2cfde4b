r"""Sensors that see more than a point: areas of a field, and columns of an atmosphere.

    AreaMean:  h_k(x) = sum_i w_ki x_i / sum_i w_ki               i runs over the field
    Column:    h_pk(x) = sum_l W_kl (H x_l)_p                     l runs over the levels

with W the weighting functions of a radiometer's channels, for a column that is seen from above
and a transfer that is linear about a reference atmosphere, and H a horizontal operator.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.operators.base import AbstractOperator, Component, Operator, field_of, is_linear
from dasim.types import State


def area_weights(
    latitude, longitude, box: tuple[float, float, float, float] | None = None
) -> Float[np.ndarray, "latitude longitude"]:
    """The cosine of latitude at each point of an even grid, in proportion to a cell's area.

    Args:
        latitude: of the rows, `(n,)`, degrees.
        longitude: of the columns, `(m,)`, degrees of any convention.
        box: south, north, west and east, degrees; the weights are zero outside. It may span the
            meridian at which longitudes begin anew: 350 to 10 are the 20 degrees about 0.

    Raises:
        ValueError: no point of the grid lies in the box.
    """
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    # the cosine of 90 degrees is not quite zero in floating point, and could be below it
    rows = np.maximum(np.cos(np.deg2rad(latitude)), 0.0)
    columns = np.ones(longitude.size)
    if box is not None:
        south, north, west, east = box
        rows = rows * ((latitude >= south) & (latitude <= north))
        # all the way round is no width at all once wrapped
        width = 360.0 if east - west >= 360 else np.mod(east - west, 360.0)
        columns = columns * (np.mod(longitude - west, 360.0) <= width)
    weights = rows[:, None] * columns
    if not weights.sum() > 0:
        raise ValueError(f"box {box} (south, north, west, east) holds no point of the grid")
    return weights


class AreaMean(AbstractOperator):
    """Weighted means of a field.

    Attributes:
        weights: of each mean, scaled to sum 1, `(obs, *field)`.
        component: where the field is in the state.
    """

    weights: Float[Array, "obs *field"]
    component: Component = eqx.field(static=True)
    linear = True

    def __init__(self, weights, component: Component = None):
        """Give `weights`, `(obs, *field)`, of cells or from `area_weights`, and `component`.

        The component is the index that takes the field from a state of several: `0` from
        `(variable, *field)`, `(..., 0)` from `(*field, variable)`.

        Raises:
            ValueError: weights of one dimension, negative, or all zero for a mean.
        """
        weights = np.asarray(weights, float)
        if weights.ndim < 2:
            raise ValueError(
                f"AreaMean: weights have shape {weights.shape}, expected (obs, *field); one mean "
                "is weights[None]"
            )
        totals = weights.reshape(len(weights), -1).sum(1)
        bad = ~((weights >= 0).reshape(len(weights), -1).all(1) & (totals > 0))
        if bad.any():
            raise ValueError(
                f"AreaMean: weights[{int(np.argmax(bad))}] are negative somewhere or sum to zero"
            )
        scaled = weights / totals.reshape(-1, *[1] * (weights.ndim - 1))
        self.weights, self.component = jnp.asarray(scaled, float), component

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        field = field_of(x, self.component, self.weights.shape[1:], "AreaMean")
        rows = self.weights.reshape(len(self.weights), -1)
        return rows.astype(x.dtype) @ field.reshape(-1)


class Column(AbstractOperator):
    """What a sounder that looks straight down reads in each channel, at one or more places.

    The values are those of the first place in all channels, then those of the next.

    Attributes:
        weights: of the levels in each channel, `(channel, level)`.
        horizontal: operator that takes the places from the field of one level; None where the
            state is a column.
        axis: of the levels, once `component` is taken.
        component: the index that takes the levels' variable from a state of several: `0` from
            `(variable, level, ...)`, `(..., 0)` from `(level, ..., variable)`.
    """

    weights: Float[Array, "channel level"] = eqx.field(converter=lambda w: jnp.asarray(w, float))
    horizontal: Operator | None = None
    axis: int = eqx.field(static=True, default=0)
    component: Component = eqx.field(static=True, default=None)

    @property
    def linear(self) -> bool:
        return self.horizontal is None or is_linear(self.horizontal)

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        levels = jnp.moveaxis(x if self.component is None else x[self.component], self.axis, 0)
        if len(levels) != self.weights.shape[1] or (self.horizontal is None and levels.ndim != 1):
            raise ValueError(
                f"Column: the levels are {levels.shape} and the weights are of "
                f"{self.weights.shape[1]} levels, expected (level, *field), or (level,) without a "
                "horizontal operator"
            )
        if self.horizontal is not None:
            levels = jax.vmap(self.horizontal, (0, None))(levels, t)
        weights = self.weights.astype(levels.dtype)
        return (weights @ levels).T.reshape(-1)
