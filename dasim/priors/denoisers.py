r"""Denoisers: D(z, s, cond) = E[x | z, cond] for z = x + s C^(1/2) noise.

The noise has a covariance C of the prior's own scale, so that s is relative and the closed
form of a Gaussian prior N(m, C) needs no inverse:

    D(z, s) = m + (z - m) / (1 + s^2),        Cov[x | z] = s^2 / (1 + s^2) C.

A trained denoiser corrects this by a network F in the preconditioning of Karras et al. (2022,
arXiv 2206.00364, table 1) with sigma_data = 1. In coordinates u = C^(-1/2) (z - m):

    D = m + C^(1/2) [ u / (1 + s^2) + s / sqrt(1 + s^2) F(u / sqrt(1 + s^2), log(s) / 4, cond) ].

With m and C the mean and covariance of the next state given this one, F is left to learn only
what is not Gaussian.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import AbstractCovariance, DenseCovariance
from dasim.priors.networks import AbstractNetwork


class AbstractDenoiser(eqx.Module):
    """E[x | z, cond] on flat states: a mean, a covariance, and what departs from the Gaussian.

    One whose law is simpler in other coordinates denoises those: x is then `encode` of the state.
    """

    @abc.abstractmethod
    def mean(self, cond) -> Float[Array, " n"]:
        """m(cond)."""

    @abc.abstractmethod
    def cov(self, cond) -> AbstractCovariance:
        """C(cond): the covariance of the noise, and of x given cond."""

    @abc.abstractmethod
    def correction(self, v: Float[Array, " n"], sigma, cond) -> Float[Array, " n"]:
        """F at v = C^(-1/2) (z - m) / sqrt(1 + sigma^2); zero for a Gaussian prior."""

    def encode(self, x: Float[Array, " n"], cond=None) -> Float[Array, " n"]:
        """The coordinates that are denoised, of a flat state: the state itself by default."""
        return x

    def decode(self, c: Float[Array, " n"], cond=None) -> Float[Array, " n"]:
        """The flat state at the coordinates c."""
        return c

    def log_det(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """log |d encode / dx|."""
        return jnp.zeros((), x.dtype)

    @property
    def colored(self) -> bool:
        """Whether `drift` is what it computes, and `correction` what follows from it."""
        return False

    def drift(self, w: Float[Array, " n"], sigma, cond) -> Float[Array, " n"]:
        """C^(1/2) F at w = C^(1/2) v, in the state's own units."""
        c = self.cov(cond)
        return c.sqrt(self.correction(c.whiten(w), sigma, cond))

    def __call__(self, z: Float[Array, " n"], sigma, cond=None) -> Float[Array, " n"]:
        """E[x | z = x + sigma C^(1/2) noise, cond]."""
        m, root = self.mean(cond), jnp.sqrt(1 + sigma**2)
        w = (z - m) / root
        return m + (w + sigma * self.drift(w, sigma, cond)) / root


class GaussianDenoiser(AbstractDenoiser):
    """The prior N(offset + matrix cond, cov) in closed form.

    Attributes:
        offset: `(n,)`.
        covariance: C.
        matrix: `(n, k)` for a condition of k numbers, or None for none.
    """

    offset: Float[Array, " n"]
    covariance: AbstractCovariance
    matrix: Float[Array, "n k"] | None = None

    def mean(self, cond=None):
        if self.matrix is None:
            return self.offset
        return self.offset + self.matrix @ cond[: self.matrix.shape[1]]

    def cov(self, cond=None):
        return self.covariance

    def correction(self, v, sigma, cond=None):
        return jnp.zeros_like(v)


class AbstractCoordinates(eqx.Module):
    """Coordinates in which a network sees a flat state."""

    @abc.abstractmethod
    def encode(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        """The coordinates of x."""

    @abc.abstractmethod
    def decode(self, v: Float[Array, " n"]) -> Float[Array, " n"]:
        """The state at v."""


class Standardizer(AbstractCoordinates):
    """One centre and scale for variables that are alike, as of a field on a ring."""

    center: Float[Array, ""]
    scale: Float[Array, ""]

    def encode(self, x):
        return (x - self.center) / self.scale

    def decode(self, v):
        return v * self.scale + self.center


class Whitener(AbstractCoordinates):
    """Coordinates of unit covariance: small differences of like sensors count like the rest."""

    center: Float[Array, " n"]
    covariance: DenseCovariance

    def encode(self, x):
        return self.covariance.whiten(x - self.center)

    def decode(self, v):
        return self.covariance.sqrt(v) + self.center


def limits(v: Float[Array, "draw n"]) -> Float[Array, " 2"]:
    """The largest coordinate of some states, and the largest root mean square of one's."""
    return jnp.stack([jnp.abs(v).max(), jnp.sqrt(jnp.mean(v**2, 1)).max()])


class MeanNetwork(eqx.Module):
    """E[x' | x, scalars] as decode(A v + b + network(v)) with v = encode(x).

    The condition is the flat state followed by the scalars (the phase of the day, say). A state
    further out than any of the training is taken as one at its edge: a network that is asked
    about others answers with anything, and a few forecasts of its own answers overflow.

    Attributes:
        limit: largest coordinate of v, and largest root mean square of them, in the training.
        matrix, offset: A and b of a linear regression; the identity and none where None.
    """

    network: AbstractNetwork
    standard: AbstractCoordinates
    size: int = eqx.field(static=True)
    limit: Float[Array, " 2"]
    matrix: Float[Array, "n n"] | None = None
    offset: Float[Array, " n"] | None = None

    def coordinates(self, cond: Float[Array, " n_plus_s"]) -> Float[Array, " n"]:
        """v, drawn in to within the limits."""
        v = self.standard.encode(cond[: self.size])
        largest, root_mean_square = self.limit
        square = jnp.maximum(jnp.mean(v**2), jnp.finfo(v.dtype).tiny)
        v = v * jnp.minimum(1.0, root_mean_square / jnp.sqrt(square))
        return jnp.clip(v, -largest, largest)

    def __call__(self, cond: Float[Array, " n_plus_s"]) -> Float[Array, " n"]:
        v = self.coordinates(cond)
        linear = v if self.matrix is None else self.matrix @ v + self.offset
        return self.standard.decode(linear + self.network(v[None], cond[self.size :]))


class EDMDenoiser(AbstractDenoiser):
    """The trained denoiser of the module's second formula.

    Attributes:
        regression: m(cond).
        covariance: C, estimated on held-out pairs.
        network: F; fields are the scaled noisy residual and the standardised ancestor.
    """

    regression: MeanNetwork
    covariance: AbstractCovariance
    network: AbstractNetwork

    def correction(self, v, sigma, cond):
        ancestor = self.regression.coordinates(cond)
        scalars = jnp.concatenate([jnp.log(sigma).reshape(1) / 4, cond[self.regression.size :]])
        return self.network(jnp.stack([v, ancestor]), scalars)

    def mean(self, cond):
        return self.regression(cond)

    def cov(self, cond):
        return self.covariance
