r"""Denoisers of functions: one set of weights at every resolution.

After Lim, Kovachki et al. (2023, arXiv 2302.07400): the noise is a Gaussian random field of
finite variance, C its covariance, and the network maps functions to functions. In the
preconditioning of `dasim.priors.denoisers` it is asked for

    G(w) = C^(1/2) F,    w = (z - m) / sqrt(1 + s^2),
    D = m + [ w + s G(w) ] / sqrt(1 + s^2),    Cov[x | z] = s^2 (dD/dz) C,

so that C is never inverted, and where the network gives nothing, as beyond the waves it knows,
the prior is the noise's own law about m. It is trained by

    E | G(w) - (s u - e) / sqrt(1 + s^2) |^2,    u = x - m,  e = C^(1/2) noise,

in the norm of L2, or of C^(-1/2) in a whitened loss, which weights all waves alike.
"""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields import FieldCovariance, Grid, resample
from dasim.priors.denoisers import AbstractCoordinates, AbstractDenoiser, MeanNetwork
from dasim.priors.operators import OnGrid
from dasim.priors.sampler import integrated
from dasim.priors.schedules import AbstractSchedule
from dasim.priors.train import Batch, levels_and_noise
from dasim.types import Key


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
        network: G, of fields over the noise's standard deviation.
        regression: m(cond), of an ancestor on the same grid; None for a prior without one.
    """

    center: Float[Array, ""]
    noise: FieldCovariance
    network: OnGrid
    regression: MeanNetwork | None = None

    @property
    def colored(self):
        return True

    @property
    def grid(self) -> Grid:
        return self.noise.grid

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
        return self.noise.std * self.network(jnp.stack(fields), scalars)

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
        law, noise = self.law.values, self.noise.values
        # waves that the noise lacks are not seen
        total = jnp.where(noise > 0, law + sigma**2 * noise, 1.0)
        factor = jnp.where(noise > 0, sigma * (law - noise) / total, 0.0)
        grid = self.law.grid
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
    many steps it is the draw of `flow` as far as the coarse grids hold the network's waves.

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


def field_loss(
    denoiser: FieldDenoiser,
    schedule: AbstractSchedule,
    batch: Batch,
    key: Key,
    whitened: bool = False,
) -> Float[Array, ""]:
    """The loss of the module's last formula, over the noise's variance."""
    cond, target = batch
    levels, noise = levels_and_noise(schedule, target, key)

    def one(cond, target, s, e):
        u = target - jax.lax.stop_gradient(denoiser.mean(cond))
        e, root = denoiser.noise.sqrt(e), jnp.sqrt(1 + s**2)
        wrong = denoiser.drift((u + s * e) / root, s, cond) - (s * u - e) / root
        wrong = denoiser.noise.whiten(wrong) if whitened else wrong / denoiser.noise.std
        return jnp.mean(wrong**2)

    return jnp.mean(jax.vmap(one)(cond, target, levels, noise))
