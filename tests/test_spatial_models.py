"""The models on a grid, the scheme that steps them, and the geometry of every model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.integrate import solve_ivp
from scipy.special import ive

from dasim import config as schema
from dasim.localization import gaspari_cohn
from dasim.models import (
    ETDRK4,
    Burgers,
    DoublePendulum,
    FitzHughNagumo,
    KolmogorovFlow,
    KortewegDeVries,
    KuramotoSivashinsky,
    LinearGaussian,
    Lorenz63,
    Lorenz84,
    Lorenz96,
    TwoScaleLorenz96,
    integrate,
)
from dasim.problems import MODELS, Twin, climate, system_transition
from dasim.transitions import ModelTransition

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Small programs, each run a few times: what is spent on optimising them is lost."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def zero():
    return jnp.zeros(())


@eqx.filter_jit
def rate(model, x):
    return model.tendency(zero(), x)


@eqx.filter_jit
def advance(model, x, n_steps=1):
    return ModelTransition(model, n_steps).mean(jnp.asarray(x), zero())


def solve(tendency, x, time):
    return solve_ivp(tendency, (0, time), x, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]


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


def derivative(size, length, order):
    """Matrix of the derivative of the trigonometric interpolant; zero for odd Nyquist ones."""
    k = 2 * np.pi / length * np.fft.fftfreq(size, 1 / size)
    if order % 2:
        k[size // 2] = 0
    return np.fft.ifft((1j * k[:, None]) ** order * np.fft.fft(np.eye(size), axis=0), axis=0).real


def ks_tendency(size, length):
    d1, d2, d4 = (derivative(size, length, order) for order in (1, 2, 4))
    return lambda t, u: -d1 @ u**2 / 2 - d2 @ u - d4 @ u


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


def cut(size):
    """Matrix that takes away the modes beyond a third of the grid."""
    kept = 3 * np.abs(np.fft.fftfreq(size, 1 / size)) < size
    return np.fft.ifft(kept[:, None] * np.fft.fft(np.eye(size), axis=0), axis=0).real


def burgers_tendency(size, length, viscosity, forcing):
    d1, d2, p = derivative(size, length, 1), derivative(size, length, 2), cut(size)
    return lambda t, u: -d1 @ p @ (p @ u) ** 2 / 2 + viscosity * d2 @ u + forcing


def kdv_tendency(size, length, dispersion):
    d1, d3, p = derivative(size, length, 1), derivative(size, length, 3), cut(size)
    return lambda t, u: -3 * d1 @ p @ (p @ u) ** 2 - dispersion * d3 @ u


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


# the low-order models


def test_lorenz84_facts():
    model, x = Lorenz84(), np.array([1.3, -0.4, 0.9])
    energy = -0.25 * x[0] ** 2 - x[1] ** 2 - x[2] ** 2 + 0.25 * 8 * x[0] + 1.23 * x[1]
    np.testing.assert_allclose(x @ rate(model, x), energy, rtol=1e-13)
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda x: model.tendency(0.0, x)))(x))
    np.testing.assert_allclose(np.trace(jacobian), 2 * x[0] - 2 - 0.25, rtol=1e-13)
    np.testing.assert_allclose(jacobian[2, 1] - jacobian[1, 2], 2 * 4 * x[0])  # the wave turns
    hadley = jnp.asarray([6.0, 0.0, 0.0])
    symmetric = Lorenz84(forcing=6.0, asymmetry=0.0)
    np.testing.assert_allclose(advance(symmetric, hadley), hadley, atol=1e-14)


def test_two_scales_as_the_paper_writes_them():
    model = TwoScaleLorenz96(4, 3, coupling=0.7, space_ratio=5.0, time_ratio=8.0, forcing=11.0)
    x = RNG.normal(size=16)
    s, f = x[:4], x[4:]
    slow = [
        s[k - 1] * (s[(k + 1) % 4] - s[k - 2])
        - s[k]
        + 11
        - 0.7 * 8 / 5 * sum(f[3 * k + j] for j in range(3))
        for k in range(4)
    ]
    fast = [
        8 * 5 * f[(i + 1) % 12] * (f[i - 1] - f[(i + 2) % 12]) - 8 * f[i] + 0.7 * 8 / 5 * s[i // 3]
        for i in range(12)
    ]
    np.testing.assert_allclose(rate(model, x), slow + fast, rtol=1e-12)


def test_uncoupled_scales_are_two_lorenz96_models():
    model = TwoScaleLorenz96(5, 4, coupling=0.0)
    s, f = RNG.normal(size=5), RNG.normal(size=20)
    got = advance(model, np.concatenate([s, f]))
    np.testing.assert_allclose(got[:5], advance(Lorenz96(5, 20.0, 0.005), s), rtol=1e-13)
    # b Y, read backwards, in the time c t
    fast = np.asarray(advance(Lorenz96(20, 0.0, 0.05), 10 * f[::-1]))[::-1] / 10
    np.testing.assert_allclose(got[5:], fast, rtol=1e-12)


def test_the_coupling_makes_no_energy():
    x = RNG.normal(size=4 * 6)
    free, coupled = (np.asarray(rate(TwoScaleLorenz96(4, 5, coupling=h), x)) for h in (0.0, 2.0))
    assert np.abs(coupled - free).max() > 1
    assert abs(x @ (coupled - free)) < 1e-12


# Kolmogorov flow

FLOW = dict(size=16, reynolds=20.0, wavenumber=2)
K = np.fft.fftfreq(16, 1 / 16)[:, None]
L = K.T


def truncated(field):
    modes = np.fft.fft2(field)
    return np.fft.ifft2(np.where((np.abs(K) < 16 / 3) & (np.abs(L) < 16 / 3), modes, 0)).real


def advection(w):
    """u w_x + v w_y of a truncated vorticity, truncated."""
    d = lambda f, factor: np.fft.ifft2(factor * np.fft.fft2(f)).real
    psi = d(w, 1 / np.where(K**2 + L**2 > 0, K**2 + L**2, np.inf))
    return truncated(d(psi, 1j * L) * d(w, 1j * K) - d(psi, 1j * K) * d(w, 1j * L))


def flow_tendency(t, w):
    w, y = w.reshape(16, 16), 2 * np.pi * np.arange(16) / 16
    damping = np.fft.ifft2(-((K**2 + L**2) / 20 + 0.1) * np.fft.fft2(w)).real
    return (damping - advection(truncated(w)) - 2 * np.cos(2 * y)).ravel()


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


# every model

FORCING = np.sin(np.arange(16.0))
SMALL = {
    "lorenz63": Lorenz63(),
    "lorenz84": Lorenz84(),
    "lorenz96": Lorenz96(6),
    "lorenz96-two-scale": TwoScaleLorenz96(4, 3),
    "kuramoto-sivashinsky": KuramotoSivashinsky(16, 22.0),
    "burgers": Burgers(16, viscosity=0.1, forcing=FORCING),
    "korteweg-de-vries": KortewegDeVries(16),
    "kolmogorov": KolmogorovFlow(**FLOW),
    "fitzhugh-nagumo": FitzHughNagumo(),
    "double-pendulum": DoublePendulum(),
    "linear": LinearGaussian(0.5 * np.eye(3)),
}


@pytest.mark.parametrize(
    ("make", "time", "tendency"),
    [
        (Lorenz84, 0.4, None),
        (FitzHughNagumo, 8.0, None),
        (DoublePendulum, 0.25, None),
        (lambda dt: TwoScaleLorenz96(4, 3, dt=dt), 0.03, None),
        (lambda dt: KuramotoSivashinsky(16, 30.0, dt), 1.0, ks_tendency(16, 30.0)),
        (
            lambda dt: Burgers(16, 5.0, 0.1, dt, FORCING),
            0.5,
            burgers_tendency(16, 5.0, 0.1, FORCING),
        ),
        (lambda dt: KortewegDeVries(16, 9.0, 0.5, dt), 0.2, kdv_tendency(16, 9.0, 0.5)),
        (lambda dt: KolmogorovFlow(**FLOW, dt=dt), 0.5, flow_tendency),
    ],
    ids=[
        "lorenz84",
        "fitzhugh-nagumo",
        "double-pendulum",
        "lorenz96-two-scale",
        "kuramoto-sivashinsky",
        "burgers",
        "korteweg-de-vries",
        "kolmogorov",
    ],
)
def test_steps_are_of_fourth_order(make, time, tendency):
    model = make(time / 16)
    x = advance(model, model.start(jax.random.key(3)), 50)
    tendency = tendency or (lambda t, y: np.asarray(rate(model, jnp.asarray(y))))
    reference = solve(tendency, np.ravel(x), time)
    errors = [np.abs(advance(make(time / n), x, n).ravel() - reference).max() for n in (16, 32)]
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.3


@pytest.mark.parametrize("kind", SMALL)
def test_what_every_model_owes(kind):
    model = SMALL[kind]
    keys = jax.random.split(jax.random.key(0), 3)
    starts = jax.jit(jax.vmap(model.start))(keys)
    assert starts.shape == (3, *model.shape) and np.isfinite(starts).all()
    assert np.abs(starts[0] - starts[1]).max() > 0
    step = lambda x: model.step(x, zero(), None)
    x, along = starts[0], starts[2] - starts[1]
    after, tangent = jax.jit(lambda x, v: jax.jvp(step, (x,), (v,)))(x, along)
    batch = jax.jit(jax.vmap(step))(jnp.stack([x, x + 1e-5 * along, x - 1e-5 * along]))
    np.testing.assert_allclose(batch[0], after, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tangent, (batch[1] - batch[2]) / 2e-5, rtol=1e-6, atol=1e-6)
    assert model.coords.shape[0] == starts[0].size and model.coords.ndim == 2
    assert model.period is None or len(model.period) == model.coords.shape[1]
    assert model.spin_up >= 0


def test_coordinates():
    np.testing.assert_array_equal(Lorenz63().coords, [[0], [1], [2]])
    assert Lorenz63().period is None
    assert Lorenz96(6).period == (6.0,) and KuramotoSivashinsky(16).period == (16.0,)
    two = TwoScaleLorenz96(4, 2)
    np.testing.assert_allclose(
        two.coords[:, 0], [0, 1, 2, 3] + [k + s for k in range(4) for s in (-0.25, 0.25)]
    )
    assert two.period == (4.0,)
    assert Burgers(16).period == (16.0,) and KortewegDeVries(16).period == (16.0,)
    flow = KolmogorovFlow(**FLOW)
    field = jnp.arange(256).reshape(16, 16)
    assert flow.period == (16.0, 16.0)
    for n in (0, 17, 200):
        assert field[tuple(flow.coords[n].astype(int))] == n


@pytest.mark.parametrize("kind", MODELS)
def test_a_config_has_the_defaults_of_its_model(kind):
    plain = MODELS[kind]()
    system = TypeAdapter(schema.System).validate_python({"kind": kind, "interval": 10 * plain.dt})
    transition = system_transition(system)
    assert transition.n_steps == 10
    assert eqx.tree_equal(transition.model, plain)


def test_a_twin_localizes_on_the_grid_of_its_model():
    run = schema.Run(
        name="flow",
        precision="float64",
        system={"kind": "kolmogorov", "size": 8, "wavenumber": 2, "dt": 0.1, "interval": 0.1},
        observe={"sites": [0, 13], "std": 0.1},
        cycle={"n_cycles": 2},
        members=2,
        methods=[{"name": "a", "kind": "ETKF"}],
    )
    problem = Twin(run, jax.random.key(0))
    assert problem.truth.shape == (2, 8, 8) and np.isfinite(problem.truth).all()
    taper = problem.localization(2.0).state_obs
    # (7, 7) is at (-1, -1); site 13 is at (1, 5)
    distance = jnp.sqrt(jnp.asarray([[1.0 + 1, 4 + 4], [0, 1 + 9]]))
    np.testing.assert_allclose(taper[jnp.array([63, 0])], gaspari_cohn(distance, 2.0), rtol=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match="has 7 points, expected at least 8"):
        KuramotoSivashinsky(7)
    with pytest.raises(ValueError, match="length 0"):
        KuramotoSivashinsky(length=0)
    with pytest.raises(ValueError, match="dt is 0"):
        KuramotoSivashinsky(dt=0)
    for model in (Burgers, KortewegDeVries):
        with pytest.raises(ValueError, match=f"{model.__name__} has 7 points, expected at least 8"):
            model(7)
        with pytest.raises(ValueError, match="length -1 and .*, expected positive ones"):
            model(length=-1)
        with pytest.raises(ValueError, match="dt is 0"):
            model(dt=0)
    with pytest.raises(ValueError, match="viscosity 0, expected positive ones"):
        Burgers(viscosity=0)
    with pytest.raises(ValueError, match=r"forcing has shape \(15,\), expected \(16,\)"):
        Burgers(16, forcing=np.zeros(15))
    with pytest.raises(ValueError, match="dispersion 0, expected positive ones"):
        KortewegDeVries(dispersion=0)
    with pytest.raises(ValueError, match="v is of float64, expected complex numbers"):
        ETDRK4(np.array([1j]), 0.1).step(jnp.ones(1), 0.0, lambda v, t: v)
    with pytest.raises(ValueError, match="slow is 3, expected at least 4"):
        TwoScaleLorenz96(3)
    with pytest.raises(ValueError, match="fast is 0, expected at least 1"):
        TwoScaleLorenz96(fast=0)
    with pytest.raises(ValueError, match="reynolds is -1"):
        KolmogorovFlow(reynolds=-1)
    system = schema.KolmogorovSystem(kind="kolmogorov", size=12, interval=0.2)
    with pytest.raises(schema.ConfigError, match="system: wavenumber is 4, expected .* 12 grid"):
        system_transition(system)
