"""Case 7: how many cycles a filter needs after each shock to be as good as before.

    python experiments/headline/recovery.py [--told] [method ...]

Each method runs as for the table, with its best settings in results.json. It has
recovered from a shock in the first cycle in which the RMSE of its analysis is below the 95 %
quantile of its RMSE in the cycles that are ten or more after the last shock. Adds `recovery` to
the method's entry in results.json: shocks, the share recovered from within five cycles, the
median, and the longest.

With `--told` each method is told of the shocks: before a cycle with one its members are kicked by
the same law. That bounds what a filter can reach; it is printed and not kept.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from jaxtyping import Array, Float
from run import HERE, RESULTS, runs, truths

from dasim import tuning
from dasim.build import make_filter
from dasim.cycling import cycle
from dasim.filters.base import AbstractFilter

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


class Told(AbstractFilter):
    """A filter whose members are shocked in the cycles in which the truth is."""

    filter: AbstractFilter
    times: Float[Array, " shock"]
    size: float

    def init(self, ensemble, key):
        return self.filter.init(ensemble, key)

    def step(self, transition, observation, state, obs, key):
        kick_key, key = jax.random.split(key)
        x = state.ensemble
        kick = self.size * jnp.abs(x) * jax.random.normal(kick_key, x.shape, x.dtype)
        now = jnp.any(self.times == obs.time)
        state = state._replace(ensemble=x + jnp.where(now, kick, 0.0))
        return self.filter.step(transition, observation, state, obs, key)


def rmse_when_told(run, method, problem, shock, seed: int) -> np.ndarray:
    """Of the analyses of a filter that is told of the shocks."""
    start_key, key = jax.random.split(jax.random.key(seed))
    ensemble = problem.ensemble(method.members or run.members, start_key)
    times = problem.observations.time[shock]
    filter = Told(make_filter(method, problem), times, run.system.shock.size)
    arguments = filter, problem.transition(method.transition), problem.observation, ensemble
    _, means = cycle(*arguments, problem.observations, key, lambda info: info.analysis.mean(0))
    return np.sqrt(np.mean((np.asarray(means) - problem.truth) ** 2, 1))


def main(names: list[str]):
    """Measure the wanted methods, all that have an entry by default."""
    told = "--told" in names
    names = [name for name in names if name != "--told"]
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
        if told:
            pairs = zip(problems, shocks, strict=True)
            rmse = [rmse_when_told(run, method, p, s, i) for i, (p, s) in enumerate(pairs)]
        else:
            rmse = tuning.series_of(run, [method], problems)[0].rmse[..., 1]  # of the analysis
        found = [
            cycles
            for series, shock in zip(rmse, shocks, strict=True)
            for cycles in cycles_to_recover(series, shock, run.cycle.burn_in)
        ]
        recovery = {
            "shocks": len(found),
            "within_5": float(np.mean(np.array(found) <= WITHIN)),
            "median": float(np.median(found)),
            "longest": int(max(found)),
        }
        print(method.name, "told" if told else "", recovery, flush=True)
        if not told:
            entry["recovery"] = recovery
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
