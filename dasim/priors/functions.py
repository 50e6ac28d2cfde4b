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
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields import FieldCovariance, Grid, cut, resample
from dasim.priors.denoisers import AbstractCoordinates, AbstractDenoiser, MeanNetwork
from dasim.priors.operators import OnGrid
from dasim.priors.sampler import integrated

ROUNDING = 1e-9  # of wavenumbers


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


class WaveGains(eqx.Module):
    """A factor for waves of each length at each level: straight lines between those measured.

    Right for draws of as many steps as there are levels (`measured_gains`): more do no harm, with
    fewer the waves of which the noise has far more than the fields lose variance.

    Attributes:
        values: `(level, length)`, of the wavenumbers 0, step, 2 step, ...; none beyond the last.
        angles: arctan of the levels, increasing.
        step: see `values`.
    """

    values: Float[Array, "level length"]
    angles: Float[Array, " level"]
    step: float = eqx.field(static=True)

    @classmethod
    def zeros(cls, grid: Grid, inner: Grid, n_levels: int) -> "WaveGains":
        """For the waves that a grid and an inner one have, without values and levels."""
        step = min(a[a > 0].min() for a in grid.wavenumbers)
        highest = min(np.abs(a).max() for g in (grid, inner) for a in g.wavenumbers)
        shape = n_levels, round(float(highest / step)) + 1
        return cls(jnp.zeros(shape), jnp.zeros(n_levels), float(step))

    def __call__(self, grid: Grid, sigma) -> Float[Array, "*grid"]:
        """The factors of a grid's coefficients."""
        angle = jnp.arctan(sigma)
        row = jax.vmap(lambda v: jnp.interp(angle, self.angles, v), 1)(self.values)
        return self.spread(row, grid)

    def spread(self, row: Float[Array, " length"], grid: Grid) -> Float[Array, "*grid"]:
        """What is given for the lengths, at a grid's coefficients; zero beyond the last."""
        k = grid.magnitudes / self.step
        below = np.minimum(k.astype(int), len(row) - 2)
        share = k - below
        factors = row[below] * (1 - share) + row[below + 1] * share
        return jnp.where(share <= 1 + ROUNDING, factors, 0.0)

    def summed(self, values: Float[Array, "*grid"], grid: Grid) -> Float[Array, " length"]:
        """Sums over a grid's coefficients nearest to each of the lengths."""
        k, count = grid.magnitudes / self.step, self.values.shape[1]
        place = np.where(k <= count - 1 + ROUNDING, np.round(k).astype(int), count)
        sums = jnp.zeros(count + 1, values.dtype).at[place.reshape(-1)].add(values.reshape(-1))
        return sums[:-1]


def linear_factor(law: FieldCovariance, noise: FieldCovariance, sigma) -> Float[Array, "*grid"]:
    """G(w) over w of a Gaussian field of covariance `law`, wave by wave: exact."""
    field, of_noise = law.values, noise.values
    # waves that the noise lacks are not seen
    total = jnp.where(of_noise > 0, field + sigma**2 * of_noise, 1.0)
    return jnp.where(of_noise > 0, sigma * (field - of_noise) / total, 0.0)


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


def on_grid(prior, shape: tuple[int, ...]):
    """A prior or a transition of functions, with states of another shape.

    Args:
        prior: a `DiffusionPrior` or a `DiffusionTransition`.

    Raises:
        ValueError: it is not of functions, or it cannot serve that shape; names those it can.
    """
    if not isinstance(prior.denoiser, FieldDenoiser | GaussianFieldDenoiser):
        raise ValueError(
            f"this prior is of states of shape {prior.shape} alone; one of functions has any grid"
        )
    shape = tuple(shape)
    grid = prior.denoiser.cov(None).grid
    axes = len(grid.shape)
    if len(shape) != axes:
        raise ValueError(f"states of shape {shape}; this prior is of fields with {axes} axes")
    denoiser = prior.denoiser.on(grid.at(shape))
    return dataclasses.replace(prior, denoiser=denoiser, shape=shape)


def multilevel_flow(
    prior,
    shapes: Sequence[tuple[int, ...]],
    noise: Float[Array, " n"],
    cond: Float[Array, " k"] | None = None,
) -> Float[Array, " n"]:
    """The draw that belongs to `noise`, large scales first: `flow` on finer and finer grids.

    High levels of noise leave nothing of the small scales to see. The levels are shared out
    among the grids; what the coarse ones made of the noise is added to that of the next. With
    many steps it is the draw of `flow` as far as the coarse grids hold the network's waves. Every
    grid begins with a first-order step, of which measured gains (`WaveGains`) know nothing.

    Args:
        prior: of functions, a `DiffusionPrior` or a `DiffusionTransition`.
        shapes: of the grids before the prior's own, coarse to fine.
        noise: standard normal, flat, on the prior's grid.
        cond: of the denoiser; an ancestor is taken to the coarse grids with it.

    Raises:
        ValueError: a grid that cannot serve the prior.
    """
    denoiser, own = prior.denoiser, prior.denoiser.cov(cond).grid
    first = denoiser.cov(cond).sqrt(noise).reshape(own.shape)
    levels = prior.schedule.levels(prior.n_steps).astype(first.dtype)
    cuts = np.linspace(0, prior.n_steps, len(shapes) + 2).round().astype(int)
    change, at = jnp.zeros_like(first), own
    for i, shape in enumerate([*shapes, own.shape]):
        grid = own.at(shape)
        here, start, told = denoiser.on(grid), resample(first, own, grid), cond
        if cond is not None:
            ancestor = resample(cond[: own.size].reshape(own.shape), own, grid)
            told = jnp.concatenate([ancestor.reshape(-1), cond[own.size :]])
        moved = integrated(
            lambda w, s, here=here, told=told: here.drift(w, s, told),
            levels[cuts[i] : cuts[i + 1] + 1],
            (start + resample(change, at, grid)).reshape(-1),
        ).reshape(grid.shape)
        change, at = moved - start, grid
    return denoiser.mean(cond) + moved.reshape(-1)
