"""The commands on observation files: `dasim obs info` and `dasim obs convert`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from dasim.terminal import console, escape, fail
from dasim.types import DasimError, DataError

obs = typer.Typer(name="obs", help="Look at observation files, and convert them.")
File = Annotated[Path, typer.Argument(help="IODA or CF netCDF, a DART sequence, or CSV.")]
Columns = Annotated[
    str | None,
    typer.Option(help="Of a CSV file: YAML map of its columns, or a known map's name (metar)."),
]


@obs.callback()
def _group():
    """Look at observation files, and convert them."""


@obs.command()
def info(
    file: File,
    columns: Columns = None,
    figure: Annotated[
        Path | None, typer.Option(help="PNG of where, or at a single place when, values are.")
    ] = None,
):
    """Print what a file of observations holds; draw it with --figure."""
    from dasim import sensors

    try:
        table = sensors.read_observations(file, columns)
        if figure is not None:
            from dasim.sensors.figure import observations_figure

            _write(figure, observations_figure(table))
    except DasimError as error:
        fail(error)
    _print_table(sensors.detect(file), table)
    if figure is not None:
        console.print(f"figure: {figure}", soft_wrap=True, highlight=False)


@obs.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(help="File to write: .nc for IODA, .csv for text.")],
    columns: Columns = None,
):
    """Read a file of observations of any kind and write it as IODA or CSV."""
    from dasim import sensors

    try:
        writers = {".nc": sensors.write_ioda, ".nc4": sensors.write_ioda, ".csv": sensors.write_csv}
        if out.suffix.lower() not in writers:
            raise DataError(f"{out}: ends in {out.suffix!r}, expected .nc (IODA) or .csv")
        if out.exists() and file.exists() and out.samefile(file):
            raise DataError(f"{out}: is the file to read; write to another")
        table = sensors.read_observations(file, columns)
        writers[out.suffix.lower()](out, table)
    except DasimError as error:
        fail(error)
    console.print(
        f"{len(table)} values of {len(table.units)} variables: {out}",
        soft_wrap=True,
        highlight=False,
    )


def _write(path: Path, data: bytes):
    try:
        path.write_bytes(data)
    except OSError as error:
        raise DasimError(f"{path}: cannot be written: {error.strerror}") from None


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.4g}"


def _print_table(kind: str, table):
    frame, counts = table.frame, table.counts()
    lines = {"file": f"{table.source} ({kind})", "values": f"{len(table):,}"}
    if len(table):
        first, last = frame["time"].min(), frame["time"].max()
        lines["time"] = f"{first.isoformat()}Z to {last.isoformat()}Z"
        if frame["latitude"].notna().any():
            lines["box"] = (
                f"{frame['latitude'].min():.3f} to {frame['latitude'].max():.3f} degrees north, "
                f"{frame['longitude'].min():.3f} to {frame['longitude'].max():.3f} degrees east"
            )
        stations = frame["station"][frame["station"] != ""].nunique()
        if stations:
            lines["stations"] = f"{stations:,}"
        vertical = frame["vertical"]
        if vertical.notna().any():
            told = f"{frame.attrs['vertical'] or 'vertical'} [{frame.attrs['vertical_units']}]"
            told = told.removesuffix(" []")
            lines["vertical"] = f"{vertical.min():.5g} to {vertical.max():.5g}, {told}"
        if table.extra:
            lines["columns"] = ", ".join(table.extra)
    for name, line in lines.items():
        console.print(f"[bold]{name}[/] {escape(line)}", soft_wrap=True, highlight=False)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("variable", "unit", "n", "missing", "min", "max", "mean", "std"):
        left = title in ("variable", "unit")
        shown.add_column(
            title,
            justify="left" if left else "right",
            # names of variables are long, and their ends tell them apart
            overflow="fold" if left else "ellipsis",
            no_wrap=not left,
            min_width=20 if title == "variable" else None,
        )
    by_name = frame.groupby("variable")
    values = by_name["value"].agg(["min", "max", "mean"])
    errors = by_name["std"].mean()
    flags: dict[int, int] = {}
    for name, row in counts.iterrows():
        for flag, n in row["qc"].items():
            flags[flag] = flags.get(flag, 0) + n
        cells = ["–"] * 4
        if name in values.index:
            cells = [*(_number(values.at[name, c]) for c in values.columns), _number(errors[name])]
        unit = escape(table.units[str(name)])
        shown.add_row(escape(str(name)), unit, f"{row['n']:,}", f"{row['missing']:,}", *cells)
    console.print(shown)
    if flags:
        told = ", ".join(f"{flag}: {n:,}" for flag, n in sorted(flags.items()))
        console.print(f"[bold]values by qc flag[/] {told}", soft_wrap=True, highlight=False)
