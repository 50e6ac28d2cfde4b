"""Scores at withheld stations: of quantities, of events, and of simple references."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from dasim.diagnostics import Scores, score
from dasim.reportable import EVENTS, chance


def score_table(
    scores: Scores, quantity: np.ndarray, withheld: Bool[np.ndarray, "time sensor"]
) -> dict[str, dict[str, float]]:
    """RMSE, spread, CRPS, coverage and count of each withheld quantity.

    Args:
        scores: arrays `(time, sensor)`; a sensor without a report has no finite error.
        quantity: of each sensor, `(sensor,)`.
    """
    valid, out = withheld & np.isfinite(scores.error), {}
    for name in dict.fromkeys(quantity[withheld.any(0)].tolist()):
        rows = valid & (quantity == name)
        if not rows.any():
            out[name] = {"n": 0}
            continue
        out[name] = {
            "rmse": float(np.sqrt(np.mean(scores.error[rows] ** 2))),
            "spread": float(np.sqrt(np.mean(scores.variance[rows]))),
            "crps": float(np.mean(scores.crps[rows])),
            "coverage_90": float(np.mean(scores.covered[rows])),
            "n": int(rows.sum()),
        }
    return out


def reference_scores(problem, quantiles: int = 99) -> dict[str, dict[str, dict]]:
    """Withheld scores of the problem's references, as normal distributions."""
    points = ndtri((np.arange(quantiles) + 0.5) / quantiles)
    out: dict[str, dict[str, dict]] = {}
    values, keep = problem.values, problem.scored
    limited = np.isin(np.arange(values.shape[1]), list(problem.censored))
    for name, (mean, std) in problem.references.items():
        members = mean + points[:, None, None] * std
        exact = score(problem.reported(members), values)
        error = np.where(limited, exact.error, mean - values)
        variance = np.where(limited, exact.variance, std**2)
        parts = error, variance, exact.crps, exact.covered
        chosen = Scores(*(a[keep] for a in parts))
        for fold, withheld in zip(problem.folds, problem.withheld, strict=True):
            out.setdefault(fold, {})[name] = score_table(chosen, problem.quantity, withheld[keep])
    return out


def _column(problem, station: str, quantity: str) -> int:
    return problem.reports.variables.index(f"{station}.{quantity}")


def chances(
    problem, members: Float[np.ndarray, "fold cycle member n"], rows: slice
) -> Float[np.ndarray, "cycle fold event"]:
    """What the members say of the events at each fold's withheld station; cycles are `rows`."""
    reports, out = problem.reports, np.empty((members.shape[1], len(members), len(EVENTS)))
    for f, station in enumerate(problem.folds):
        for e, (quantity, *ends) in enumerate(EVENTS.values()):
            j = _column(problem, station, quantity)
            cycle = reports.cycle[problem.index[rows], j]
            roots = members[f, :, :, j].T * reports.scale[j] + cycle
            out[:, f, e] = chance(*ends, roots, problem.std[j])
    return out


def event_scores(
    problem, chances: Float[np.ndarray, "time fold event"] | None = None
) -> dict[str, dict[str, dict]]:
    """Brier score of each event and withheld station, and its skill against the climate's.

    The climate says the frequency in the training reports of the station. Without `chances` the
    scores are those of persistence, the frequency after hours with the event or without it.
    """
    reports, out = problem.reports, {}
    for f, station in enumerate(problem.folds):
        out[station] = {}
        for e, (name, (quantity, low, high)) in enumerate(EVENTS.items()):
            root = reports.values[:, _column(problem, station, quantity)]
            came = np.where(np.isnan(root), np.nan, (low < root) & (root < high))
            frequency = np.nanmean(came[reports.training])
            if chances is None:
                said = _persistence(came, reports.training)[problem.index]
            else:
                said = chances[:, f, e]
            came = came[problem.index]
            keep = problem.scored & np.isfinite(came) & np.isfinite(said)
            brier = np.mean((said - came)[keep] ** 2)
            reference = np.mean((frequency - came[keep]) ** 2)
            out[station][name] = {
                "brier": float(brier),
                "skill": float(1 - brier / reference),
                "frequency": float(came[keep].mean()),
                "climate": float(frequency),
                "n": int(keep.sum()),
            }
    return out


def _persistence(came, training):
    """Training frequency of an event given whether it held an hour before; NaN if unknown."""
    before = np.concatenate([[np.nan], came[:-1]])
    said = np.full(len(came), np.nan)
    for state in (0.0, 1.0):
        said[before == state] = np.nanmean(came[training & (before == state)])
    return said
