"""How good the shipped priors of trajectories are by themselves, against the true systems.

    python experiments/events/skill.py [--systems name,name]

Likelihood of windows, climate, law from each noise level down, and forecasts from first states
that are known with an error. Writes into results.json, and README.md's tables.
"""

import os
from dataclasses import replace
from typing import Annotated

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scoringrules
import typer
from cases import CASES
from run import BATCH, keep, known, plain, prior_of
from table import write

from dasim.conditioning import conditional_draws, density, inpainted_draws
from dasim.conditioning.guidance import Target
from dasim.events import Equals
from dasim.priors import sample
from dasim.priors.sampler import integrated, log_weights
from dasim.trajectories import simulated_windows
from dasim.transitions import ModelTransition

STEPS = 60
WINDOWS, DRAWS = 20_000, 4_000
MEMBERS, CASES_FORECAST = 50, 100
ERROR = 0.01  # of the first states, in climatological standard deviations
LEADS = 3, 5, 10, 20, 40, 59
LIKELY = 64  # windows whose likelihood is found
PROBES = 8
RETURNS = 2000  # windows that are made noisy, and brought back
RARE = "0.1", "0.01"  # thresholds of the sweep
STARTS = 40.0, 12.0, 4.0, 1.5  # levels from which


def windows(name: str, count: int, seed: int, earlier: int = 0):
    """Of the system; beginning some steps earlier than the prior's."""
    case = CASES[name]
    key = jax.random.fold_in(jax.random.key(77), seed)
    spin_up = case.model.spin_up if case.spin_up is None else case.spin_up
    spin_up -= earlier * case.interval
    return simulated_windows(case.model, case.interval, STEPS, count, key, case.start, spin_up)


def without_spin_up(prior):
    """The prior of windows that begin with the first state that is drawn."""
    return eqx.tree_at(lambda p: p.denoiser, prior, replace(prior.denoiser, spin_up=0))


def nats(prior, x, key) -> tuple[float, float]:
    """Mean negative log likelihood per dimension of windows at the lowest level, its error."""
    cov, n = prior.denoiser.cov(None), x[0].size
    level = prior.schedule.levels(8)[-2]
    angle = jnp.arctan(level)

    @eqx.filter_jit
    def one(target, x, key):
        noise_key, probe_key = jax.random.split(key)
        v = jnp.cos(angle) * target.white(x) + jnp.sin(angle) * jax.random.normal(noise_key, (n,))
        found, _ = density.log_density(target, v, probe_key, PROBES)
        log_det = prior.denoiser.log_det(x.reshape(-1)) - 0.5 * cov.log_det()
        return found + n * jnp.log(jnp.cos(angle)) + log_det

    target = Target(prior)
    each = jax.lax.map(lambda item: one(target, *item), (x, jax.random.split(key, len(x))))
    each = -np.asarray(each) / n
    return float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)


@eqx.filter_jit
def made_noisy(prior, x, level, key):
    """Windows with noise of a level in the prior's white coordinates."""
    target = Target(prior)
    u = jax.vmap(target.white)(x)
    return jax.vmap(target.state)(u + level * jax.random.normal(key, u.shape))


def measure_likelihood(name: str, train, test):
    """Of the prior, and of the normal law with the windows' own moments (a shrunk covariance)."""
    prior, key = without_spin_up(prior_of(name)), jax.random.key(4)
    flat = np.asarray(train.reshape(len(train), -1), float)
    level = float(prior.schedule.levels(8)[-2])
    cov = np.cov(flat.T) + np.diag((level * np.tile(np.asarray(train).std((0, 1)), STEPS)) ** 2)
    noisy = np.asarray(made_noisy(prior, test[:LIKELY], level, jax.random.key(0)), float)
    noisy = noisy.reshape(LIKELY, -1)
    misfit = np.linalg.solve(np.linalg.cholesky(cov), (noisy - flat.mean(0)).T)
    normal = (
        0.5 * (np.mean(np.sum(misfit**2, 0)) + np.linalg.slogdet(2 * np.pi * cov)[1]) / len(cov)
    )
    found, error = nats(prior, test[:LIKELY], key)
    value = {"prior": found, "error": error, "normal law": float(normal), "level": level}
    keep([name, "likelihood"], value)


