r"""Operators and how they are put together.

An operator h takes a state and the time to the values that a sensor would read, `(obs,)`. Here

    Compose:   h(x, t) = g(f(x, t), t)
    Stack:     h(x, t) = (f_1(x, t), f_2(x, t), ...)
    Modes:     h(c, t) = f(mean + sum_k c_k e_k, t)
    TimeMean:  h(x_1..n, t) = sum_j w_j f(x_j, t_j)

Any function of (x, t) may stand for f and g.
"""

import abc
from collections.abc import Callable
from types import EllipsisType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.types import State

Operator = Callable[[State, Float[Array, ""]], Float[Array, " obs"]]
# the index that takes a field from a state, hashable as a static field has to be
Component = int | tuple[int | EllipsisType, ...] | None


class AbstractOperator(eqx.Module):
    """A function of (x, t) to `(obs,)` that says of itself whether it is linear.

    Attributes:
        linear: whether the values are an affine function of the state, the same one at all
            times. Filters factor such a problem once, and the exact Kalman filter asks for it.
    """

    linear: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        """What the sensor would read of the state `x`, of any shape, at time `t`."""

    def then(self, outer: Operator) -> "Compose":
        """The operator that applies `outer` to this one's values."""
        return Compose(outer, self)


def is_linear(operator: Operator) -> bool:
    """Whether an operator says of itself that it is linear; a plain function does not."""
    return bool(getattr(operator, "linear", False))


def field_of(
    x: State, component: Component, shape: tuple[int, ...], name: str
) -> Float[Array, "*field"]:
    """The field that a state of several variables holds at `component`, refused in another shape.

    Raises:
        ValueError: the field has not the shape of the grid.
    """
    field = x if component is None else x[component]
    if field.shape != shape:
        raise ValueError(
            f"{name}: the field has shape {field.shape}, expected {shape}; component takes it "
            f"from a state of several, here {component} from one of shape {x.shape}"
        )
    return field


class Compose(AbstractOperator):
    """h(x, t) = outer(inner(x, t), t).

    Attributes:
        outer: an operator on the values of `inner`.
        inner: an operator on the state.
    """

    outer: Operator
    inner: Operator

    @property
    def linear(self) -> bool:
        return is_linear(self.outer) and is_linear(self.inner)

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        return self.outer(self.inner(x, t), t)


class Stack(AbstractOperator):
    """The values of several operators, one after the other.

    Attributes:
        operators: each of (x, t) to `(obs_i,)`; the stack gives `(obs_1 + obs_2 + ...,)`.
    """

    operators: tuple[Operator, ...] = eqx.field(converter=tuple)

    def __check_init__(self):
        if not self.operators:
            raise ValueError("Stack: no operators, expected at least one")

    @property
    def linear(self) -> bool:
        return all(map(is_linear, self.operators))

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        return jnp.concatenate([operator(x, t) for operator in self.operators])


class Modes(AbstractOperator):
    """What `operator` reads of the field whose coefficients in a basis are the state.

    The state c is `(mode,)`: of empirical orthogonal functions, of a spectral model. A linear
    operator reads each mode once, at construction, and a call is a product with an
    `(obs, mode)` matrix, however large the field is.

    Attributes:
        basis: e_k, or what a linear operator reads of them, with the modes along the first axis.
        mean: the field at zero coefficients, or what is read of it.
        operator: what is still to be applied to the field, None where that is done.
    """

    basis: Float[Array, "mode *field"]
    mean: Float[Array, "*field"]
    operator: Operator | None

    def __init__(self, basis, mean=None, operator: Operator | None = None):
        """Give `basis`, `(mode, *field)`, `mean`, `(*field,)` or None for zero, and `operator`.

        Without an operator the whole field is observed, flat.

        Raises:
            ValueError: a mean of another shape than a mode's, or an operator that says it is
                linear and changes with time.
        """
        basis = jnp.asarray(basis, float)
        mean = jnp.zeros(basis.shape[1:]) if mean is None else jnp.asarray(mean, float)
        if basis.ndim < 2 or mean.shape != basis.shape[1:]:
            raise ValueError(
                f"Modes: basis has shape {basis.shape} and mean {mean.shape}, expected "
                "(mode, *field) and (*field,)"
            )
        if operator is None:
            basis, mean = basis.reshape(len(basis), -1), mean.reshape(-1)
        elif is_linear(operator):
            some = mean + basis.sum(0)
            now, later = (operator(some, jnp.asarray(t)) for t in (0.0, 1.0))
            if not np.array_equal(now, later):
                raise ValueError(
                    f"Modes: the operator says it is linear, but reads {now} at time 0 and "
                    f"{later} at time 1 of the same field; wrap it so that linear is False"
                )
            read = jax.vmap(operator, (0, None))
            origin, mean = read(jnp.stack([jnp.zeros_like(mean), mean]), jnp.zeros(()))
            basis, operator = read(basis, jnp.zeros(())) - origin, None
        self.basis, self.mean, self.operator = basis, mean, operator

    @property
    def linear(self) -> bool:
        return self.operator is None

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        if x.shape != self.basis.shape[:1]:
            raise ValueError(f"Modes: the state has shape {x.shape}, expected ({len(self.basis)},)")
        field = self.mean.astype(x.dtype) + jnp.tensordot(x, self.basis.astype(x.dtype), 1)
        return field if self.operator is None else self.operator(field, t)


class TimeMean(AbstractOperator):
    """The mean over a window of what `operator` reads at each step.

    The state is a trajectory, `(step, *state)`: a draw of a trajectory prior, or the state of a
    model that carries its last steps along. It is for sensors that integrate, as a daily mean
    temperature or rain in a gauge does.

    Attributes:
        operator: of one state and its time to `(obs,)`.
        interval: time between two steps; the last one is at `t`. Only operators that depend on
            time ask for it.
        weights: of the steps, `(step,)`, scaled to sum 1; None for equal ones.
    """

    operator: Operator
    interval: float = 0.0
    weights: Float[Array, " step"] | None = eqx.field(
        default=None, converter=lambda w: None if w is None else jnp.asarray(w, float)
    )

    @property
    def linear(self) -> bool:
        return is_linear(self.operator)

    def __call__(self, x: Float[Array, "step *state"], t) -> Float[Array, " obs"]:
        steps = x.shape[0]
        weights = jnp.ones(steps) if self.weights is None else self.weights
        if weights.shape != (steps,):
            raise ValueError(f"TimeMean: {len(weights)} weights for a trajectory of {steps} steps")
        times = t - self.interval * jnp.arange(steps - 1, -1, -1)
        values = jax.vmap(self.operator)(x, times)
        return (weights / weights.sum()).astype(values.dtype) @ values
