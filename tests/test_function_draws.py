"""Draws of functions, also given an event, against closed forms on any grid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from field_networks import (
    EDGES,
    KEY,
    NARROW,
    RING,
    drawn,
    gaussian,
    matrices,
    rng,
    smooth,
    stirred,
    trained,
)

import dasim
from dasim.conditioning import MomentGuidance
from dasim.conditioning.guidance import Target
from dasim.fields import Matern, noise_process
from dasim.functions import FunctionSpec, OperatorSpec
from dasim.observe import Gaussian, Observation
from dasim.operators import FieldValues
from dasim.priors import (
    DiffusionPrior,
    FieldDenoiser,
    FourierNetwork,
    GaussianDenoiser,
    GaussianFieldDenoiser,
    OnGrid,
    VESchedule,
    multilevel_flow,
    on_grid,
)
from dasim.types import Observations

pytestmark = pytest.mark.usefixtures("float64")


# --- draws


def white(grid):
    """Standard normal noise, its waves up to the seventh the same on all grids."""
    x = rng(6).normal(size=15)
    return jnp.asarray(grid.at((15,)).basis(grid.points[0][:, None]) @ x * np.sqrt(15 / grid.size))


@EDGES
@pytest.mark.parametrize("n_steps", [1, 5])
def test_a_field_with_the_noise_own_law_is_drawn_exactly(box, n_steps):
    law = noise_process(Matern(0.5, 1.5), box, 1.7)
    new = FourierNetwork(1, 1, box, (4,), 4, 1, KEY)
    noise = jnp.asarray(rng(7).normal(size=32))
    expected = 0.4 + law.sqrt(noise)
    center = jnp.asarray(0.4)
    for denoiser in (
        GaussianFieldDenoiser(center, law, law),
        FieldDenoiser(center, law, OnGrid(new, box)),
    ):
        got = drawn(denoiser, VESchedule(), None, noise, n_steps)
        np.testing.assert_allclose(got, expected, atol=1e-11)


@EDGES
def test_the_sampler_converges_to_another_law_wave_by_wave(box):
    """Up to the finite first level; at second order."""
    denoiser, schedule = gaussian(box), VESchedule()
    grid, noise = denoiser.noise.grid, jnp.asarray(rng(8).normal(size=8))
    start = grid.coefficients(denoiser.noise.sqrt(noise))
    ratio = np.asarray(denoiser.law.values / denoiser.noise.values)
    assert ratio.max() / ratio.min() > 3
    exact = ratio * (1 + 20.0**2) / (ratio + 20.0**2)
    errors = []
    for n_steps in (32, 64):
        x = drawn(denoiser, schedule, None, noise, n_steps)
        found = np.abs(np.asarray(grid.coefficients(x - 0.4) / start)) ** 2
        errors.append(np.abs(found / exact - 1).max())
    assert errors[1] < 0.02
    assert 3 < errors[0] / errors[1] < 5


def test_a_trained_prior_draws_the_same_function_on_all_grids():
    prior = DiffusionPrior(trained(RING, spectrum=NARROW, inner=RING), (32,), n_steps=3)
    found = {}
    for n in (32, 64, 128):
        moved = on_grid(prior, (n,))
        assert moved.shape == (n,) and moved.denoiser.grid.shape == (n,)
        assert moved.denoiser.noise.std == prior.denoiser.noise.std
        before, after = prior.denoiser.network.network, moved.denoiser.network.network
        assert jax.tree.all(jax.tree.map(lambda a, b: a is b, before, after))
        noise = white(RING.at((n,)))
        found[n] = drawn(moved.denoiser, moved.schedule, None, noise, moved.n_steps)
    gaussian = 0.4 + prior.denoiser.noise.sqrt(white(RING))
    assert jnp.abs(found[32] - gaussian).max() > 0.1  # the network has its say
    np.testing.assert_allclose(found[64], found[128][::2], atol=1e-4)
    np.testing.assert_allclose(found[32], found[128][::4], atol=1e-4)


SPEC = FunctionSpec(
    (32,),
    (2.0,),
    OperatorSpec((4,), 4, 1),
    noise={"kind": "squared-exponential", "length": 0.25},
    interval=0.5,
    mean=OperatorSpec((4,), 4, 1),
    inner=(32,),
)


@pytest.fixture(scope="module")
def transition(float64):
    made = SPEC.build(KEY)
    where = lambda t: (t.denoiser.regression.network.network, t.denoiser.network.network)
    return eqx.tree_at(where, made, tuple(stirred(n) for n in where(made)))


driven = eqx.filter_jit(lambda t, x, noise: (t.mean(x, 0.0), t.driven(x, jnp.zeros(()), noise)))


def test_a_transition_is_the_same_on_all_grids(transition):
    found = {}
    for n in (32, 128):
        grid = RING.at((n,))
        moved = on_grid(transition, (n,))
        assert moved.interval == 0.5 and moved.shape == (n,) and moved.noise_size == n
        found[n] = driven(moved, smooth(grid, fields=1)[0], white(grid))
    for coarse, fine in zip(found[32], found[128], strict=True):
        np.testing.assert_allclose(coarse, fine[::4], atol=1e-4)
    assert jnp.abs(found[32][0] - smooth(RING, fields=1)[0]).max() > 0.1


coarse_first = eqx.filter_jit(multilevel_flow)


def test_with_nothing_to_learn_large_scales_first_is_the_same():
    new, noise, cond = SPEC.build(KEY), white(RING), smooth(RING, fields=1)[0]
    prior = DiffusionPrior(new.denoiser, (32,), n_steps=3)
    expected = cond + new.denoiser.noise.sqrt(noise)
    got = coarse_first(prior, [(16,), (24,)], noise, cond)
    np.testing.assert_allclose(got, expected, atol=1e-9)


@EDGES
def test_large_scales_first_tends_to_the_draw_of_one_grid(box):
    """Where the coarse grids hold all the waves; both solvers are of second order."""
    noise, (law, own) = white(box), (noise_process(NARROW, box, std) for std in (2.0, 1.0))
    denoiser, errors = GaussianFieldDenoiser(jnp.asarray(0.4), law, own), []
    for n_steps in (96, 192):
        prior = DiffusionPrior(denoiser, (32,), n_steps=n_steps)
        got = coarse_first(prior, [(20,), (24,)], noise)
        plain = drawn(denoiser, prior.schedule, None, noise, n_steps)
        errors.append(float(jnp.abs(got - plain).max()))
    assert jnp.abs(plain - 0.4 - own.sqrt(noise)).max() > 0.5
    assert errors[1] < 1e-3 and errors[1] < errors[0] / 3


def test_a_prior_of_vectors_has_one_grid(transition):
    vector = DiffusionPrior(GaussianDenoiser(jnp.zeros(8), gaussian(RING).law), (8,))
    with pytest.raises(ValueError, match=r"of states of shape \(8,\) alone; one of functions"):
        on_grid(vector, (16,))
    with pytest.raises(ValueError, match=r"shape \(8, 8\); this prior is of fields with 1 axes"):
        on_grid(transition, (8, 8))
    with pytest.raises(ValueError, match="even numbers of at least 8 points"):
        on_grid(transition, (33,))


# --- given an event


@pytest.fixture(scope="module")
def observed(float64):
    denoiser = gaussian(RING)
    prior = DiffusionPrior(denoiser, (8,), n_steps=8)
    operator = FieldValues(denoiser.law.grid, np.array([[0.3], [1.1]]))
    y, r = np.array([1.4, -0.8]), np.diag([0.3**2, 0.5**2])
    observation = Observation(operator, Gaussian(std=np.sqrt(np.diag(r))))
    event = observation.event(Observations(jnp.zeros(()), jnp.asarray(y), jnp.ones(2, bool)))
    return prior, event, np.asarray(operator.weights), y, r


@pytest.mark.parametrize("s", [0.3, 2.0])
def test_the_guided_denoiser_is_the_conditional_mean(observed, s):
    prior, event, h, y, r = observed
    law, noise = matrices(prior.denoiser)
    z = 0.4 + rng(9).normal(size=8)
    precision = np.linalg.inv(law) + np.linalg.inv(s**2 * noise)
    plain = np.linalg.inv(precision)
    pulled = np.linalg.solve(s**2 * noise, z - 0.4)
    exact = 0.4 + np.linalg.solve(
        precision + h.T @ np.linalg.solve(r, h),
        pulled + h.T @ np.linalg.solve(r, y - 0.4 * h.sum(1)),
    )
    target, angle = Target(prior, event), jnp.arctan(s)
    v = jnp.cos(angle) * prior.denoiser.noise.whiten(jnp.asarray(z - 0.4))
    seen = eqx.filter_jit(MomentGuidance())(target, v, angle)
    np.testing.assert_allclose(target.state(seen.xhat), 0.4 + plain @ pulled, atol=1e-10)
    np.testing.assert_allclose(target.state(seen.xhat + seen.shift), exact, atol=1e-10)
    assert np.abs(exact - 0.4 - plain @ pulled).max() > 0.05
    rest, cov = y - h @ (0.4 + plain @ pulled), h @ plain @ h.T + r
    log_psi = -0.5 * (rest @ np.linalg.solve(cov, rest) + np.linalg.slogdet(2 * np.pi * cov)[1])
    np.testing.assert_allclose(seen.log_psi, log_psi, rtol=1e-10)


def test_draws_given_readings_have_the_conditional_law(observed):
    prior, event, h, y, r = observed
    law, n = matrices(prior.denoiser)[0], 500
    gain = np.linalg.solve(h @ law @ h.T + r, h @ law).T
    mean, cov = 0.4 + gain @ (y - 0.4 * h.sum(1)), law - gain @ h @ law
    x = np.asarray(dasim.conditional_draws(prior, event, KEY, n, levels=32, method="smc"))
    std = np.sqrt(np.diag(cov))
    # of draws picked by weights, some are the same
    assert (np.abs(x.mean(0) - mean) < 5 * std / np.sqrt(n / 2)).all()
    assert (np.abs(x.std(0) / std - 1) < 5 / np.sqrt(n)).all()
