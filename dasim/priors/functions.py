r"""Denoisers of functions: one set of weights at every resolution.

After Lim, Kovachki et al. (2023, arXiv 2302.07400): the noise is a Gaussian random field of
finite variance, C its covariance, and the network maps functions to functions. In the
preconditioning of `dasim.priors.denoisers` it is asked for

    G(w) = C^(1/2) F,    w = (z - m) / sqrt(1 + s^2),
    D = m + [ w + s G(w) ] / sqrt(1 + s^2),    Cov[x | z] = s^2 (dD/dz) C,

so that C is never inverted, and where the network gives nothing, as beyond the waves it knows,
the prior is the noise's own law about m. It is trained by

    E | G(w) - (s u - e) / sqrt(1 + s^2) |^2,    u = x - m,  e = C^(1/2) noise,

in the norm of L2, or in a whitened loss, which weights all waves alike.

Two parts of G are not left to the network. Where the law of u is known and is not that of the
noise, the best linear G has a closed form, wave by wave (`GaussianFieldDenoiser`), and the network
adds what is not Gaussian. And since the probability flow changes the power of a wave by

    dE|w_k|^2 / da = -2 Re E[ conj(w_k) G_k ],

where it has to follow cos(a)^2 L + sin(a)^2 N, with L and N those of field and noise, b(k, s) w_k
is added to the G of a trained network such that it does along its own draws (`WaveGains`).
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields import FieldCovariance, Grid, cut, resample
from dasim.priors.denoisers import AbstractCoordinates, AbstractDenoiser, MeanNetwork
from dasim.priors.operators import OnGrid
from dasim.priors.waves import WaveGains, linear_factor


class FieldCoordinates(AbstractCoordinates):
    """A field over its scale, without the waves that the inner grid of a network lacks."""

    center: Float[Array, ""]
    scale: Float[Array, ""]
    grid: Grid = eqx.field(static=True)
    inner: Grid = eqx.field(static=True)

    def encode(self, x):
        v = (x - self.center) / self.scale
        if any(n > m for n, m in zip(self.grid.shape, self.inner.shape, strict=True)):
            low = resample(v.reshape(self.grid.shape), self.grid, self.inner)
            v = resample(low, self.inner, self.grid).reshape(-1)
        return v

    def decode(self, v):
        return v * self.scale + self.center


class FieldDenoiser(AbstractDenoiser):
    """The denoiser of a field, flat.

    Attributes:
        center: m where there is no regression.
        noise: C.
        network: the part of G that is not linear, of fields over the noise's standard deviation.
        regression: m(cond), of an ancestor on the same grid; None for a prior without one.
        law: covariance of x - m; None for that of the noise.
        gains: added to the linear part, where its draws need them; None for none.
        balanced: the network is also given w with all its waves alike, and what it gives is scaled
            wave by wave (`scales`): the preconditioning of Karras et al. (2022), for every wave.
    """

    center: Float[Array, ""]
    noise: FieldCovariance
    network: OnGrid
    regression: MeanNetwork | None = None
    law: FieldCovariance | None = None
    gains: WaveGains | None = None
    balanced: bool = eqx.field(static=True, default=False)

    @property
    def colored(self):
        return True

    @property
    def grid(self) -> Grid:
        return self.noise.grid

    def scales(self, sigma) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
        """The variances L of x - m and N of the noise say those of each wave of w, and of what w
        leaves of the wave that G stands for:

            (L + s^2 N) / (1 + s^2)    and    L N (1 + s^2) / (L + s^2 N).

        Returns:
            Their roots, as a field on the network's grid has them, whatever the grid.
        """
        inner = self.network.network.inner or self.grid
        share = inner.size / self.grid.size
        noise = self.noise.values * share
        field = noise if self.law is None else self.law.values * share
        total, one = field + sigma**2 * noise, 1 + sigma**2
        left = jnp.where(total > 0, field * noise * one / jnp.where(total > 0, total, 1.0), 0.0)
        return jnp.sqrt(total / one), jnp.sqrt(left)

    def times(self, x: Float[Array, " n"], factor: Float[Array, "*grid"]) -> Float[Array, " n"]:
        """x with each wave multiplied."""
        field = x.reshape(self.grid.shape)
        return self.grid.multiplied(field, factor.astype(x.dtype)).reshape(-1)

    def _times_seen(self, x, scale, inverse=False):
        """`times` for what the network sees or makes: where its grid is coarser than the field's,
        the highest even wave there has the variance of two."""
        inner = self.network.network.inner or self.grid
        shape = tuple(map(min, self.grid.shape, inner.shape))
        seen = self.grid.at(shape)
        if seen != self.grid:
            x = resample(x.reshape(self.grid.shape), self.grid, seen)
            scale = jnp.sqrt(cut(scale**2, self.grid, shape))
        for axis, (n, m) in enumerate(zip(self.grid.shape, inner.shape, strict=True)):
            if n < m and n % 2 == 0 and self.grid.edges == "periodic":
                one = (np.arange(n) == n // 2).reshape(-1, *[1] * (len(shape) - 1 - axis))
                scale = jnp.where(one, scale * np.sqrt(0.5), scale)  # there the wave is two again
        factor = FieldCovariance.inverse(scale) if inverse else scale
        x = seen.multiplied(x.reshape(shape), factor.astype(x.dtype))
        return resample(x, seen, self.grid).reshape(-1)

    def mean(self, cond=None):
        if self.regression is None:
            return jnp.full(self.grid.size, self.center)
        return self.regression(cond)

    def cov(self, cond=None):
        return self.noise

    def drift(self, w, sigma, cond):
        fields, scalars = [w / self.noise.std], jnp.log(sigma).reshape(1) / 4
        if self.regression is not None:
            fields.append(self.regression.coordinates(cond))
            scalars = jnp.concatenate([scalars, cond[self.regression.size :]])
        if self.balanced:
            own, left = self.scales(sigma)
            fields.append(self._times_seen(w, own, True))
            made = self._times_seen(self.network(jnp.stack(fields), scalars), left)
        else:
            made = self.noise.std * self.network(jnp.stack(fields), scalars)
        if self.law is None and self.gains is None:
            return made
        factor = 0.0 if self.law is None else linear_factor(self.law, self.noise, sigma)
        if self.gains is not None:
            factor = factor + self.gains(self.grid, sigma)
        return made + self.times(w, factor)

    def correction(self, v, sigma, cond=None):
        return self.noise.whiten(self.drift(self.noise.sqrt(v), sigma, cond))

    def on(self, grid: Grid) -> "FieldDenoiser":
        """The same prior on another grid of its box.

        Raises:
            ValueError: the network cannot serve the grid.
        """
        move = lambda module, **changes: dataclasses.replace(module, **changes)
        regression = self.regression
        if regression is not None:
            regression = move(
                regression,
                network=move(regression.network, grid=grid),
                standard=move(regression.standard, grid=grid),
                size=grid.size,
            )
        return move(
            self,
            noise=self.noise.on(grid),
            network=move(self.network, grid=grid),
            regression=regression,
            law=None if self.law is None else self.law.on(grid),
        )


class GaussianFieldDenoiser(AbstractDenoiser):
    """A Gaussian field under a noise of another law, in closed form.

    Wave by wave, with kappa the field's variance over the noise's,
    G(w) = s (kappa - 1) / (kappa + s^2) w.

    Attributes:
        center: the field's mean, one number.
        law: the field's covariance.
        noise: C, on the same grid.
    """

    center: Float[Array, ""]
    law: FieldCovariance
    noise: FieldCovariance

    def __check_init__(self):
        if self.law.grid != self.noise.grid:
            raise ValueError("the field and the noise are on different grids")

    @property
    def colored(self):
        return True

    def mean(self, cond=None):
        return jnp.full(self.law.size, self.center)

    def cov(self, cond=None):
        return self.noise

    def drift(self, w, sigma, cond=None):
        factor, grid = linear_factor(self.law, self.noise, sigma), self.law.grid
        return grid.multiplied(w.reshape(grid.shape), factor.astype(w.dtype)).reshape(-1)

    def correction(self, v, sigma, cond=None):
        return self.drift(v, sigma, cond)  # they have one basis

    def on(self, grid: Grid) -> "GaussianFieldDenoiser":
        """The same prior on another grid of its box."""
        return GaussianFieldDenoiser(self.center, self.law.on(grid), self.noise.on(grid))
