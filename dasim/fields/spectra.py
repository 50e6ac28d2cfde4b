r"""Laws of Gaussian random fields: the variance of a wave of wavenumber k, up to a factor.

    Matern                (2 nu / l^2 + |k|^2)^-(nu + d/2)
    squared exponential   exp(-l^2 |k|^2 / 2)
    power law             |k|^-p
    Brownian              |k|^-2 on a pinned grid: min(x, x')

for d dimensions (Lindgren, Rue and Lindstroem 2011, J. R. Stat. Soc. B 73, eq. 1, of the first).
A field of finite variance needs the sum over all wavenumbers to be finite: p > d.
"""

import abc

import equinox as eqx
import numpy as np

Waves = np.ndarray


class AbstractSpectrum(eqx.Module):
    """A function of the wavenumber; all fields are static numbers."""

    @abc.abstractmethod
    def __call__(self, square: Waves, axes: int) -> Waves:
        """The variance of waves of squared wavenumber `square` in `axes` dimensions."""

    def check(self, axes: int, edges: str):
        """Raise where the law makes no field of finite variance on such a grid."""


def _positive(**values):
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}, expected a positive number")


class Matern(AbstractSpectrum):
    """Whittle's and Matern's covariance of smoothness nu.

    Attributes:
        length: l, in the unit of the grid's box.
        smoothness: nu: paths have all derivatives of lower order than it.
    """

    length: float = eqx.field(static=True)
    smoothness: float = eqx.field(static=True, default=1.5)

    def __check_init__(self):
        _positive(length=self.length, smoothness=self.smoothness)

    def __call__(self, square, axes):
        nu = self.smoothness
        # over its value at zero, lest small lengths overflow
        return (1 + square * self.length**2 / (2 * nu)) ** -(nu + axes / 2)


class SquaredExponential(AbstractSpectrum):
    """The limit of Matern's for infinite smoothness.

    Attributes:
        length: l.
    """

    length: float = eqx.field(static=True)

    def __check_init__(self):
        _positive(length=self.length)

    def __call__(self, square, axes):
        return np.exp(-0.5 * self.length**2 * square)


class PowerLaw(AbstractSpectrum):
    """|k|^-exponent; the mean has the variance of the longest wave.

    Attributes:
        exponent: p, larger than the number of dimensions.
    """

    exponent: float = eqx.field(static=True)

    def __call__(self, square, axes):
        longest = square[square > 0].min()
        return np.where(square > 0, square, longest) ** (-self.exponent / 2)

    def check(self, axes, edges):
        if not self.exponent > axes:
            raise ValueError(
                f"a power law of exponent {self.exponent} in {axes} dimensions has no finite "
                f"variance: expected more than {axes}"
            )


class Brownian(AbstractSpectrum):
    """Brownian motion from zero at the left edge of a pinned grid."""

    def __call__(self, square, axes):
        return 1 / square

    def check(self, axes, edges):
        if edges != "pinned":
            raise ValueError(f"Brownian motion starts at zero: expected a pinned grid, not {edges}")


class White(AbstractSpectrum):
    """Independent noise at the points: no field, since finer grids have more of it."""

    def __call__(self, square, axes):
        return np.ones_like(square)


class Tabulated(AbstractSpectrum):
    """A measured law: log variance between given wavenumbers, a straight line in the logarithms.

    Below the first it is constant, and beyond the last it falls as |k|^-fall.

    Attributes:
        wavenumbers: increasing and positive.
        variances: positive.
        mean: variance of the constant wave; that of the first wavenumber if None.
        fall: exponent beyond the last.
    """

    wavenumbers: tuple[float, ...] = eqx.field(static=True)
    variances: tuple[float, ...] = eqx.field(static=True)
    mean: float | None = eqx.field(static=True, default=None)
    fall: float = eqx.field(static=True, default=8.0)

    def __check_init__(self):
        k, v = np.asarray(self.wavenumbers), np.asarray(self.variances)
        if len(k) != len(v) or len(k) < 2 or not (np.diff(k) > 0).all() or not k[0] > 0:
            raise ValueError("a table of variances needs as many increasing, positive wavenumbers")
        if not (v > 0).all():
            raise ValueError(f"a variance in the table is {v.min()}, expected positive ones")

    def __call__(self, square, axes):
        k = np.log(np.maximum(np.sqrt(square), self.wavenumbers[0]))
        last = np.log(self.wavenumbers[-1])
        inside = np.interp(k, np.log(self.wavenumbers), np.log(self.variances))
        law = np.exp(inside - self.fall * np.maximum(k - last, 0))
        return law if self.mean is None else np.where(square > 0, law, self.mean)
