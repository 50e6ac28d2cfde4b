r"""Priors of trajectories: windows of states at equal intervals.

A window `(steps, *state)` is one vector whose noise is white over the steps, of each variable's
own variance; with a learned step the vector is that of the window's first state and the step's
errors (`dasim.priors.steps`). The prior may be told the window's first states: they are further
channels of its network, and whether they are known is one more (as Finzi et al. 2023, arXiv
2306.07526, sect. 3).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import DiagonalCovariance
from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.networks import MLP
from dasim.priors.steps import LearnedStep
from dasim.priors.unet import UNet, waves

UNKNOWN = "a window has no coordinates in a prior with a spin-up unless its first state is told"


class StateDenoiser(AbstractDenoiser):
    """The denoiser of a state in units of its own, by a perceptron; no condition."""

    network: MLP

    def mean(self, cond=None):
        return jnp.zeros_like(self.network.last.bias)

    def cov(self, cond=None):
        return DiagonalCovariance(jnp.ones_like(self.network.last.bias))

    def correction(self, v, sigma, cond=None):
        return self.network(v[None], waves(jnp.log(sigma)))


class WindowDenoiser(AbstractDenoiser):
    """The denoiser of a window, flat.

    Its condition is None, or the first states `(given, d)`; a further column, `(given, d + 1)`,
    tells of each whether it is known.

    Attributes:
        center, scale: mean and standard deviation of each variable, `(d,)`.
        network: F; fields are the noisy window, the first states, and which are known.
        steps: length of a window.
        given: how many first states it may be told.
        step: by which windows are coordinates; None for the states themselves.
        first: of the first state, of which all others follow; errors, which hardly tell of it,
            are left out, and its law is the draws'. With a step alone.
        spin_up: steps from the first state that is drawn to the window's own. A law on a thin
            attractor is learned to some width, and the steps, which contract it, take it back
            (as a model is spun up to its own climate). Windows have coordinates only where their
            first state is told, and that one is the window's own.
    """

    center: Float[Array, " d"]
    scale: Float[Array, " d"]
    network: UNet
    steps: int = eqx.field(static=True)
    given: int = eqx.field(static=True)
    step: LearnedStep | None = None
    first: StateDenoiser | None = None
    spin_up: int = eqx.field(static=True, default=0)

    def _rows(self, x: Float[Array, " n"]) -> Float[Array, "steps d"]:
        return x.reshape(-1, len(self.center))

    def encode(self, x, cond=None):
        if self.spin_up:
            if cond is None:
                raise ValueError(f"{UNKNOWN}; give cond")
            told = self.told(cond, x.dtype)[0, -1] > 0
            x = eqx.error_if(x, ~told, f"{UNKNOWN}; cond marks the first one as unknown")
        return x if self.step is None else self.step.encode(self._rows(x)).reshape(-1)

    def decode(self, c, cond=None):
        if self.step is None:
            return c
        c = self._rows(c)
        if self.spin_up:
            known = self.told(cond, c.dtype)[0, -1] > 0
            c = c.at[0].set(jnp.where(known, c[0], self.step.later(c[0], self.spin_up)))
        return self.step.decode(c).reshape(-1)

    def log_det(self, x):
        return super().log_det(x) if self.step is None else self.step.log_det(self._rows(x))

    def mean(self, cond=None):
        center = self.center if self.step is None else jnp.zeros_like(self.center)
        return jnp.tile(center, self.steps)

    def cov(self, cond=None):
        scale = self.scale if self.step is None else jnp.ones_like(self.scale)
        return DiagonalCovariance(jnp.tile(scale**2, self.steps))

    def told(self, cond, dtype) -> Float[Array, "steps d_plus_1"]:
        """The first states as channels, in white coordinates.

        Raises:
            ValueError: another number of states or variables than the prior was trained with.
        """
        d = len(self.center)
        channels = jnp.zeros((self.steps, d + 1), dtype)
        if cond is None:
            return channels
        cond = jnp.asarray(cond, dtype)
        if cond.shape not in ((self.given, d), (self.given, d + 1)):
            raise ValueError(
                f"the condition has shape {cond.shape}, expected the window's first "
                f"{self.given} states, {(self.given, d)}"
            )
        known = cond[:, d:] if cond.shape[1] > d else jnp.ones((self.given, 1), dtype)
        if self.step is None:
            first = (cond[:, :d] - self.center) / self.scale
        else:
            first = self.step.encode(cond[:, :d])
        return channels.at[: self.given].set(jnp.concatenate([first * known, known], 1))

    def correction(self, v, sigma, cond=None):
        told, v = self.told(cond, v.dtype), self._rows(v)
        # of a first state before the spin-up the errors know nothing
        seen = v.at[0].multiply(told[0, -1]) if self.spin_up else v
        out = self.network(jnp.concatenate([seen, told], 1), jnp.log(sigma))
        if self.first is not None:
            out = out.at[0].set(self.first.correction(v[0], sigma))
        # of what is known, the denoiser is exact: E[u | z] = u
        known = told[:, -1:] > 0
        exact = (told[:, :-1] * jnp.sqrt(1 + sigma**2) - v) / sigma
        return jnp.where(known, exact, out).reshape(-1)
