"""Daily wind at twelve Irish stations, each withheld in turn.

    python experiments/irish_wind/run.py path/to/wind.data

Fitted to 1961-1974 (settings chosen on 1972-1974, fitted before), tested on 1975-1978. Writes
results.json, figure.png and README.md's table; settings that results.json has are not chosen anew.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scoringrules
import typer
from matplotlib.figure import Figure

import dasim
from dasim.filters import ETKF, ExtendedKalmanFilter
from dasim.models import SeasonalLinear, fit_seasonal
from dasim.pages import fill
from dasim.transitions import ModelTransition
from dasim.types import DataError

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
STATIONS = "RPT VAL ROS KIL SHA BIR DUB CLA MUL CLO BEL MAL".split()
YEAR = 365.25
LEAD = 60  # days before those that count
MEMBERS = 100


def read(path: Path) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Days, and the square root of the wind speed in knots, `(day, 12)`; NaN where missing."""
    days, rows = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if len(words) != 15 or not words[0].isdigit():
            continue
        try:
            year, month, day, *speeds = (float(w) for w in words)
            days.append(pd.Timestamp(1900 + int(year), int(month), int(day)))
        except ValueError as error:
            raise DataError(f"{path}: line {number}: {error}") from None
        if min(v for v in speeds if v == v) < 0:
            raise DataError(f"{path}: line {number}: a wind speed below zero")
        rows.append(speeds)
    if not rows:
        raise DataError(f"{path}: no line has a date and twelve wind speeds")
    return pd.DatetimeIndex(days), np.sqrt(np.array(rows))


def anomalies(days, values, fitted):
    """Values without the seasonal cycle of the fitted days, two harmonics of the year."""
    t = np.asarray(days.dayofyear, float)
    x = np.stack([f(2 * np.pi * k * t / YEAR) for k in (1, 2) for f in (np.cos, np.sin)], 1)
    x = np.concatenate([np.ones((len(t), 1)), x], 1)
    out = np.empty_like(values)
    for j in range(values.shape[1]):
        use = fitted & np.isfinite(values[:, j])
        out[:, j] = values[:, j] - x @ np.linalg.lstsq(x[use], values[use, j], rcond=None)[0]
    return out


def model(a, t, fitted, slow: float, memory: float) -> SeasonalLinear:
    """The state is (weather, slow offset) of each station; what is seen is their sum.

    Args:
        slow: standard deviation of the offsets.
        memory: their e-folding time, in days.
    """
    # in training an offset is taken for the mean of the days around
    filled = np.where(np.isfinite(a), a, 0.0)
    kernel = np.exp(-np.abs(np.arange(-365, 366)) / memory)
    weight = np.convolve(np.ones(len(a)), kernel, "same")
    offset = np.stack([np.convolve(c, kernel, "same") / weight for c in filled.T], 1)
    common = offset.mean(1, keepdims=True)  # of the whole country: that is weather
    weather = a - (offset - common if slow else 0.0)
    pair = np.isfinite(weather[:-1]).all(1) & np.isfinite(weather[1:]).all(1)
    pair &= fitted[:-1] & fitted[1:]
    (at,) = np.nonzero(pair)
    found = fit_seasonal(weather[at], weather[at + 1], t[at], YEAR)
    n = a.shape[1]
    matrices = np.zeros((3, 2 * n, 2 * n))
    matrices[:, :n, :n] = found.matrices
    keep = np.exp(-1 / memory)
    matrices[0, n:, n:] = keep * np.eye(n)
    covs = np.zeros((len(found.covs), 2 * n, 2 * n))
    covs[:, :n, :n] = found.covs
    covs[:, n:, n:] = max(slow, 1e-4) ** 2 * (1 - keep**2) * np.eye(n)
    return SeasonalLinear(matrices, covs, YEAR)


class Sum(dasim.operators.AbstractOperator):
    """Weather and offset together."""

    @property
    def linear(self):
        return True

    def __call__(self, x, t):
        return x[:12] + x[12:]


def assimilate(filter, system, a, t, days, error, slow, key, members=MEMBERS):
    """Analyses at each station when it is withheld: members `(fold, day, member)`."""
    transition = ModelTransition(system)
    observation = dasim.Observation(Sum(), dasim.Gaussian(std=error))
    rng = np.random.default_rng(0)
    spread = np.nanstd(a, 0)
    first = np.concatenate(
        [spread * rng.standard_normal((members, 12)), slow * rng.standard_normal((members, 12))], 1
    )
    seen = np.isfinite(a[days])
    value = jnp.asarray(np.where(seen, a[days], 0.0))
    time = jnp.asarray(t[days])

    @jax.jit
    def fold(station, key):
        mask = jnp.asarray(seen) & (jnp.arange(12) != station)
        observations = dasim.Observations(time, value, mask)

        def save(info):
            pick = lambda x: x[:, station] + x[:, 12 + station]
            return pick(info.forecast), pick(info.analysis)

        return dasim.cycle(
            filter, transition, observation, jnp.asarray(first), observations, key, save
        )[1]

    runs = [fold(s, jax.random.fold_in(key, s)) for s in range(12)]
    return [np.stack([np.asarray(r[i]) for r in runs]) for i in range(2)]


