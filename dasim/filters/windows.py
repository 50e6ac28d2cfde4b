"""Windows of cycles that end at the present one: what smoothers in time share.

A window of `lag` cycles begins one interval before its first observation. It grows from the
start of the run; when it is full, each cycle moves it on by one interval.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dasim.transitions import AbstractTransition


def check_lag(lag) -> int:
    """A whole number of cycles, at least 1."""
    if int(lag) != lag or lag < 1:
        raise ValueError(f"lag is {lag}, expected a whole number of at least 1 cycle")
    return int(lag)


def advance(step, x, length: Int[Array, ""]):
    """`step(x, i)` for i = 0 ... length - 1; `length` may be traced."""
    return jax.lax.fori_loop(0, length, lambda i, x: step(x, i), x)


def slide(step, x, length: Int[Array, ""], lag: int):
    """The start of the next window, and how many cycles it holds before its next observation."""
    full = length == lag
    moved = jax.lax.cond(full, lambda x: step(x, jnp.zeros((), int)), lambda x: x, x)
    return moved, jnp.where(full, lag - 1, length)


class Window(AbstractTransition):
    """The first `length` of `lag` intervals of a transition without noise; `length` may be traced.

    All `lag` are computed, so that derivatives can be taken backwards. Raises ValueError for a
    transition with noise.
    """

    transition: AbstractTransition
    lag: int = eqx.field(static=True)
    length: Int[Array, ""]

    def __check_init__(self):
        if self.transition.noise_size > 0:
            raise ValueError(
                f"lag is {self.lag}, expected 1: a window of several cycles needs a transition "
                "without noise"
            )

    @property
    def interval(self):
        return self.length * self.transition.interval

    @property
    def shape(self):
        return self.transition.shape

    @property
    def noise_size(self):
        return 0

    @property
    def calls(self):
        return self.lag

    @property
    def linear(self):
        return self.transition.linear

    def mean(self, x, t):
        def step(x, i):
            ahead = self.transition.mean(x, t + i * self.transition.interval)
            return jnp.where(i < self.length, ahead, x), None

        return jax.lax.scan(step, x, jnp.arange(self.lag))[0]

    def driven(self, x, t, noise):
        return self.mean(x, t)

    def residual_cov(self, x, t):
        return None

    def prior(self, x, t):
        return None
