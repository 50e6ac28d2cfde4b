r"""Trajectories as a first state and the errors of a learned step.

A step f and the standard deviation of its errors g, both learned, make a window of states x_0, x_1,
... of its first state and errors e of unit size,

    x_{k+1} = f(x_k) + g(x_k) e_k:

the control variable of four-dimensional variational assimilation with a model that errs (Tremolet
2006, Q. J. R. Meteorol. Soc. 132, 2483-2504, sect. 3.1). It is one-to-one, and triangular, so that
its determinant is a product. A law of these coordinates is simple where that of the states is not:
a chaotic trajectory hangs on its first state through all of its steps.
"""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import least_squares

from dasim.models.base import integrate
from dasim.priors.networks import MLP
from dasim.types import Key

LEAST, MOST = -15.0, 0.0  # log of the standard deviation of an error, over that of an increment
TYPICAL = -7.0


PAIRS = 400  # to which a polynomial tendency is fitted
LARGE = 0.02  # share of the largest changes, of which half of them are


class PolynomialFlow(eqx.Module):
    """The change over a step of dv/dt = W p(v), p all monomials of up to the third degree.

    It finds the tendency of polynomial equations to rounding from states a step apart (Brunton et
    al. 2016, PNAS 113, 3932-3937, do from derivatives), where no less will do.

    Attributes:
        weights: W, `(d, monomials)`; a step is a unit of time.
        substeps: of the scheme of Runge and Kutta.
    """

    weights: Float[Array, "d m"]
    substeps: int = eqx.field(static=True)

    def __init__(self, d: int, substeps: int):
        self.weights, self.substeps = jnp.zeros((d, len(self.factors(d)))), substeps

    @staticmethod
    def factors(d: int) -> list[tuple[int, int, int]]:
        """The three factors of each monomial: 0 is one, i the variable i - 1."""
        return list(itertools.combinations_with_replacement(range(d + 1), 3))

    def __call__(self, v: Float[Array, " d"], limit: Float[Array, " d"]) -> Float[Array, " d"]:
        """The change of v; the tendency is that at the edge where v is beyond the limit."""
        # products with matrices of zeros and ones, faster than picking where there are many v
        pick = np.eye(len(v) + 1, dtype=v.dtype)[np.array(self.factors(len(v))).T]

        def tendency(t, v):
            q = jnp.concatenate([jnp.ones(1, v.dtype), jnp.clip(v, -limit, limit)])
            return self.weights @ jnp.prod(pick @ q, 0)

        step = lambda v, _: (integrate(tendency, v, 0.0, 1 / self.substeps), None)
        return jax.lax.scan(step, v, None, length=self.substeps)[0] - v


