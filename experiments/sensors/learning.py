"""Sensors with biases and errors that nobody told: learned online, or not.

    python experiments/sensors/learning.py

Lorenz-96 of faults.yaml without quality control; scores with `error_estimation` and without.
Writes learning.json and README.md's table.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import yaml
from faults import TRUTHS, measured

from dasim import config as schema
from dasim import tuning
from dasim.pages import fill

HERE = Path(__file__).parent
LEARN = schema.ErrorEstimation(bias={"constant": 1.0, "value": 0.2}, std=True)
SENSORS = {  # bias and gain of every fourth sensor, and what all are said to have for an error
    "as told": (0.0, 1.0, 1.0),
    "every 4th reads 1.5 too high": (1.5, 1.0, 1.0),
    "every 4th has a gain of 1.3": (0.0, 1.3, 1.0),
    "all, said to be half as good": (0.0, 1.0, 2.0),
    "all, said to be twice as good": (0.0, 1.0, 0.5),
    "biased, and said to be half as good": (1.5, 1.0, 2.0),
}


def told(problem, bias: float, gain: float, std: float):
    """The problem with such sensors; their errors' real standard deviation is 1."""
    some = np.arange(problem.observations.value.shape[1]) % 4 == 0
    value = problem.observations.value
    wrong = jnp.where(some, gain * value + bias, value)
    problem.observations = eqx.tree_at(lambda o: o.value, problem.observations, wrong)
    problem.observation = eqx.tree_at(
        lambda o: o.error.std, problem.observation, jnp.asarray(std, float)
    )
    return problem


def main():
    run = schema.Run.model_validate(yaml.safe_load((HERE / "faults.yaml").read_text()))
    run = run.model_copy(update={"quality_control": None})
    results = {}
    for name, sensors in SENSORS.items():
        for label, learn in (("told", None), ("learned", LEARN)):
            settings = run.model_copy(update={"error_estimation": learn})
            problems = [told(p, *sensors) for p in tuning.twins(settings, TRUTHS)]
            for method in settings.methods:
                entry = measured(settings, method, problems)
                results.setdefault(name, {})[f"{method.name}, {label}"] = entry
                print(name, method.name, label, entry, flush=True)
        (HERE / "learning.json").write_text(json.dumps(results, indent=1) + "\n")
    columns = list(results["as told"])
    lines = [f"| sensors | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for name, rows in results.items():
        cells = (
            f"{r['rmse']:.3f} / {r['crps']:.3f} / {r['spread'] / r['rmse']:.2f}"
            + (f", {r['diverged']} lost" if r["diverged"] else "")
            for r in (rows[c] for c in columns)
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    fill(HERE / "README.md", {"learning": lines})


if __name__ == "__main__":
    main()
