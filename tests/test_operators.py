"""Observation operators against SciPy, closed forms and central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from dasim.fields import Grid
from dasim.filters import ConditionalScoreFilter, KalmanFilter, StochasticEnKF
from dasim.models import LinearGaussian
from dasim.observe import Gaussian, Observation, Select
from dasim.operators import (
    AreaMean,
    BlackBox,
    Column,
    Compose,
    FieldMeans,
    FieldValues,
    Interpolate,
    InterpolateSphere,
    Log,
    Modes,
    Power,
    RadialVelocity,
    Stack,
    TimeMean,
    WindDirection,
    WindSpeed,
    WithDerivative,
    area_weights,
    check_operator,
)
from dasim.transitions import ModelTransition
from dasim.types import Observations

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


# --- functions of what is read

U, V, W = Select(range(0, 4)), Select(range(4, 8)), Select(range(8, 12))
WIND = np.array([0.0, 3.0, -4.0, 0.3, -5.0, 4.0, 3.0, 0.2, 0.1, -0.2, 0.3, 0.4])


def test_wind_speed_and_direction():
    speed, direction = WindSpeed(U, V), WindDirection(U, V)
    u, v = WIND[:4], WIND[4:8]
    np.testing.assert_allclose(speed(jnp.asarray(WIND), 0.0), np.hypot(u, v), rtol=1e-12)
    expected = (270 - np.rad2deg(np.arctan2(v, u))) % 360
    np.testing.assert_allclose(direction(jnp.asarray(WIND), 0.0), expected, atol=1e-10)
    assert not speed.linear and not direction.linear
    # north is where the direction jumps
    check_operator(speed, WIND)
    check_operator(direction, np.where(WIND == 0, 1.0, WIND))


@jax.jit
def wind(x):
    """Speed, direction and their derivatives by both modes."""
    one = Stack([f(Select([0]), Select([1])) for f in (WindSpeed, WindDirection)])
    return one(x, 0.0), jax.jacrev(one)(x, 0.0), jax.jacfwd(one)(x, 0.0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    ("u", "v", "blows_from"),
    [(0, -1, 0), (-1, 0, 90), (0, 1, 180), (1, 0, 270), (1e-300, 1e-300, 0), (1e-18, -1, 0)],
)
def test_wind_from_each_quarter_and_in_calm(u, v, blows_from, dtype):
    got, reverse, forward = wind(jnp.asarray([u, v], dtype))
    assert got.dtype == dtype
    assert jnp.isfinite(reverse).all() and jnp.isfinite(forward).all()
    assert 0 <= got[1] < 360
    np.testing.assert_allclose(got, [np.hypot(u, v), blows_from], atol=1e-4)


def test_the_slope_of_the_direction_is_one_over_the_speed():
    slope = jax.jacobian(WindDirection(Select([0]), Select([1])))(jnp.array([0.0, -8.0]), 0.0)
    np.testing.assert_allclose(slope, [[-np.rad2deg(1 / 8), 0.0]], atol=1e-12)


def test_radial_velocity():
    azimuth, elevation = np.array([0.0, 90.0, 200.0, 315.0]), np.array([0.0, 0.0, 10.0, 60.0])
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    beam = np.stack([np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), np.sin(e)])
    u, v, w = WIND.reshape(3, 4)
    full = RadialVelocity(U, V, azimuth, elevation, W, fall_speed=6.0)
    expected = np.sum(beam * np.stack([u, v, w - 6.0]), 0)
    np.testing.assert_allclose(full(jnp.asarray(WIND), 0.0), expected, rtol=1e-12)
    flat = RadialVelocity(U, V, azimuth)
    expected = u * np.sin(a) + v * np.cos(a)
    np.testing.assert_allclose(flat(jnp.asarray(WIND), 0.0), expected, rtol=1e-12)
    told = RadialVelocity(U, V, azimuth, elevation, fall_speed=Compose(Power(2), W))
    expected = np.sum(beam * np.stack([u, v, -(w**2)]), 0)
    np.testing.assert_allclose(told(jnp.asarray(WIND), 0.0), expected, rtol=1e-12)
    assert full.linear and flat.linear and not told.linear
    for operator in (full, flat, told):
        check_operator(operator, WIND)


def test_logarithms():
    operator = Compose(Log(0.1), Select([0, 1, 2]))
    x = jnp.array([2.0, 0.1, 0.02])
    expected = [np.log(2.0), np.log(0.1), np.log(0.1) - 0.8]
    np.testing.assert_allclose(operator(x, 0.0), expected, rtol=1e-12)
    slopes = np.diag(jax.jacobian(operator)(jnp.array([2.0, 0.0, -3.0]), 0.0))
    np.testing.assert_allclose(slopes, [0.5, 10.0, 10.0], rtol=1e-12)
    check_operator(operator, jnp.array([2.0, 0.5, -0.3]))
    with pytest.raises(ValueError, match="floor is 0, expected a positive number"):
        Log(0)


@pytest.mark.parametrize("exponent", [0.25, 1, 1.7, 2, 3])
def test_powers(exponent):
    operator = Power(exponent, floor=0.01)
    x = np.array([0.01, 0.5, 4.0])
    np.testing.assert_allclose(operator(jnp.asarray(x), 0.0), x**exponent, rtol=1e-12)
    sign = 1 if exponent == 2 else -1
    np.testing.assert_allclose(operator(jnp.asarray(-x), 0.0), sign * x**exponent, rtol=1e-12)
    slopes = np.diag(jax.jacobian(operator)(jnp.array([0.0, 0.002, 3.0]), 0.0))
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(slopes[2], exponent * 3 ** (exponent - 1), rtol=1e-12)
    check_operator(operator, np.array([-2.0, 0.003, 1.5]))
    if exponent < 1:  # value and slope go on at the floor
        f = jax.jit(jax.vmap(jax.value_and_grad(lambda x: operator(x, 0.0)[0])))
        for low, high in f(jnp.array([0.01 - 1e-9, 0.01 + 1e-9])):
            np.testing.assert_allclose(low, high, rtol=1e-5)


# --- composition


def test_composition():
    f = Interpolate([AXES[0]], [0.1, 0.9])
    x = rng(15).uniform(1, 2, 5)
    composed = f.then(Log()).then(Power(2))
    expected = np.log(np.interp([0.1, 0.9], AXES[0], x)) ** 2
    np.testing.assert_allclose(composed(jnp.asarray(x), 0.0), expected, rtol=1e-12)
    stacked = Stack([f, composed, lambda x, t: x[:1] * t])
    np.testing.assert_allclose(
        stacked(jnp.asarray(x), 3.0),
        [*np.interp([0.1, 0.9], AXES[0], x), *expected, 3 * x[0]],
        rtol=1e-12,
    )
    check_operator(stacked, x, 3.0)
    assert not composed.linear and not stacked.linear
    assert Stack([f, Select([0])]).linear and f.then(Select([1])).linear
    with pytest.raises(ValueError, match="no operators"):
        Stack([])


# --- operators in NumPy


def reading(x, t):
    x[0] *= 1.0  # a function may work in place
    return np.array([x[0] ** 2 + t, np.sin(x[1]) * x[2]])


def slopes(x, t):
    return np.array([[2 * x[0], 0, 0], [0, np.cos(x[1]) * x[2], np.sin(x[1])]])


def readings(x, t):
    return np.stack([x[:, 0] ** 2 + t, np.sin(x[:, 1]) * x[:, 2]], 1)


X = np.array([0.7, -1.1, 2.0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("options", [{}, {"vectorized": True}])
def test_black_box(dtype, options):
    operator = BlackBox(readings if options else reading, 2, **options)
    tolerance = 10 * np.finfo(dtype).eps
    members = jnp.asarray(X + rng(16).normal(size=(4, 2, 3)), dtype)
    expected = np.array([[reading(np.array(m), 0.5) for m in row] for row in members])
    over = jax.vmap(jax.vmap(operator, (0, None)), (0, None))
    for f in (over, jax.jit(over)):
        got = f(members, 0.5)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=tolerance)
    times = jax.vmap(operator, (None, 0))(members[0, 0], jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(times[1] - times[0], [1.0, 0.0], rtol=10 * tolerance)
    check_operator(operator, members[0, 0], 0.5, derivatives=False)
    single = BlackBox(reading, 2, jnp.float32)
    assert jax.jit(single)(members[0, 0], 0.0).dtype == jnp.float32


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_black_box_tells_what_went_wrong(wrap):
    def meter(x, t):
        if x[0] < 0:
            raise KeyError("no such sensor")
        return np.zeros(2)

    x = jnp.array([[1.0], [-1.0]])
    run = wrap(jax.vmap(BlackBox(meter, 2), (0, None)))
    message = r"meter\(x, t\) raised KeyError: 'no such sensor', for member 1 of shape \(1,\)"
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(run(x, 0.0))
    run = wrap(BlackBox(meter, 3))
    message = r"meter\(x, t\) gave shape \(2,\), expected \(3,\)"
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        jax.block_until_ready(run(x[0], 0.0))
    with pytest.raises(ValueError, match="has no derivatives: give it some by WithDerivative"):
        jax.jacobian(BlackBox(meter, 2))(x[0], 0.0)


def test_a_jacobian_of_ones_own():
    operator = WithDerivative(reading, slopes, 2)
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(mode(operator))(X, 0.5), slopes(X, 0.5), rtol=1e-12)
    check_operator(operator, X, 0.5)
    wrong = WithDerivative(reading, lambda x, t: 1.1 * slopes(x, t), 2)
    with pytest.raises(ValueError, match="the derivative along a random direction is"):
        check_operator(wrong, X, 0.5)
    field = rng(17).normal(size=(2, 3))  # a state of two dimensions
    rows = rng(18).normal(size=(4, 2, 3))
    matrix = WithDerivative(
        lambda x, t: np.tensordot(x, rows, ([-2, -1], [1, 2])),
        lambda x, t: np.broadcast_to(rows, (len(x), *rows.shape)),
        4,
        vectorized=True,
        linear=True,
    )
    check_operator(matrix, field)
    np.testing.assert_allclose(jax.jacrev(matrix)(field, 0.0), rows, rtol=1e-12)


# --- in filters

STEADY = ModelTransition(LinearGaussian(np.diag([0.9, 0.8, 0.7]), cov=np.full(3, 0.3)))
ENSEMBLE = np.random.default_rng(19).normal(size=(12, 3))
SEEN = dict(value=jnp.array([0.4, -0.2]), mask=jnp.ones(2, bool), time=jnp.ones(()))
H = np.array([[1.0, 0.5, 0.0], [0.0, 0.2, -1.0]])


def one_step(filter, operator):
    with jax.enable_x64(True):
        observation = Observation(operator, Gaussian(std=0.5))
        keys = jax.random.split(jax.random.key(0))
        state = filter.init(jnp.asarray(ENSEMBLE), keys[0])
        run = jax.jit(lambda s, o: filter.step(STEADY, observation, s, o, keys[1])[1])
        return np.asarray(run(state, Observations(**SEEN)).analysis)


def test_an_ensemble_filter_takes_a_black_box():
    got = one_step(StochasticEnKF(), BlackBox(lambda x, t: H @ x, 2))
    np.testing.assert_allclose(got, one_step(StochasticEnKF(), lambda x, t: H @ x), atol=1e-8)


def test_the_conditional_score_filter_takes_a_black_box():
    options = dict(linearization="statistical", weighted=False, adaptive=False, guide_levels=1)
    got = one_step(ConditionalScoreFilter(**options), BlackBox(lambda x, t: H @ x, 2))
    cov = 0.09 * np.eye(3) + np.diag([0.9, 0.8, 0.7]) ** 2 @ np.cov(ENSEMBLE.T)
    mean = np.array([0.9, 0.8, 0.7]) * ENSEMBLE.mean(0)
    gain = cov @ H.T @ np.linalg.inv(H @ cov @ H.T + 0.25 * np.eye(2))
    exact = mean + gain @ (np.array([0.4, -0.2]) - H @ mean)
    # the mean of 12 draws, within three standard errors
    spread = np.sqrt(np.diag(cov - gain @ H @ cov))
    assert (np.abs(got.mean(0) - exact) < 3 * spread / np.sqrt(12)).all()


def test_the_kalman_filter_takes_linear_operators():
    grid = Interpolate([[0.0, 1.0, 2.0]], [0.5, 1.25])
    rows = np.array([[0.5, 0.5, 0.0], [0.0, 0.75, 0.25]])
    own = WithDerivative(lambda x, t: rows @ x, lambda x, t: rows, 2, linear=True)
    for operator in (grid, own, Stack([grid, Select([0])])):
        KalmanFilter.check(STEADY, Observation(operator, Gaussian(std=0.5)))
    np.testing.assert_allclose(jax.jacobian(own)(X, 0.0), jax.jacobian(grid)(jnp.asarray(X), 0.0))
    with pytest.raises(ValueError, match="linear operators alone"):
        opaque = BlackBox(lambda x, t: rows @ x, 2)
        KalmanFilter.check(STEADY, Observation(opaque, Gaussian(std=0.5)))


# --- the check itself


class SaysLinear(Select):
    def __call__(self, x, t):
        return super().__call__(x, t) ** 3


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda x, t: x[:, None], r"shape \(3, 1\) of type float64, expected \(obs,\)"),
        (lambda x, t: x > 0, r"of type bool, expected \(obs,\) of a floating type"),
        (lambda x, t: jnp.log(-(x**2)), "gives nan at index 0, expected a finite"),
        (SaysLinear([0]), "it says it is linear, but changes by"),
        (lambda x, t: jax.lax.stop_gradient(x) * x, "observation .: the derivative along"),
        (
            lambda x, t: jnp.sqrt(jnp.abs(x - jnp.asarray(X))),
            "the derivative gives (nan|inf) at index 0",
        ),
        (BlackBox(lambda x, t: x.mean() if x.ndim == 1 else 0, 1), "expected"),
    ],
)
def test_check_operator_finds_faults(operator, message):
    error = jax.errors.JaxRuntimeError if isinstance(operator, BlackBox) else ValueError
    with pytest.raises(error, match=message):
        check_operator(operator, X)


def test_check_operator_finds_a_wrong_adjoint():
    # a forward rule that is right, and a reverse one that is not, by halves of a custom rule
    @jax.custom_jvp
    def values(x):
        return 2 * x

    @values.defjvp
    def rule(primals, tangents):
        slope = jax.custom_derivatives.linear_call(
            lambda _, v: 2 * v, lambda _, g: 3 * g, (), tangents[0]
        )
        return values(primals[0]), slope

    with pytest.raises(ValueError, match="reverse derivative is not the transpose"):
        check_operator(lambda x, t: values(x), X)


def test_check_operator_finds_a_fault_under_vmap():
    uneven = BlackBox(lambda x, t: x[:, :1] * len(x), 1, vectorized=True)
    with pytest.raises(ValueError, match="under vmap"):
        check_operator(uneven, X, derivatives=False)
