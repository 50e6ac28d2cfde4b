"""Shape and type checks of every annotated function of the package while the tests run."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# workers of the pool on which XLA runs; see dasim.cli
os.environ.setdefault("NPROC", "8")

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float

# before anything of the package is imported
install_import_hook("dasim", "conftest.checked")


@pytest.fixture(scope="module")
def float64():
    """Double precision, and programs that are as fast and sooner compiled."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


MAPS = Path("/proc/self/maps")
MOST_MAPS = 20_000  # of the 65,530 memory maps that Linux gives a process


@pytest.fixture(autouse=True)
def few_programs():
    """Forget compiled programs before their memory maps run out, which ends in a segfault."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


@pytest.fixture
def table():
    """Observations of two variables at three locations, what can be unknown unknown somewhere."""
    from dasim import sensors

    return sensors.make_table(
        "hand",
        {"airTemperature": "K", "windEastward": "m s-1"},
        variable=["airTemperature", "windEastward", "airTemperature", "windEastward"],
        time=np.array(["2020-02-29T12", "2020-02-29T12", "2020-03-01", "2020-03-02"], "M8[ns]"),
        latitude=[45.1, 45.1, -90.0, np.nan],
        longitude=[350.0, 350.0, 180.0, np.nan],
        vertical=[85000.0, 85000.0, np.nan, 50000.0],
        station=["A1", "A1", "Ålesund", ""],
        value=[273.15, -4.0, 250.1, 1 / 3],
        std=[1.0, np.nan, 0.7, 2.0],
        qc=[0, 3, 1, 0],
        record=[0, 0, 1, 2],
        extra={"HofX": [272.0, -4.5, np.nan, 0.1], "used": [1, 0, 1, 1]},
        vertical_name="pressure",
        vertical_units="Pa",
    )
