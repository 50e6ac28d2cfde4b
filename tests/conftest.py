"""Shape and type checks of every annotated function of the package while the tests run."""

import os

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# workers of the pool on which XLA runs; see dasim.cli
os.environ.setdefault("NPROC", "8")

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float

# before anything of the package is imported
install_import_hook("dasim", "conftest.checked")
