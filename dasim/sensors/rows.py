"""The cells of a table of text, by column; every fault names column, line and text."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from dasim.sensors.table import ABSURD
from dasim.sensors.times import from_numbers, from_text
from dasim.types import DataError

UNIX = "seconds since 1970-01-01T00:00:00Z"


class Rows:
    """The cells of a file with a header.

    Attributes:
        header: names of the columns.
        lines: line of each row, counted from 1, `(row,)`; empty lines are no rows.
        n: number of rows.

    Raises:
        DataError: a file that cannot be read, is not text, or has a row of another length.
    """

    def __init__(self, path: Path, delimiter: str = ","):
        self.path = path
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
                self.header = [name.strip() for name in next(reader, [])]
                self.lines, rows, start = [], [], reader.line_num + 1
                for row in reader:
                    if len(row) != len(self.header) and row:
                        raise DataError(
                            f"{path}: line {start}: has {len(row)} columns, the header "
                            f"{len(self.header)}; is the file cut short?"
                        )
                    if row:
                        rows.append(row)
                        self.lines.append(start)
                    start = reader.line_num + 1
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is no text in UTF-8: {error}") from None
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: {error}") from None
        self.n = len(rows)
        self.cells = list(zip(*rows, strict=True)) if rows else [()] * len(self.header)

    def raw(self, name: str) -> np.ndarray:
        """A column as it stands, `(row,)`."""
        cells = np.empty(self.n, object)
        cells[:] = self.cells[self.header.index(name)]
        return cells

    def text(self, name: str) -> np.ndarray:
        """A column, `(row,)`, without surrounding blanks."""
        codes, distinct = pd.factorize(self.raw(name))
        return np.array([*map(str.strip, distinct), None], object)[codes]

    def refuse(self, name: str, wrong: np.ndarray, told: str):
        """Raise for the first row where `wrong`, `(row,)`, holds."""
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{self.path}: column {name}, line {self.lines[i]}: {self.text(name)[i]!r} {told}"
            )

    def numbers(self, name: str, missing: tuple[str, ...]) -> np.ndarray:
        """A column of numbers, `(row,)`, NaN where the text is one of `missing`."""
        cells = self.raw(name)
        absent = pd.Series(cells, dtype=object).isin(missing).to_numpy()
        cells[absent] = "nan"
        # Python takes 1_000 for a number
        if "_" in "".join(cells):
            self.refuse(name, np.array(["_" in c for c in cells], bool), "is not a number")
        try:
            found = cells.astype(float)
        except ValueError:
            cells = self.text(name)
            absent = pd.Series(cells, dtype=object).isin(missing).to_numpy()
            found = np.array([_number(cell) for cell in np.where(absent, "nan", cells)], float)
        told = "is not a number; if it stands for a missing one, name it in `missing` of the map"
        self.refuse(name, ~absent & ~(np.abs(found) <= ABSURD), told)
        return found

    def times(self, name: str, form: str, missing: tuple[str, ...]) -> np.ndarray:
        """A column of times, `(row,)`, NaT where missing; `form` is that of `CsvColumns`."""
        where = f"{self.path}: column {name}"
        if form == "unix":
            seconds = self.numbers(name, missing)
            self.refuse(name, np.abs(seconds) > 9.2e9, "is outside the years 1678 to 2261")
            return from_numbers(seconds, UNIX, "", where)
        cells = self.text(name)
        cells[pd.Series(cells, dtype=object).isin(missing).to_numpy()] = ""
        try:
            iso = form in ("iso", "ISO8601")
            return from_text(cells, where, "ISO8601" if iso else form, lines=self.lines)
        except ValueError as error:
            raise DataError(f"{where}: {form!r} is no format of times: {error}") from None


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.inf
