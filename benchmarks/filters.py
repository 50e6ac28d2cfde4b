"""Seconds a cycle of every filter on Lorenz-96 (40 sites, 40 members), beside the EnKF's.

    python benchmarks/filters.py

All run in one process on the same observations, each timed after it was compiled, as the
median of five runs of 50 cycles. The transition is the numerical model over an interval of 0.4.
"""

import time

import jax
import numpy as np

import dasim
from dasim import filters

N_CYCLES, REPEATS, SITES = 50, 5, range(0, 40, 2)


def keep_nothing(info):
    """Keep only the mean, so that memory traffic does not count."""
    return info.analysis.mean(0)


def main():
    """Print a table."""
    transition = dasim.ModelTransition(dasim.models.Lorenz96(), 8)
    observation = dasim.Observation(dasim.Select(SITES), dasim.Gaussian(std=0.7))
    start, noise, draw, key = jax.random.split(jax.random.key(0), 4)
    x0 = 8 + jax.random.normal(start, (40,))
    _, observations = dasim.simulate(transition, observation, x0, N_CYCLES, noise)
    ensemble = x0 + jax.random.normal(draw, (40, 40))
    taper = dasim.ring(40, SITES, 5.0)
    cases = {
        "StochasticEnKF": filters.StochasticEnKF(1.05, taper),
        "ETKF, localised": filters.ETKF(1.05, taper),
        "LETKF": filters.LETKF(1.07, taper),
        "BootstrapParticleFilter": filters.BootstrapParticleFilter(),
        "ConditionalScoreFilter": filters.ConditionalScoreFilter(1.04, taper),
    }
    seconds = {}
    for name, case in cases.items():
        arguments = (case, transition, observation, ensemble, observations, key, keep_nothing)
        jax.block_until_ready(dasim.cycle(*arguments))
        times = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            jax.block_until_ready(dasim.cycle(*arguments))
            times.append(time.perf_counter() - began)
        seconds[name] = float(np.median(times)) / N_CYCLES
    print(f"{'filter':<26}{'ms / cycle':>12}{'ratio':>9}")
    for name, value in seconds.items():
        print(f"{name:<26}{1e3 * value:>12.3f}{value / seconds['StochasticEnKF']:>9.1f}")


if __name__ == "__main__":
    main()
