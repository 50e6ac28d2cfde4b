"""Priors of functions: denoisers, gains and training, against closed forms on any grid."""

import dataclasses

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
    ROD,
    drawn,
    gaussian,
    matrices,
    moved,
    network,
    rng,
    trained,
)

from dasim.fields import Grid, Matern, noise_process
from dasim.priors import (
    FieldDenoiser,
    FourierNetwork,
    GaussianFieldDenoiser,
    OnGrid,
    VESchedule,
)
from dasim.priors.field_training import field_loss, measured_gains
from dasim.priors.waves import WaveGains

pytestmark = pytest.mark.usefixtures("float64")

# --- denoisers


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
