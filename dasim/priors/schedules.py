r"""Noise schedules: the levels s of z = x + s C^(1/2) noise at which a prior is used.

The variance-exploding schedule spaces levels as Karras et al. (2022, arXiv 2206.00364, eq. 5).
The variance-preserving diffusion of Song et al. (2021, arXiv 2011.13456, eq. 11) has
z_vp = alpha z with alpha = exp(-B(t)/2) and B the integral of beta; divided by alpha it is a
variance-exploding one of level s(t) = sqrt(exp(B(t)) - 1), and it is used as such; so is the
sub-variance-preserving one (eq. 29 there), of the same alpha and a noise of standard deviation
1 - exp(-B(t)), as one of level s(t) = 2 sinh(B(t) / 2).
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractSchedule(eqx.Module):
    """A decreasing sequence of noise levels, relative to the prior's own covariance."""

    @abc.abstractmethod
    def levels(self, n: int) -> Float[Array, " n_plus_1"]:
        """`n` positive levels in decreasing order, and zero, `(n + 1,)`."""

    @abc.abstractmethod
    def draw(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Training levels from uniform numbers."""


class VESchedule(AbstractSchedule):
    """Levels from `sigma_max` to `sigma_min`, equally spaced in s^(1/rho)."""

    sigma_min: float = 0.02
    sigma_max: float = 20.0
    rho: float = 5.0

    def __check_init__(self):
        if not 0 < self.sigma_min < self.sigma_max or not self.rho > 0:
            raise ValueError(
                f"noise levels from {self.sigma_max} to {self.sigma_min} with exponent {self.rho}: "
                "expected sigma_max > sigma_min > 0 and rho > 0"
            )

    def levels(self, n):
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        inner = jnp.linspace(high, low, n) ** self.rho
        return jnp.concatenate([inner, jnp.zeros(1)])

    def draw(self, u):
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


class _LinearBeta(AbstractSchedule):
    """beta(t) linear from `beta_min` to `beta_max` over t in [t_min, 1]."""

    beta_min: eqx.AbstractVar[float]
    beta_max: eqx.AbstractVar[float]
    t_min: eqx.AbstractVar[float]

    def __check_init__(self):
        if not 0 < self.beta_min < self.beta_max or not 0 < self.t_min < 1:
            raise ValueError(
                f"beta from {self.beta_min} to {self.beta_max}, t_min {self.t_min}: "
                "expected 0 < beta_min < beta_max and 0 < t_min < 1"
            )

    def integral(self, t):
        """B(t)."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    @abc.abstractmethod
    def level(self, t):
        """s(t)."""

    def levels(self, n):
        return jnp.concatenate([self.level(jnp.linspace(1.0, self.t_min, n)), jnp.zeros(1)])

    def draw(self, u):
        return self.level(self.t_min + (1 - self.t_min) * u)


class VPSchedule(_LinearBeta):
    """Variance-preserving."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    def level(self, t):
        return jnp.sqrt(jnp.expm1(self.integral(t)))


class SubVPSchedule(_LinearBeta):
    """Sub-variance-preserving."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3

    def level(self, t):
        return 2 * jnp.sinh(self.integral(t) / 2)


SCHEDULES: dict[str, AbstractSchedule] = {
    "ve": VESchedule(),
    "vp": VPSchedule(),
    "sub-vp": SubVPSchedule(),
}
