"""Models of the coefficients: linear with what the moorings see besides, and a diffusion."""

import jax
import jax.numpy as jnp
import numpy as np
from data import Field, Moorings

from dasim.models import SeasonalLinear, fit_seasonal
from dasim.priors.train import FitSettings
from dasim.trained import NetworkSpec, PriorSpec, train_transition
from dasim.transitions import phases


class Settings(dict):
    """Numbers of a model: modes, harmonics, and what the moorings see that the modes do not.

    `rest` is the standard deviation of that, in K, correlated as exp(-distance) with the lengths
    `east` and `north` in degrees, and from month to month by `memory`; `error` is a mooring's own.
    """


def correlation(place, s: Settings) -> np.ndarray:
    apart = place[:, None] - place
    return np.exp(-np.hypot(apart[..., 1] / s["east"], apart[..., 0] / s["north"]))


def linear_model(field: Field, moorings: Moorings, s: Settings) -> SeasonalLinear:
    """Coefficients of the modes, and the rest at the moorings."""
    early = np.flatnonzero(field.months.year <= 1989)
    z = field.coefficients
    found = fit_seasonal(
        z[early[:-1]], z[early[1:]], early[:-1].astype(float), 12.0, s["count"], width=0.1
    )
    k, m = z.shape[1], len(moorings.place)
    matrices = np.zeros((len(found.matrices), k + m, k + m))
    matrices[:, :k, :k] = found.matrices
    matrices[0, k:, k:] = s["memory"] * np.eye(m)
    covs = np.zeros((len(found.covs), k + m, k + m))
    covs[:, :k, :k] = found.covs
    own = max(s["rest"], 1e-3) ** 2 * correlation(moorings.place, s)
    covs[:, k:, k:] = (1 - s["memory"] ** 2) * own + 1e-9 * np.eye(m)
    return SeasonalLinear(matrices, covs, 12.0)


def train_diffusion(field: Field, steps: int):
    """A diffusion transition of the coefficients; every tenth year is held out."""
    z = jnp.asarray(field.coefficients, jnp.float32)
    early = np.flatnonzero(field.months.year <= 1989)[:-1]
    held = np.asarray(field.months.year)[early] % 10 == 5
    months = jnp.arange(len(z), dtype=jnp.float32)
    cond = jnp.concatenate([z, phases(months, (12.0,))], 1)
    training, kept = jnp.asarray(early[~held]), jnp.asarray(early[held])

    def sample(key, n):
        pick, noise = jax.random.split(key)
        i = training[jax.random.randint(pick, (n,), 0, len(training))]
        # noise on the ancestors: 432 pairs are few
        blur = (
            jnp.zeros((n, cond.shape[1]))
            .at[:, : z.shape[1]]
            .set(0.15 * jax.random.normal(noise, (n, z.shape[1])))
        )
        return cond[i] + blur, z[i + 1]

    spec = PriorSpec(
        (z.shape[1],),
        1.0,
        (12.0,),
        mean=NetworkSpec("mlp", 32, 2),
        residual=NetworkSpec("mlp", 48, 2),
    )
    fit = FitSettings(n_steps=steps, batch=128, learning_rate=1e-3, weight_decay=1e-2, patience=8)
    transition, figures = train_transition(
        spec, jax.tree_util.Partial(sample), (cond[kept], z[kept + 1]), jax.random.key(2), fit, fit
    )
    return transition, figures
