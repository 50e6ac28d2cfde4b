"""Cycling of a two-dimensional turbulent flow from a few of its points.

    python kolmogorov.py ['1.5 %'] [--only score-model,LETKF,...]

Kolmogorov flow at Reynolds number 100 on 64 x 64 points, the vorticity read at some of them: 5 %,
1.5 %, and 5 % through an arctangent that saturates at half the flow's standard deviation.
"""

import argparse
import os
from functools import partial

os.environ.setdefault("NPROC", "8")

import jax.numpy as jnp
import numpy as np
from record import merge
from runs import Case, tuned

from dasim.filters import LETKF, ConditionalScoreFilter, StochasticEnKF
from dasim.localization import Localization
from dasim.models import KolmogorovFlow
from dasim.observe import Gaussian, Observation, Select
from dasim.transitions import ModelTransition

SIZE, STEPS = 64, 20  # an interval of 0.4; small errors double in 0.9
INFLATIONS = 1.02, 1.05, 1.1
RADII = 4.0, 6.0, 8.0, 12.0  # half-widths in points
SCORE_RADII = 12.0, 16.0, 24.0
SEARCH = {"evaluations": 1, "iterations": 2}  # one start: a Jacobian is most of a cycle's cost


def arctan(v, t):
    """What a saturating sensor reads."""
    return jnp.arctan(v / 2)


def model(size: int) -> ModelTransition:
    """The true model on a grid."""
    return ModelTransition(KolmogorovFlow(size, 100.0, dt=0.02), STEPS)


def places(share: float) -> np.ndarray:
    """Indices of a share of the points, at random."""
    count = round(share * SIZE**2)
    return np.sort(np.random.default_rng(0).permutation(SIZE**2)[:count])


def observation(share: float, function, std: float, size: int) -> Observation:
    """The vorticity, or a function of it, at a share of the points."""
    select = Select(places(share))
    return Observation(select if function is None else select.then(function), Gaussian(std))


def localization(share: float, radius: float) -> Localization:
    own = model(SIZE).model
    return Localization(radius, own.coords, own.coords[places(share)], own.period)


# share of the points, what is read of a value, standard deviation of the error
CASES = {"5 %": (0.05, None, 0.5), "1.5 %": (0.015, None, 0.5), "arctan": (0.05, arctan, 0.1)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--only")
    args = parser.parse_args()
    for name in args.cases:
        seen = CASES[name]
        case = Case(
            model, partial(observation, *seen), SIZE, SIZE, members=40, cycles=60, burn_in=20
        )
        near = partial(localization, seen[0])

        def enkf(kind, near=near):
            return lambda s: (kind(jnp.asarray(s[0]), near(s[1])), model(SIZE))

        def conditional(s, near=near):
            return ConditionalScoreFilter(localization=near(s[0]), **SEARCH), model(SIZE)

        grid = [(i, r) for i in INFLATIONS for r in RADII]
        methods = {
            "LETKF": (enkf(LETKF), grid, 3),
            "EnKF": (enkf(StochasticEnKF), grid, 3),
            "score-model": (conditional, [(r,) for r in SCORE_RADII], 1),
        }
        for method, (make, settings, finalists) in methods.items():
            if args.only is None or method in args.only.split(","):
                found = tuned(case, make, settings, finalists)
                print(name, method, found, flush=True)
                merge({"kolmogorov": {name: {method: found}}})


if __name__ == "__main__":
    main()
