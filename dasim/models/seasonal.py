r"""A linear step whose matrix and noise follow the season: a cyclostationary linear inverse model.

With the phase p = 2 pi t / season,

    x' = A(p) x + noise of N(0, Q(p)),     A(p) = A_0 + sum_h [A_hc cos(h p) + A_hs sin(h p)],

and Q(p) linear between equally spaced phases. Fitted to pairs by least squares (Penland and
Sardeshmukh 1995, J. Climate 8; with seasons, OrtizBevia 1997, JGR 102 and Shin et al. 2021,
Geophys. Res. Lett. 48).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.covariance import DenseCovariance
from dasim.models.base import AbstractModel, check_dt


def harmonics(t, season: float, count: int):
    """1, cos(p), sin(p), cos(2p), ... of the phase, `(..., 1 + 2 count)`."""
    xp = jnp if isinstance(t, jax.Array) else np
    p = 2 * np.pi * t / season
    parts = [xp.ones_like(p)]
    for h in range(1, count + 1):
        parts += [xp.cos(h * p), xp.sin(h * p)]
    return xp.stack(parts, -1)


class SeasonalLinear(AbstractModel):
    """A linear step with seasons.

    Attributes:
        matrices: A_0, A_1c, A_1s, ..., `(1 + 2 h, n, n)`.
        covs: Q at phases 0, 2 pi / m, ..., `(m, n, n)`.
        season: length of the cycle of the seasons, in time units.
        dt: length of one step.
    """

    matrices: Float[Array, "k n n"]
    covs: Float[Array, "m n n"]
    season: float = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(self, matrices, covs, season: float, dt: float = 1.0):
        """Raises ValueError for shapes that do not fit or a covariance that is none."""
        matrices, covs = jnp.asarray(matrices), jnp.asarray(covs)
        n = matrices.shape[-1]
        if matrices.ndim != 3 or matrices.shape[0] % 2 == 0 or matrices.shape[1] != n:
            raise ValueError(
                f"matrices have shape {matrices.shape}, expected (1 + 2 harmonics, n, n)"
            )
        if covs.ndim != 3 or covs.shape[1:] != (n, n):
            raise ValueError(f"covs have shape {covs.shape}, expected (phases, {n}, {n})")
        if not isinstance(covs, jax.core.Tracer):
            least = np.linalg.eigvalsh(np.asarray(covs, float)).min()
            if least < -1e-6 * np.abs(np.asarray(covs)).max():
                raise ValueError(f"covs: a smallest eigenvalue is {least}, expected at least 0")
        if not season > 0:
            raise ValueError(f"season is {season}, expected a positive time")
        self.matrices, self.covs = matrices, covs
        self.season, self.dt = float(season), check_dt(dt)

    @property
    def shape(self):
        return (self.matrices.shape[-1],)

    def _matrix(self, t):
        weights = harmonics(jnp.asarray(t), self.season, len(self.matrices) // 2)
        return jnp.tensordot(weights.astype(self.matrices.dtype), self.matrices, 1)

    def _cov(self, t) -> Float[Array, "n n"]:
        at = jnp.mod(jnp.asarray(t) / self.season, 1.0) * len(self.covs)
        low = jnp.floor(at).astype(int) % len(self.covs)
        share = (at - jnp.floor(at)).astype(self.covs.dtype)
        return (1 - share) * self.covs[low] + share * self.covs[(low + 1) % len(self.covs)]

    def step(self, x, t, key):
        mean = self._matrix(t) @ x
        if key is None:
            return mean
        noise = jax.random.normal(key, x.shape, x.dtype)
        return mean + self.step_cov(x, t).sqrt(noise)

    def step_cov(self, x, t):
        return DenseCovariance.from_matrix(self._cov(t))


def fit_seasonal(
    before: Float[np.ndarray, "pair n"],
    after: Float[np.ndarray, "pair n"],
    t: Float[np.ndarray, " pair"],
    season: float,
    count: int = 1,
    phases: int = 12,
    width: float = 0.08,
    ridge: float = 1.0,
    dt: float = 1.0,
) -> SeasonalLinear:
    """The model of pairs (x at t, x at t + dt).

    Args:
        count: harmonics of the matrix.
        phases: at which Q is known; its residuals are weighed by a normal kernel of `width` in
            parts of the season.
        ridge: added to the normal equations, in units of one pair with unit values.

    Raises:
        ValueError: fewer pairs than the matrix has columns.
    """
    n = before.shape[1]
    weights = harmonics(np.asarray(t, float), season, count)
    features = (weights[:, :, None] * before[:, None, :]).reshape(len(before), -1)
    if len(before) <= features.shape[1]:
        raise ValueError(
            f"fit_seasonal: {len(before)} pairs for {features.shape[1]} unknowns a variable; give "
            "more, or fewer harmonics"
        )
    gram = features.T @ features + ridge * np.eye(features.shape[1])
    solved = np.linalg.solve(gram, features.T @ after)
    residual = after - features @ solved
    apart = np.asarray(t)[None] / season - np.arange(phases)[:, None] / phases
    near = np.exp(-0.5 * ((apart + 0.5) % 1.0 - 0.5) ** 2 / width**2)
    near /= near.sum(1, keepdims=True)
    covs = np.einsum("pk,ki,kj->pij", near, residual, residual)
    covs *= len(before) / (len(before) - features.shape[1])
    return SeasonalLinear(solved.reshape(-1, n, n).transpose(0, 2, 1), covs, season, dt)
