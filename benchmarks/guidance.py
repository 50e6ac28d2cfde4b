"""Cost of guided sampling: beside the unguided sampler, and beside azula's MMPS.

    pip install ".[bench]" && python benchmarks/guidance.py

One network size, one step count, one batch of members, one process: 40 variables of which every
second is observed. Each sampler is timed after it was compiled, in turns with the others; the
table has the median of its times, and the ratio to the unguided sampler's. The networks are not
trained: this is about cost alone.
"""

import os
import time

os.environ.setdefault("NPROC", "8")  # see dasim.cli

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from azula.denoise import KarrasDenoiser
from azula.guidance import MMPSDenoiser
from azula.linalg.covariance import DiagonalCovariance
from azula.noise import VESchedule
from azula.sample import DDIMSampler

import dasim
from dasim.filters import DPS, MMPS, PiGDM
from dasim.filters.guidance import guided_draw
from dasim.filters.guided import guide
from dasim.priors.sampler import flow
from dasim.trained import NetworkSpec, PriorSpec
from dasim.types import Observations

SIZE, EVERY, MEMBERS, STEPS, WIDTH, DEPTH, REPEATS = 40, 2, 64, 16, 256, 3, 15
SITES = range(0, SIZE, EVERY)


class Backbone(torch.nn.Module):
    """The same residual perceptron in torch: noisy state, ancestor and noise level to a field."""

    def __init__(self, ancestors):
        super().__init__()
        self.ancestors = ancestors
        self.first = torch.nn.Linear(2 * SIZE + 1, WIDTH)
        self.hidden = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.last = torch.nn.Linear(WIDTH, SIZE)

    def forward(self, x, level):
        level = level.expand(len(x), 1)
        h = self.first(torch.cat([x, self.ancestors, level], -1))
        for layer in self.hidden:
            h = h + layer(torch.nn.functional.silu(h))
        return self.last(torch.nn.functional.silu(h))


def azula_samplers(ancestors, y):
    """azula's DDIM sampler alone, and with MMPS at its default and at three solver iterations."""
    plain = KarrasDenoiser(Backbone(torch.as_tensor(ancestors)), VESchedule(0.02, 20.0))
    cov = DiagonalCovariance(torch.full((len(y),), 0.25))
    y = torch.as_tensor(y).expand(MEMBERS, -1)

    def sampler(denoiser):
        sample = DDIMSampler(denoiser, steps=STEPS, silent=True)
        return lambda: sample(20 * torch.randn(MEMBERS, SIZE))

    def guided(**options):
        return sampler(MMPSDenoiser(plain, y, lambda x: x[..., ::EVERY], cov, **options))

    return {
        "azula, DDIM, unguided": sampler(plain),
        "azula, MMPS, its default (1 iteration)": guided(),
        "azula, MMPS, 3 CG iterations": guided(solver="cg", iterations=3),
    }


def dasim_samplers(ancestors, y):
    """The unguided sampler, stage two of the conditional score filter, and the peers in dasim."""
    networks = NetworkSpec("mlp", WIDTH, DEPTH)
    spec = PriorSpec((SIZE,), 0.5, (), alike=True, mean=networks, residual=networks)
    transition = spec.build(jax.random.key(0))
    last = transition.denoiser.network.last.weight  # zero at first, which a compiler may see
    weight = 0.01 * jax.random.normal(jax.random.key(1), last.shape)
    transition = eqx.tree_at(lambda t: t.denoiser.network.last.weight, transition, weight)
    observation = dasim.Observation(dasim.Select(SITES), dasim.Gaussian(std=0.5))
    obs = Observations(jnp.zeros(()), jnp.asarray(y), jnp.ones(len(y), bool))
    event, t = observation.event(obs), jnp.zeros(())
    levels = transition.schedule.levels(STEPS)

    def over_members(draw):
        @jax.jit
        def run(key):
            return jax.vmap(draw)(jnp.asarray(ancestors), jax.random.split(key, MEMBERS))

        return lambda: jax.block_until_ready(run(jax.random.key(2)))

    def unguided(x, key):
        noise = jax.random.normal(key, x.shape)
        return flow(
            transition.denoiser, transition.schedule, transition.condition(x, t), noise, STEPS
        )

    def conditional(x, key):
        return guide(transition, x, t, event, levels, key, 1, 4.0)

    def peer(guidance):
        return over_members(lambda x, k: guided_draw(transition, x, t, event, guidance, levels, k))

    return {
        "dasim, unguided": over_members(unguided),
        "dasim, conditional score (closed form)": over_members(conditional),
        "dasim, PiGDM": peer(PiGDM()),
        "dasim, MMPS, 3 CG iterations": peer(MMPS(3)),
        "dasim, DPS": peer(DPS(0.01)),
    }


def main():
    """Print a table."""
    rng = np.random.default_rng(0)
    ancestors = rng.normal(size=(MEMBERS, SIZE)).astype(np.float32)
    y = rng.normal(size=len(SITES)).astype(np.float32)
    samplers = dasim_samplers(ancestors, y) | azula_samplers(ancestors, y)
    times = {name: [] for name in samplers}
    for sample in samplers.values():
        sample()
    for _ in range(REPEATS):
        for name, sample in samplers.items():
            began = time.perf_counter()
            sample()
            times[name].append(time.perf_counter() - began)
    base = np.median(times["dasim, unguided"])
    print(f"{MEMBERS} members, {STEPS} steps, networks of width {WIDTH} and depth {DEPTH}")
    print(f"{'sampler':<42}{'ms':>9}{'ratio':>9}")
    for name, values in times.items():
        print(f"{name:<42}{1e3 * np.median(values):>9.2f}{np.median(values) / base:>9.2f}")


if __name__ == "__main__":
    main()
