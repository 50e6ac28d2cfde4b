"""What the commands share: where they write, and how they fail."""

from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape as escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dasim.types import DasimError

console = Console()
errors = Console(stderr=True)


def fail(error: DasimError) -> NoReturn:
    """Print the error and leave with status 1."""
    errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
    raise typer.Exit(1)


def bars_of_progress() -> Progress:
    """Progress bars with a note at the end."""
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )
