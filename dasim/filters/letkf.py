r"""The local ensemble transform Kalman filter.

Hunt, Kostelich and Szunyogh (2007): every state variable has its own analysis, in which the
observation precision is tapered by distance, R_i^-1 = rho_i^(1/2) R^-1 rho_i^(1/2). The local
analyses run in batches; on a large domain each looks at the observations near it alone.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim.covariance import anomalies
from dasim.filters.base import AbstractEnsembleFilter
from dasim.filters.inflation import AbstractInflation, as_inflation
from dasim.filters.square_root import assemble, transform, transform_by_gram
from dasim.localization import Localization

BATCH_NUMBERS = 2**24  # of the local observation anomalies held at once


class LETKF(AbstractEnsembleFilter):
    """Local square-root analyses.

    Observation errors that are correlated are whitened before the taper.

    Attributes:
        inflation: a factor on the prior anomalies, or an inflation.
        localization: tapers of the observation precision about each block, or None for one
            global analysis.
        rotation: turn the analysis anomalies at random, all variables alike.
        block: number of consecutive variables that share an analysis.
    """

    inflation: AbstractInflation
    localization: Localization | None
    rotation: bool = eqx.field(static=True)
    block: int = eqx.field(static=True)

    def __init__(self, inflation=1.0, localization=None, rotation: bool = False, block: int = 1):
        """See the class; `localization` is about each variable.

        Raises:
            ValueError: a block that does not divide the state.
        """
        self.inflation = as_inflation(inflation)
        if localization is not None and block != 1:
            localization = localization.blocks(block)
        self.localization = localization
        self.rotation = rotation
        self.block = block

    def analyse(self, members, c, event, key):
        mean, x = anomalies(members)
        c_mean, y = anomalies(c)
        y = jax.vmap(event.cov.whiten)(y)
        d = event.cov.whiten(event.innovation(c_mean))
        if self.localization is None:
            increment, x = transform(y, d, x)
        else:
            blocks = jnp.moveaxis(x.reshape(len(x), -1, self.block), 1, 0)
            increment, blocks = self._local(y, d, blocks)
            increment, x = increment.reshape(-1), jnp.moveaxis(blocks, 0, 1).reshape(x.shape)
        return assemble(mean + increment, x, self.rotation, key)

    def _local(self, y, d, blocks):
        """Increments `(n / block, block)` and anomalies of all blocks."""
        localization = self.localization
        if localization.near is None:
            taper = localization.state_obs.astype(blocks.dtype)
            if len(y) <= d.size:
                # the sums over observations of all blocks in one product
                gram = jnp.einsum("bo,ijo->bij", taper, y[:, None] * y)
                return jax.vmap(transform_by_gram)(gram, taper @ (y * d).T, blocks)

            def tapered(block, taper):
                root = jnp.sqrt(taper)
                return transform(y * root, d * root, block)

            return jax.vmap(tapered)(blocks, taper)

        by_obs = y.T

        def one(item):
            i, block = item
            index = localization.near[i]  # what it pads with is clipped, and its taper zero
            root = jnp.sqrt(localization.near_taper(i)).astype(block.dtype)
            return transform((by_obs[index] * root[:, None]).T, d[index] * root, block)

        held = localization.near.shape[1] * len(y)
        items = (jnp.arange(len(blocks)), blocks)
        return jax.lax.map(one, items, batch_size=max(1, BATCH_NUMBERS // held))
