r"""The conditional score filter: a Kalman update inside every denoising step.

With x the ancestor and x' the state of the cycle, the filter samples the factors of

    p(x', x | y_1:k+1) = p(x | y_1:k+1) p(x' | x, y_k+1)

Small states take weighted draws of both at once (`dasim.filters.twisted`), which make the filter
consistent. For others it samples them in turn: stage one (`dasim.filters.ancestors`) moves each
ancestor under the prior N(m, P) of the last analysis ensemble, P localised, and the event
y = h(mean(x)) with error covariance R + H Q H^T; stage two (`dasim.filters.guided`) draws x'
from the transition guided by the same event.
"""

from functools import partial
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import flatten
from dasim.filters.ancestors import Ancestors, localized, smooth, sound
from dasim.filters.base import (
    AbstractFilter,
    check_ensemble,
    describe,
    gaussian_event,
    propagate,
)
from dasim.filters.gaussian import linearize, secants
from dasim.filters.guidance import AbstractGuidance, guided_draw
from dasim.filters.guided import guide
from dasim.filters.inflation import check_factor
from dasim.filters.modes import STEPS, smoothing
from dasim.filters.particle import Particles, equally_weighted
from dasim.filters.twisted import ITERATIONS, principal_plane, reduce, weighted_draws
from dasim.filters.windows import Window, check_lag, slide
from dasim.localization import Localization
from dasim.priors.schedules import VESchedule
from dasim.resampling import systematic

WEIGHTED_SIZE = 4  # largest state that is weighted unless told otherwise
EVENNESS = 0.5  # of the members' weights: half of their logarithm is resampled, half is kept
# a learned correction acts at all levels at which the prior was trained
GUIDE_SCHEDULE = VESchedule()
WEIGHTED_SCHEDULE = VESchedule(sigma_min=0.15, sigma_max=0.8)
Linearization = Literal["derivative", "statistical"]
MOST_STARTS = 32  # searches for modes


def _factor(inflation):
    return None if inflation is None else check_factor(inflation)


