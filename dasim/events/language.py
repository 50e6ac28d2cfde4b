r"""Events written as expressions: `max(x[0]) > 1.5 and mean(x[2]) < 20`.

`x[i]` is variable i: a number of a state, and of a trajectory its values at all steps, of which
`x[i, t]` and `x[i, a:b]` pick some. Numbers are compared by `<`, `<=`, `>` and `>=`, also in
chains; a comparison of several numbers holds where it holds for the least fit of them. Events are
joined by `and`, `or` and `not`. An expression is parsed and never evaluated as code: whatever is
not listed here is refused.
"""

import ast
import difflib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dasim.events.base import AbstractEvent
from dasim.events.regions import Exceeds, Within
from dasim.types import DasimError

LONGEST = 1000  # characters of an expression


class EventError(DasimError):
    """An expression that is no event; says which part of it, and what is expected."""


def _spectrum(a):
    """Moduli of the Fourier coefficients along the steps, but for the mean."""
    return jnp.abs(jnp.fft.rfft(a, axis=-1))[..., 1:]


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "max": jnp.max,
    "min": jnp.min,
    "mean": jnp.mean,
    "sum": jnp.sum,
    "std": jnp.std,
    "abs": jnp.abs,
    "sqrt": jnp.sqrt,
    "exp": jnp.exp,
    "log": jnp.log,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "arctan": jnp.arctan,
    "tanh": jnp.tanh,
    "diff": lambda a: jnp.diff(a, axis=-1),
    "spectrum": _spectrum,
}
OPERATORS = {
    ast.Add: jnp.add,
    ast.Sub: jnp.subtract,
    ast.Mult: jnp.multiply,
    ast.Div: jnp.divide,
    ast.Pow: jnp.power,
}
NAMES = {"pi": np.pi}
Value = Callable[[Array], Array]


def parse_event(expression: str, shape: tuple[int, ...], trajectory: bool = False) -> AbstractEvent:
    """The event that an expression describes.

    Args:
        expression: see the module.
        shape: of a draw; of a trajectory `(steps, *state)`.
        trajectory: whether the first axis are steps.

    Raises:
        EventError: not an expression of this language, an unknown name or function, or an index
            outside the state; names the part and what was expected.
    """
    return _Parser(expression, shape, trajectory).event()


