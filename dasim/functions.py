"""Trained priors of functions: their specification, training, and files."""

import dataclasses
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim import fields
from dasim.fields import AbstractSpectrum, FieldCovariance, Grid, noise_process
from dasim.priors.denoisers import MeanNetwork, limits
from dasim.priors.field_training import field_loss, measured_gains
from dasim.priors.functions import FieldCoordinates, FieldDenoiser
from dasim.priors.operators import FourierNetwork, OnGrid
from dasim.priors.prior import DiffusionPrior
from dasim.priors.schedules import SCHEDULES
from dasim.priors.store import load_built, save_arrays
from dasim.priors.train import Batch, FitSettings, fit
from dasim.priors.waves import WaveGains
from dasim.transitions import DiffusionTransition
from dasim.types import Key

FORMAT = "dasim-function-prior-1"
SPECTRA: dict[str, type[AbstractSpectrum]] = {
    "white": fields.White,
    "matern": fields.Matern,
    "squared-exponential": fields.SquaredExponential,
    "power-law": fields.PowerLaw,
    "tabulated": fields.Tabulated,
}
# a first guess, until a measured law takes its place
UNMEASURED = {"kind": "tabulated", "wavenumbers": (1.0, 2.0), "variances": (1.0, 1.0)}


@dataclass(frozen=True)
class OperatorSpec:
    """Size of an operator network: `modes` waves along each axis, `channels`, `depth` blocks."""

    modes: tuple[int, ...]
    channels: int = 24
    depth: int = 3
    located: bool = False


@dataclass(frozen=True)
class FunctionSpec:
    """All that is needed to make a prior of functions anew before its arrays are filled.

    Attributes:
        shape: of a state in the training.
        lengths: of the box.
        edges: "periodic" or "bounded".
        noise: law of the noise: its `kind` and the attributes of the class in `dasim.fields`;
            or the kind "measured", of the law of what the mean leaves.
        law: of what the mean leaves, as `noise`, whose linear denoiser is then not left to the
            network; None for that of the noise.
        gains: whether the denoiser is given, after its training, the gains with which its draws
            of `n_steps` have the fields' own spectrum (`WaveGains`).
        balanced: the denoiser's network is scaled wave by wave (`FieldDenoiser`).
        residual: network of the denoiser.
        interval: time between ancestor and state; None for a prior without an ancestor.
        mean: network of E[x' | x], with an ancestor.
        inner: grid of the networks' features; None for that of the fields, whatever it is.
        whitened: whether the loss weights all waves alike.
    """

    shape: tuple[int, ...]
    lengths: tuple[float, ...]
    residual: OperatorSpec
    edges: Literal["periodic", "bounded"] = "periodic"
    noise: dict = field(default_factory=lambda: {"kind": "measured"})
    law: dict | None = None
    gains: bool = False
    balanced: bool = False
    interval: float | None = None
    mean: OperatorSpec | None = None
    inner: tuple[int, ...] | None = None
    whitened: bool = False
    schedule: Literal["ve", "vp", "sub-vp"] = "ve"
    n_steps: int = 20  # network calls of a draw

    @property
    def grid(self) -> Grid:
        return Grid(tuple(self.shape), tuple(self.lengths), self.edges)

    @staticmethod
    def spectrum(law: dict) -> AbstractSpectrum:
        """A law such as `noise`."""
        law = dict(UNMEASURED if law["kind"] == "measured" else law)
        return SPECTRA[law.pop("kind")](**law)

    def covariances(self, std) -> tuple[FieldCovariance, FieldCovariance | None]:
        """Of the noise and of what the mean leaves, of mean variance `std**2` on the grid.

        Not folded: fields, and what networks see of them, are moved between grids by their waves.
        """

        def process(law):
            made = noise_process(self.spectrum(law), self.grid, folded=False)
            whole = std / jnp.sqrt(made.relative.mean())  # with the waves that the grid lacks
            return eqx.tree_at(lambda c: c.std, made, whole)

        return process(self.noise), None if self.law is None else process(self.law)

    def build(self, key: Key) -> DiffusionPrior | DiffusionTransition:
        """An untrained prior, or an untrained transition where there is an interval.

        Raises:
            ValueError: networks and grids that do not go together.
        """
        grid, (mean_key, residual_key) = self.grid, jax.random.split(key)
        inner = None if self.inner is None else grid.at(self.inner)

        def network(spec, k, s, key):
            sizes = tuple(spec.modes), spec.channels, spec.depth
            return OnGrid(FourierNetwork(k, s, grid, *sizes, key, inner, spec.located), grid)

        one, zero = jnp.ones(()), jnp.zeros(())
        regression = None
        if self.interval is not None:
            regression = MeanNetwork(
                network(self.mean, 1, 0, mean_key),
                FieldCoordinates(zero, one, grid, inner or grid),
                grid.size,
                jnp.full(2, 1e9),  # no limit, with finite derivatives
            )
        seen = 1 + (regression is not None) + self.balanced
        residual = network(self.residual, seen, 1, residual_key)
        noise, law = self.covariances(one)
        gains = WaveGains.zeros(grid, inner or grid, self.n_steps) if self.gains else None
        denoiser = FieldDenoiser(zero, noise, residual, regression, law, gains, self.balanced)
        schedule = SCHEDULES[self.schedule]
        if self.interval is None:
            return DiffusionPrior(denoiser, grid.shape, schedule, self.n_steps)
        interval = float(self.interval)
        return DiffusionTransition(denoiser, interval, grid.shape, (), schedule, self.n_steps)


