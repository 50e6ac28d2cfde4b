"""What denoisers of functions do to the waves of a field, each by itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields import FieldCovariance, Grid

ROUNDING = 1e-9  # of wavenumbers


class WaveGains(eqx.Module):
    """A factor for waves of each length at each level: straight lines between those measured.

    Right for draws of as many steps as there are levels (`measured_gains`): more do no harm, with
    fewer the waves of which the noise has far more than the fields lose variance.

    Attributes:
        values: `(level, length)`, of the wavenumbers 0, step, 2 step, ...; none beyond the last.
        angles: arctan of the levels, increasing.
        step: see `values`.
    """

    values: Float[Array, "level length"]
    angles: Float[Array, " level"]
    step: float = eqx.field(static=True)

    @classmethod
    def zeros(cls, grid: Grid, inner: Grid, n_levels: int) -> "WaveGains":
        """For the waves that a grid and an inner one have, without values and levels."""
        step = min(a[a > 0].min() for a in grid.wavenumbers)
        highest = min(np.abs(a).max() for g in (grid, inner) for a in g.wavenumbers)
        shape = n_levels, round(float(highest / step)) + 1
        return cls(jnp.zeros(shape), jnp.zeros(n_levels), float(step))

    def __call__(self, grid: Grid, sigma) -> Float[Array, "*grid"]:
        """The factors of a grid's coefficients."""
        angle = jnp.arctan(sigma)
        row = jax.vmap(lambda v: jnp.interp(angle, self.angles, v), 1)(self.values)
        return self.spread(row, grid)

    def spread(self, row: Float[Array, " length"], grid: Grid) -> Float[Array, "*grid"]:
        """What is given for the lengths, at a grid's coefficients; zero beyond the last."""
        k = grid.magnitudes / self.step
        below = np.minimum(k.astype(int), len(row) - 2)
        share = k - below
        factors = row[below] * (1 - share) + row[below + 1] * share
        return jnp.where(share <= 1 + ROUNDING, factors, 0.0)

    def summed(self, values: Float[Array, "*grid"], grid: Grid) -> Float[Array, " length"]:
        """Sums over a grid's coefficients nearest to each of the lengths."""
        k, count = grid.magnitudes / self.step, self.values.shape[1]
        place = np.where(k <= count - 1 + ROUNDING, np.round(k).astype(int), count)
        sums = jnp.zeros(count + 1, values.dtype).at[place.reshape(-1)].add(values.reshape(-1))
        return sums[:-1]


def linear_factor(law: FieldCovariance, noise: FieldCovariance, sigma) -> Float[Array, "*grid"]:
    """G(w) over w of a Gaussian field of covariance `law`, wave by wave: exact."""
    field, of_noise = law.values, noise.values
    # waves that the noise lacks are not seen
    total = jnp.where(of_noise > 0, field + sigma**2 * of_noise, 1.0)
    return jnp.where(of_noise > 0, sigma * (field - of_noise) / total, 0.0)
