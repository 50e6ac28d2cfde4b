r"""Quality control of a cycle's observations against the forecast.

The background check takes the innovation d_i = y_i - mean c_i against its total spread,
d_i^2 <= k^2 (var c_i + R_ii). The buddy check asks the other observations: with S = cov c + R,
those that are kept predict the innovation of one to within e_i = (S^-1 d)_i / (S^-1)_ii, of
variance 1 / (S^-1)_ii, so that e_i^2 (S^-1)_ii <= k^2 (Lussana et al. 2010, QJRMS 136).
The worst is left out first, and the others are asked again without it.

A filter that has lost the truth finds all observations wrong: where more than a share `most`
would be left out, all are kept.
"""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

PASSES = 8  # of the buddy check, each of which leaves out at most an eighth of the values
MOST = 0.5


class Innovation(NamedTuple):
    """A cycle's observations against the forecast.

    Attributes:
        difference: y - mean c, `(obs,)`.
        anomalies: of c over sqrt(N - 1), `(member, obs)`.
        variance: of the errors, `(obs,)`.
        mask: `(obs,)`.
    """

    difference: Float[Array, " obs"]
    anomalies: Float[Array, "member obs"]
    variance: Float[Array, " obs"]
    mask: Bool[Array, " obs"]


class AbstractCheck(eqx.Module):
    """Which of a cycle's values are to be used."""

    @abc.abstractmethod
    def __call__(self, innovation: Innovation) -> Bool[Array, " obs"]:
        """False where a value is to be left out."""


def _limits(check):
    if not check.limit > 0 or not 0 < check.most <= 1:
        raise ValueError(
            f"{type(check).__name__}: limit is {check.limit} and most {check.most}, expected a "
            "positive number of standard deviations and a share in (0, 1]"
        )


def _bounded(kept, mask, most):
    """All of `mask` where more than the share `most` of it would go."""
    out = jnp.sum(mask & ~kept)
    return jnp.where(out <= most * jnp.sum(mask), kept, True)


class BackgroundCheck(AbstractCheck):
    """Leaves out what is further from the forecast than `limit` total standard deviations.

    Attributes:
        limit: k.
        most: largest share of the values that is left out.
    """

    limit: float = 5.0
    most: float = eqx.field(static=True, default=MOST)

    __check_init__ = _limits

    def __call__(self, innovation):
        d, x, variance, mask = innovation
        kept = d**2 <= self.limit**2 * (jnp.sum(x**2, 0) + variance)
        return _bounded(kept, mask, self.most)


class BuddyCheck(AbstractCheck):
    """Leaves out what the other observations contradict.

    Attributes:
        limit: k.
        most: largest share of the values that is left out.
    """

    limit: float = 5.0
    most: float = eqx.field(static=True, default=MOST)

    __check_init__ = _limits

    def __call__(self, innovation):
        d, x, variance, mask = innovation
        n = len(d)
        cov = x.T @ x + jnp.diag(variance)
        each = max(1, n // 8)

        def once(_, kept):
            both = kept[:, None] & kept
            s = jnp.where(both, cov, jnp.eye(n, dtype=cov.dtype))
            inverse = jnp.linalg.inv(s)
            seen = jnp.where(kept, d, 0.0)
            far = jnp.where(kept, (inverse @ seen) ** 2 / jnp.diag(inverse), 0.0)
            worst = jnp.sort(far)[-each]
            return kept & ~((far > self.limit**2) & (far >= worst))

        kept = jax.lax.fori_loop(0, PASSES, once, mask)
        return _bounded(kept, mask, self.most)
