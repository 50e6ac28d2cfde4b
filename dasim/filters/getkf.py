r"""The gain form of the ETKF with a modulated ensemble.

Bishop, Whitaker and Lei (2017); Lei, Whitaker and Bishop (2018). With rho = sum_k v_k v_k^T the
modulated anomalies v_k o x_i have the covariance rho o P: localisation in state space, with no
D x D matrix in the analysis. With Y = H of them, over sqrt(N - 1) and whitened, Y Y^T = U G U^T:

    mean <- mean + Z^T U (1 + G)^-1 U^T Y d,
    x_i' <- x_i' - Z^T U phi(G) U^T Y y_i',     phi(g) = (1 - (1 + g)^(-1/2)) / g.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import anomalies
from dasim.filters.base import AbstractEnsembleFilter
from dasim.filters.inflation import AbstractInflation, as_inflation
from dasim.filters.square_root import assemble
from dasim.localization import Localization


class GETKF(AbstractEnsembleFilter):
    """A square-root analysis with covariances localised in state space by modulation.

    The operator is linearised at the forecast mean by its derivative, for the modulated
    anomalies alone.

    Attributes:
        localization: tapers of the state's covariances.
        inflation: a factor on the prior anomalies, or an inflation.
        fraction: share of the taper's trace that its modes hold, in (0, 1].
        rotation: turn the analysis anomalies at random.
    """

    localization: Localization
    inflation: AbstractInflation
    rotation: bool = eqx.field(static=True)
    modes: Float[Array, "k n"]

    def __init__(self, localization, inflation=1.0, fraction: float = 0.99, rotation=False):
        """Raises ValueError for a fraction outside (0, 1]."""
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction is {fraction}, expected a share in (0, 1]")
        self.localization = localization
        self.inflation = as_inflation(inflation)
        self.rotation = rotation
        self.modes = localization.modes(fraction)

    def analyse(self, members, c, event, key):
        mean, x = anomalies(members)
        c_mean, y = anomalies(c)
        z = (self.modes.astype(x.dtype)[:, None] * x[None]).reshape(-1, x.shape[1])
        _, tangent = jax.linearize(event.constraint, mean)
        white = jax.vmap(event.cov.whiten)
        big, y = white(jax.vmap(tangent)(z)), white(y)
        d = event.cov.whiten(event.innovation(c_mean))
        if big.shape[0] <= big.shape[1]:
            values, left = jnp.linalg.eigh(big @ big.T)
            values = jnp.maximum(values, 0.0)
            project = lambda b: (big @ b).T @ left
            back = z.T @ left
        else:
            values, right = jnp.linalg.eigh(big.T @ big)
            values = jnp.maximum(values, 0.0)
            project = lambda b: b.T @ right
            back = (z.T @ big) @ right
        root = jnp.sqrt(1 + values)
        phi = 1 / (root * (1 + root))  # (1 - 1 / root) / values, finite at zero
        increment = back @ (project(d) / (1 + values))
        x = x - (project(y.T) * phi) @ back.T
        return assemble(mean + increment, x, self.rotation, key)
