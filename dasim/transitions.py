r"""Transitions p(x_{k+1} | x_k): a numerical model, or a diffusion model learned from data."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import AbstractCovariance, DenseCovariance, as_covariance
from dasim.models.base import AbstractModel
from dasim.observe import Observation
from dasim.priors.denoisers import AbstractDenoiser, GaussianDenoiser
from dasim.priors.sampler import DEFAULT_STEPS, flow
from dasim.priors.schedules import AbstractSchedule, VESchedule
from dasim.types import Key, Observations, State


class AbstractTransition(eqx.Module):
    """The law of the next state given this one.

    Attributes:
        interval: time from one state to the next.
        shape: shape of a state.
    """

    interval: eqx.AbstractVar[float]
    shape: eqx.AbstractVar[tuple[int, ...]]

    @property
    @abc.abstractmethod
    def noise_size(self) -> int:
        """How many standard normal numbers decide a draw; zero where x' is a function of x."""

    @property
    def calls(self) -> int:
        """Evaluations of the model or the network that a draw takes; the model's run is one."""
        return 1

    @abc.abstractmethod
    def driven(self, x: State, t: Float[Array, ""], noise: Float[Array, " noise"]) -> State:
        """The state at t + interval given x at t that belongs to `noise`; differentiable."""

    def outline(self, x: State, t: Float[Array, ""], noise: Float[Array, " noise"]) -> State:
        """A stand-in for `driven` that costs less, for derivatives."""
        return self.driven(x, t, noise)

    def sample(self, x: State, t: Float[Array, ""], key: Key) -> State:
        """A draw of the state at t + interval given x at t."""
        return self.driven(x, t, jax.random.normal(key, (self.noise_size,), x.dtype))

    @abc.abstractmethod
    def mean(self, x: State, t: Float[Array, ""]) -> State:
        """E[x' | x]."""

    @abc.abstractmethod
    def residual_cov(self, x: State, t: Float[Array, ""]) -> AbstractCovariance | None:
        """Cov[x' | x] on flat states; None where x' is a function of x."""

    @property
    @abc.abstractmethod
    def linear(self) -> bool:
        """Whether the mean is a linear function of x, and the residual's law the same for all x."""

    @abc.abstractmethod
    def prior(self, x: State, t: Float[Array, ""]) -> tuple[AbstractDenoiser, Array | None] | None:
        """p(x' | x) as a denoiser of the flat x' and its condition; None where x' is certain."""


class ModelTransition(AbstractTransition):
    """`n_steps` steps of a numerical model, each with additive noise of covariance `noise`.

    With several noisy steps of a nonlinear model, `residual_cov` propagates the noise along
    the mean trajectory with the model's Jacobian; for one step or a linear model it is exact.
    """

    model: AbstractModel
    n_steps: int = eqx.field(static=True)
    noise: AbstractCovariance | None

    def __init__(self, model: AbstractModel, n_steps: int = 1, noise=None):
        """Chain `n_steps` steps.

        Args:
            noise: covariance of the noise added after each step: a matrix, or standard
                deviations (a scalar or one a variable); None for the model's own alone.

        Raises:
            ValueError: n_steps below 1, or a noise that does not fit the state.
        """
        if n_steps < 1 or int(n_steps) != n_steps:
            raise ValueError(f"n_steps is {n_steps}, expected a whole number of at least 1")
        self.model = model
        self.n_steps = int(n_steps)
        self.noise = (
            None if noise is None else as_covariance(noise, math.prod(model.shape), "noise")
        )

    @property
    def interval(self):
        return self.n_steps * self.model.dt

    @property
    def shape(self):
        return self.model.shape

    def _scan(self, x, t, key):
        def step(x, i):
            now = t + i * self.model.dt
            if key is None:
                return self.model.step(x, now, None), None
            own, added = jax.random.split(jax.random.fold_in(key, i))
            x = self.model.step(x, now, own)
            if self.noise is not None:
                draw = self.noise.sqrt(jax.random.normal(added, (x.size,), x.dtype))
                x = x + draw.reshape(x.shape)
            return x, None

        return jax.lax.scan(step, x, jnp.arange(self.n_steps))[0]

    def sample(self, x, t, key):
        return self._scan(x, t, key)

    def mean(self, x, t):
        return self._scan(x, t, None)

    def residual_cov(self, x, t):
        cov, shape = None, x.shape
        for i in range(self.n_steps):
            now = t + i * self.model.dt
            parts = self._noises(x, now)
            if not parts:
                return None
            added = parts[0] if len(parts) == 1 else None
            if cov is None and added is not None:
                cov = added
            else:
                matrix = sum(c.dense() for c in parts)
                if cov is not None:

                    def flat_step(v, now=now):
                        return self.model.step(v.reshape(shape), now, None).reshape(-1)

                    tangent = jax.jacfwd(flat_step)(x.reshape(-1))
                    matrix = matrix + tangent @ cov.dense() @ tangent.T
                cov = DenseCovariance.from_matrix(matrix)
            x = self.model.step(x, now, None)
        return cov

    @property
    def linear(self):
        return self.model.linear

    def _noises(self, x, t) -> list[AbstractCovariance]:
        """Covariances of what a step from x at t adds: the model's own and this transition's."""
        return [c for c in (self.model.step_cov(x, t), self.noise) if c is not None]

    @property
    def noise_size(self):
        parts = self._noises(jnp.zeros(self.shape), jnp.zeros(()))
        return self.n_steps * len(parts) * math.prod(self.shape)

    def driven(self, x, t, noise):
        if not noise.size:
            return self.mean(x, t)

        def step(x, item):
            i, noises = item
            now = t + i * self.model.dt
            parts = self._noises(x, now)
            x = self.model.step(x, now, None)
            added = sum(c.sqrt(e) for c, e in zip(parts, noises, strict=True))
            return x + added.reshape(x.shape).astype(x.dtype), None

        noises = noise.reshape(self.n_steps, -1, math.prod(self.shape))
        return jax.lax.scan(step, x, (jnp.arange(self.n_steps), noises))[0]

    def prior(self, x, t):
        cov = self.residual_cov(x, t)
        if cov is None:
            return None
        return GaussianDenoiser(self.mean(x, t).reshape(-1), cov), None


