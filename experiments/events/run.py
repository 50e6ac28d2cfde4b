"""Event probabilities and draws of the shipped trajectory priors, against direct simulation.

    python experiments/events/run.py [part ...] [--systems name,name] [--only event,0.1] [--seeds 3]
        [--n 8000] [--first 32000]

Parts: gaussian, truth, counts, draws, and the methods smc, noise-splitting, splitting, density;
all of them by default.
Writes results.json after every figure, and README.md's tables and the figures (table.py).
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import jax
import jax.numpy as jnp
import numpy as np
import typer
from cases import CASES, truth
from scipy.stats import ks_2samp, norm
from table import write

from dasim.conditioning import (
    ConstantGuidance,
    MomentGuidance,
    conditional_draws,
    event_probability,
)
from dasim.covariance import DenseCovariance
from dasim.events import Exceeds
from dasim.priors import DiffusionPrior, GaussianDenoiser, sample
from dasim.problems import find_prior
from dasim.trained import load_prior

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
WINDOWS = 200_000  # of the truth
COUNTED = 100_000  # plain draws of a prior
REJECTED = 20_000  # plain draws of which those in an event are picked
BATCH = 500
DRAWN, GUIDED = 1000, 250  # draws given an event, by splitting and by guided chains
QUANTILES = (0.025, 0.5, 0.975)  # of the event's functional, to be told beside the truth's
RARITIES = (1e-1, 1e-2, 1e-3, 1e-4)
DRAWS = {"smc": 256, "noise-splitting": 256, "splitting": 4000, "density": 64}


def known() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(path: list[str], value):
    """Into results.json, at the path."""
    results = known()
    at = results
    for part in path[:-1]:
        at = at.setdefault(part, {})
    at[path[-1]] = value
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(*path, json.dumps(value)[:300], flush=True)


def prior_of(name: str):
    return load_prior(find_prior(f"{name}-window"))[0]


def events(name: str) -> dict[str, Exceeds]:
    """The event of the paper, and the thresholds of the sweep."""
    found = {"event": Exceeds(CASES[name].event, 0.0)}
    for label, level in known()[name]["thresholds"].items():
        found[label] = Exceeds(CASES[name].sweep, level)
    return found


def measure_gaussian(seeds: int):
    """A Gaussian prior and a linear event, whose probability is known."""
    rng = np.random.default_rng(0)
    n = 12
    root = rng.standard_normal((n, n))
    cov, weights = root @ root.T / n + 0.1 * np.eye(n), jnp.full(n, 1 / n)
    denoiser = GaussianDenoiser(
        jnp.asarray(rng.standard_normal(n)), DenseCovariance.from_matrix(jnp.asarray(cov))
    )
    prior = DiffusionPrior(denoiser, (n,), n_steps=1)
    mean, std = float(weights @ denoiser.offset), float(np.sqrt(weights @ cov @ weights))
    functional = lambda x: jnp.sum(weights * x)
    done = known().get("gaussian", {})
    for method in ("smc", "noise-splitting", "splitting", "density", "mc"):
        for p in (1e-1, 1e-3, 1e-6):
            if method == "mc" and p < 1e-3 or f"{p:g}" in done.get(method, {}):
                continue
            event = Exceeds(functional, mean + std * norm.isf(p))
            n = {"density": 64, "splitting": 4000}.get(method, 1000)
            repetitions = 100 if method in ("smc", "splitting") else 20
            found = [
                event_probability(prior, event, jax.random.key(k), method, n=n, levels=24)
                for k in range(repetitions)
            ]
            errors = np.log10([max(f.probability, 1e-12) / p for f in found])
            value = {
                "bias": float(errors.mean()),
                "rms": float(np.sqrt(np.mean(errors**2))),
                "covered": float(np.mean([f.low <= p <= f.high for f in found])),
                "calls": found[0].calls,
                "repetitions": repetitions,
            }
            if method == "smc":
                k = np.asarray(jax.vmap(functional)(found[0].draws))
                w = np.exp(np.asarray(found[0].log_weights))
                exact = mean + std * norm.pdf(norm.isf(p)) / p
                value["mean of the functional"] = [float(w @ k), float(exact)]
            keep(["gaussian", method, f"{p:g}"], value)


def measure_truth(name: str):
    """Probabilities of the true system, and the thresholds of the sweep."""
    case = CASES[name]
    found = truth(name, WINDOWS, {"event": case.event, "sweep": case.sweep, "mode": case.mode}, 0)
    inside = found["event"] > 0
    thresholds = {f"{p:g}": float(np.quantile(found["sweep"], 1 - p)) for p in RARITIES}
    keep([name, "thresholds"], thresholds)
    value = {k: float(np.mean(found["sweep"] > level)) for k, level in thresholds.items()}
    value |= {"event": float(inside.mean()), "mode": float(found["mode"][inside].mean())}
    keep([name, "truth"], value)


def plain(prior, functions: dict):
    """A function of a key: functionals of some draws of the prior."""

    @jax.jit
    def batch(key):
        def one(k):
            x = sample(prior.denoiser, prior.schedule, None, k, prior.n_steps)
            return {label: f(x.reshape(prior.shape)) for label, f in functions.items()}

        return jax.vmap(one)(jax.random.split(key, BATCH))

    return batch


def measure_counts(name: str, count: int):
    """The prior's own probabilities, by plain draws that all events share.

    It goes on from those that are kept.
    """
    prior, asked = prior_of(name), events(name)
    batch = plain(prior, {label: event.holds for label, event in asked.items()})
    total = known()[name].get("counts", dict.fromkeys(("n", *asked), 0))
    while total["n"] < count:
        key = jax.random.fold_in(jax.random.key(5), total["n"] // BATCH)
        for label, inside in batch(key).items():
            total[label] += int(inside.sum())
        total["n"] += BATCH
        if total["n"] % 20_000 == 0:
            keep([name, "counts"], total | {"calls": total["n"] * prior.n_steps})


def measure_probability(
    name: str, method: str, labels: list[str], seeds: int, n: int, first: int | None
):
    prior = prior_of(name)
    for label, event in events(name).items():
        if labels and label not in labels:
            continue
        for seed in range(seeds):
            if str(seed) in known()[name].get(method, {}).get(label, {}):
                continue
            began = time.perf_counter()
            found = event_probability(
                prior, event, jax.random.fold_in(jax.random.key(9), seed), method, n=n, first=first
            )
            value = {k: getattr(found, k) for k in ("probability", "low", "high", "calls")}
            value |= {"n": n} if first is None else {"n": n, "first": first}
            value["seconds"] = round(time.perf_counter() - began, 1)
            keep([name, method, label, str(seed)], value)


def rejected(name: str, functions: dict) -> dict[str, np.ndarray] | None:
    """Functionals of the prior's plain draws that lie in the event; None where too few do."""
    batch, found, inside = plain(prior_of(name), functions), [], 0
    for i in range(REJECTED // BATCH):
        drawn = batch(jax.random.fold_in(jax.random.key(6), i))
        found.append({k: np.asarray(v) for k, v in drawn.items()})
        inside += int(np.sum(found[-1]["event"] > 0))
        if inside >= 1000:
            break
    whole = {k: np.concatenate([d[k] for d in found]) for k in functions}
    return {k: v[whole["event"] > 0] for k, v in whole.items()} if inside >= 200 else None


def compared(got: dict, true: dict) -> dict[str, list[float]]:
    """Kolmogorov's and Smirnov's distance of each functional's laws, and its p-value."""
    tests = {k: ks_2samp(v, true[k], method="asymp") for k, v in got.items() if k != "mode"}
    return {k: [float(t.statistic), float(t.pvalue)] for k, t in tests.items()}


def measure_draws(name: str, samplers: list[str]):
    """Draws given the event of the paper, by several samplers, against the truth's.

    The prior's own draws in the event say what the sampler owes to the prior.
    """
    case, prior = CASES[name], prior_of(name)
    functions = {"event": case.event, **case.others, "mode": case.mode}
    true = truth(name, WINDOWS, functions, 1)
    inside, width = true["event"] > 0, float(true["event"].std())
    true = {k: v[inside] for k, v in true.items()}
    own = rejected(name, functions)
    event = Exceeds(case.event, 0.0)
    constant = ConstantGuidance(0.1 * width)
    kinds = {
        "rejection": None,
        "splitting": (DRAWN, {"method": "splitting"}),
        "smc": (GUIDED, {"method": "smc"}),
        "score": (GUIDED, {"method": "score"}),
        "score through the variance": (
            GUIDED,
            {"method": "score", "guidance": MomentGuidance(True)},
        ),
        "constant strength": (GUIDED, {"method": "score", "guidance": constant}),
    }
    every = jax.jit(jax.vmap(lambda x: {k: f(x) for k, f in functions.items()}))
    for label, kind in kinds.items():
        if label in known()[name].get("draws", {}) or samplers and label not in samplers:
            continue
        began = time.perf_counter()
        if kind is not None:
            n, options = kind
            x = conditional_draws(prior, event, jax.random.key(3), n, **options)
        elif own is None:
            continue
        else:
            x = None
        got = own if x is None else {k: np.asarray(v) for k, v in every(x).items()}
        value = {
            "inside": float(np.mean(got["event"] >= 0)),
            "mode": float(got["mode"].mean()),
            "true mode": float(true["mode"].mean()),
            "quantiles": np.quantile(got["event"], QUANTILES).tolist(),
            "true quantiles": np.quantile(true["event"], QUANTILES).tolist(),
            "ks": compared(got, true),
            "ks of the prior": None if own is None or x is None else compared(got, own),
            "n": len(got["event"]),
            "distinct": len(np.unique(got["event"])),
            "seconds": round(time.perf_counter() - began, 1),
        }
        keep([name, "draws", label], value)


def main(
    parts: Annotated[list[str] | None, typer.Argument()] = None,
    systems: str = ",".join(CASES),
    only: str = "",
    samplers: str = "",
    seeds: int = 3,
    n: int | None = None,
    first: int | None = None,
):
    """Measure PARTS for the systems; of the events `only`, and draws by the `samplers` named.

    Counts are of N draws, or COUNTED, and go on from those that are kept; estimates are of N, or
    DRAWS, after FIRST ones of splitting, and those that are kept are not made anew.
    """
    labels = [label for label in only.split(",") if label]
    chosen = parts or ["gaussian", "truth", "counts", *DRAWS, "draws"]
    if "gaussian" in chosen:
        with jax.enable_x64(True):
            measure_gaussian(seeds)
    for name in systems.split(","):
        if "truth" in chosen:
            measure_truth(name)
        if "counts" in chosen:
            measure_counts(name, n or COUNTED)
        for method, count in DRAWS.items():
            if method in chosen:
                several = 1 if method == "density" else seeds
                measure_probability(name, method, labels, several, n or count, first)
        if "draws" in chosen:
            measure_draws(name, [label for label in samplers.split(",") if label])
    write(known())


if __name__ == "__main__":
    typer.run(main)
