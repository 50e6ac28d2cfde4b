r"""Posterior sampling of a diffusion prior as others do it: peers of stage two.

Each method corrects the denoiser D(z, s) = xhat by the gradient through it of a misfit of the
event y = h(x) + N(0, R), with r = y - h(xhat), A = dh/dx at xhat, and V a stand-in for Cov[x | z]:

    xhat_y = xhat + s^2 (d xhat / dz)^T A^T (R + A V A^T)^-1 r

* `PiGDM` (Song et al. 2023, ICLR, "Pseudoinverse-guided diffusion models for inverse problems"):
  V = s^2 / (1 + s^2), isotropic.
* `MMPS` (Rozet et al. 2024, arXiv 2405.13712): V = s^2 d xhat / dz, Tweedie's
  covariance, by products with it in conjugate gradients.
* `DPS` (Chung et al. 2023, arXiv 2209.14687) leaves the denoiser as it is and after each
  step goes against the gradient of the misfit's length by a set `strength`.

All work in the prior's whitened coordinates, in which its noise is white, and their draws come
from the second-order multistep solver of Lu et al. (2022, arXiv 2211.01095, alg. 2). A filter with
them guides each member's own forecast: the ancestors are not smoothed.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import inflate
from dasim.events import GaussianEvent
from dasim.filters.base import AbstractFilter, check_ensemble, describe, gaussian_event, propagate
from dasim.filters.inflation import check_factor
from dasim.priors.schedules import VESchedule
from dasim.types import Key, State

SCHEDULE = VESchedule()
Point = Float[Array, " n"]
Denoise = Callable[[Point], Point]
Misfit = Callable[[Point], Float[Array, " obs"]]


class AbstractGuidance(eqx.Module):
    """How an event bends the sampler of a prior, in coordinates in which its noise is white."""

    @abc.abstractmethod
    def correct(self, denoise: Denoise, misfit: Misfit, z: Point, s) -> tuple[Point, Point]:
        """xhat_y, and what is added to z / sqrt(1 + s^2) after a step from level s.

        Args:
            denoise: the denoiser at level s.
            misfit: the whitened misfit R^(-1/2) (y - h(x)).
        """

    @property
    @abc.abstractmethod
    def calls(self) -> int:
        """Network evaluations a step, a derivative's product as two."""


class _Projected(AbstractGuidance):
    """Guidance with a stand-in for the posterior covariance."""

    iterations: eqx.AbstractVar[int]

    @abc.abstractmethod
    def _cov(self, push: Denoise, v: Point, s) -> Point:
        """V v, with `push` the product with d xhat / dz."""

    def correct(self, denoise, misfit, z, s):
        xhat, push = jax.linearize(denoise, z)
        back = jax.linear_transpose(push, z)
        rest, change = jax.linearize(misfit, xhat)  # change is -R^(-1/2) A
        change_back = jax.linear_transpose(change, xhat)

        def product(d):
            return d + change(self._cov(push, change_back(d)[0], s))

        white, _ = jax.scipy.sparse.linalg.cg(product, rest, maxiter=self.iterations)
        return xhat - s**2 * back(change_back(white)[0])[0], jnp.zeros_like(z)


class PiGDM(_Projected):
    """Pseudoinverse guidance: an isotropic posterior covariance.

    Attributes:
        iterations: conjugate gradient steps.
    """

    iterations: int = eqx.field(static=True, default=8)

    def _cov(self, push, v, s):
        return s**2 / (1 + s**2) * v

    @property
    def calls(self):
        return 1 + 2


class MMPS(_Projected):
    """Moment matching posterior sampling: Tweedie's covariance by conjugate gradients.

    Attributes:
        iterations: conjugate gradient steps, each a product with the network's Jacobian.
    """

    iterations: int = eqx.field(static=True, default=3)

    def _cov(self, push, v, s):
        return s**2 * push(v)

    @property
    def calls(self):
        # the residual of the first guess costs one product as well
        return 1 + 2 + 2 * (self.iterations + 1)