class DiffusionTransition(AbstractTransition):
    """A denoiser of x' whose condition is x and, optionally, the phase of known cycles.

    Attributes:
        denoiser: E[x' | z, cond]; cond is the flat x followed by sin and cos of 2 pi t / period
            for each of `periods`.
        interval: time from x to x'.
        shape: shape of a state.
        periods: lengths of the cycles that the prior knows, in units of time.
        schedule: noise levels of the sampler.
        n_steps: network calls a sample.
    """

    denoiser: AbstractDenoiser
    interval: float = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    periods: tuple[float, ...] = eqx.field(static=True, default=())
    schedule: AbstractSchedule = VESchedule()
    n_steps: int = eqx.field(static=True, default=DEFAULT_STEPS)

    def condition(self, x, t) -> Float[Array, " k"]:
        """The denoiser's condition for x at time t."""
        return jnp.concatenate([x.reshape(-1), phases(t, self.periods).astype(x.dtype)])

    @property
    def noise_size(self):
        return math.prod(self.shape)

    @property
    def calls(self):
        return 1 + self.n_steps

    def driven(self, x, t, noise):
        cond = self.condition(x, t)
        return flow(self.denoiser, self.schedule, cond, noise, self.n_steps).reshape(x.shape)

    def outline(self, x, t, noise):
        cond = self.condition(x, t)
        draw = self.denoiser.mean(cond) + self.denoiser.cov(cond).sqrt(noise)
        return draw.reshape(x.shape)

    def mean(self, x, t):
        return self.denoiser.mean(self.condition(x, t)).reshape(x.shape)

    def residual_cov(self, x, t):
        return self.denoiser.cov(self.condition(x, t))

    @property
    def linear(self):
        return isinstance(self.denoiser, GaussianDenoiser)

    def prior(self, x, t):
        return self.denoiser, self.condition(x, t)


def phases(t, periods: tuple[float, ...]) -> Float[Array, "... two_p"]:
    """sin and cos of 2 pi t / period for each period, along a last axis."""
    angles = 2 * jnp.pi * jnp.asarray(t)[..., None] / jnp.asarray(periods, float)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def simulate(
    transition: AbstractTransition, observation: Observation, x0: State, n_cycles: int, key: Key
) -> tuple[Float[Array, "cycle *state"], Observations]:
    """A true trajectory and its synthetic observations.

    The state starts at `x0` at time 0; cycle k is at time (k + 1) `transition.interval`.

    Args:
        x0: `(*state)`.
        n_cycles: number of cycles, at least 1.

    Returns:
        The truth at the cycles, `(cycle, *state)`, and the observations of it.
    """
    if n_cycles < 1:
        raise ValueError(f"n_cycles is {n_cycles}, expected at least 1")

    def step(x, k):
        dynamics, noise = jax.random.split(jax.random.fold_in(key, k))
        t = k * transition.interval
        x = transition.sample(x, t, dynamics)
        time = t + transition.interval
        return x, (x, time, observation.sample(x, time, noise))

    @eqx.filter_jit
    def run(x0):
        return jax.lax.scan(step, x0, jnp.arange(n_cycles))[1]

    truth, time, value = run(jnp.asarray(x0))
    return truth, Observations(time, value, jnp.ones(value.shape, bool))
