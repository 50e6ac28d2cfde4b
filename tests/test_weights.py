"""Weighted conditional sampling against posteriors that are known without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.covariance import as_covariance
from dasim.cycling import cycle
from dasim.filters import ConditionalScoreFilter
from dasim.filters.particle import Particles, equally_weighted
from dasim.filters.twisted import principal_plane, reduce, weighted_draws
from dasim.models import LinearGaussian
from dasim.observe import Gaussian, Observation
from dasim.priors import GaussianDenoiser
from dasim.transitions import DiffusionTransition, ModelTransition
from dasim.types import Observations

LEVELS = {"one": (0.0,), "three": (1.0, 0.4, 0.0)}


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def walk(std):
    return ModelTransition(LinearGaussian(jnp.eye(1), cov=std))


def draws_of(prior, transition, function, std, value, bandwidths, angles, draws=8):
    observation = Observation(lambda x, t: function(x), Gaussian(std=std))
    event = observation.event(Observations(jnp.ones(()), jnp.asarray([value]), jnp.ones(1, bool)))

    @jax.jit
    def run(key):
        return weighted_draws(
            transition,
            event,
            prior,
            jnp.zeros(()),
            key,
            bandwidths,
            draws,
            jnp.asarray(angles),
            jnp.ones(()),
        )

    return run(jax.random.key(5))


def posterior(centers, weights, variance, function, std, value):
    """Grid, density and evidence of a one-dimensional mixture prior with a scalar observation."""
    x = np.linspace(-12, 12, 48001)
    prior = np.zeros_like(x)
    for c, w in zip(centers, weights, strict=True):
        prior += w * np.exp(-((x - c) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    misfit = (value - np.asarray(function(jnp.asarray(x)))) / std
    density = prior * np.exp(-(misfit**2) / 2) / (std * np.sqrt(2 * np.pi))
    evidence = np.trapezoid(density, x)
    return x, density / evidence, evidence


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(
    ("function", "std", "value"),
    [(jnp.arctan, 0.2, 0.9), (lambda x: x**3 / 4, 0.3, 1.5), (lambda x: x, 0.5, 4.0)],
    ids=["arctan", "cubic", "far"],
)
def test_a_nonlinear_scalar_event_against_quadrature(function, std, value, levels):
    """The approximate score alone gives arctan a mean of 1.10 where 1.21 is right."""
    members = np.random.default_rng(0).normal(size=(400, 1))
    prior = equally_weighted(jnp.asarray(members))
    m, p = members.mean(), members.var(ddof=1)
    b, q = 0.6, 0.3
    centers = m + np.sqrt(1 - b**2) * (members[:, 0] - m)
    x, density, evidence = posterior(
        centers, np.full(400, 1 / 400), b**2 * p + q**2, function, std, value
    )
    drawn, log_evidence = draws_of(prior, walk(q), function, std, value, (b,), LEVELS[levels], 20)
    weights, states = np.exp(drawn.log_weights), np.asarray(drawn.ensemble[:, 0])
    mean = np.trapezoid(x * density, x)
    std_of = np.sqrt(np.trapezoid((x - mean) ** 2 * density, x))
    effective = 1 / np.sum(weights**2)
    assert effective > 100
    assert abs(weights @ states - mean) < 4 * std_of / np.sqrt(effective)
    spread = np.sqrt(weights @ (states - weights @ states) ** 2)
    assert spread == pytest.approx(std_of, rel=0.06)
    assert log_evidence == pytest.approx(np.log(evidence), abs=0.1)
    kept = reduce(drawn, principal_plane(drawn), 200, jax.random.key(6), 0.5)
    assert np.exp(kept.log_weights) @ kept.ensemble[:, 0] == pytest.approx(mean, abs=0.3 * std_of)


@pytest.mark.parametrize("levels", LEVELS)
def test_the_weights_of_two_modes(levels):
    """A kernel about each of two clusters, and an observation that both explain, unequally."""
    rng = np.random.default_rng(1)
    members = np.concatenate([-3 + 0.3 * rng.normal(size=70), 2.5 + 0.3 * rng.normal(size=130)])
    share = np.exp(rng.normal(size=200))
    prior = Particles(jnp.asarray(members)[:, None], jnp.log(jnp.asarray(share / share.sum())))
    weights = share / share.sum()
    b, q, function, std, value = 0.15, 0.2, lambda x: x**2 / 8, 0.15, 0.95
    m = weights @ members
    p = weights @ (members - m) ** 2 / (1 - np.sum(weights**2))
    centers = m + np.sqrt(1 - b**2) * (members - m)
    x, density, evidence = posterior(centers, weights, b**2 * p + q**2, function, std, value)
    left = np.trapezoid(np.where(x < 0, density, 0.0), x)
    assert 0.1 < left < 0.9
    drawn, log_evidence = draws_of(prior, walk(q), function, std, value, (b,), LEVELS[levels], 40)
    assert np.exp(drawn.log_weights) @ (drawn.ensemble[:, 0] < 0) == pytest.approx(left, abs=0.03)
    assert log_evidence == pytest.approx(np.log(evidence), abs=0.05)
    for evenness in (1.0, 0.5):
        kept = reduce(drawn, principal_plane(drawn), 400, jax.random.key(7), evenness)
        got = np.exp(kept.log_weights) @ (kept.ensemble[:, 0] < 0)
        assert got == pytest.approx(left, abs=0.03)


def test_a_learned_transition_is_used_as_it_is():
    """The proposal knows the denoiser's Gaussian part alone; the weights know the rest."""

    class Clusters(GaussianDenoiser):
        a: float = 0.95

        def correction(self, v, sigma, cond=None):
            b, root = 1 - self.a**2, jnp.sqrt(1 + sigma**2)
            z, total = v * root, b + sigma**2
            expected = (sigma**2 * self.a * jnp.tanh(self.a * z / total) + b * z) / total
            return (expected * root - v) / sigma

    transition = DiffusionTransition(
        Clusters(jnp.zeros(1), as_covariance(1.0, 1)), 1.0, (1,), n_steps=40
    )
    prior = equally_weighted(jnp.asarray([[-1.0], [1.0]]))
    variance = 1 - 0.95**2
    x, density, evidence = posterior([-0.95, 0.95], [0.5, 0.5], variance, lambda x: x, 0.8, 0.3)
    drawn, log_evidence = draws_of(prior, transition, lambda x: x, 0.8, 0.3, (0.5,), (0.0,), 4000)
    right = np.trapezoid(np.where(x > 0, density, 0.0), x)
    assert np.exp(drawn.log_weights) @ (drawn.ensemble[:, 0] > 0) == pytest.approx(right, abs=0.03)
    assert log_evidence == pytest.approx(np.log(evidence), abs=0.03)


