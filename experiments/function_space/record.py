"""The results of the experiments of this folder, in one file."""

import json
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"


def results() -> dict:
    """All that was recorded."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def merge(found: dict):
    """Write `found` over what was recorded of the same things."""

    def onto(old, new):
        both = isinstance(old, dict) and isinstance(new, dict)
        return old | {k: onto(old.get(k), v) for k, v in new.items()} if both else new

    RESULTS.write_text(json.dumps(onto(results(), found)) + "\n")
