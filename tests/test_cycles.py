"""From tables to cycles: which row goes where."""

import numpy as np
import pandas as pd
import pytest

from dasim.sensors import make_table, thinned, to_cycles
from dasim.types import DataError

TIMES = pd.to_datetime(["2020-01-01T00", "2020-01-01T06", "2020-01-01T12"])


def table(minutes, values, station="A", variable="t", std=np.nan, **more):
    time = TIMES[0] + pd.to_timedelta(minutes, unit="min")
    units = {"t": "K", "u": "m/s"}
    return make_table(
        "a file",
        units,
        variable=variable,
        time=time,
        value=values,
        station=station,
        std=std,
        **more,
    )


def test_windows_are_half_open():
    """-180 and 179 min belong to the first cycle, 180 to the second; 900 min lies in none."""
    cut = to_cycles(table([-180, 179, 180, 899, 900], [1.0, 2, 3, 4, 5]), TIMES, "3h")
    np.testing.assert_array_equal(cut.rows[:, 0], [1, 2, 3])
    np.testing.assert_array_equal(cut.observations.value[:, 0], [2, 3, 4])
    np.testing.assert_allclose(cut.observations.time, [0, 6, 12])
    assert cut.unused == {
        "repeated": 0, "flagged": 0, "in no window": 1, "without a slot": 0,
        "several in one slot": 1,
    }  # fmt: skip


def test_several_in_one_window():
    three = table([-60, 10, 100], [1.0, 2.0, 6.0], std=0.3)
    for several, value, row, std in (("nearest", 2, 1, 0.3), ("max", 6, 2, 0.3)):
        cut = to_cycles(three, TIMES, "3h", several=several)
        assert (cut.observations.value[0, 0], cut.rows[0, 0]) == (value, row)
        np.testing.assert_allclose(cut.observations.std[0, 0], std)
    mean = to_cycles(three, TIMES, "3h", several="mean")
    np.testing.assert_allclose(mean.observations.value[0, 0], 3.0)
    np.testing.assert_allclose(mean.observations.std[0, 0], 0.3 / np.sqrt(3), rtol=1e-6)
    assert mean.observations.mask.sum() == 1


def test_a_burst_of_duplicates_is_one_observation():
    rng = np.random.default_rng(0)
    minutes, values = rng.integers(-180, 900, 40), rng.standard_normal(40)
    once = table(minutes, values, station=[f"S{i % 4}" for i in range(40)])
    again = np.repeat(np.arange(40), 25)
    burst = table(minutes[again], values[again], station=[f"S{i % 4}" for i in again])
    a, b = (to_cycles(t, TIMES, "3h", several="mean") for t in (once, burst))
    np.testing.assert_array_equal(a.observations.value, b.observations.value)
    assert b.unused["repeated"] == 24 * 40


def test_slots_and_flags():
    both = table(
        [0, 0, 0, 5], [1.0, 2, 3, 9], station=["B", "A", "A", "A"],
        variable=["t", "t", "u", "u"], qc=[0, 0, 0, 7],
    )  # fmt: skip
    cut = to_cycles(both, TIMES, "3h")
    assert cut.slots == (("A", "t"), ("B", "t"), ("A", "u"))
    np.testing.assert_array_equal(cut.observations.value[0], [2, 1, 3])
    assert cut.unused["flagged"] == 1 and cut.observations.std is None
    some = to_cycles(both, TIMES, "3h", slots=[("B", "t"), ("C", "t")])
    np.testing.assert_array_equal(some.observations.mask[0], [True, False])
    assert some.unused["without a slot"] == 2


def test_an_empty_table_has_empty_cycles():
    cut = to_cycles(table([], []), TIMES, "3h", slots=[("A", "t")])
    assert cut.observations.mask.shape == (3, 1) and not cut.observations.mask.any()


def test_thinning():
    kept = thinned(table([0, 30, 70, 80, 130], [0.0, 1, 2, 3, 4]), "1h")
    np.testing.assert_array_equal(kept.frame["value"], [0, 2, 4])


def test_many_rows_are_quick():
    n = 200_000
    rng = np.random.default_rng(0)
    many = table(
        rng.integers(0, 700, n), rng.standard_normal(n), station=[f"{i}" for i in range(n)]
    )
    cut = to_cycles(many, TIMES, "3h")
    assert cut.observations.mask.sum() == n


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"before": "4h"}, "overlap: an observation would count twice"),
        ({"before": "3h", "several": "median"}, "several is 'median'"),
        ({"before": "0h"}, "holds nothing"),
        ({"before": "3h", "slots": [("A", "t"), ("A", "t")]}, "two slots"),
    ],
)
def test_refusals(options, message):
    with pytest.raises((ValueError, DataError), match=message):
        to_cycles(table([0], [1.0]), TIMES, **options)


def test_half_the_errors_known_is_refused():
    mixed = table([0, 360], [1.0, 2.0], std=[0.1, np.nan])
    with pytest.raises(DataError, match="a file: variable t, record 1: has no error standard"):
        to_cycles(mixed, TIMES, "3h")
