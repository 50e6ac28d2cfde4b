"""Sea surface temperature of the tropical Pacific: moorings withheld in four folds.

    python experiments/tao/run.py path/to/kaplan.nc path/to/tao-all2.dat.gz

The models are fitted to the Kaplan field of 1950 to 1989, their settings chosen at moorings
withheld in 1992 to 1995; the test is 1996-01 to 1998-06. Writes results.json, the figures and
README.md's table; settings that results.json has are not chosen anew.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import typer
from data import read_field, read_moorings
from figures import draw, draw_index
from folds import assimilate
from models import Settings, correlation, linear_model, train_diffusion
from scores import LEAD_IN, LEADS, all_scores, period, write

import dasim
from dasim.transitions import ModelTransition

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
MEMBERS = 200
TEST = "1996-01", "1998-06"
CHECK = "1992-01", "1995-12"

PLAIN = Settings(count=0, rest=0.0, east=1.0, north=1.0, memory=0.0, error=0.4)
START = Settings(count=1, rest=0.4, east=15.0, north=4.0, memory=0.7, error=0.15)
TRIED = {
    "memory": (0.5, 0.7, 0.85),
    "rest": (0.3, 0.4, 0.55),
    "east": (10.0, 15.0, 25.0),
    "north": (3.0, 4.0, 6.0),
    "error": (0.1, 0.15, 0.25),
    "count": (0, 1),
}


def start_of(size, rng, scale=1.0):
    return jnp.asarray(scale * rng.standard_normal((MEMBERS, size)))


def linear_run(field, moorings, s: Settings, span):
    """The exact filter of a linear model."""
    months = period(field.months, span)
    system = linear_model(field, moorings, s)
    basis = jnp.asarray(np.concatenate([moorings.modes, np.eye(len(moorings.place))]))
    rng = np.random.default_rng(3)
    first = np.concatenate(
        [
            rng.standard_normal((MEMBERS, len(moorings.modes))),
            s["rest"] * rng.standard_normal((MEMBERS, len(moorings.place))),
        ],
        1,
    )
    error = dasim.Gaussian(std=s["error"])
    r = s["error"] ** 2 * np.eye(len(moorings.place))
    index = jnp.concatenate([jnp.asarray(field.mode_index), jnp.zeros(len(moorings.place))])
    transition, first = ModelTransition(system), jnp.asarray(first)
    found = assimilate("kalman", transition, basis, index, error, r, moorings, months, first)
    return found, months


def choose(field, moorings) -> Settings:
    """One setting after the other, by the analysis at moorings withheld in 1992 to 1995."""

    def loss(s):
        found, months = linear_run(field, moorings, s, CHECK)
        return all_scores(found, moorings, field.index, months, s["error"])["analysis"]["crps"]

    best, least = START, loss(START)
    for _ in range(2):
        for name, values in TRIED.items():
            for value in values:
                if value == best[name]:
                    continue
                trial = Settings(best | {name: value})
                got = loss(trial)
                if got < least:
                    best, least = trial, got
        print("chosen", dict(best), round(least, 4), flush=True)
    return best


def plain_choice(field, moorings) -> Settings:
    """The linear model with errors of no memory and no correlation: their size alone."""
    found = {}
    for error in (0.3, 0.4, 0.5, 0.6):
        s = Settings(PLAIN | {"error": error})
        run, months = linear_run(field, moorings, s, CHECK)
        found[error] = all_scores(run, moorings, field.index, months, error)["analysis"]["crps"]
    return Settings(PLAIN | {"error": min(found, key=found.get)})


def diffusion_run(field, moorings, transition, s: Settings, span):
    """The conditional score filter with the learned transition of the modes; what the moorings
    see besides is their error, correlated in space."""
    months = period(field.months, span)
    cov = s["rest"] ** 2 * correlation(moorings.place, s) + s["error"] ** 2 * np.eye(
        len(moorings.place)
    )
    first = start_of(len(moorings.modes), np.random.default_rng(3))
    with jax.enable_x64(False):
        transition, first, modes, cov = jax.tree.map(
            lambda a: jnp.asarray(a, jnp.float32) if eqx.is_inexact_array_like(a) else a,
            (transition, first, moorings.modes, cov),
        )
        error = dasim.Gaussian(cov=cov)
        index = jnp.asarray(field.mode_index, jnp.float32)
        found = assimilate("score", transition, modes, index, error, cov, moorings, months, first)
    return found, months


def main(kaplan: Path, tao: Path, modes: int = 10, steps: int = 4000):
    jax.config.update("jax_enable_x64", True)
    field = read_field(kaplan, modes)
    moorings = read_moorings(tao, field)
    print(f"{len(moorings.place)} moorings, {np.isfinite(moorings.values).sum()} monthly means")
    results = {"moorings": len(moorings.place)}
    test = period(field.months, TEST)
    truth = moorings.values[test[LEAD_IN:]]
    results["climatology"] = float(np.sqrt(np.nanmean(truth**2)))
    for lead in LEADS[1:]:
        before = moorings.values[test[LEAD_IN:] - lead]
        results[f"persistence {lead}"] = float(np.sqrt(np.nanmean((truth - before) ** 2)))
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if "settings" in known:
        plain, chosen = (Settings(known["settings"][n]) for n in ("linear", "linear with a rest"))
    else:
        plain, chosen = plain_choice(field, moorings), choose(field, moorings)
    results["settings"] = {"linear": dict(plain), "linear with a rest": dict(chosen)}
    runs = {}
    for name, s in (("linear", plain), ("linear with a rest", chosen)):
        found, months = linear_run(field, moorings, s, TEST)
        results[name] = all_scores(found, moorings, field.index, months, s["error"])
        runs[name] = found
        print(name, json.dumps(results[name]), flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    with jax.enable_x64(False):
        transition, figures = train_diffusion(field, steps)
    results["training"] = {k: v for k, v in figures.items() if k != "steps"}
    found, months = diffusion_run(field, moorings, transition, chosen, TEST)
    total = float(np.hypot(chosen["rest"], chosen["error"]))
    results["diffusion"] = all_scores(found, moorings, field.index, months, total)
    runs["diffusion"] = found
    print("diffusion", json.dumps(results["diffusion"]), flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    draw(HERE, field, moorings, test, LEAD_IN, runs["linear with a rest"])
    draw_index(HERE, field, test, LEAD_IN, runs)
    write(HERE, results)


if __name__ == "__main__":
    typer.run(main)
