r"""The approximate conditional score of an event, and stand-ins for it.

In coordinates u in which the prior's noise is white, z = u + s e, with the denoiser xhat(z) =
E[u | z], a constraint c and the event E, the score of z given E has the term (Finzi et al. 2023,
arXiv 2306.07526, sect. 4)

    grad_z log P(E | c ~ N(c(xhat), S)),      S = J Cov[u | z] J^T,   Cov[u | z] = s^2 dxhat/dz,

with J = dc/du at xhat: Tweedie's formulas. The rows of J dxhat/dz are the gradients of c(xhat(z)),
so S costs no more than the score itself, and the matrix dxhat/dz is never formed. The conditional
denoiser is xhat + s^2 times that term.

Noise levels are angles a = arctan(s), and a point is carried as v = z / sqrt(1 + s^2).
"""

import abc
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import solve_definite
from dasim.events.base import AbstractEvent
from dasim.priors.sampler import departure
from dasim.types import Key

Point = Float[Array, " n"]
FLOOR = 1e-2  # least variance of a constraint, as a share of what a Gaussian prior would leave it


class Target(eqx.Module):
    """A prior and an event in the prior's white coordinates.

    Attributes:
        prior: anything with the attributes of a `DiffusionPrior`.
        event: of its draws; None where the prior alone is asked.
        cond: the prior's condition.
    """

    prior: eqx.Module
    event: AbstractEvent | None = None
    cond: Array | None = None

    @property
    def size(self) -> int:
        return self.prior.denoiser.cov(self.cond).size

    @property
    def dtype(self):
        return self.prior.denoiser.mean(self.cond).dtype

    def state(self, u: Point) -> Float[Array, "..."]:
        """The draw at u, in the prior's shape."""
        denoiser = self.prior.denoiser
        c = denoiser.mean(self.cond) + denoiser.cov(self.cond).sqrt(u)
        return denoiser.decode(c, self.cond).reshape(self.prior.shape)

    def white(self, x: Float[Array, "..."]) -> Point:
        """u of a draw."""
        denoiser = self.prior.denoiser
        c = denoiser.encode(x.reshape(-1), self.cond) - denoiser.mean(self.cond)
        return denoiser.cov(self.cond).whiten(c)

    def constraint(self, u: Point) -> Float[Array, " k"]:
        """c."""
        return self.event.constraint(self.state(u))

    def correction(self, v: Point, angle) -> Point:
        """F: the network's."""
        return self.prior.denoiser.correction(v, jnp.tan(angle), self.cond)

    def denoised(self, v: Point, angle) -> Point:
        """xhat."""
        return jnp.cos(angle) * v + jnp.sin(angle) * self.correction(v, angle)


class Guided(NamedTuple):
    """What a guidance makes of a point.

    Attributes:
        xhat: the prior's denoiser.
        log_psi: log P(E) as seen from the point.
        shift: what the event adds to xhat.
    """

    xhat: Point
    log_psi: Float[Array, ""]
    shift: Point


class AbstractGuidance(eqx.Module):
    """How an event is seen from a noisy point."""

    @abc.abstractmethod
    def __call__(self, target: Target, v: Point, angle) -> Guided:
        """What is made of the point v at the angle."""

    def calls(self, constraints: int) -> int:
        """Network evaluations a point, a derivative's product as two."""
        return 1 + 2 * constraints


class MomentGuidance(AbstractGuidance):
    """The approximate conditional score.

    Attributes:
        differentiate_variance: whether the gradient goes through S as well; takes second
            derivatives of the network.
    """

    differentiate_variance: bool = eqx.field(static=True, default=False)

    def __call__(self, target, v, angle):
        scale = jnp.sin(angle) * jnp.tan(angle)  # s^2 dv/dz

        def seen(v):
            xhat, back = jax.vjp(lambda v: target.denoised(v, angle), v)
            c, constraint_back = jax.vjp(target.constraint, xhat)
            jac = jax.vmap(lambda row: constraint_back(row)[0])(jnp.eye(len(c), dtype=c.dtype))
            slopes = jax.vmap(lambda row: back(row)[0])(jac)
            cov = scale * slopes @ jac.T
            least = FLOOR * jnp.sin(angle) ** 2 * jnp.sum(jac**2, 1)
            lifted = jnp.maximum(jnp.diag(cov), least + jnp.finfo(c.dtype).tiny)
            cov = 0.5 * (cov + cov.T)
            return xhat, c, slopes, cov + jnp.diag(lifted - jnp.diag(cov))

        if self.differentiate_variance:

            def log_psi(v):
                xhat, c, _, cov = seen(v)
                return target.event.log_prob(c, cov), xhat

            (value, xhat), gradient = jax.value_and_grad(log_psi, has_aux=True)(v)
            return Guided(xhat, value, scale * gradient)
        xhat, c, slopes, cov = seen(v)
        value, slope = jax.value_and_grad(lambda c: target.event.log_prob(c, cov))(c)
        return Guided(xhat, value, scale * slope @ slopes)

    def calls(self, constraints):
        one = 1 + 2 * constraints
        return 3 * one if self.differentiate_variance else one


