"""Scores of runs at withheld moorings and of the index, and the README's table of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import scoringrules

from dasim.pages import fill

LEADS = 1, 3, 6
LEAD_IN = 24  # months before those that count


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


def index_scores(forecasts, nino, months, rng) -> dict:
    """Of the index's forecasts, against the field's own, which has no error."""
    table = {}
    for lead in LEADS[1:]:
        start = np.arange(LEAD_IN - lead, len(months) - lead)
        truth = nino[months[start] + lead][:, None]
        members = forecasts[start, lead - 1][..., None]
        table[f"Nino 3.4, {lead}"] = score(members, truth, np.zeros((len(start), 1, 1)), rng)
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
    table |= index_scores(found[-1], nino, months, rng)
    table["scale"] = [round(float(v), 2) for v in scale[counts, 0]]
    return table


def write(folder: Path, results):
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
    fill(folder / "README.md", {"table": lines})
