r"""Errors with heavy tails: one gross error must not take the analysis with it.

Student's t is a mixture of normals, t = N(0, std^2 / u) with u ~ Gamma(dof/2, dof/2), so that
its mean over c ~ N(m, v) is a sum of normal densities; the integral over log u is smooth, and the
trapezoidal rule takes it. Huber's density (1964, Ann. Math. Stat. 35, 73-101) is normal within k
standard deviations and exponential beyond; its mean is made of normal probabilities. A
contaminated normal law is the model of variational quality control (Ingleby and Lorenc 1993,
QJRMS 119; Andersson and Jarvinen 1999, QJRMS 125): with a small chance a value is wrong, and then
says nothing.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float
from scipy.special import gammaln, ndtr

from dasim.events.normal import log_interval
from dasim.observe.pointwise import AbstractPointwiseError, log_normal, positive, spread

NODES = 48


class StudentT(AbstractPointwiseError):
    """Student's t.

    Attributes:
        scale: its scale, a number or `(obs,)`; the standard deviation is larger.
        dof: degrees of freedom.
    """

    scale: Float[Array, "..."]
    dof: float = eqx.field(static=True)

    def __init__(self, scale, dof=4.0):
        """Raises ValueError unless both are positive."""
        self.scale = positive("StudentT", "scale", scale)
        positive("StudentT", "dof", dof)
        self.dof = float(dof)

    def _mixture(self):
        """Nodes in u, and logarithms of their shares."""
        half = 0.5 * self.dof
        low = min(-6.0, -28 / half)  # what lies below has a share of e^-28
        log_u, step = np.linspace(low, np.log(40 / half + 4), NODES, retstep=True)
        log_share = half * np.log(half) - gammaln(half) + half * log_u - half * np.exp(log_u)
        log_share = log_share + np.log(step)
        log_share -= np.log(np.exp(log_share).sum())
        return np.exp(log_u), log_share

    def log_z(self, value, mean, var, std):
        u, log_share = (jnp.asarray(a, mean.dtype)[:, None] for a in self._mixture())
        each = log_normal(value - mean, var + spread(self.scale, std) ** 2 / u)
        return jax.nn.logsumexp(each + log_share, axis=0)

    def gaussian(self, value, std):
        # the variance where there is one; with two degrees of freedom or fewer, that of three
        dof = max(self.dof, 3.0)
        wide = spread(self.scale, std) * (dof / (dof - 2)) ** 0.5
        return value, jnp.broadcast_to(wide, value.shape)

    def sample(self, c, t, key):
        return c + self.scale * jax.random.t(key, self.dof, c.shape, c.dtype)


class Huber(AbstractPointwiseError):
    """Normal within `k` standard deviations, exponential beyond.

    Attributes:
        std: standard deviation of the normal part, a number or `(obs,)`.
        k: where the tails begin.
    """

    std: Float[Array, "..."]
    k: float = eqx.field(static=True)

    def __init__(self, std, k=1.345):
        """Raises ValueError unless both are positive."""
        self.std = positive("Huber", "std", std)
        positive("Huber", "k", k)
        self.k = float(k)

    def _masses(self) -> tuple[float, float]:
        """Of the normal part and of both tails, before they are normalised."""
        k = self.k
        return (2 * np.pi) ** 0.5 * (2 * ndtr(k) - 1), 2 / k * np.exp(-0.5 * k**2)

    def log_z(self, value, mean, var, std):
        own, k = spread(self.std, std), self.k
        delta = (value - mean) / own
        s2 = jnp.maximum(var / own**2, 1e-8)
        s, total = jnp.sqrt(s2), 1 + s2
        middle, width = delta / total, s / jnp.sqrt(total)
        core = log_interval((-k - middle) / width, (k - middle) / width)
        core = core - 0.5 * (delta**2 / total + jnp.log(total))
        tails = [
            0.5 * k**2 * total - k * side + log_ndtr((side - k * total) / s)
            for side in (delta, -delta)
        ]
        norm = jnp.log(sum(self._masses()) * own)
        return jax.nn.logsumexp(jnp.stack([core, *tails]), axis=0) - norm

    def gaussian(self, value, std):
        k, (core, tails) = self.k, self._masses()
        inner = core - 2 * k * np.exp(-0.5 * k**2)  # integral of z^2 over the normal part
        outer = tails * (k**2 + 2 + 2 / k**2)
        wide = spread(self.std, std) * ((inner + outer) / (core + tails)) ** 0.5
        return value, jnp.broadcast_to(wide, value.shape)

    def sample(self, c, t, key):
        which, inside, outside, side = jax.random.split(key, 4)
        core, tails = self._masses()
        normal = jax.random.truncated_normal(inside, -self.k, self.k, c.shape, c.dtype)
        tail = self.k + jax.random.exponential(outside, c.shape, c.dtype) / self.k
        tail = tail * jax.random.rademacher(side, c.shape, c.dtype)
        normal_part = jax.random.bernoulli(which, core / (core + tails), c.shape)
        return c + self.std * jnp.where(normal_part, normal, tail)


class Contaminated(AbstractPointwiseError):
    """Normal, but for gross errors, which are uniform over many standard deviations.

    Attributes:
        std: standard deviation of the normal part, a number or `(obs,)`.
        gross: chance of a gross error.
        reach: of gross errors to each side, in standard deviations.
    """

    std: Float[Array, "..."]
    gross: float = eqx.field(static=True)
    reach: float = eqx.field(static=True)

    def __init__(self, std, gross=0.05, reach=30.0):
        """Raises ValueError unless the std and the reach are positive and `gross` in (0, 1)."""
        self.std = positive("Contaminated", "std", std)
        positive("Contaminated", "reach", reach)
        if not 0 < gross < 1:
            raise ValueError(f"Contaminated: gross is {gross}, expected a chance in (0, 1)")
        self.gross, self.reach = float(gross), float(reach)

    def log_z(self, value, mean, var, std):
        own = spread(self.std, std)
        good = log_normal(value - mean, var + own**2) + np.log1p(-self.gross)
        # beyond their reach, too, so that no value is impossible
        wrong = np.log(self.gross) - jnp.log(2 * self.reach * own)
        return jnp.logaddexp(good, jnp.broadcast_to(wrong, good.shape).astype(good.dtype))

    def gaussian(self, value, std):
        variance = 1 - self.gross + self.gross * self.reach**2 / 3
        return value, jnp.broadcast_to(spread(self.std, std) * variance**0.5, value.shape)

    def sample(self, c, t, key):
        which, normal, uniform = jax.random.split(key, 3)
        good = jax.random.normal(normal, c.shape, c.dtype)
        wrong = self.reach * jax.random.uniform(uniform, c.shape, c.dtype, -1.0, 1.0)
        broken = jax.random.bernoulli(which, self.gross, c.shape)
        return c + self.std * jnp.where(broken, wrong, good)
