"""Helpers for observation files: what two tables share."""

import pandas as pd


def same(a, b):
    """Two tables hold the same rows, whatever their order."""
    assert sorted(a.frame.columns) == sorted(b.frame.columns)
    left, right = a.sorted().frame, b.sorted().frame[a.frame.columns]
    pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert a.units == b.units


def rows(table, *columns):
    return list(table.sorted().frame[list(columns)].itertuples(index=False, name=None))
