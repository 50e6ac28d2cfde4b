"""Observation files: IODA, CF, DART and text, each read into one long table."""

from pathlib import Path
from typing import Literal

from dasim.sensors.cf import read_cf as read_cf
from dasim.sensors.cycles import Cycles as Cycles
from dasim.sensors.cycles import thinned as thinned
from dasim.sensors.cycles import to_cycles as to_cycles
from dasim.sensors.cycles import without_duplicates as without_duplicates
from dasim.sensors.dart import read_dart as read_dart
from dasim.sensors.ioda import read_ioda as read_ioda
from dasim.sensors.ioda_write import write_ioda as write_ioda
from dasim.sensors.netcdf import attribute, opened
from dasim.sensors.table import ObsTable as ObsTable
from dasim.sensors.table import make_table as make_table
from dasim.sensors.text import MAPS as MAPS
from dasim.sensors.text import CsvColumns as CsvColumns
from dasim.sensors.text import read_csv as read_csv
from dasim.sensors.text import read_map as read_map
from dasim.sensors.text import write_csv as write_csv
from dasim.types import DataError

Kind = Literal["IODA", "CF", "DART", "CSV"]
NETCDF = (b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05")


def detect(path: Path | str) -> Kind:
    """The kind of an observation file, told by what it holds and not by its name.

    Raises:
        DataError: a file that is missing, empty, or of no such kind.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not start.strip():
        raise DataError(f"{path}: is empty")
    if start.startswith(NETCDF):
        with opened(path) as file:
            if file.groups or any("@" in name for name in file.variables):
                return "IODA"
            if attribute(file, "featureType") or attribute(file, "CF:featureType"):
                return "CF"
        raise DataError(
            f"{path}: a netCDF file with neither the groups of IODA nor the attribute featureType "
            "of CF; say which of the two it is by adding what lacks"
        )
    if b"obs_sequence" in start[:64]:
        return "DART"
    if b"\0" in start:
        raise DataError(
            f"{path}: binary data of no known kind; expected IODA or CF netCDF, a DART sequence, "
            "or text in columns"
        )
    return "CSV"


def read_observations(path: Path | str, columns: CsvColumns | str | Path | None = None) -> ObsTable:
    """The observations of an IODA, CF, DART or CSV file, whichever it is.

    Args:
        path: of the file.
        columns: for a CSV file: what its columns are; see `read_csv`.

    Raises:
        DataError: a file that cannot be read, or holds what it should not; one message names the
            file, the variable and the record or line, and says what was expected.
    """
    kind = detect(path)
    if kind == "CSV":
        return read_csv(path, columns)
    if columns is not None:
        raise DataError(f"{path}: is a {kind} file, and only CSV files take a map of columns")
    return {"IODA": read_ioda, "CF": read_cf, "DART": read_dart}[kind](path)