def measured_law(residual: Float[Array, "draw *grid"], grid: Grid) -> dict:
    """The variance of a residual's waves, averaged over those of about one length.

    Returns:
        A `noise` of a `FunctionSpec`, of kind "tabulated".
    """
    power = np.asarray(
        jnp.mean(jnp.abs(jax.vmap(grid.coefficients)(residual)) ** 2, 0), float
    ).reshape(-1)
    k = grid.magnitudes.reshape(-1)
    step = min(a[a > 0].min() for a in grid.wavenumbers)
    highest = min(np.abs(a).max() for a in grid.wavenumbers)
    place = np.round(k / step).astype(int)
    bins = np.arange(1, round(highest / step))
    waves = [float(k[place == i].mean()) for i in bins]
    variances = [float(power[place == i].mean()) for i in bins]
    least = 1e-12 * max(variances)
    mean = float(power[place == 0].mean())
    return {
        "kind": "tabulated",
        "wavenumbers": tuple(waves),
        "variances": tuple(max(v, least) for v in variances),
        "mean": max(mean, 0.0),
    }


Report = Callable[[str, int, int, float, float], None]


def _in_one_type(batch: Batch) -> Batch:
    """In that of the weights: fields of another would fail after the training, in a draw."""
    return jax.tree.map(lambda a: jnp.asarray(a, float), batch)


def _drawn(draw, key, n) -> Batch:
    return _in_one_type(draw(key, n))


