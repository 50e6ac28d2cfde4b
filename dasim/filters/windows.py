"""Windows of cycles that end at the present one: what smoothers in time share.

A window of `lag` cycles begins one interval before its first observation. It grows from the
start of the run; when it is full, each cycle moves it on by one interval.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


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
