"""Priors: schedules, samplers against closed forms, training, and files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from dasim.covariance import as_covariance
from dasim.priors import GaussianDenoiser, VESchedule, VPSchedule
from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.sampler import (
    DEFAULT_STEPS,
    angle_weights,
    integrated,
    log_weights,
    sample,
)
from dasim.priors.store import load_arrays, save_arrays
from dasim.priors.train import FitSettings, fit
from dasim.problems import SHIPPED
from dasim.trained import (
    NetworkSpec,
    PriorSpec,
    load_prior,
    save_prior,
    start_from,
    train_transition,
)
from dasim.types import DataError

SCHEDULES = [VESchedule(), VPSchedule()]
names = lambda value: type(value).__name__


@pytest.mark.parametrize("schedule", SCHEDULES, ids=names)
def test_levels_fall_to_zero(schedule):
    levels = np.asarray(schedule.levels(9))
    assert levels.shape == (10,) and levels[-1] == 0
    assert (np.diff(levels) < 0).all()
    ends = schedule.draw(jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(levels[[0, -2]], ends, rtol=1e-4)


def test_variance_exploding_levels():
    schedule = VESchedule(0.02, 20.0, 5.0)
    np.testing.assert_allclose(np.diff(schedule.levels(9)[:-1] ** 0.2, n=2), 0, atol=1e-5)
    # uniform in the logarithm
    np.testing.assert_allclose(schedule.draw(jnp.asarray(0.5)), np.sqrt(0.02 * 20), rtol=1e-5)


def test_variance_preserving_levels():
    schedule = VPSchedule()
    for t in (0.01, 0.3, 1.0):
        integral, _ = quad(lambda s: 0.1 + (20 - 0.1) * s, 0, t)
        alpha, sigma = np.exp(-integral / 2), np.sqrt(1 - np.exp(-integral))
        np.testing.assert_allclose(schedule.level(t), sigma / alpha, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (VESchedule, {"sigma_min": 0.0}),
        (VESchedule, {"sigma_min": 30.0}),
        (VESchedule, {"rho": 0.0}),
        (VPSchedule, {"beta_max": 0.05}),
        (VPSchedule, {"t_min": 0.0}),
    ],
)
def test_schedules_refuse(kind, options):
    with pytest.raises(ValueError, match="expected"):
        kind(**options)


def test_gaussian_denoiser_is_the_regression_on_the_noisy_state():
    cov = np.array([[2.0, 0.6], [0.6, 1.0]])
    denoiser = GaussianDenoiser(jnp.asarray([1.0, -1.0]), as_covariance(cov, 2))
    z, s = np.array([3.0, 0.5]), 1.7
    gain = cov @ np.linalg.inv(cov + s**2 * cov)
    expected = np.array([1.0, -1.0]) + gain @ (z - [1.0, -1.0])
    np.testing.assert_allclose(denoiser(jnp.asarray(z), s), expected, rtol=1e-5)


def draws(denoiser, schedule, n_steps, n):
    one = jax.jit(jax.vmap(lambda key: sample(denoiser, schedule, None, key, n_steps)))
    return np.asarray(one(jax.random.split(jax.random.key(0), n)))


@pytest.mark.parametrize("n_steps", [1, DEFAULT_STEPS])
def test_a_gaussian_prior_is_exact_in_any_number_of_steps(n_steps):
    with jax.enable_x64(True):
        cov = np.array([[2.0, 0.6], [0.6, 1.0]])
        denoiser = GaussianDenoiser(jnp.asarray([1.0, -1.0]), as_covariance(cov, 2))
        for schedule in SCHEDULES:
            key = jax.random.key(0)
            latent = denoiser.covariance.sqrt(jax.random.normal(key, (2,)))
            got = sample(denoiser, schedule, None, key, n_steps)
            # the map of the latent is C^(1/2), whose square is the covariance
            np.testing.assert_allclose(got, np.array([1.0, -1.0]) + latent, rtol=1e-12)


class Scaled(AbstractDenoiser):
    """N(0, tau^2) with noise of unit covariance: F = v s (tau^2 - 1) / (tau^2 + s^2)."""

    tau: float

    def mean(self, cond):
        return jnp.zeros(1)

    def cov(self, cond):
        return as_covariance(1.0, 1)

    def correction(self, v, sigma, cond):
        return v * sigma * (self.tau**2 - 1) / (self.tau**2 + sigma**2)


@pytest.mark.parametrize("tau", [0.7, 1.4])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=names)
def test_the_sampler_converges_to_a_corrected_variance(schedule, tau):
    """The flow takes a latent v to tau v, up to the finite first level."""
    with jax.enable_x64(True):
        correction = lambda v, s: Scaled(tau).correction(v, s, None)
        errors = {angle_weights: [], log_weights: []}
        for n in (4 * DEFAULT_STEPS, 8 * DEFAULT_STEPS):
            levels = schedule.levels(n).astype(float)
            exact = tau * np.sqrt((1 + levels[0] ** 2) / (tau**2 + levels[0] ** 2))
            for weights, found in errors.items():
                got = integrated(correction, levels, jnp.ones(1), weights)[0]
                found.append(abs(float(got / exact) ** 2 - 1))
        of_angle, of_log = errors.values()
        assert of_angle[1] < 0.01 and 3 < of_angle[0] / of_angle[1] < 5
        # its error changes sign at some number of steps, so that no ratio of two is its order
        assert of_log[0] < 5e-3 and of_log[1] < 4e-4


@pytest.mark.parametrize("schedule", SCHEDULES, ids=names)
def test_a_parabola_is_integrated_without_error(schedule):
    """In q = arcsinh(s / 0.1), over the angle, from the third step on."""
    with jax.enable_x64(True):
        levels = schedule.levels(8).astype(float)
        parabola = lambda s: 2 - np.arcsinh(s / 0.1) + 0.3 * np.arcsinh(s / 0.1) ** 2
        weights, seen = np.asarray(log_weights(levels)), parabola(np.asarray(levels))
        for i in range(2, 8):
            got = weights[i] @ seen[[i, i - 1, i - 2]]
            ends = np.arctan(levels[i]), np.arctan(levels[i + 1])
            exact = quad(lambda a: parabola(np.tan(a)), *ends, epsabs=1e-12)[0]
            assert abs(got - exact) < 1e-8
        np.testing.assert_allclose(weights.sum(1), np.diff(np.arctan(levels)), rtol=1e-9)


class Mixture(AbstractDenoiser):
    """w N(a, t^2) + (1 - w) N(b, t^2), whose posterior mean is known in closed form."""

    w: float = 0.3
    a: float = -2.0
    b: float = 1.0
    t: float = 0.5

    @property
    def center(self):
        return self.w * self.a + (1 - self.w) * self.b

    @property
    def variance(self):
        return self.t**2 + self.w * (1 - self.w) * (self.a - self.b) ** 2

    def mean(self, cond):
        return jnp.full(1, self.center)

    def cov(self, cond):
        return as_covariance(self.variance**0.5, 1)

    def posterior_mean(self, z, sigma):
        noise = self.variance * sigma**2
        modes, total = jnp.asarray([self.a, self.b]), self.t**2 + noise
        logits = jnp.log(jnp.asarray([self.w, 1 - self.w])) - (z - modes) ** 2 / (2 * total)
        means = modes + self.t**2 / total * (z - modes)
        return jnp.sum(jax.nn.softmax(logits) * means, keepdims=True)

    def correction(self, v, sigma, cond):
        std, root = self.variance**0.5, jnp.sqrt(1 + sigma**2)
        mean = self.posterior_mean(self.center + std * root * v, sigma)
        return ((mean - self.center) / std * root - v) / sigma


def test_the_denoiser_of_a_correction_is_the_posterior_mean():
    with jax.enable_x64(True):
        prior, z, s = Mixture(), jnp.asarray([0.4]), 0.8
        np.testing.assert_allclose(prior(z, s), prior.posterior_mean(z, s), rtol=1e-10)


def test_a_mixture_with_the_default_steps():
    prior, n = Mixture(), 20_000
    x = draws(prior, VESchedule(), DEFAULT_STEPS, n)[:, 0]
    # a draw is within its mode but for 3 standard deviations, 0.14 %
    weight = (x < -0.5).mean()
    assert abs(weight - prior.w) < 4 * np.sqrt(0.21 / n) + 2e-3
    assert abs(x.mean() - prior.center) < 4 * np.sqrt(prior.variance / n)
    kurtosis = 2.0  # of this mixture about, so that the variance's error is sqrt(1 / n)
    assert abs(x.var() / prior.variance - 1) < 4 * np.sqrt((kurtosis - 1) / n) + 0.01


def test_a_mixture_with_many_steps_has_the_modes_widths():
    prior, n = Mixture(), 20_000
    x = draws(prior, VESchedule(), 8 * DEFAULT_STEPS, n)[:, 0]
    for mode, weight in ((x[x < -0.5], prior.w), (x[x > -0.5], 1 - prior.w)):
        assert abs(mode.var() / prior.t**2 - 1) < 4 * np.sqrt(2 / (weight * n)) + 0.02


# --- training and files ---

MATRIX = np.array([[0.8, 0.3], [-0.3, 0.7]], np.float32)
OFFSET = np.array([0.2, -0.1], np.float32)
NOISE = np.array([[0.5, 0.2], [0.2, 0.4]], np.float32)
SMALL = NetworkSpec(width=8, depth=1)
SPEC = PriorSpec((2,), 0.5, mean=SMALL, residual=SMALL)
FIT = FitSettings(n_steps=200, batch=64, learning_rate=1e-3, check=100)


def pairs(key, n):
    root = jnp.linalg.cholesky(jnp.asarray(NOISE))
    state_key, noise_key = jax.random.split(key)
    x = 1.5 * jax.random.normal(state_key, (n, 2))
    noise = jax.random.normal(noise_key, (n, 2)) @ root.T
    return x, x @ MATRIX.T + OFFSET + noise


@pytest.fixture(scope="module")
def trained():
    held_out = pairs(jax.random.key(10), 4096)
    return train_transition(SPEC, pairs, held_out, jax.random.key(0), FIT, FIT)


def test_training_recovers_a_linear_gaussian_transition(trained):
    transition, figures = trained
    x = 1.5 * jax.random.normal(jax.random.key(5), (500, 2))
    mean = jax.vmap(lambda v: transition.mean(v, 0.0))(x)
    error = np.asarray(mean - (x @ MATRIX.T + OFFSET))
    assert np.sqrt(np.mean(error**2)) < 0.05  # of a residual of 0.67
    cov = np.asarray(transition.residual_cov(x[0], 0.0).dense())
    stderr = np.sqrt((np.outer(np.diag(NOISE), np.diag(NOISE)) + NOISE**2) / 4096)
    assert (np.abs(cov - NOISE) < 4 * stderr + 0.05**2).all()
    # a Gaussian residual leaves the network nothing: the loss is that of F = 0
    assert abs(figures["denoising_loss"] - 1) < 0.05
    assert abs(figures["rmse_mean"] - np.sqrt(np.trace(NOISE) / 2)) < 0.03
    persistence = (np.eye(2) - MATRIX) * 1.5
    expected = np.sqrt((np.sum(persistence**2) + np.sum(OFFSET**2) + np.trace(NOISE)) / 2)
    assert abs(figures["rmse_persistence"] - expected) < 0.03
    assert figures["steps"] == [200, 200] and figures["pairs"] == 4096


def test_a_trained_transition_samples_what_it_learned(trained):
    transition, _ = trained
    x, n = jnp.asarray([1.0, -0.5]), 20_000
    keys = jax.random.split(jax.random.key(6), n)
    y = np.asarray(jax.jit(jax.vmap(lambda k: transition.sample(x, jnp.zeros(()), k)))(keys))
    assert (np.abs(y.mean(0) - (MATRIX @ [1.0, -0.5] + OFFSET)) < 0.1).all()
    assert (np.abs(np.cov(y.T) / NOISE - 1) < 0.15).all()


def test_a_mean_starts_from_the_weights_of_another_prior():
    def mean(key, width, repeats):
        network = NetworkSpec("conv", width, 1, 3, repeats)
        spec = PriorSpec((6,), 0.5, alike=True, mean=network, residual=SMALL)
        return spec.build(jax.random.key(key)).denoiser.regression

    start = mean(3, 4, 2)
    made = start_from(mean(4, 4, 3), start)
    assert made.network.repeats == 3
    for a, b in zip(jax.tree.leaves(made.network), jax.tree.leaves(start.network), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(DataError, match="start: .*same kind, width, depth and kernel"):
        start_from(mean(4, 5, 3), start)


class Stop(Exception):
    pass


def test_a_stopped_fit_goes_on_to_the_same_weights(tmp_path):
    held_out = pairs(jax.random.key(10), 256)
    model = eqx.nn.Linear(2, 2, key=jax.random.key(1))
    loss = lambda m, batch, key: jnp.mean((jax.vmap(m)(batch[0]) - batch[1]) ** 2)
    settings = FitSettings(n_steps=120, batch=32, learning_rate=1e-2, check=30)
    arguments = (model, loss, pairs, held_out, jax.random.key(2), settings)
    whole = fit(*arguments)

    def stop(done, training, value):
        if done == 60:
            raise Stop

    path = tmp_path / "fit.safetensors"
    with pytest.raises(Stop):
        fit(*arguments, checkpoint=path, progress=stop)
    seen = []
    resumed = fit(*arguments, checkpoint=path, progress=lambda done, *_: seen.append(done))
    assert seen == [90, 120]
    assert resumed.loss == whole.loss and resumed.steps == whole.steps == 120
    for a, b in zip(jax.tree.leaves(resumed.model), jax.tree.leaves(whole.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_prior_comes_back_from_its_file(trained, tmp_path):
    transition, _ = trained
    path = tmp_path / "prior.safetensors"
    save_prior(path, transition, SPEC, {"data": {"description": "a test"}})
    loaded, header = load_prior(path, (2,), 0.5)
    assert header["data"] == {"description": "a test"}
    assert jax.tree.structure(loaded) == jax.tree.structure(transition)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(transition), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["prior.safetensors"]


@pytest.fixture
def prior_file(tmp_path):
    path = tmp_path / "prior.safetensors"
    made = SPEC.build(jax.random.key(0))
    save_prior(path, made, SPEC, {"data": {"description": "a pendulum"}})
    return path


def test_a_prior_of_something_else_is_refused(prior_file):
    with pytest.raises(DataError, match=r"of a pendulum.*shape \(2,\).*\(40,\)"):
        load_prior(prior_file, (40,), 0.5)
    with pytest.raises(DataError, match=r"of a pendulum, with interval 0.5.*interval is 0.4"):
        load_prior(prior_file, (2,), 0.4)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_a_truncated_prior_is_refused(prior_file, share):
    content = prior_file.read_bytes()
    prior_file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="prior.safetensors: not a whole file.*truncated"):
        load_prior(prior_file)


def test_what_is_no_prior_is_refused(prior_file, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_prior(tmp_path / "absent.safetensors")
    with pytest.raises(DataError, match="cannot be read"):
        load_prior(tmp_path)
    prior_file.write_text("name: a YAML file, long enough to look at\n" * 5)
    with pytest.raises(DataError, match="not a whole file"):
        load_prior(prior_file)
    save_arrays(prior_file, {"a": jnp.ones(3)}, {"done": 4})
    with pytest.raises(DataError, match="format is None, expected 'dasim-prior-1'"):
        load_prior(prior_file)


def test_arrays_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "arrays"
    save_arrays(path, {"a": jnp.ones(3), "key": jax.random.key(1)}, {})
    with pytest.raises(DataError, match=r"array \['b'\] is missing"):
        load_arrays(path, {"b": jnp.ones(3)})
    with pytest.raises(DataError, match=r"array \['a'\] has shape \(3,\), expected \(4,\)"):
        load_arrays(path, {"a": jnp.ones(4)})


def test_a_shipped_prior_comes_back_from_far_outside_its_training():
    transition, _ = load_prior(SHIPPED / "lorenz96-0.5.safetensors")
    x = 30 * jax.random.normal(jax.random.key(0), (16, 40))
    ahead = jax.jit(jax.vmap(lambda x: transition.mean(x, 0.0)))
    for _ in range(5):
        x = ahead(x)
    assert jnp.abs(x).max() < 20  # its climate's is 14


def test_within_its_training_a_prior_is_not_limited():
    transition, _ = load_prior(SHIPPED / "lorenz96-0.5.safetensors")
    x = 2.34 + 3.64 * jax.random.truncated_normal(jax.random.key(0), -1.8, 1.8, (40,))
    free = eqx.tree_at(lambda t: t.denoiser.regression.limit, transition, jnp.full(2, 1e9))
    assert jnp.array_equal(transition.mean(x, 0.0), free.mean(x, 0.0))
