"""Covariances and anomalies against NumPy and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.covariance import (
    DenseCovariance,
    DiagonalCovariance,
    anomalies,
    as_covariance,
    inflate,
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


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
    np.testing.assert_allclose(cov.diagonal(), np.diag(matrix), atol=1e-12)
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
