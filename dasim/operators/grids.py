r"""Interpolation from regular grids, in rectangles and on the sphere.

A point between the coordinates a and b of an axis, at a + r (b - a), weighs 1 - r and r; in d
dimensions the weights of the axes are multiplied, so that 2^d grid points take part:

    h(x) = sum over corners c of  w_1(c_1) ... w_d(c_d)  x[c_1, ..., c_d]

Points and grid are known beforehand, and so are corners and weights: a call is a gather and a
weighted sum. The error is second order in the spacing.
"""

import itertools
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dasim.operators.base import AbstractOperator, Component, field_of
from dasim.types import State

SAME = 1e-6  # of a period: single precision does not tell two coordinates apart that are closer
WIDEST = 1.5  # of the largest spacing: a wider gap is no part of a global grid


def _coordinates(axis, name):
    axis = np.asarray(axis, float)
    if axis.ndim != 1 or axis.size < 2 or not np.isfinite(axis).all():
        raise ValueError(
            f"{name} has shape {axis.shape}, expected (n,) with at least 2 finite coordinates"
        )
    return axis


def _bracket(axis, points, period, name):
    """Indices of the two coordinates about each point, and how far it is to the second."""
    axis = _coordinates(axis, name)
    if period is None:
        steps = np.diff(axis)
        if not ((steps > 0).all() or (steps < 0).all()):
            i = int(np.argmax(steps * np.sign(axis[-1] - axis[0]) <= 0))
            raise ValueError(
                f"{name} has {axis[i]} before {axis[i + 1]}, expected coordinates that increase "
                "throughout or decrease throughout"
            )
        outside = ~((points >= axis.min()) & (points <= axis.max()))
        if outside.any():
            i = int(np.argmax(outside))
            raise ValueError(
                f"point {i} is at {points[i]} on {name}, outside its range {axis.min()} to "
                f"{axis.max()}; leave the point out, or give the axis a period"
            )
        order = np.argsort(axis)
        nodes = axis[order]
    else:
        if not np.isfinite(points).all():
            i = int(np.argmin(np.isfinite(points)))
            raise ValueError(f"point {i} is at {points[i]} on {name}, expected a finite number")
        order, nodes = _around(axis, period, name)
        order, nodes = np.append(order, order[0]), np.append(nodes, nodes[0] + period)
        points = nodes[0] + np.mod(points - nodes[0], period)
    upper = np.clip(np.searchsorted(nodes, points, side="right"), 1, len(nodes) - 1)
    share = (points - nodes[upper - 1]) / (nodes[upper] - nodes[upper - 1])
    return order[upper - 1], order[upper], share


def _around(axis, period, name):
    """A periodic axis in ascending order within one period: the order, and the coordinates."""
    if not (np.isfinite(period) and period > 0):
        raise ValueError(f"{name} has period {period}, expected a positive number")
    wrapped = np.mod(axis, period)
    order = np.argsort(wrapped)
    gaps = np.diff(wrapped[order], append=wrapped[order[0]] + period)
    if gaps.min() <= SAME * period:
        i = int(np.argmin(gaps))
        a, b = axis[order[i]], axis[order[(i + 1) % len(order)]]
        raise ValueError(
            f"{name} has {a} and {b}, which are one place with period {period}; drop one of them"
        )
    return order, wrapped[order]


def _corners(brackets, shape):
    """Flat indices and weights of the corners about each point, `(obs, 2^d)`."""
    indices, weights = [], []
    for corner in itertools.product((0, 1), repeat=len(shape)):
        at = [bracket[side] for bracket, side in zip(brackets, corner, strict=True)]
        indices.append(np.ravel_multi_index(at, shape))
        shares = [b[2] if side else 1 - b[2] for b, side in zip(brackets, corner, strict=True)]
        weights.append(np.prod(shares, axis=0))
    return np.stack(indices, 1), np.stack(weights, 1)


def _weigh(values: Float[Array, " n"], indices, weights) -> Float[Array, " obs"]:
    return jnp.sum(values[indices] * weights.astype(values.dtype), axis=1)


