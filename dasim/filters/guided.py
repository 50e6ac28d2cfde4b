r"""The approximate conditional score as a transport from noise to the posterior.

A prior with mean m and covariance C, diffused by noise of covariance C, has the denoiser
xhat(z, s) and posterior covariance V = s^2 / (1 + s^2) C. For the event y = c(x) + N(0, R),
linearised at xhat with J = dc/dx (Finzi et al. 2023, arXiv 2306.07526, sect. 4), the
conditional denoiser is

    xhat_y = xhat + V J^T S^-1 (y - c(xhat)),        S = J V J^T + R.

Between two levels s > s' the probability flow dz/ds = (z - xhat_y) / s is integrated exactly for
the linearised problem: with g_j, w_j the eigenpairs of R^(-1/2) J C J^T R^(-1/2), a component
whose posterior variance is lambda = 1 / (1 + g) times the prior's shrinks towards the posterior
mean by sqrt((lambda + s'^2) / (lambda + s^2)), hence with d = (z - xhat_y) / s

    z' = xhat_y + k(1) d + sum_j (k(lambda_j) - k(1)) C J^T R^(-1/2) w_j (w_j^T R^(-1/2) J d) / g_j,
    k(lambda) = [sqrt((lambda + s'^2) (lambda + s^2)) - lambda] / s.

The state carried is y = (z - m) / sqrt(1 + s^2), so that the first level is s = infinity, where
y is a draw from N(0, C) whatever the event: a finite first level would start from the wrong
law, by the event's shift over s. For a Gaussian prior and a linear event every number of
levels gives the exact posterior.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.events import AbstractEvent, GaussianEvent, sites
from dasim.filters.gaussian import Linearize, linearize, secants
from dasim.types import State


class LinearProblem(NamedTuple):
    """The event linearised: what the conditional denoiser and its flow need of J, C and R.

    Attributes:
        lower: Cholesky factor of R, `(obs, obs)`.
        jac: R^(-1/2) J, `(obs, n)`.
        g, w: eigenvalues, `(obs,)`, and eigenvectors of R^(-1/2) J C J^T R^(-1/2).
        basis: C J^T R^(-1/2) w, `(n, obs)`.
    """

    lower: Float[Array, "obs obs"]
    jac: Float[Array, "obs n"]
    g: Float[Array, " obs"]
    w: Float[Array, "obs obs"]
    basis: Float[Array, "n obs"]


class Solution(NamedTuple):
    """The conditional denoiser at one level.

    Attributes:
        point: xhat_y.
        increment: (xhat_y - xhat) / (s^2 / (1 + s^2)).
        white: w^T R^(-1/2) (y - c - J (xhat - x)), the misfit of the linear problem, `(obs,)`.
        problem: the last linearisation.
    """

    point: Float[Array, " n"]
    increment: Float[Array, " n"]
    white: Float[Array, " obs"]
    problem: LinearProblem


Constraint = Callable[[Float[Array, " n"]], tuple[Array, Array, Array]]


def factorize(
    jac: Float[Array, "obs n"],
    error: Float[Array, "obs obs"],
    cov: Callable[[Float[Array, "a b"]], Float[Array, "a b"]],
) -> LinearProblem:
    """The linear problem of Jacobian J, error covariance R and prior covariance C."""
    lower = jnp.linalg.cholesky(error)
    white = jax.scipy.linalg.solve_triangular(lower, jac, lower=True)
    white_cj = cov(white.T)
    g, w = jnp.linalg.eigh(white @ white_cj)
    return LinearProblem(lower, white, jnp.maximum(g, 0.0), w, white_cj @ w)


def solve_linear(
    problem: LinearProblem, misfit: Float[Array, " obs"], xhat: Float[Array, " n"], v, cap
) -> Solution:
    """xhat_y of a linear problem whose innovation at xhat is `misfit`."""
    g = problem.g
    whitened = jax.scipy.linalg.solve_triangular(problem.lower, misfit, lower=True)
    white = problem.w.T @ whitened
    weights = white / (1 + v * g)
    length = jnp.sqrt(jnp.sum(v * g * weights**2))
    expected = jnp.sqrt(jnp.sum(v * g / (1 + v * g)))
    weights = weights * jnp.minimum(1.0, cap * expected / jnp.maximum(length, 1e-30))
    increment = problem.basis @ weights
    return Solution(xhat + v * increment, increment, white, problem)


def condition(
    xhat: Float[Array, " n"],
    v,
    cov: Callable[[Float[Array, "a b"]], Float[Array, "a b"]],
    event: AbstractEvent,
    constraint: Constraint,
    iterations: int,
    cap,
) -> Solution:
    """xhat_y by `iterations` linearisations, the first at xhat, each other at the last xhat_y.

    Args:
        xhat: the unconditional denoiser.
        v: s^2 / (1 + s^2).
        cov: product of C with the columns of a matrix, `(n, k)`.
        event: of the observations; one that is not Gaussian by its sites under what is left of C.
        constraint: function of x to c, `(obs,)`, J, `(obs, n)`, and what the constraint's own
            uncertainty adds to R, `(obs, obs)`.
        cap: largest ratio of the correction's whitened length to its expected one.
    """

    def linearized(at):
        c, jac, extra = constraint(at)
        ahead = jnp.where(event.mask, jac @ (xhat - at), 0.0)
        near = sites(event, c + ahead, lambda: v * jac @ cov(jac.T) + extra)
        problem = factorize(jac, near.cov.dense() + extra, cov)
        return solve_linear(problem, near.innovation(c) - ahead, xhat, v, cap)

    at = xhat
    if iterations > 1:
        at = jax.lax.fori_loop(0, iterations - 1, lambda _, at: linearized(at).point, at)
    return linearized(at)


def _advance(y, shift, mean, solution: Solution, sine, cosine, s_next, cosine_next):
    """The exact step of the linearised flow, from y at one level to y at the next."""
    problem = solution.problem
    d = sine * y - cosine * (shift + sine * solution.increment)

    def k(lam):
        return (jnp.sqrt((lam + s_next**2) * (lam * cosine**2 + sine**2)) - lam * cosine) / sine

    change = (k(1 / (1 + problem.g)) - k(1.0)) / jnp.maximum(problem.g, 1e-6)
    inner = change * (problem.w.T @ (problem.jac @ d))
    return (solution.point - mean + k(1.0) * d + problem.basis @ inner) * cosine_next


def transport(
    y: Float[Array, " n"],
    mean: Float[Array, " n"],
    start: Solution,
    solve: Callable[[Float[Array, " n"], Float[Array, ""]], Solution],
    levels: Float[Array, " level"],
    correct: Callable[[Float[Array, " n"], Float[Array, ""]], Float[Array, " n"]] | None = None,
) -> Float[Array, " n"]:
    """One latent taken to a draw from the posterior.

    Args:
        y: a draw from N(0, C), flat.
        mean: m.
        start: the solution at s = infinity, where xhat is m for every latent.
        solve: function of xhat and v to the solution there.
        levels: finite levels, decreasing, the last one zero.
        correct: function of (y, s) to C^(1/2) F, what departs from a Gaussian prior.
    """
    levels = levels.astype(y.dtype)
    first = (jnp.ones((), y.dtype), jnp.zeros((), y.dtype))
    y = _advance(y, 0.0, mean, start, *first, levels[0], jnp.cos(jnp.arctan(levels[0])))
    angles = jnp.arctan(levels)

    def level(carry, pair):
        y, last, last_change = carry
        angle, angle_next = pair
        sine, cosine, cosine_next = jnp.sin(angle), jnp.cos(angle), jnp.cos(angle_next)
        xhat, slope, change = mean + cosine * y, last, angle_next - angle
        shift = jnp.zeros_like(y)
        if correct is not None:
            # second order in F, as in dasim.priors.sampler; the factor makes the step below
            # integrate it over the angle when nothing is observed
            slope = correct(y, jnp.tan(angle))
            ahead = slope + 0.5 * change / last_change * (slope - last)
            shift = ahead * (-change) * sine / (cosine_next - cosine)
            xhat = xhat + sine * shift
        solution = solve(xhat, sine**2)
        y = _advance(y, shift, mean, solution, sine, cosine, jnp.tan(angle_next), cosine_next)
        return (y, slope, change), None

    carry = (y, jnp.zeros_like(y), jnp.asarray(jnp.inf, y.dtype))
    return mean + jax.lax.scan(level, carry, (angles[:-1], angles[1:]))[0][0]


def plain_constraint(event: AbstractEvent, shape, slopes: Linearize):
    """c(x) = h(x) for stage two."""

    def constraint(x: Float[Array, " n"]):
        c, jac = slopes(lambda v: event.constraint(v.reshape(shape)), x)
        return c, jac, jnp.zeros((len(c), len(c)), x.dtype)

    return constraint


def guide(
    transition,
    x: State,
    t,
    event: AbstractEvent,
    levels,
    key,
    iterations,
    cap,
    statistical: bool = False,
) -> State:
    """Stage two: a draw of p(x' | x, y); the mean where the transition is deterministic.

    With `statistical` no derivative of the event is taken, but slopes over the spread of x'.
    """
    prior = transition.prior(x, t)
    if prior is None:
        return transition.mean(x, t)
    denoiser, cond = prior
    mean, cov = denoiser.mean(cond), denoiser.cov(cond)
    noise = cov.sqrt(jax.random.normal(key, mean.shape, mean.dtype))
    apply = jax.vmap(cov.apply, 1, 1)
    slopes = partial(secants, spread=jnp.sqrt(cov.diagonal())) if statistical else linearize

    if isinstance(event, GaussianEvent) and event.linear:
        # J does not depend on x: one factorisation serves all levels, and under vmap all members
        zero = jnp.zeros_like(mean)
        _, jac = slopes(lambda v: event.constraint(v.reshape(x.shape)), zero)
        problem = factorize(jac, event.cov.dense(), apply)

        def solve(xhat, v):
            misfit = event.innovation(event.constraint(xhat.reshape(x.shape)))
            return solve_linear(problem, misfit, xhat, v, cap)

    else:
        constraint = plain_constraint(event, x.shape, slopes)

        def solve(xhat, v):
            return condition(xhat, v, apply, event, constraint, iterations, cap)

    def correct(y, s):
        return denoiser.drift(y, s, cond)

    return transport(noise, mean, solve(mean, 1.0), solve, levels, correct).reshape(x.shape)
