r"""Gaspari-Cohn localisation: tapers of covariances and of observation precisions.

The taper is the fifth-order piecewise rational function of Gaspari and Cohn (1999), eq. 4.10;
`radius` is its half-width, so it is zero from twice the radius on. Distances are Euclidean on
lines, rings and grids (axes may close on themselves), or along great circles on a sphere.

Three uses, and the filters that make them:

    R-localisation   precisions of observations tapered about each variable   LETKF
    B-localisation   covariances multiplied by the taper                      EnKF, EAKF, ETKF
    modulation       rho = sum_k v_k v_k^T, anomalies v_k o x_i               GETKF
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial import cKDTree

DENSE = 2**15  # pairs of a variable and an observation above which near ones are listed
LARGEST = 2**28  # entries above which a taper is not held as a matrix


def gaspari_cohn(distance: Float[Array, "..."], radius) -> Float[Array, "..."]:
    """The taper at `distance`, 1 at zero and 0 from 2 `radius` on (Gaspari and Cohn 1999, 4.10)."""
    r = distance / radius
    near = 1 + r**2 * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    safe = jnp.maximum(r, 1.0)
    far = 4 - 5 * safe + safe**2 * (5 / 3 + safe * (5 / 8 + safe * (-1 / 2 + safe / 12)))
    far = far - 2 / (3 * safe)
    return jnp.where(r < 1, near, jnp.where(r < 2, jnp.maximum(far, 0.0), 0.0))


def distances(a: Float[Array, "i d"], b: Float[Array, "j d"], period=None) -> Float[Array, "i j"]:
    """Euclidean distances between points; `period` gives each axis' length, inf for none."""
    difference = jnp.abs(a[:, None, :] - b[None, :, :])
    if period is not None:
        wrapped = jnp.mod(difference, jnp.where(jnp.isinf(period), 1.0, period))
        shortest = jnp.minimum(wrapped, period - wrapped)
        difference = jnp.where(jnp.isinf(period), difference, shortest)
    return jnp.sqrt(jnp.sum(difference**2, -1))


def great_circles(
    a: Float[Array, "i 2"], b: Float[Array, "j 2"], sphere_radius
) -> Float[Array, "i j"]:
    """Distances along a sphere between points of latitude and longitude in degrees (haversine)."""
    (lat_a, lon_a), (lat_b, lon_b) = jnp.deg2rad(a).T[:, :, None], jnp.deg2rad(b).T[:, None, :]
    half = jnp.sin((lat_a - lat_b) / 2) ** 2
    half = half + jnp.cos(lat_a) * jnp.cos(lat_b) * jnp.sin((lon_a - lon_b) / 2) ** 2
    return 2 * sphere_radius * jnp.arcsin(jnp.sqrt(jnp.clip(half, 0.0, 1.0)))


