"""The commands that ask a prior by itself: `dasim sample` and `dasim probability`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dasim.terminal import console, fail
from dasim.types import DasimError

Prior = Annotated[str, typer.Argument(help="A shipped prior's name, or a .safetensors file.")]
Event = Annotated[
    str | None,
    typer.Option(help="For example 'max(x[0]) > 1.5': x[i] is variable i, at all its steps."),
]
Given = Annotated[
    Path | None,
    typer.Option(
        help="Text file of the states that are known, one a line: the first ones of a trajectory, "
        "the last one of a transition."
    ),
]
Levels = Annotated[int, typer.Option(min=2, help="Noise levels of the guided chain.")]
Seed = Annotated[int, typer.Option(min=0)]
Out = Annotated[Path | None, typer.Option(help="Folder of the files; runs/PRIOR-COMMAND.")]


def _print_files(files: list[Path]):
    for path in files:
        console.print(str(path), soft_wrap=True, highlight=False)


def sample(
    prior: Prior,
    event: Event = None,
    method: Annotated[
        str, typer.Option(help="splitting, smc, noise-splitting or score, of draws given an event.")
    ] = "splitting",
    n: Annotated[int, typer.Option(min=1, help="How many draws.")] = 500,
    given: Given = None,
    levels: Levels = 64,
    seed: Seed = 0,
    out: Out = None,
):
    """Draw from a prior, given an event if there is one; write NetCDF and a figure."""
    from dasim import sampling

    try:
        asked = sampling.ask(prior, event, given)
        folder = out or Path("runs") / f"{asked.name}-sample"
        files = sampling.sample(asked, method, n, seed, levels, folder)
    except DasimError as error:
        fail(error)
    _print_files(files)


def probability(
    prior: Prior,
    event: Annotated[str, typer.Option(help="For example 'max(x[0]) > 1.5'.")],
    method: Annotated[
        str, typer.Option(help="splitting, smc, noise-splitting, mc or density.")
    ] = "splitting",
    n: Annotated[
        int, typer.Option(min=16, help="How many draws; of splitting, at each level.")
    ] = 2000,
    first: Annotated[
        int | None,
        typer.Option(min=16, help="Draws before the first level of splitting; as many as --n."),
    ] = None,
    given: Given = None,
    levels: Levels = 64,
    seed: Seed = 0,
    out: Out = None,
):
    """Estimate an event's probability under a prior; write NetCDF of the draws, and a figure."""
    from dasim import sampling

    try:
        asked = sampling.ask(prior, event, given)
        folder = out or Path("runs") / f"{asked.name}-probability"
        found, files = sampling.probability(asked, method, n, first, seed, levels, folder)
    except DasimError as error:
        fail(error)
    table = Table(box=SIMPLE_HEAD)
    for title in ("event", "method", "P", "95 % interval", "network calls"):
        table.add_column(title, justify="left" if title == "event" else "right")
    interval = f"{found.low:.3g} to {found.high:.3g}"
    table.add_row(event, method, f"{found.probability:.4g}", interval, f"{found.calls:,}")
    console.print(table)
    _print_files(files)
