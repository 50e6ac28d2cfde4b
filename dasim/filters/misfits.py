r"""What the misfits of a linear problem say of its prior.

For a prior N(m, C) and the event y = J x + N(0, R), with g_j, w_j the eigenpairs of
R^(-1/2) J C J^T R^(-1/2), the misfit at m in the coordinates w_j is white_j ~ N(0, 1 + g_j),
if the prior is right.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

RATE, MOST = 0.4, 8.0  # of the inflation for sampling errors


def quantile(n):
    """Of chi-squared with n degrees of freedom, probability 1 - 1e-4 (Wilson and Hilferty 1931)."""
    return n * (1 - 2 / (9 * n) + 3.719 * jnp.sqrt(2 / (9 * n))) ** 3


def surprise(
    g: Float[Array, " obs"], white: Float[Array, " obs"], n_obs, limit
) -> Float[Array, ""]:
    """The factor on the prior's covariance that makes the observations likely again, or 1.

    sum_j white_j^2 / (1 + g_j) is distributed as chi-squared with `n_obs` degrees of freedom.
    Beyond the quantile of probability 1e-4 the prior is taken to be too narrow, and the factor
    a, at most `limit`, solves sum_j white_j^2 / (1 + a g_j) = n_obs.
    """
    n = jnp.maximum(n_obs, 1).astype(g.dtype)
    factors = limit ** jnp.linspace(0.0, 1.0, 81, dtype=g.dtype)
    misfit = jnp.sum(white**2 / (1 + factors[:, None] * g), 1)
    wanted = jnp.where(misfit[-1] <= n, factors[jnp.argmax(misfit <= n)], factors[-1])
    return jnp.where(misfit[0] > quantile(n), wanted, 1.0)


def sampling_inflation(g: Float[Array, " obs"], members: int) -> Float[Array, ""]:
    """The factor on the prior's covariance of the next cycle, for the sampling error of this one.

    An analysis of N members that learned psi degrees of freedom of the observations,
    psi = sum_j g_j / (1 + g_j), is too sure by a share of order psi / N of its variance (Sacher
    and Bartello 2008, MWR 136). With localisation only what was learned nearby counts, which
    bounds psi: 1 + RATE min(psi, MOST) / N.
    """
    return 1 + RATE * jnp.minimum(jnp.sum(g / (1 + g)), MOST) / members
