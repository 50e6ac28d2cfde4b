"""The model protocol, and one time step of an ordinary differential equation."""

import abc
import math
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from dasim.covariance import AbstractCovariance
from dasim.fields import Grid
from dasim.types import Key, State


class AbstractModel(eqx.Module):
    """A discrete-time dynamical system.

    `linear`, `start`, `spin_up`, `angles`, `coords`, `period` and `grid` have defaults, which a
    model with a geometry or a scale of its own replaces.

    Attributes:
        dt: length of one step, in model time units.
        shape: shape of a state.
    """

    dt: eqx.AbstractVar[float]
    shape: eqx.AbstractVar[tuple[int, ...]]

    @abc.abstractmethod
    def step(self, x: State, t: Float[Array, ""], key: Key | None) -> State:
        """The state at t + dt given x at t; with `key` None, its mean given x."""

    @abc.abstractmethod
    def step_cov(self, x: State, t: Float[Array, ""]) -> AbstractCovariance | None:
        """Covariance of `step` given x, on flat states; None for a deterministic model."""

    @property
    def linear(self) -> bool:
        """Whether `step` is linear in x with the same law of its noise for all x."""
        return False

    def start(self, key: Key) -> State:
        """A random state from which the climate is reached: independent standard normals."""
        return jax.random.normal(key, self.shape)

    @property
    def spin_up(self) -> float:
        """Time after which a state from `start` is in the climate."""
        return 40.0

    @property
    def angles(self) -> tuple[int, ...]:
        """Variables of the flat state that are angles, in radians; none by default."""
        return ()

    @property
    def coords(self) -> np.ndarray:
        """Coordinates of the flat state's variables in grid points, `(n, d)`: their indices."""
        return np.arange(math.prod(self.shape), dtype=float)[:, None]

    @property
    def period(self) -> tuple[float, ...] | None:
        """Length of each axis of `coords`, which closes on itself; None where none does."""
        return None

    @property
    def grid(self) -> Grid | None:
        """Where the state is, if it is a field on a grid of a box; None for other states."""
        return None


Tendency = Callable[[Float[Array, ""], State], State]


def integrate(
    tendency: Tendency, x: State, t, dt, solver: diffrax.AbstractSolver | None = None
) -> State:
    """One step of length `dt` of dx/dt = tendency(t, x).

    The default is the classical fourth-order Runge-Kutta scheme; any diffrax solver of
    ordinary differential equations can take its place.
    """
    if solver is not None:
        term = diffrax.ODETerm(lambda t, y, args: tendency(t, y))
        state = solver.init(term, t, t + dt, x, None)
        return solver.step(term, t, t + dt, x, None, state, made_jump=False)[0]
    k1 = tendency(t, x)
    k2 = tendency(t + dt / 2, x + dt / 2 * k1)
    k3 = tendency(t + dt / 2, x + dt / 2 * k2)
    k4 = tendency(t + dt, x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def check_dt(dt: float) -> float:
    """A step as a float; refused if not positive."""
    if not dt > 0:
        raise ValueError(f"dt is {dt}, expected a positive step")
    return float(dt)
