"""Helpers for analyses of a fixed ensemble: numbers, observations, and the Kalman update."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dasim.filters.base import constraints
from dasim.observe import Gaussian, Observation
from dasim.types import Observations

KEY = jax.random.key(5)
N_STATE, N_OBS = 6, 5
MASK = np.array([True, True, False, True, True])
R = {"diagonal": np.diag([0.5, 2.0, 1.0, 0.3, 1.2])}
R["full"] = R["diagonal"] + 0.2 * np.ones((N_OBS, N_OBS))


def numbers(members, n_obs=N_OBS):
    """An ensemble, the rows of H and observed values."""
    rng = np.random.default_rng(members)
    x = 3 + rng.normal(size=(members, N_STATE)) @ rng.normal(size=(N_STATE, N_STATE))
    return x, rng.normal(size=(n_obs, N_STATE)), rng.normal(size=n_obs)


class Rows(eqx.Module):
    """The operator x -> H x."""

    h: jax.Array
    linear = True

    def __call__(self, x, t):
        return self.h @ x.reshape(-1)


def observe(h, r):
    diagonal = np.array_equal(r, np.diag(np.diag(r)))
    error = Gaussian(std=np.sqrt(np.diag(r))) if diagonal else Gaussian(cov=r)
    return Observation(Rows(jnp.asarray(h)), error)


@eqx.filter_jit
def run(filters, members, observation, obs, key):
    event = observation.event(obs)
    return {k: f.analyse(members, constraints(event, members), event, key) for k, f in filters}


def analyse(filters, x, h, r, y, mask=MASK):
    """The analyses of several filters by name, compiled together."""
    obs = Observations(jnp.zeros(()), jnp.asarray(np.where(mask, y, np.nan)), jnp.asarray(mask))
    items = tuple(filters.items())
    return jax.tree.map(np.asarray, run(items, jnp.asarray(x), observe(h, r), obs, KEY))


def kalman(mean, p, h, r, y, mask=MASK):
    """Mean, covariance, gain and H, all of the observed values alone."""
    h, r, y = h[mask], r[np.ix_(mask, mask)], y[mask]
    gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
    return mean + gain @ (y - h @ mean), p - gain @ h @ p, gain, h
