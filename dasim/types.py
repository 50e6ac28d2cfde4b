"""Shared array types, the observation container and the errors that users see."""

from typing import NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Key = PRNGKeyArray
State = Float[Array, "*state"]
Ensemble = Float[Array, "member *state"]


class DasimError(Exception):
    """A fault in data or settings, told in one message that says what to do about it."""


class DataError(DasimError):
    """A file or an array holds what it should not; names the file, variable and index."""


class DivergedError(DasimError):
    """A filter lost the truth or overflowed; names the method and the cycle."""


class Observations(eqx.Module):
    """Observations with a leading cycle axis, or those of one cycle without it.

    Attributes:
        time: time of the analysis, `(cycle,)`.
        value: observed values, `(cycle, obs)`; what stands under a false mask is not used.
        mask: true where a value was observed and is to be assimilated, `(cycle, obs)`.
        std: error standard deviation of each value, `(cycle, obs)`, or None where the
            observation's own error model holds throughout.
    """

    time: Float[Array, "*cycle"]
    value: Float[Array, "*cycle obs"]
    mask: Bool[Array, "*cycle obs"]
    std: Float[Array, "*cycle obs"] | None = None

    def __getitem__(self, index) -> "Observations":
        return jax.tree.map(lambda a: a[index], self)

    @property
    def n_cycles(self) -> int:
        return self.time.shape[0]


class Learned(NamedTuple):
    """What was known of a cycle's observation errors; see `dasim.filters.OnlineErrors`.

    Attributes:
        bias: taken off the values, `(obs,)`.
        std: error standard deviations that were used, `(obs,)`.
    """

    bias: Float[Array, " obs"]
    std: Float[Array, " obs"]


class Analysis(NamedTuple):
    """What one filter step tells about itself; `save` functions choose from it.

    Attributes:
        forecast: ensemble before the observations are used, `(member, *state)`.
        analysis: ensemble after, equally weighted, `(member, *state)`.
        innovation: observed value minus the forecast mean in observation space, zero
            where nothing was used, `(obs,)`.
        log_evidence: log p(y_k | y_1:k-1) as the filter sees it, a scalar.
        smoothed: of a smoother, the ensemble one lag earlier given the observations up to now,
            `(member, *state)`; None of a filter.
        used: the observations that counted: those of the mask but for what quality control left
            out, `(obs,)`.
        learned: of a filter that learns about the observations' errors, what it took for them.
    """

    forecast: Ensemble
    analysis: Ensemble
    innovation: Float[Array, " obs"]
    log_evidence: Float[Array, ""]
    smoothed: Ensemble | None = None
    used: Bool[Array, " obs"] | None = None
    learned: Learned | None = None
