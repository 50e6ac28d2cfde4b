"""Events in cycling: `cycling.yaml` with three seeds.

    python experiments/events/cycling.py [--out FOLDER]

Runs into FOLDER/seed-N what is not there yet. Writes cycling.json and README.md's tables.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import typer
from table import write

from dasim import config as schema
from dasim import experiment

HERE = Path(__file__).parent
SEEDS = 3
SCORES = "crps", "rmse", "spread", "coverage_90"


def main(out: Path = Path("runs/events-cycling")):
    found = {}
    for seed in range(SEEDS):
        folder = out / f"seed-{seed}"
        if not (folder / "scores.json").exists():
            settings = schema.read(HERE / "cycling.yaml", schema.Run, [f"seed={seed}"])
            experiment.run(settings, folder)
        scores = json.loads((folder / "scores.json").read_text())
        analyses = {
            name: {k: s[f"{k}_analysis"] for k in SCORES} for name, s in scores["methods"].items()
        }
        found[str(seed)] = {"events": scores["events"], "analyses": analyses}
    (HERE / "cycling.json").write_text(json.dumps(found, indent=1) + "\n")
    write(json.loads((HERE / "results.json").read_text()))


if __name__ == "__main__":
    typer.run(main)
