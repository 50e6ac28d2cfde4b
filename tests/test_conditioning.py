"""Events of diffusion priors: probabilities and draws where both are known in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest, norm, truncnorm

import dasim
from dasim.conditioning import ConstantGuidance, MomentGuidance, probability, splitting
from dasim.conditioning.guidance import Target
from dasim.covariance import DenseCovariance, DiagonalCovariance
from dasim.events import Equals, Exceeds, Within
from dasim.priors import (
    AbstractDenoiser,
    DiffusionPrior,
    GaussianDenoiser,
    SubVPSchedule,
    VPSchedule,
)

pytestmark = pytest.mark.usefixtures("float64")

N = 5
WEIGHTS = np.linspace(0.1, 0.5, N)
ROOT = np.random.default_rng(0).standard_normal((N, N))
COV, OFFSET = ROOT @ ROOT.T / N + 0.1 * np.eye(N), np.arange(N) - 2.0
MEAN, STD = float(WEIGHTS @ OFFSET), float(np.sqrt(WEIGHTS @ COV @ WEIGHTS))
KEY = jax.random.key(4)


def functional(x):
    return jnp.sum(jnp.asarray(WEIGHTS) * x)


def gaussian():
    cov = DenseCovariance.from_matrix(jnp.asarray(COV))
    return DiffusionPrior(GaussianDenoiser(jnp.asarray(OFFSET), cov), (N,), n_steps=1)


def above(p):
    """The event of probability p."""
    return Exceeds(functional, MEAN + STD * norm.isf(p))


@pytest.mark.parametrize(
    ("method", "p", "n"),
    [
        ("smc", 1e-1, 1600),
        ("smc", 1e-6, 1600),
        ("noise-splitting", 1e-2, 1600),
        ("splitting", 1e-1, 1600),
        ("splitting", 1e-6, 1600),
        ("density", 1e-6, 64),
        ("mc", 1e-1, 4000),
    ],
)
def test_probabilities_of_a_gaussian_prior(method, p, n):
    found = dasim.event_probability(gaussian(), above(p), KEY, method, n=n, levels=16)
    assert found.std_error < 0.2
    assert abs(np.log10(found.probability / p)) < 4 * found.std_error + 0.01
    assert found.low < found.probability < found.high
    # the draws are those of the normal law cut off at the level
    weights = np.exp(np.asarray(found.log_weights))
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)
    inside = np.asarray(jax.vmap(above(p).holds)(found.draws))
    assert weights[~inside].sum() == 0
    got = weights @ np.asarray(jax.vmap(functional)(found.draws))
    exact = MEAN + STD * norm.pdf(norm.isf(p)) / p
    size = 1 / np.sum(weights**2)
    spread = STD * np.sqrt(truncnorm(norm.isf(p), np.inf).var() / min(size, 100))
    assert abs(got - exact) < 5 * spread


def errors_of_splitting(p, runs, **options):
    """Estimates, whose mean is unbiased, and the error that they tell over the one they have."""
    found = [
        dasim.event_probability(gaussian(), above(p), jax.random.key(k), **options)
        for k in range(runs)
    ]
    errors = np.log([f.probability / p for f in found])
    said = np.log(10) * np.array([f.std_error for f in found])
    assert abs(np.mean(np.exp(errors)) - 1) < 4 * errors.std() / runs**0.5
    return found, np.sqrt(np.mean(said**2)) / errors.std()


def test_the_error_of_splitting_is_as_large_as_it_says():
    found, ratio = errors_of_splitting(1e-3, 60, n=768, moves=3)
    assert 0.7 < ratio < 1.4
    assert np.mean([f.low < 1e-3 < f.high for f in found]) > 0.85


def test_more_first_draws_than_a_level_has():
    _, ratio = errors_of_splitting(1e-4, 16, n=768, first=4096)
    assert 0.6 < ratio < 1.6
    # a fortieth of them pass the first level, and a tenth the others
    split = splitting.run(Target(gaussian(), above(1e-4)), 8000, 2000, 10, KEY)
    levels = np.array([level for level, _ in split.plan]) * np.asarray(split.scale) / STD
    passed = norm.sf(norm.isf(1e-4) + levels)
    np.testing.assert_allclose(passed, [1 / 40, 1 / 400, 1 / 4000], rtol=0.5)
    with pytest.raises(ValueError, match="first is 100, expected at least as many draws as n, 256"):
        dasim.event_probability(gaussian(), above(1e-4), KEY, n=256, first=100)


def test_moves_become_as_short_as_sheets_are_thin():
    waves = Exceeds(lambda x: jnp.cos(300 * (functional(x) - MEAN) / STD), np.cos(np.pi * 1e-3))
    plan, reached = splitting.find_levels(Target(gaussian(), waves), 1.0, 4096, 512, 10, KEY)
    # an eightieth of the draws, in sheets of a width of 2.6e-4 standard deviations
    assert reached and 2e-5 < plan[0][1] < 2e-3


def test_few_draws_have_an_error_too():
    # all families are in the event here, which tells of no error: each counts as one draw
    assert splitting.relative_variance(np.array([0, 1]), 2) == 0.5
    assert splitting.relative_variance(np.array([0, 0]), 2) == 1.0
    # shares of 2/3, 1/3 and nothing
    assert np.isclose(splitting.relative_variance(np.array([0, 0, 1]), 3), 1 / 3)
    found = dasim.event_probability(gaussian(), above(0.02), KEY, n=2, moves=1)
    assert found.low <= found.probability <= found.high


def test_draws_that_left_the_event_weigh_nothing():
    # as they can by rounding, where their path is chaotic
    noise = jax.random.normal(KEY, (40, N))
    for p in (0.5, 1e-9):
        target = Target(gaussian(), above(p))
        draws, log_weights = splitting.draws_of(target, noise)
        inside = np.asarray(jax.vmap(above(p).holds)(draws))
        assert 10 < inside.sum() < 30 if p == 0.5 else not inside.any()
        share = inside / max(inside.sum(), 1)
        np.testing.assert_allclose(np.exp(log_weights), share, rtol=1e-6)
        found = probability._of_islands(target, np.zeros(8), 1, noise, jnp.zeros(40), "smc")
        assert found.probability == 1.0 and len(found.draws) == (40 if inside.any() else 0)
        weights = np.exp(found.log_weights)
        np.testing.assert_allclose(weights, share[: len(weights)], rtol=1e-6)


@pytest.mark.parametrize("method", ["smc", "splitting"])
def test_draws_given_an_event_have_its_law(method):
    event = Within(functional, MEAN + STD, MEAN + 2 * STD)
    x = dasim.conditional_draws(gaussian(), event, KEY, 400, levels=16, method=method)
    assert len(np.unique(x, axis=0)) > 200
    scaled = (np.asarray(jax.vmap(functional)(x)) - MEAN) / STD
    assert kstest(scaled[::2], truncnorm(1, 2).cdf).pvalue > 0.01
    # what the event does not see keeps its law: along a direction that does not covary
    other = np.linalg.svd((COV @ WEIGHTS)[None])[2][1]
    free = (np.asarray(x) - OFFSET) @ other / np.sqrt(other @ COV @ other)
    assert kstest(free[::2], norm.cdf).pvalue > 0.01


def test_an_observation_has_its_density():
    value, std = MEAN + 2 * STD, 0.5 * STD
    event = Equals(functional, value, std)
    exact = norm.pdf(value, MEAN, np.hypot(STD, std))
    for method in ("smc", "mc"):
        found = dasim.event_probability(gaussian(), event, KEY, method, n=1600, levels=16)
        assert abs(np.log10(found.probability / exact)) < 4 * found.std_error + 0.01
    for asked in (dasim.event_probability, dasim.conditional_draws):
        with pytest.raises(TypeError, match="has a density, and no margin; take method='smc'"):
            asked(gaussian(), event, KEY, n=64)


def test_composed_events():
    first, second = (lambda x: x[0]), (lambda x: x[3])
    event = Exceeds(first, OFFSET[0]) & ~Exceeds(second, OFFSET[3])
    correlation = COV[0, 3] / np.sqrt(COV[0, 0] * COV[3, 3])
    exact = 0.25 - np.arcsin(correlation) / (2 * np.pi)
    for method in ("smc", "splitting"):
        found = dasim.event_probability(gaussian(), event, KEY, method, n=1600, levels=16)
        assert abs(np.log10(found.probability / exact)) < 4 * found.std_error + 0.01


class Mixture(AbstractDenoiser):
    """Two normal laws N(+-1, 0.2^2) of equal weight in the first number, N(0, 1) in the other."""

    def mean(self, cond=None):
        return jnp.zeros(2)

    def cov(self, cond=None):
        return DenseCovariance.from_matrix(jnp.diag(jnp.array([1.04, 1.0])))

    def correction(self, v, sigma, cond=None):
        sine2 = sigma**2 / (1 + sigma**2)
        cosine2 = 1 - sine2
        center, variance = 1 / jnp.sqrt(1.04), 0.04 / 1.04
        total = cosine2 * variance + sine2
        mode = jnp.sqrt(cosine2) * center
        share = jax.nn.sigmoid(2 * v[0] * mode / total)
        mean = (2 * share - 1) * mode
        score = -(v[0] - mean) / total
        # F = (score + v) / cot(a)
        return jnp.array([1.0, 0.0]) * (score + v[0]) * sigma


def test_two_modes_are_kept():
    prior = DiffusionPrior(Mixture(), (2,), n_steps=40)
    event = Exceeds(lambda x: x[0] ** 2, 1.44)
    exact = norm.sf(1.2, 1, 0.2) + norm.cdf(-1.2, 1, 0.2)
    for method in ("noise-splitting", "splitting"):
        found = dasim.event_probability(prior, event, KEY, method, n=1600, levels=32)
        assert abs(np.log10(found.probability / exact)) < 4 * found.std_error + 0.02
        weights = np.exp(np.asarray(found.log_weights))
        assert abs(weights @ np.asarray(found.draws[:, 0] > 0) - 0.5) < 0.15


def test_moments_are_exact_for_a_gaussian_prior():
    target, angle = Target(gaussian(), above(0.01)), jnp.asarray(0.9)
    v = jax.random.normal(KEY, (N,))
    plain, full = (MomentGuidance(d)(target, v, angle) for d in (False, True))
    # the variance does not depend on the point, so its derivative adds nothing
    np.testing.assert_allclose(plain.shift, full.shift, rtol=1e-6)
    mean = float(functional(target.state(jnp.cos(angle) * v)))
    left = STD * float(jnp.sin(angle))
    exact = norm.logsf(MEAN + STD * norm.isf(0.01), mean, left)
    np.testing.assert_allclose(plain.log_psi, exact, rtol=1e-6)
    slope = jax.grad(lambda v: MomentGuidance()(target, v, angle).log_psi)(v)
    scale = jnp.sin(angle) * jnp.tan(angle)
    np.testing.assert_allclose(plain.shift, scale * slope, rtol=1e-6)


def test_constant_strength_leaves_the_event():
    x = {
        guidance: dasim.conditional_draws(
            gaussian(), above(0.02), KEY, 250, levels=16, guidance=guidance, method="score"
        )
        for guidance in (MomentGuidance(), ConstantGuidance(STD))
    }
    inside = [float(jax.vmap(above(0.02).holds)(draws).mean()) for draws in x.values()]
    assert inside[0] > 0.9 and inside[1] < inside[0] - 0.1


def test_what_is_refused():
    with pytest.raises(ValueError, match="method is 'exact', expected one of splitting"):
        dasim.event_probability(gaussian(), above(0.1), KEY, "exact")
    impossible = Exceeds(lambda x: jnp.tanh(x[0]), 2.0)
    with pytest.raises(ValueError, match="the event was not reached after .* may be impossible"):
        dasim.event_probability(gaussian(), impossible, KEY, "splitting", n=64, moves=2)
    assert dasim.event_probability(gaussian(), impossible, KEY, "mc", n=250).probability == 0
    found = dasim.event_probability(gaussian(), impossible, KEY, "smc", n=64, levels=8)
    assert found.low == 0 and found.high == 1 and len(found.draws) == 0
    with pytest.raises(ValueError, match="none of 64 draws meets the event"):
        dasim.conditional_draws(gaussian(), impossible, KEY, 16, levels=8, method="smc")
    with pytest.raises(ValueError, match="method is 'mc', expected one of splitting"):
        dasim.conditional_draws(gaussian(), above(0.1), KEY, 16, method="mc")
    with pytest.raises(ValueError, match="n is 0, expected at least 1"):
        dasim.event_probability(gaussian(), impossible, KEY, n=0)


def test_a_functional_without_a_gradient_somewhere():
    # the root of what is zero for half of the points has no gradient there
    event = Exceeds(lambda x: jnp.sqrt(x[0] - OFFSET[0] + jnp.abs(x[0] - OFFSET[0])), 1.0)
    exact = norm.sf(0.5 / np.sqrt(COV[0, 0]))
    for method in ("noise-splitting", "splitting"):
        found = dasim.event_probability(gaussian(), event, KEY, method, n=800, levels=16)
        assert abs(np.log10(found.probability / exact)) < 4 * found.std_error + 0.02


def test_small_angles_in_single_precision():
    with jax.enable_x64(False):
        prior = DiffusionPrior(
            GaussianDenoiser(jnp.zeros(2), DenseCovariance.from_matrix(jnp.eye(2))),
            (2,),
            SubVPSchedule(),
            1,
        )
        found = dasim.event_probability(
            prior, Exceeds(lambda x: x[0], 2.0), KEY, "smc", n=800, levels=24
        )
    assert abs(np.log10(found.probability / norm.sf(2.0))) < 4 * found.std_error + 0.01


def test_a_transition_is_asked_for_its_next_state():
    matrix = jnp.eye(N) * 0.5
    denoiser = eqx.tree_at(
        lambda d: d.matrix, gaussian().denoiser, matrix, is_leaf=lambda a: a is None
    )
    transition = dasim.DiffusionTransition(denoiser, 1.0, (N,))
    x = jnp.ones(N)
    cond = transition.condition(x, jnp.zeros(()))
    found = dasim.event_probability(
        transition, above(1e-3), KEY, "smc", cond=cond, n=800, levels=16
    )
    exact = norm.sf(norm.isf(1e-3) - 0.5 * WEIGHTS.sum() / STD)
    assert abs(np.log10(found.probability / exact)) < 4 * found.std_error + 0.01


class Correlated(AbstractDenoiser):
    """N(0, R), R_ij = 0.8^|i - j|, under white noise."""

    n: int = eqx.field(static=True, default=4)

    def law(self):
        i = jnp.arange(self.n)
        return 0.8 ** jnp.abs(i[:, None] - i)

    def mean(self, cond=None):
        return jnp.zeros(self.n)

    def cov(self, cond=None):
        return DiagonalCovariance(jnp.ones(self.n))

    def correction(self, v, sigma, cond=None):
        angle = jnp.arctan(sigma)
        total = jnp.cos(angle) ** 2 * self.law() + jnp.sin(angle) ** 2 * jnp.eye(self.n)
        xhat = jnp.cos(angle) * self.law() @ jnp.linalg.solve(total, v)
        return (xhat - jnp.cos(angle) * v) / jnp.sin(angle)


@pytest.mark.parametrize(
    ("options", "tolerance"), [({"repeats": 20}, 0.15), ({}, 0.8), ({"width": 0.5}, 0.8)]
)
def test_inpainting(options, tolerance):
    """Given x0 = 1.5 the next is N(1.2, 0.36); repeats bring the draws near to it."""
    prior = DiffusionPrior(Correlated(), (4,), VPSchedule())
    value, known = jnp.array([1.5, 0, 0, 0]), jnp.arange(4) == 0
    x = dasim.conditioning.inpainted_draws(prior, value, known, KEY, 1000, levels=24, **options)
    np.testing.assert_allclose(x[:, 0], 1.5)
    assert abs(x[:, 1].mean() - 1.2) < tolerance
    if "repeats" in options:
        assert abs(x[:, 1].std() - 0.6) < 0.05
        assert abs(np.corrcoef(x[:, 1], x[:, 2])[0, 1] - 0.8 * 0.6 / np.sqrt(1 - 0.8**4)) < 0.06


def test_inpainting_refuses():
    with pytest.raises(ValueError, match=r"known \(3,\), expected \(5,\)"):
        dasim.conditioning.inpainted_draws(gaussian(), jnp.zeros(3), jnp.ones(3, bool), KEY, 2)
    with pytest.raises(ValueError, match="not correlated"):
        dasim.conditioning.inpainted_draws(gaussian(), jnp.zeros(5), jnp.ones(5, bool), KEY, 2)
