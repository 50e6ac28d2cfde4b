"""What broken sensors cost a filter with quality control, and without.

    python experiments/sensors/faults.py

Faults of Lorenz-96's sensors, one kind at a time and all together; RMSE over that of the run
without faults. Writes faults.json and README.md's table.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pandas as pd
import yaml

from dasim import config as schema
from dasim import tuning
from dasim.observe import Quality
from dasim.pages import fill
from dasim.problems import checks, quality
from dasim.sensors import make_table, to_cycles

HERE = Path(__file__).parent
TRUTHS = 3
EPOCH = pd.Timestamp("2000-01-01")


def gross(value, mask, rng):
    """A tenth of the values is off by 20 standard deviations."""
    wrong = rng.random(value.shape) < 0.1
    return np.where(wrong, value + 20.0 * rng.choice([-1, 1], value.shape), value), mask


def stuck_sensor(value, mask, rng):
    """One sensor says the same from cycle 60 on."""
    value = value.copy()
    value[60:, 7] = value[60, 7]
    return value, mask


def missing(value, mask, rng):
    """Of every 50 cycles five in a row have only a tenth of their values."""
    spell = np.arange(len(value)) % 50 < 5
    return value, mask & ~(spell[:, None] & (rng.random(value.shape) < 0.9))


def burst(value, mask, rng):
    """In a tenth of the cycles each value arrives 30 times; through a table, as files give it."""
    cycle, site = np.nonzero(mask)
    often = np.where(rng.random(len(value))[cycle] < 0.1, 30, 1)
    cycle, site = np.repeat(cycle, often), np.repeat(site, often)
    order = rng.permutation(len(cycle))
    names = [f"S{i:02d}" for i in range(value.shape[1])]
    table = make_table(
        "the burst",
        {"x": "1"},
        variable="x",
        time=EPOCH + pd.to_timedelta(cycle[order], unit="h"),
        value=value[cycle, site][order],
        station=np.array(names)[site[order]],
    )
    times = EPOCH + pd.to_timedelta(np.arange(len(value)), unit="h")
    cut = to_cycles(table, times, "30min", slots=[(n, "x") for n in names], several="mean")
    return np.asarray(cut.observations.value), np.asarray(cut.observations.mask)


def everything(value, mask, rng):
    """All of them at once."""
    for fault in (gross, stuck_sensor, missing, burst):
        value, mask = fault(value, mask, rng)
    return value, mask


FAULTS = {
    "none": lambda value, mask, rng: (value, mask),
    "10 % gross errors of 20 sigma": gross,
    "one stuck sensor": stuck_sensor,
    "90 % missing in spells": missing,
    "bursts of duplicates": burst,
    "all at once": everything,
}


def broken(run: schema.Run, problem, fault, seed: int):
    """The problem with a fault in its observations, and what the config's checks leave."""
    observations = problem.observations
    value, mask = fault(
        np.asarray(observations.value, float),
        np.asarray(observations.mask),
        np.random.default_rng(seed),
    )
    fields = lambda o: (o.value, o.mask)
    own = jnp.asarray(value, observations.value.dtype), jnp.asarray(mask)
    observations = eqx.tree_at(fields, observations, own)
    kept = jnp.asarray(quality(run, observations) == Quality.PASSED)
    problem.observations = eqx.tree_at(lambda o: o.mask, observations, kept)
    problem.observation = eqx.tree_at(
        lambda o: o.checks, problem.observation, checks(run), is_leaf=lambda a: isinstance(a, tuple)
    )
    return problem


def measured(run: schema.Run, method: schema.Method, problems: list) -> dict:
    """A method's scores, and how many truths it lost."""
    row = tuning.measure(run, [method], problems)[0]
    entry = {k: round(row[f"{k}_analysis"], 4) for k in ("rmse", "spread", "crps", "coverage_90")}
    return entry | {"diverged": row["diverged"]}


def main():
    run = schema.Run.model_validate(yaml.safe_load((HERE / "faults.yaml").read_text()))
    without = run.model_copy(update={"quality_control": None})
    results = {}
    for label, settings in (("on", run), ("off", without)):
        for name, fault in FAULTS.items():
            problems = tuning.twins(without, TRUTHS)
            problems = [broken(settings, p, fault, s) for s, p in enumerate(problems)]
            for method in run.methods:
                if label == "off" and method.name == "score":
                    continue
                entry = measured(settings, method, problems)
                results.setdefault(name, {})[f"{method.name}, {label}"] = entry
                print(name, method.name, label, entry, flush=True)
        (HERE / "faults.json").write_text(json.dumps(results, indent=1) + "\n")
    write(results)


def write(results):
    """README.md's table."""
    columns = list(results["none"])
    lines = [f"| fault | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for name, rows in results.items():
        cells = []
        for c in columns:
            ratio = rows[c]["rmse"] / results["none"][c]["rmse"]
            lost = f", {rows[c]['diverged']} lost" if rows[c]["diverged"] else ""
            cells.append(f"{rows[c]['rmse']:.3f} ({ratio:.2f}{lost})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    fill(HERE / "README.md", {"faults": lines})


if __name__ == "__main__":
    main()
