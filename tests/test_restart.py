"""A run that is killed and resumed leaves the files of an undisturbed one."""

import json
import subprocess
import sys
import time

import pytest
import yaml

RUN = {
    "name": "tiny",
    "system": {"kind": "lorenz96", "size": 8, "interval": 0.1, "noise": 0.1},
    "observe": {"every": 2, "std": 1.0},
    "cycle": {"n_cycles": 60, "burn_in": 6, "chunk": 3},
    "members": 6,
    "methods": [
        {"name": "particles", "kind": "BootstrapParticleFilter"},
        {"name": "EnKF", "kind": "StochasticEnKF", "inflation": 1.05, "localization_radius": 3},
    ],
}


def start(config, folder, *options):
    command = [
        sys.executable,
        "-m",
        "dasim.cli",
        "run",
        str(config),
        "--out",
        str(folder),
        *options,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def kill_at(process, checkpoint):
    """SIGKILL as soon as `checkpoint` is there."""
    deadline = time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("restart")
    config = root / "run.yaml"
    config.write_text(yaml.safe_dump(RUN))
    whole, cut = root / "whole", root / "cut"
    undisturbed = start(config, whole)
    process = start(config, cut)
    kill_at(process, cut / "checkpoint" / "particles.safetensors")
    assert not (cut / "checkpoint" / "EnKF.safetensors").exists()
    assert not (cut / "scores.json").exists()
    finish(undisturbed)
    first = (cut / "particles.nc").read_bytes()
    assert first != (whole / "particles.nc").read_bytes()  # it was cut short indeed
    finish(start(config, cut, "--resume"))
    return whole, cut


def test_ensembles_are_equal_byte_for_byte(folders):
    whole, cut = folders
    names = sorted(path.name for path in whole.glob("*.nc"))
    assert names == ["EnKF.nc", "particles.nc"]
    assert sorted(path.name for path in cut.glob("*.nc")) == names
    for name in names:
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name


def test_settings_and_scores_are_equal(folders):
    whole, cut = folders
    assert (whole / "config.yaml").read_bytes() == (cut / "config.yaml").read_bytes()
    scores = [json.loads((f / "scores.json").read_text()) for f in folders]
    for one in scores:
        for method in one["methods"].values():
            assert method.pop("seconds_per_cycle") > 0
    assert scores[0] == scores[1]
    assert set(scores[0]["methods"]) == {"particles", "EnKF"}


def test_the_same_files_are_left(folders):
    listing = [sorted(str(p.relative_to(f)) for p in f.rglob("*")) for f in folders]
    assert listing[0] == listing[1]
    assert not [name for name in listing[0] if name.endswith(".part")]
