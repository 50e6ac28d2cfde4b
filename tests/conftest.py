"""Shape and type checks of every annotated function of the package while the tests run."""

import os
from pathlib import Path

import jax
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
