"""What every model owes: order of its steps, derivatives, geometry, config, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_steps import FLOW, K, L, advance, advection, rate, solve, truncated, zero
from pydantic import TypeAdapter

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
)
from dasim.problems import MODELS, Twin, system_transition

pytestmark = pytest.mark.usefixtures("float64")
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


def derivative(size, length, order):
    """Matrix of the derivative of the trigonometric interpolant; zero for odd Nyquist ones."""
    k = 2 * np.pi / length * np.fft.fftfreq(size, 1 / size)
    if order % 2:
        k[size // 2] = 0
    return np.fft.ifft((1j * k[:, None]) ** order * np.fft.fft(np.eye(size), axis=0), axis=0).real


def ks_tendency(size, length):
    d1, d2, d4 = (derivative(size, length, order) for order in (1, 2, 4))
    return lambda t, u: -d1 @ u**2 / 2 - d2 @ u - d4 @ u


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


def flow_tendency(t, w):
    w, y = w.reshape(16, 16), 2 * np.pi * np.arange(16) / 16
    damping = np.fft.ifft2(-((K**2 + L**2) / 20 + 0.1) * np.fft.fft2(w)).real
    return (damping - advection(truncated(w)) - 2 * np.cos(2 * y)).ravel()


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
        with pytest.raises(ValueError, match="length -1, expected a positive one"):
            model(length=-1)
        with pytest.raises(ValueError, match="dt is 0"):
            model(dt=0)
    with pytest.raises(ValueError, match="viscosity 0, expected a positive one"):
        Burgers(viscosity=0)
    with pytest.raises(ValueError, match=r"forcing has shape \(15,\), expected \(16,\)"):
        Burgers(16, forcing=np.zeros(15))
    with pytest.raises(ValueError, match="dispersion 0, expected a positive one"):
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
