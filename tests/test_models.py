"""Models and their transitions against theory and SciPy."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_steps import advance, rate, zero
from scipy.integrate import solve_ivp

from dasim.covariance import DiagonalCovariance
from dasim.models import (
    DoublePendulum,
    FitzHughNagumo,
    LinearGaussian,
    Lorenz63,
    Lorenz84,
    Lorenz96,
    TwoScaleLorenz96,
    integrate,
)
from dasim.transitions import ModelTransition, simulate
from dasim.types import Observations

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)


def tendency(model, x):
    return model.tendency(zero(), x)


def exact(model, x, time):
    tendency = lambda t, y: np.asarray(model.tendency(t, jnp.asarray(y)))
    return solve_ivp(tendency, (0, time), np.asarray(x), rtol=1e-11, atol=1e-12).y[:, -1]


def test_one_step_is_the_taylor_polynomial_of_a_linear_equation():
    z = -0.7
    got = integrate(lambda t, x: z * x, jnp.ones(1), zero(), 1.0)
    np.testing.assert_allclose(got, 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24, rtol=1e-14)


def test_one_step_of_a_time_dependent_equation():
    # Simpson's rule, exact for cubics
    got = integrate(lambda t, x: 4 * t**3 * jnp.ones(1), jnp.zeros(1), jnp.asarray(1.0), 0.5)
    np.testing.assert_allclose(got, 1.5**4 - 1, rtol=1e-14)


@pytest.mark.parametrize("model", [Lorenz63, Lorenz96])
def test_runge_kutta_is_of_fourth_order(model):
    size = {} if model is Lorenz63 else {"size": 6}
    x = jnp.asarray([1.0, 2.0, 20.0]) if model is Lorenz63 else jnp.asarray([8.0, 7, 6, 9, 8.1, 8])
    time = 0.2
    reference = exact(model(**size), x, time)
    errors = [
        np.abs(ModelTransition(model(dt=time / n, **size), n).mean(x, zero()) - reference).max()
        for n in (16, 32)
    ]
    order = np.log2(errors[0] / errors[1])
    assert abs(order - 4) < 0.25


@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [
        (diffrax.Tsit5(), 1e-7),  # fifth order
        (diffrax.Dopri8(), 1e-10),
        (diffrax.Heun(), 1e-2),  # second
        (diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol=1e-10, atol=1e-10)), 1e-5),
    ],
    ids=["Tsit5", "Dopri8", "Heun", "Kvaerno5"],
)
def test_diffrax_solvers_take_the_place_of_runge_kutta(solver, tolerance):
    x = jnp.asarray([8.0, 7.5, 6.0, 9.0])
    model = Lorenz96(4, dt=0.01, solver=solver)
    got = ModelTransition(model, 10).mean(x, zero())
    error = np.abs(got - exact(model, x, 0.1)).max()
    assert error < tolerance


def test_lorenz63_facts():
    model = Lorenz63()
    side = np.sqrt(model.beta * (model.rho - 1))
    for point in ([0, 0, 0], [side, side, model.rho - 1], [-side, -side, model.rho - 1]):
        x = jnp.asarray(point, float)
        np.testing.assert_allclose(model.tendency(zero(), x), 0, atol=1e-12)
        np.testing.assert_allclose(model.step(x, zero(), None), x, atol=1e-12)
    jacobian = jax.jacfwd(lambda x: model.tendency(0.0, x))(jnp.asarray([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(jnp.trace(jacobian), -(10 + 1 + 8 / 3))  # contraction of volumes


def test_lorenz96_facts():
    model = Lorenz96(7, forcing=5.0)
    x = np.random.default_rng(0).normal(size=7)
    loop = [(x[(i + 1) % 7] - x[i - 2]) * x[i - 1] - x[i] + 5 for i in range(7)]
    got = np.asarray(model.tendency(zero(), jnp.asarray(x)))
    np.testing.assert_allclose(got, loop, atol=1e-13)
    advection = got + x - 5
    assert abs(x @ advection) < 1e-12  # the quadratic terms conserve energy
    fixed = jnp.full(7, 5.0)
    np.testing.assert_allclose(model.step(fixed, zero(), None), fixed, atol=1e-13)


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


def test_models_refuse():
    with pytest.raises(ValueError, match="3 sites, expected at least 4"):
        Lorenz96(3)
    with pytest.raises(ValueError, match="dt is 0"):
        Lorenz63(dt=0.0)
    with pytest.raises(ValueError, match=r"matrix has shape \(2, 3\)"):
        LinearGaussian(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"offset has shape \(3,\)"):
        LinearGaussian(np.eye(2), offset=np.zeros(3))
    with pytest.raises(ValueError, match="cov"):
        LinearGaussian(np.eye(2), cov=-np.eye(2))
    with pytest.raises(ValueError, match="n_steps is 0"):
        ModelTransition(Lorenz63(), 0)
    with pytest.raises(ValueError, match="noise has shape"):
        ModelTransition(Lorenz63(), 1, noise=np.eye(2))


A = np.array([[0.9, 0.3], [-0.2, 0.7]])
Q = np.array([[0.5, 0.2], [0.2, 0.3]])
B = np.array([1.0, -2.0])


def moments_agree(samples, mean, cov):
    """Within 4.5 standard errors of a normal sample's mean and covariance."""
    n = len(samples)
    assert (np.abs(samples.mean(0) - mean) < 4.5 * np.sqrt(np.diag(cov) / n)).all()
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    assert (np.abs(np.cov(samples.T) - cov) < 4.5 * error).all()


