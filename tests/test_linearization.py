"""Statistical linearisation, which takes operators that have no derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dasim
from dasim.filters import ConditionalScoreFilter
from dasim.filters.gaussian import secants
from dasim.models import Lorenz96
from dasim.observe import Gaussian, Observation, Select
from dasim.transitions import ModelTransition, simulate


def black_box(x, t):
    """A saturating sensor of every second site, in NumPy: JAX has no derivative of it."""
    shape = jax.ShapeDtypeStruct((x.shape[-1] // 2,), x.dtype)
    sensor = lambda v: np.arctan(np.asarray(v)[..., ::2])
    return jax.pure_callback(sensor, shape, x, vmap_method="broadcast_all")


def test_statistical_linearisation_takes_an_operator_without_derivatives():
    model = ModelTransition(Lorenz96(size=8), 2, noise=0.05)
    x0 = ModelTransition(model.model, 400).mean(model.model.start(jax.random.key(5)), 0.0)
    error = Gaussian(std=0.05)
    known = Observation(Select(range(0, 8, 2), jnp.arctan), error)
    truth, observations = simulate(model, known, x0, 20, jax.random.key(6))
    start = truth[0] + 0.3 * jax.random.normal(jax.random.key(7), (20, 8))
    taper, later = dasim.ring(8, range(0, 8, 2), 6.0), observations[1:]
    filter = ConditionalScoreFilter(localization=taper, linearization="statistical")
    means = []
    for observation in (known, Observation(black_box, error)):
        run = filter, model, observation, start, later, jax.random.key(8)
        means.append(dasim.cycle(*run, lambda i: i.analysis.mean(0))[1])
    assert np.sqrt(np.mean((means[1] - truth[1:]) ** 2, 1))[5:].mean() < 0.25
    np.testing.assert_allclose(means[0], means[1], atol=0.02)
    derivative = ConditionalScoreFilter(localization=taper)
    with pytest.raises(ValueError, match="callbacks do not support"):
        dasim.cycle(derivative, model, run[2], start, later, jax.random.key(8))


def test_secants_are_slopes_over_the_spread():
    cube = lambda x: jnp.stack([jnp.sum(x**3), x[0] * x[1]])
    x, spread = jnp.asarray([1.0, -2.0, 0.5]), jnp.asarray([0.3, 0.0, 2.0])
    value, slopes = secants(cube, x, spread)
    np.testing.assert_allclose(value, cube(x))
    # ((x + s)^3 - (x - s)^3) / 2 s = 3 x^2 + s^2
    np.testing.assert_allclose(slopes, [3 * x**2 + spread**2, [-2.0, 1.0, 0.0]], rtol=1e-4)
