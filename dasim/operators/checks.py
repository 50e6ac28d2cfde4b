r"""Tests of an operator: what it promises, and whether its derivatives are those of its values.

Along a random direction v, the size of a coordinate of x where it has one, and with random w:

    J v     against  (h(x + e v) - h(x - e v)) / 2 e       e the cube root of the precision
    <w, J v>  =  <J^T w, v>                                the dot-product test of an adjoint
    h(x + 2 v) - 2 h(x + v) + h(x)  =  0                   where it says that it is linear
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.operators.base import Operator, is_linear

ROUNDING = 1e3  # units of rounding error that a sum over a state may gather


def check_operator(
    operator: Operator,
    x: Float[Array | np.ndarray, "*state"],
    t: float = 0.0,
    *,
    derivatives: bool = True,
    tolerance: float | None = None,
    directions: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Refuse an operator that filters cannot use, and say in which number it fails.

    Use double precision (`jax.enable_x64`) where a fault has to be told from rounding, and a
    state that is no point at which the operator has a kink or a jump.

    Args:
        operator: a function of (x, t) to `(obs,)`.
        x: a state that it may meet, of any shape.
        t: time.
        derivatives: False for one without, such as `BlackBox`.
        tolerance: relative, of the central differences; None for the cube root of the precision,
            6e-6 in double and 5e-3 in single.
        directions: how many random ones are tried.
        seed: of the directions.

    Returns:
        The largest relative disagreement of each test that was made: "jit", "vmap", "linear",
        "jvp" and "vjp".

    Raises:
        ValueError: values that are not `(obs,)`, not floating or not finite; other values under
            `jit` or `vmap`; one that says it is linear and is not; derivatives that are not
            finite, disagree with central differences, or whose adjoint is another.
    """
    x = jnp.asarray(x)
    eps = float(jnp.finfo(x.dtype).eps)
    h = eps ** (1 / 3)
    tolerance = h if tolerance is None else tolerance
    time = jnp.asarray(t, float)
    generator = np.random.default_rng(seed)
    scale = np.abs(np.asarray(x))
    # a coordinate of no size takes that of the others, or 1
    scale = np.where(scale > 1e-3 * scale.mean(), scale, scale.mean() or 1.0)

    plain = operator(x, time)
    if jnp.ndim(plain) != 1 or not jnp.issubdtype(jnp.result_type(plain), jnp.floating):
        raise ValueError(
            f"the operator gives shape {jnp.shape(plain)} of type {jnp.result_type(plain)}, "
            "expected (obs,) of a floating type"
        )
    value = _finite("the operator", plain)
    compiled = jax.jit(lambda x: operator(x, time))
    over = jax.jit(jax.vmap(lambda x: operator(x, time)))
    h_of = lambda x: _finite("the operator", compiled(x))
    found: dict[str, float] = {}

    def compare(test, got, expected, allowed, told):
        """Allowed disagreement in absolute terms; the largest one is kept, relative to 1."""
        off = np.abs(got - expected)
        size = np.maximum(np.abs(got), np.abs(expected)).max(initial=0.0)
        if (off > allowed).any():
            i = int(np.argmax(off - allowed))
            raise ValueError(f"observation {i}: " + told.format(got[i], expected[i]))
        found[test] = max(found.get(test, 0.0), float(off.max(initial=0.0) / (size or 1.0)))

    rounding = lambda *sizes: ROUNDING * eps * sum(np.abs(s).max(initial=0.0) for s in sizes)
    compare("jit", h_of(x), value, rounding(value), "{} under jit, {} without")
    for _ in range(directions):
        v = jnp.asarray(generator.standard_normal(x.shape) * scale, x.dtype)
        ahead = h_of(x + v)
        both = _finite("the operator under vmap", over(jnp.stack([x, x + v])))
        expected = np.stack([value, ahead])
        for k in range(2):
            compare("vmap", both[k], expected[k], rounding(value, ahead), "{} under vmap, {} not")
        if is_linear(operator):
            twice = h_of(x + 2 * v)
            told = "it says it is linear, but changes by {1} in one step and by {0} in the next"
            compare("linear", twice - ahead, ahead - value, rounding(value, ahead, twice), told)
        if derivatives:
            _, tangent = jax.jvp(compiled, (x,), (v,))
            tangent = _finite("the derivative", tangent)
            difference = (h_of(x + h * v) - h_of(x - h * v)) / (2 * h)
            sizes = np.maximum(np.abs(tangent), np.abs(difference))
            lost = 10 * eps / h * (np.abs(value) + sizes.max(initial=0.0))
            told = "the derivative along a random direction is {}, central differences give {}"
            compare("jvp", tangent, difference, tolerance * sizes + lost, told)
            w = jnp.asarray(generator.standard_normal(value.shape), plain.dtype)
            pulled = _finite("the adjoint", jax.vjp(compiled, x)[1](w)[0])
            forward, back = np.asarray(w) * tangent, pulled * np.asarray(v)
            allowed = ROUNDING * eps * (np.abs(forward).sum() + np.abs(back).sum())
            if not abs(forward.sum() - back.sum()) <= allowed:
                raise ValueError(
                    f"<w, J v> is {forward.sum()} but <J^T w, v> is {back.sum()}: the reverse "
                    "derivative is not the transpose of the forward one"
                )
            found["vjp"] = max(
                found.get("vjp", 0.0),
                float(abs(forward.sum() - back.sum()) / (np.abs(forward).sum() or 1.0)),
            )
    return found


def _finite(what, values):
    values = np.asarray(values)
    if not np.isfinite(values).all():
        i = tuple(int(k) for k in np.argwhere(~np.isfinite(values))[0])
        where = i[0] if len(i) == 1 else i
        raise ValueError(f"{what} gives {values[i]} at index {where}, expected a finite number")
    return values
