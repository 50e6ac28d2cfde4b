"""Sea surface temperature of the tropical Pacific: moorings withheld in four folds.

    python experiments/tao/run.py path/to/kaplan.nc path/to/tao-all2.dat.gz

The models are fitted to the Kaplan field of 1950 to 1989, their settings chosen at moorings
withheld in 1992 to 1995; the test is 1996-01 to 1998-06. Writes results.json, the figures and
README.md's table; settings that results.json has are not chosen anew.
"""

import json
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scoringrules
import typer
from data import Field, Moorings, read_field, read_moorings
from figures import draw, draw_index

import dasim
from dasim.diagnostics import variance_scale
from dasim.filters import ConditionalScoreFilter, ExtendedKalmanFilter
from dasim.models import SeasonalLinear, fit_seasonal
from dasim.operators import Modes
from dasim.priors.train import FitSettings
from dasim.trained import NetworkSpec, PriorSpec, train_transition
from dasim.transitions import ModelTransition, phases

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
FOLDS, MEMBERS, LEADS = 4, 200, (1, 3, 6)
DISCOUNT = 0.9  # of what innovations said of the variances, from month to month
LEAD_IN = 24  # months before those that count
TEST = "1996-01", "1998-06"
CHECK = "1992-01", "1995-12"


class Settings(dict):
    """Numbers of a model: modes, harmonics, and what the moorings see that the modes do not.

    `rest` is the standard deviation of that, in K, correlated as exp(-distance) with the lengths
    `east` and `north` in degrees, and from month to month by `memory`; `error` is a mooring's own.
    """


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


def correlation(place, s: Settings) -> np.ndarray:
    apart = place[:, None] - place
    return np.exp(-np.hypot(apart[..., 1] / s["east"], apart[..., 0] / s["north"]))


def linear_model(field: Field, moorings: Moorings, s: Settings) -> SeasonalLinear:
    """Coefficients of the modes, and the rest at the moorings."""
    early = np.flatnonzero(field.months.year <= 1989)
    z = field.coefficients
    found = fit_seasonal(
        z[early[:-1]], z[early[1:]], early[:-1].astype(float), 12.0, s["count"], width=0.1
    )
    k, m = z.shape[1], len(moorings.place)
    matrices = np.zeros((len(found.matrices), k + m, k + m))
    matrices[:, :k, :k] = found.matrices
    matrices[0, k:, k:] = s["memory"] * np.eye(m)
    covs = np.zeros((len(found.covs), k + m, k + m))
    covs[:, :k, :k] = found.covs
    own = max(s["rest"], 1e-3) ** 2 * correlation(moorings.place, s)
    covs[:, k:, k:] = (1 - s["memory"] ** 2) * own + 1e-9 * np.eye(m)
    return SeasonalLinear(matrices, covs, 12.0)


def _kept(info):
    return info.forecast, info.analysis


@partial(jax.jit, static_argnames=("filter_kind",))
def _run(filter_kind, transition, basis, index, error, value, mask, time, first, key):
    """Analyses of one fold, and forecasts from each, at the moorings and of an index."""
    filter = FILTERS[filter_kind]
    observation = dasim.Observation(Modes(basis), error)
    observations = dasim.Observations(time, value, mask)
    _, saved = dasim.cycle(
        filter,
        transition,
        observation,
        first,
        observations,
        key,
        lambda i: (i.forecast, i.analysis),
    )
    forecast, analysis = saved

    def ahead(members, t, key):
        def step(x, i):
            keys = jax.random.split(jax.random.fold_in(key, i), len(x))
            x = jax.vmap(transition.sample, (0, None, 0))(x, t + i, keys)
            return x, jnp.concatenate([x @ basis, (x @ index)[:, None]], 1)

        return jax.lax.scan(step, members, jnp.arange(max(LEADS)))[1]

    keys = jax.random.split(jax.random.fold_in(key, 7), len(time))
    later = jax.lax.map(lambda a: ahead(*a), (analysis, time, keys))
    return forecast @ basis, analysis @ basis, later, analysis