def test_evidence_is_the_kalman_filters():
    """Of a linear Gaussian problem, cycle by cycle, from many members."""
    rng = np.random.default_rng(2)
    a, q, r = np.array([[0.9, 0.3], [-0.2, 0.8]]), 0.4, 0.5
    values = rng.normal(size=(12, 1))
    mean, cov, expected = np.zeros(2), np.eye(2), []
    for y in values[:, 0]:
        mean, cov = a @ mean, a @ cov @ a.T + q**2 * np.eye(2)
        s = cov[0, 0] + r**2
        expected.append(-0.5 * ((y - mean[0]) ** 2 / s + np.log(2 * np.pi * s)))
        gain = cov[:, 0] / s
        mean, cov = mean + gain * (y - mean[0]), cov - np.outer(gain, cov[0])
    observations = Observations(jnp.arange(1.0, 13), jnp.asarray(values), jnp.ones((12, 1), bool))
    _, got = cycle(
        ConditionalScoreFilter(),
        ModelTransition(LinearGaussian(jnp.asarray(a), cov=q)),
        Observation(lambda x, t: x[:1], Gaussian(std=r)),
        jnp.asarray(rng.normal(size=(2000, 2))),
        observations,
        jax.random.key(8),
        lambda info: info.log_evidence,
    )
    assert np.abs(np.asarray(got) - expected).max() < 0.15
    assert np.mean(np.asarray(got) - expected) == pytest.approx(0, abs=0.03)


def test_settings_that_weights_cannot_have():
    with pytest.raises(ValueError, match="bandwidths are"):
        ConditionalScoreFilter(bandwidths=(0.5, 1.5))
    with pytest.raises(ValueError, match="draws is 0"):
        ConditionalScoreFilter(draws=0)
