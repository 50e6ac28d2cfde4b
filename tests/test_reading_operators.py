"""Functions of what operators read, their composition, operators in NumPy, and the check."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.filters import ConditionalScoreFilter, KalmanFilter, StochasticEnKF
from dasim.models import LinearGaussian
from dasim.observe import Gaussian, Observation, Select
from dasim.operators import (
    BlackBox,
    Compose,
    Interpolate,
    Log,
    Power,
    RadialVelocity,
    Stack,
    WindDirection,
    WindSpeed,
    WithDerivative,
    check_operator,
)
from dasim.transitions import ModelTransition
from dasim.types import Observations

pytestmark = pytest.mark.usefixtures("float64")
rng = np.random.default_rng


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
    axis = np.array([0.0, 0.4, 1.0, 1.3, 2.0])
    f = Interpolate([axis], [0.1, 0.9])
    x = rng(15).uniform(1, 2, 5)
    composed = f.then(Log()).then(Power(2))
    expected = np.log(np.interp([0.1, 0.9], axis, x)) ** 2
    np.testing.assert_allclose(composed(jnp.asarray(x), 0.0), expected, rtol=1e-12)
    stacked = Stack([f, composed, lambda x, t: x[:1] * t])
    np.testing.assert_allclose(
        stacked(jnp.asarray(x), 3.0),
        [*np.interp([0.1, 0.9], axis, x), *expected, 3 * x[0]],
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