class Localization(eqx.Module):
    """Gaspari-Cohn tapers among state variables and observations.

    Attributes:
        radius: half-width of the taper, in the units of the distances.
        state_coords: coordinates of the flat state's variables, `(n, d)`.
        obs_coords: coordinates of the observations, `(obs, d)`.
        period: length of each axis, inf for one that does not close; None for none.
        sphere_radius: radius of the sphere, or None where coordinates are Euclidean.
        near: for a large problem, the observations within 2 `radius` of each variable,
            `(n, k)`, padded with `obs`; None where whole matrices are small enough.
    """

    radius: Float[Array, ""]
    state_coords: Float[Array, "n d"]
    obs_coords: Float[Array, "obs d"]
    period: Float[Array, " d"] | None
    sphere_radius: Float[Array, ""] | None
    near: Int[Array, "n k"] | None

    def __init__(
        self,
        radius,
        state_coords,
        obs_coords,
        period: Sequence[float | None] | None = None,
        sphere_radius: float | None = None,
    ):
        """Tapers of half-width `radius` from coordinates.

        Args:
            radius: half-width, positive.
            state_coords: coordinates of the flat state's variables, `(n,)` or `(n, d)`;
                on a sphere latitude and longitude in degrees.
            obs_coords: coordinates of the observations, `(obs,)` or `(obs, d)`.
            period: length of each axis that closes on itself; None or inf for one that does not.
            sphere_radius: radius of the sphere, in the units of `radius`.

        Raises:
            ValueError: a radius that is not positive, or coordinates that do not fit.
        """
        if not radius > 0:
            raise ValueError(
                f"localization radius is {radius}, expected a positive half-width; "
                "leave localization out to switch it off"
            )
        state, obs = (
            np.asarray(c, float).reshape(np.shape(c)[0], -1) for c in (state_coords, obs_coords)
        )
        if state.shape[1] != obs.shape[1]:
            raise ValueError(
                f"state coordinates have {state.shape[1]} axes, observations {obs.shape[1]}"
            )
        if sphere_radius is not None and (state.shape[1] != 2 or not sphere_radius > 0):
            raise ValueError(
                f"a sphere of radius {sphere_radius} with {state.shape[1]} coordinates: expected "
                "a positive radius, and latitude and longitude"
            )
        if period is not None:
            lengths = [np.inf if p is None else float(p) for p in np.atleast_1d(period)]
            if len(lengths) != state.shape[1] or not all(p > 0 for p in lengths):
                raise ValueError(
                    f"period is {period}, expected a positive length (or None) "
                    f"for each of {state.shape[1]} axes"
                )
        self.radius = jnp.asarray(radius, float)
        self.state_coords = jnp.asarray(state)
        self.obs_coords = jnp.asarray(obs)
        self.period = None if period is None else jnp.asarray(lengths)
        self.sphere_radius = None if sphere_radius is None else jnp.asarray(sphere_radius, float)
        self.near = None
        if len(state) * len(obs) > DENSE:
            self.near = jnp.asarray(_near(state, obs, 2 * float(radius), period, sphere_radius))

    def _taper(self, a, b):
        if len(a) * len(b) > LARGEST:
            raise ValueError(
                f"a taper of {len(a)} x {len(b)} numbers is too large to hold; use LETKF, "
                "which looks at near observations alone"
            )
        if self.sphere_radius is not None:
            distance = great_circles(a, b, self.sphere_radius)
        else:
            distance = distances(a, b, self.period)
        return gaspari_cohn(distance, self.radius)

    @property
    def state_state(self) -> Float[Array, "n n"]:
        return self._taper(self.state_coords, self.state_coords)

    @property
    def state_obs(self) -> Float[Array, "n obs"]:
        return self._taper(self.state_coords, self.obs_coords)

    @property
    def obs_obs(self) -> Float[Array, "obs obs"]:
        return self._taper(self.obs_coords, self.obs_coords)

    def near_taper(self, i: Int[Array, ""]) -> Float[Array, " k"]:
        """Tapers between variable `i` and its `near` observations, zero for the padding."""
        index = self.near[i]
        here = self.obs_coords[jnp.minimum(index, len(self.obs_coords) - 1)]
        taper = self._taper(self.state_coords[i][None], here)[0]
        return jnp.where(index < len(self.obs_coords), taper, 0.0)

    def with_states(self, state_coords) -> "Localization":
        """The same tapers about other points."""
        period = None if self.period is None else [float(p) for p in self.period]
        sphere = None if self.sphere_radius is None else float(self.sphere_radius)
        return Localization(float(self.radius), state_coords, self.obs_coords, period, sphere)

    def repeat(self, times: int) -> "Localization":
        """The tapers of `times` states one after another, as in a window of a smoother."""
        return self.with_states(np.tile(self.state_coords, (times, 1)))

    def blocks(self, size: int) -> "Localization":
        """Tapers about the centres of blocks of `size` consecutive variables."""
        n = len(self.state_coords)
        if size < 1 or n % size:
            raise ValueError(f"blocks of {size} variables do not divide the state's {n}")
        points = np.asarray(self.state_coords, float).reshape(n // size, size, -1)
        if self.sphere_radius is not None:
            return self.with_states(_degrees(_unit_vectors(points).mean(1)))
        if self.period is None:
            return self.with_states(points.mean(1))
        # the mean of the images that lie nearest to a block's first point
        length = np.where(np.isinf(self.period), 1.0, self.period)
        away = points - points[:, :1]
        turns = np.where(np.isinf(self.period), 0.0, np.round(away / length))
        return self.with_states((points - turns * length).mean(1))

    def modes(self, fraction: float) -> Float[Array, "k n"]:
        """Vectors v_k with rho about sum_k v_k v_k^T, as many as hold `fraction` of its trace.

        Scaled so that the sum has the diagonal of rho, ones.
        """
        values, vectors = np.linalg.eigh(np.asarray(self.state_state, float))
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        count = int(np.searchsorted(np.cumsum(values) / values.sum(), fraction)) + 1
        kept = np.sqrt(values[:count])[:, None] * vectors[:, :count].T
        return jnp.asarray(kept / np.sqrt(np.sum(kept**2, 0)))


def _near(state, obs, cutoff, period, sphere_radius) -> np.ndarray:
    """Indices of the observations within `cutoff` of each variable, padded with their number."""
    box = None
    if sphere_radius is not None:
        state, obs = _unit_vectors(state), _unit_vectors(obs)
        cutoff = 2 * np.sin(min(cutoff / (2 * sphere_radius), np.pi / 2))
    elif period is not None:
        lengths = np.array([np.inf if p is None else p for p in np.atleast_1d(period)], float)
        box = np.where(np.isinf(lengths), 0.0, lengths)
        length = np.where(box > 0, box, np.inf)
        state, obs = (np.where(box > 0, _wrap(a, length), a) for a in (state, obs))
        if np.any((box > 0) & (2 * cutoff >= box)):
            return np.broadcast_to(np.arange(len(obs)), (len(state), len(obs)))
    tree = cKDTree(obs, boxsize=box)
    lists = tree.query_ball_point(state, cutoff, return_sorted=True)
    width = max(1, max(map(len, lists)))
    padded = np.full((len(state), width), len(obs))
    for row, found in zip(padded, lists, strict=True):
        row[: len(found)] = found
    return padded


def _wrap(points, length):
    """`points` modulo `length`, below it: the remainder of -1e-17 rounds to `length` itself."""
    wrapped = np.mod(points, length)
    return np.where(wrapped < length, wrapped, 0.0)


def _unit_vectors(degrees):
    lat, lon = np.moveaxis(np.deg2rad(degrees), -1, 0)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)


def _degrees(vectors):
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.rad2deg(np.stack([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)], -1))


def ring(size: int, sites, radius) -> Localization:
    """Localisation on a ring of `size` grid points with observations at the indices `sites`."""
    return Localization(radius, np.arange(size), np.asarray(sites), period=[size])
