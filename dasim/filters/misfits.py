r"""What the misfits of a linear problem say of its prior.

For a prior N(m, C) and the event y = J x + N(0, R), with g_j, w_j the eigenpairs of
R^(-1/2) J C J^T R^(-1/2), the misfit at m in the coordinates w_j is white_j ~ N(0, 1 + g_j),
if the prior is right.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RATE, MOST = 0.4, 1.0  # of an inflation: the first, and the largest
MEMORY = 0.12  # standard deviation of a cycle's change of the rate
LIMIT = 4.0  # on the factor that widens a prior


def quantile(n):
    """Of chi-squared with n degrees of freedom, probability 1 - 1e-4 (Wilson and Hilferty 1931)."""
    return n * (1 - 2 / (9 * n) + 3.719 * jnp.sqrt(2 / (9 * n))) ** 3


def surprise(g: Float[Array, " obs"], white: Float[Array, " obs"], n_obs) -> Float[Array, ""]:
    """The factor on the prior's covariance that makes the observations likely again, or 1.

    sum_j white_j^2 / (1 + g_j) is distributed as chi-squared with `n_obs` degrees of freedom.
    Beyond the quantile of probability 1e-4 the prior is taken to be too narrow, and the factor
    a, at most `LIMIT`, solves sum_j white_j^2 / (1 + a g_j) = n_obs.
    """
    n = jnp.maximum(n_obs, 1).astype(g.dtype)
    factors = jnp.geomspace(1.0, LIMIT, 41, dtype=g.dtype)
    misfit = jnp.sum(white**2 / (1 + factors[:, None] * g), 1)
    wanted = jnp.where(misfit[-1] <= n, factors[jnp.argmax(misfit <= n)], factors[-1])
    return jnp.where(misfit[0] > quantile(n), wanted, 1.0)


class Inflation(NamedTuple):
    """What makes up for the sampling error of the ancestors' covariance.

    An analysis of N members that learned psi degrees of freedom of the observations,
    psi = sum_j g_j / (1 + g_j), is too sure by a share of order psi / N of its variance (Sacher
    and Bartello 2008, MWR 136). The covariance is multiplied by 1 + rate psi / N in the cycle
    after it.

    Attributes:
        rate: estimated from the misfits, cycle by cycle.
        learned: psi / N of the last cycle that had observations.
    """

    rate: Float[Array, ""]
    learned: Float[Array, ""]

    @property
    def factor(self) -> Float[Array, ""]:
        """On the covariance."""
        return 1 + self.rate * self.learned

    def after(
        self,
        g: Float[Array, " obs"],
        white: Float[Array, " obs"],
        members: int,
        usable: Bool[Array, ""],
    ) -> "Inflation":
        """For the next cycle.

        `g` is of the covariance that was multiplied by `factor`. With h_j = g_j / factor the
        misfits are white_j ~ N(0, 1 + factor h_j). The rate follows their likelihood by one step
        of Fisher's scoring, from a prior of standard deviation `MEMORY` about its last value,
        as the factor of Miyoshi (2011, MWR 139, sect. 2c) follows their sum. A misfit counts as
        one of three standard deviations at most. If they are not `usable` the rate stays.
        """
        slope = self.learned * (g / self.factor) / (1 + g)
        ratio = jnp.minimum(white**2 / (1 + g), 9.0)
        score, information = 0.5 * jnp.sum(slope * (ratio - 1)), 0.5 * jnp.sum(slope**2)
        rate = jnp.clip(self.rate + score / (information + MEMORY**-2), 0.0, MOST)
        learned = jnp.sum(g / (1 + g)) / members
        return Inflation(jnp.where(usable, rate, self.rate), learned)
