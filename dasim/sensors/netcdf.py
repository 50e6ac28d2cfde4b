"""What the readers of netCDF share: opening, missing values, text.

A number is missing where the file's own `_FillValue`, `missing_value` or valid range says so, where
it is NaN, and where it is one of the fill values that programs write without declaring them. Those
of floats (9.97e36 of netCDF, about -3.4e38 and -1.8e308 of JEDI) are all far above what anything
observed can be, and so are those of integers.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import netCDF4
import numpy as np

from dasim.sensors.table import ABSURD
from dasim.types import DataError

# of integers, by size in bytes: netCDF's and JEDI's fills are within 10 of the least and greatest
FILLS = {4: 2**31 - 12, 8: 2**63 - 12}


@contextmanager
def opened(path: Path) -> Iterator[netCDF4.Dataset]:
    """The file, open to be read; faults of the netCDF library become a `DataError`."""
    with warnings.catch_warnings():
        # netCDF4 warns of attributes that do not fit their variable, and goes on without them
        warnings.simplefilter("ignore")
        try:
            with netCDF4.Dataset(path) as file:
                yield file
        except DataError:
            raise
        # damaged bytes come out of the library as anything, MemoryError included
        except Exception as error:
            raise DataError(
                f"{path}: cannot be read as netCDF ({str(error) or type(error).__name__}); is the "
                "file cut short or damaged? Fetch it again"
            ) from error


def numbers(variable: netCDF4.Variable) -> np.ma.MaskedArray:
    """A variable's numbers, unpacked, masked where missing; integers stay integers."""
    variable.set_auto_maskandscale(True)
    data = np.ma.masked_invalid(variable[...], copy=False)
    array = np.ma.getdata(data)
    if array.dtype.kind == "f":
        absurd = np.abs(array) > ABSURD
    elif array.dtype.kind == "i" and array.dtype.itemsize in FILLS:
        limit = FILLS[array.dtype.itemsize]
        absurd = (array > limit) | (array < -limit)
    else:
        return np.ma.array(array, mask=np.ma.getmaskarray(data))
    return np.ma.array(array, mask=np.ma.getmaskarray(data) | absurd)


def floats(variable: netCDF4.Variable) -> np.ndarray:
    """A variable's numbers as float64, NaN where missing."""
    return numbers(variable).astype(float).filled(np.nan)


def is_text(variable: netCDF4.Variable) -> bool:
    """Whether it holds strings or characters."""
    return variable.dtype is str or np.dtype(variable.dtype).kind in "SU"


def text(variable: netCDF4.Variable) -> np.ndarray:
    """A variable's text, without the dimension of its characters; numbers become their digits."""
    if not is_text(variable):
        data = numbers(variable)
        words = [
            "" if hidden else str(int(x)) if x == int(x) else str(x)
            for x, hidden in zip(data.data.flat, np.ma.getmaskarray(data).flat, strict=True)
        ]
        return np.array(words, object).reshape(data.shape)
    variable.set_auto_mask(False)
    variable.set_auto_chartostring(False)
    data = np.asarray(variable[...])
    if variable.dtype is str:
        words = [str(word).strip() for word in data.flat]
        return np.array([*words, None], object)[:-1].reshape(data.shape)
    if data.ndim and data.shape[-1]:
        data = np.ascontiguousarray(data).view(f"S{data.shape[-1]}")[..., 0]
    elif data.ndim:
        data = np.zeros(data.shape[:-1], "S1")
    words = [word.decode("utf-8", "replace").strip("\0 ") for word in data.flat]
    return np.array(words, object).reshape(data.shape)


def text_dimensions(variable: netCDF4.Variable) -> tuple[str, ...]:
    """A variable's dimensions without that of its characters."""
    if variable.dtype is not str and np.dtype(variable.dtype).kind == "S":
        return variable.dimensions[:-1]
    return variable.dimensions


def attribute(holder, name: str) -> str:
    """A file's or a variable's attribute as text, empty where there is none."""
    return str(holder.getncattr(name)).strip() if name in holder.ncattrs() else ""
