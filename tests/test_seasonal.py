"""The seasonal linear model: fitted to its own draws, and its law by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.models import SeasonalLinear, fit_seasonal
from dasim.transitions import ModelTransition

pytestmark = pytest.mark.usefixtures("float64")


def truth():
    a = np.zeros((3, 2, 2))
    a[0], a[1, 0, 1], a[2, 1, 0] = [[0.6, 0.1], [-0.1, 0.5]], 0.3, -0.2
    covs = np.stack([(1 + 0.5 * np.cos(2 * np.pi * p / 12)) * np.eye(2) for p in range(12)])
    return SeasonalLinear(a, covs, 12.0)


def test_a_step_by_hand():
    system, x = truth(), jnp.array([1.0, 2.0])
    # at a quarter of the season the cosine is zero and the sine is one
    np.testing.assert_allclose(system.step(x, 3.0, None), [0.8, -0.1 + 1.0 - 0.2])
    np.testing.assert_allclose(system.step_cov(x, 3.0).dense(), np.eye(2), atol=1e-12)
    # half way between two phases the covariance is their mean, also from the last to the first
    wanted = 1 + 0.25 * (np.cos(11 * np.pi / 6) + 1)
    np.testing.assert_allclose(system.step_cov(x, 11.5).dense(), wanted * np.eye(2))
    np.testing.assert_allclose(system.step_cov(x, 23.5).dense(), wanted * np.eye(2))


def test_the_fit_finds_what_drew_the_pairs():
    system = truth()
    rng = np.random.default_rng(0)
    before, t = rng.standard_normal((40_000, 2)), rng.integers(0, 1200, 40_000).astype(float)
    keys = jax.random.split(jax.random.key(0), len(before))
    after = jax.vmap(ModelTransition(system).sample)(jnp.asarray(before), jnp.asarray(t), keys)
    found = fit_seasonal(before, np.asarray(after), t, 12.0, width=0.03)
    np.testing.assert_allclose(found.matrices, system.matrices, atol=0.03)
    np.testing.assert_allclose(found.covs, system.covs, atol=0.06)


def test_refusals():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\), expected \(1 \+ 2 harmonics, n, n\)"):
        SeasonalLinear(np.zeros((2, 2, 2)), np.zeros((12, 2, 2)), 12.0)
    with pytest.raises(ValueError, match="smallest eigenvalue is -1"):
        SeasonalLinear(np.zeros((1, 2, 2)), -np.ones((1, 1, 1)) * np.eye(2), 12.0)
    with pytest.raises(ValueError, match="5 pairs for 6 unknowns"):
        fit_seasonal(np.zeros((5, 2)), np.zeros((5, 2)), np.arange(5.0), 12.0)
