"""The report of a run: `report.html`, self-contained, the same bytes for the same results.

One method's file is read at a time, and reduced to what the figures need.
"""

import base64
import json
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import yaml

from dasim import plot, plot_events, plot_maps
from dasim.verification import error_and_spread, flatness, read_verification, texts

SERIES = 6  # stations with a figure of their own
DASH = "\N{EN DASH}"
CSS = """body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:980px;
margin:2em auto;padding:0 1em}figure{margin:0}img{max-width:100%}figcaption{color:#444}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}td,th{padding:.2em .4em;
text-align:right;vertical-align:bottom;border-bottom:1px solid #ddd;font-weight:normal}
tbody th{text-align:left;white-space:nowrap}th[colspan]{text-align:center}b{font-weight:700}
i{padding:0 .4em;margin-right:.5em}pre{background:#f5f5f5;padding:1em;overflow-x:auto}"""
COLUMNS = (  # key in scores.json, heading, and the value that is best (None: no value is)
    ("rmse_analysis", "RMSE", 0.0),
    ("rmse_analysis_stderr", "std. error", None),
    ("spread_analysis", "spread", None),
    ("ratio", "spread / RMSE", 1.0),
    ("crps_analysis", "CRPS", 0.0),
    ("rmse_forecast", "forecast RMSE", 0.0),
    ("spread_forecast", "forecast spread", None),
    ("crps_forecast", "forecast CRPS", 0.0),
    ("coverage_90_analysis", "90 % coverage", 0.9),
    ("log_evidence", "log evidence", 1e9),
    ("seconds_per_cycle", "seconds per cycle", 0.0),
)
EVENTS = (
    ("brier", "Brier score", 0.0),
    ("brier_skill", "Brier skill", 1.0),
    ("reliability", "reliability", 0.0),
    ("resolution", "resolution", 1.0),
    ("roc_area", "ROC area", 1.0),
    ("forecast_rate", "mean forecast", None),
    ("base_rate", "base rate", None),
)
WITHHELD = (("rmse", "RMSE", 0.0), ("crps", "CRPS", 0.0), ("coverage_90", "90 % cover", 0.9))


def _number(value):
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}"
    return text if np.isfinite(value) else DASH


def _table(rows, columns, colours, diverged):
    """HTML of `rows` `{name: {key: value}}`, `columns` `(key, heading or headings, best value)`."""
    columns = [c for c in columns if any(row.get(c[0]) is not None for row in rows.values())]
    data = {heading: [row.get(key) for row in rows.values()] for key, heading, _ in columns}
    values = pd.DataFrame(data, list(rows), dtype=float)
    text = values.map(_number).astype(object)
    for j, (_, _, best) in enumerate(columns):
        distance = abs(values.iloc[:, j] - (np.nan if best is None else best))
        distance[list(diverged)] = np.nan
        for i in np.flatnonzero(distance == distance.min()) if distance.count() > 1 else ():
            text.iloc[i, j] = f"<b>{text.iloc[i, j]}</b>"
    names = {n: f"{n} (diverged at cycle {diverged[n]})" if n in diverged else n for n in rows}
    key = '<i style="background:{}"></i>{}'
    text.index = [key.format(colours.get(n, "#fff"), escape(name)) for n, name in names.items()]
    with pd.option_context("display.max_colwidth", None):
        return text.to_html(escape=False, border=0)


def score_table(methods, colours):
    """HTML table of `methods` `{name: {score: value}}`, a row each; none diverged is best."""
    rows = {name: dict(row) for name, row in methods.items()}
    diverged = {n: r["diverged_at"] for n, r in rows.items() if r.get("diverged_at") is not None}
    for row in rows.values():
        if row.get("rmse_analysis") and row.get("spread_analysis") is not None:
            row["ratio"] = row["spread_analysis"] / row["rmse_analysis"]
    return _table(rows, COLUMNS, colours, diverged)


def withheld_table(station, rows, units, colours):
    """HTML table of one station, `rows` `{name: {variable: {score: value}}}`, a row each name."""
    flat, columns = {name: {} for name in rows}, []
    for variable in dict.fromkeys(v for row in rows.values() for v in row):
        scores = {name: row.get(variable) or {} for name, row in rows.items()}
        n = max(row.get("n") or 0 for row in scores.values())
        unit = units.get(f"{station}.{variable}") or DASH
        top = escape(f"{variable} ({unit}), n = {n}")
        columns += [((variable, key), (top, heading), best) for key, heading, best in WITHHELD]
        for name in rows:
            flat[name] |= {(variable, key): value for key, value in scores[name].items()}
    return f"<h3>Withheld: {escape(station)}</h3>{_table(flat, columns, colours, {})}"


