r"""The ensemble score filter, EnSF (Bao, Zhang and Zhang 2024, arXiv 2309.00983): a peer.

It diffuses the forecast, not the ancestors: with alpha = 1 - (1 - e) t and beta^2 = t, the score
of the diffused forecast is that of the mixture of its N members,

    S(z, t) = -sum_i w_i (z - alpha x_i) / beta^2,    w_i ~ exp(-|z - alpha x_i|^2 / (2 beta^2)),

the score of the observations is added to it, damped by 1 - t, and the reverse equation

    dz = [f z - g^2 (S + (1 - t) grad log p(y | z))] dt + g dW,
    f = -(1 - e) / alpha,    g^2 = 1 - 2 f beta^2

is integrated from white noise at t = 1 to 0 by Euler's scheme. Nothing is trained, and the law of
its draws is not the posterior: the damping is chosen, and the members' mixture has no width.

A Gaussian version has the score of the diffused N(0, P) in place of the mixture's, with P the
forecast's covariance, tapered if asked:

    S(z, t) = -(alpha^2 P + beta^2)^-1 z

Variables are centred and scaled by the forecast's mean and standard deviation, and a step along
the observations' score is no longer than that of the ensemble's spread; both are ours.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from dasim.filters.base import AbstractEnsembleFilter
from dasim.filters.inflation import AbstractInflation, as_inflation
from dasim.localization import Localization


class EnSF(AbstractEnsembleFilter):
    """Reverse diffusion of the forecast ensemble with a damped score of the observations.

    Attributes:
        inflation: a factor on the prior anomalies, or an inflation; the published runs relax the
            spread (`RTPS`).
        steps: Euler steps.
        end: alpha at t = 1, in (0, 1).
        gaussian: the score of a normal law with the forecast's moments, not of the mixture.
        localization: taper of its covariance; the mixture has none.
    """

    inflation: AbstractInflation = eqx.field(default=1.0, converter=as_inflation)
    steps: int = eqx.field(static=True, default=100)
    end: float = eqx.field(static=True, default=0.05)
    gaussian: bool = eqx.field(static=True, default=False)
    localization: Localization | None = None

    def __check_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")
        if not 0 < self.end < 1:
            raise ValueError(f"end is {self.end}, expected alpha at t = 1 in (0, 1)")
        if self.localization is not None and not self.gaussian:
            raise ValueError("the score of a mixture has no covariance to taper: set gaussian")

    def analyse(self, members, c, event, key):
        mean, std = members.mean(0), jnp.maximum(members.std(0, ddof=1), 1e-6)
        scaled = (members - mean) / std
        length = 1 / self.steps

        score = self._gaussian(scaled) if self.gaussian else self._mixture(scaled)

        def log_likelihood(z):
            return event.log_prob(event.constraint(mean + std * z), None)

        def step(z, item):
            t, key = item
            alpha, variance = 1 - (1 - self.end) * t, t
            f = -(1 - self.end) / alpha
            g2 = 1 - 2 * f * variance
            prior = score(z, alpha, variance)
            pull = length * g2 * (1 - t) * jax.vmap(jax.grad(log_likelihood))(z)
            norm = jnp.sqrt(jnp.mean(pull**2, -1, keepdims=True))
            pull = pull * jnp.minimum(1.0, 1 / jnp.maximum(norm, 1e-30))
            noise = jnp.sqrt(length * g2) * jax.random.normal(key, z.shape, z.dtype)
            return z - length * (f * z - g2 * prior) + pull + noise, None

        start_key, key = jax.random.split(key)
        times = (1 - length * jnp.arange(self.steps)).astype(members.dtype)
        start = jax.random.normal(start_key, members.shape, members.dtype)
        z = jax.lax.scan(step, start, (times, jax.random.split(key, self.steps)))[0]
        return mean + std * z

    def _mixture(self, scaled):
        """The score of the diffused mixture of members."""

        def score(z, alpha, variance):
            away = z[:, None] - alpha * scaled
            w = jax.nn.softmax(-0.5 * jnp.sum(away**2, -1) / variance, -1)
            return -jnp.einsum("ij,ijn->in", w, away) / variance

        return score

    def _gaussian(self, scaled):
        """The score of the diffused normal law with the members' covariance."""
        cov = scaled.T @ scaled / (len(scaled) - 1)
        if self.localization is not None:
            cov = cov * self.localization.state_state.astype(cov.dtype)
        values, vectors = jnp.linalg.eigh(cov)

        def score(z, alpha, variance):
            return -(z @ vectors / (alpha**2 * jnp.maximum(values, 0.0) + variance)) @ vectors.T

        return score
