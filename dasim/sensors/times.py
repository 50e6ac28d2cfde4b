"""Times as files hold them, numbers after a date or text, as datetime64[ns] in UTC.

A calendar whose days are days (standard, proleptic Gregorian, Julian) is counted: the moment is
that of the reference plus the elapsed time, exact to the microsecond. The dates of a model's
calendar (360_day, noleap, all_leap) are taken by name, and one that the real calendar does not
have is a fault.
"""

import datetime
import warnings

import cftime
import numpy as np
import pandas as pd

from dasim.types import DataError

COUNTED = {"standard", "gregorian", "proleptic_gregorian", "julian"}
EPOCH_DAY = 2440588  # Julian day number of 1970-01-01
DAY = 86_400_000_000  # microseconds
LIMIT = 9_223_372_036_854_775  # microseconds from 1970 that fit into 64 bits as nanoseconds
RANGE = "is outside 1677-09-22 to 2262-04-11, the times that nanoseconds in 64 bits can tell"


def _fault(where: str, wrong: np.ndarray, told: str, shown: np.ndarray, first: int):
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise DataError(f"{where}, record {i + first}: {told.format(shown[i])}")


def _reference(units: str, calendar: str, where: str):
    """The date that the numbers count from, and the microseconds that 1 stands for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on year 0, which real files count from
            zero, one = cftime.num2date(
                [0, 1], units, calendar=calendar, only_use_cftime_datetimes=True
            )
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise DataError(
            f"{where}: units {units!r} in calendar {calendar!r} do not count time ({error}); "
            "expected such as 'seconds since 1970-01-01T00:00:00Z'"
        ) from None
    return zero, (one - zero) // datetime.timedelta(microseconds=1)


def from_numbers(numbers, units: str, calendar: str, where: str, first: int = 0) -> np.ndarray:
    """Times of numbers in a CF unit and calendar.

    Args:
        numbers: `(n,)`, integers, floats (NaN where missing) or a masked array.
        units: such as `hours since 2020-01-01`.
        calendar: of CF; empty for the standard one.
        where: file and variable, for messages.
        first: number of the first record, for messages.

    Returns:
        `(n,)`, NaT where missing.

    Raises:
        DataError: a unit or calendar that does not exist, or a date that the real calendar or
            64 bits of nanoseconds do not have.
    """
    calendar = (calendar or "standard").lower()
    nanoseconds = units.lower().split(" since ")[0].strip() in ("nanoseconds", "nanosecond", "ns")
    if nanoseconds:
        units = "microseconds since " + units.split(" since ", 1)[-1]
    zero, scale = _reference(units, calendar, where)
    missing = np.ma.getmaskarray(numbers)
    numbers = np.ma.getdata(numbers)
    if numbers.dtype.kind not in "iu":
        numbers = numbers.astype(float)
        missing = missing | np.isnan(numbers)
    numbers = np.where(missing, 0, numbers)
    if calendar not in COUNTED:
        return _by_name(numbers, missing, units, calendar, where, first)
    start = (zero.toordinal() - EPOCH_DAY) * DAY + round(
        ((zero.hour * 60 + zero.minute) * 60 + zero.second) * 1_000_000 + zero.microsecond
    )
    rest = np.zeros(len(numbers), np.int64)
    if nanoseconds and numbers.dtype.kind in "iu":
        rest, numbers = numbers % 1000, numbers // 1000
    elif nanoseconds:
        numbers = numbers / 1000
    about = numbers.astype(float) * scale + start
    _fault(where, ~(np.abs(about) < LIMIT), f"{{}} {units} {RANGE}", numbers, first)
    whole = np.floor(numbers)
    parts = np.round((numbers - whole) * scale).astype(np.int64)
    time = ((whole.astype(np.int64) * scale + parts + start) * 1000 + rest).view("datetime64[ns]")
    time[missing] = np.datetime64("NaT")
    return time


def _by_name(numbers, missing, units, calendar, where, first) -> np.ndarray:
    distinct, inverse = np.unique(numbers, return_inverse=True)
    time = np.full(len(distinct), np.datetime64("NaT"), "datetime64[ns]")
    seen = set(inverse[~missing])
    for i, number in enumerate(distinct):
        if i not in seen:
            continue
        record = int(np.flatnonzero((inverse == i) & ~missing)[0]) + first
        try:
            date = cftime.num2date(number, units, calendar, only_use_cftime_datetimes=True)
        except (ValueError, OverflowError) as error:
            raise DataError(f"{where}, record {record}: {number} {units}: {error}") from None
        try:
            real = datetime.datetime(*date.timetuple()[:6], date.microsecond)
        except ValueError:
            raise DataError(
                f"{where}, record {record}: {date.strftime('%Y-%m-%d')} of the calendar "
                f"{calendar} is no date of the real one; give times in the standard calendar"
            ) from None
        moment = np.datetime64(real, "us")
        if abs(moment.astype(np.int64)) >= LIMIT:
            raise DataError(f"{where}, record {record}: {date} {RANGE}")
        time[i] = moment
    time = time[inverse.reshape(-1)]
    time[missing] = np.datetime64("NaT")
    return time


def from_text(text, where: str, form: str = "ISO8601", lines=None) -> np.ndarray:
    """Times of text `(n,)`, NaT where it is empty; UTC where it names no zone.

    Args:
        text: `(n,)`.
        where: file and variable, for messages.
        form: `ISO8601` or a format of `strptime`.
        lines: line of each in its file, for messages; they count records from 0 where None.

    Raises:
        DataError: text that is no date of the real calendar, or out of range.
        ValueError: a format that is none.
    """
    text = np.asarray(text, dtype=object)
    # times repeat: parse each once
    codes, distinct = pd.factorize(text)
    words = pd.Series(distinct, dtype="str")
    parsed = pd.to_datetime(words, format=form, utc=True, errors="coerce")
    empty = np.array([not str(word).strip() for word in distinct], bool)

    def refuse(wrong, told):
        rows = np.flatnonzero(wrong[codes])
        if len(rows):
            i = int(rows[0])
            place = f"record {i}" if lines is None else f"line {lines[i]}"
            raise DataError(f"{where}, {place}: {text[i]!r} {told}")

    kind = "2020-01-31T06:00:00Z" if form == "ISO8601" else form
    refuse(parsed.isna().to_numpy() & ~empty, f"is no date and time such as {kind}")
    years = parsed.dt.year.to_numpy()
    refuse((years < 1678) | (years > 2261), RANGE)
    naive = parsed.dt.tz_localize(None).to_numpy().astype("datetime64[ns]")
    return naive[codes]