def describe(config, cycles):
    """What was run, in a sentence, from the configuration and the counts of cycles."""
    source = config.get("data") or config.get("system") or DASH
    if isinstance(source, dict):
        source = ", ".join(f"{k} {v}" for k, v in source.items() if not isinstance(v, dict | list))
    kind = "Real data" if config.get("data") else "Synthetic observations of a known truth"
    return (
        f"{kind} ({source}), {config.get('members', DASH)} members, {cycles.get('total', DASH)} "
        f"cycles of which {cycles.get('scored', DASH)} are scored. Bold is the best of a column."
    )


def richest_window(times, present, days=14):
    """The slice of `days` days of `times` (datetime64) with most of `present` `(time, n)` true."""
    step = np.median(np.diff(times)) / np.timedelta64(1, "D") if len(times) > 1 else days
    length = min(len(times), max(2, round(days / step)))
    total = np.append(0, present.sum(1).cumsum())
    start = int(np.argmax(total[length:] - total[:-length]))
    return slice(start, start + length)


def _busiest(stations, good):
    """The stations, in their order; of more than `SERIES` those with most reports."""
    count = pd.Series(good.sum(0)).groupby(np.array(stations), sort=False).sum()
    kept = set(count.sort_values(ascending=False, kind="stable").index[:SERIES])
    return [name for name in count.index if name in kept]


def figures(methods, colours, best):
    """Yield `(title, caption, figure)` of `methods` `{name: verification}`, `best` in detail."""
    v, real = methods[best], bool(methods[best].stations)
    width = plot.smoothing_width(len(v.times))
    unit, xlabel = v.unit, "time (UTC)" if real else "model time"
    kind, noise = ("report", " with observation error") if real else ("truth", "")
    pairs = {name: error_and_spread(each) for name, each in methods.items()}
    rms = lambda x: np.sqrt(pd.DataFrame(x**2).mean(axis=1).to_numpy())
    series = {name: [rms(error), rms(spread)] for name, (error, spread) in pairs.items()}
    bins = {n: plot.spread_skill_bins(s[v.scored], e[v.scored]) for n, (e, s) in pairs.items()}
    if len(v.times) > 1:
        axis = f"RMSE, spread ({unit})"
        yield (
            "Error and spread over time",
            f"RMSE of the analysis mean against the {kind} and spread of the ensemble{noise}, "
            f"{f'means over {width} cycles' if width > 1 else 'each cycle'}; grey is not scored. "
            "Good is low, steady, and the two alike: a spread below the RMSE is overconfident.",
            plot.error_over_time(v.times, series, colours, v.scored, axis, xlabel),
        )
    yield (
        "Rank histograms",
        f"The rank of the {kind} in the analysis ensemble{noise}; bars are cut at 4. Flat (dashed) "
        "is good, a U shows too little spread, a dome too much, a slope a bias; p is that of a "
        "chi-square test of slope and U, correlation of the values allowed for.",
        plot.rank_histograms(
            {name: each.ranks for name, each in methods.items()},
            {name: flatness(each) for name, each in methods.items()},
            colours,
        ),
    )
    yield (
        "Spread against error",
        f"Ten bins of equal population, sorted by the spread of the ensemble{noise}. Good lies on "
        "the dashed line and reaches far along it: the spread tells certain from uncertain.",
        plot.spread_skill(bins, colours, unit),
    )
    good = np.isfinite(v.reference + v.mean) & v.scored[:, None]
    recent = np.flatnonzero(v.scored)[-200:]
    if not real and len(recent) and len(v.dims) == 1 and len(v.labels) >= 10:
        means = {name: each.mean[recent] for name, each in methods.items()}
        caption = "The last scored cycles; grey is missing. Good errors are pale and unstructured."
        field = (v.times[recent], v.reference[recent], means, v.dims[0], xlabel, unit)
        yield "Truth, analysis and error", caption, plot.hovmoller(*field)
        return
    if v.chart:
        caption = (
            "The last cycle with most withheld reports; the mean of all folds, and its error at "
            "each sensor in the fold that withholds it. Good errors are pale and unstructured."
        )
        yield f"Analysis of {best}", caption, plot_maps.withheld_map(**v.chart, unit=unit)
    some = np.unique(np.linspace(0, len(v.labels) - 1, 6).round().astype(int))
    windows = {} if real else {best: (recent, some)}
    for station in _busiest(v.stations, good) if real and len(v.times) > 1 else ():
        own = np.flatnonzero((np.array(v.stations) == station) & good.any(0))
        time = np.arange(len(v.times))[richest_window(v.times, good[:, own])]
        windows[f"{best} without station {station}"] = (time, own)
    for title, (time, own) in windows.items():
        if len(time) and len(own):
            at, labels = np.ix_(time, own), [v.labels[i] for i in own]
            fields = (v.times[time], v.reference[at], v.mean[at], v.low[at], v.high[at], labels)
            caption = f"Analysis, 90 % band{noise} and {kind}. Good: a narrow band holds 90 %."
            fig = plot.ensemble_series(*fields, colours[best], xlabel, kind, real)
            yield f"Analysis of {title}", caption, fig


