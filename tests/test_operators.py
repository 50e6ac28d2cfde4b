"""Observation operators against SciPy, closed forms and central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from dasim.fields import Grid
from dasim.observe import Select
from dasim.operators import (
    AreaMean,
    Column,
    Compose,
    FieldMeans,
    FieldValues,
    Interpolate,
    InterpolateSphere,
    Log,
    Modes,
    Power,
    TimeMean,
    area_weights,
    check_operator,
)

pytestmark = pytest.mark.usefixtures("float64")
rng = np.random.default_rng


AXES = [
    np.array([0.0, 0.4, 1.0, 1.3, 2.0]),
    np.array([5.0, 3.5, 3.0, -1.0]),  # decreasing and irregular
    np.linspace(-1.0, 1.0, 6),
]


def points_in(axes, n, seed=0):
    low, high = [a.min() for a in axes], [a.max() for a in axes]
    return rng(seed).uniform(low, high, (n, len(axes)))


def scipy_values(axes, field, points):
    ascending = [np.sort(a) for a in axes]
    flips = tuple(slice(None, None, 1 if a[0] < a[-1] else -1) for a in axes)
    return RegularGridInterpolator(ascending, field[flips])(points)


# --- grids


@pytest.mark.parametrize("d", [1, 2, 3])
def test_interpolation_agrees_with_scipy(d):
    axes = AXES[-d:]
    points = points_in(axes, 9)
    points[0] = [a[0] for a in axes]  # corners of the grid belong to it
    points[1] = [a[-1] for a in axes]
    field = rng(1).normal(size=[len(a) for a in axes])
    operator = Interpolate(axes, points[:, 0] if d == 1 else points)
    expected = scipy_values(axes, field, points)
    np.testing.assert_allclose(operator(jnp.asarray(field), 0.0), expected, rtol=1e-12)
    assert operator.linear
    check_operator(operator, field)


def test_interpolation_takes_a_component():
    axes = AXES[:2]
    points = points_in(axes, 5)
    fields = rng(2).normal(size=(3, *(len(a) for a in axes)))
    expected = scipy_values(axes, fields[1], points)
    leading, trailing = (Interpolate(axes, points, component=c) for c in (1, (..., 1)))
    np.testing.assert_allclose(leading(jnp.asarray(fields), 0.0), expected, rtol=1e-12)
    moved = jnp.asarray(np.moveaxis(fields, 0, -1))
    np.testing.assert_allclose(jax.jit(lambda x: trailing(x, 0.0))(moved), expected, rtol=1e-12)
    with pytest.raises(ValueError, match=r"shape \(3, 5, 4\), expected \(5, 4\); component"):
        Interpolate(axes, points)(jnp.asarray(fields), 0.0)


@pytest.mark.parametrize("turn", [-1, 0, 2])
def test_interpolation_on_a_ring(turn):
    axis = np.arange(8) * 0.5  # of period 4
    field = rng(3).normal(size=8)
    points = np.array([0.0, 1.2, 3.5, 3.9, 3.999])
    operator = Interpolate([axis], points + 4 * turn, periods=[4.0])
    expected = np.interp(points, np.append(axis, 4.0), np.append(field, field[0]))
    np.testing.assert_allclose(operator(jnp.asarray(field), 0.0), expected, rtol=1e-10)
    # wherever the axis begins
    shifted = Interpolate([axis - 2.0], points, periods=[4.0])
    np.testing.assert_allclose(
        shifted(jnp.asarray(np.roll(field, -4)), 0.0),
        np.interp(points, np.append(axis, 4.0), np.append(field, field[0])),
        rtol=1e-10,
    )


def test_single_precision_stays_single():
    operator = Interpolate([AXES[0]], [0.1, 1.9])
    assert operator(jnp.ones(5, jnp.float32), 0.0).dtype == jnp.float32
    field = jnp.asarray(rng(4).normal(size=5), jnp.float32)
    check_operator(operator, field)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.0, 1.0]], [0.5, 1.5, -2.0]), r"point 1 is at 1.5 on axis 0, .* 0.0 to 1.0"),
        (([[0.0, 1.0]], [np.nan]), "point 0 is at nan"),
        (([[0.0, 1.0]], [np.inf], [2.0]), "point 0 is at inf on axis 0, expected a finite"),
        (([[0.0, 1.0, 0.5]], [0.2]), "axis 0 has 1.0 before 0.5"),
        (([[0.0]], [0.0]), r"axis 0 has shape \(1,\)"),
        (([[0.0, 180.0, 360.0]], [0.0], [360.0]), "0.0 and 360.0, which are one place|360.0 and"),
        (([[0.0, 1.0]], [0.0], [-1.0]), "period -1.0, expected a positive"),
        (([[0.0, 1.0]] * 2, [[0.5]]), r"2 axes, 2 periods and points of shape \(1, 1\)"),
        (([[0.0, 1.0]], [0.5], [None, None]), "1 axes, 2 periods"),
    ],
)
def test_interpolation_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Interpolate(*arguments)


# --- the sphere


def grid(n, offset=0.5, start=-180.0, north_first=False):
    """n rows of latitude, offset from the poles by a part of a row, and 2 n columns."""
    rows = n if offset else n + 1
    latitude = -90 + 180 / n * (np.arange(rows) + offset)
    return latitude[::-1] if north_first else latitude, start + 360 / (2 * n) * np.arange(2 * n)


def smooth(latitude, longitude):
    """sin(latitude) + cos(latitude) cos(longitude): x + z on the sphere."""
    latitude, longitude = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.sin(latitude) + np.cos(latitude) * np.cos(longitude - 0.3)


PLACES = np.stack(
    [
        np.append(
            np.rad2deg(np.arcsin(rng(5).uniform(-1, 1, 400))), [90.0, -90.0, 89.9, 0.0, 12.0]
        ),
        np.append(rng(6).uniform(-400, 400, 400), [0.0, 77.0, 180.0, 359.999, -179.999]),
    ],
    axis=1,
)


@pytest.mark.parametrize("options", [{}, {"offset": 0.0}, {"start": 0.0, "north_first": True}])
def test_the_sphere_to_second_order(options):
    errors = []
    for n in (18, 36):
        latitude, longitude = grid(n, **options)
        operator = InterpolateSphere(latitude, longitude, PLACES)
        field = jnp.asarray(smooth(latitude[:, None], longitude))
        errors.append(np.abs(operator(field, 0.0) - smooth(*PLACES.T)).max())
    # the largest error is that of the worst point of a cell: a little off the factor 4
    assert errors[0] < 0.02 and 3.2 < errors[0] / errors[1] < 4.8


@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_the_sphere_is_exact_at_nodes(turn):
    latitude, longitude = grid(6, start=0.0)
    nodes = np.stack(np.meshgrid(latitude, longitude + turn, indexing="ij"), -1).reshape(-1, 2)
    field = rng(7).normal(size=(6, 12))
    operator = InterpolateSphere(latitude, longitude, nodes)
    np.testing.assert_allclose(operator(jnp.asarray(field), 0.0), field.reshape(-1), atol=1e-12)


def test_the_sphere_at_seam_and_poles():
    latitude, longitude = np.array([75.0, 45.0, 15.0, -15.0, -45.0, -75.0]), np.arange(0, 360, 30)
    field = rng(8).normal(size=(6, 12))
    points = [[45.0, 345.0], [45.0, -3.0], [90.0, 123.0], [85.0, 60.0], [-78.0, 15.0]]
    mean, south = field[0].mean(), field[5].mean()
    row = (field[5, 0] + field[5, 1]) / 2
    expected = [
        (field[1, 11] + field[1, 0]) / 2,
        0.1 * field[1, 11] + 0.9 * field[1, 0],
        mean,
        field[0, 2] / 3 + 2 / 3 * mean,
        0.8 * row + 0.2 * south,
    ]
    operator = InterpolateSphere(latitude, longitude, points, component=0)
    state = jnp.asarray(np.stack([field, 0 * field]))
    np.testing.assert_allclose(operator(state, 0.0), expected, rtol=1e-12)
    check_operator(operator, state)


@pytest.mark.parametrize(
    ("latitude", "longitude", "point", "message"),
    [
        (np.linspace(30, 60, 4), np.arange(0, 360, 30), [40, 0], "latitude leaves a gap of 120"),
        (grid(6)[0], np.arange(0, 90, 30), [40, 0], "longitude leaves a gap of 300"),
        (grid(6)[0], np.arange(0, 361, 30), [40, 0], "are one place with period 360"),
        (np.linspace(-100, 100, 9), np.arange(0, 360, 30), [40, 0], "reaches 100"),
        (*grid(6), [91.0, 0.0], "point 0 is at 91.0 on latitude"),
        (*grid(6), [91.0], r"points have shape \(1, 1\)"),
    ],
)
def test_the_sphere_refuses(latitude, longitude, point, message):
    with pytest.raises(ValueError, match=message):
        InterpolateSphere(latitude, longitude, [point])


# --- areas, columns, modes, time


def test_area_means():
    latitude, longitude = grid(60, start=0.0)
    weights = [
        area_weights(latitude, longitude),
        area_weights(latitude, longitude, (0, 90, -180, 180)),
        area_weights(latitude, longitude, (30, 60, 350, 10)),
    ]
    field = jnp.asarray(smooth(latitude[:, None], longitude))
    operator = AreaMean(weights)
    # integrals of the field over sphere, half sphere and box, divided by the areas
    a, b = np.deg2rad([30, 60])
    box = (np.sin(b) ** 2 - np.sin(a) ** 2) / 2 / (np.sin(b) - np.sin(a))
    east, west = np.deg2rad(10) - 0.3, np.deg2rad(-10) - 0.3
    turn = (np.sin(east) - np.sin(west)) / np.deg2rad(20)
    square = (b - a) / 2 + (np.sin(2 * b) - np.sin(2 * a)) / 4
    expected = [0.0, 0.5, box + turn * square / (np.sin(b) - np.sin(a))]
    # cells of three degrees: errors of the second order, and cells that the box's edge cuts
    np.testing.assert_allclose(operator(field, 0.0), expected, atol=2e-3)
    check_operator(operator, field)
    state = jnp.stack([field, 2 * field], -1)
    trailing = AreaMean(weights, component=(..., 1))
    np.testing.assert_allclose(trailing(state, 0.0), 2 * operator(field, 0.0))
    with pytest.raises(ValueError, match="holds no point"):
        area_weights(latitude, longitude, (0.1, 0.2, 0, 1))
    with pytest.raises(ValueError, match=r"weights\[1\] are negative"):
        AreaMean([[1.0, 1.0], [2.0, -1.0]])
    with pytest.raises(ValueError, match=r"expected \(obs, \*field\)"):
        AreaMean([1.0, 1.0])


def test_columns():
    weights = rng(9).uniform(size=(3, 4))
    state = rng(10).normal(size=(2, 4, 5))  # (variable, level, x)
    axis, points = np.arange(5.0), np.array([0.5, 3.25])
    operator = Column(weights, Interpolate([axis], points), component=1)
    at = np.stack([np.interp(points, axis, level) for level in state[1]])
    expected = np.stack([weights @ at[:, p] for p in range(2)]).reshape(-1)
    np.testing.assert_allclose(operator(jnp.asarray(state), 0.0), expected, rtol=1e-12)
    assert operator.linear
    check_operator(operator, state)
    last = Column(weights, Interpolate([axis], points), axis=-1)
    np.testing.assert_allclose(last(jnp.asarray(state[1].T), 0.0), expected, rtol=1e-12)
    single = Column(weights)(jnp.asarray(state[1, :, 0]), 0.0)
    np.testing.assert_allclose(single, weights @ state[1, :, 0], rtol=1e-12)
    assert not Column(weights, Compose(Log(), Select([0]))).linear
    with pytest.raises(ValueError, match="weights are of 4 levels"):
        Column(weights)(jnp.ones(5), 0.0)


def test_modes():
    basis, mean = rng(11).normal(size=(3, 4, 5)), rng(12).normal(size=(4, 5))
    c = rng(13).normal(size=3)
    field = mean + np.einsum("k,kij->ij", c, basis)
    whole = Modes(basis, mean)
    np.testing.assert_allclose(whole(jnp.asarray(c), 0.0), field.reshape(-1), rtol=1e-12)
    axes = [np.arange(4.0), np.arange(5.0)]
    points = points_in(axes, 6)
    read = Modes(basis, mean, Interpolate(axes, points))
    expected = scipy_values(axes, field, points)
    np.testing.assert_allclose(read(jnp.asarray(c), 0.0), expected, rtol=1e-12)
    assert read.linear and read.basis.shape == (3, 6)  # the field is not made in a call
    squared = Modes(basis, None, Compose(Power(2), Interpolate(axes, points)))
    np.testing.assert_allclose(
        squared(jnp.asarray(c), 0.0), scipy_values(axes, field - mean, points) ** 2, rtol=1e-12
    )
    assert not squared.linear
    for operator in (whole, read, squared):
        check_operator(operator, c)
    with pytest.raises(ValueError, match=r"mean \(4,\), expected"):
        Modes(basis, mean[:, 0])
    with pytest.raises(ValueError, match=r"the state has shape \(2,\), expected \(3,\)"):
        read(jnp.ones(2), 0.0)
    with pytest.raises(ValueError, match="linear, but reads"):
        Modes(basis, mean, Drift())


class Drift(Select):
    """Says it is linear, and changes with time."""

    def __init__(self):
        super().__init__([0])

    def __call__(self, x, t):
        return super().__call__(x, t) * (1 + t)


def test_time_means():
    x = rng(14).normal(size=(4, 3))
    operator = TimeMean(Select([0, 2]))
    np.testing.assert_allclose(operator(jnp.asarray(x), 0.0), x[:, [0, 2]].mean(0), rtol=1e-12)
    weighted = TimeMean(Select([1]), weights=[1, 2, 3, 4])
    expected = np.average(x[:, [1]], axis=0, weights=[1, 2, 3, 4])
    np.testing.assert_allclose(weighted(jnp.asarray(x), 0.0), expected, rtol=1e-12)
    # the last step is at t
    timed = TimeMean(lambda x, t: x[:1] * t, interval=0.5)
    expected = np.mean(x[:, 0] * [8.5, 9.0, 9.5, 10.0])
    np.testing.assert_allclose(timed(jnp.asarray(x), 10.0), [expected], rtol=1e-12)
    assert operator.linear and not timed.linear
    for each in (operator, weighted, timed):
        check_operator(each, x, 10.0)
    with pytest.raises(ValueError, match="4 weights for a trajectory of 3 steps"):
        weighted(jnp.asarray(x[:3]), 0.0)


# --- fields on grids of any number of points

# waves of a box of length 2, and their integrals
ON_BOX = {
    "periodic": (
        lambda x: 0.3 + np.sin(np.pi * x) - 0.5 * np.cos(9 * np.pi * x),
        lambda x: 0.3 * x - np.cos(np.pi * x) / np.pi - 0.5 * np.sin(9 * np.pi * x) / (9 * np.pi),
    ),
    "bounded": (
        lambda x: 0.3 - 0.5 * np.cos(7.5 * np.pi * x),
        lambda x: 0.3 * x - 0.5 * np.sin(7.5 * np.pi * x) / (7.5 * np.pi),
    ),
    "pinned": (
        lambda x: np.sin(7.25 * np.pi * x),
        lambda x: -np.cos(7.25 * np.pi * x) / (7.25 * np.pi),
    ),
}
POSITIONS = np.array([[0.5], [0.77], [1.23]])


@pytest.mark.parametrize("n", [32, 63])
@pytest.mark.parametrize("edges", ON_BOX)
def test_a_field_is_read_alike_on_all_grids(edges, n):
    grid, (wave, integral) = Grid((n,), (2.0,), edges), ON_BOX[edges]
    x, positions = jnp.asarray(wave(grid.points[0])), POSITIONS
    if edges == "periodic":
        positions = positions + [[0.0], [2.0], [-2.0]]  # round the ring
    values = FieldValues(grid, positions)
    np.testing.assert_allclose(values(x, 0.0), wave(POSITIONS[:, 0]), atol=1e-12)
    for width in (1e-3, 0.9):
        means = FieldMeans(grid, positions, width)
        low, high = POSITIONS[:, 0] - width / 2, POSITIONS[:, 0] + width / 2
        expected = (integral(high) - integral(low)) / width
        np.testing.assert_allclose(means(x, 0.0), expected, atol=1e-11)
        assert values.linear and means.linear
    check_operator(values, x)
    check_operator(means, x)


def test_a_field_of_two_dimensions_is_read():
    wave, integral = ON_BOX["periodic"]
    positions, width = np.array([[0.5, 1.2], [1.9, 0.1]]), np.array([0.4, 0.7])
    values = wave(positions).prod(1)
    means = ((integral(positions + width / 2) - integral(positions - width / 2)) / width).prod(1)
    for shape in ((32, 21), (20, 32)):
        grid = Grid(shape, (2.0, 2.0))
        x = jnp.asarray(np.multiply.outer(*(wave(a) for a in grid.points)))
        np.testing.assert_allclose(FieldValues(grid, positions)(x, 0.0), values, atol=1e-12)
        operator = FieldMeans(grid, positions, width)
        np.testing.assert_allclose(operator(x, 0.0), means, atol=1e-12)
    check_operator(operator, x)


def test_a_mean_over_the_whole_ring_is_the_constant_wave():
    grid = Grid((16,), (2.0,))
    x = rng(20).normal(size=16)
    got = FieldMeans(grid, [[0.3]], 2.0)(jnp.asarray(x), 0.0)
    np.testing.assert_allclose(got, [x.mean()], atol=1e-14)


def test_sensors_outside_a_box_are_refused():
    bounded = Grid((16,), (2.0,), "bounded")
    FieldValues(bounded, [[0.0], [2.0]])
    with pytest.raises(ValueError, match=r"position 1 is \[2.1\], outside .* \(2.0,\)"):
        FieldValues(bounded, [[1.0], [2.1]])
    with pytest.raises(ValueError, match="outside the box"):
        FieldMeans(bounded, [[1.9]], 0.4)
    for grid in (bounded, Grid((16,), (2.0,))):
        with pytest.raises(ValueError, match=r"position 0 is \[nan\]"):
            FieldValues(grid, [[np.nan]])
        with pytest.raises(ValueError, match=r"expected \(obs, 1\)"):
            FieldValues(grid, [0.5, 1.0])
        with pytest.raises(ValueError, match="width is .*expected positive"):
            FieldMeans(grid, [[1.0]], 0.0)


def test_an_operator_of_a_field_is_of_one_grid():
    grid = Grid((16,), (2.0,))
    for operator in (FieldValues(grid, [[0.5]]), FieldMeans(grid, [[0.5]], 0.1)):
        with pytest.raises(ValueError, match=r"shape \(32,\), expected .* \(16,\): make"):
            operator(jnp.zeros(32), 0.0)
