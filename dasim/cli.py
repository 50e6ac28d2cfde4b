"""The command line."""

import json
import math
import os
import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dasim import config as schema
from dasim.cli_events import probability, sample
from dasim.cli_obs import obs
from dasim.terminal import bars_of_progress, console, escape, fail
from dasim.types import DasimError, DataError, DivergedError

app = typer.Typer(
    help="Data assimilation with diffusion priors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Workers of the pool on which XLA runs, unless told otherwise. jaxlib's batched decompositions
# wait in a worker for other workers: with two of them, as on two cores, a run can stand still
# for ever (all threads in jax::ParallelBatchMap). Effective, as jax starts it later.
os.environ.setdefault("NPROC", str(max(8, os.cpu_count() or 1)))
DEFAULT = "nyc-weather"
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting: a.b=value.")]


def _begin(checkpoint: Path, resume: bool, absent: str):
    """Remove what an earlier run left, or refuse with `absent` if it is to go on from nothing."""
    there = checkpoint.is_dir()
    if resume and not there:
        raise DataError(f"{absent}; run without --resume")
    if there and not resume:
        shutil.rmtree(checkpoint)


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped config's name.")] = DEFAULT,
    out: Annotated[Path | None, typer.Option(help="Folder of the run's files.")] = None,
    set_: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints.")] = False,
):
    """Cycle an assimilation, score it, and write its report."""
    from dasim import experiment

    try:
        settings = schema.read(schema.find_config(config), schema.Run, set_ or [])
        folder = out or Path("runs") / settings.name
        _begin(folder / "checkpoint", resume, f"{folder}: has no checkpoint to resume from")
        with bars_of_progress() as bars:
            tasks = {m.name: bars.add_task(m.name, total=None, note="") for m in settings.methods}

            def progress(name, done, total, note):
                bars.update(tasks[name], completed=done, total=total, note=note)

            scores = experiment.run(settings, folder, resume, progress)
    except DivergedError as error:
        _print_scores(json.loads((folder / "scores.json").read_text()))
        fail(error)
    except DasimError as error:
        fail(error)
    _print_scores(scores)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


@app.command()
def tune(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped config's name.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the files; runs/NAME-tune.")] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Tune this method alone; repeatable.")
    ] = None,
    set_: Set = None,
):
    """Try settings of the methods on several truths and keep the best of each."""
    from dasim import tuned

    options = [("--out", out)] if out else []
    options += [("--method", m) for m in method or []] + [("--set", s) for s in set_ or []]
    words = ["dasim", "tune", config, *(str(word) for pair in options for word in pair)]
    try:
        settings = schema.read(schema.find_config(config), schema.Run, set_ or [])
        folder = out or Path("runs") / f"{settings.name}-tune"
        with bars_of_progress() as bars:
            tasks = {
                m.name: bars.add_task(m.name, total=None, note="")
                for m in settings.methods
                if not method or m.name in method
            }

            def progress(name, done, total):
                bars.update(tasks[name], completed=done, total=total)

            def told(name, entry):
                if not entry["rows"]:
                    bars.update(tasks[name], completed=0, total=0, note="nothing to tune")
                _print_tuning(name, entry, settings.tune)

            tuned.tune(settings, folder, method or [], shlex.join(words), progress, told)
    except DasimError as error:
        fail(error)
    console.print(
        f"scores: {folder / 'tune.json'}\ntuned config: {folder / 'tuned.yaml'}",
        soft_wrap=True,
        highlight=False,
    )


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="YAML file, or a shipped config's name.")],
    out: Annotated[
        Path | None, typer.Option(help="File of the prior; runs/NAME.safetensors.")
    ] = None,
    set_: Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped training.")
    ] = False,
):
    """Train a diffusion prior and write it to one file."""
    from dasim import training

    try:
        settings = schema.read(schema.find_config(config), schema.Train, set_ or [])
        path = out or Path("runs") / f"{settings.name}.safetensors"
        checkpoint = path.with_suffix(".training")
        _begin(checkpoint, resume, f"{checkpoint}: no training to go on with")
        with bars_of_progress() as bars:
            tasks = {}

            def report(stage, step, steps, training, held_out):
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=steps, note="")
                note = f"loss {training:.4g}, held out {held_out:.4g}"
                bars.update(tasks[stage], completed=step, note=note)
                if not console.is_terminal:  # a log shows no bars before their end
                    console.print(f"{stage}: step {step} of {steps}, {note}", highlight=False)

            header = training.train(settings, path, checkpoint, report)
    except DasimError as error:
        fail(error)
    shutil.rmtree(checkpoint, ignore_errors=True)
    figures = header["held_out"]
    told = f"denoising loss {figures['denoising_loss']:.4g} held out"
    if settings.window is None:
        told = (
            f"one-step mean: RMSE {figures['rmse_mean']:.4g} held out (persistence "
            f"{figures['rmse_persistence']:.4g}); {told} (1 for a Gaussian residual)"
        )
    console.print(f"{told}\nprior: {path}", soft_wrap=True, highlight=False)