class _Parser:
    def __init__(self, expression: str, shape: tuple[int, ...], trajectory: bool):
        self.expression, self.shape, self.trajectory = expression, tuple(shape), trajectory

    def event(self) -> AbstractEvent:
        if len(self.expression) > LONGEST:
            raise EventError(f"event: {len(self.expression)} characters, expected up to {LONGEST}")
        try:
            tree = ast.parse(self.expression.strip(), mode="eval")
            return self._event(tree.body)
        except SyntaxError as error:
            raise EventError(
                f"event: {self.expression[:60]!r} cannot be read at character {error.offset}: "
                "expected a comparison, for example max(x[0]) > 1.5"
            ) from None
        except (RecursionError, MemoryError):
            raise EventError("event: the expression is nested too deeply") from None
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise EventError(f"event: {self.expression[:60]!r}: {error}") from None

    def _part(self, node: ast.AST) -> str:
        return repr(ast.unparse(node))

    def _event(self, node: ast.expr) -> AbstractEvent:
        if isinstance(node, ast.BoolOp):
            first, *rest = (self._event(value) for value in node.values)
            for other in rest:
                first = first & other if isinstance(node.op, ast.And) else first | other
            return first
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            first, other = self._event(node.left), self._event(node.right)
            return first & other if isinstance(node.op, ast.BitAnd) else first | other
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            return ~self._event(node.operand)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        raise EventError(
            f"event: {self._part(node)} is a value and not an event: compare it with a number, for "
            "example max(x[0]) > 1.5"
        )

    def _comparison(self, node: ast.Compare) -> AbstractEvent:
        sides = [node.left, *node.comparators]
        found = self._interval(node, sides)
        if found is not None:
            return found
        for low, op, high in zip(sides[:-1], node.ops, sides[1:], strict=True):
            if isinstance(op, ast.Gt | ast.GtE):
                low, high = high, low
            elif not isinstance(op, ast.Lt | ast.LtE):
                raise EventError(
                    f"event: {self._part(node)}: expected <, <=, > or >=; a value is met exactly "
                    "with probability zero"
                )
            one = self._below(low, high, node)
            found = one if found is None else found & one
        return found

    def _interval(self, node: ast.Compare, sides: list[ast.expr]) -> AbstractEvent | None:
        """low < f < high of one number f as one event, whose ends exclude one another."""
        if len(sides) != 3:
            return None
        upward = [isinstance(op, ast.Lt | ast.LtE) for op in node.ops]
        downward = [isinstance(op, ast.Gt | ast.GtE) for op in node.ops]
        ends = [self._constant(sides[0]), self._constant(sides[2])]
        if None in ends or not (all(upward) or all(downward)):
            return None
        if self._constant(sides[1]) is not None:
            return None
        low, high = ends if all(upward) else ends[::-1]
        value = self._value(sides[1])
        if jax.eval_shape(lambda draw: value(self._axes(draw)), self._draw()).size != 1:
            return None
        return Within(lambda draw: jnp.ravel(value(self._axes(draw))), low, high)

    def _draw(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, jnp.float32)

    def _below(self, low: ast.expr, high: ast.expr, node: ast.Compare) -> AbstractEvent:
        constants = [self._constant(side) for side in (low, high)]
        if None not in constants:
            raise EventError(f"event: {self._part(node)} compares two numbers: use x")
        values = self._value(low), self._value(high)
        if constants[0] is not None:
            functional, level = values[1], constants[0]
        elif constants[1] is not None:
            functional, level = (lambda x: -values[0](x)), -constants[1]
        else:
            functional, level = (lambda x: values[1](x) - values[0](x)), 0.0

        def least(draw):
            return jnp.min(functional(self._axes(draw)))

        try:
            jax.eval_shape(least, self._draw())
        except (TypeError, ValueError, IndexError) as error:
            raise EventError(
                f"event: {self._part(node)}: {error}; x has shape {self._shape()}"
            ) from None
        return Exceeds(least, level)

    def _axes(self, draw: Array) -> Array:
        return jnp.moveaxis(draw, 0, -1) if self.trajectory else draw

    def _shape(self) -> tuple[int, ...]:
        return (*self.shape[1:], self.shape[0]) if self.trajectory else self.shape

    def _constant(self, node: ast.expr) -> float | None:
        """The number that a node is, if x is not in it."""
        if any(isinstance(n, ast.Name) and n.id == "x" for n in ast.walk(node)):
            return None
        number = float(self._value(node)(jnp.zeros(self._shape())))
        if not np.isfinite(number):
            raise EventError(f"event: {self._part(node)} is {number}, expected a finite number")
        return number

    def _value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            number = float(node.value)
            return lambda x: jnp.asarray(number)
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            inner, sign = self._value(node.operand), -1 if isinstance(node.op, ast.USub) else 1
            return lambda x: sign * inner(x)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            left, right = self._value(node.left), self._value(node.right)
            operator = OPERATORS[type(node.op)]
            return lambda x: operator(left(x), right(x))
        if isinstance(node, ast.Compare | ast.BoolOp):
            raise EventError(f"event: {self._part(node)} is an event, and a value is expected")
        raise EventError(
            f"event: {self._part(node)} is not part of the language: expected numbers, x, its "
            "indices, + - * / **, and functions"
        )

    def _name(self, node: ast.Name) -> Value:
        if node.id == "x":
            return lambda x: x
        if node.id in NAMES:
            number = NAMES[node.id]
            return lambda x: jnp.asarray(number)
        hint = "; a function needs its argument in brackets" if node.id in FUNCTIONS else ""
        raise EventError(
            f"event: unknown name {node.id!r}; the state is x, and there is "
            f"{', '.join(NAMES)}{hint}"
        )

    def _call(self, node: ast.Call) -> Value:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, FUNCTIONS, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise EventError(
                f"event: unknown function {name!r}; {hint}there are {', '.join(FUNCTIONS)}"
            )
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise EventError(f"event: {self._part(node)}: {name} takes one argument")
        function, inner = FUNCTIONS[name], self._value(node.args[0])
        return lambda x: function(inner(x))

    def _subscript(self, node: ast.Subscript) -> Value:
        inner, index = self._value(node.value), self._index(node.slice)

        def picked(x):
            value = inner(x)
            keys = index if isinstance(index, tuple) else (index,)
            for axis, key in enumerate(keys):
                size = value.shape[axis] if axis < value.ndim else 0
                if isinstance(key, int) and not -size <= key < size:
                    raise EventError(
                        f"event: {self._part(node)}: index {key} is outside "
                        f"0 to {size - 1}: x has shape {self._shape()}"
                    )
            return value[index]

        return picked

    def _index(self, node: ast.expr):
        if isinstance(node, ast.Tuple):
            return tuple(self._index(one) for one in node.elts)
        if isinstance(node, ast.Slice):
            ends = (
                None if e is None else self._index(e) for e in (node.lower, node.upper, node.step)
            )
            return slice(*ends)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._index(node.operand)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        raise EventError(f"event: index {self._part(node)}: expected a whole number or a slice")
