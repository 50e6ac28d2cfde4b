"""A diffusion prior by itself: what is sampled, and what events are asked of."""

import equinox as eqx

from dasim.priors.denoisers import AbstractDenoiser
from dasim.priors.schedules import AbstractSchedule, VESchedule


class DiffusionPrior(eqx.Module):
    """The law of a state or a trajectory, given what its denoiser takes as a condition.

    Attributes:
        denoiser: of the flat state.
        shape: shape of a draw.
        schedule: noise levels of the sampler.
        n_steps: network calls a draw.
    """

    denoiser: AbstractDenoiser
    shape: tuple[int, ...] = eqx.field(static=True)
    schedule: AbstractSchedule = VESchedule()
    n_steps: int = eqx.field(static=True, default=40)