class LearnedStep(eqx.Module):
    """The next state as a function of this one, and the standard deviations of its errors.

    A network sees angles as their sines and cosines, and no variable further out than the limit.

    Attributes:
        center, scale: mean and standard deviation of each variable, `(d,)`.
        first_center, first_scale: those of first states.
        increment: standard deviation of its changes over a step, over `scale`, `(d,)`.
        limit: largest standardised value, `(d,)`.
        mean: network of the change, in `increment`; or a flow, which is not fitted by gradients.
        error: network of the logarithm of the error, over `increment`.
        angles: variables that are angles.
    """

    center: Float[Array, " d"]
    scale: Float[Array, " d"]
    first_center: Float[Array, " d"]
    first_scale: Float[Array, " d"]
    increment: Float[Array, " d"]
    limit: Float[Array, " d"]
    mean: MLP | PolynomialFlow
    error: MLP
    angles: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, d: int, angles: tuple[int, ...], width: int, depth: int, key: Key, substeps: int = 0
    ):
        """A flow of so many substeps where there are some, and else a perceptron."""
        a, b = jax.random.split(key)
        self.center = self.first_center = jnp.zeros(d)
        self.scale = self.first_scale = self.increment = jnp.ones(d)
        self.limit = jnp.full(d, 1e9)  # none, with finite derivatives
        if substeps:
            self.mean = PolynomialFlow(d, substeps)
        else:
            self.mean = MLP(1, d, 2 * len(angles), width, depth, a)
        self.error = MLP(1, d, 2 * len(angles), width // 2, 1, b)
        self.angles = tuple(angles)

    def features(self, x: Float[Array, " d"]) -> tuple[Array, Array]:
        """Fields and scalars, as the networks take them."""
        v = self.limit * jnp.tanh((x - self.center) / (self.scale * self.limit))
        at = jnp.array(self.angles, int)
        turned = x[at]
        return v.at[at].set(0.0)[None], jnp.concatenate([jnp.sin(turned), jnp.cos(turned)])

    def __call__(self, x: Float[Array, " d"]) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """The mean of the next state, and the standard deviation of each variable's error."""
        fields, scalars = self.features(x)
        unit = self.scale * self.increment
        log_error = jnp.clip(TYPICAL + self.error(fields, scalars), LEAST, MOST)
        if isinstance(self.mean, PolynomialFlow):
            change = self.scale * self.mean((x - self.center) / self.scale, self.limit)
        else:
            change = unit * self.mean(fields, scalars)
        return x + change, unit * jnp.exp(log_error)

    def encode(self, x: Float[Array, "steps d"]) -> Float[Array, "steps d"]:
        """The first state, standardised, and the errors."""
        ahead, error = jax.vmap(self)(x[:-1])
        first = (x[:1] - self.first_center) / self.first_scale
        return jnp.concatenate([first, (x[1:] - ahead) / error])

    def decode(self, c: Float[Array, "steps d"]) -> Float[Array, "steps d"]:
        """The states."""

        def step(x, e):
            ahead, error = self(x)
            x = ahead + error * e
            return x, x

        first = c[0] * self.first_scale + self.first_center
        return jnp.concatenate([first[None], jax.lax.scan(step, first, c[1:])[1]])

    def later(self, c: Float[Array, " d"], steps: int) -> Float[Array, " d"]:
        """The first state some steps without errors on, standardised as it is."""
        step = lambda x, _: (self(x)[0], None)
        first = c * self.first_scale + self.first_center
        x = jax.lax.scan(step, first, None, length=steps)[0]
        return (x - self.first_center) / self.first_scale

    def log_det(self, x: Float[Array, "steps d"]) -> Float[Array, ""]:
        """log |d encode / dx|."""
        errors = jax.vmap(self)(x[:-1])[1]
        return -jnp.sum(jnp.log(errors)) - jnp.sum(jnp.log(self.first_scale))


def standardized(step: LearnedStep, windows: Float[Array, "window steps d"]) -> LearnedStep:
    """A step in the units of some windows."""
    scale = windows.std((0, 1))
    changes = jnp.diff(windows, axis=1).std((0, 1)) / scale
    center = windows.mean((0, 1))
    limit = 1.2 * jnp.abs((windows - center) / scale).max((0, 1))
    first = windows[:, 0].mean(0), windows[:, 0].std(0)
    parts = lambda s: (s.center, s.scale, s.first_center, s.first_scale, s.increment, s.limit)
    return eqx.tree_at(parts, step, (center, scale, *first, changes, limit))


def pair_drawer(windows: Float[Array, "window steps d"]):
    """A function of (key, n) to n states and those one step on."""

    def draw(windows, key, n):
        pick, when = jax.random.split(key)
        at = jax.random.randint(pick, (n,), 0, windows.shape[0])
        k = jax.random.randint(when, (n,), 0, windows.shape[1] - 1)
        return windows[at, k], windows[at, k + 1]

    return jax.tree_util.Partial(draw, windows)


def mean_loss(step: LearnedStep, batch: tuple, key: Key) -> Float[Array, ""]:
    """Mean square error, in units of the increments' variance."""
    x, following = batch
    errors = (following - jax.vmap(step)(x)[0]) / (step.scale * step.increment)
    return jnp.mean(errors**2)


def error_loss(step: LearnedStep, batch: tuple, key: Key) -> Float[Array, ""]:
    """Negative log likelihood of normal errors, per variable, but for a constant."""
    x, following = batch
    ahead, error = jax.vmap(step)(x)
    return jnp.mean(jnp.log(error) + 0.5 * ((following - ahead) / error) ** 2)


def fitted_flow(
    step: LearnedStep, windows: Float[Array, "window steps d"], key: Key
) -> LearnedStep:
    """A step whose polynomial tendency is fitted to states of windows and those one step on.

    By MINPACK's Levenberg-Marquardt method in double precision, on pairs of which half are among
    those that change most.
    """
    x, following = (w.reshape(-1, w.shape[2]) for w in (windows[:, :-1], windows[:, 1:]))
    v, after = ((w - step.center) / step.scale for w in (x, following))
    size = jnp.max(jnp.abs(after - v) / step.increment, 1)
    large = jnp.argsort(-size)[: max(int(LARGE * len(v)), 1)]
    first, second = jax.random.split(key)
    some = jax.random.randint(first, (PAIRS // 2,), 0, len(v))
    at = jnp.concatenate([some, jax.random.choice(second, large, (PAIRS // 2,))])
    shape = step.mean.weights.shape
    pairs = [np.asarray(a, float) for a in (v[at], after[at], step.increment, step.limit)]
    with jax.enable_x64(True):

        @eqx.filter_jit
        def residuals(weights, pairs):
            v, after, unit, limit = pairs
            flow = eqx.tree_at(lambda f: f.weights, step.mean, weights.reshape(shape))
            return ((v + jax.vmap(lambda v: flow(v, limit))(v) - after) / unit).reshape(-1)

        slopes = eqx.filter_jit(jax.jacfwd(residuals))
        solution = least_squares(
            lambda w: np.asarray(residuals(w, pairs)),
            np.zeros(math.prod(shape)),
            lambda w: np.asarray(slopes(w, pairs)),
            x_scale="jac",
            method="lm",
            xtol=1e-9,
            ftol=1e-9,
        )
    weights = jnp.asarray(solution.x.reshape(shape), step.mean.weights.dtype)
    return eqx.tree_at(lambda s: s.mean.weights, step, weights)


# of the training: name, loss, and what moves
STAGES = (
    ("step", mean_loss, lambda s: s.mean),
    ("error", error_loss, lambda s: s.error),
)
