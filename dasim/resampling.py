"""Resampling of weighted draws."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dasim.types import Key


def systematic(
    weights: Float[Array, " member"], key: Key, count: int | None = None
) -> Int[Array, " count"]:
    """Indices of the `count` members (as many as there are) that survive.

    Each expects as many copies as its weight is worth.
    """
    n = weights.shape[0]
    count = n if count is None else count
    points = (jax.random.uniform(key, dtype=weights.dtype) + jnp.arange(count)) / count
    total = jnp.cumsum(weights)
    return jnp.minimum(jnp.searchsorted(total, points * total[-1]), n - 1)


def resampled(
    log_weights: Float[Array, " draw"], key: Key
) -> tuple[Int[Array, " draw"], Float[Array, " draw"]]:
    """Indices and log weights after systematic resampling, if the effective size is below half.

    The mean weight stays what it was; draws none of which has a weight stay as they are.
    """
    size = len(log_weights)
    total = jax.nn.logsumexp(log_weights)
    weights = jnp.where(jnp.isfinite(total), jnp.exp(log_weights - total), 1 / size)
    low = jnp.sum(weights**2) * size > 2
    index = jnp.where(low, systematic(weights, key), jnp.arange(size))
    return index, jnp.where(low, total - jnp.log(size), log_weights)
