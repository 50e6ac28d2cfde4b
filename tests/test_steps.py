"""Trajectories as a first state and the errors of a learned step."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dasim
from dasim.conditioning.guidance import Target
from dasim.events import Exceeds
from dasim.models import DoublePendulum, Lorenz63
from dasim.priors import sample, steps
from dasim.priors.steps import LearnedStep, error_loss, mean_loss, pair_drawer, standardized
from dasim.trajectories import StepSpec, TrajectorySpec, simulated_windows

KEY = jax.random.key(0)


def moved(module, size=0.3):
    """Weights of which none is zero."""
    leaves, tree = jax.tree.flatten(eqx.filter(module, eqx.is_inexact_array))
    keys = jax.random.split(KEY, len(leaves))
    leaves = [a + size * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return eqx.combine(jax.tree.unflatten(tree, leaves), module)


@pytest.fixture
def pendulum(float64):
    """Windows, and a step with random weights in their units."""
    x = simulated_windows(DoublePendulum(), 0.5, 6, 20, KEY)
    step = standardized(LearnedStep(4, DoublePendulum().angles, 8, 2, KEY), x)
    parts = lambda s: (s.mean, s.error)
    return x, eqx.tree_at(parts, step, tuple(moved(p) for p in parts(step)))


def test_coordinates_are_one_to_one(pendulum):
    x, step = pendulum
    c = step.encode(x[0])
    np.testing.assert_allclose(c[0], (x[0, 0] - step.first_center) / step.first_scale)
    np.testing.assert_allclose(step.decode(c), x[0], rtol=1e-9, atol=1e-9)
    ahead, error = step(x[0, 2])
    np.testing.assert_allclose(x[0, 3], ahead + error * c[3], rtol=1e-9)
    jac = jax.jacobian(lambda x: step.encode(x.reshape(6, 4)).reshape(-1))(x[0].reshape(-1))
    np.testing.assert_allclose(step.log_det(x[0]), jnp.linalg.slogdet(jac)[1], rtol=1e-9)


def test_an_angle_turns_without_end(pendulum):
    x, step = pendulum
    turn = 2 * np.pi * jnp.array([1.0, -3.0, 0.0, 0.0])
    np.testing.assert_allclose(step(x[1, 1] + turn)[0], step(x[1, 1])[0] + turn, rtol=1e-9)
    np.testing.assert_allclose(step(x[1, 1] + turn)[1], step(x[1, 1])[1], rtol=1e-9)


def test_a_state_far_out_is_taken_as_one_at_the_edge(pendulum):
    x, step = pendulum
    out = jnp.array([0.0, 0.0, 1e6, 0.0])
    change = step(x[0, 0] + out)[0] - out - x[0, 0]
    assert jnp.isfinite(change).all() and jnp.abs(change).max() < 100 * step.increment.max()
    # and those of the training are seen nearly as they are
    seen = step.features(x[0, 0])[0][0, 2:]
    np.testing.assert_allclose(seen, ((x[0, 0] - step.center) / step.scale)[2:], rtol=0.35)


def test_a_polynomial_tendency_is_found(monkeypatch):
    """Of Lorenz-63, whose equations are of second degree, from states 0.1 apart."""
    monkeypatch.setattr(steps, "PAIRS", 60)
    x = simulated_windows(Lorenz63(), 0.1, 12, 100, KEY)
    step = steps.standardized(LearnedStep(3, (), 8, 1, KEY, substeps=10), x)
    assert jnp.abs(step(x[0, 0])[0] - x[0, 0]).max() == 0  # it starts from no change
    step = steps.fitted_flow(step, x, KEY)
    ahead = jax.vmap(lambda x: step(x)[0])(x[:, -2])
    np.testing.assert_allclose(ahead, x[:, -1], atol=2e-4)
    # 10 (y - x), with time in steps of 0.1
    linear = [step.mean.factors(3).index((0, 0, i)) for i in (1, 2, 3)]
    ratio = step.scale[1] / step.scale[0]
    np.testing.assert_allclose(step.mean.weights[0, np.array(linear)], [-1, ratio, 0], atol=1e-3)
    far = step(jnp.full(3, 1e4))[0]
    assert jnp.isfinite(far).all()


def test_losses_are_those_of_their_names(pendulum):
    x, step = pendulum
    a, b = pair_drawer(x)(KEY, 200)
    at = jnp.argmin(jnp.abs(x[:, :-1, None] - a[:3]).sum(-1).reshape(-1, 3), 0)
    np.testing.assert_array_equal(x[:, 1:].reshape(-1, 4)[at], b[:3])
    ahead, error = jax.vmap(step)(a)
    unit = step.scale * step.increment
    np.testing.assert_allclose(mean_loss(step, (a, b), KEY), (((b - ahead) / unit) ** 2).mean())
    normal = jax.scipy.stats.norm.logpdf(b, ahead, error)
    wanted = -normal.mean() - 0.5 * jnp.log(2 * jnp.pi)
    np.testing.assert_allclose(error_loss(step, (a, b), KEY), wanted, rtol=1e-9)


@pytest.fixture(scope="module")
def prior():
    """An untrained prior in coordinates: its draws are runs of its step from normal states."""
    spec = TrajectorySpec(8, 3, 0.1, given=2, channels=(4, 8), n_steps=6, step=StepSpec(8, 1))
    made = spec.build(KEY)
    return eqx.tree_at(lambda p: p.denoiser.step, made, moved(made.denoiser.step, 0.1))


def test_draws_are_decoded(prior):
    denoiser, step = prior.denoiser, prior.denoiser.step
    x = sample(denoiser, prior.schedule, None, KEY, prior.n_steps).reshape(8, 3)
    noise = jax.random.normal(KEY, (24,)).reshape(8, 3)
    np.testing.assert_allclose(x, step.decode(noise), rtol=1e-4, atol=1e-5)
    target = Target(prior, Exceeds(lambda x: x[-1, 0], 0.0))
    np.testing.assert_allclose(target.state(noise.reshape(-1)), x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(target.white(x), noise.reshape(-1), rtol=1e-2, atol=1e-2)


def test_the_first_state_has_a_denoiser_of_its_own(prior):
    v, s = jax.random.normal(KEY, (24,)), jnp.asarray(0.7)
    own = eqx.tree_at(lambda p: p.denoiser.first, prior, moved(prior.denoiser.first)).denoiser
    out = own.correction(v, s).reshape(8, 3)
    np.testing.assert_allclose(out[0], own.first.correction(v[:3], s))
    assert out[0].any() and not out[1:].any()
    # it is not asked of a state that is told
    told = own.correction(v, s, jnp.ones((2, 3))).reshape(8, 3)
    assert jnp.abs(told[0] - out[0]).max() > 0.1


def test_a_spin_up_comes_before_the_window(prior):
    later = eqx.tree_at(lambda p: p.denoiser, prior, replace(prior.denoiser, spin_up=3))
    step = prior.denoiser.step
    one = lambda p, cond: sample(p.denoiser, p.schedule, cond, KEY, 20).reshape(8, 3)
    # the first state is that of the prior without it, three steps without errors on
    first = one(prior, None)[0]
    for _ in range(3):
        first = step(first)[0]
    np.testing.assert_allclose(one(later, None)[0], first, rtol=1e-4, atol=1e-5)
    # states that are told are the window's own
    told = jnp.array([[0.3, -1.0, 2.0], [0.5, -0.8, 1.9]])
    np.testing.assert_allclose(one(later, told), one(prior, told), atol=1e-5)
    target = Target(later, cond=told)
    np.testing.assert_allclose(target.state(target.white(one(prior, told))), one(prior, told), 1e-3)
    window = one(later, None)
    with pytest.raises(ValueError, match="unless its first state is told; give cond"):
        Target(later).white(window)
    second = jnp.c_[told, jnp.array([0.0, 1.0])]  # the second state alone
    with pytest.raises(RuntimeError, match="cond marks the first one as unknown"):
        Target(later, cond=second).white(window)


def test_draws_begin_with_the_states_that_they_are_told(prior):
    first = jnp.array([[0.3, -1.0, 2.0], [0.5, -0.8, 1.9]])
    x = sample(prior.denoiser, prior.schedule, first, KEY, 20).reshape(8, 3)
    np.testing.assert_allclose(x[:2], first, atol=2e-4)
    other = sample(prior.denoiser, prior.schedule, None, KEY, 20).reshape(8, 3)
    assert jnp.abs(x[2:] - other[2:]).max() > 0.1


def test_first_states_are_put_in(prior):
    value = jnp.zeros((8, 3)).at[:2].set(jnp.array([[0.3, -1.0, 2.0], [0.5, -0.8, 1.9]]))
    known = jnp.broadcast_to(jnp.arange(8)[:, None] < 2, (8, 3))
    put = lambda known: dasim.conditioning.inpainted_draws(prior, value, known, KEY, 3, levels=4)
    np.testing.assert_allclose(put(known)[:, :2], jnp.stack([value[:2]] * 3), atol=1e-4)
    with pytest.raises(ValueError, match="must be those of the window's first states"):
        put(known.at[4, 1].set(True))
