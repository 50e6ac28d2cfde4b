r"""Weighted conditional sampling: the conditional score as the proposal of a particle method.

The ancestors' prior is a mixture of kernels about the members x_i of the last analysis, of
weights w_i, mean m and covariance P,

    p(x) = 1/K sum_k sum_i w_i N(x; m + sqrt(1 - b_k^2) (x_i - m), b_k^2 P),

whose mean and covariance are m and P whatever the bandwidths b_k in (0, 1] (West 1993). Kernels
of several widths about each member leave it to the observations which of them count. A draw of
the cycle is a function of standard normal numbers e = (kernel's noise, transition's noise), and
the event a constraint c(e) of them: for each kernel a prior N(0, I) to be conditioned, in all of
its noise at once.

Diffused, y_a = cos(a) e + sin(a) noise at the angle a = arctan(s) is again N(0, I), and the
reverse chain from a to a' < a is y' = rho y + sqrt(1 - rho^2) noise with rho = cos(a) / cos(a').
Twisted by the approximate conditional score (Wu et al. 2023, arXiv 2306.17775, alg. 1; Finzi et
al. 2023, arXiv 2306.07526),

    psi_a(y) = N(value; c(xhat), sin(a)^2 J J^T + R),        xhat = cos(a) y,

with J the Jacobian at a linearisation point, its kernels are normal and are drawn exactly:
q(y' | y) ~ p(y' | y) psi_a'(y') with c linearised. The weights p psi_a' / (q psi_a), with
psi_0 the exact likelihood and psi at a = pi/2 taken as 1, make the draws and the evidence
consistent, whatever the points of linearisation. From pi/2 to 0 in one step the chain is
importance sampling from the Laplace approximation of each kernel's posterior.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.covariance import DenseCovariance, flatten
from dasim.events import AbstractEvent, sites
from dasim.filters.gaussian import Linearize, linearize
from dasim.filters.particle import Particles, weighted_anomalies
from dasim.resampling import resampled, systematic
from dasim.transitions import AbstractTransition
from dasim.types import Key

TRUST = 3.0  # longest step of the search for a mode, in standard deviations of the prior
ITERATIONS = 6  # of that search


class _Linear(NamedTuple):
    """The whitened constraint R^(-1/2) c about a point, J J^T = w diag(g) w^T."""

    rest: Float[Array, " obs"]  # w^T R^(-1/2) (value - c + J point)
    rows: Float[Array, "obs latent"]  # diag(g)^(-1/2) w^T J, orthonormal where g > 0
    g: Float[Array, " obs"]

    def log_psi(self, xhat, v):
        """log N(value; linearised constraint at xhat, v J J^T + R), but for the constant of R."""
        misfit = self.rest - jnp.sqrt(self.g) * (self.rows @ xhat)
        variance = 1 + v * self.g
        return -0.5 * jnp.sum(misfit**2 / variance + jnp.log(variance))


def _linearized(constraint, value, point, slopes: Linearize) -> _Linear:
    c, jac = slopes(constraint, point)
    g, w = jnp.linalg.eigh(jac @ jac.T)
    g = jnp.where(g > 1e-9, g, 0.0)
    rows = (w.T @ jac) * jnp.where(g > 0, 1 / jnp.sqrt(jnp.maximum(g, 1e-9)), 0.0)[:, None]
    return _Linear(w.T @ (value - c + jac @ point), rows, g)


def _mode(constraint, value, start, slopes: Linearize):
    """Gauss-Newton steps to the mode of the posterior of e, shorter after one that fails."""

    def cost(e):
        total = 0.5 * jnp.sum((value - constraint(e)) ** 2) + 0.5 * jnp.sum(e**2)
        return jnp.where(jnp.isfinite(total), total, jnp.inf)

    def step(carry, _):
        e, least, length = carry
        near = _linearized(constraint, value, e, slopes)
        change = near.rows.T @ (jnp.sqrt(near.g) / (1 + near.g) * near.rest) - e
        limit = TRUST / jnp.maximum(jnp.sqrt(jnp.sum(change**2)), 1e-9)
        trial = e + length * jnp.minimum(1.0, limit) * change
        total = cost(trial)
        better = total < least
        e, least = jnp.where(better, trial, e), jnp.where(better, total, least)
        return (e, least, jnp.where(better, jnp.minimum(1.0, 2 * length), 0.3 * length)), None

    carry = start, cost(start), jnp.ones((), start.dtype)
    return jax.lax.scan(step, carry, None, length=ITERATIONS)[0][0]


def _propose(y, near: _Linear, rho, angle, key):
    """A draw of q(y' | y) at the next level's `angle`, and log p(y' | y) - log q(y' | y)."""
    noise = jax.random.normal(key, y.shape, y.dtype)
    along, here, free = near.rows @ y, near.rows @ noise, 1 - rho**2
    # along each row y' has the prior N(rho along, free), and rest is root y' + N(0, error)
    root, error = jnp.sqrt(near.g) * jnp.cos(angle), 1 + jnp.sin(angle) ** 2 * near.g
    variance = free / (1 + free * root**2 / error)
    shift = variance * root / error * (near.rest - root * rho * along)
    moved = shift + jnp.sqrt(variance) * here
    new = rho * y + jnp.sqrt(free) * noise + near.rows.T @ (moved - jnp.sqrt(free) * here)
    ratio = -0.5 * jnp.sum(moved**2 / free - here**2 + jnp.log(free / variance))
    return new, ratio


def _seen(transition, event, prior: Particles, t):
    """Mean of the constraint under the members' forecasts, and a function to its covariance."""
    shape = prior.ensemble.shape[1:]
    still = jnp.zeros(transition.noise_size, prior.ensemble.dtype)
    ahead = lambda x: event.constraint(transition.outline(x.reshape(shape), t, still))
    c = jax.vmap(ahead)(flatten(prior.ensemble))
    mean, x = weighted_anomalies(c, jnp.exp(prior.log_weights))
    return mean, lambda: x.T @ x


def weighted_draws(
    transition: AbstractTransition,
    event: AbstractEvent,
    prior: Particles,
    t,
    key: Key,
    bandwidths: tuple[float, ...],
    draws: int,
    angles: Float[Array, " level"],
    inflation: Float[Array, ""],
    slopes: Linearize = linearize,
) -> tuple[Particles, Float[Array, ""]]:
    """Weighted draws of p(x' | y), `draws` of each member and kernel, and the log evidence.

    Args:
        prior: the last analysis.
        t: its time.
        bandwidths: b_k.
        angles: levels arctan(s) below pi/2, decreasing, the last one zero.
        inflation: factor on the anomalies of the prior.
        slopes: how the event is linearised, as a function of standard normal numbers.
    """
    shape, members = prior.ensemble.shape[1:], flatten(prior.ensemble)
    (count, n), dtype = members.shape, members.dtype
    mean, x = weighted_anomalies(members, jnp.exp(prior.log_weights))
    members = mean + inflation * (members - mean)
    root = DenseCovariance.from_matrix(inflation**2 * x.T @ x)
    shrunk = jnp.asarray([(1 - b**2) ** 0.5 for b in bandwidths], dtype)
    centers = (mean + shrunk[:, None, None] * (members - mean)).reshape(-1, n)
    widths = jnp.repeat(jnp.asarray(bandwidths, dtype), count)
    shares = jnp.tile(prior.log_weights, len(bandwidths)) + jnp.log(jnp.asarray(count, dtype))
    exact, event = event, sites(event, *_seen(transition, event, prior, t))
    value = event.cov.whiten(event.innovation(jnp.zeros_like(event.value)))

    def after(move, kernel, e):
        """The state after the transition that belongs to e."""
        x = centers[kernel] + widths[kernel] * root.sqrt(e[:n])
        return move(x.reshape(shape), t, e[n:])

    def constraint(kernel):
        return lambda e: event.cov.whiten(event.constraint(after(transition.outline, kernel, e)))

    def start(kernel, key):
        """One kernel's draws at the first level: they share a linearisation."""
        origin = jnp.zeros(n + transition.noise_size, dtype)
        point = _mode(constraint(kernel), value, origin, slopes)
        near = _linearized(constraint(kernel), value, point, slopes)
        rho = jnp.zeros((), dtype)
        keys = jax.random.split(key, draws)
        return jax.vmap(lambda k: _propose(origin, near, rho, angles[0], k))(keys)

    def at(angle, kernel, y):
        near = _linearized(constraint(kernel), value, jnp.cos(angle) * y, slopes)
        return near, near.log_psi(jnp.cos(angle) * y, jnp.sin(angle) ** 2)

    def level(carry, item):
        kernel, y, log_weights, near, psi = carry
        angle, following, key = item
        resample_key, key = jax.random.split(key)
        index, log_weights = resampled(log_weights, resample_key)
        kernel, y, near, psi = jax.tree.map(lambda a: a[index], (kernel, y, near, psi))
        rho = jnp.cos(angle) / jnp.cos(following)
        move = jax.vmap(lambda y, near, k: _propose(y, near, rho, following, k))
        y, ratio = move(y, near, jax.random.split(key, len(y)))
        near, new = jax.vmap(lambda kernel, y: at(following, kernel, y))(kernel, y)
        return (kernel, y, log_weights + ratio + new - psi, near, new), None

    start_key, level_key = jax.random.split(key)
    each = jnp.arange(len(centers))
    y, ratio = jax.vmap(start)(each, jax.random.split(start_key, len(centers)))
    kernel, y = jnp.repeat(each, draws), y.reshape(len(centers) * draws, -1)
    log_weights, psi = shares[kernel] + ratio.reshape(-1), jnp.zeros(len(kernel), dtype)
    if len(angles) > 1:
        near, psi = jax.vmap(lambda kernel, y: at(angles[0], kernel, y))(kernel, y)
        items = angles[:-1], angles[1:], jax.random.split(level_key, len(angles) - 1)
        carry = kernel, y, log_weights + psi, near, psi
        kernel, y, log_weights, _, psi = jax.lax.scan(level, carry, items)[0]
    states = jax.vmap(lambda kernel, e: after(transition.driven, kernel, e))(kernel, y)
    likelihood = jax.vmap(lambda x: exact.log_prob(exact.constraint(x), None))(states)
    log_weights = log_weights - psi + likelihood
    log_weights = jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf)
    total = jax.nn.logsumexp(log_weights)
    return Particles(states, log_weights - total), total - jnp.log(len(y))