def test_linear_gaussian_moments():
    model = LinearGaussian(A, Q, B)
    x = jnp.asarray([0.4, -1.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    samples = jax.jit(jax.vmap(lambda k: model.step(x, 0.0, k)))(keys)
    moments_agree(np.asarray(samples), A @ x + B, Q)
    np.testing.assert_allclose(model.step(x, 0.0, None), A @ x + B)


def test_several_linear_steps_in_closed_form():
    n, extra = 3, np.diag([0.1, 0.4])
    transition = ModelTransition(LinearGaussian(A, Q, B), n, noise=extra)
    mean, cov, x = np.array([0.4, -1.0]), np.zeros((2, 2)), jnp.asarray([0.4, -1.0])
    for _ in range(n):
        mean, cov = A @ mean + B, A @ cov @ A.T + Q + extra
    np.testing.assert_allclose(transition.mean(x, zero()), mean, rtol=1e-12)
    np.testing.assert_allclose(transition.residual_cov(x, zero()).dense(), cov, rtol=1e-12)
    assert transition.interval == 3.0
    keys = jax.random.split(jax.random.key(1), 20_000)
    samples = jax.jit(jax.vmap(lambda k: transition.sample(x, zero(), k)))(keys)
    moments_agree(np.asarray(samples), mean, cov)
    denoiser, cond = transition.prior(x, zero())
    np.testing.assert_allclose(denoiser.mean(cond), mean, rtol=1e-12)
    np.testing.assert_allclose(denoiser.cov(cond).dense(), cov, rtol=1e-12)


def test_residual_covariance_of_a_nonlinear_model():
    transition = ModelTransition(Lorenz96(4), 3, noise=0.01)
    x = jnp.asarray([8.0, 3.0, -1.0, 5.0])
    keys = jax.random.split(jax.random.key(2), 20_000)
    samples = jax.jit(jax.vmap(lambda k: transition.sample(x, zero(), k)))(keys)
    cov = np.asarray(transition.residual_cov(x, zero()).dense())
    moments_agree(np.asarray(samples), transition.mean(x, zero()), cov)


def test_one_noisy_step_has_the_covariance_as_given():
    cov = ModelTransition(Lorenz63(), 1, noise=[0.1, 0.2, 0.3]).residual_cov(jnp.ones(3), zero())
    assert isinstance(cov, DiagonalCovariance)
    np.testing.assert_allclose(cov.variance, [0.01, 0.04, 0.09])


def test_a_deterministic_transition_has_no_residual():
    transition = ModelTransition(Lorenz63(), 2)
    x = jnp.asarray([1.0, 2.0, 20.0])
    assert transition.residual_cov(x, zero()) is None
    assert transition.prior(x, zero()) is None
    drawn = transition.sample(x, zero(), jax.random.key(0))
    np.testing.assert_allclose(drawn, transition.mean(x, zero()), rtol=1e-14)


def test_simulate_runs_on_from_cycle_to_cycle():
    from dasim.observe import Gaussian, Observation

    transition = ModelTransition(LinearGaussian(A, offset=B, dt=0.5), 2)
    observation = Observation(lambda x, t: x * t, Gaussian(std=1e-9))
    truth, seen = simulate(transition, observation, jnp.ones(2), 3, jax.random.key(0))
    x, expected = np.ones(2), []
    for _ in range(3):
        x = A @ (A @ x + B) + B
        expected.append(x)
    np.testing.assert_allclose(truth, expected, rtol=1e-12)
    np.testing.assert_allclose(seen.time, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(seen.value, np.array(expected) * [[1], [2], [3]], atol=1e-7)
    assert isinstance(seen, Observations) and seen.mask.all()
    with pytest.raises(ValueError, match="n_cycles is 0"):
        simulate(transition, observation, jnp.ones(2), 0, jax.random.key(0))


def test_fitzhugh_nagumo_facts():
    model = FitzHughNagumo()
    x = 5 * np.array([0.4, -0.1, 0.02, 0.05])
    a, k, c, b = -0.025794, 0.128, 0.02, (0.0065, 0.0135)
    first = 0.4 * (a - 0.4) * (0.4 - 1) - 0.02 + k * (-0.1 - 0.4)
    second = b[1] * -0.1 - c * 0.05
    found = tendency(model, jnp.asarray(x))
    np.testing.assert_allclose(found[jnp.array([0, 3])], [5 * first, 5 * second])
    # the units of the variables change nothing else
    other = FitzHughNagumo(scale=1.0)
    np.testing.assert_allclose(found, 5 * tendency(other, jnp.asarray(x) / 5))
    assert model.spin_up == 1500


def test_a_double_pendulum_keeps_its_energy():
    model = DoublePendulum(dt=0.01)
    x = jax.vmap(model.start)(jax.random.split(jax.random.key(1), 4))
    step = jax.jit(jax.vmap(lambda x: model.step(x, zero(), None)))
    energy = jax.vmap(model.energy)
    before = energy(x)
    for _ in range(200):
        x = step(x)
    np.testing.assert_allclose(energy(x), before, rtol=1e-6)
    # small swings: frequencies sqrt(2 +- sqrt 2)
    jac = jax.jacfwd(lambda x: tendency(model, x))(jnp.zeros(4))
    found = np.unique(np.abs(np.linalg.eigvals(np.asarray(jac)).imag).round(8))
    np.testing.assert_allclose(found, np.sqrt([2 - np.sqrt(2), 2 + np.sqrt(2)]), rtol=1e-6)
    # what starts it are momenta, not rates
    momenta = jax.vmap(lambda k: model.mass(model.start(k)[:2]) @ model.start(k)[2:])(
        jax.random.split(jax.random.key(2), 4000)
    )
    np.testing.assert_allclose(momenta.std(0), [0.2, 0.3], rtol=0.05)
