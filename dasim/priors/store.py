"""Files of arrays with a JSON header, in the safetensors format: no code is ever loaded."""

import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_arrays
from safetensors.numpy import save as format_arrays

from dasim.types import DasimError, DataError, Key

Built = TypeVar("Built")


def _is_array(leaf) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _named_leaves(tree) -> dict[str, jax.Array | jax.ShapeDtypeStruct]:
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, _is_array))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def write_atomically(path: Path, content: bytes):
    """Replace `path` by `content` so that a reader finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


GO_ON = ", then go on with --resume: what was written so far is kept"


@contextmanager
def writing(path: Path, remedy: str = ""):
    """Turn a failure to write into a message that names the file, and what else to do."""
    try:
        yield
    except OSError as error:
        raise DasimError(
            f"{path}: cannot be written ({error.strerror}); free some space or choose another "
            f"--out{remedy}"
        ) from None


def without_nan(value):
    """Plain content with None for the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def save_arrays(path: Path, tree, header: dict):
    """Write the arrays of `tree`, by their names in it, and `header` as JSON."""
    arrays = {}
    for name, leaf in _named_leaves(tree).items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        arrays[name] = np.asarray(leaf, order="C")
    write_atomically(Path(path), format_arrays(arrays, {"header": json.dumps(header)}))


def read_header(path: Path) -> dict:
    """The header of a file of `save_arrays`.

    Raises:
        DataError: the file is missing, truncated, or of another kind.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    try:
        content = Path(path).read_bytes()
        arrays = parse_arrays(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["header"])
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: not a whole file of arrays with a header ({error}); it may be truncated: "
            "delete it, or write it again"
        ) from None
    return arrays, header


def load_arrays(path: Path, like) -> tuple[object, dict]:
    """The tree `like` with its arrays taken from the file, and the file's header.

    Of the arrays of `like` only shapes and types are asked.

    Raises:
        DataError: a broken file, or arrays that do not fit `like`; names the array.
    """
    arrays, header = _read(path)
    wanted = _named_leaves(like)
    for name, leaf in wanted.items():
        if name not in arrays:
            raise DataError(f"{path}: array {name} is missing; the file is of something else")
        if arrays[name].shape != leaf.shape:
            raise DataError(
                f"{path}: array {name} has shape {arrays[name].shape}, expected {leaf.shape}; "
                "the file is of another size or setting"
            )
    dynamic, static = eqx.partition(like, _is_array)
    leaves = [jnp.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()]
    filled = jax.tree.unflatten(jax.tree.structure(dynamic), leaves)
    return eqx.combine(filled, static), header


def load_built(path: Path, build: Callable[[Key], Built]) -> Built:
    """What `build` makes of a key, with its arrays taken from the file: none is computed.

    Raises:
        DataError: see `load_arrays`.
    """
    return load_arrays(path, eqx.filter_eval_shape(build, jax.random.key(0)))[0]
