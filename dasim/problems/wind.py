"""Winds as stations report them: a speed, and a direction in steps of ten degrees."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim import observe, weather
from dasim.observe import Gaussian
from dasim.types import State

CALM = 3.0  # mph; less is reported as none, and has no direction
STEP = 10.0  # degrees


class WindReports(eqx.Module):
    """The operator from anomalies to anomalies, but with speed and direction of the winds.

    A wind's speed, in mph, stands in the place of `u`, its direction, in degrees, in that of `v`.

    Attributes:
        cycle: of the components, `(time, component, station)`.
        scale: of the components, `(component, station)`.
        first: hour of the first row of `cycle`.
        u, v: where the components stand in the state.
    """

    cycle: Float[Array, "time two station"]
    scale: Float[Array, "two station"]
    first: float = eqx.field(static=True)
    u: tuple[int, ...] = eqx.field(static=True)
    v: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, reports: weather.Weather):
        self.u, self.v = (
            tuple(reports.variables.index(f"{s}.{q}") for s in weather.STATIONS) for q in "uv"
        )
        both = np.array([self.u, self.v])
        self.first = float(reports.hours[0])
        self.cycle, self.scale = (jnp.asarray(a[..., both]) for a in (reports.cycle, reports.scale))

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        flat = x.reshape(-1)
        u, v = jnp.asarray(self.u), jnp.asarray(self.v)
        hour = jnp.round(t - self.first).astype(int)
        own = jnp.stack([flat[u], flat[v]]) * self.scale + self.cycle[hour]
        fast, where = speed_direction(own.astype(flat.dtype), jnp)
        return flat.at[u].set(fast).at[v].set(where)

    def as_reported(self, values, own, mask, std):
        """Values, mask and standard deviations with the winds as they are reported.

        Args:
            values, mask: of all variables, anomalies, `(cycle, obs)`.
            own: the reports in own units, `(cycle, obs)`.
            std: in the units of `values`, `(obs,)`.

        Returns:
            The three, `(cycle, obs)`. A calm has no direction; that of a wind of speed w has an
            error of 1 / w of the components'.
        """
        u, v = list(self.u), list(self.v)
        fast, where = speed_direction(np.nan_to_num(np.stack([own[:, u], own[:, v]])), np)
        values, mask, std = values.copy(), mask.copy(), np.tile(std, (len(values), 1))
        values[:, u], values[:, v] = fast, np.round(where / STEP) * STEP
        mask[:, v] &= fast > CALM
        across, along = std[:, v] * self.scale[1], std[:, u] * self.scale[0]
        std[:, u], std[:, v] = along, np.degrees(across / np.maximum(fast, CALM))
        return values, mask, std

    def errors(self, parts):
        """Errors by variables, `parts`, the first those of plain numbers, with the winds' own.

        Their standard deviations come with the values.
        """
        (error, numbers), *others = parts
        kept = [i for i, j in enumerate(numbers) if j not in self.u + self.v]
        plain = Gaussian(error.std[np.array(kept)]), [numbers[i] for i in kept]
        winds = [
            (observe.Censored(1.0, low=CALM), self.u),
            (observe.Circular(1.0, step=STEP), self.v),
        ]
        return [plain, *others, *winds]


def speed_direction(own, xp):
    """Speed and direction of the components `own`, `(2, ...)`, with derivatives at zero, too.

    The direction is that from which the wind blows, in degrees clockwise from north.
    """
    u, v = own
    speed = xp.sqrt(u**2 + v**2 + 1e-6)
    return speed, xp.degrees(xp.arctan2(-u, -v + 1e-6))
