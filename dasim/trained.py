"""Trained transitions: made from a specification, fitted to pairs, kept in one file."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim import functions, trajectories
from dasim.covariance import DenseCovariance, DiagonalCovariance
from dasim.priors.denoisers import EDMDenoiser, MeanNetwork, Standardizer, Whitener, limits
from dasim.priors.networks import MLP, AbstractNetwork, PeriodicConv
from dasim.priors.resolutions import on_grid
from dasim.priors.schedules import SCHEDULES
from dasim.priors.store import load_built, read_header, save_arrays
from dasim.priors.train import Batch, FitSettings, denoising_loss, fit, regression_loss
from dasim.transitions import DiffusionTransition
from dasim.types import DataError, Key

FORMAT = "dasim-prior-1"


@dataclass(frozen=True)
class NetworkSpec:
    """Size of a network: `width` hidden units or channels, `depth` layers or blocks.

    `kernel` and `repeats` are of the convolutional kind alone.
    """

    kind: Literal["mlp", "conv"] = "mlp"
    width: int = 64
    depth: int = 2
    kernel: int = 5
    repeats: int = 1

    def build(self, k: int, n: int, s: int, key: Key) -> AbstractNetwork:
        """A network of k fields of n values and s scalars."""
        if self.kind == "mlp":
            return MLP(k, n, s, self.width, self.depth, key)
        return PeriodicConv(k, s, self.width, self.depth, self.kernel, self.repeats, key)


@dataclass(frozen=True)
class PriorSpec:
    """All that is needed to make a prior's arrays anew before they are filled.

    Attributes:
        shape: of a state.
        interval: time between ancestor and state.
        periods: cycles whose phase the prior is told.
        alike: variables share one centre, scale and residual variance (a field on a ring); else
            the network sees whitened variables and corrects a linear regression.
        mean: network of E[x' | x].
        residual: network of the denoiser's correction.
        schedule: "ve", "vp" or "sub-vp".
    """

    shape: tuple[int, ...]
    interval: float
    periods: tuple[float, ...] = ()
    alike: bool = False
    mean: NetworkSpec = NetworkSpec()
    residual: NetworkSpec = NetworkSpec()
    schedule: Literal["ve", "vp", "sub-vp"] = "ve"

    def build(self, key: Key) -> DiffusionTransition:
        """An untrained transition."""
        n, s = math.prod(self.shape), 2 * len(self.periods)
        mean_key, residual_key = jax.random.split(key)
        network = self.mean.build(1, n, s, mean_key)
        limit = jnp.full(2, 1e9)  # none, with finite derivatives
        if self.alike:
            covariance = DiagonalCovariance(jnp.ones(n))
            standard = Standardizer(jnp.zeros(()), jnp.ones(()))
            regression = MeanNetwork(network, standard, n, limit)
        else:
            covariance = DenseCovariance(jnp.eye(n), jnp.ones(n))
            standard = Whitener(jnp.zeros(n), covariance)
            regression = MeanNetwork(network, standard, n, limit, jnp.eye(n), jnp.zeros(n))
        network = self.residual.build(2, n, s + 1, residual_key)
        return DiffusionTransition(
            EDMDenoiser(regression, covariance, network),
            float(self.interval),
            tuple(self.shape),
            tuple(self.periods),
            SCHEDULES[self.schedule],
        )


Report = Callable[[str, int, int, float, float], None]


def train_transition(
    spec: PriorSpec,
    draw: Callable[[Key, int], Batch],
    held_out: Batch,
    key: Key,
    mean_fit: FitSettings,
    residual_fit: FitSettings,
    checkpoint: Path | None = None,
    report: Report | None = None,
    start: DiffusionTransition | None = None,
) -> tuple[DiffusionTransition, dict]:
    """Fit the mean, the residual's covariance, and the residual's network.

    Args:
        spec: what to build.
        draw: function of (key, n) to n pairs of (condition, next state); jit-able.
        held_out: pairs that are not drawn, for the covariance and the stop.
        checkpoint: folder for the state of an interrupted training.
        report: called with (stage, step, steps, training loss, held-out loss).
        start: a prior from whose weights the mean's network starts.

    Returns:
        The transition, and the held-out figures for its header.

    Raises:
        DataError: the network of `start` has other sizes.
    """
    build_key, mean_key, residual_key = jax.random.split(key, 3)
    transition = spec.build(build_key)
    n = math.prod(spec.shape)
    base, scale = _base(
        spec, transition.denoiser.regression, draw(jax.random.fold_in(key, 1), 8192)
    )

    if start is not None:
        base = start_from(base, start.denoiser.regression)

    def at(stage, steps):
        return None if report is None else lambda i, a, b: report(stage, i, steps, a, b)

    def file(stage):
        return None if checkpoint is None else Path(checkpoint) / f"{stage}.safetensors"

    fitted = fit(
        base,
        lambda m, batch, k: regression_loss(m, scale, batch, k),
        draw,
        held_out,
        mean_key,
        mean_fit,
        lambda m: m.network,
        file("mean"),
        at("mean", mean_fit.n_steps),
    )
    residual = held_out[1] - jax.vmap(fitted.model)(held_out[0])
    if spec.alike:
        covariance = DiagonalCovariance(jnp.full(n, jnp.mean(residual**2)))
    else:
        covariance = DenseCovariance.from_matrix(residual.T @ residual / len(residual))
    denoiser = EDMDenoiser(fitted.model, covariance, transition.denoiser.network)
    schedule = transition.schedule
    shaped = fit(
        denoiser,
        lambda d, batch, k: denoising_loss(d, schedule, batch, k),
        draw,
        held_out,
        residual_key,
        residual_fit,
        lambda d: d.network,
        file("residual"),
        at("residual", residual_fit.n_steps),
    )
    figures = {
        "rmse_mean": float(jnp.sqrt(jnp.mean(residual**2))),
        "rmse_persistence": float(jnp.sqrt(jnp.mean((held_out[1] - held_out[0][:, :n]) ** 2))),
        "mean_loss": fitted.loss,
        "denoising_loss": shaped.loss,
        "steps": [fitted.steps, shaped.steps],
        "pairs": len(held_out[0]),
    }
    return eqx.tree_at(lambda t: t.denoiser, transition, shaped.model), figures


def start_from(base: MeanNetwork, start: MeanNetwork) -> MeanNetwork:
    """`base` with the weights of another's network, whose `repeats` may differ."""
    own, leaves = jax.tree.leaves(base.network), jax.tree.leaves(start.network)
    shapes, given = ([a.shape for a in each] for each in (own, leaves))
    if shapes != given:
        raise DataError(
            f"start: its mean's network has weights of shapes {given}, this config's {shapes}: "
            "give `mean` the same kind, width, depth and kernel"
        )
    return eqx.tree_at(lambda m: jax.tree.leaves(m.network), base, leaves)


def _base(spec: PriorSpec, regression: MeanNetwork, pairs: Batch):
    """The regression with coordinates, limit and linear part set, and the scale of its errors."""
    cond, after = pairs
    n = math.prod(spec.shape)
    states = cond[:, :n]
    if spec.alike:
        standard = Standardizer(states.mean(), states.std())
        error = DiagonalCovariance(jnp.full(n, jnp.mean((after - states) ** 2)))
        limit = limits(jax.vmap(standard.encode)(states))
        return eqx.tree_at(lambda m: (m.standard, m.limit), regression, (standard, limit)), error
    center = states.mean(0)
    covariance = DenseCovariance.from_matrix(jnp.cov(states.T))
    standard = Whitener(center, covariance)
    v, target = jax.vmap(standard.encode)(states), jax.vmap(standard.encode)(after)
    regressors = jnp.concatenate([v, jnp.ones((len(v), 1))], 1)
    weights = jnp.linalg.lstsq(regressors, target)[0]
    error = jax.vmap(covariance.sqrt)(target - regressors @ weights)
    regression = eqx.tree_at(
        lambda m: (m.standard, m.limit, m.matrix, m.offset),
        regression,
        (standard, limits(v), weights[:-1].T, weights[-1]),
    )
    return regression, DenseCovariance.from_matrix(error.T @ error / len(error))


def save_prior(path: Path, transition: DiffusionTransition, spec: PriorSpec, header: dict):
    """Write a trained transition with its `spec` and whatever else `header` says."""
    save_arrays(path, transition, {"format": FORMAT, "spec": asdict(spec), **header})


def load_prior(path: Path, shape: tuple[int, ...] | None = None, interval: float | None = None):
    """The transition, or the prior of trajectories, in the file, and its header.

    Args:
        shape, interval: of the system that it is to serve, checked where given.

    Raises:
        DataError: the file is broken, or a prior of another system.
    """
    header = read_header(path)
    if header.get("format") == trajectories.FORMAT:
        if shape is not None:
            raise DataError(
                f"{path}: this is a prior of trajectories; a filter takes one of a transition"
            )
        return trajectories.load_trajectory_prior(path, header), header
    if header.get("format") == functions.FORMAT:
        return _load_functions(path, header, shape, interval), header
    if header.get("format") != FORMAT:
        raise DataError(
            f"{path}: format is {header.get('format')!r}, expected {FORMAT!r}: not a prior file"
        )
    fields = dict(header["spec"])
    for name in ("mean", "residual"):
        fields[name] = NetworkSpec(**fields[name])
    for name in ("shape", "periods"):
        fields[name] = tuple(fields[name])
    spec = PriorSpec(**fields)
    of = _described(header)
    if shape is not None and tuple(shape) != spec.shape:
        raise DataError(
            f"{path}: this prior is of {of}, with states of shape {spec.shape}; the run's states "
            f"have shape {tuple(shape)}: choose a prior of this system, or train one"
        )
    _check_interval(path, header, spec.interval, interval)
    return load_built(path, spec.build), header


def _described(header: dict) -> str:
    return header.get("data", {}).get("description", "another system")


def _check_interval(path: Path, header: dict, own: float | None, wanted: float | None):
    if wanted is not None and own is not None and not math.isclose(wanted, own, rel_tol=1e-6):
        raise DataError(
            f"{path}: this prior is of {_described(header)}, with interval {own}; the run's "
            f"interval is {wanted}: choose a prior of this interval, or train one"
        )


def _load_functions(path: Path, header: dict, shape, interval):
    """A prior of functions, on the grid that is asked for."""
    prior = functions.load_function_prior(path, header)
    if shape is not None and not isinstance(prior, DiffusionTransition):
        raise DataError(f"{path}: this prior has no ancestor; a filter takes one of a transition")
    if isinstance(prior, DiffusionTransition):
        _check_interval(path, header, prior.interval, interval)
    if shape is None or tuple(shape) == prior.shape:
        return prior
    try:
        return on_grid(prior, tuple(shape))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