class DPS(AbstractGuidance):
    """Diffusion posterior sampling: no covariance, a set strength.

    Attributes:
        strength: length of a step, over that of the gradient of |R^(-1/2) (y - h(xhat))|.
    """

    strength: float = 1.0

    def correct(self, denoise, misfit, z, s):
        xhat, back = jax.vjp(denoise, z)
        rest, misfit_back = jax.vjp(misfit, xhat)
        length = jnp.maximum(jnp.sqrt(jnp.sum(rest**2)), 1e-12)
        gradient = back(misfit_back(rest / length)[0])[0]
        # the chain rule from z to z / sqrt(1 + s^2)
        return xhat, -self.strength * jnp.sqrt(1 + s**2) * gradient

    @property
    def calls(self):
        return 1 + 2


def guided_draw(
    transition,
    x: State,
    t,
    event: GaussianEvent,
    guidance: AbstractGuidance,
    levels: Float[Array, " level"],
    key: Key,
) -> State:
    """A draw of p(x' | x, y) under `guidance`, `levels` decreasing to zero.

    Raises:
        ValueError: the transition is deterministic.
    """
    prior = transition.prior(x, t)
    if prior is None:
        raise ValueError(
            "guidance bends the law of the next state given this one, and this transition is "
            "deterministic; give it noise or take a learned prior"
        )
    denoiser, cond = prior
    mean, cov = denoiser.mean(cond), denoiser.cov(cond)

    def denoise(z, s):
        v = z / jnp.sqrt(1 + s**2)
        return (v + s * denoiser.correction(v, s, cond)) / jnp.sqrt(1 + s**2)

    def misfit(w):
        state = (mean + cov.sqrt(w)).reshape(x.shape)
        return event.cov.whiten(event.innovation(event.constraint(state)))

    def step(carry, pair):
        z, last, last_change = carry
        s, after = pair
        xhat, pull = guidance.correct(lambda z: denoise(z, s), misfit, z, s)
        change = jnp.log(s / jnp.maximum(after, 1e-30))
        ahead = xhat + jnp.where(after > 0, 0.5 * change / last_change, 0.0) * (xhat - last)
        z = after / s * z + (1 - after / s) * ahead + jnp.sqrt(1 + after**2) * pull
        return (z, xhat, change), None

    levels = levels.astype(mean.dtype)
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    first = jnp.sqrt(1 + levels[0] ** 2) * noise
    start = (first, jnp.zeros_like(mean), jnp.asarray(jnp.inf, mean.dtype))
    z = jax.lax.scan(step, start, (levels[:-1], levels[1:]))[0][0]
    return (mean + cov.sqrt(z)).reshape(x.shape)


class GuidedForecast(AbstractFilter):
    """Each member's forecast drawn from its own p(x' | x, y), ancestors as they are.

    Attributes:
        guidance: `DPS`, `PiGDM` or `MMPS`.
        inflation: factor on the anomalies of the ancestors.
        n_steps: noise levels.
    """

    guidance: AbstractGuidance
    inflation: Float[Array, ""] = eqx.field(default=1.0, converter=check_factor)
    n_steps: int = eqx.field(static=True, default=16)

    def __check_init__(self):
        if self.n_steps < 1:
            raise ValueError(f"n_steps is {self.n_steps}, expected at least 1")

    def init(self, ensemble, key):
        return check_ensemble(ensemble)

    def step(self, transition, observation, state, obs, key):
        forecast_key, draw_key = jax.random.split(key)
        t, event = obs.time - transition.interval, gaussian_event(observation, obs)
        ancestors = inflate(state, jnp.asarray(self.inflation, state.dtype))
        forecast = propagate(transition, ancestors, t, forecast_key)
        levels = SCHEDULE.levels(self.n_steps)
        drawn = jax.vmap(
            lambda x, k: guided_draw(transition, x, t, event, self.guidance, levels, k)
        )(ancestors, jax.random.split(draw_key, len(state)))
        analysis = jnp.where(obs.mask.any(), drawn, forecast)
        return analysis, describe(event, forecast, analysis, obs)

    def count(self, transition) -> int:
        """Evaluations of the network a member and cycle, a derivative's product as two."""
        return transition.calls + 1 + self.n_steps * self.guidance.calls