class Interpolate(AbstractOperator):
    """A field at points between those of its grid, linear along each axis.

    Attributes:
        indices: of the corners about each point in the flat field, `(obs, 2^d)`.
        weights: of the corners, `(obs, 2^d)`.
        shape: of the field.
        component: where the field is in the state.
    """

    indices: Int[Array, "obs corner"]
    weights: Float[Array, "obs corner"]
    shape: tuple[int, ...] = eqx.field(static=True)
    component: Component = eqx.field(static=True)
    linear = True

    def __init__(
        self,
        axes: Sequence,
        points,
        periods: Sequence[float | None] | None = None,
        component: Component = None,
    ):
        """Give the grid and the points, in the same units.

        Args:
            axes: coordinates along each dimension of the field, one array a dimension, evenly
                spaced or not. Those of an axis without a period increase or decrease.
            points: `(obs, d)`, or `(obs,)` of a field of one dimension.
            periods: of each axis, None for one that has ends; None for all such.
            component: the index that takes the field from a state of several: `0` from
                `(variable, *field)`, `(..., 0)` from `(*field, variable)`.

        Raises:
            ValueError: an axis that turns back or comes to a place twice, or a point that is
                outside an axis without a period, which is named with the axis's range.
        """
        points = np.asarray(points, float)
        if points.ndim == 1 and len(axes) == 1:
            points = points[:, None]
        periods = [None] * len(axes) if periods is None else list(periods)
        if points.ndim != 2 or points.shape[1] != len(axes) or len(periods) != len(axes):
            raise ValueError(
                f"Interpolate: {len(axes)} axes, {len(periods)} periods and points of shape "
                f"{points.shape}, expected one axis and period for each column of (obs, d)"
            )
        brackets = [
            _bracket(axis, points[:, k], period, f"axis {k}")
            for k, (axis, period) in enumerate(zip(axes, periods, strict=True))
        ]
        self.shape = tuple(len(axis) for axis in axes)
        indices, weights = _corners(brackets, self.shape)
        self.indices, self.weights = jnp.asarray(indices), jnp.asarray(weights, float)
        self.component = component

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        field = field_of(x, self.component, self.shape, "Interpolate")
        return _weigh(field.reshape(-1), self.indices, self.weights)


class InterpolateSphere(AbstractOperator):
    """A scalar on a global grid, `(latitude, longitude)`, at points, linear in both angles.

    Between the last row and a pole it is linear from the row to its mean, which stands for the
    pole's value. That suits scalars: near a pole the components of a wind turn with longitude.

    Attributes:
        indices: of the corners in the flat field, after which come the southern and the
            northern pole, `(obs, 4)`.
        weights: of the corners, `(obs, 4)`.
        rows: the most southern and the most northern row.
        shape: of the field.
        component: where the field is in the state.
    """

    indices: Int[Array, "obs corner"]
    weights: Float[Array, "obs corner"]
    rows: tuple[int, int] = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    component: Component = eqx.field(static=True)
    linear = True

    def __init__(self, latitude, longitude, points, component: Component = None):
        """Give the grid and the points in degrees; longitudes may run -180 to 180 or 0 to 360.

        Args:
            latitude: of the rows, `(n,)`, from south to north or from north to south.
            longitude: of the columns, `(m,)`, around the whole sphere, each once.
            points: latitude and longitude, `(obs, 2)`.
            component: the index that takes the field from a state of several: `0` from
                `(variable, *field)`, `(..., 0)` from `(*field, variable)`.

        Raises:
            ValueError: a grid that is not global, a longitude that comes twice, or a latitude
                beyond a pole.
        """
        latitude = _coordinates(latitude, "latitude")
        longitude = _coordinates(longitude, "longitude")
        points = np.asarray(points, float)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(
                f"InterpolateSphere: points have shape {points.shape}, expected (obs, 2) with "
                "latitude and longitude"
            )
        if np.abs(latitude).max() > 90:
            raise ValueError(f"latitude reaches {np.abs(latitude).max()}, expected at most 90")
        rows, shape = np.argsort(latitude), (latitude.size, longitude.size)
        around = _around(longitude, 360.0, "longitude")[1]
        for name, spacings, gap in (
            ("latitude", np.diff(latitude[rows]), max(90 + latitude.min(), 90 - latitude.max())),
            ("longitude", np.diff(around), 360 - np.ptp(around)),
        ):
            if gap > WIDEST * spacings.max():
                raise ValueError(
                    f"{name} leaves a gap of {gap} degrees, expected a grid of the whole sphere; "
                    "one of a region takes Interpolate"
                )
        # the poles are two more rows, but of one value each
        south, north = int(latitude.min() > -90), int(latitude.max() < 90)
        extended = np.concatenate([[-90.0] * south, latitude[rows], [90.0] * north])
        codes = np.concatenate([[-2] * south, rows, [-1] * north]).astype(int)
        low, high, up = _bracket(extended, points[:, 0], None, "latitude")
        left, right, east = _bracket(longitude, points[:, 1], 360.0, "longitude")
        indices, weights = [], []
        for row, share in ((codes[low], 1 - up), (codes[high], up)):
            for column, part in ((left, 1 - east), (right, east)):
                flat = row * shape[1] + column
                indices.append(np.where(row < 0, shape[0] * shape[1] + 2 + row, flat))
                weights.append(share * part)
        self.indices = jnp.asarray(np.stack(indices, 1))
        self.weights = jnp.asarray(np.stack(weights, 1), float)
        self.rows, self.shape, self.component = (int(rows[0]), int(rows[-1])), shape, component

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        field = field_of(x, self.component, self.shape, "InterpolateSphere")
        poles = jnp.stack([field[row].mean() for row in self.rows])
        return _weigh(jnp.concatenate([field.reshape(-1), poles]), self.indices, self.weights)
