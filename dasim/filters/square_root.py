r"""Algebra of square-root analyses, in the smaller of ensemble and observation space.

With whitened observation anomalies Y (member, obs), Y Y^T = U G U^T (or Y^T Y = W G W^T), the
symmetric transform of Hunt, Kostelich and Szunyogh (2007, eqs. 20-24) is

    anomalies <- (I + Y Y^T)^(-1/2) anomalies = anomalies + Y W phi(G) W^T Y^T anomalies,
    phi(g) = -1 / (sqrt(1 + g) (1 + sqrt(1 + g))),
    mean <- mean + anomalies^T Y W (1 + G)^-1 W^T d.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.types import Key


def transform(
    y: Float[Array, "member obs"],
    d: Float[Array, " obs"],
    x: Float[Array, "member n"],
    inflation: Callable[[Array, Array], Array] | None = None,
) -> tuple[Float[Array, " n"], Float[Array, "member n"]]:
    """The increment of the mean and the new anomalies.

    Args:
        y: observation anomalies over sqrt(member - 1), whitened by R^(-1/2).
        d: innovation of the mean, whitened likewise.
        x: state anomalies over sqrt(member - 1).
        inflation: of x and y alike, as a function of the eigenvalues G and the squares of the
            components of d along them; None for none.
    """
    smaller = y.shape[0] <= y.shape[1]
    g, vectors = jnp.linalg.eigh(y @ y.T if smaller else y.T @ y, symmetrize_input=False)
    g = jnp.maximum(g, 0.0)
    projected_d = vectors.T @ (y @ d if smaller else d)
    factor = jnp.ones((), x.dtype)
    if inflation is not None:
        d2 = projected_d**2
        if smaller:
            d2 = jnp.where(g > 1e-6 * jnp.max(g), d2 / jnp.where(g > 0, g, 1.0), 0.0)
        factor = inflation(g, d2)
    a = 1 + factor**2 * g
    basis = vectors if smaller else y @ vectors
    projected = basis.T @ x
    increment = factor**2 * (projected_d / a) @ projected
    if smaller:
        return increment, factor * (basis @ (projected / jnp.sqrt(a)[:, None]))
    phi = -(factor**2) / (jnp.sqrt(a) * (1 + jnp.sqrt(a)))
    return increment, factor * (x + basis @ (phi[:, None] * projected))


def _rotation(size: int, key: Key, dtype) -> Float[Array, "n n"]:
    """A random orthogonal matrix that leaves the vector of ones as it is."""
    gauss = jax.random.normal(key, (size - 1, size - 1), dtype)
    q, r = jnp.linalg.qr(gauss)
    q = q * jnp.sign(jnp.diag(r))
    # Householder reflection that takes the first unit vector to ones / sqrt(size)
    u = jnp.full(size, -1 / jnp.sqrt(size), dtype).at[0].add(1.0)
    basis = jnp.eye(size, dtype=dtype) - 2 * jnp.outer(u, u) / (u @ u)
    return basis @ jax.scipy.linalg.block_diag(jnp.ones((1, 1), dtype), q) @ basis


def rotate(x: Float[Array, "member n"], key: Key, block: int = 64) -> Float[Array, "member n"]:
    """Anomalies under a random rotation that keeps their mean and covariance.

    Sakov and Oke (2008, MWR 136, sect. 3b). Ensembles of more than `block` members are rotated
    in random groups of that size, which keeps the cost linear in the ensemble size.
    """
    n = x.shape[0]
    size = min(n, block)
    order_key, key = jax.random.split(key)
    order = jnp.arange(n) if n <= block else jax.random.permutation(order_key, n)
    chosen, rest = jnp.split(order, [n - n % size])
    groups = x[chosen].reshape(-1, size, x.shape[1])
    keys = jax.random.split(key, len(groups))
    turned = jax.vmap(lambda g, k: _rotation(size, k, x.dtype) @ g)(groups, keys)
    return jnp.concatenate([turned.reshape(-1, x.shape[1]), x[rest]])


def assemble(
    mean: Float[Array, " n"], x: Float[Array, "member n"], rotation: bool, key: Key
) -> Float[Array, "member n"]:
    """Members from a mean and anomalies over sqrt(member - 1), turned at random if asked."""
    if rotation:
        x = rotate(x, key)
    return mean + jnp.sqrt(len(x) - 1.0) * x
