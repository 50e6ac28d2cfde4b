"""The shipped priors of simulated systems: their forecasts and their climate against the model's.

    python experiments/priors/run.py [prior ...]

Writes results.json, the table of README.md, and a figure for each prior.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from dasim import diagnostics
from dasim.config import System
from dasim.pages import fill
from dasim.problems import SHIPPED, climate, system_transition
from dasim.trained import load_prior
from dasim.transitions import AbstractTransition, DiffusionTransition

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
STATES, MEMBERS, LONG, CHAINS = 500, 64, 2000, 16


@eqx.filter_jit
def forecasts(transition, states, key):
    """`MEMBERS` draws from each state, `(member, state, n)`."""
    keys = jax.random.split(key, (MEMBERS, len(states)))
    draw = jax.vmap(transition.sample, (0, None, 0))
    return jax.vmap(draw, (None, None, 0))(states, jnp.zeros(()), keys)


@eqx.filter_jit
def free_run(transition, states, key):
    """`LONG` intervals of each chain, `(interval, chain, n)`."""

    def step(x, k):
        keys = jax.random.split(jax.random.fold_in(key, k), len(x))
        x = jax.vmap(transition.sample, (0, None, 0))(x, jnp.zeros(()), keys)
        return x, x

    return jax.lax.scan(step, states, jnp.arange(LONG))[1]


class Repeated(eqx.Module):
    """`times` intervals of a transition, each a draw from the last."""

    transition: AbstractTransition
    times: int = eqx.field(static=True)

    def sample(self, x, t, key):
        for k in jax.random.split(key, self.times):
            x = self.transition.sample(x, t, k)
            t = t + self.transition.interval
        return x


def shorter(system: System) -> dict[str, Repeated]:
    """The shipped priors of the same system that make up this interval when repeated."""
    found = {}
    for path in sorted(SHIPPED.glob("*.safetensors")):
        transition, header = load_prior(path)
        other = header["config"].get("system")
        if other is None or not isinstance(transition, DiffusionTransition):
            continue
        times = round(system.interval / transition.interval)
        if times < 2:
            continue
        # an older header may leave out settings that have defaults
        other = SYSTEM.validate_python(other | {"interval": system.interval})
        if other == system and np.isclose(times * transition.interval, system.interval):
            found[f"{path.stem}, {times} times"] = Repeated(transition, times)
    return found


def one_interval(transition, states, truth, key) -> dict:
    """Scores of the forecast over one interval."""
    scores = diagnostics.score(np.asarray(forecasts(transition, states, key)), truth)
    rmse = float(np.sqrt(np.mean(scores.error**2)))
    spread = float(np.sqrt(np.mean(scores.variance)))
    return {
        "rmse": rmse,
        "spread": spread,
        "ratio": spread / rmse if spread > 0 else None,
        "crps": float(np.mean(scores.crps)),
        "coverage_90": float(np.mean(scores.covered)),
    }


def correlation(run: np.ndarray, lags: int) -> np.ndarray:
    """Autocorrelation of the variables over time, mean over chains and variables."""
    x = run - run.mean((0, 1))
    variance = (x**2).mean((0, 1))
    return np.array(
        [np.mean((x[lag:] * x[: len(x) - lag]).mean((0, 1)) / variance) for lag in range(lags)]
    )


def spectrum(run: np.ndarray) -> np.ndarray:
    """Power in time, mean over chains and variables."""
    x = run - run.mean((0, 1))
    return (np.abs(np.fft.rfft(x, axis=0)) ** 2).mean((1, 2)) / len(x)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance of the marginal laws, mean over the variables."""
    found = []
    for i in range(a.shape[-1]):
        u, v = np.sort(a[..., i].ravel()), np.sort(b[..., i].ravel())
        at = np.concatenate([u, v])
        cdf = [np.searchsorted(w, at, side="right") / len(w) for w in (u, v)]
        found.append(np.abs(cdf[0] - cdf[1]).max())
    return float(np.mean(found))


