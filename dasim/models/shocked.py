"""Rare shocks to a model's state."""

import jax
import jax.numpy as jnp

from dasim.covariance import DenseCovariance, DiagonalCovariance
from dasim.models.base import AbstractModel


class Shocked(AbstractModel):
    """`model` whose state is shocked after a step with a given `probability`.

    A shock adds size |x_i| e_i to each variable, with e_i independent standard normal, as in the
    experiments of Bao, Zhang and Zhang (2024, arXiv 2309.00983). The law of a step is a mixture;
    `step_cov` is its covariance.

    Attributes:
        size: of a shock, relative to the state.
        probability: of a shock in one step.
    """

    model: AbstractModel
    size: float
    probability: float

    def __check_init__(self):
        if not 0 <= self.probability <= 1 or self.size < 0:
            raise ValueError(
                f"shocks of size {self.size} with probability {self.probability}: expected a size "
                "of at least 0 and a probability from 0 to 1"
            )

    @property
    def dt(self):
        return self.model.dt

    @property
    def shape(self):
        return self.model.shape

    @property
    def coords(self):
        return self.model.coords

    @property
    def period(self):
        return self.model.period

    @property
    def spin_up(self):
        return self.model.spin_up

    def start(self, key):
        return self.model.start(key)

    def step(self, x, t, key):
        if key is None:
            return self.model.step(x, t, None)
        own, chance, draw = jax.random.split(key, 3)
        x = self.model.step(x, t, own)
        shock = self.size * jnp.abs(x) * jax.random.normal(draw, x.shape, x.dtype)
        return jnp.where(jax.random.uniform(chance) < self.probability, x + shock, x)

    def step_cov(self, x, t):
        square, own = self.model.step(x, t, None).reshape(-1) ** 2, self.model.step_cov(x, t)
        share = self.probability * self.size**2
        if own is None:
            return DiagonalCovariance(share * square)
        shock = share * (square + own.diagonal())
        return DenseCovariance.from_matrix(own.dense() + jnp.diag(shock))
