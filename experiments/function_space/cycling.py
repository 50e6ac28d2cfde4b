"""Cycling with one prior of functions at several resolutions, with the same point sensors.

    python cycling.py [--only score-64,LETKF,...] [--prior FILE]

The equation of Kuramoto and Sivashinsky, its arctangent read between the points of any grid.
"""

import argparse
import math
import os

os.environ.setdefault("NPROC", "8")

import jax.numpy as jnp
import numpy as np
from record import merge
from runs import Case, tuned

from dasim.filters import LETKF, ConditionalScoreFilter, StochasticEnKF
from dasim.localization import Localization
from dasim.models import KuramotoSivashinsky
from dasim.observe import Gaussian, Observation
from dasim.operators import FieldValues
from dasim.problems import find_prior
from dasim.trained import load_prior
from dasim.transitions import ModelTransition

SIZES = 64, 128, 256
STD = 0.3
LENGTH, DT, STEPS = 16 * math.pi, 0.5, 4  # of the model; the interval is four of its steps
SENSORS = 16
INFLATIONS = 1.02, 1.05, 1.1, 1.2
RADII = 0.06, 0.12, 0.24, 0.5, None  # half-widths over the length of the box
SCORE_RADII = (None,)  # of 0.12, 0.25 and none the best in 160 cycles


def arctan(v, t):
    """What the sensors read of a value."""
    return jnp.arctan(v)


def model(size: int) -> ModelTransition:
    """The true model on a grid."""
    return ModelTransition(KuramotoSivashinsky(size, LENGTH, DT), STEPS)


def sensors() -> np.ndarray:
    length = model(SIZES[0]).model.length
    return (np.arange(SENSORS) + 0.27)[:, None] * length / SENSORS


def observation(size: int) -> Observation:
    """The sensors, between the points of the coarsest grid."""
    return Observation(FieldValues(model(size).model.grid, sensors()).then(arctan), Gaussian(STD))


def localization(size: int, share: float | None) -> Localization | None:
    """A taper whose half-width is a share of the box."""
    if share is None:
        return None
    own = model(size).model
    points = sensors() * size / own.length
    return Localization(share * size, own.coords, points, own.period)


CASE = Case(model, observation, SIZES[-1], SIZES[0], members=40, cycles=200, burn_in=50)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only")
    parser.add_argument("--prior", default="kuramoto-sivashinsky-function")
    args = parser.parse_args()
    path = find_prior(args.prior)

    def enkf(kind, size):
        return lambda s: (kind(jnp.asarray(s[0]), localization(size, s[1])), model(size))

    def conditional(size, transition):
        return lambda s: (
            ConditionalScoreFilter(localization=localization(size, s[0])),
            transition(),
        )

    def learned(size):
        return lambda: load_prior(path, (size,), model(size).interval)[0]

    grid = [(i, r) for i in INFLATIONS for r in RADII]
    own = [(r,) for r in SCORE_RADII]
    methods = {
        "LETKF": (enkf(LETKF, 128), grid),
        "EnKF": (enkf(StochasticEnKF, 128), grid),
        "score-model-128": (conditional(128, lambda: model(128)), own),
        **{f"score-{size}": (conditional(size, learned(size)), own) for size in SIZES},
    }
    for name, (make, settings) in methods.items():
        if args.only is None or name in args.only.split(","):
            found = tuned(CASE, make, settings)
            print(name, found, flush=True)
            merge({"cycling": {name: found}})


if __name__ == "__main__":
    main()