@app.command()
def show(run_dir: Annotated[Path, typer.Argument(help="Folder of a run.")]):
    """Print the score tables of a run."""
    try:
        try:
            scores = json.loads((run_dir / "scores.json").read_text())
        except OSError as error:
            raise DataError(
                f"{run_dir / 'scores.json'}: cannot be read: {error.strerror}"
            ) from None
        except ValueError as error:
            raise DataError(f"{run_dir / 'scores.json'}: not JSON: {error}") from None
    except DasimError as error:
        fail(error)
    _print_scores(scores)


def _print_withheld_events(rows: dict):
    """Brier scores of events at withheld stations, `{method: {station: {event: ...}}}`."""
    stations = list(next(iter(rows.values()), {}))
    for event in next(iter(next(iter(rows.values()), {}).values()), {}):
        table = Table(title=f"{event}: Brier score / skill", title_justify="left")
        for title in ("method", *(f"{s} withheld" for s in stations)):
            table.add_column(title)
        for name, row in rows.items():
            cells = (row[s][event] for s in stations)
            told = (f"{_number(c['brier'], 4)} / {_number(c['skill'])}" for c in cells)
            table.add_row(name, *told)
        console.print(table)


def _print_events(events: dict):
    for event, rows in events.items():
        table = Table(title=f"Event {event}", title_justify="left", box=SIMPLE_HEAD)
        for title in ("method", "Brier", "skill", "ROC area", "forecast", "came"):
            table.add_column(title, justify="left" if title == "method" else "right")
        for name, row in rows.items():
            keys = "brier", "brier_skill", "roc_area", "forecast_rate", "base_rate"
            table.add_row(name, *(_number(row[k]) for k in keys))
        console.print(table)