def _drawn(name, caption, fig):
    """HTML of a figure under its title."""
    kind, mime = ("png", "png") if any(a.images for a in fig.axes) else ("svg", "svg+xml")
    data = base64.b64encode(plot.to_bytes(fig, kind)).decode()
    image = f'<img alt="{escape(name)}" src="data:image/{mime};base64,{data}">'
    caption = f"<figcaption>{escape(caption)}</figcaption>"
    return f"<h2>{escape(name)}</h2><figure>{image}{caption}</figure>"


def event_sections(path, tables, colours):
    """Yield the HTML of each event in `events.nc`, with its scores `{event: {method: row}}`."""
    with xr.open_dataset(path, engine="netcdf4") as ds:
        for event, rows in tables.items():
            chance, came = ds[f"probability_{event}"], ds[f"happened_{event}"].values
            forecasts = dict(zip(texts(ds["method"]), chance.values, strict=True))
            scored = np.flatnonzero(ds["scored"].values > 0)
            forecasts = {name: p[scored] for name, p in forecasts.items()}
            fig = plot_events.event_figure(
                ds["time"].values[scored], forecasts, came[scored], colours
            )
            within = int(chance.attrs["within_cycles"])
            caption = (
                f"{chance.attrs['when']} within {within} cycle{'s' if within > 1 else ''} of an "
                "analysis: the share of its members' forecasts in which it holds. Good reliability "
                "lies on the dashed line, a good ROC far above it; marks on top: it came."
            )
            yield _drawn(f"Event {event}", caption, fig) + _table(rows, EVENTS, colours, {})
            if f"paths_{event}" in ds:
                yield _paths_section(ds, event, colours)


def _paths_section(ds, event, colours):
    """The sample paths of an event's forecasts."""
    table, every = ds[f"paths_{event}"], texts(ds["method"])
    paths, holds = {}, {}
    for method, members, inside in zip(
        every, table.values, ds[f"paths_hold_{event}"].values, strict=True
    ):
        own = np.isfinite(inside)
        if own.any():
            paths[method], holds[method] = members[own], inside[own]
    cycle, name = int(table.attrs["cycle"]), f"x[{int(table.attrs['variable'])}]"
    fig = plot_events.paths_figure(paths, holds, ds[f"paths_truth_{event}"].values, name, colours)
    caption = (
        f"The members' forecasts of {name}, the variable on which the event depends most, after "
        f"the analysis of cycle {cycle}, about which {next(iter(paths))} is most in doubt; "
        "coloured those in which the event holds, and their share."
    )
    return _drawn(f"Sample paths of {event}", caption, fig)


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` from `config.yaml`, `scores.json` and `NAME.nc`; its path."""
    text, scores = (run_dir / "config.yaml").read_text(), (run_dir / "scores.json").read_text()
    config = yaml.safe_load(text) or {}
    scores = json.loads(scores, parse_constant=lambda _: None)  # NaN and infinities are missing
    rows, colours = scores["methods"], plot.method_colours(scores["methods"])
    title = escape(str(config.get("name", run_dir.name)))
    summary = escape(describe(config, scores.get("cycles") or {}))
    body = [f"<h1>{title}</h1><p>{summary}</p>{score_table(rows, colours)}"]
    for station, table in (scores.get("withheld") or {}).items():
        body.append(withheld_table(station, table, scores.get("units") or {}, colours))
    files = {name: run_dir / f"{name}.nc" for name in rows if (run_dir / f"{name}.nc").exists()}
    if absent := ", ".join(name for name in rows if name not in files):
        body.append(f"<p>Not drawn, without their files: {escape(absent)}.</p>")
    score = lambda row: (row.get("diverged_at") is not None, row.get("crps_analysis") or np.inf)
    if best := min(files, key=lambda name: score(rows[name]), default=None):
        methods = {name: read_verification(file, name == best) for name, file in files.items()}
        for name, caption, fig in figures(methods, colours, best):
            body.append(_drawn(name, caption, fig))
    if scores.get("events") and (run_dir / "events.nc").exists():
        body += event_sections(run_dir / "events.nc", scores["events"], colours)
    body.append(f"<details><summary>config.yaml</summary><pre>{escape(text)}</pre></details>")
    head = f'<head><meta charset="utf-8"><title>{title}</title><style>{CSS}</style></head>'
    page = ['<!DOCTYPE html><html lang="en">', head, "<body>", *body, "</body></html>\n"]
    (run_dir / "report.html").write_text("\n".join(page), encoding="utf-8")
    return run_dir / "report.html"