def measure(name: str) -> dict | None:
    """One prior; None for those that are not of a simulated system."""
    transition, header = load_prior(SHIPPED / f"{name}.safetensors")
    content = header["config"].get("system")
    if "window" in header["config"]:
        return None  # of trajectories: see experiments/events
    if content is None:
        return None
    system = SYSTEM.validate_python(content)
    model = system_transition(system)
    # a prior of functions is trained on a coarser grid
    transition, _ = load_prior(SHIPPED / f"{name}.safetensors", model.shape)
    start_key, truth_key, draw_key, run_key, other_key = jax.random.split(jax.random.key(7), 5)
    states = climate(model, STATES, start_key)
    keys = jax.random.split(truth_key, STATES)
    truth = np.asarray(jax.vmap(model.sample, (0, None, 0))(states, jnp.zeros(()), keys))
    runs = {
        "model": np.asarray(free_run(model, states[:CHAINS], run_key), float),
        "prior": np.asarray(free_run(transition, states[:CHAINS], run_key), float),
        # another draw of the model: what two runs of one law differ by
        "again": np.asarray(free_run(model, states[-CHAINS:], other_key), float),
    }
    figure(name, model.interval, runs)
    result = {"bytes": (SHIPPED / f"{name}.safetensors").stat().st_size}
    for which, one in (("model", model), ("prior", transition)):
        result[which] = one_interval(one, states, truth, draw_key)
        x = runs[which]
        result[which] |= {"mean": float(x.mean()), "std": float(x.std((0, 1)).mean())}
    result["composed"] = {
        which: one_interval(repeated, states, truth, draw_key)
        for which, repeated in shorter(system).items()
    }
    result["distance"] = distance(runs["model"], runs["prior"])
    result["distance_of_two_runs"] = distance(runs["model"], runs["again"])
    return result


def figure(name, interval, runs):
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.4))
    low, high = (np.quantile(runs["model"], q) for q in (0.0005, 0.9995))
    for which, style in (
        ("model", dict(color="k", lw=1.8)),
        ("prior", dict(color="tab:red", lw=1.2)),
    ):
        x = runs[which]
        density, edges = np.histogram(x, 80, (low, high), density=True)
        left.plot((edges[1:] + edges[:-1]) / 2, density, label=which, **style)
        lags = 40
        middle.plot(interval * np.arange(lags), correlation(x, lags), **style)
        power = spectrum(x)
        frequency = np.fft.rfftfreq(len(x), interval)
        blocks = [b.mean() for b in np.array_split(power[1:], 60)]
        at = [b.mean() for b in np.array_split(frequency[1:], 60)]
        right.semilogy(at, blocks, **style)
    left.set(xlabel="state", title=f"{name}: histogram")
    middle.set(xlabel="lag (time units)", title="autocorrelation")
    right.set(xlabel="frequency (1 / time unit)", title="power in time")
    left.legend(frameon=False)
    fig.tight_layout()
    fig.savefig(HERE / f"{name}.png", dpi=100)
    plt.close(fig)


def write(results: dict):
    """The table of README.md, between its marks."""
    lines = [
        "| prior | kB | RMSE | CRPS | spread / RMSE | 90 % coverage | climate: mean, std | distance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, r in sorted(results.items()):
        for which, label in (("model", "the model itself"), ("prior", f"**{name}**")):
            s, learned = r[which], which == "prior"
            far = r["distance"] if learned else r["distance_of_two_runs"]
            if s["ratio"] is None:  # a model without noise
                lines.append(
                    f"| {label} | | 0 | 0 | | | {s['mean']:.2f}, {s['std']:.2f} | {far:.4f} |"
                )
                continue
            lines.append(
                f"| {label} | {r['bytes'] // 1000 if learned else ''} | {s['rmse']:.4f} | {s['crps']:.4f} "
                f"| {s['ratio']:.3f} | {s['coverage_90']:.3f} | {s['mean']:.2f}, {s['std']:.2f} | {far:.4f} |"
            )
        for which, s in r.get("composed", {}).items():
            lines.append(
                f"| {which} | | {s['rmse']:.4f} | {s['crps']:.4f} | {s['ratio']:.3f} "
                f"| {s['coverage_90']:.3f} | | |"
            )
    lines += ["", *(f"![{name}]({name}.png)" for name in sorted(results))]
    fill(HERE / "README.md", {"table": lines})


def main(names: list[str]):
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names or sorted(p.stem for p in SHIPPED.glob("*.safetensors")):
        result = measure(name)
        if result is not None:
            results[name] = result
            print(name, json.dumps(result, indent=1), flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write(results)


if __name__ == "__main__":
    from pydantic import TypeAdapter

    SYSTEM = TypeAdapter(System)
    main(sys.argv[1:])
