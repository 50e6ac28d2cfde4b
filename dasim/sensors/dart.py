"""Reads DART's observation sequences, `obs_seq` and `obs_seq.final`, in ASCII.

After the header come records of n_copies + n_qc + 9 lines or more:

    OBS key / copies / QC copies / previous next group / obdef / location type / location /
    kind / number / (lines of that kind, or of external forward operators) / seconds days / variance

so the time and the variance are always the last two. Records are given in the order of the linked
list, which is that of time. Where the location is on the sphere, it is in radians with a vertical
value and its kind, and times count from 1601-01-01.
"""

from pathlib import Path

import numpy as np

from dasim.sensors.dart_header import Header, read_header
from dasim.sensors.dart_lines import Block
from dasim.sensors.table import ObsTable, make_table
from dasim.sensors.times import from_numbers
from dasim.types import DataError

MISSING = -888888.0
BLOCK = 1 << 25  # bytes parsed at a time; a file's lines take several times its size in memory
# kinds of the vertical coordinate
VERTICAL = {
    -2: ("undefined", ""),
    -1: ("surface", "m"),
    1: ("level", "1"),
    2: ("pressure", "Pa"),
    3: ("height", "m"),
    4: ("scale_height", "1"),
}
ERRATIC = "in the linked list of the records; write the file again with DART's obs_sequence_tool"


def _columns(block: Block, header: Header) -> dict[str, np.ndarray]:
    n = header.n_values
    block.words(n + 2, (b"obdef",))
    types = block.words(n + 3, tuple(header.DIMENSIONS))
    block.words(n + 5, (b"kind",))
    if len(types) > 1:
        raise DataError(f"{block.path}: locations of two kinds, {sorted(types)}")
    names = header.copies + header.flags
    columns = {
        "values": np.concatenate(
            [block.numbers(1 + k, f"{name!r}") for k, name in enumerate(names)], 1
        ),
        "key": block.keys(),
        "links": block.numbers(n + 1, "the line of links", 3),
        "kind": block.numbers(n + 6, "the kind")[:, 0],
        "time": block.numbers(-2, "the time, in seconds and days,", 2),
        "variance": block.numbers(-1, "the error variance")[:, 0],
    }
    for kind in types:
        header.location = kind
        columns["place"] = block.numbers(n + 4, "the location", header.DIMENSIONS[kind])
    return columns


