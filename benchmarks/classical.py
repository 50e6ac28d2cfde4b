"""Classical filters beside DAPPER's, both timed in this process after warm-up.

    pip install ".[bench]"
    python benchmarks/classical.py [--cycles 1000]

Lorenz-96, 40 variables, all observed; the same settings in both programs. Each DAPPER run
computes its statistics as it always does; ours computes RMSE and spread of every cycle. Prints a
table for docs/benchmarks.md.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: DAPPER is faster so
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import jax.numpy as jnp
import numpy as np

import dasim
from dasim import filters

REPEATS = 5


def after(factor):
    return filters.MultiplicativeInflation(factor, after=True)


def cases(da):
    """Name, interval in steps, members, our filter, DAPPER's."""
    local = dasim.ring(40, range(40), 4 * 1.82)
    wide = dasim.ring(40, range(40), 6 * 1.82)
    return [
        ("ETKF N=24", 1, 24, filters.ETKF(after(1.013)), da.EnKF("Sqrt", N=24, infl=1.013, rot=True)),
        ("EnKF N=40", 1, 40, filters.StochasticEnKF(after(1.06)), da.EnKF("PertObs", N=40, infl=1.06)),
        ("EnKF-N N=24", 1, 24, filters.EnKFN(), da.EnKF_N(N=24, rot=True)),
        (
            "LETKF N=7", 1, 7, filters.LETKF(after(1.04), local, True, block=2),
            da.LETKF(N=7, infl=1.04, rot=True, loc_rad=4),
        ),
        (
            "EAKF N=7", 1, 7, filters.EAKF(after(1.07), wide, True),
            da.SL_EAKF(N=7, infl=1.07, rot=True, loc_rad=6),
        ),
        (
            "iEnKS N=20 lag 4", 4, 20, filters.IEnKS(4, certainty=2.0),
            da.iEnKS("Sqrt", N=20, Lag=4, xN=2.0, wtol=1e-5),
        ),
    ]  # fmt: skip


def keep(info):
    """RMSE needs the means, spread the variances."""
    return info.analysis.mean(0), info.analysis.var(0, ddof=1).mean()


def time_ours(filter, n_steps, members, cycles):
    """Median seconds of a run and its RMSE after a fifth of it."""
    transition = dasim.ModelTransition(dasim.models.Lorenz96(), n_steps)
    observation = dasim.Observation(dasim.Select(range(40)), dasim.Gaussian(std=1.0))
    spun = dasim.ModelTransition(dasim.models.Lorenz96(), 2000).mean(
        8 + 0.1 * jnp.arange(40.0), 0.0
    )
    truth, observations = dasim.simulate(transition, observation, spun, cycles, jax.random.key(1))
    ensemble = spun + 0.03 * jax.random.normal(jax.random.key(2), (members, 40))
    arguments = (filter, transition, observation, ensemble, observations, jax.random.key(3), keep)
    _, (means, _) = jax.block_until_ready(dasim.cycle(*arguments))
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(dasim.cycle(*arguments))
        times.append(time.perf_counter() - began)
    rmse = np.sqrt(np.mean((np.asarray(means - truth)) ** 2, 1))[cycles // 5 :].mean()
    return float(np.median(times)), float(rmse)


def time_theirs(method, hmm, n_steps, cycles):
    """Seconds of a run after a short one, and its RMSE."""
    import dapper as dpr

    hmm = hmm.copy()
    hmm.tseq.dko = n_steps
    dpr.set_seed(1)
    hmm.tseq.Ko = 20
    method.assimilate(hmm, *hmm.simulate())
    hmm.tseq.Ko = cycles
    hmm.tseq.BurnIn = 0.2 * hmm.tseq.T
    truth, observed = hmm.simulate()
    began = time.perf_counter()
    method.assimilate(hmm, truth, observed)
    seconds = time.perf_counter() - began
    method.stats.average_in_time()
    return seconds, float(method.avrgs.rmse.a.val)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cycles", type=int, default=1000)
    cycles = parser.parse_args().cycles
    import dapper.da_methods as da
    import dapper.tools.progressbar as progressbar
    from dapper.mods.Lorenz96.sakov2008 import HMM

    progressbar.disable_progbar = True
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, {cycles} cycles")
    print("| filter | dasim, us / cycle | DAPPER 1.7.1, us / cycle | ratio | RMSE | RMSE, DAPPER |")
    print("|---|---|---|---|---|---|")
    for name, n_steps, members, ours, theirs in cases(da):
        own, rmse = time_ours(ours, n_steps, members, cycles)
        peer, peer_rmse = time_theirs(theirs, HMM, n_steps, cycles)
        print(
            f"| {name} | {1e6 * own / cycles:.0f} | {1e6 * peer / cycles:.0f} | {peer / own:.0f} "
            f"| {rmse:.3f} | {peer_rmse:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
