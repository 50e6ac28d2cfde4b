"""Covariances, tapers and anomalies against NumPy and against their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dasim.covariance import (
    DenseCovariance,
    DiagonalCovariance,
    Localization,
    anomalies,
    as_covariance,
    distances,
    gaspari_cohn,
    inflate,
    ring,
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def cone_overlap(d):
    """The convolution of the cone 1 - |x| with itself in three dimensions, by quadrature.

    Gaspari and Cohn's eq. 4.10 is this function over its value at zero, 4 pi / 30.
    """
    r, weight = np.polynomial.legendre.leggauss(400)
    r, weight = (r + 1) / 2, weight / 2
    low, high = np.abs(d - r), np.minimum(1.0, d + r)
    primitive = lambda s: s**2 / 2 - s**3 / 3  # of (1 - s) s
    inner = np.where(high > low, primitive(high) - primitive(low), 0.0)
    return 2 * np.pi / d * np.sum(weight * (1 - r) * r * inner) / (4 * np.pi / 30)


def test_taper_is_the_published_function():
    r, radius = np.array([0.05, 0.3, 0.5, 0.9, 1.0, 1.2, 1.7, 1.95]), 3.5
    exact = [cone_overlap(d) for d in r]
    np.testing.assert_allclose(gaspari_cohn(jnp.asarray(r * radius), radius), exact, atol=1e-5)


def test_taper_at_its_knots():
    np.testing.assert_allclose(
        gaspari_cohn(jnp.asarray([0.0, 1.0, 2.0, 2.5, 100.0]), 1.0),
        [1.0, 5 / 24, 0.0, 0.0, 0.0],
        atol=1e-14,
    )
    eps = 1e-7
    for knot in (1.0, 2.0):
        below, above = gaspari_cohn(jnp.asarray([knot - eps, knot + eps]), 1.0)
        assert abs(below - above) < 4 * eps
    slope = jax.vmap(jax.grad(lambda r: gaspari_cohn(r, 1.0)))(
        jnp.asarray([1 - eps, 1 + eps, 2 - eps])
    )
    np.testing.assert_allclose(slope[0], slope[1], atol=1e-5)
    np.testing.assert_allclose(slope[2], 0.0, atol=1e-5)


@pytest.mark.parametrize("radius", [1.0, 4.0, 10.0])
def test_taper_on_a_ring_is_positive_semidefinite(radius):
    # its support reaches at most once around: the periodic sum of a positive definite function
    taper = ring(40, range(0, 40, 2), radius)
    assert np.linalg.eigvalsh(taper.state_state).min() > -1e-12
    np.testing.assert_array_equal(taper.state_obs, np.asarray(taper.state_state)[:, ::2])
    np.testing.assert_array_equal(taper.obs_obs, np.asarray(taper.state_state)[::2, ::2])


def test_distances():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 10, (7, 2)), rng.uniform(0, 10, (5, 2))
    np.testing.assert_allclose(distances(jnp.asarray(a), jnp.asarray(b)), cdist(a, b), atol=1e-12)
    period = np.array([10.0, np.inf])
    images = [cdist(a, b + [10.0 * k, 0.0]) for k in (-1, 0, 1)]
    np.testing.assert_allclose(
        distances(jnp.asarray(a), jnp.asarray(b), jnp.asarray(period)),
        np.min(images, 0),
        atol=1e-12,
    )
    both = [
        cdist(a, b + [10.0 * k, 12.0 * l]) for k, l in itertools.product((-1, 0, 1), (-1, 0, 1))
    ]
    got = distances(jnp.asarray(a), jnp.asarray(b), jnp.asarray([10.0, 12.0]))
    np.testing.assert_allclose(got, np.min(both, 0), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, np.arange(4), np.arange(2)), "radius is 0.0"),
        ((-1, np.arange(4), np.arange(2)), "radius is -1"),
        ((1.0, np.zeros((4, 2)), np.arange(2)), "2 axes, observations 1"),
        ((1.0, np.arange(4), np.arange(2), [4, 4]), "period is"),
        ((1.0, np.arange(4), np.arange(2), [-4]), "period is"),
    ],
)
def test_localization_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Localization(*arguments)


def spd(n, seed=0):
    root = np.random.default_rng(seed).normal(size=(n, n))
    return root @ root.T + 0.1 * np.eye(n)


@pytest.mark.parametrize("kind", ["dense", "diagonal"])
def test_products_of_a_covariance(kind):
    rng = np.random.default_rng(1)
    std = rng.uniform(0.5, 2, 5)
    matrix = spd(5) if kind == "dense" else np.diag(std**2)
    cov = as_covariance(matrix if kind == "dense" else std, 5)
    assert isinstance(cov, DenseCovariance if kind == "dense" else DiagonalCovariance)
    v = jnp.asarray(rng.normal(size=5))
    assert cov.size == 5
    np.testing.assert_allclose(cov.dense(), matrix, atol=1e-12)
    np.testing.assert_allclose(cov.apply(v), matrix @ v, atol=1e-12)
    np.testing.assert_allclose(cov.log_det(), np.linalg.slogdet(matrix)[1], atol=1e-12)
    root = np.asarray(jax.vmap(cov.sqrt, 1, 1)(jnp.eye(5)))
    np.testing.assert_allclose(root, root.T, atol=1e-12)
    np.testing.assert_allclose(root @ root, matrix, atol=1e-12)
    np.testing.assert_allclose(cov.whiten(cov.sqrt(v)), v, atol=1e-12)


def test_a_singular_covariance_whitens_its_range():
    direction = np.array([3.0, 4.0]) / 5
    cov = DenseCovariance.from_matrix(jnp.asarray(np.outer(direction, direction) * 4))
    np.testing.assert_allclose(cov.whiten(cov.sqrt(jnp.asarray(direction))), direction, atol=1e-7)
    diagonal = as_covariance([2.0, 0.0], 2)
    np.testing.assert_array_equal(diagonal.whiten(jnp.asarray([4.0, 7.0])), [2.0, 0.0])


def test_as_covariance_takes_three_forms():
    np.testing.assert_allclose(as_covariance(0.5, 3).dense(), 0.25 * np.eye(3))
    np.testing.assert_allclose(as_covariance([1, 2, 3], 3).dense(), np.diag([1.0, 4.0, 9.0]))
    made = as_covariance(spd(3), 3)
    assert as_covariance(made, 3) is made


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "noise has values that are not finite"),
        (-0.5, "noise: a standard deviation is negative: -0.5"),
        ([1.0, 2.0], r"noise has shape \(2,\), expected a scalar, \(3,\) or a matrix"),
        (np.eye(2), r"noise has shape \(2, 2\), expected \(3, 3\)"),
        (np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]), "noise is not symmetric"),
        (np.diag([1.0, 1.0, -1.0]), "noise is not positive semi-definite: eigenvalue -1"),
        (np.zeros((2, 2, 2)), "noise has shape"),
    ],
)
def test_as_covariance_refuses(value, message):
    with pytest.raises(ValueError, match=message):
        as_covariance(value, 3, "noise")


def test_as_covariance_refuses_another_size():
    with pytest.raises(ValueError, match="acts on 2 numbers, the state has 3"):
        as_covariance(as_covariance(1.0, 2), 3)


def test_anomalies_and_inflation():
    x = np.random.default_rng(2).normal(size=(7, 4))
    mean, deviations = anomalies(jnp.asarray(x))
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-14)
    np.testing.assert_allclose(deviations.T @ deviations, np.cov(x.T), atol=1e-13)
    inflated = np.asarray(inflate(jnp.asarray(x), 1.3))
    np.testing.assert_allclose(inflated.mean(0), x.mean(0), atol=1e-14)
    np.testing.assert_allclose(inflated.var(0), 1.3**2 * x.var(0), atol=1e-13)
