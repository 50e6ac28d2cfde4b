"""A method's file reduced to what figures need: its analysis beside what it is verified with.

A file is read in blocks of time. A twin run is compared with its truth, a run on real data with
the reports of withheld sensors.
"""

from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtr
from scipy.stats import chi2

from dasim.diagnostics import effective_number, rank_chi_square, rank_histogram

BLOCK = 2**23  # values of an ensemble held at a time
NOISE = np.array([NormalDist().inv_cdf((i + 0.5) / 9) for i in range(9)])  # stratified normal draws


def texts(labels) -> list[str]:
    """The strings of a variable of text."""
    return [x.decode() if isinstance(x, bytes) else str(x) for x in labels.values]


def read_verification(path, band=False):
    """Reduce one method's file to its analysis beside the truth or the `n` withheld sensors.

    Returns a namespace: `times`, `scored` `(time,)`; `reference`, `mean`, `variance` and, with
    `band`, `low`, `high` (of 90 %), `(time, n)` with NaN for missing; `labels`, `stations` (none in
    a twin run) `(n,)`; `ranks` `(m + 1,)`; `dims`.  Real runs: with observation error added.
    """
    with xr.open_dataset(path, engine="netcdf4") as ds:
        analysis, times, scored = ds["analysis"], ds["time"].values, ds["scored"].values > 0
        dims, stations = analysis.dims[2:], []
        if real := "withheld" in dims:
            folds, station = texts(ds["withheld"]), texts(ds["station"])
            if gridded := "analysis_withheld" in ds:
                held = ds["fold"].values >= 0
                used = np.flatnonzero(held.any(0)).tolist()
                field, analysis, own_fold = analysis, ds["analysis_withheld"], (..., used)
            else:
                held = np.array([name in folds for name in station])[None]
                used = np.flatnonzero(held[0]).tolist()
                own_fold = (..., [folds.index(station[i]) for i in used], used)
            stations = [station[i] for i in used]
            name, unit = texts(ds["variable"]), texts(ds["units"])
            labels = [f"{name[i].removeprefix(station[i] + '.')} ({unit[i] or '1'})" for i in used]
            reference = np.where(held, ds["observation"].values, np.nan)[:, used].astype(float)
            std = ds["observation_std"].values[..., used].astype(float)
            std = np.broadcast_to(std, reference.shape)
        else:
            at = [texts(ds[d]) if d in ds.variables else range(ds.sizes[d]) for d in dims]
            index = np.ndindex(analysis.shape[2:])
            labels = [" ".join(str(a[i]) for a, i in zip(at, k, strict=True)) for k in index]
            reference = ds["truth"].values.reshape(len(times), -1).astype(float)
            gridded, std = False, np.zeros(reference.shape)
        reduced = np.full((4 if band else 2, *reference.shape), np.nan)
        ranks, rng = 0, np.random.default_rng(0)
        draws = NOISE if real and band else np.zeros(1)
        length = max(1, BLOCK // max(1, analysis[:, 0].size * len(draws)))
        for start in range(0, len(times), length):
            part = slice(start, start + length)
            x = analysis[:, part].values.astype(float)
            x = x[own_fold] if real else x.reshape(*x.shape[:2], -1)
            x[:, ~np.isfinite(x).all(0)] = np.nan
            reduced[:2, part] = x.mean(0), x.var(0, ddof=min(1, len(x) - 1)) + std[part] ** 2
            y = np.where(scored[part, None], reference[part], np.nan)
            ranks = ranks + rank_histogram(x, y, rng, std[part])
            if band:
                noisy = (x[:, None] + std[part] * draws[:, None, None]).reshape(-1, *x.shape[1:])
                reduced[2:, part] = np.quantile(noisy, [0.05, 0.95], axis=0)
        chart = _chart(ds, field, used, reduced[0] - reference) if gridded and band else None
    scale, unit = 1.0, (unit[used[0]] or "1") if gridded else "state units"
    if real and not gridded:
        scale, unit = (
            pd.DataFrame(reference).std().replace(0, np.nan).to_numpy(),
            "sensor std. dev.",
        )
    fields = dict(zip(("mean", "variance", "low", "high"), reduced, strict=False))
    rest = {"labels": labels, "stations": stations, "ranks": ranks, "dims": dims}
    rest |= {"scale": scale, "unit": unit, "chart": chart}
    return SimpleNamespace(times=times, scored=scored, reference=reference, **fields, **rest)


def _chart(ds, analysis, used, error):
    """Arguments of a map of the last cycle that is scored and has the most withheld reports."""
    count = np.where(ds["scored"].values > 0, np.isfinite(error).sum(1), 0)
    if not count.any():
        return None
    cycle = len(count) - 1 - int(np.argmax(count[::-1]))
    some = np.isfinite(error[cycle])
    names = analysis.dims[3:]
    places = np.stack([ds[f"sensor_{n}"].values[used] for n in names], 1)
    return {
        "axes": [ds[n].values for n in names],
        "field": analysis[:, cycle].values.mean((0, 1), dtype=float),
        "places": places[some],
        "error": error[cycle][some],
        "time": ds["time"].values[cycle],
    }


def error_and_spread(v):
    """Error and spread `(time, n)`, in the unit `v.unit`, NaN where missing."""
    error, spread = v.mean - v.reference, np.sqrt(v.variance)
    missing = np.isnan(error + spread)
    return np.where(missing, np.nan, error / v.scale), np.where(missing, np.nan, spread / v.scale)


def flatness(v):
    """P-value of a rank histogram without slope and without U or dome; NaN without values.

    Values that are alike in space and time count as the fewer independent ones that normal
    scores of the errors (for the slope), and their squares (for the U), are worth.
    """
    z = (v.mean - v.reference) / np.sqrt(np.maximum(v.variance, np.finfo(float).tiny))
    u = ndtr(z[v.scored]) - 0.5
    bias = rank_chi_square(v.ranks, effective_number(u)).bias
    dispersion = rank_chi_square(v.ranks, effective_number(u**2)).dispersion
    return float(chi2.sf(bias**2 + dispersion**2, 2))
