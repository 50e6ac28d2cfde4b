r"""Priors of trajectories: windows of states at equal intervals.

A window `(steps, *state)` is one vector whose noise is white over the steps, of each variable's
own variance. The prior may be told the window's first states: they are further channels of its
network, and whether they are known is one more (as Finzi et al. 2023, arXiv 2306.07526, sect. 3).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import DiagonalCovariance
from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.unet import UNet


class Autoguidance(eqx.Module):
    r"""A weaker network of the same windows, away from which the denoiser's own is moved.

    A network that does not see all that a noisy window tells of its source answers with a mean
    over too many windows, and draws lose what is rare. A weaker one errs the same way, and more:
    with F and F_weaker the two (Karras et al. 2024, arXiv 2406.02507, eq. 3), the denoiser uses

        F + w(s) (F - F_weaker),   w(s) = strength / ((1 + (low / s)^4) (1 + (s / high)^4)),

    at the levels between `low` and `high` (Kynkaanniemi et al. 2024, arXiv 2404.07724). Where both
    are exact it changes nothing.

    Attributes:
        network: F_weaker.
        strength, low, high: of w.
    """

    network: UNet
    strength: float = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def weight(self, sigma):
        """w(s)."""
        return self.strength / ((1 + (self.low / sigma) ** 4) * (1 + (sigma / self.high) ** 4))


class WindowDenoiser(AbstractDenoiser):
    """The denoiser of a window, flat.

    Its condition is None, or the first states `(given, d)`; a further column, `(given, d + 1)`,
    tells of each whether it is known.

    Attributes:
        center, scale: mean and standard deviation of each variable, `(d,)`.
        network: F; fields are the noisy window, the first states, and which are known.
        steps: length of a window.
        given: how many first states it may be told.
        autoguidance: a weaker network; None for the network alone.
    """

    center: Float[Array, " d"]
    scale: Float[Array, " d"]
    network: UNet
    steps: int = eqx.field(static=True)
    given: int = eqx.field(static=True)
    autoguidance: Autoguidance | None = None

    def mean(self, cond=None):
        return jnp.tile(self.center, self.steps)

    def cov(self, cond=None):
        return DiagonalCovariance(jnp.tile(self.scale**2, self.steps))

    def told(self, cond, dtype) -> Float[Array, "steps d_plus_1"]:
        """The first states as channels.

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
        first = (cond[:, :d] - self.center) / self.scale * known
        return channels.at[: self.given].set(jnp.concatenate([first, known], 1))

    def correction(self, v, sigma, cond=None):
        told = self.told(cond, v.dtype)
        fields = jnp.concatenate([v.reshape(self.steps, -1), told], 1)
        out, guide = self.network(fields, jnp.log(sigma)), self.autoguidance
        if guide is not None:
            weaker = guide.network(fields, jnp.log(sigma))
            out = out + guide.weight(sigma) * (out - weaker)
        return out.reshape(-1)
