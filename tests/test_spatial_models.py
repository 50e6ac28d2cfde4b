"""The models on a grid, and the scheme that steps them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_steps import FLOW, K, L, advance, advection, solve, truncated, zero
from scipy.special import ive

from dasim.models import (
    ETDRK4,
    Burgers,
    KolmogorovFlow,
    KortewegDeVries,
    KuramotoSivashinsky,
    integrate,
)
from dasim.problems import climate
from dasim.transitions import ModelTransition

pytestmark = pytest.mark.usefixtures("float64")
RNG = np.random.default_rng(0)


# exponential time differencing


@pytest.mark.parametrize(
    "linear", [[0.0, 0.3, -1.0, -1e4], [0j, 0.3j, -1 - 2j, 1e3j]], ids=["real", "complex"]
)
def test_the_linear_part_is_exact(linear):
    linear = np.array(linear)
    v = jnp.asarray([1.0 + 2j, -1j, 2.0, 3.0])
    force = np.array([1.0, 0.5, 2j, -1.0])
    got = ETDRK4(linear, 0.5).step(v, zero(), lambda v, t: 0 * v)
    np.testing.assert_allclose(got, np.exp(0.5 * linear) * v, rtol=1e-14)
    got = ETDRK4(linear, 0.5).step(v, zero(), lambda v, t: jnp.asarray(force))
    response = np.append(0.5, np.expm1(0.5 * linear[1:]) / linear[1:])
    np.testing.assert_allclose(got, np.exp(0.5 * linear) * v + response * force, rtol=1e-13)


def test_without_a_linear_part_it_is_the_runge_kutta_scheme():
    v, nonlinear = jnp.asarray([0.3, -1.0]), lambda v, t: jnp.sin(v[::-1] + t) * v
    got = ETDRK4(np.zeros(2), 0.4).step(v, jnp.asarray(0.2), nonlinear)
    expected = integrate(lambda t, v: nonlinear(v, t), v, 0.2, 0.4)
    np.testing.assert_allclose(got, expected, rtol=1e-14)


@pytest.mark.parametrize("linear", [[0.5, -1.0, -8.0], [0.5j, -3j, 8j]], ids=["real", "imaginary"])
def test_it_is_of_fourth_order(linear):
    linear = np.array(linear)
    v = jnp.asarray([1.0, 0.5, -0.3], linear.dtype)
    nonlinear = lambda v, t: jnp.roll(v, 1) * jnp.roll(v, -1) + jnp.cos(3 * t)
    tendency = jax.jit(lambda t, v: linear * v + nonlinear(v, t))
    reference = solve(lambda t, v: np.asarray(tendency(t, v)), v, 1.0)

    def error(n):
        scheme = ETDRK4(linear, 1 / n)
        step = lambda v, k: (scheme.step(v, k / n, nonlinear), None)
        return np.abs(jax.lax.scan(step, v, jnp.arange(n))[0] - reference).max()

    assert abs(np.log2(error(20) / error(40)) - 4) < 0.25


def test_it_computes_in_the_precision_of_the_state():
    v = jnp.ones(2, jnp.float32)
    assert ETDRK4(np.zeros(2), 0.1).step(v, 0.0, lambda v, t: v).dtype == jnp.float32
    v = jnp.ones(2, jnp.complex64)
    for linear in (np.zeros(2), np.zeros(2, complex)):
        assert ETDRK4(linear, 0.1).step(v, 0.0, lambda v, t: v).dtype == jnp.complex64
    with jax.enable_x64(False):
        for make, kind in ((KuramotoSivashinsky, jnp.float32), (KortewegDeVries, jnp.complex64)):
            model = make(16, 22.0)
            assert model.scheme.first.dtype == kind
            assert model.step(model.start(jax.random.key(0)), zero(), None).dtype == jnp.float32


# Kuramoto-Sivashinsky


def test_ks_conserves_the_mean_and_grows_as_the_linear_theory_says():
    model = KuramotoSivashinsky(32, length=20.0)
    u = jnp.asarray(RNG.normal(size=32))
    np.testing.assert_allclose(advance(model, u).mean(), u.mean(), rtol=1e-13)
    for mode in (1, 3, 5):
        k = 2 * np.pi * mode / 20
        wave = 1e-9 * np.cos(2 * np.pi * mode * np.arange(32) / 32)
        grown = advance(model, jnp.asarray(wave))
        np.testing.assert_allclose(grown, np.exp(model.dt * (k**2 - k**4)) * wave, atol=1e-16)


def test_ks_climate():
    transition = ModelTransition(KuramotoSivashinsky(), 40)
    start = climate(transition, 8, jax.random.key(0))
    states = np.stack([start, jax.vmap(transition.mean, (0, None))(start, zero())])
    assert abs(states.std() - 1.3) < 0.1
    assert np.abs(states.mean(-1)).max() < 1e-10
    slope = np.diff(states, axis=-1).std() / (32 * np.pi / 128)
    assert 0.5 < slope / states.std() < 1  # the wavenumber of the cells is near 1 / sqrt(2)


# Burgers, and Korteweg and de Vries


def test_burgers_against_cole_and_hopf():
    # u = U - 2 nu p_x / p, p_t + U p_x = nu p_xx, from u = U + a sin k x: p = exp(r cos k x), whose
    # coefficients are Bessel functions of r = a / (2 nu k)
    length, viscosity, mean, a, n = 4 * np.pi, 1.0, 0.7, 2.0, np.arange(1, 60)
    k = 2 * np.pi / length
    x = length * np.arange(64) / 64

    def exact(t):
        coefficients = ive(n, a / (2 * viscosity * k)) * np.exp(-viscosity * (n * k) ** 2 * t)
        angle = k * np.outer(x - mean * t, n)
        p = ive(0, a / (2 * viscosity * k)) + 2 * np.cos(angle) @ coefficients
        return mean + 4 * viscosity * k * np.sin(angle) @ (n * coefficients) / p

    np.testing.assert_allclose(exact(0.0), mean + a * np.sin(k * x), atol=1e-13)
    model = Burgers(64, length, viscosity, dt=0.01)
    got = np.asarray(advance(model, exact(0.0), 150))
    np.testing.assert_allclose(got, exact(1.5), atol=3e-8)  # what 64 points resolve
    np.testing.assert_allclose(got.mean(), mean, rtol=1e-13)


def test_a_forcing_keeps_a_wave_up():
    x = 2 * np.pi * np.arange(32) / 32
    model = Burgers(32, viscosity=0.3, forcing=np.sin(2 * x) / 2 + 0.3 * np.sin(x))
    np.testing.assert_allclose(advance(model, np.sin(x)), np.sin(x), atol=1e-14)


def solitons(x, t, length, *speeds):
    """2 (log f)_xx of Hirota (1971) for one soliton from 0, or one that overtakes another's 5."""
    k, images = np.sqrt(speeds), np.add.outer(length * np.arange(-1, 3), x)
    phase = [k[i] * (images - 5 * i - speeds[i] * t) for i in range(len(k))]
    terms = [(1.0, 0.0, 0 * images)] + [(1.0, k[i], phase[i]) for i in range(len(k))]
    if len(k) == 2:
        terms.append((((k[0] - k[1]) / (k[0] + k[1])) ** 2, k[0] + k[1], phase[0] + phase[1]))
    f, slope, bend = (sum(a * m**n * np.exp(e) for a, m, e in terms) for n in range(3))
    return np.sum(2 * (f * bend - slope**2) / f**2, 0)


