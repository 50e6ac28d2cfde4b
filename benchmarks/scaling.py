"""The LETKF on large domains: time a cycle and peak memory against the dimension.

    python benchmarks/scaling.py [sizes ...]

Lorenz-96, 20 members, every site observed, half-width 4, interval 0.05. Each size runs in a
process of its own, so that the peak memory is its own.
"""

import json
import resource
import subprocess
import sys
import time

SIZES, CYCLES, MEMBERS = (1000, 10_000, 100_000), 5, 20


def run(size: int) -> dict:
    """Seconds a cycle and peak memory of one size."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import dasim
    from dasim.localization import Localization

    transition = dasim.ModelTransition(dasim.models.Lorenz96(size), 1)
    sites = np.arange(size)
    observation = dasim.Observation(dasim.Select(sites), dasim.Gaussian(std=1.0))
    began = time.perf_counter()
    taper = Localization(4.0, sites, sites, period=[size])
    setup = time.perf_counter() - began
    filter = dasim.filters.LETKF(1.02, taper)
    start = 8 + jax.random.normal(jax.random.key(0), (size,))
    start = dasim.ModelTransition(dasim.models.Lorenz96(size), 400).mean(start, jnp.zeros(()))
    truth, observed = dasim.simulate(transition, observation, start, CYCLES, jax.random.key(1))
    ensemble = start + jax.random.normal(jax.random.key(2), (MEMBERS, size))

    def keep(info):
        return jnp.mean((info.analysis.mean(0)) ** 2)

    arguments = (filter, transition, observation, ensemble, observed, jax.random.key(3), keep)
    jax.block_until_ready(dasim.cycle(*arguments))
    began = time.perf_counter()
    jax.block_until_ready(dasim.cycle(*arguments))
    seconds = (time.perf_counter() - began) / CYCLES
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    peak = (
        stats["peak_bytes_in_use"]
        if stats
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {"device": device.device_kind, "seconds": seconds, "setup": setup, "bytes": peak}


def main(sizes):
    """Print a table."""
    print("| variables | s / cycle | us / variable | peak memory, GiB | set-up, s |")
    print("|---|---|---|---|---|")
    for size in sizes:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(size)],
            check=True,
            capture_output=True,
            text=True,
        )
        r = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {size} | {r['seconds']:.4f} | {1e6 * r['seconds'] / size:.1f} "
            f"| {r['bytes'] / 2**30:.2f} | {r['setup']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run(int(sys.argv[2]))))
    else:
        main([int(a) for a in sys.argv[1:]] or SIZES)