def climate(x) -> dict[str, np.ndarray]:
    """Moments and correlations in time of windows, `(window, step, variable)`."""
    x = np.asarray(x, float)
    centred = (x - x.mean((0, 1))) / x.std((0, 1))
    lags = range(0, 31, 5)
    correlation = [np.mean(centred[:, : STEPS - k] * centred[:, k:], (0, 1)) for k in lags]
    return {
        "mean": x.mean((0, 1)),
        "std": x.std((0, 1)),
        "quantiles": np.quantile(x, np.linspace(0.01, 0.99, 99), (0, 1)),
        "correlation": np.stack(correlation),
    }


def measure_climate(name: str, truth, other):
    """The largest differences over variables; of a second truth as well, for the noise."""
    batch = plain(prior_of(name), {"window": lambda x: x})
    keys = jax.random.split(jax.random.key(6), DRAWS // BATCH)
    drawn = np.concatenate([np.asarray(batch(k)["window"]) for k in keys])
    true = climate(truth)
    table = {}
    for label, x in (("prior", drawn), ("truth again", np.asarray(other)[:DRAWS])):
        found = climate(x)
        table[label] = {
            "mean": float(np.max(np.abs(found["mean"] - true["mean"]) / true["std"])),
            "std": float(np.max(np.abs(found["std"] / true["std"] - 1))),
            "quantiles": float(
                np.max(np.mean(np.abs(found["quantiles"] - true["quantiles"]), 0) / true["std"])
            ),
            "correlation": float(np.max(np.abs(found["correlation"] - true["correlation"]))),
        }
    keep([name, "climate"], table)


def measure_descent(name: str, test):
    """Where on its way down the levels a prior's law goes wrong.

    Windows of the system, made noisy to a level, are brought back by the probability flow in
    twice the steps of a draw: they have the system's law again if the prior is right below it.
    """
    case, prior = CASES[name], without_spin_up(prior_of(name))
    denoiser, sweep = prior.denoiser, jax.vmap(case.sweep)
    target = Target(prior)
    levels = prior.schedule.levels(2 * prior.n_steps)
    x = test[:RETURNS]
    noise = jax.random.normal(jax.random.key(15), (len(x), target.size))

    @eqx.filter_jit
    def back(x, noise, below):
        def one(item):
            x, e = item
            v = (target.white(x) + below[0] * e) / jnp.sqrt(1 + below[0] ** 2)
            slope = lambda v, s: denoiser.correction(v, s, None)
            return target.state(integrated(slope, below, v, log_weights))

        return jax.lax.map(one, (x, noise), batch_size=125)

    def told(x):
        share = {k: float(jnp.mean(sweep(x) > known()[name]["thresholds"][k])) for k in RARE}
        return {"variance": float(jnp.mean(x.var((0, 1)) / test.var((0, 1))))} | share

    table = {"as they are": told(x)}
    for start in STARTS:
        below = levels[levels <= start]
        table[f"{start:g}"] = told(back(x, noise, below))
    keep([name, "descent"], table)


def crps(members, truth, scale) -> dict[str, float]:
    """Fair CRPS in climatological standard deviations, by lead; `(case, member, step, d)`."""
    each = scoringrules.crps_ensemble(np.asarray(truth), np.asarray(members), 1, estimator="fair")
    each = np.mean(each / scale, (0, 2))
    return {str(k): float(each[k]) for k in LEADS}


def measure_forecasts(name: str, train, test):
    """From first states with an error: the prior, told or inpainted, and the model."""
    case, prior = CASES[name], prior_of(name)
    given = prior.denoiser.given
    scale = np.asarray(train, float).std((0, 1))
    truth = test[:CASES_FORECAST]
    key = jax.random.key(8)
    seen_key, member_key, draw_key = jax.random.split(key, 3)
    step = ModelTransition(case.model, round(case.interval / case.model.dt)).mean
    error = jnp.asarray(ERROR * scale, jnp.float32)
    seen = truth[:, 0] + error * jax.random.normal(seen_key, truth[:, 0].shape)
    shape = (len(truth), MEMBERS, truth.shape[-1])
    first = seen[:, None] + error * jax.random.normal(member_key, shape)

    @jax.jit
    def runs(first):
        many = jax.vmap(jax.vmap(step, (0, None)), (0, None))
        path = jax.lax.scan(lambda x, _: (many(x, jnp.zeros(())), x), first, None, length=STEPS)[1]
        return jnp.moveaxis(path, 0, 2)

    model = runs(first)

    @jax.jit
    def told(begun, key):
        one = lambda c, k: sample(prior.denoiser, prior.schedule, c, k, prior.n_steps)
        keys = jax.random.split(key, begun.shape[:2])
        return jax.vmap(jax.vmap(one))(begun, keys).reshape(*begun.shape[:2], *prior.shape)

    drawn = jnp.concatenate(
        [
            told(model[i : i + 10, :, :given], jax.random.fold_in(draw_key, i))
            for i in range(0, len(truth), 10)
        ]
    )
    climatology = jnp.broadcast_to(train[None, :200], (len(truth), 200, *train.shape[1:]))
    keep(
        [name, "forecast"],
        {
            "prior, told the first states": crps(drawn, truth, scale),
            "model, perturbed": crps(model, truth, scale),
            "climatology": crps(climatology, truth, scale),
        },
    )
    measure_inpainting(name, without_spin_up(prior), model[:10], truth[:10], scale, given)


def measure_inpainting(name, prior, model, truth, scale, given):
    """The first states put in, or seen as an event, by a prior that is not told: ten cases."""
    mask = jnp.broadcast_to(jnp.arange(STEPS)[:, None] < given, prior.shape)
    centre = model[:, 0]  # one member's first states, in place of each its own
    key, width = jax.random.key(12), jnp.tile(jnp.asarray(scale * ERROR, jnp.float32), given)

    beginning = lambda x: x[:given].reshape(-1)

    def as_event(i):
        event = Equals(beginning, beginning(centre[i]), width)
        return conditional_draws(prior, event, key, MEMBERS, method="score", levels=32)

    put = lambda i, **more: inpainted_draws(
        prior, centre[i], mask, jax.random.fold_in(key, i), MEMBERS, levels=32, **more
    )
    ways = {
        "inpainting": lambda i: put(i),
        "inpainting, five repeats": lambda i: put(i, repeats=5),
        "inpainting, guided": lambda i: put(i, width=0.3),
        "an event, conditional score": as_event,
    }
    table = known()[name]["forecast"]
    for label, way in ways.items():
        members = np.stack([np.asarray(way(i)) for i in range(len(truth))])
        table[label + " (10 cases)"] = crps(members, truth, scale)
        keep([name, "forecast"], table)
    table["model, perturbed (10 cases)"] = crps(model, truth, scale)
    keep([name, "forecast"], table)


def main(systems: Annotated[str, typer.Option()] = ",".join(CASES)):
    for name in systems.split(","):
        train, test = windows(name, WINDOWS, 0), windows(name, DRAWS, 1)
        begun = windows(name, DRAWS, 1, prior_of(name).denoiser.spin_up)
        measure_climate(name, train, test)
        measure_descent(name, begun)
        measure_forecasts(name, train, test)
        measure_likelihood(name, train, begun)
    write(known())


if __name__ == "__main__":
    typer.run(main)
