"""The records of a DART observation sequence as lines, and the numbers on them."""

from pathlib import Path

import numpy as np

from dasim.sensors.dart_header import Header
from dasim.types import DataError


class Block:
    """Whole records of the file, as lines.

    Args:
        path: of the file, for messages.
        header: of the file.
        lines: those of the records, without blank ones.
        done: records before these.

    Raises:
        DataError: a record that does not begin as one, or is too short.
    """

    def __init__(self, path: Path, header: Header, lines: list[bytes], done: int):
        self.path, self.lines = path, lines
        starts = [i for i, line in enumerate(lines) if b"OBS " in line]
        self.n = len(starts)
        self.starts = starts
        self.ends = [*starts[1:], len(lines)]
        self.done = done
        shortest = header.n_values + 9
        cut = np.flatnonzero(np.subtract(self.ends, starts) < shortest)
        if (starts and starts[0] != 0) or (not starts and lines):
            raise DataError(
                f"{path}: record {done + 1} begins with {_shown(lines[0])}, expected OBS"
            )
        if len(cut):
            i = int(cut[0])
            raise DataError(
                f"{path}: record {done + i + 1} has {self.ends[i] - starts[i]} lines, expected "
                f"{shortest} or more; is the file cut short, or are its copies miscounted?"
            )

    def at(self, offset: int) -> list[bytes]:
        """The line that far from the start of each record, or from its end where below 0."""
        lines = self.lines
        if offset < 0:
            return [lines[i + offset] for i in self.ends]
        return [lines[i + offset] for i in self.starts]

    def words(self, offset: int, expected: tuple[bytes, ...]):
        """Refuse records whose line there is not one of the words; the words that occur."""
        lines = self.at(offset)
        found = {line.strip() for line in set(lines)}
        if not found <= set(expected):
            i = next(i for i, line in enumerate(lines) if line.strip() not in expected)
            raise DataError(
                f"{self.path}: record {self.done + i + 1}: {_shown(lines[i])} stands where "
                f"{' or '.join(word.decode() for word in expected)} is expected; is the file "
                "damaged, or are its copies miscounted?"
            )
        return found

    def keys(self) -> np.ndarray:
        """The numbers after OBS, `(record,)`; -1 where there is none."""
        words = [line.partition(b"OBS ")[2].strip() for line in self.at(0)]
        return np.array([int(word) if word.isdigit() else -1 for word in words], np.int64)

    def numbers(self, offset: int, what: str, count: int = 1) -> np.ndarray:
        """The numbers there, `(record, count)`."""
        lines = self.at(offset)
        try:
            found = np.array(b" ".join(lines).split(), dtype="S").astype(float)
            if found.size == self.n * count:
                return found.reshape(self.n, count)
        except ValueError:
            pass
        # seldom: Fortran's D exponents, or a fault
        rows = [_parse(line, count) for line in lines]
        if None in rows:
            i = rows.index(None)
            raise DataError(
                f"{self.path}: record {self.done + i + 1}: {what} is {_shown(lines[i])}, "
                f"expected {count} number{'s' * (count > 1)}"
            )
        return np.array(rows, float).reshape(self.n, count)


def _shown(line: bytes) -> str:
    return repr(line.strip()[:60].decode("ascii", "replace"))


def _parse(line: bytes, count: int) -> list[float] | None:
    try:
        row = [float(word.lower().replace(b"d", b"e")) for word in line.split()]
    except ValueError:
        return None
    return row if len(row) == count else None
