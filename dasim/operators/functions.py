r"""Functions of what is observed: winds, logarithms and powers, with derivatives that are finite.

With u to the east, v to the north and w upwards, azimuth a clockwise from north and elevation e:

    speed      |(u, v)|
    direction  from which the wind blows, clockwise from north: atan2(-u, -v) in degrees
    radial     (u sin a + v cos a) cos e + (w - fall speed) sin e, away from the radar
               (Doviak and Zrnic 1993, Doppler Radar and Weather Observations, sect. 9.3)

A derivative that grows without bound near a value (a root at zero, a direction in calm) makes
filters fail that meet the value: each function has a threshold below which it is replaced.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dasim.operators.base import AbstractOperator, Operator, is_linear
from dasim.types import State


def _positive(name):
    def convert(value):
        if not value > 0:
            raise ValueError(f"{name} is {value}, expected a positive number")
        return float(value)

    return convert


class WindSpeed(AbstractOperator):
    """sqrt(u^2 + v^2); in calm it is zero, and so are its derivatives.

    Attributes:
        u: operator of the eastward wind, `(obs,)`.
        v: operator of the northward wind, `(obs,)`.
        calm: speed below which it is calm.
    """

    u: Operator
    v: Operator
    calm: float = eqx.field(static=True, default=1e-6, converter=_positive("calm"))
    linear = False

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        square = self.u(x, t) ** 2 + self.v(x, t) ** 2
        calm = square < self.calm**2
        # on both branches: the derivative of the one that is not taken must be finite, too
        return jnp.where(calm, 0.0, jnp.sqrt(jnp.where(calm, 1.0, square)))


class WindDirection(AbstractOperator):
    """Direction from which the wind blows, degrees clockwise from north, from 0 to below 360.

    In calm it is zero, as stations report it, and so are its derivatives, which grow elsewhere
    as one over the speed. An innovation does not know that 359 and 1 degrees are neighbours:
    where winds come from the north, or are weak, assimilate u and v instead.

    Attributes:
        u: operator of the eastward wind, `(obs,)`.
        v: operator of the northward wind, `(obs,)`.
        calm: speed below which it is calm.
    """

    u: Operator
    v: Operator
    calm: float = eqx.field(static=True, default=1e-6, converter=_positive("calm"))
    linear = False

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        u, v = self.u(x, t), self.v(x, t)
        calm = u**2 + v**2 < self.calm**2
        # a wind from the north, at zero degrees and with finite derivatives, in place of calm
        degrees = jnp.rad2deg(jnp.arctan2(-jnp.where(calm, 0.0, u), -jnp.where(calm, -1.0, v)))
        turned = jnp.where(degrees < 0, degrees + 360.0, degrees)
        # what is barely negative is rounded to a full turn
        return jnp.where(turned >= 360.0, turned - 360.0, turned)


class RadialVelocity(AbstractOperator):
    """Velocity along the beam of a Doppler radar or lidar, positive away from it.

    Attributes:
        u: operator of the eastward wind at the gates, `(obs,)`.
        v: operator of the northward wind, `(obs,)`.
        azimuth: direction of the beam, degrees clockwise from north, a scalar or `(obs,)`.
        elevation: degrees above the horizon, a scalar or `(obs,)`.
        w: operator of the upward wind, `(obs,)`; None for none.
        fall_speed: of what the beam is scattered by, positive down: a scalar, `(obs,)`, or an
            operator where the state tells it; None for tracers that float.
    """

    u: Operator
    v: Operator
    azimuth: Float[Array, "..."] = eqx.field(converter=lambda a: jnp.asarray(a, float))
    elevation: Float[Array, "..."] = eqx.field(
        default=0.0, converter=lambda a: jnp.asarray(a, float)
    )
    w: Operator | None = None
    fall_speed: Operator | Float[Array, "..."] | None = eqx.field(
        default=None, converter=lambda f: f if f is None or callable(f) else jnp.asarray(f, float)
    )

    @property
    def linear(self) -> bool:
        parts = [self.u, self.v, self.w, self.fall_speed]
        return all(is_linear(part) for part in parts if callable(part))

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        u, v = self.u(x, t), self.v(x, t)
        azimuth = jnp.deg2rad(self.azimuth).astype(u.dtype)
        elevation = jnp.deg2rad(self.elevation).astype(u.dtype)
        up = jnp.zeros_like(u) if self.w is None else self.w(x, t)
        if self.fall_speed is not None:
            fall = self.fall_speed(x, t) if callable(self.fall_speed) else self.fall_speed
            up = up - fall.astype(u.dtype)
        along = u * jnp.sin(azimuth) + v * jnp.cos(azimuth)
        return along * jnp.cos(elevation) + up * jnp.sin(elevation)


class Log(AbstractOperator):
    """The natural logarithm of each value; below `floor` its tangent there, which goes on down.

    So it increases everywhere, and a member that is zero or negative is pulled back. With
    `Compose(Log(floor), f)`, or `f.then(Log(floor))`, it is taken of what f reads.

    Attributes:
        floor: positive, in the units of the values.
    """

    floor: float = eqx.field(static=True, default=1e-6, converter=_positive("floor"))
    linear = False

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        x = x.reshape(-1)
        tangent = np.log(self.floor) + (x - self.floor) / self.floor
        return jnp.where(x > self.floor, jnp.log(jnp.maximum(x, self.floor)), tangent)


class Power(AbstractOperator):
    r"""sign(x) |x|^exponent of each value; an exponent that is an even number ignores the sign.

    An exponent below 1 has no finite derivative at zero: for |x| < floor the odd cubic with the
    same value and slope at the floor takes its place.

    Attributes:
        exponent: positive.
        floor: positive, in the units of the values.
    """

    exponent: float = eqx.field(static=True, converter=_positive("exponent"))
    floor: float = eqx.field(static=True, default=1e-6, converter=_positive("floor"))

    @property
    def linear(self) -> bool:
        return self.exponent == 1

    def __call__(self, x: State, t) -> Float[Array, " obs"]:
        x, p = x.reshape(-1), self.exponent
        if p.is_integer() and (p == 1 or p % 2 == 0):
            return x ** int(p)
        size = jnp.abs(x)
        if p > 1:
            return jnp.sign(x) * size**p
        ratio = x / self.floor
        cubic = self.floor**p * ratio * (3 - p - (1 - p) * ratio**2) / 2
        return jnp.where(size < self.floor, cubic, jnp.sign(x) * jnp.maximum(size, self.floor) ** p)