def train_function_prior(
    spec: FunctionSpec,
    draw: Callable[[Key, int], Batch],
    held_out: Batch,
    key: Key,
    residual_fit: FitSettings,
    mean_fit: FitSettings | None = None,
    checkpoint: Path | None = None,
    report: Report | None = None,
) -> tuple[DiffusionPrior | DiffusionTransition, FunctionSpec, dict]:
    """Fit the mean, where there is an ancestor, the noise's size, and the denoiser's network.

    Args:
        draw: function of (key, n) to n pairs of a flat condition, empty where there is no
            ancestor, and a flat field; jit-able.
        held_out: pairs that are not drawn, for the noise and the stop.
        checkpoint: folder for the state of an interrupted training.
        report: called with (stage, step, steps, training loss, held-out loss).

    Returns:
        The prior, its specification with a measured law in place, and the held-out figures.
    """
    draw, held_out = jax.tree_util.Partial(_drawn, draw), _in_one_type(held_out)
    build_key, first_key, mean_key, residual_key = jax.random.split(key, 4)
    gains_key = jax.random.fold_in(key, 1)

    def stages(stage, steps):
        file = None if checkpoint is None else Path(checkpoint) / f"{stage}.safetensors"
        tell = None if report is None else lambda i, a, b: report(stage, i, steps, a, b)
        return file, tell

    prior, figures = spec.build(build_key), {}
    cond, target = held_out
    first = draw(first_key, 4096)
    mean = center = first[1].mean()
    regression = prior.denoiser.regression
    if regression is not None:
        center, scale = first[0].mean(), first[0].std()
        regression = eqx.tree_at(
            lambda m: (m.standard.center, m.standard.scale), regression, (center, scale)
        )
        limit = limits(jax.vmap(regression.standard.encode)(first[0]))
        regression = eqx.tree_at(lambda m: m.limit, regression, limit)
        size = jnp.mean((target - cond) ** 2)

        def loss(model, batch, key):
            return jnp.mean((jax.vmap(model)(batch[0]) - batch[1]) ** 2) / size

        fitted = fit(
            regression,
            loss,
            draw,
            held_out,
            mean_key,
            mean_fit,
            lambda m: m.network,
            *stages("mean", mean_fit.n_steps),
        )
        regression, mean = fitted.model, jax.vmap(fitted.model)(cond)
        figures = {"rmse_persistence": float(jnp.sqrt(size)), "mean_loss": fitted.loss}
    residual = target - mean
    asked = {name: getattr(spec, name) for name in ("noise", "law")}
    wanted = [name for name, law in asked.items() if law is not None and law["kind"] == "measured"]
    if wanted:
        law = measured_law(residual.reshape(-1, *spec.shape), spec.grid)
        spec = dataclasses.replace(spec, **dict.fromkeys(wanted, law))
    noise, law = spec.covariances(jnp.sqrt(jnp.mean(residual**2)))
    network = prior.denoiser.network
    denoiser = FieldDenoiser(center, noise, network, regression, law, balanced=spec.balanced)
    fitted = fit(
        denoiser,
        lambda d, batch, key: field_loss(d, prior.schedule, batch, key, spec.whitened),
        draw,
        held_out,
        residual_key,
        residual_fit,
        lambda d: d.network,
        *stages("residual", residual_fit.n_steps),
    )
    figures |= {
        "rmse_mean": float(jnp.sqrt(jnp.mean(residual**2))),
        "denoising_loss": fitted.loss,
        "steps": fitted.steps,
        "held_out": len(target),
    }
    denoiser = fitted.model
    if spec.gains:
        gains = measured_gains(denoiser, prior.schedule, draw, gains_key, spec.n_steps)
        denoiser = dataclasses.replace(denoiser, gains=gains)
    return dataclasses.replace(prior, denoiser=denoiser), spec, figures


def save_function_prior(path: Path, prior, spec: FunctionSpec, header: dict):
    """Write a trained prior with its `spec` and whatever else `header` says."""
    save_arrays(path, prior, {"format": FORMAT, "spec": asdict(spec), **header})


def load_function_prior(path: Path, header: dict) -> DiffusionPrior | DiffusionTransition:
    """The prior in a file whose header was read, on the grid of its training.

    Raises:
        DataError: the file is broken.
    """
    return load_built(path, read_spec(header).build)


def read_spec(header: dict) -> FunctionSpec:
    """The specification in a file's header."""
    given = dict(header["spec"])
    for name in ("shape", "lengths", "inner"):
        given[name] = None if given[name] is None else tuple(given[name])
    for name in ("mean", "residual"):
        if given[name] is not None:
            given[name] = OperatorSpec(**given[name] | {"modes": tuple(given[name]["modes"])})
    for name in ("noise", "law"):
        if given.get(name) is not None:
            law = {k: tuple(v) if isinstance(v, list) else v for k, v in given[name].items()}
            given[name] = law
    return FunctionSpec(**given)