FILTERS = {
    "kalman": ExtendedKalmanFilter(),
    "score": ConditionalScoreFilter(weighted=False),
}


def scale_of(forecast, value, used, r) -> np.ndarray:
    """Factor on all variances, `(month,)`, by the innovations up to each month."""
    found = np.full(len(value), np.nan)
    for k, (members, y, seen) in enumerate(zip(forecast, value, used, strict=True)):
        if seen.sum() < 3:
            continue
        d = (y - members.mean(0))[seen]
        s = np.cov(members[:, seen].T) + r[np.ix_(seen, seen)]
        found[k] = d @ np.linalg.solve(s, d) / seen.sum()
    return variance_scale(found, DISCOUNT)


def widened(members, scale):
    """Members with their variances multiplied, `scale` of the leading axes and `(month,)`."""
    mean = members.mean(-2, keepdims=True)
    factor = np.sqrt(scale).reshape(len(scale), *[1] * (members.ndim - 1))
    return mean + factor * (members - mean)


def assimilate(
    kind, transition, basis, index, error, r, moorings: Moorings, months, first, key=None
):
    """Everything at the moorings: background, analysis, forecasts `(month, member, mooring)`,
    those of a mooring from the fold that withholds it; the states of the last fold; the factor on
    the variances, `(month, mooring)`; and the last fold's forecasts of the index."""
    key = jax.random.key(0) if key is None else key
    value = moorings.values[months]
    seen = np.isfinite(value)
    filled = jnp.asarray(np.where(seen, value, 0.0))
    time = jnp.asarray(months, float)
    parts = None
    for fold in range(FOLDS):
        out = np.arange(value.shape[1]) % FOLDS == fold
        got = _run(
            kind, transition, basis, index, error, filled, jnp.asarray(seen & ~out), time, first,
            jax.random.fold_in(key, fold),
        )  # fmt: skip
        background, analysis, later, states = (np.asarray(g, float) for g in got)
        scale = scale_of(background, value, seen & ~out, np.asarray(r))
        before = np.concatenate([[1.0], scale[:-1]])
        later = widened(later, scale)
        own = [widened(background, before), widened(analysis, scale), later[..., :-1]]
        own.append(np.broadcast_to(scale[:, None], value.shape))
        if parts is None:
            parts = own
        parts = [np.where(out, new, old) for new, old in zip(own, parts, strict=True)]
    return *parts[:3], states, parts[3], later[..., -1]


def score(members, truth, error, rng) -> dict:
    """Against withheld values `(month, mooring)`; the error of a value, `(month, 1, mooring)`, is
    added to members."""
    good = np.isfinite(truth)
    noisy = members + error * rng.standard_normal(members.shape)
    low, high = np.quantile(noisy, [0.05, 0.95], axis=1)
    away = (members.mean(1) - truth)[good]
    crps = scoringrules.crps_ensemble(np.where(good, truth, 0.0), noisy, 1, estimator="fair")
    rmse = float(np.sqrt(np.mean(away**2)))
    spread = float(np.sqrt(np.mean((members.var(1, ddof=1) + error[:, 0] ** 2)[good])))
    inside = ((low <= truth) & (truth <= high))[good]
    return {
        "rmse": rmse,
        "crps": float(crps[good].mean()),
        "spread_ratio": spread / rmse,
        "coverage_90": float(inside.mean()),
        "n": int(good.sum()),
    }


def period(months, span) -> np.ndarray:
    inside = (months >= pd.Timestamp(span[0])) & (
        months <= pd.Timestamp(span[1]) + pd.Timedelta("27D")
    )
    at = np.flatnonzero(inside)
    return np.arange(at[0] - LEAD_IN, at[-1] + 1)


