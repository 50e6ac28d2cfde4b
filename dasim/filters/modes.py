r"""Stage one of the conditional score filter: ancestors given the observations, mode by mode.

The prior is N(m, C), the event y = c(x) + N(0, R(x)). Its posterior may have several modes, which
are sought from the mean and from some of the members by damped Gauss-Newton steps in the dual
variable k, x = m + C k, on

    cost(x) = 1/2 |R^(-1/2) (y - c(x))|^2 + 1/2 k^T C k.

About a mode x* the event is linearised, with g_j, w_j the eigenpairs of R^(-1/2) J C J^T R^(-1/2).
Its mass is Laplace's, exp(-cost) prod (1 + g_j)^(-1/2) |R|^(-1/2), to a power `trust` of at most 1
for a covariance of few draws, divided by the number of starts that found it. A member goes to a
mode by its mass, and there by the probability flow of `dasim.filters.guided`, which for a
linearised event takes an anomaly d of the prior to

    (I + C J^T R^-1 J)^(-1/2) d.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dasim.covariance import solve_definite
from dasim.events import AbstractEvent, GaussianEvent, sites
from dasim.filters.gaussian import Linearize, linearize
from dasim.filters.guided import LinearProblem, factorize
from dasim.filters.misfits import quantile
from dasim.types import Key

STEPS = (1.0, 0.5, 0.2)  # shares of a Gauss-Newton step that are tried
WIDEN, WIDEST = 4.0, 4.0**10  # factor on R in each attempt, and the largest in all
HALF = 0.5  # of the members have to fit
RETREAT = 0.2  # share of the way from its mode that a member keeps that does not fit

Product = Callable[[Float[Array, "n k"]], Float[Array, "n k"]]


class Smoothing(NamedTuple):
    """What stage one asks of transition and event, on flat states.

    Attributes:
        event: of the observations. One that is not Gaussian is stood in for by Gaussian sites
            under the linear problem of each step (`dasim.events.pointwise`).
        ahead: function of x to c(x), `(obs,)`.
        linearized: function of x to c, J, `(obs, n)`, and what the transition's own residual
            adds to R, `(obs, obs)`, or None.
    """

    event: AbstractEvent
    ahead: Callable[[Float[Array, " n"]], Float[Array, " obs"]]
    linearized: Callable[[Float[Array, " n"]], tuple[Array, Array, Array | None]]


class Modes(NamedTuple):
    """Modes of the posterior, by start: the leading axis of everything.

    Attributes:
        point: x*.
        log_mass: up to a constant; each mode's is shared among the starts that found it.
        value: y.
        misfit: R^(-1/2) (y - c(x*)).
        white: w^T R^(-1/2) (y - c(x*) - J (m - x*)), the misfit of the linear problem at m.
        problem: the linearisation at x*.
    """

    point: Float[Array, "start n"]
    log_mass: Float[Array, " start"]
    value: Float[Array, "start obs"]
    misfit: Float[Array, "start obs"]
    white: Float[Array, "start obs"]
    problem: LinearProblem

    @property
    def heaviest(self) -> tuple[Float[Array, " obs"], Float[Array, " obs"]]:
        """g and `white` of the mode of the largest mass."""
        best = jnp.argmax(self.log_mass)
        return self.problem.g[best], self.white[best]


def smoothing(
    transition,
    event: AbstractEvent,
    t,
    shape,
    slopes: Linearize = linearize,
    slopes_ahead: Linearize = linearize,
) -> Smoothing:
    """c(x) = h(mean(x)), with H Q H^T from the transition's residual covariance.

    Args:
        slopes: how c(x) is linearised at an ancestor.
        slopes_ahead: how h is at a state of the cycle.
    """

    def forward(v):
        return transition.mean(v.reshape(shape), t).reshape(-1)

    def ahead(x):
        return event.constraint(forward(x).reshape(shape))

    def linearized(x):
        c, jac = slopes(ahead, x)
        cov = transition.residual_cov(x.reshape(shape), t)
        if cov is None:
            return c, jac, None
        _, h = slopes_ahead(lambda v: event.constraint(v.reshape(shape)), forward(x))
        return c, jac, h @ jax.vmap(cov.apply, 1, 1)(h.T)

    return Smoothing(event, ahead, linearized)


def _whiten(lower, v):
    return jax.scipy.linalg.solve_triangular(lower, v, lower=True)


def find_modes(
    problem: Smoothing,
    mean: Float[Array, " n"],
    cov: Product,
    starts: Float[Array, "start n"],
    iterations: int,
    trust: float = 1.0,
) -> Modes:
    """The modes that a search of `iterations` steps finds from each of `starts`.

    Args:
        trust: power of the modes' masses; below 1 where `cov` comes from few draws.
    """
    event = problem.event

    def along(k):
        return cov(k[:, None])[:, 0]

    def seen(x, c, jac, extra) -> GaussianEvent:
        """The event as it looks from x."""

        def spread():
            own = jac @ cov(jac.T)
            return own if extra is None else own + extra

        return sites(event, c + jac @ (mean - x), spread)

    def step(x, k, first):
        """From x = mean + C k, except in the first step, whose x may be any."""
        c, jac, extra = problem.linearized(x)
        near = seen(x, c, jac, extra)
        whiten = near.cov.whiten
        if extra is not None:
            lower = jnp.linalg.cholesky(near.cov.dense() + extra)
            whiten = lambda v: _whiten(lower, v)
        white, misfit = jax.vmap(whiten, 1, 1)(jac), whiten(near.innovation(c))
        s = jnp.eye(len(c), dtype=white.dtype) + white @ cov(white.T)
        target = white.T @ solve_definite(s, misfit + white @ (x - mean))

        def cost(k):
            away = along(k)
            rest = whiten(near.innovation(problem.ahead(mean + away)))
            value = 0.5 * jnp.sum(rest**2) + 0.5 * k @ away
            return jnp.where(jnp.isfinite(value), value, jnp.inf)

        tried = jnp.stack([k + share * (target - k) for share in STEPS])
        costs = jax.vmap(cost)(tried)
        best = jnp.argmin(costs)
        now = 0.5 * jnp.sum(misfit**2) + 0.5 * k @ along(k)
        k = jnp.where(costs[best] < jnp.where(first, jnp.inf, now), tried[best], k)
        return mean + along(k), k

    def search(x):
        body = lambda i, at: step(*at, i == 0)
        x, k = jax.lax.fori_loop(0, iterations, body, (x, jnp.zeros_like(x)))
        c, jac, extra = problem.linearized(x)
        near = seen(x, c, jac, extra)
        r = near.cov.dense()
        linear = factorize(jac, r if extra is None else r + extra, cov)
        misfit = _whiten(linear.lower, near.innovation(c))
        white = linear.w.T @ (misfit + linear.jac @ (x - mean))
        mass = -0.5 * (k @ (x - mean) + jnp.sum(jnp.log1p(linear.g)))
        if near is event:
            mass -= 0.5 * jnp.sum(misfit**2) + jnp.sum(jnp.log(jnp.diag(linear.lower)))
        else:
            # the sites of two modes differ, what they stand in for does not
            mass += event.log_prob(c, extra)
        return (
            k,
            jnp.where(jnp.isfinite(mass), mass, -jnp.inf),
            Modes(x, mass, near.value, misfit, white, linear),
        )

    k, mass, modes = jax.vmap(search)(starts)
    # starts in one mode are near each other in the metric of the posterior
    k_apart, apart = k[:, None] - k, modes.point[:, None] - modes.point
    unlike = modes.misfit[:, None] - modes.misfit
    square = jnp.sum(k_apart * apart, -1) + jnp.sum(unlike**2, -1)
    same = jnp.where(jnp.isfinite(square), jnp.exp(-0.5 * square), 0.0)
    alike = jnp.sum(same, 1)
    return modes._replace(log_mass=trust * mass - jnp.log(jnp.maximum(alike, 1.0)))


def tempered(modes: Modes, by: Float[Array, ""], trust: float = 1.0) -> Modes:
    """The modes with R multiplied by `by`, their points as they are."""
    root, linear = jnp.sqrt(by), modes.problem
    change = 0.5 * jnp.sum(modes.misfit**2, -1) * (1 - 1 / by)
    change += 0.5 * jnp.sum(jnp.log1p(linear.g) - jnp.log1p(linear.g / by), -1)
    wider = LinearProblem(
        linear.lower * root, linear.jac / root, linear.g / by, linear.w, linear.basis / root
    )
    return modes._replace(
        log_mass=modes.log_mass + trust * change,
        misfit=modes.misfit / root,
        white=modes.white / root,
        problem=wider,
    )


def allocate(modes: Modes, members: int, key: Key) -> Int[Array, " member"]:
    """A mode for each member: systematic by mass, in random order."""
    place_key, order_key = jax.random.split(key)
    shares = jnp.cumsum(jax.nn.softmax(modes.log_mass))
    points = (jnp.arange(members) + jax.random.uniform(place_key)) / members
    which = jnp.minimum(jnp.searchsorted(shares, points), len(shares) - 1)
    return which[jax.random.permutation(order_key, members)]


def _moved(problem: Smoothing, modes: Modes, which, anomaly, n):
    """An `anomaly` of the prior taken to the mode `which`: the mode, the way, if it fits."""
    _, _, value, misfit, _, linear = mode = jax.tree.map(lambda a: a[which], modes)
    point, g = mode.point, linear.g
    inner = linear.w.T @ (linear.jac @ anomaly)
    phi = -1 / (jnp.sqrt(1 + g) * (1 + jnp.sqrt(1 + g)))  # (1 / sqrt(1 + g) - 1) / g
    away = anomaly + linear.basis @ (phi * inner)
    innovation = jnp.where(problem.event.mask, value - problem.ahead(point + away), 0.0)
    rest = _whiten(linear.lower, innovation)
    # in a linear problem the misfit departs from the mode's by less than a standard normal one
    far = jnp.sqrt(jnp.sum(misfit**2)) + jnp.sqrt(quantile(n))
    return point, away, jnp.sum(rest**2) <= far**2


def _attempt(problem: Smoothing, modes: Modes, anomalies, n, key):
    """`_moved` for all members, each with a mode of its own."""
    which = allocate(modes, len(anomalies), key)
    return jax.vmap(lambda i, d: _moved(problem, modes, i, d, n))(which, anomalies)


def near_linear(
    problem: Smoothing, modes: Modes, anomalies: Float[Array, "member n"], n_obs, key: Key
) -> Bool[Array, ""]:
    """Whether half of the members have about the misfit that the linear problem says."""
    n = jnp.maximum(n_obs, 1).astype(anomalies.dtype)
    return jnp.mean(_attempt(problem, modes, anomalies, n, key)[2]) >= HALF


def move(
    problem: Smoothing,
    modes: Modes,
    anomalies: Float[Array, "member n"],
    n_obs,
    key: Key,
    trust: float = 1.0,
) -> tuple[Float[Array, "member n"], Float[Array, ""]]:
    """Members of the prior, `anomalies` from its mean, taken to the modes; the factor on R.

    R is widened until the mode of least misfit explains the observations and half of the members
    have about the misfit that the linear problem says: a search that found no state near the
    observations, or an event that bends within the prior, must not make the filter sure. Members
    that do not fit after that keep a fifth of their way from the mode.
    """
    n = jnp.maximum(n_obs, 1).astype(anomalies.dtype)
    square = jnp.sum(modes.misfit**2, -1)
    least = jnp.min(jnp.where(jnp.isfinite(square), square, jnp.inf))
    first = jnp.where(jnp.isfinite(least) & (least > quantile(n)), least / n, 1.0)

    def attempt(by):
        return _attempt(problem, tempered(modes, by, trust), anomalies, n, key)

    def retry(carry):
        _, by, (_, _, fits) = carry
        return (jnp.mean(fits) < HALF) & (by < WIDEST * first)

    def widen(carry):
        by = carry[0]
        return WIDEN * by, by, attempt(by)

    none = jnp.zeros_like(anomalies), jnp.zeros_like(anomalies), jnp.zeros(len(anomalies), bool)
    begin = first, jnp.zeros_like(first), none
    _, by, (point, away, fits) = jax.lax.while_loop(retry, widen, begin)
    return point + jnp.where(fits[:, None], 1.0, RETREAT) * away, by
