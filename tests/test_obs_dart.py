"""DART's sequences against numbers written by hand."""

import numpy as np
import pandas as pd
import pytest
from observation_tables import rows, same

from dasim import sensors
from dasim.types import DataError

NONE = -888888
HEADER = """ obs_sequence
obs_type_definitions
           2
           4 GPSRO_REFRACTIVITY
          68 ACARS_TEMPERATURE
  num_copies:            3  num_qc:            2
  num_obs:            3  max_num_obs:            3
NCEP BUFR observation
prior ensemble mean
prior ensemble spread
Data QC
DART quality control
  first:            2  last:            3
"""


SPHERE = 68, (np.pi, np.pi / 4, 85000.0, 2)
RAY = 4, (3 * np.pi / 2, -np.pi / 2, 2600.0, 3)
NOWHERE = 68, (0.0, 0.0, -888888.0, -2)
LENGTHS = "gpsroref     504\n   0.0   0.0   0.0   GPSREF\n"
EXTERNAL = "external_FO       3       1\n  1.0  2.0\n  3.0\n"


def dart(key, links, where, numbers, time, more="", variance=4.0):
    kind, place = where
    lines = [f" OBS            {key}", *(f"   {x:.15f}" for x in numbers)]
    lines += [f"   {links[0]}  {links[1]}  -1", "obdef", "loc3d"]
    lines += ["     " + "   ".join(str(p) for p in place), "kind", f"   {kind}"]
    return "\n".join(lines) + f"\n{more} {time[0]}     {time[1]}\n   {variance}\n"


def sequence():
    first, second, third = (230.5, 231.25, 0.5, 1, 7), (80, NONE, NONE, 0, 4), (NONE, 1, 1, 5, 0)
    return (
        HEADER
        + dart(1, (2, 3), SPHERE, first, (60, 153005))
        + dart(2, (-1, 1), RAY, second, (0, 153005), LENGTHS, 0.25)
        + dart(3, (1, -1), NOWHERE, third, (30, 153006), EXTERNAL)
    )


def test_dart_sequence(tmp_path):
    (tmp_path / "obs_seq.final").write_text(sequence())
    table = sensors.read_observations(tmp_path / "obs_seq.final")
    frame = table.frame
    assert frame["record"].tolist() == [2, 1]  # the order of the linked list
    assert frame["variable"].tolist() == ["GPSRO_REFRACTIVITY", "ACARS_TEMPERATURE"]
    assert table.missing == {"GPSRO_REFRACTIVITY": 0, "ACARS_TEMPERATURE": 1}
    assert frame["value"].tolist() == [80, 230.5] and frame["std"].tolist() == [0.5, 2]
    assert np.allclose(frame["latitude"], [-90, 45]) and np.allclose(
        frame["longitude"], [-90, -180]
    )
    assert frame["vertical"].tolist() == [2600, 85000] and frame["vertical_kind"].tolist() == [3, 2]
    assert np.isnan(frame["HofX"][0]) and frame["HofX"][1] == 231.25
    assert frame["qc"].tolist() == [0, 1] and frame["EffectiveQC"].tolist() == [4, 7]
    # day 153005 after 1601-01-01 is 2019-12-01
    assert frame["time"].tolist() == [pd.Timestamp("2019-12-01"), pd.Timestamp("2019-12-01 00:01")]
    sensors.write_ioda(tmp_path / "a.nc", table)
    same(table, sensors.read_observations(tmp_path / "a.nc"))


def test_dart_parsed_in_blocks_is_the_same(tmp_path, monkeypatch):
    (tmp_path / "a").write_text(sequence())
    whole = sensors.read_dart(tmp_path / "a")
    monkeypatch.setattr("dasim.sensors.dart.BLOCK", 100)
    same(whole, sensors.read_dart(tmp_path / "a"))


def test_dart_identity_observations_of_a_ring(tmp_path):
    text = """obs_sequence
obs_type_definitions
 0
  num_copies: 1 num_qc: 1
  num_obs: 1 max_num_obs: 1
observations
Quality Control
  first: 1 last: 1
 OBS 1
 0.5D+01
 0.0
 -1 -1 -1
obdef
loc1d
 0.25
kind
 -11
 3600 1
 4.0
"""
    (tmp_path / "a").write_text(text)
    table = sensors.read_observations(tmp_path / "a")
    columns = ("variable", "value", "std", "location", "state_index")
    assert rows(table, *columns) == [("state", 5, 2, 0.25, 11)]
    assert table.frame["time"][0] == pd.Timestamp("1970-01-02T01")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("num_obs:            3", "num_obs:            4", "record 4 is missing"),
        ("num_obs:            3", "num_obs:            2", "record 3 is one too many"),
        ("num_copies:            3", "num_copies:            2", "line 12"),
        ("   2  3  -1", "   2  -1  -1", "record 3 is not in the linked list"),
        ("   1  -1  -1", "   1  2  -1", "record 3 is the last"),
        ("last:            3", "last:            1", "record 3 is the last"),
        (" OBS            2", " OBS            7", "record 2 is numbered 7"),
        ("   80.0", "   8o.0", "record 2: 'NCEP BUFR observation' is '8o.0"),
        ("kind\n   4", "kind\n   5", "record 2: kind 5"),
        ("0.25\n", "-0.25\n", "GPSRO_REFRACTIVITY, record 2: the error variance is -0.25"),
        ("obdef", "abdef", "record 1: 'abdef'"),
        ("NCEP BUFR observation", "truth", "no copy is called observation"),
    ],
)
def test_dart_faults_name_the_record(tmp_path, old, new, told):
    text = sequence()
    assert old in text
    (tmp_path / "a").write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=told) as error:
        sensors.read_observations(tmp_path / "a")
    assert str(tmp_path / "a") in str(error.value)
