r"""Normal probabilities of intervals and boxes, in logarithms that hold far out in the tails."""

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

NARROW = 1e-3  # width, in standard deviations, below which the density at the middle is used


def log_interval(low: Float[Array, "..."], high: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(Phi(high) - Phi(low)); minus infinity where high <= low.

    Either end may be infinite. The larger of the two tails is never subtracted from 1, and the
    derivatives are finite wherever the probability is not zero.
    """
    low, high = jnp.broadcast_arrays(low, high)
    empty = high <= low
    low, high = jnp.where(empty, -1.0, low), jnp.where(empty, 1.0, high)
    # by symmetry the half that lies further to the left
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    below, above = jnp.isfinite(low), jnp.isfinite(high)
    a, b = jnp.where(below, low, -1.0), jnp.where(above, high, 1.0)
    upper = jnp.where(above, log_ndtr(b), 0.0)
    narrow = below & above & (b - a < NARROW)
    gap = jnp.where(below & ~narrow, upper - log_ndtr(a), 1.0)
    wide = upper + jnp.where(below, jnp.log(-jnp.expm1(-gap)), 0.0)
    thin = _log_density(0.5 * (a + b)) + jnp.log(jnp.where(narrow, b - a, 1.0))
    return jnp.where(empty, -jnp.inf, jnp.where(narrow, thin, wide))


def _log_density(x):
    return -0.5 * x**2 - 0.5 * jnp.log(2 * jnp.pi)


def log_box(
    mean: Float[Array, " n"],
    cov: Float[Array, "n n"],
    low: Float[Array, " n"],
    high: Float[Array, " n"],
) -> Float[Array, ""]:
    """log P(low <= c < high) for c ~ N(mean, cov), component by component.

    After each component the law of the others, given that it lies in its interval, is replaced
    by the normal law with its moments (Mendell and Elston 1974, Biometrics 30, 41-57): exact
    for one component or independent ones.
    """

    def step(carry, i):
        total, mean, cov = carry
        std = jnp.sqrt(jnp.maximum(cov[i, i], jnp.finfo(cov.dtype).tiny))

        def scaled(bound):
            # an infinite end over a std that is differentiated would be no number
            finite = jnp.isfinite(bound)
            return jnp.where(finite, (jnp.where(finite, bound, 0.0) - mean[i]) / std, bound)

        a, b = scaled(low[i]), scaled(high[i])
        log_p = log_interval(a, b)
        known = jnp.where(jnp.isfinite(log_p), log_p, 0.0)

        def end(x):
            """The density at an end over the probability, and that times the end."""
            finite = jnp.isfinite(x)
            at = jnp.where(finite, x, 0.0)
            ratio = jnp.exp(jnp.where(finite, _log_density(at) - known, -jnp.inf))
            return ratio, at * ratio

        (p_a, ap_a), (p_b, bp_b) = end(a), end(b)
        shift = p_a - p_b
        # the variance that is left, as a share; rounding takes it below zero far out
        left = jnp.clip(1 + ap_a - bp_b - shift**2, 0.0, 1.0)
        gain = cov[:, i] / std
        mean = mean + gain * shift
        cov = cov - (1 - left) * gain[:, None] * gain
        return (total + log_p, mean, cov), None

    start = jnp.zeros((), mean.dtype), mean, cov
    return jax.lax.scan(step, start, jnp.arange(mean.shape[0]))[0][0]
