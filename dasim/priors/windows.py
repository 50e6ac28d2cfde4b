r"""Priors of trajectories: windows of states at equal intervals.

A window `(steps, *state)` is one vector whose noise is white over the steps, of each variable's
own variance. The prior may be told the window's first states: they are further channels of its
network, and whether they are known is one more (as Finzi et al. 2023, arXiv 2306.07526, sect. 3).

Windows hang together in time, so that a few directions hold most of their variance, and at high
noise all that can be seen of them. Along these the denoiser is that of the normal law with the
windows' covariance and a perceptron of all of them at once; a U-Net over the steps sees the rest.
In a direction of variance l (of windows in units of their scale) the normal law has

    D = l / (l + s^2) u,    hence    F = s (l - 1) / (l + s^2) v.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import DiagonalCovariance
from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.networks import zero_layer
from dasim.priors.unet import LEVELS, UNet, embedded_level
from dasim.types import Key


class LeadingPart(eqx.Module):
    """F along the directions in which windows vary most, and that of a normal law in all others.

    Attributes:
        directions: orthonormal, of windows in units of their scale, `(r, n)`.
        variances: along them, `(r,)`.
        rest: mean variance in all others.
        network: what the law along the directions has that a normal one has not.
    """

    directions: Float[Array, "r n"]
    variances: Float[Array, " r"]
    rest: Float[Array, ""]
    network: eqx.nn.MLP

    def __init__(self, rank: int, size: int, width: int, depth: int, key: Key):
        self.directions = jnp.eye(rank, size)
        self.variances, self.rest = jnp.ones(rank), jnp.ones(())
        inputs = rank + 2 * LEVELS
        network = eqx.nn.MLP(inputs, rank, width, depth, jax.nn.silu, key=key)
        self.network = eqx.tree_at(lambda n: n.layers[-1], network, zero_layer(network.layers[-1]))

    def of_windows(self, u: Float[Array, "window n"]) -> "LeadingPart":
        """With the directions and variances of centred windows in units of their scale."""
        rank = len(self.variances)
        variances, directions = jnp.linalg.eigh(u.T @ u / len(u))
        rest = jnp.maximum(variances[:-rank].mean(), 1e-6)
        found = directions[:, -rank:].T, jnp.maximum(variances[-rank:], rest), rest
        return eqx.tree_at(lambda p: (p.directions, p.variances, p.rest), self, found)

    def __call__(self, v: Float[Array, " n"], sigma) -> Float[Array, " n"]:
        def gain(variance):
            return sigma * (variance - 1) / (variance + sigma**2)

        along, ratio = self.directions @ v, (1 + sigma**2) / (self.variances + sigma**2)
        seen = jnp.concatenate([along * jnp.sqrt(ratio), embedded_level(jnp.log(sigma))])
        # the deviation that is left in each direction, where there is noise enough to hide it
        width = sigma**2 / (1 + sigma**2) * jnp.sqrt(self.variances * ratio)
        found = (gain(self.variances) - gain(self.rest)) * along + width * self.network(seen)
        return gain(self.rest) * v + found @ self.directions


class WindowDenoiser(AbstractDenoiser):
    """The denoiser of a window, flat.

    Its condition is None, or the first states `(given, d)`; a further column, `(given, d + 1)`,
    tells of each whether it is known.

    Attributes:
        center, scale: mean and standard deviation of each variable, `(d,)`.
        leading: F along the leading directions of a window of which nothing is told; None for zero.
        network: the rest of F; fields are the noisy window, the first states, and which are known.
            None while the leading part is fitted.
        steps: length of a window.
        given: how many first states it may be told.
    """

    center: Float[Array, " d"]
    scale: Float[Array, " d"]
    leading: LeadingPart | None
    network: UNet | None
    steps: int = eqx.field(static=True)
    given: int = eqx.field(static=True)

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
        told, found = self.told(cond, v.dtype), jnp.zeros_like(v)
        if self.leading is not None:
            found = (1 - told[0, -1]) * self.leading(v, sigma)
        if self.network is None:
            return found
        fields = jnp.concatenate([v.reshape(self.steps, -1), told], 1)
        return found + self.network(fields, jnp.log(sigma)).reshape(-1)
