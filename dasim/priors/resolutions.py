"""Priors of functions moved to other grids, and draws that pass through several."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.fields import resample
from dasim.priors.functions import FieldDenoiser, GaussianFieldDenoiser
from dasim.priors.sampler import angle_weights, integrated


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
            angle_weights,
        ).reshape(grid.shape)
        change, at = moved - start, grid
    return denoiser.mean(cond) + moved.reshape(-1)
