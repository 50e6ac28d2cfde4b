"""Priors of functions: denoisers and draws, against closed forms on any grid."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from field_networks import EDGES, KEY, RING, ROD, moved, network, rng, smooth, stirred

import dasim
from dasim.conditioning import MomentGuidance
from dasim.conditioning.guidance import Target
from dasim.fields import Grid, Matern, SquaredExponential, noise_process
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
    flow,
    multilevel_flow,
    on_grid,
)
from dasim.priors.field_training import field_loss, measured_gains
from dasim.priors.waves import WaveGains
from dasim.types import Observations

pytestmark = pytest.mark.usefixtures("float64")
NARROW = SquaredExponential(0.25)  # waves beyond the eighth of the box have 1e-7 of its variance

# each compiled as one program
drawn = eqx.filter_jit(flow)
dense_of = eqx.filter_jit(lambda cov: cov.dense())


# --- denoisers


def gaussian(box, n=8):
    """A field, under noise of another law."""
    grid = box.at((n,))
    law, noise = (
        noise_process(Matern(0.6, 1.5), grid, 1.3),
        noise_process(Matern(0.3, 0.5), grid, 0.9),
    )
    return GaussianFieldDenoiser(jnp.asarray(0.4), law, noise)


def matrices(denoiser):
    return np.asarray(dense_of(denoiser.law)), np.asarray(dense_of(denoiser.noise))


@EDGES
@pytest.mark.parametrize("s", [0.1, 3.0])
def test_a_gaussian_field_is_denoised_exactly(box, s):
    denoiser = gaussian(box)
    law, noise = matrices(denoiser)
    z = rng(4).normal(size=8)

    @eqx.filter_jit
    def run(denoiser, z, s):
        d = denoiser(z, s)
        back = denoiser.noise.sqrt(denoiser.correction(denoiser.noise.whiten(z), s))
        jacobian = jax.jacfwd(lambda z: denoiser(z, s))(z)
        return d, denoiser.noise.solve((d - z) / s**2), back, denoiser.drift(z, s), jacobian

    d, score, back, drift, jacobian = run(denoiser, jnp.asarray(z), s)
    whole = np.linalg.inv(law + s**2 * noise)
    np.testing.assert_allclose(d, 0.4 + law @ whole @ (z - 0.4), atol=1e-11)
    np.testing.assert_allclose(score, -whole @ (z - 0.4), atol=1e-8)
    np.testing.assert_allclose(back, drift, atol=1e-11)
    # Tweedie's second formula has the noise's covariance in it
    exact = law - law @ whole @ law
    np.testing.assert_allclose(s**2 * jacobian @ noise, exact, atol=1e-11)
    variance = np.trace(noise) / 8
    assert np.abs(s**2 * jacobian * variance - exact).max() > 0.1 * np.abs(exact).max()


def test_a_field_and_its_noise_are_on_one_grid():
    one, other = gaussian(RING), gaussian(RING, 10)
    with pytest.raises(ValueError, match="different grids"):
        GaussianFieldDenoiser(one.center, one.law, other.noise)
    moved = one.on(RING.at((10,)))
    for got, expected in zip(jax.tree.leaves(moved), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def trained(box, grid=None, spectrum=None, **options):
    """A denoiser as if it had been trained."""
    noise = noise_process(spectrum or Matern(0.5, 1.5), grid or box, 1.7)
    return FieldDenoiser(jnp.asarray(0.4), noise, OnGrid(network(box, fields=1, **options), box))


def test_the_two_forms_of_a_trained_correction_agree():
    s, root = 0.7, np.sqrt(1.49)

    @eqx.filter_jit
    def run(denoiser, v):
        w = denoiser.noise.sqrt(v)
        back = denoiser.noise.sqrt(denoiser.correction(v, s))
        return w, denoiser.drift(w, s, None), back, denoiser(0.4 + root * w, s)

    w, drift, back, d = run(trained(RING), jnp.asarray(rng(5).normal(size=32)))
    assert jnp.abs(drift).max() > 0.1
    np.testing.assert_allclose(back, drift, rtol=1e-9)
    np.testing.assert_allclose(d, 0.4 + (w + s * drift) / root, atol=1e-11)


@EDGES
def test_a_network_adds_to_the_linear_part_of_a_law(box):
    plain = trained(box)
    law = noise_process(Matern(0.6, 0.5), box, 1.1)
    given = dataclasses.replace(plain, law=law)
    gaussian = GaussianFieldDenoiser(plain.center, law, plain.noise)
    w = jnp.asarray(rng(9).normal(size=32))
    run = eqx.filter_jit(lambda d, w, s: d.drift(w, s, None))
    got, parts = run(given, w, 0.6), [run(d, w, 0.6) for d in (plain, gaussian)]
    assert min(jnp.abs(p).max() for p in parts) > 0.1
    np.testing.assert_allclose(got, sum(parts), atol=1e-10)
    assert given.on(box.at((96,))).law.grid.shape == (96,)


@pytest.mark.parametrize(
    "box", [RING, ROD, Grid((12, 16), (2.0, 2.0))], ids=["periodic", "bounded", "2-d"]
)
def test_gains_give_draws_the_spectrum_of_the_fields(box):
    """With nothing learned, where the noise has less than a thousand times the field's power.

    With all known they are next to nothing.
    """
    noise, law = (noise_process(s, box, 1.2) for s in (Matern(0.3, 0.5), NARROW))
    modes, schedule, count, steps = (2,) * len(box.shape), VESchedule(), 512, 24
    new = OnGrid(FourierNetwork(1, 1, box, modes, 2, 1, KEY), box)
    denoiser = FieldDenoiser(jnp.zeros(()), noise, new)

    def draw(key, n):
        fields = jax.vmap(law.sample)(jax.random.split(key, n))
        return jnp.zeros((n, 0)), fields.reshape(n, -1)

    gains = measured_gains(denoiser, schedule, draw, KEY, steps, count)
    known = dataclasses.replace(denoiser, law=law)
    small = measured_gains(known, schedule, draw, KEY, 4 * steps, count)
    k = np.sqrt(sum(np.meshgrid(*(a**2 for a in box.wavenumbers), indexing="ij")))
    length = np.round(k / gains.step).astype(int)
    white = jax.random.normal(jax.random.key(1), (count, box.size))
    fitted = dataclasses.replace(denoiser, gains=gains)
    x = jax.vmap(lambda e: drawn(fitted, schedule, None, e, steps))(white)
    power = np.abs(jax.vmap(box.coefficients)(x.reshape(count, *box.shape))) ** 2
    values = np.asarray(law.values)
    assert np.isclose(k, gains.step * (gains.values.shape[1] - 1)).any()
    for i in range(gains.values.shape[1]):
        # of those about the last length only the shorter ones are given any
        there = (length == i) & (k <= gains.step * (gains.values.shape[1] - 1 + 1e-9))
        own, total = values[there], np.asarray(noise.values)[there].sum()
        # two samples, each with an error of as many numbers as the length has waves; the last
        # length's shorter waves are given what lies on a line to the one before
        if own.sum() > 1e-3 * total:
            error = np.sqrt(4 * np.sum(own**2) / count) / own.sum()
            slack = 0.01 if i < gains.values.shape[1] - 1 else 0.04
            assert abs(power[:, there].sum(1).mean() / own.sum() - 1) < 5 * error + slack
    assert float(jnp.abs(gains.values).max()) > 0.5
    moved = jnp.abs(small.values[:-1] * jnp.diff(small.angles)[:, None]).sum(0)
    assert float(moved.max()) < 0.06


@pytest.mark.parametrize(
    "box", [RING, ROD, Grid((12, 16), (2.0, 2.0))], ids=["periodic", "bounded", "2-d"]
)
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("finer", [0, 8], ids=["inner as the coarse", "inner finer"])
def test_a_denoiser_is_one_function_of_the_waves_that_its_network_sees(box, balanced, finer):
    """The highest even one among them."""
    fine = box.at(tuple(2 * n for n in box.shape))
    inner = box.at(tuple(n + finer for n in box.shape))
    modes = (2,) * len(box.shape)
    new = OnGrid(network(box, inner, modes=modes, fields=1 + balanced), box)
    noise = noise_process(Matern(0.3, 0.5), box, 1.2, folded=False)
    coarse = FieldDenoiser(jnp.zeros(()), noise, new, balanced=balanced)
    w = jnp.asarray(rng(9).normal(size=fine.shape))
    down = lambda x: moved(x.reshape(fine.shape), fine, box)
    if finer:  # it sees more of the fine field than the coarse grid has
        w = moved(down(w), box, fine)
    drift = eqx.filter_jit(lambda denoiser, w: denoiser.drift(w.reshape(-1), 0.7, None))
    expected = drift(coarse, down(w))
    got = down(drift(coarse.on(fine), w)).reshape(-1)
    assert float(jnp.abs(expected).max()) > 0.1
    np.testing.assert_allclose(got, expected, atol=3e-5)


def test_gains_are_one_function_on_all_grids():
    gains = WaveGains(jnp.asarray([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]]), jnp.asarray([0.2, 1.0]), 2.0)
    box = Grid((6,), (2 * np.pi,))
    # at the middle of the levels, and below the first
    np.testing.assert_allclose(gains(box, np.tan(0.6)), [0.5, 0.75, 1, 1.75, 1, 0.75])
    np.testing.assert_allclose(gains(box, 0.0), [1, 1.5, 2, 3, 2, 1.5])
    np.testing.assert_allclose(gains(box.at((12,)), 0.0)[:7], [1, 1.5, 2, 3, 4, 0, 0])


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
    x = np.asarray(dasim.conditional_draws(prior, event, KEY, n, levels=32))
    std = np.sqrt(np.diag(cov))
    # of draws picked by weights, some are the same
    assert (np.abs(x.mean(0) - mean) < 5 * std / np.sqrt(n / 2)).all()
    assert (np.abs(x.std(0) / std - 1) < 5 / np.sqrt(n)).all()


# --- training


@pytest.mark.parametrize(("box", "whitened"), [(RING, False), (ROD, True)])
def test_the_loss_where_the_network_gives_nothing(box, whitened):
    """E |(s u - e) / root(1 + s^2)|^2 for u of one law and e of another."""
    field = gaussian(box, 32)
    law, noise, n = field.law, field.noise, 1024
    network = OnGrid(FourierNetwork(1, 1, box, (4,), 4, 1, KEY), box)
    schedule = VESchedule()
    x = 0.4 + jax.jit(jax.vmap(lambda k: law.sample(k)))(jax.random.split(KEY, n))
    levels = np.asarray(schedule.draw((jnp.arange(n) + 0.5) / n))[:, None]
    weight = 1 / np.asarray(noise.values) if whitened else 1 / noise.std**2
    waves = (levels**2 * law.values + noise.values) / (1 + levels**2) * weight
    # the wrong's waves are independent
    stderr = np.sqrt(2 * (waves**2).sum(1).mean() / n) / 32
    denoiser, batch = FieldDenoiser(field.center, noise, network), (jnp.zeros((n, 0)), x)
    got = eqx.filter_jit(field_loss)(denoiser, schedule, batch, KEY, whitened)
    assert abs(got - waves.mean()) < 4 * stderr + 1e-3