class CalibratedGuidance(AbstractGuidance):
    """Moments of the constraint by regression over draws of the prior, at each noise level.

    Where a constraint bends, c(xhat) is no estimate of c: a square of a mean that is zero by
    symmetry, a maximum of means. Of draws u of the prior and their noisy z, c(u) is regressed on
    c(xhat(z)); what is left is the variance S. Made by `calibrated`.

    Attributes:
        angles: noise levels, increasing.
        offset, gain: of the regression, `(level, k)` and `(level, k, k)`.
        cov: S, `(level, k, k)`.
    """

    angles: Float[Array, " level"]
    offset: Float[Array, "level k"]
    gain: Float[Array, "level k k"]
    cov: Float[Array, "level k k"]

    def __call__(self, target, v, angle):
        offset, gain, cov = (self._at(a, angle) for a in (self.offset, self.gain, self.cov))

        def log_psi(v):
            xhat = target.denoised(v, angle)
            return target.event.log_prob(offset + gain @ target.constraint(xhat), cov), xhat

        (value, xhat), gradient = jax.value_and_grad(log_psi, has_aux=True)(v)
        return Guided(xhat, value, jnp.sin(angle) * jnp.tan(angle) * gradient)

    def _at(self, table, angle):
        flat = table.reshape(len(table), -1).T
        found = jax.vmap(lambda row: jnp.interp(angle, self.angles, row))(flat)
        return found.reshape(table.shape[1:])

    def calls(self, constraints):
        return 3


def calibrated(target: Target, levels: int, key: Key, count: int = 512) -> CalibratedGuidance:
    """The regression of a constraint on what is seen of it, over `count` draws of the prior."""
    prior, denoiser = target.prior, target.prior.denoiser
    angles = jnp.arctan(prior.schedule.levels(levels)[:-1].astype(target.dtype))[::-1]
    draw_key, noise_key = jax.random.split(key)

    noise = jax.random.normal(draw_key, (count, target.size), target.dtype)
    whiten = denoiser.cov(target.cond).whiten

    def drawn(e):
        return whiten(departure(denoiser, prior.schedule, target.cond, e, prior.n_steps))

    u = jax.lax.map(drawn, noise, batch_size=128)
    c = jax.vmap(target.constraint)(u)
    spread = jnp.diag(jnp.var(c, 0) + jnp.finfo(c.dtype).tiny)

    def level(item):
        angle, key = item
        noise = jax.random.normal(key, u.shape, u.dtype)
        v = jnp.cos(angle) * u + jnp.sin(angle) * noise
        seen = jax.vmap(lambda v: target.constraint(target.denoised(v, angle)))(v)
        a, b = seen - seen.mean(0), c - c.mean(0)
        gain = solve_definite(a.T @ a / count + 1e-6 * spread, a.T @ b / count).T
        rest = b - a @ gain.T
        cov = rest.T @ rest / count + 1e-5 * spread
        return c.mean(0) - gain @ seen.mean(0), gain, cov

    keys = jax.random.split(noise_key, levels)
    return CalibratedGuidance(angles, *jax.lax.map(level, (angles, keys)))


class ConstantGuidance(AbstractGuidance):
    """Guidance of constant strength: c ~ N(c(xhat), width^2) at every noise level.

    What is usual where the moments are not known; it leaves the event's bounds as soft at the
    end as they were at the beginning.

    Attributes:
        width: standard deviation of each constraint, in its own unit.
    """

    width: Float[Array, ""] | float

    def __call__(self, target, v, angle):
        def log_psi(v):
            xhat = target.denoised(v, angle)
            c = target.constraint(xhat)
            cov = jnp.eye(len(c), dtype=c.dtype) * self.width**2
            return target.event.log_prob(c, cov), xhat

        (value, xhat), gradient = jax.value_and_grad(log_psi, has_aux=True)(v)
        return Guided(xhat, value, jnp.sin(angle) * jnp.tan(angle) * gradient)

    def calls(self, constraints):
        return 3