def _number(value, digits=3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _print_scores(scores: dict):
    table = Table(title="Analysis and forecast scores", title_justify="left")
    table.add_column("method")
    columns = {
        "CRPS": "crps_analysis",
        "RMSE": "rmse_analysis",
        "spread": "spread_analysis",
        "90 % cover": "coverage_90_analysis",
        "CRPS fc": "crps_forecast",
        "RMSE fc": "rmse_forecast",
        "s / cycle": "seconds_per_cycle",
    }
    for title in columns:
        table.add_column(title, justify="right")
    for name, row in scores["methods"].items():
        lost = row.get("diverged_at")
        label = name if lost is None else f"{name} [red](diverged at {lost})[/]"
        table.add_row(label, *(_number(row.get(key), 4) for key in columns.values()))
    console.print(table)
    _print_events(scores.get("events") or {})
    for station, methods in scores.get("withheld", {}).items():
        quantities = list(next(iter(methods.values())))
        units = scores.get("units", {})
        table = Table(
            title=f"{station} withheld: RMSE / CRPS / 90 % coverage", title_justify="left"
        )
        table.add_column("method")
        for quantity in quantities:
            table.add_column(
                f"{quantity} [{units.get(f'{station}.{quantity}') or '1'}]".replace("[", "\\[")
            )
        for name, row in methods.items():
            cells = [
                " / ".join(
                    _number(row[q].get(key), d)
                    for key, d in (("rmse", 2), ("crps", 2), ("coverage_90", 2))
                )
                for q in quantities
            ]
            table.add_row(name, *cells)
        console.print(table)
    _print_withheld_events(scores.get("withheld_events") or {})


def _with_error(value, error) -> str:
    """A mean to two significant digits of its standard error."""
    if value is None or not error:
        return _number(value, 4)
    digits = min(max(2 - math.ceil(math.log10(error)), 0), 6)
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _print_tuning(name: str, entry: dict, tune: schema.Tune, most: int = 8):
    if not entry["rows"]:
        console.print(f"{name}: nothing to tune", highlight=False)
        return
    mean, error = f"{tune.score}_analysis", f"{tune.score}_analysis_stderr"
    rows = [(i, r["settings"], r["scores"]) for i, r in enumerate(entry["rows"])]
    rows.sort(key=lambda r: (r[2]["diverged"], r[2][mean] is None, r[2][mean]))
    least = rows[0][2]
    truths = f"{tune.seeds} truth{'s' if tune.seeds > 1 else ''}"
    table = Table(
        title=f"{name}: {min(most, len(rows))} of {len(rows)} settings, {truths}",
        caption="* least   ≈ within two standard errors of it",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("")
    for setting in rows[0][1]:
        table.add_column(setting.replace("_", "_\n").replace(".", ".\n"), justify="right")
    for title in ("CRPS", "RMSE", "spread/\nRMSE", "truths\nlost"):
        table.add_column(title, justify="right", no_wrap=True)
    for i, settings, scores in rows[:most]:
        mark = ""
        if entry["winner"] is not None and scores["diverged"] == 0:
            errors = math.hypot(scores[error] or 0.0, least[error] or 0.0)
            mark = "≈" if scores[mean] - least[mean] <= 2 * errors else ""
        ratio = scores["rmse_analysis"] and scores["spread_analysis"] / scores["rmse_analysis"]
        table.add_row(
            "*" if i == entry["winner"] else mark,
            *(escape(str(v)) for v in settings.values()),
            *(
                _with_error(scores[f"{metric}_analysis"], scores[f"{metric}_analysis_stderr"])
                for metric in ("crps", "rmse")
            ),
            _number(ratio, 2),
            str(scores["diverged"] or ""),
        )
    console.print(table)
    notes = [
        f"{setting} {entry['settings'][setting]} is at the edge of the grid: "
        f"widen tune.grid.{setting}"
        for setting in entry["edge"]
    ]
    if entry["winner"] is None:
        notes = ["every setting lost a truth; it keeps its own"]
    for note in notes:
        console.print(f"[yellow]{name}: {note}[/]", highlight=False, soft_wrap=True)


@app.command(name="list")
def list_():
    """List the shipped configs and priors, the models and the filters."""
    from dasim import filters, models
    from dasim.priors.store import read_header
    from dasim.problems import SHIPPED

    folder = schema.configs_folder()
    groups = {
        "configs": [
            str(p.relative_to(folder).with_suffix("")) for p in sorted(folder.rglob("*.yaml"))
        ],
        "models": [n for n in dir(models) if n[0].isupper() and not n.startswith("Abstract")],
        "filters": [n for n in dir(filters) if n[0].isupper() and not n.startswith("Abstract")],
    }
    for title, names in groups.items():
        console.print(f"[bold]{title}[/]")
        for name in names:
            console.print(f"  {name}", highlight=False)
    console.print("[bold]priors[/]")
    for path in sorted(SHIPPED.glob("*.safetensors")):
        header = read_header(path)
        console.print(
            f"  {path.stem}: {header['data']['description']}", highlight=False, soft_wrap=True
        )


app.command()(sample)
app.command()(probability)
app.add_typer(obs)


if __name__ == "__main__":
    app()