def _order(path: Path, header: Header, key: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Indices of the records along the linked list."""
    n = len(key)
    wrong = np.flatnonzero(key != np.arange(1, n + 1))
    if len(wrong):
        i = int(wrong[0])
        raise DataError(f"{path}: record {i + 1} is numbered {key[i]}")
    following, order, here = links[:, 1].astype(int).tolist(), [], header.first
    while 1 <= here <= n and len(order) < n:
        order.append(here - 1)
        here = following[here - 1]
    index = np.array(order, int)
    seen = np.bincount(index, minlength=n)
    if len(order) < n or (seen != 1).any():
        lost = int(np.flatnonzero(seen == 0)[0]) + 1
        raise DataError(f"{path}: record {lost} is not {ERRATIC}")
    if n and (here != -1 or order[-1] + 1 != header.last):
        raise DataError(
            f"{path}: record {order[-1] + 1} is the last, and the header says {header.last}, "
            f"{ERRATIC}"
        )
    return index


def read_dart(path: Path | str) -> ObsTable:
    """The observations of a DART sequence in ASCII; `record` is the number after OBS.

    The value is the copy with `observation` in its name, `std` the root of the error variance,
    `qc` the QC copy `Data QC`, or the first that is not DART's own. `prior ensemble mean` becomes
    the column `HofX`, `DART quality control` the column `EffectiveQC`, and each other copy a column
    of its name, NaN where it is -888888. `vertical_kind` is DART's number: -2 undefined,
    -1 surface (m), 1 level, 2 pressure (Pa), 3 height (m), 4 scale height. An observation of the
    state itself is the variable `state`, with the column `state_index`. Locations of idealised
    models become the columns `location` or `location_x`, ...; their times, which have no calendar,
    count from 1970-01-01. DART files have no units: all are empty.

    Raises:
        DataError: a file that is none, in binary, or damaged: the message names the record.
    """
    path = Path(path)
    pieces = []
    try:
        with open(path, "rb") as file:
            header = read_header(path, file)
            rest, done = b"", 0
            while True:
                chunk = file.read(BLOCK)
                data = rest + chunk
                if chunk:  # the last record may go on
                    cut = max(data.rfind(b"\n OBS "), data.rfind(b"\nOBS ")) + 1
                    data, rest = data[:cut], data[cut:]
                lines = data.rstrip().splitlines()
                if b"\n\n" in data:
                    lines = [line for line in lines if line.strip()]
                block = Block(path, header, lines, done)
                if block.n:
                    pieces.append(_columns(block, header))
                done += block.n
                if not chunk:
                    break
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if done != header.n:
        raise DataError(
            f"{path}: holds {done} records, the header says num_obs {header.n}; record "
            f"{min(done, header.n) + 1} is {'missing' if done < header.n else 'one too many'}"
        )
    if not done:
        return make_table(str(path), {}, variable=[], time=np.array([], "M8[ns]"), value=[])
    columns = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
    order = _order(path, header, columns["key"], columns["links"])
    return _table(path, header, {key: data[order] for key, data in columns.items()})


def _table(path: Path, header: Header, columns: dict[str, np.ndarray]) -> ObsTable:
    record, values = columns["key"], columns["values"]
    values = np.where(values == MISSING, np.nan, values)
    kind = columns["kind"].astype(int)
    names = dict(header.kinds) | {k: "state" for k in np.unique(kind[kind < 0]).tolist()}
    unknown = np.flatnonzero(~np.isin(kind, list(names)))
    if len(unknown):
        i = int(unknown[0])
        raise DataError(
            f"{path}: record {record[i]}: kind {kind[i]} is not among the header's "
            "obs_type_definitions"
        )
    distinct, inverse = np.unique(kind, return_inverse=True)
    variable = np.array([names[k] for k in distinct.tolist()], object)[inverse]
    value = values[:, header.value]
    present = np.isfinite(value)
    extra, vertical = {}, {}
    place = columns["place"]
    latitude = longitude = np.full(len(kind), np.nan)
    epoch = "1970-01-01"
    if header.location in (b"loc3d", b"loc2s"):
        epoch = "1601-01-01"
        longitude, latitude = np.rad2deg(place[:, 0]), np.rad2deg(place[:, 1])
        # a pole in radians is not the nearest number to it
        latitude = np.where(np.abs(np.abs(latitude) - 90) < 1e-9, np.round(latitude), latitude)
        if header.location == b"loc3d":
            extra["vertical_kind"] = place[:, 3]
            height = np.where((place[:, 2] == MISSING) | (place[:, 3] == -2), np.nan, place[:, 2])
            found = np.unique(place[present, 3]).tolist()
            label = VERTICAL.get(int(found[0]), ("", "")) if len(found) == 1 else ("mixed", "")
            vertical = {"vertical_name": label[0], "vertical_units": label[1]}
            vertical["vertical"] = height[present]
    else:
        parts = ["location"] if place.shape[1] == 1 else [f"location_{c}" for c in "xyz"]
        extra |= dict(zip(parts, place.T, strict=False))
    if (kind < 0).any():
        extra["state_index"] = np.where(kind < 0, -kind, np.nan)
    seconds = columns["time"][:, 1].astype(np.int64) * 86400 + columns["time"][:, 0].astype(int)
    time = from_numbers(seconds, f"seconds since {epoch}", "", f"{path}: time")
    variance = np.where(columns["variance"] == MISSING, np.nan, columns["variance"])
    wrong = np.flatnonzero(variance < 0)
    if len(wrong):
        i = int(wrong[0])
        raise DataError(
            f"{path}: variable {variable[i]}, record {record[i]}: the error variance is "
            f"{variance[i]:g}"
        )
    flags = np.zeros(len(kind)) if header.qc is None else np.nan_to_num(values[:, header.qc])
    extra |= {name: values[:, place] for place, name in header.columns.items()}
    lost = {name: int((~present & (variable == name)).sum()) for name in names.values()}
    used = set(variable.tolist())
    return make_table(
        str(path),
        {name: "" for name in dict.fromkeys(names.values()) if name in used},
        variable=variable[present],
        time=time[present],
        latitude=latitude[present],
        longitude=longitude[present],
        value=value[present],
        std=np.sqrt(variance[present]),
        qc=flags[present],
        record=record[present],
        extra={name: data[present] for name, data in extra.items()},
        missing={name: n for name, n in lost.items() if name in used},
        **vertical,
    )