@pytest.mark.parametrize(
    ("speeds", "tolerance"), [((4.0,), 1e-6), ((9.0, 4.0), 1e-3)], ids=["one", "two"]
)
def test_solitons_keep_their_shape_and_their_speed(speeds, tolerance):
    x = 20 * np.arange(128) / 128
    start, end = (solitons(x, t, 20.0, *speeds) for t in (0.0, 2.0))
    if len(speeds) == 1:  # from 0 to 8, with its image at the other end
        np.testing.assert_allclose(end, 2 / np.cosh(x - 8) ** 2, atol=1e-6)
    got = np.asarray(advance(KortewegDeVries(), start, 1000))
    np.testing.assert_allclose(got, end, atol=tolerance * end.max())
    np.testing.assert_allclose(got.mean(), start.mean(), rtol=1e-13)
    np.testing.assert_allclose((got**2).mean(), (start**2).mean(), rtol=0.1 * tolerance)


@pytest.mark.parametrize(
    "make",
    [lambda n: Burgers(n, viscosity=0.5), lambda n: KortewegDeVries(n, dispersion=20.0)],
    ids=["burgers", "korteweg-de-vries"],
)
def test_a_finer_grid_has_the_same_values(make):
    models = make(64), make(128)
    coarse, fine = (model.start(jax.random.key(5)) for model in models)
    np.testing.assert_allclose(coarse, fine[::2], atol=1e-14)
    np.testing.assert_allclose([coarse.mean(), coarse.std()], [0, 1], atol=1e-14)
    after, finer = (advance(m, x, 50) for m, x in zip(models, (coarse, fine), strict=True))
    assert np.abs(after - coarse).max() > 1
    np.testing.assert_allclose(after, finer[::2], atol=1e-8)


