"""Cycling of a two-dimensional turbulent flow from a few of its points.

    python kolmogorov.py ['1.5 %'] [--only score-model,LETKF,...]
    python kolmogorov.py '1.5 %' --figure

Kolmogorov flow at Reynolds number 100 on 64 x 64 points, the vorticity read at some of them: 5 %,
1.5 %, and 5 % through an arctangent that saturates at half the flow's standard deviation.
"""

import argparse
import os
from functools import partial

os.environ.setdefault("NPROC", "8")

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from record import HERE, merge, results
from runs import Case, cycled, tuned, twin

from dasim.filters import LETKF, ConditionalScoreFilter, StochasticEnKF
from dasim.localization import Localization
from dasim.models import KolmogorovFlow
from dasim.observe import Gaussian, Observation, Select
from dasim.transitions import ModelTransition

SIZE, STEPS = 64, 20  # an interval of 0.4; small errors double in 0.9
INFLATIONS = 1.02, 1.05, 1.1
RADII = 6.0, 8.0, 12.0, 16.0, 24.0  # half-widths in points; 4 was worse
SCORE_RADII = {"5 %": (12.0,), "1.5 %": (16.0, 24.0), "arctan": (12.0,)}  # few are affordable
SEARCH = {"evaluations": 1, "iterations": 2}  # one start: a Jacobian is most of a cycle's cost


def arctan(v):
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
    return Observation(Select(places(share), function), Gaussian(std))


def localization(share: float, radius: float) -> Localization:
    own = model(SIZE).model
    return Localization(radius, own.coords, own.coords[places(share)], own.period)


# share of the points, what is read of a value, standard deviation of the error
CASES = {"5 %": (0.05, None, 0.5), "1.5 %": (0.015, None, 0.5), "arctan": (0.05, arctan, 0.1)}


def methods(name: str) -> tuple[Case, dict]:
    """A case, and of each method what makes it of a setting, its settings, and its finalists."""
    share, function, std = CASES[name]
    seen = partial(observation, share, function, std)
    case = Case(model, seen, SIZE, SIZE, members=40, cycles=60, burn_in=20)
    near, truth = partial(localization, share), model(SIZE)

    def enkf(kind):
        return lambda s: (kind(jnp.asarray(s[0]), near(s[1])), truth)

    def conditional(s):
        return ConditionalScoreFilter(localization=near(s[0]), **SEARCH), truth

    grid = [(i, r) for i in INFLATIONS for r in RADII]
    return case, {
        "LETKF": (enkf(LETKF), grid, 3),
        "EnKF": (enkf(StochasticEnKF), grid, 3),
        "score-model": (conditional, [(r,) for r in SCORE_RADII[name]], None),
    }


def draw(name: str):
    """The figure of a case: the first truth's last mean of each method, and its errors."""
    case, made = methods(name)
    known = results()["kolmogorov"][name]
    made = {label: kind for label, kind in made.items() if label in known}
    points = np.array(np.unravel_index(places(CASES[name][0]), (SIZE, SIZE)))
    size = 2.8 * (1 + len(made)), 8.4
    fig, axes = plt.subplots(3, 1 + len(made), figsize=size, squeeze=False, layout="constrained")
    truth = twin(case, 0)[0]
    high = np.abs(truth[-1]).max()
    limits, scales = (high, high / 8, high / 8), ("RdBu_r", "viridis", "viridis")
    root = lambda x: np.sqrt(np.mean(x[case.burn_in :] ** 2, 0))
    for column, (label, (make, _, _)) in enumerate(made.items(), 1):
        _, members = cycled(case, *make(tuple(known[label]["setting"])), 0)
        mean, spread = members.mean(0), members.std(0, ddof=1)
        shown = mean[-1], root(mean - truth), root(spread)
        titles = f"{label}: last mean", "RMSE of the scored cycles", "their spread"
        for ax, field, title, top, scale in zip(
            axes[:, column], shown, titles, limits, scales, strict=True
        ):
            low = -top if scale == "RdBu_r" else 0
            image = ax.imshow(field.T, origin="lower", vmin=low, vmax=top, cmap=scale)
            ax.set_title(title, fontsize=10)
            if column == len(made):
                fig.colorbar(image, ax=ax, shrink=0.85)
    axes[0, 0].imshow(truth[-1].T, origin="lower", cmap="RdBu_r", vmin=-high, vmax=high)
    axes[0, 0].scatter(*points, s=7, c="k")
    axes[0, 0].set_title(f"vorticity, and {points.shape[1]} sensors", fontsize=10)
    for ax in axes.flat:
        ax.set_axis_off()
    fig.savefig(HERE / "kolmogorov.png", dpi=100)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--only")
    parser.add_argument("--figure", action="store_true")
    args = parser.parse_args()
    names = args.cases or list(CASES)
    if unknown := set(names) - set(CASES):
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if args.figure:
        if len(names) != 1:
            parser.error("a figure is of one case: name it")
        return draw(names[0])
    for name in names:
        case, made = methods(name)
        for method, (make, settings, finalists) in made.items():
            if args.only is None or method in args.only.split(","):
                found = tuned(case, make, settings, finalists)
                print(name, method, found, flush=True)
                merge({"kolmogorov": {name: {method: found}}})


if __name__ == "__main__":
    main()
