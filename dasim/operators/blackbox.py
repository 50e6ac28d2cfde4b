"""Operators written in NumPy, or that call a program: with no derivatives, or with their own.

They run on the host, through `jax.pure_callback`: under `jit` and `vmap` as other operators do,
with all members in one call. A function of the state and the time it has to be, with no memory
and no randomness, for JAX may call it more than once, or not at all if nobody asks for the result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.operators.base import AbstractOperator
from dasim.types import State


def _to_bits(a):
    # a callback's thread does not know of `enable_x64`, and would round what it is given
    return jax.lax.bitcast_convert_type(a, jnp.uint32) if a.dtype.itemsize == 8 else a


def _from_bits(bits, dtype):
    """A copy, for JAX's own buffers are read-only and a function may work in place."""
    bits = np.array(bits)
    return bits.view(dtype)[..., 0] if dtype.itemsize == 8 else bits


@dataclass(frozen=True)
class _Host:
    """The callback: equal to another one of the same fields, for which JAX compiles once."""

    function: Callable[[Any, Any], Any]
    shape: tuple[int, ...]
    dtype: np.dtype
    vectorized: bool
    ndim: int
    types: tuple[np.dtype, np.dtype]

    def __call__(self, *bits):
        x, t = map(_from_bits, bits, self.types)
        members, times = x.reshape(-1, *x.shape[x.ndim - self.ndim :]), t.reshape(-1)
        if self.vectorized:
            got = self.checked(members, times, (len(times), *self.shape), "members")
        else:
            each = enumerate(zip(members, times, strict=True))
            got = np.stack([self.checked(m, s, self.shape, f"member {i}") for i, (m, s) in each])
        got = np.ascontiguousarray(got.reshape(*t.shape, *self.shape), self.dtype)
        return got[..., None].view(np.uint32) if self.dtype.itemsize == 8 else got

    def checked(self, x, t, expected, where):
        name = getattr(self.function, "__name__", type(self.function).__name__)
        try:
            got = np.asarray(self.function(x, t))
        except Exception as error:
            raise RuntimeError(
                f"the operator's {name}(x, t) raised {type(error).__name__}: {error}, "
                f"for {where} of shape {x.shape} at time {t}"
            ) from error
        if got.shape != expected:
            raise RuntimeError(
                f"the operator's {name}(x, t) gave shape {got.shape}, expected {expected}, "
                f"for {where} of shape {x.shape}"
            )
        return got


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _call(host: _Host, x, t):
    """`function(x, t)`, once a member or once for all."""
    wide = host.dtype.itemsize == 8
    form = ((*host.shape, 2), np.uint32) if wide else (host.shape, host.dtype)
    result = jax.ShapeDtypeStruct(*form)
    got = jax.pure_callback(host, result, _to_bits(x), _to_bits(t), vmap_method="broadcast_all")
    return jax.lax.bitcast_convert_type(got, host.dtype) if wide else got


@_call.defjvp
def _refuse(host, primals, tangents):
    # bits have no derivatives: JAX would take zero for them, without a word
    raise ValueError(
        "an operator in NumPy has no derivatives: give it some by WithDerivative (first ones "
        "alone), or take a filter that asks for none, such as an ensemble Kalman filter, or "
        'ConditionalScoreFilter(linearization="statistical")'
    )


def _call_host(function, shape, dtype, vectorized, x, t):
    t = jnp.asarray(t, float)
    return _call(
        _Host(function, shape, np.dtype(dtype), vectorized, x.ndim, (x.dtype, t.dtype)), x, t
    )


class BlackBox(AbstractOperator):
    """A NumPy function as an operator; what asks for its derivatives fails at once.

    Every ensemble Kalman filter takes it, the particle filter, and the conditional score filter
    with `linearization="statistical"`. An error in the function comes as
    JAX's `JaxRuntimeError`, whose last lines say what the function raised, for which member.

    Attributes:
        function: of the state, an array of its shape, and the time, a number, to `(n_obs,)`;
            if `vectorized`, of `(member, *state)` and `(member,)` to `(member, n_obs)`.
        n_obs: number of values.
        dtype: of the values; None for the state's.
        vectorized: whether the function takes all members at once.
        linear: whether its values are an affine function of the state at all times.
    """

    function: Callable[[Any, Any], Any] = eqx.field(static=True)
    n_obs: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True, default=None)
    vectorized: bool = eqx.field(static=True, default=False, kw_only=True)
    linear: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        dtype = x.dtype if self.dtype is None else jax.dtypes.canonicalize_dtype(self.dtype)
        return _call_host(self.function, (self.n_obs,), dtype, self.vectorized, x, t)


class WithDerivative(AbstractOperator):
    """A NumPy function as an operator, with a NumPy function for its derivatives.

    Derivatives in the state alone: the time is taken as given. Every filter takes it.

    Attributes:
        function: of the state, an array of its shape, and the time, a number, to `(n_obs,)`.
        jacobian: of the same to `(n_obs, *state)`.
        n_obs: number of values.
        vectorized: whether both take `(member, *state)` and `(member,)`, and give a leading
            member axis.
        linear: whether its values are an affine function of the state at all times.
    """

    function: Callable[[Any, Any], Any] = eqx.field(static=True)
    jacobian: Callable[[Any, Any], Any] = eqx.field(static=True)
    n_obs: int = eqx.field(static=True)
    vectorized: bool = eqx.field(static=True, default=False, kw_only=True)
    linear: bool = eqx.field(static=True, default=False, kw_only=True)

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        obs = (self.n_obs,)

        @jax.custom_jvp
        def values(x, t):
            return _call_host(self.function, obs, x.dtype, self.vectorized, x, t)

        @values.defjvp
        def derivative(primals, tangents):
            x, t = primals
            shape = (*obs, *x.shape)
            slopes = _call_host(self.jacobian, shape, x.dtype, self.vectorized, x, t)
            return values(x, t), jnp.tensordot(slopes, tangents[0], x.ndim)

        return values(x, jnp.asarray(t, float))