def index_scores(forecasts, nino, months) -> dict:
    """Of the index's forecasts, against the field's own."""
    table = {}
    for lead in LEADS[1:]:
        start = np.arange(LEAD_IN - lead, len(months) - lead)
        truth = nino[months[start] + lead]
        members = forecasts[start, lead - 1]
        away = members.mean(1) - truth
        crps = scoringrules.crps_ensemble(truth, members, 1, estimator="fair")
        rmse = float(np.sqrt(np.mean(away**2)))
        low, high = np.quantile(members, [0.05, 0.95], axis=1)
        table[f"Nino 3.4, {lead}"] = {
            "rmse": rmse,
            "crps": float(crps.mean()),
            "spread_ratio": float(np.sqrt(members.var(1, ddof=1).mean())) / rmse,
            "coverage_90": float(np.mean((low <= truth) & (truth <= high))),
            "n": len(truth),
        }
    return table


def all_scores(found, moorings, nino, months, error) -> dict:
    rng = np.random.default_rng(0)
    background, analysis, later, _, scale, _ = found
    truth = moorings.values
    counts = np.arange(LEAD_IN, len(months))
    error = error * np.sqrt(scale)[:, None]
    table = {
        "background": score(background[counts], truth[months][counts], error[counts - 1], rng),
        "analysis": score(analysis[counts], truth[months][counts], error[counts], rng),
    }
    for lead in LEADS[1:]:
        # valid in the months that count, from the analysis `lead` months before
        start = np.arange(LEAD_IN - lead, len(months) - lead)
        members = later[start, lead - 1]
        later_truth = truth[months[start] + lead]
        table[f"forecast {lead}"] = score(members, later_truth, error[start], rng)
    table |= index_scores(found[-1], nino, months)
    table["scale"] = [round(float(v), 2) for v in scale[counts, 0]]
    return table


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


def train_diffusion(field: Field, steps: int):
    """A diffusion transition of the coefficients; every tenth year is held out."""
    z = jnp.asarray(field.coefficients, jnp.float32)
    early = np.flatnonzero(field.months.year <= 1989)[:-1]
    held = np.asarray(field.months.year)[early] % 10 == 5
    months = jnp.arange(len(z), dtype=jnp.float32)
    cond = jnp.concatenate([z, phases(months, (12.0,))], 1)
    training, kept = jnp.asarray(early[~held]), jnp.asarray(early[held])

    def sample(key, n):
        pick, noise = jax.random.split(key)
        i = training[jax.random.randint(pick, (n,), 0, len(training))]
        # noise on the ancestors: 432 pairs are few
        blur = (
            jnp.zeros((n, cond.shape[1]))
            .at[:, : z.shape[1]]
            .set(0.15 * jax.random.normal(noise, (n, z.shape[1])))
        )
        return cond[i] + blur, z[i + 1]

    spec = PriorSpec(
        (z.shape[1],),
        1.0,
        (12.0,),
        mean=NetworkSpec("mlp", 32, 2),
        residual=NetworkSpec("mlp", 48, 2),
    )
    fit = FitSettings(n_steps=steps, batch=128, learning_rate=1e-3, weight_decay=1e-2, patience=8)
    transition, figures = train_transition(
        spec, jax.tree_util.Partial(sample), (cond[kept], z[kept + 1]), jax.random.key(2), fit, fit
    )
    return transition, figures


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
    write(results)


def write(results):
    lines = [
        "| model | what | RMSE | CRPS | spread / RMSE | 90 % coverage |",
        "|---|---|---|---|---|---|",
        f"| climatology | | {results['climatology']:.3f} | | | |",
    ]
    for lead in LEADS[1:]:
        lines.append(
            f"| persistence | forecast {lead} | {results[f'persistence {lead}']:.3f} | | | |"
        )
    for name in ("linear", "linear with a rest", "diffusion"):
        for what, r in results.get(name, {}).items():
            if what == "scale":
                continue
            lines.append(
                f"| {name} | {what} | {r['rmse']:.3f} | {r['crps']:.3f} | {r['spread_ratio']:.2f} "
                f"| {r['coverage_90']:.3f} |"
            )
    page = HERE / "README.md"
    head, rest = page.read_text().split("<!-- table -->")
    tail = rest.split("<!-- end table -->")[1]
    table = "\n".join(lines)
    page.write_text(f"{head}<!-- table -->\n\n{table}\n\n<!-- end table -->{tail}")


if __name__ == "__main__":
    typer.run(main)