class ConditionalScoreFilter(AbstractFilter):
    """Conditions ancestors and transition on the observations as an event.

    Attributes:
        inflation: factor on the anomalies of the ancestors; None for one that follows what
            the last cycle learned (`dasim.filters.misfits.sampling_inflation`; 1 with weights).
        localization: taper of the ancestors' covariance, or None.
        modulation: `localization.modes(fraction)`, from which products with the localised
            covariance of a large state are made without its matrix; None for the matrix.
        linearization: "derivative" by products with the Jacobians of transition and operator, or
            "statistical" by slopes over a standard deviation to both sides of each variable,
            which asks for no derivatives of operator or model and costs two evaluations a
            variable.
        lag: cycles from the ancestors to the present; above 1 the transition has no noise. The
            window grows with the first cycles, and anew after an event too sharp for it.
        evaluations: model or network evaluations a member and cycle, at most, a derivative's
            product counted as two. They decide from how many members modes are sought.
        iterations: Gauss-Newton steps of each search.
        guide_levels: noise levels of stage two.
        relinearizations: linearisations of a nonlinear operator at each of them.
        cap: largest ratio of a correction's whitened length to its expected one in stage two.
        guidance: `PiGDM`, `MMPS` or `DPS` in place of stage two's closed form, which alone has
            `relinearizations` and a `cap`.
        rotation: turn the ancestors' anomalies at random before they are moved.
        adaptive: widen the ancestors' prior in a cycle whose observations it cannot explain.
        weighted: importance weights with the exact likelihood; None for states of at most four
            variables without localisation. Larger states take more members than one has.
        bandwidths: widths of the kernels about each member, relative to the ensemble's spread.
        draws: weighted draws of each member and kernel.
        weighted_levels: noise levels between which weighted draws are linearised anew.
    """

    inflation: Float[Array, ""] | None = eqx.field(default=None, converter=_factor)
    localization: Localization | None = None
    modulation: Float[Array, "k n"] | None = None
    linearization: Linearization = eqx.field(static=True, default="derivative")
    lag: int = eqx.field(static=True, default=1, converter=check_lag)
    evaluations: int = eqx.field(static=True, default=64)
    iterations: int = eqx.field(static=True, default=4)
    guide_levels: int = eqx.field(static=True, default=8)
    relinearizations: int = eqx.field(static=True, default=1)
    cap: float = 4.0
    guidance: AbstractGuidance | None = None
    rotation: bool = eqx.field(static=True, default=True)
    adaptive: bool = eqx.field(static=True, default=True)
    weighted: bool | None = eqx.field(static=True, default=None)
    bandwidths: tuple[float, ...] = eqx.field(
        static=True, default=(0.15, 0.4, 0.8), converter=tuple
    )
    draws: int = eqx.field(static=True, default=4)
    weighted_levels: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        counts = "evaluations", "iterations", "guide_levels", "relinearizations"
        for name in (*counts, "draws", "weighted_levels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.linearization not in get_args(Linearization):
            raise ValueError(
                f"linearization is {self.linearization!r}, expected one of "
                f"{', '.join(get_args(Linearization))}"
            )
        if self.guidance is not None and self.linearization == "statistical":
            raise ValueError("guidance takes derivatives: leave it or linearization out")
        if not self.bandwidths or not all(0 < b <= 1 for b in self.bandwidths):
            raise ValueError(f"bandwidths are {self.bandwidths}, expected numbers in (0, 1]")
        if self.weighted and self.localization is not None:
            raise ValueError("weights are of whole states: leave localization or weighted out")
        if self.weighted and self.lag > 1:
            raise ValueError(f"lag is {self.lag}, expected 1 with weights")

    def init(self, ensemble, key):
        n = flatten(check_ensemble(ensemble)).shape[1]
        if self._weighs(n):
            return equally_weighted(ensemble)
        zero = jnp.zeros((), int)
        return Ancestors(ensemble, zero, zero, jnp.ones((), ensemble.dtype))

    def _weighs(self, n: int) -> bool:
        if self.weighted is None:
            return n <= WEIGHTED_SIZE and self.localization is None and self.lag == 1
        return self.weighted

    def _slopes(self, spread):
        derivative = self.linearization == "derivative"
        return linearize if derivative else partial(secants, spread=spread)

    def step(self, transition, observation, state, obs, key):
        if isinstance(state, Particles):
            return self._weighted_step(transition, observation, state, obs, key)
        forecast_key, latent_key, guide_key, mend_key = jax.random.split(key, 4)
        length = state.age + 1
        ahead = transition if self.lag == 1 else Window(transition, self.lag, length)
        t = obs.time - ahead.interval
        forecast = propagate(ahead, state.ensemble, t, forecast_key)
        obs = observation.screened(obs, forecast)
        event = observation.event(obs)
        if self.guidance is not None:
            event = gaussian_event(observation, obs, forecast)
        slopes = (self._slopes(flatten(e).std(0)) for e in (state.ensemble, forecast))
        smoothed, inflation, sharp = smooth(
            smoothing(ahead, event, t, forecast.shape[1:], *slopes),
            state,
            latent_key,
            lambda x: localized(x, self.localization, self.modulation),
            self.starts(transition, len(forecast), forecast[0].size, len(event.mask)),
            self.iterations,
            self.inflation,
            self.rotation,
            self.adaptive,
            transition.noise_size == 0,
        )
        levels = GUIDE_SCHEDULE.levels(self.guide_levels)
        keys = jax.random.split(guide_key, len(forecast))

        def draw(x, k):
            if self.guidance is None or transition.noise_size == 0:
                arguments = ahead, x, t, event, levels, k, self.relinearizations, self.cap
                return guide(*arguments, self.linearization == "statistical")
            return guided_draw(ahead, x, t, event, self.guidance, levels, k)

        seen = obs.mask.any()
        analysis = jnp.where(seen, jax.vmap(draw)(smoothed, keys), forecast)
        smoothed = jnp.where(seen, smoothed, state.ensemble)
        kept = sound(analysis, mend_key)
        analysis, smoothed = analysis[kept], smoothed[kept]
        calm = jnp.where(seen & sharp, 0, state.calm + seen)
        after = Ancestors(analysis, jnp.zeros((), int), calm, inflation)
        if self.lag > 1:
            step = lambda x, i: propagate(transition, x, t + i * transition.interval, mend_key)
            later = Ancestors(*slide(step, smoothed, length, self.lag), calm, inflation)
            after = jax.tree.map(lambda a, b: jnp.where(calm == 0, a, b), after, later)
        return after, describe(event, forecast, analysis, obs, smoothed)

    def _weighted_step(self, transition, observation, state, obs, key):
        """Both factors at once, by weighted draws."""
        t = obs.time - transition.interval
        forecast_key, draw_key, keep_key, show_key = jax.random.split(key, 4)
        count = len(state.ensemble)
        ahead = state._replace(ensemble=propagate(transition, state.ensemble, t, forecast_key))
        obs = observation.screened(obs, ahead.ensemble)
        event = observation.event(obs)
        given = 1.0 if self.inflation is None else self.inflation
        factor = jnp.asarray(given, state.ensemble.dtype)
        finite = self.weighted_levels - 1
        levels = WEIGHTED_SCHEDULE.levels(finite) if finite else jnp.zeros(1)
        angles = jnp.arctan(levels).astype(factor.dtype)
        drawn, log_evidence = weighted_draws(
            transition, event, state, t, draw_key, self.bandwidths, self.draws, angles, factor,
            self._slopes(1.0),
        )  # fmt: skip
        seen = obs.mask.any()
        plane = principal_plane(drawn)
        kept = reduce(drawn, plane, count, keep_key, EVENNESS)
        kept = jax.tree.map(lambda a, b: jnp.where(seen, a, b), kept, ahead)
        forecast = ahead.ensemble[systematic(jnp.exp(ahead.log_weights), show_key)]
        shown = reduce(drawn, plane, count, show_key).ensemble
        analysis = jnp.where(seen, shown, forecast)
        info = describe(event, forecast, analysis, obs)
        return kept, info._replace(log_evidence=jnp.where(seen, log_evidence, 0.0))

    def _passes(self, n: int, n_obs: int) -> int:
        """Evaluations that the slopes of `n_obs` functions of n numbers take."""
        return 2 * (min(n, n_obs) if self.linearization == "derivative" else n)

    def _costs(self, transition, n: int, n_obs: int) -> tuple[int, int]:
        """Evaluations of a member's own, and of one search, a derivative's product as two."""
        passes = self._passes(n, n_obs)
        level = 1 if self.guidance is None else self.guidance.calls
        guide = 1 if transition.noise_size == 0 else 1 + level * self.guide_levels
        search = self.iterations * (passes + 1 + len(STEPS)) + passes + 1
        moves = 2 if self.adaptive else 1  # the look at the linear problem is one
        slides = 1 if self.lag > 1 else 0
        return self.lag * (transition.calls + moves + guide) + slides, self.lag * search

    def starts(self, transition, members: int, n: int, n_obs: int) -> int:
        """From how many points modes are sought within `evaluations`: the mean and members."""
        own, search = self._costs(transition, n, n_obs)
        return max(1, min(members, MOST_STARTS, (self.evaluations - own) * members // search))

    def count(self, transition, members: int, n: int, n_obs: int) -> int:
        """Evaluations of model or network a member and cycle; an attempt more is a rare cycle's.

        A derivative's product counts as two. With weights a kernel's search, its linearisation
        and its draws are counted, for all kernels of a member.
        """
        if self._weighs(n):
            passes = self._passes(n + transition.noise_size, n_obs)
            search = (ITERATIONS + 1) * (passes + 1)
            search += (self.weighted_levels - 1) * self.draws * (passes + 1)
            return transition.calls + len(self.bandwidths) * (
                search + self.draws * transition.calls
            )
        own, search = self._costs(transition, n, n_obs)
        starts = self.starts(transition, members, n, n_obs)
        return own + -(-starts * search // members)
