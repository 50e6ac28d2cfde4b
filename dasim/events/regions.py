r"""Events that users state: a functional of the state above a level or within an interval.

They compose by `&`, `|` and `~`, with each other and with observations. Whatever is composed
comes down to two parts: conditions with an error, which have a density (an observation,
`Equals`), and disjoint boxes of the constraint's space, so that no probability is ever the
difference of two.
"""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dasim.covariance import DiagonalCovariance, solve_definite
from dasim.events.base import AbstractEvent, GaussianEvent
from dasim.events.normal import log_box
from dasim.types import State

Functional = Callable[[State], Array]
# intervals [low, high) of some components; None is an end at infinity
Box = dict[int, tuple[Array | None, Array | None]]


class Parts(NamedTuple):
    """An event on a constraint of `size` numbers: all of `soft`, and one of `boxes`.

    Attributes:
        soft: conditions with an error, and the component with which each begins.
        boxes: disjoint.
    """

    size: int
    soft: list[tuple[int, GaussianEvent]]
    boxes: list[Box]


class AbstractRegion(AbstractEvent):
    """An event that comes down to `Parts`."""

    @abc.abstractmethod
    def parts(self) -> Parts:
        """What it comes down to."""

    def __and__(self, other: AbstractEvent) -> "Both":
        return Both(self, other)

    def __rand__(self, other: AbstractEvent) -> "Both":
        return Both(other, self)

    def __or__(self, other: AbstractEvent) -> "Either":
        return Either(self, other)

    def __invert__(self) -> "Not":
        return Not(self)

    def holds(self, x: State) -> Bool[Array, ""]:
        """Whether it is so in a state. Raises TypeError for an event with an error."""
        size, _, boxes = self._certain_parts()
        return jnp.isfinite(_log_regions(self.constraint(x), None, size, boxes))

    def margin(
        self, c: Float[Array, " k"], scale: Float[Array, " k"] | float = 1.0
    ) -> Float[Array, ""]:
        """How far a constraint lies within the event, in units of `scale`; below zero outside.

        Of a box that of its nearest end, of several that of the best. Raises TypeError for an
        event with an error.
        """
        size, _, boxes = self._certain_parts()
        if not boxes:
            return jnp.full((), -jnp.inf, c.dtype)
        low, high = _ends(size, boxes, c.dtype)
        return jnp.min(jnp.minimum(c - low, high - c) / scale, 1).max()

    def _certain_parts(self) -> Parts:
        parts = self.parts()
        if parts.soft:
            raise TypeError("an event with an error has a density; whether it holds is not known")
        return parts

    def log_prob(self, c_mean, c_cov):
        size, soft, boxes = self.parts()
        total = jnp.zeros((), c_mean.dtype)
        for start, event in soft:
            own = slice(start, start + len(event.value))
            total += event.log_prob(c_mean[own], None if c_cov is None else c_cov[own, own])
            if c_cov is not None:
                c_mean, c_cov = _given(event, own, c_mean, c_cov)
        return total + _log_regions(c_mean, c_cov, size, boxes)


class _OfFunctional(AbstractRegion):
    """An event about a functional of the state, with a value or level for each of its numbers."""

    functional: eqx.AbstractVar[Functional]

    @property
    @abc.abstractmethod
    def _size(self) -> int:
        """How many numbers the functional gives."""

    def constraint(self, x):
        c = jnp.atleast_1d(self.functional(x))
        if c.shape != (self._size,):
            raise ValueError(
                f"{type(self).__name__}: the functional gives shape {c.shape}, the event has "
                f"{self._size} level(s); give one for each of its numbers"
            )
        return c


class Within(_OfFunctional):
    """low <= functional(x) < high, for each of its numbers.

    Attributes:
        functional: function of a state to a number or `(k,)`; differentiable.
        low, high: numbers or `(k,)`; None for no bound.
    """

    functional: Functional
    low: Float[Array, " k"] | None
    high: Float[Array, " k"] | None

    def __init__(self, functional: Functional, low=None, high=None):
        """Raises ValueError without a bound, or where `low` is not below `high`."""
        given = [jnp.atleast_1d(jnp.asarray(v, float)) for v in (low, high) if v is not None]
        if not given:
            raise ValueError("Within: give low, high or both")
        shape = jnp.broadcast_shapes(*(v.shape for v in given))
        if len(given) == 2 and not isinstance(low, jax.core.Tracer):
            if not isinstance(high, jax.core.Tracer) and not np.all(given[0] < given[1]):
                raise ValueError(f"Within: low is {low}, expected below high, {high}")
        self.functional = functional
        self.low = None if low is None else jnp.broadcast_to(given[0], shape)
        self.high = None if high is None else jnp.broadcast_to(given[-1], shape)

    @property
    def _size(self):
        return len(self.high if self.low is None else self.low)

    def parts(self):
        def end(bound, i):
            return None if bound is None else bound[i]

        box = {i: (end(self.low, i), end(self.high, i)) for i in range(self._size)}
        return Parts(self._size, [], [box])


def Exceeds(functional: Functional, level) -> Within:
    """functional(x) >= level, for each of its numbers."""
    return Within(functional, low=level)


