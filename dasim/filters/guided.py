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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dasim.events import GaussianEvent
from dasim.types import State

Matrix = Float[Array, "a b"]


def linearize(
    function: Callable[[Float[Array, " n"]], Float[Array, " m"]], x: Float[Array, " n"]
) -> tuple[Float[Array, " m"], Float[Array, "m n"]]:
    """The value and the Jacobian of `function` at x, by whichever mode takes fewer passes."""
    outputs = jax.eval_shape(function, x).shape[0]
    if outputs < x.shape[0]:
        value, pull = jax.vjp(function, x)
        return value, jax.vmap(lambda row: pull(row)[0])(jnp.eye(outputs, dtype=value.dtype))
    value, push = jax.linearize(function, x)
    return value, jax.vmap(push, out_axes=1)(jnp.eye(x.shape[0], dtype=x.dtype))


def transport(
    y: Float[Array, " n"],
    mean: Float[Array, " n"],
    cov: Callable[[Matrix], Matrix],
    event: GaussianEvent,
    constraint: Callable[[Float[Array, " n"]], tuple[Array, Array, Array]],
    levels: Float[Array, " level"],
    relinearizations: int,
    cap: float,
    correct: Callable[[Float[Array, " n"], Float[Array, ""]], Float[Array, " n"]] | None = None,
) -> Float[Array, " n"]:
    """One latent taken to a draw from the posterior.

    Args:
        y: a draw from N(0, C), flat.
        mean: m.
        cov: product of C with the columns of a matrix, `(n, k)`.
        event: the observed value and R.
        constraint: function of x to c, `(obs,)`, J, `(obs, n)`, and what the constraint's own
            uncertainty adds to R, `(obs, obs)`.
        levels: finite levels after the first, decreasing, the last one zero.
        relinearizations: linearisations a level; each but the first is at the last xhat_y.
        cap: largest ratio of the correction's whitened length to its expected one.
        correct: function of (y, s) to C^(1/2) F, what departs from a Gaussian prior.
    """
    r = event.cov.dense()
    angles = jnp.concatenate([jnp.full(1, jnp.pi / 2), jnp.arctan(levels)]).astype(y.dtype)

    def level(carry, pair):
        y, last, last_change = carry
        angle, angle_next = pair
        sine, cosine = jnp.sin(angle), jnp.maximum(jnp.cos(angle), 0.0)
        s_next, cosine_next = jnp.tan(angle_next), jnp.cos(angle_next)
        xhat = mean + cosine * y
        slope, change = last, angle_next - angle
        shift = jnp.zeros_like(y)
        if correct is not None:
            # second order in F, as in dasim.priors.sampler; the factor makes the step below
            # integrate it over the angle when nothing is observed
            slope = correct(y, sine / jnp.maximum(cosine, 1e-6))
            ahead = slope + 0.5 * change / last_change * (slope - last)
            shift = ahead * (-change) * sine / (cosine_next - cosine)
            xhat = xhat + sine * shift
        v = sine**2
        at = xhat
        for _ in range(relinearizations):
            c, jac, extra = constraint(at)
            cj = cov(jac.T)
            lower = jnp.linalg.cholesky(r + extra)
            white_jac = jax.scipy.linalg.solve_triangular(lower, jac, lower=True)
            white_cj = jax.scipy.linalg.solve_triangular(lower, cj.T, lower=True).T
            g, w = jnp.linalg.eigh(white_jac @ white_cj)
            g = jnp.maximum(g, 0.0)
            misfit = event.innovation(c) - jnp.where(event.mask, jac @ (xhat - at), 0.0)
            white = w.T @ jax.scipy.linalg.solve_triangular(lower, misfit, lower=True)
            weights = white / (1 + v * g)
            length = jnp.sqrt(jnp.sum(v * g * weights**2))
            expected = jnp.sqrt(jnp.sum(v * g / (1 + v * g)))
            weights = weights * jnp.minimum(1.0, cap * expected / jnp.maximum(length, 1e-30))
            basis = white_cj @ w
            increment = basis @ weights
            at = xhat + v * increment
        d = sine * y - cosine * (shift + sine * increment)
        lam = 1 / (1 + g)

        def k(lam):
            return (jnp.sqrt((lam + s_next**2) * (lam * cosine**2 + v)) - lam * cosine) / sine

        inner = (k(lam) - k(1.0)) * (w.T @ (white_jac @ d)) / jnp.maximum(g, 1e-6)
        z = at - mean + k(1.0) * d + basis @ inner
        return (z * cosine_next, slope, change), None

    start = (y, jnp.zeros_like(y), jnp.asarray(jnp.inf, y.dtype))
    y = jax.lax.scan(level, start, (angles[:-1], angles[1:]))[0][0]
    return mean + y


def smooth_constraint(transition, event: GaussianEvent, t, shape):
    """c(x) = h(mean(x)) for stage one, with H Q H^T from the transition's residual."""

    def constraint(x: Float[Array, " n"]):
        def forward(v):
            return transition.mean(v.reshape(shape), t).reshape(-1)

        cov = transition.residual_cov(x.reshape(shape), t)
        if cov is None:
            c, jac = linearize(lambda v: event.constraint(forward(v).reshape(shape)), x)
            return c, jac, jnp.zeros((len(c), len(c)), x.dtype)
        ahead = forward(x)
        _, h = linearize(lambda v: event.constraint(v.reshape(shape)), ahead)
        c, jac = linearize(lambda v: event.constraint(forward(v).reshape(shape)), x)
        return c, jac, h @ jax.vmap(cov.apply, 1, 1)(h.T)

    return constraint


def plain_constraint(event: GaussianEvent, shape):
    """c(x) = h(x) for stage two."""

    def constraint(x: Float[Array, " n"]):
        c, jac = linearize(lambda v: event.constraint(v.reshape(shape)), x)
        return c, jac, jnp.zeros((len(c), len(c)), x.dtype)

    return constraint


def guide(transition, x: State, t, event: GaussianEvent, levels, key, relinearizations, cap) -> State:
    """Stage two: a draw of p(x' | x, y); the mean where the transition is deterministic."""
    prior = transition.prior(x, t)
    if prior is None:
        return transition.mean(x, t)
    denoiser, cond = prior
    mean, cov = denoiser.mean(cond), denoiser.cov(cond)
    noise = cov.sqrt(jax.random.normal(key, mean.shape, mean.dtype))
    largest = levels[0]

    def correct(y, s):
        return cov.sqrt(denoiser.correction(cov.whiten(y), jnp.minimum(s, largest), cond))

    out = transport(
        noise,
        mean,
        jax.vmap(cov.apply, 1, 1),
        event,
        plain_constraint(event, x.shape),
        levels,
        relinearizations,
        cap,
        correct,
    )
    return out.reshape(x.shape)
