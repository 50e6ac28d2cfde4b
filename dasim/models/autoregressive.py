r"""A Gaussian field with a memory: an autoregression of first order in time, any law in space.

    x_{k+1} = rho x_k + sqrt(1 - rho^2) e_k,   e_k ~ N(0, C),   rho = exp(-dt / memory),

whose climate is N(0, C): an Ornstein-Uhlenbeck process seen at intervals dt.
"""

import math

import equinox as eqx
import numpy as np

from dasim.fields import FieldCovariance
from dasim.models.base import AbstractModel, check_dt


class AutoregressiveField(AbstractModel):
    """A field on a grid that forgets itself in the time `memory`.

    Attributes:
        covariance: C, of the climate.
        memory: time in which correlations fall to 1/e.
        dt: length of one step, in the unit of `memory`.
    """

    covariance: FieldCovariance
    memory: float = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(self, covariance: FieldCovariance, memory: float, dt: float = 1.0):
        """See the class.

        Raises:
            ValueError: a memory or a step that is not positive.
        """
        if not memory > 0:
            raise ValueError(f"memory is {memory}, expected a positive time")
        self.covariance, self.memory, self.dt = covariance, float(memory), check_dt(dt)

    @property
    def shape(self):
        return self.covariance.grid.shape

    @property
    def rho(self) -> float:
        """Correlation of a state with the next."""
        return math.exp(-self.dt / self.memory)

    @property
    def linear(self):
        return True

    def step(self, x, t, key):
        mean = self.rho * x
        if key is None:
            return mean
        return mean + (1 - self.rho**2) ** 0.5 * self.covariance.sample(key).astype(x.dtype)

    def step_cov(self, x, t):
        return eqx.tree_at(
            lambda c: c.std, self.covariance, self.covariance.std * (1 - self.rho**2) ** 0.5
        )

    def start(self, key):
        return self.covariance.sample(key)

    @property
    def spin_up(self):
        return self.dt

    @property
    def coords(self):
        return np.indices(self.shape, float).reshape(len(self.shape), -1).T

    @property
    def grid(self):
        return self.covariance.grid