class Equals(_OfFunctional):
    """functional(x) = value, up to a normal error, for each of its numbers.

    Attributes:
        functional: function of a state to a number or `(k,)`; differentiable.
        value: a number or `(k,)`.
        std: standard deviation of the error, of the same shape or a number.
    """

    functional: Functional
    value: Float[Array, " k"]
    std: Float[Array, " k"]

    def __init__(self, functional: Functional, value, std):
        """Raises ValueError for a `std` that is not positive."""
        if not isinstance(std, jax.core.Tracer) and not np.all(np.asarray(std) > 0):
            raise ValueError(f"Equals: std is {std}, expected a positive number")
        self.functional = functional
        self.value = jnp.atleast_1d(jnp.asarray(value, float))
        self.std = jnp.broadcast_to(jnp.asarray(std, float), self.value.shape)

    @property
    def _size(self):
        return len(self.value)

    def parts(self):
        seen, cov = jnp.ones(self._size, bool), DiagonalCovariance(self.std**2)
        operator = lambda x, t: self.constraint(x)
        event = GaussianEvent(operator, jnp.zeros(()), self.value, seen, cov)
        return Parts(self._size, [(0, event)], [{}])


class _Pair(AbstractRegion):
    """An event of two; the constraint is that of one after that of the other."""

    first: eqx.AbstractVar[AbstractEvent]
    second: eqx.AbstractVar[AbstractEvent]

    def constraint(self, x):
        return jnp.concatenate([self.first.constraint(x), self.second.constraint(x)])

    def _both_parts(self) -> tuple[Parts, Parts]:
        """Those of the second with the components that they have here."""
        a, b = (_parts(event) for event in (self.first, self.second))
        boxes = [{i + a.size: ends for i, ends in box.items()} for box in b.boxes]
        return a, Parts(a.size + b.size, [(i + a.size, e) for i, e in b.soft], boxes)


class Both(_Pair):
    """`first & second`."""

    first: AbstractEvent
    second: AbstractEvent

    def parts(self):
        a, b = self._both_parts()
        return Parts(b.size, a.soft + b.soft, [one | other for one in a.boxes for other in b.boxes])


class Either(_Pair):
    """`first | second`, of events without errors."""

    first: AbstractEvent
    second: AbstractEvent

    def parts(self):
        a, b = self._both_parts()
        _refuse_soft(a, b)
        rest = [one | other for one in _complement(a.boxes) for other in b.boxes]
        return Parts(b.size, [], a.boxes + rest)


class Not(AbstractRegion):
    """`~event`, of one without errors."""

    event: AbstractEvent

    def constraint(self, x):
        return self.event.constraint(x)

    def parts(self):
        found = _parts(self.event)
        _refuse_soft(found)
        return Parts(found.size, [], _complement(found.boxes))


def _parts(event: AbstractEvent) -> Parts:
    if isinstance(event, GaussianEvent):
        return Parts(len(event.value), [(0, event)], [{}])
    return event.parts()


def _refuse_soft(*parts: Parts):
    if any(p.soft for p in parts):
        raise TypeError(
            "an event with an error (an observation, Equals) has a density and not a "
            "probability: it can be joined by & alone; use Within for | and ~"
        )


def _cut(box: Box, i: int, low, high) -> Box:
    """The part of a box in which component i lies in [low, high)."""
    old_low, old_high = box.get(i, (None, None))
    if low is None or old_low is None:
        low = old_low if low is None else low
    else:
        low = jnp.maximum(low, old_low)
    if high is None or old_high is None:
        high = old_high if high is None else high
    else:
        high = jnp.minimum(high, old_high)
    return box | {i: (low, high)}


def _complement(boxes: list[Box]) -> list[Box]:
    """Disjoint boxes of all that is in none of `boxes`; some may be empty."""
    regions: list[Box] = [{}]
    for box in boxes:
        outside = []
        for region in regions:
            inside = region
            for i, (low, high) in box.items():
                if low is not None:
                    outside.append(_cut(inside, i, None, low))
                if high is not None:
                    outside.append(_cut(inside, i, high, None))
                inside = _cut(inside, i, low, high)
        regions = outside
    return regions


def _log_regions(c_mean, c_cov, size: int, boxes: list[Box]) -> Float[Array, ""]:
    """log P(c in one of the boxes), c ~ N(c_mean, c_cov) or certain."""
    if boxes == [{}]:
        return jnp.zeros((), c_mean.dtype)
    if not boxes:
        return jnp.full((), -jnp.inf, c_mean.dtype)
    low, high = _ends(size, boxes, c_mean.dtype)
    if c_cov is None:
        within = ((low <= c_mean) & (c_mean < high)).all(1)
        return jnp.where(within.any(), 0.0, -jnp.inf).astype(c_mean.dtype)
    each = jax.vmap(log_box, (None, None, 0, 0))(c_mean, c_cov, low, high)
    return jax.nn.logsumexp(each)


def _ends(size: int, boxes: list[Box], dtype):
    """Lower and upper ends of all boxes, `(box, size)` each."""

    def ends(which, infinite):
        return jnp.stack(
            [
                jnp.stack([infinite if e is None else e.astype(dtype) for e in row])
                for row in ([box.get(i, (None, None))[which] for i in range(size)] for box in boxes)
            ]
        )

    infinity = jnp.full((), jnp.inf, dtype)
    return ends(0, -infinity), ends(1, infinity)


def _given(event: GaussianEvent, own: slice, c_mean, c_cov):
    """The moments of the whole constraint once some of it was seen with an error."""
    s = c_cov[own, own] + event.cov.dense()
    # what is masked has a constant constraint, with which nothing covaries
    gain = solve_definite(s, c_cov[own]).T
    return c_mean + gain @ event.innovation(c_mean[own]), c_cov - gain @ c_cov[own]
