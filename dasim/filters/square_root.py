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
    if y.shape[0] <= y.shape[1]:
        return transform_by_gram(y @ y.T, y @ d, x, inflation)
    g, vectors = jnp.linalg.eigh(y.T @ y, symmetrize_input=False)
    g, projected_d = jnp.maximum(g, 0.0), vectors.T @ d
    factor = jnp.ones((), x.dtype) if inflation is None else inflation(g, projected_d**2)
    a = 1 + factor**2 * g
    basis = y @ vectors
    projected = basis.T @ x
    phi = -(factor**2) / (jnp.sqrt(a) * (1 + jnp.sqrt(a)))
    increment = factor**2 * (projected_d / a) @ projected
    return increment, factor * (x + basis @ (phi[:, None] * projected))


def transform_by_gram(
    gram: Float[Array, "member member"],
    yd: Float[Array, " member"],
    x: Float[Array, "member n"],
    inflation: Callable[[Array, Array], Array] | None = None,
) -> tuple[Float[Array, " n"], Float[Array, "member n"]]:
    """`transform` in ensemble space, from Y Y^T and Y d."""
    g, vectors = jnp.linalg.eigh(gram, symmetrize_input=False)
    g, projected_d = jnp.maximum(g, 0.0), vectors.T @ yd
    factor = jnp.ones((), x.dtype)
    if inflation is not None:
        d2 = projected_d**2 / jnp.where(g > 0, g, 1.0)
        factor = inflation(g, jnp.where(g > 1e-6 * jnp.max(g), d2, 0.0))
    a = 1 + factor**2 * g
    projected = vectors.T @ x
    increment = factor**2 * (projected_d / a) @ projected
    return increment, factor * (vectors @ (projected / jnp.sqrt(a)[:, None]))


def _turn(x: Float[Array, "member n"], key: Key) -> Float[Array, "member n"]:
    """x under a random orthogonal matrix that leaves the vector of ones as it is."""
    size = x.shape[0]
    q, r = jnp.linalg.qr(jax.random.normal(key, (size - 1, size - 1), x.dtype))
    q = q * jnp.sign(jnp.diag(r))
    # a Householder reflection takes ones / sqrt(size) to the first unit vector and back
    u = jnp.full(size, -1 / jnp.sqrt(size), x.dtype).at[0].add(1.0)
    u = u * jnp.sqrt(2 / (u @ u))
    x = x - jnp.outer(u, u @ x)
    x = jnp.concatenate([x[:1], q @ x[1:]])
    return x - jnp.outer(u, u @ x)


def rotate(x: Float[Array, "member n"], key: Key, block: int = 64) -> Float[Array, "member n"]:
    """Anomalies under a random rotation that keeps their mean and covariance.

    Sakov and Oke (2008, MWR 136, sect. 3b). Ensembles of more than `block` members are rotated
    in random groups of that size, which keeps the cost linear in the ensemble size.
    """
    n = x.shape[0]
    if n <= block:
        return _turn(x, key)
    order_key, key = jax.random.split(key)
    chosen, rest = jnp.split(jax.random.permutation(order_key, n), [n - n % block])
    groups = x[chosen].reshape(-1, block, x.shape[1])
    turned = jax.vmap(_turn)(groups, jax.random.split(key, len(groups)))
    return jnp.concatenate([turned.reshape(-1, x.shape[1]), x[rest]])


def assemble(
    mean: Float[Array, " n"], x: Float[Array, "member n"], rotation: bool, key: Key
) -> Float[Array, "member n"]:
    """Members from a mean and anomalies over sqrt(member - 1), turned at random if asked."""
    if rotation:
        x = rotate(x, key)
    return mean + jnp.sqrt(len(x) - 1.0) * x