def principal_plane(draws: Particles) -> Float[Array, "draw 2"]:
    """Coordinates of the draws along their first two principal components."""
    members, weights = flatten(draws.ensemble), jnp.exp(draws.log_weights)
    possible = jnp.where(weights[:, None] > 0, members, 0.0)
    mean, x = weighted_anomalies(possible, weights)
    axes = jnp.linalg.eigh(x.T @ x)[1]
    return (possible - mean) @ axes[:, jnp.array([-1, max(-2, -axes.shape[1])])]


def reduce(
    draws: Particles,
    plane: Float[Array, "draw 2"],
    count: int,
    key: Key,
    evenness: float = 1.0,
) -> Particles:
    """`count` of the draws, chosen with chances ~ w^evenness and weighted by w^(1 - evenness).

    Systematic resampling along a curve through `plane` that goes to and fro along the second
    coordinate, in strips across the first. Neighbours on it stand for one another, so the sample
    is stratified in the plane (as along a Hilbert curve: Gerber, Chopin and Whiteley 2019,
    arXiv 1708.02230). Below an evenness of 1 a mode of little weight keeps several members.
    """
    chances = jax.nn.softmax(evenness * draws.log_weights)
    first, second = plane.T
    along = jnp.argsort(first)
    below = jnp.zeros_like(chances).at[along].set(jnp.cumsum(chances[along]))
    strip = jnp.floor(below * round(count**0.5))
    order = jnp.lexsort((jnp.where(strip % 2 == 0, second, -second), strip))
    index = order[systematic(chances[order], key, count)]
    log_weights = (1 - evenness) * draws.log_weights[index]
    return Particles(draws.ensemble[index], jax.nn.log_softmax(log_weights))
