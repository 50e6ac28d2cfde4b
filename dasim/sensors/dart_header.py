"""The header of a DART observation sequence: types, copies, QC copies, counts, the list's ends."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dasim.types import DataError

COUNT = re.compile(r"(\w+):\s*(-?\d+)")
NAMES = {"prior ensemble mean": "HofX", "DART quality control": "EffectiveQC"}


@dataclass
class Header:
    """What the header says.

    Attributes:
        kinds: name of each number of the observation types.
        copies: names of the copies.
        flags: names of the QC copies, whose values follow those of the copies.
        n: number of records.
        first: number of the first one in the linked list.
        last: number of the last one.
        value: which of the copies is the observed value.
        qc: which of copies and QC copies is the flag, or None.
        columns: names of the others, by number.
        location: the keyword of the locations, known after the records were read.
    """

    # numbers that a location of each keyword has
    DIMENSIONS: ClassVar[dict[bytes, int]] = {
        b"loc3d": 4,
        b"loc2s": 2,
        b"loc1d": 1,
        b"locx": 1,
        b"loc2d": 2,
    }

    kinds: dict[int, str]
    copies: list[str]
    flags: list[str]
    n: int
    first: int
    last: int
    value: int
    qc: int | None
    columns: dict[int, str]
    location: bytes = b""

    @property
    def n_values(self) -> int:
        return len(self.copies) + len(self.flags)


def _identifier(name: str) -> str:
    return NAMES.get(name) or re.sub(r"\W+", "_", name).strip("_") or "copy"


def read_header(path: Path, file) -> Header:
    """Read the lines before the first record from a file open in binary.

    Raises:
        DataError: a header that is not one; names file and line.
    """
    number = 0

    def line(expected: str) -> str:
        nonlocal number
        number += 1
        text = file.readline(1000)
        if not text:
            raise DataError(f"{path}: ends at line {number}, expected {expected}")
        if b"\0" in text:
            raise DataError(
                f"{path}: line {number}: a binary sequence; write it as ASCII "
                "(write_binary_obs_sequence = .false.)"
            )
        return text.decode("ascii", "replace").strip()

    def counts(text: str, *names: str) -> list[int]:
        found = {key: int(n) for key, n in COUNT.findall(text)}
        if any(found.get(name, -1) < 0 for name in names if name != "last" and name != "first"):
            raise DataError(f"{path}: line {number}: {text!r}, expected {' and '.join(names)}")
        return [found.get(name, -1) for name in names]

    start = line("obs_sequence")
    if start != "obs_sequence":
        raise DataError(f"{path}: line 1: {start[:60]!r}, expected obs_sequence")
    kinds, text = {}, line("obs_type_definitions")
    if text in ("obs_type_definitions", "obs_kind_definitions"):
        text = line("the number of types")
        if not text.isdigit():
            raise DataError(f"{path}: line {number}: {text!r}, expected the number of types")
        for _ in range(int(text)):
            words = line("a number and the name of a type").split()
            if len(words) != 2 or not words[0].isdigit():
                raise DataError(
                    f"{path}: line {number}: {' '.join(words)!r}, expected a number and the name "
                    "of a type"
                )
            kinds[int(words[0])] = words[1]
        text = line("num_copies and num_qc")
    n_copies, n_qc = counts(text, "num_copies", "num_qc")
    n = counts(line("num_obs"), "num_obs")[0]
    copies = [line("the name of a copy") for _ in range(n_copies)]
    flags = [line("the name of a QC copy") for _ in range(n_qc)]
    text = line("first and last")
    if not text.startswith("first:"):
        raise DataError(
            f"{path}: line {number}: {text!r}, expected first and last after the names of "
            f"{n_copies} copies and {n_qc} QC copies"
        )
    first, last = counts(text, "first", "last")
    observed = [i for i, name in enumerate(copies) if "observation" in name.lower()]
    if not observed:
        raise DataError(
            f"{path}: no copy is called observation, so it has no observed values; its copies are "
            f"{', '.join(copies) or 'none'}"
        )
    own = [i for i, name in enumerate(flags, n_copies) if name != "DART quality control"]
    data = [i for i in own if (copies + flags)[i] == "Data QC"]
    qc = next(iter(data + own), None)
    columns: dict[int, str] = {}
    for i, name in enumerate(copies + flags):
        if i not in (observed[0], qc):
            label = _identifier(name)
            taken = label in columns.values() or label in ("value", "std", "qc", "record")
            columns[i] = f"{label}_{i + 1}" if taken else label
    return Header(kinds, copies, flags, n, first, last, observed[0], qc, columns)
