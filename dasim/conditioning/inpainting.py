r"""Inpainting: known components of a draw, put in at each noise level of the prior's own chain.

At the angle a the known components of v = z / sqrt(1 + s^2) are set to cos(a) u + sin(a) noise,
with u their known values in white coordinates, and a step of the chain follows (Song et al. 2021,
arXiv 2011.13456, app. I.2). What was put in does not fit the rest, which the network has made
without it; going back to the level before by adding noise, and down again, some times at each
level, lets the two agree better (Lugmayr et al. 2022, arXiv 2201.09865, alg. 1). Not exact at any
number of repeats: a baseline to the conditional score, which treats known components as events.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dasim.conditioning.chain import descended, noising
from dasim.conditioning.guidance import ConstantGuidance, Target
from dasim.covariance import DiagonalCovariance
from dasim.events.regions import Equals
from dasim.types import Key


class _White(eqx.Module):
    """Some of a draw's white coordinates; a functional that is not another at each call."""

    target: Target
    where: Int[Array, " k"]

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, " k"]:
        return self.target.white(x)[self.where]


def inpainted_draws(
    prior: eqx.Module,
    value: Float[Array, "*shape"],
    known: Bool[Array, "*shape"],
    key: Key,
    n: int,
    cond: Array | None = None,
    levels: int = 64,
    repeats: int = 1,
    width: float | None = None,
) -> Float[Array, "n *shape"]:
    """`n` draws of a prior whose known components are `value`.

    Args:
        prior: one whose noise is not correlated between components, as that of a
            `DiffusionPrior` of trajectories.
        value: a draw, of which the components that are not `known` are not used.
        cond: the prior's condition.
        repeats: times that each level's step is made.
        width: None for putting in alone. Else each step is guided, too, as by known components
            that are seen with this standard deviation, in the prior's standard deviations.

    Raises:
        ValueError: a shape that is not the prior's, a prior with correlated noise, or known
            components of which its coordinates are not functions.
    """
    if value.shape != prior.shape or known.shape != prior.shape:
        raise ValueError(
            f"value has shape {value.shape} and known {known.shape}, expected {prior.shape}"
        )
    if not isinstance(prior.denoiser.cov(cond), DiagonalCovariance):
        raise ValueError("inpainting needs a prior whose noise is not correlated")
    flat, denoiser = jnp.asarray(known).reshape(-1), prior.denoiser
    (where,) = jnp.nonzero(flat)
    rest = denoiser.decode(denoiser.mean(cond), cond)
    target = Target(prior, cond=cond)
    put = lambda rest: target.white(jnp.where(flat, jnp.asarray(value).reshape(-1), rest))
    u = put(rest)
    if (u != put(rest + 1.0))[where].any():
        raise ValueError(
            "known components must be those of the window's first states, and of all variables: "
            "the prior's coordinates are a first state and the errors of its steps"
        )
    seen = Equals(_White(target, where), u[where], 1.0)
    return _inpainted(Target(prior, seen, cond), u, flat, key, n, levels, repeats, width)


@eqx.filter_jit
def _inpainted(target: Target, u, known, key: Key, n: int, levels: int, repeats: int, width):
    angles = jnp.arctan(target.prior.schedule.levels(levels).astype(target.dtype))
    first, key = jax.random.split(key)
    v = jax.random.normal(first, (n, target.size), target.dtype)

    def guided(v, angle):
        if width is None:
            return jnp.zeros_like(v)
        # the white coordinate's shift, per s^2 dv/dz
        seen = jax.vmap(lambda v: ConstantGuidance(width)(target, v, angle))(v)
        return seen.shift / (jnp.sin(angle) * jnp.tan(angle))

    def level(v, item):
        angle, following, key = item
        rho, free, raised = noising(angle, following)

        def once(v, key):
            put, noised, back = (jax.random.normal(k, v.shape, v.dtype) for k in key)
            v = jnp.where(known, jnp.cos(angle) * u + jnp.sin(angle) * put, v)
            high = rho * v + free * noised + free**2 / rho * guided(v, angle)
            low = jax.vmap(descended, (None, 0, None, None))(target, high, raised, following)
            return rho * low + free * back, low

        keys = jax.random.split(key, (repeats, 3))
        return jax.lax.scan(once, v, keys)[1][-1], None

    keys = jax.random.split(key, levels)
    v = jax.lax.scan(level, v, (angles[:-1], angles[1:], keys))[0]
    return jax.vmap(target.state)(jnp.where(known, u, v))
