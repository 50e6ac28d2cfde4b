"""Case 7: how many cycles a filter needs after each shock to be as good as before.

    python experiments/headline/recovery.py [method ...]

Each method runs as for the table, with its best settings in results.json. It has
recovered from a shock in the first cycle in which the RMSE of its analysis is below the 95 %
quantile of its RMSE in the cycles that are ten or more after the last shock. Adds `recovery` to
the method's entry in results.json: shocks, the share recovered from within five cycles, the
median, and the longest.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from run import HERE, RESULTS, runs, truths

from dasim import tuning

CASE, SHOCK, QUIET, WITHIN = 7, 0.02, 10, 5


def shocked(problem) -> np.ndarray:
    """The cycles at whose end the truth is not where the model takes it."""
    truth = jnp.concatenate([problem.start[None], jnp.asarray(problem.truth)])
    ahead = jax.vmap(lambda x: problem.dynamics.mean(x, jnp.zeros(())))(truth[:-1])
    return np.abs(np.asarray(truth[1:] - ahead)).max(1) > SHOCK


def cycles_to_recover(rmse: np.ndarray, shock: np.ndarray, burn_in: int) -> list[int]:
    """From each shock after the burn-in to the first good cycle; 0 if it is that of the shock."""
    last = np.maximum.accumulate(np.where(shock, np.arange(len(shock)), -QUIET))
    scored = np.arange(len(rmse)) >= burn_in
    good = rmse <= np.quantile(rmse[scored & (np.arange(len(rmse)) - last >= QUIET)], 0.95)
    out = []
    for at in np.flatnonzero(shock & scored):
        after = np.flatnonzero(good[at:])
        out.append(int(after[0]) if len(after) else len(rmse) - at)
    return out


def main(names: list[str]):
    """Measure the wanted methods, all that have an entry by default."""
    plan = yaml.safe_load((HERE / "cases.yaml").read_text())
    results = json.loads(RESULTS.read_text())
    entries = results[str(CASE)]
    case = next(c for c in plan["cases"] if c["number"] == CASE)
    run, _ = runs(case, plan)
    problems = truths(case, run)
    shocks = [shocked(p) for p in problems]
    for method in run.methods:
        entry = entries.get(method.name, {})
        if "settings" not in entry or (names and method.name not in names):
            continue
        method = tuning.with_settings(method, entry["settings"])
        rmse = tuning.series_of(run, [method], problems)[0].rmse[..., 1]  # of the analysis
        found = [
            cycles
            for series, shock in zip(rmse, shocks, strict=True)
            for cycles in cycles_to_recover(series, shock, run.cycle.burn_in)
        ]
        entry["recovery"] = {
            "shocks": len(found),
            "within_5": float(np.mean(np.array(found) <= WITHIN)),
            "median": float(np.median(found)),
            "longest": max(found),
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(method.name, entry["recovery"], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