@pytest.mark.parametrize(
    "model", [Burgers(48), KortewegDeVries(48)], ids=["burgers", "korteweg-de-vries"]
)
def test_advection_makes_no_energy(model):
    u = RNG.normal(size=48)
    got = np.fft.irfft(model.nonlinear(jnp.fft.rfft(jnp.asarray(u)), 0.0))
    assert np.abs(got).max() > 1
    assert abs(u @ got) < 1e-13 * np.abs(u) @ np.abs(got)  # not so where modes alias


# Kolmogorov flow


def test_advection_conserves_energy_and_enstrophy():
    model = KolmogorovFlow(**FLOW)
    field = RNG.normal(size=(16, 16))
    v = jnp.fft.rfft2(jnp.asarray(field))
    got = -np.fft.irfft2(model.nonlinear(v, 0.0) - model.nonlinear(0 * v, 0.0))
    w = truncated(field - field.mean())
    np.testing.assert_allclose(got, advection(w), atol=1e-13)
    psi = np.fft.ifft2(np.fft.fft2(w) / np.where(K**2 + L**2 > 0, K**2 + L**2, np.inf)).real
    assert abs((w * got).sum()) < 1e-13 * np.abs(got).sum()
    assert abs((psi * got).sum()) < 1e-13 * np.abs(got).sum()


def test_the_laminar_flow_is_stationary():
    model = KolmogorovFlow(**FLOW)
    y = 2 * np.pi * np.arange(16) / 16
    laminar = jnp.asarray(np.tile(-2 * np.cos(2 * y) / (2**2 / 20 + 0.1), (16, 1)))
    np.testing.assert_allclose(advance(model, laminar), laminar, atol=1e-13)


def test_the_flow_commutes_with_translations():
    model = KolmogorovFlow(**FLOW)
    w = jnp.asarray(RNG.normal(size=(16, 16)))
    step = lambda w: advance(model, w)
    for shift in ((3, 0), (0, 8), (-1, 8)):  # in y by a period of the forcing
        moved = step(jnp.roll(w, shift, (0, 1)))
        np.testing.assert_allclose(moved, jnp.roll(step(w), shift, (0, 1)), atol=1e-13)
    assert np.abs(step(jnp.roll(w, 1, 1)) - jnp.roll(step(w), 1, 1)).max() > 1e-3


def test_the_flow_of_the_defaults_is_chaotic_and_resolved():
    model = KolmogorovFlow()
    w = advance(model, model.start(jax.random.key(0)), 400)
    perturbed = w + 1e-6 * model.start(jax.random.key(1))
    after, other = (advance(model, x, 400) for x in (w, perturbed))
    assert np.std(after - other) > 10 * np.std(w - perturbed)
    power = np.abs(np.fft.rfft2(after)) ** 2
    assert power[20:23, :22].max() < 1e-3 * power.max()
    assert 2 < after.std() < 8
