r"""Gaps and censored values of a time series, filled in by data augmentation.

The series is taken for a vector autoregression, x_{k+1} = A x_k + b + N(0, Q), each of whose
values is known to lie in an interval: a single number, a limit that was passed, or anything. A
Gibbs sampler (Tanner and Wong 1987, J. Am. Stat. Assoc. 82, 528-540) draws each open value from
its normal law given all others, cut to its interval, the even times and the odd ones in turn;
after each sweep A, b and Q are those of the filled series, by least squares (stochastic EM).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri

BURN_IN, THIN = 60, 10  # sweeps


def impute(
    low: Float[np.ndarray, "time n"],
    high: Float[np.ndarray, "time n"],
    follows: Bool[np.ndarray, " time"],
    copies: int,
    seed: int = 0,
) -> Float[np.ndarray, "copy time n"]:
    """Draws of a series whose values lie between `low` and `high`, equal where one is known.

    Args:
        follows: whether a time continues the one before it in the arrays.
        copies: draws, `THIN` sweeps apart.
    """
    x = _start(low, high, np.random.default_rng(seed))
    with jax.enable_x64(True):
        arrays = (jnp.asarray(a) for a in (x, low, high, follows))
        return np.array(_sample(*arrays, copies, jax.random.key(seed)))


def _start(low, high, rng):
    """First guesses, each from a normal law that its column's known ranks ask for."""
    x = np.where(np.isfinite(low), low, high)
    for j in range(x.shape[1]):
        both = np.isfinite(low[:, j]) & np.isfinite(high[:, j])
        bounded = np.isfinite(low[:, j]) | np.isfinite(high[:, j])
        middle = 0.5 * (low[both, j] + high[both, j])
        below = np.sum(bounded & ~np.isfinite(low[:, j]))  # of what is only known to be less
        rank = (below + np.argsort(np.argsort(middle)) + 0.5) / bounded.sum()
        scale, mean = np.polyfit(ndtri(rank), middle, 1)
        p, q = (ndtr((e[:, j] - mean) / scale) for e in (low, high))
        x[:, j] = mean + scale * ndtri(rng.uniform(p, q))
    return np.where(low < high, np.clip(x, low, high), low)


def _truncated(a, b, share):
    """The standard normal value between a and b below which the `share` of that mass lies."""
    flip = a > 0  # to the tail whose probabilities do not cancel
    a, b = jnp.where(flip, -b, a), jnp.where(flip, -a, b)
    p = norm.cdf(a) + share * (norm.cdf(b) - norm.cdf(a))
    z = jnp.clip(norm.ppf(jnp.clip(p, 1e-300, 1 - 1e-16)), a, b)
    return jnp.where(flip, -z, z)


@partial(jax.jit, static_argnames="copies")
def _sample(x, low, high, follows, copies: int, key):
    halves = [np.arange(parity, len(x), 2) for parity in (0, 1)]

    def sweep(x, k):
        law = _fit(x, follows)
        for parity, rows in enumerate(halves):
            one = jax.random.fold_in(k, parity)
            x = x.at[rows].set(_draw(x, rows, law, follows, low[rows], high[rows], one))
        return x, None

    def copy(x, k):
        x = jax.lax.scan(sweep, x, jax.random.split(k, THIN))[0]
        return x, x

    start, later = jax.random.split(key)
    x = jax.lax.scan(sweep, x, jax.random.split(start, BURN_IN))[0]
    return jax.lax.scan(copy, x, jax.random.split(later, copies))[1]


def _fit(x, follows):
    """A, b, Q^-1, and the mean and inverse covariance of the series itself."""
    n = x.shape[1]
    both = jnp.concatenate([jnp.ones((len(x), 1)), jnp.roll(x, 1, 0), x], 1) * follows[:, None]
    moments = both.T @ both
    cross = moments[: n + 1, n + 1 :]
    weights = jnp.linalg.solve(moments[: n + 1, : n + 1], cross)
    residual = moments[n + 1 :, n + 1 :] - cross.T @ weights
    inverse = jnp.linalg.inv(residual / (follows.sum() - n - 1))
    return (
        weights[1:].T,
        weights[0],
        inverse,
        x.mean(0),
        jnp.linalg.inv(jnp.atleast_2d(jnp.cov(x.T))),
    )


def _draw(x, rows, law, follows, low, high, key):
    """x at `rows`, no two of them neighbours, with the open values drawn given all others."""
    a, b, inverse, mean, marginal = law
    then = (rows + 1) % len(x)
    before, after = follows[rows][:, None], (follows[then] & (then > 0))[:, None]
    # information of the two neighbours; that of the climate in place of the one before
    pull = jnp.where(before, (x[rows - 1] @ a.T + b) @ inverse, mean @ marginal)
    pull = pull + jnp.where(after, (x[then] - b) @ (inverse @ a), 0.0)
    back = a.T @ inverse @ a

    def column(j, own):
        row = jnp.where(before, inverse[j], marginal[j]) + jnp.where(after, back[j], 0.0)
        centre = own[:, j] + (pull[:, j] - jnp.sum(own * row, 1)) / row[:, j]
        width = 1 / jnp.sqrt(row[:, j])
        ends = ((e[:, j] - centre) / width for e in (low, high))
        z = _truncated(*ends, jax.random.uniform(jax.random.fold_in(key, j), centre.shape))
        return own.at[:, j].set(jnp.clip(centre + width * z, low[:, j], high[:, j]))

    return jax.lax.fori_loop(0, x.shape[1], column, x[rows])
