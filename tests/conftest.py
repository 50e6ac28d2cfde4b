"""Shape and type checks of every annotated function of the package while the tests run."""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float

# before anything of the package is imported
install_import_hook("dasim", "conftest.checked")