def scores(members, truth, error, rng) -> dict:
    """Against the withheld reports `(fold, day)`; the error of a report is added to members."""
    good = np.isfinite(truth)
    mean = members.mean(-1)
    noisy = members + error * rng.standard_normal(members.shape)
    low, high = np.quantile(noisy, [0.05, 0.95], axis=-1)
    inside = (low <= truth) & (truth <= high)
    crps = scoringrules.crps_ensemble(np.where(good, truth, 0.0), noisy, estimator="fair")
    variance = members.var(-1, ddof=1) + error**2
    return {
        "rmse": float(np.sqrt(np.mean((mean - truth)[good] ** 2))),
        "crps": float(crps[good].mean()),
        "coverage_90": float(inside[good].mean()),
        "spread": float(np.sqrt(variance[good].mean())),
        "by_station": {
            s: float(np.sqrt(np.mean((mean - truth)[i][good[i]] ** 2)))
            for i, s in enumerate(STATIONS)
        },
    }


def choose(a, t, year) -> dict:
    """Settings by the RMSE at withheld stations in 1972-1974, with a fit to 1961-1971."""
    fitted = year <= 1971
    days = np.flatnonzero((year >= 1972) & (year <= 1974))
    best, table = None, []
    for slow, memory in ((0.0, 100.0), (0.1, 30.0), (0.1, 100.0), (0.2, 100.0), (0.2, 300.0)):
        system = model(a, t, fitted, slow, memory)
        for error in (0.05, 0.15, 0.25):
            filter = ExtendedKalmanFilter()
            found = assimilate(filter, system, a, t, days, error, slow, jax.random.key(0))[1]
            truth = a[days].T[:, LEAD:]
            row = {"slow": slow, "memory": memory, "error": error}
            row |= scores(found[:, LEAD:], truth, error, np.random.default_rng(1))
            table.append({k: v for k, v in row.items() if k != "by_station"})
            print({k: round(v, 4) for k, v in table[-1].items()}, flush=True)
            if best is None or row["rmse"] < best["rmse"]:
                best = row
    return {k: best[k] for k in ("slow", "memory", "error")} | {"tried": table}


def figure(days, a, members, station):
    i = STATIONS.index(station)
    fig = Figure((9, 3), layout="constrained")
    axis = fig.subplots()
    shown = slice(LEAD, LEAD + 120)
    when = days[shown]
    low, high = np.quantile(members[i, shown], [0.05, 0.95], axis=-1)
    axis.fill_between(when, low, high, color="#0072B2", alpha=0.25, lw=0, label="90 % of members")
    axis.plot(when, members[i, shown].mean(-1), color="#0072B2", label="analysis, withheld")
    axis.plot(when, a[shown, i], "k.", ms=4, label=f"reports of {station}")
    axis.set(ylabel="anomaly, square root of knots")
    axis.legend(frameon=False, ncols=3, fontsize=8)
    fig.savefig(HERE / "figure.png", dpi=110)


def main(path: Path):
    jax.config.update("jax_enable_x64", True)
    days, values = read(path)
    year = np.asarray(days.year)
    t = np.asarray((days - days[0]) / pd.Timedelta("1D")) + days[0].dayofyear
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    chosen = known.get("chosen") or choose(anomalies(days, values, year <= 1971), t, year)
    a = anomalies(days, values, year <= 1974)
    test = np.flatnonzero(year >= 1975)
    test = np.arange(test[0] - LEAD, test[-1] + 1)
    truth = a[test].T[:, LEAD:]
    system = model(a, t, year <= 1974, chosen["slow"], chosen["memory"])
    results = {"chosen": chosen, "climatology": float(np.sqrt(np.nanmean(truth**2)))}
    persistence = a[test[LEAD:]] - a[test[LEAD:] - 1]
    results["persistence, own"] = float(np.sqrt(np.nanmean(persistence**2)))
    filters = {
        "exact Kalman filter": ExtendedKalmanFilter(),
        "ETKF, 150 members": ETKF(inflation=1.02),
    }
    for name, filter in filters.items():
        forecast, analysis = assimilate(
            filter, system, a, t, test, chosen["error"], chosen["slow"], jax.random.key(1),
            150 if "150" in name else MEMBERS,
        )  # fmt: skip
        rng = np.random.default_rng(2)
        results[name] = {
            "analysis": scores(analysis[:, LEAD:], truth, chosen["error"], rng),
            "background": scores(forecast[:, LEAD:], truth, chosen["error"], rng),
        }
        print(name, {k: v for k, v in results[name]["analysis"].items() if k != "by_station"})
        if name == "exact Kalman filter":
            figure(days[test], a[test], analysis, "MAL")
    plain = model(a, t, year <= 1974, 0.0, 100.0)
    found = assimilate(
        ExtendedKalmanFilter(), plain, a, t, test, chosen["error"], 0.0, jax.random.key(1)
    )
    none = {
        "analysis": scores(found[1][:, LEAD:], truth, chosen["error"], np.random.default_rng(2))
    }
    results["exact Kalman filter, no offsets"] = none
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write(results)


def write(results):
    lines = [
        "| method | RMSE | CRPS | 90 % coverage | spread / RMSE | background |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("climatology", "persistence, own"):
        lines.append(f"| {name} | {results[name]:.3f} | | | | |")
    for name, r in results.items():
        if not isinstance(r, dict) or "analysis" not in r:
            continue
        x = r["analysis"]
        background = f"{r['background']['rmse']:.3f}" if "background" in r else ""
        lines.append(
            f"| {name} | {x['rmse']:.4f} | {x['crps']:.4f} | {x['coverage_90']:.3f} "
            f"| {x['spread'] / x['rmse']:.2f} | {background} |"
        )
    fill(HERE / "README.md", {"table": lines})


if __name__ == "__main__":
    typer.run(main)
