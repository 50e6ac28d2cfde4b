"""Distances and tapers against SciPy, brute force and their definitions."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dasim import localization
from dasim.localization import Localization, distances, gaspari_cohn, great_circles, ring

EARTH = 6371.0


pytestmark = pytest.mark.usefixtures("float64")


# compiled: one by one, their many small operations take longer
state_obs = eqx.filter_jit(lambda local: local.state_obs)
all_tapers = eqx.filter_jit(lambda local: (local.state_obs, local.state_state, local.obs_obs))
near_tapers = eqx.filter_jit(
    lambda local: jax.vmap(local.near_taper)(jnp.arange(len(local.state_coords)))
)
taper_function = jax.jit(gaspari_cohn)
euclidean, arcs = jax.jit(distances), jax.jit(great_circles)


def cone_overlap(d):
    """The convolution of the cone 1 - |x| with itself in three dimensions, by quadrature.

    Gaspari and Cohn's eq. 4.10 is this function over its value at zero, 4 pi / 30.
    """
    r, weight = np.polynomial.legendre.leggauss(400)
    r, weight = (r + 1) / 2, weight / 2
    low, high = np.abs(d - r), np.minimum(1.0, d + r)
    primitive = lambda s: s**2 / 2 - s**3 / 3  # of (1 - s) s
    inner = np.where(high > low, primitive(high) - primitive(low), 0.0)
    return 2 * np.pi / d * np.sum(weight * (1 - r) * r * inner) / (4 * np.pi / 30)


def test_taper_is_the_published_function():
    r, radius = np.array([0.05, 0.3, 0.5, 0.9, 1.0, 1.2, 1.7, 1.95]), 3.5
    exact = [cone_overlap(d) for d in r]
    np.testing.assert_allclose(taper_function(jnp.asarray(r * radius), radius), exact, atol=1e-5)


def test_taper_at_its_knots():
    np.testing.assert_allclose(
        taper_function(jnp.asarray([0.0, 1.0, 2.0, 2.5, 100.0]), 1.0),
        [1.0, 5 / 24, 0.0, 0.0, 0.0],
        atol=1e-14,
    )
    eps = 1e-7
    for knot in (1.0, 2.0):
        below, above = taper_function(jnp.asarray([knot - eps, knot + eps]), 1.0)
        assert abs(below - above) < 4 * eps
    slope = jax.vmap(jax.grad(lambda r: gaspari_cohn(r, 1.0)))(
        jnp.asarray([1 - eps, 1 + eps, 2 - eps])
    )
    np.testing.assert_allclose(slope[0], slope[1], atol=1e-5)
    np.testing.assert_allclose(slope[2], 0.0, atol=1e-5)


@pytest.mark.parametrize("radius", [1.0, 4.0, 10.0])
def test_taper_on_a_ring_is_positive_semidefinite(radius):
    # its support reaches at most once around: the periodic sum of a positive definite function
    taper = ring(40, range(0, 40, 2), radius)
    state_obs, state_state, obs_obs = map(np.asarray, all_tapers(taper))
    assert np.linalg.eigvalsh(state_state).min() > -1e-12
    np.testing.assert_array_equal(state_obs, state_state[:, ::2])
    np.testing.assert_array_equal(obs_obs, state_state[::2, ::2])


def test_distances():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 10, (7, 2)), rng.uniform(0, 10, (5, 2))
    np.testing.assert_allclose(distances(jnp.asarray(a), jnp.asarray(b)), cdist(a, b), atol=1e-12)
    period = np.array([10.0, np.inf])
    images = [cdist(a, b + [10.0 * k, 0.0]) for k in (-1, 0, 1)]
    np.testing.assert_allclose(
        euclidean(jnp.asarray(a), jnp.asarray(b), jnp.asarray(period)),
        np.min(images, 0),
        atol=1e-12,
    )
    both = [
        cdist(a, b + [10.0 * k, 12.0 * l]) for k, l in itertools.product((-1, 0, 1), (-1, 0, 1))
    ]
    got = euclidean(jnp.asarray(a), jnp.asarray(b), jnp.asarray([10.0, 12.0]))
    np.testing.assert_allclose(got, np.min(both, 0), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, np.arange(4), np.arange(2)), "radius is 0.0"),
        ((-1, np.arange(4), np.arange(2)), "radius is -1"),
        ((1.0, np.zeros((4, 2)), np.arange(2)), "2 axes, observations 1"),
        ((1.0, np.arange(4), np.arange(2), [4, 4]), "period is"),
        ((1.0, np.arange(4), np.arange(2), [-4]), "period is"),
        ((1.0, np.arange(4), np.arange(2), None, 6371.0), "6371.0 with 1 coordinates"),
        ((1.0, np.zeros((4, 2)), np.zeros((2, 2)), None, 0.0), "a sphere of radius 0.0"),
    ],
)
def test_localization_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Localization(*arguments)


def law_of_cosines(a, b):
    """Great-circle distances in kilometres, by the spherical law of cosines."""
    (lat, lon), (lat_b, lon_b) = np.deg2rad(a).T[:, :, None], np.deg2rad(b).T[:, None]
    cosine = np.sin(lat) * np.sin(lat_b) + np.cos(lat) * np.cos(lat_b) * np.cos(lon - lon_b)
    return EARTH * np.arccos(np.clip(cosine, -1, 1))


def on_sphere(rng, count):
    """Points spread evenly over the sphere, some longitudes beyond 180 degrees."""
    latitude = np.rad2deg(np.arcsin(rng.uniform(-1, 1, count)))
    return np.stack([latitude, rng.uniform(-180, 360, count)], -1)


def test_great_circles():
    rng = np.random.default_rng(1)
    a, b = on_sphere(rng, 9), on_sphere(rng, 7)
    got = arcs(jnp.asarray(a), jnp.asarray(b), EARTH)
    np.testing.assert_allclose(got, law_of_cosines(a, b), rtol=1e-9)
    # Los Angeles and New York, from the Aviation Formulary of Ed Williams: 0.623585 radians
    lax, jfk = jnp.asarray([[33 + 57 / 60, -118.4]]), jnp.asarray([[40 + 38 / 60, -73 - 47 / 60]])
    np.testing.assert_allclose(arcs(lax, jfk, 1.0), [[0.623585]], atol=1e-6)
    poles = jnp.asarray([[90.0, 12.0], [-90.0, 77.0]])
    np.testing.assert_allclose(arcs(poles, poles, 1.0), [[0, np.pi], [np.pi, 0]], atol=1e-12)
    # metres apart, where the law of cosines has lost all its digits
    near = arcs(jnp.asarray([[50.0, 8.0]]), jnp.asarray([[50.0, 8.0 + 1e-9]]), EARTH)
    np.testing.assert_allclose(
        near, [[EARTH * np.deg2rad(1e-9) * np.cos(np.deg2rad(50))]], rtol=1e-5
    )


def geometry(name, count=40, obs=31):
    """Arguments of a `Localization`, and its distances by brute force."""
    rng = np.random.default_rng(5)
    if name == "sphere":
        a, b = on_sphere(rng, count), on_sphere(rng, obs)
        b[0] = [89.0, 10.0]
        return (900.0, a, b, None, EARTH), law_of_cosines(a, b)
    if name == "plane":
        a, b = rng.uniform(-5, 20, (count, 2)), rng.uniform(-5, 20, (obs, 2))
        return (2.3, a, b), cdist(a, b)
    # coordinates outside [0, length) are those of their images
    lengths = {"ring": [20.0], "torus": [20.0, 16.0], "channel": [20.0, None, 16.0]}[name]
    a, b = (rng.uniform(-25, 45, (k, len(lengths))) for k in (count, obs))
    shifts = [[0.0] if l is None else l * np.arange(-4, 5) for l in lengths]
    images = [cdist(a, b + np.array(shift)) for shift in itertools.product(*shifts)]
    radius = {"ring": 1.1, "torus": 2.1, "channel": 3.9}[name]
    return (radius, a, b, lengths), np.min(images, 0)


GEOMETRIES = ("ring", "plane", "torus", "channel", "sphere")


@pytest.mark.parametrize("name", GEOMETRIES)
def test_tapers_of_a_geometry(name):
    arguments, distance = geometry(name)
    local = Localization(*arguments)
    assert local.near is None
    expected = taper_function(jnp.asarray(distance), arguments[0])
    assert 0.01 < np.mean(expected > 0) < 0.5
    state_obs, *squares = all_tapers(local)
    np.testing.assert_allclose(state_obs, expected, atol=1e-9)
    for square in squares:
        np.testing.assert_allclose(square, np.asarray(square).T, atol=1e-12)
        np.testing.assert_allclose(np.diag(square), 1.0, atol=1e-12)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_near_observations_are_those_within_twice_the_radius(name, monkeypatch):
    arguments, distance = geometry(name)
    dense = np.asarray(state_obs(Localization(*arguments)))
    monkeypatch.setattr(localization, "DENSE", 100)
    local = Localization(*arguments)
    n_obs = distance.shape[1]
    tapers = np.asarray(near_tapers(local))
    for i, (row, taper) in enumerate(zip(np.asarray(local.near), tapers, strict=True)):
        found = row[row < n_obs]
        np.testing.assert_array_equal(found, np.flatnonzero(distance[i] <= 2 * arguments[0]))
        np.testing.assert_array_equal(row[len(found) :], n_obs)
        np.testing.assert_array_equal(taper[len(found) :], 0.0)
        np.testing.assert_allclose(taper[: len(found)], dense[i, found], atol=1e-12)
    monkeypatch.setattr(localization, "LARGEST", 100)
    with pytest.raises(ValueError, match="40 x 31 numbers is too large to hold; use LETKF"):
        local.state_obs  # noqa: B018


def test_near_observations_on_a_small_ring_and_far_ones(monkeypatch):
    """All of them where the taper may reach around; none where none is near."""
    dense = np.asarray(state_obs(ring(10, [0, 4], 3.0)))
    monkeypatch.setattr(localization, "DENSE", 4)
    around = ring(10, [0, 4], 3.0)
    np.testing.assert_array_equal(around.near, np.tile([0, 1], (10, 1)))
    np.testing.assert_allclose(near_tapers(around), dense, atol=1e-14)
    far = Localization(1.0, np.arange(5.0), np.array([50.0, 60.0]))
    np.testing.assert_array_equal(far.near, np.full((5, 1), 2))
    np.testing.assert_array_equal(near_tapers(far), np.zeros((5, 1)))


def test_near_observations_just_below_zero(monkeypatch):
    # -1e-17 modulo 10 is 10 in floating point: the same place as 0
    monkeypatch.setattr(localization, "DENSE", 2)
    local = ring(10, np.array([-1e-17, 5.0]), 1.0)
    np.testing.assert_array_equal(local.near[:, 0], [0, 0, 0, 1, 1, 1, 1, 1, 0, 0])


def test_modes():
    local = ring(30, [0, 3], 4.0)
    taper = np.asarray(local.state_state)
    values = np.linalg.eigvalsh(taper)[::-1]
    errors, counts = [], []
    for fraction in (0.5, 0.8, 0.95, 0.99):
        modes = np.asarray(local.modes(fraction))
        count = len(modes)
        assert values[: count - 1].sum() < fraction * 30 <= values[:count].sum() + 1e-9
        total = modes.T @ modes
        np.testing.assert_allclose(np.diag(total), 1.0, atol=1e-12)
        errors.append(np.abs(total - taper).max())
        counts.append(count)
    assert errors == sorted(errors, reverse=True) and counts == sorted(counts)
    whole = np.asarray(local.modes(1.0))
    np.testing.assert_allclose(whole.T @ whole, taper, atol=1e-12)


def test_repeat_and_blocks():
    local = Localization(2.0, np.arange(12.0), np.array([0.5, 7.0]), period=[12])
    taper = np.asarray(state_obs(local))
    np.testing.assert_allclose(state_obs(local.repeat(3)), np.tile(taper, (3, 1)), atol=1e-14)
    centres = Localization(2.0, np.arange(4) * 3.0 + 1.0, np.array([0.5, 7.0]), period=[12])
    np.testing.assert_allclose(state_obs(local.blocks(3)), state_obs(centres), atol=1e-14)
    np.testing.assert_allclose(state_obs(local.blocks(1)), taper, atol=1e-14)
    with pytest.raises(ValueError, match="blocks of 5 variables do not divide the state's 12"):
        local.blocks(5)
    with pytest.raises(ValueError, match="blocks of 0 variables"):
        local.blocks(0)
    sphere = Localization(500.0, [[10.0, 350.0], [12.0, 20.0]], [[11.0, 0.0]], None, EARTH)
    np.testing.assert_allclose(
        state_obs(sphere.repeat(2)), np.tile(state_obs(sphere), (2, 1)), atol=1e-14
    )


def test_blocks_across_a_seam():
    """A block's centre is among its points where the coordinates jump by a period."""
    turned = (np.arange(8) + 6) % 8
    on_ring = Localization(2.0, turned, turned, period=[8.0]).blocks(4)
    np.testing.assert_allclose(np.mod(on_ring.state_coords.ravel(), 8), [7.5, 3.5])
    places = np.array([[0.0, 170.0], [0.0, -170.0], [10.0, 20.0], [10.0, 40.0]])
    on_sphere = Localization(2.0, places, places, sphere_radius=1.0).blocks(2)
    date_line, plain = np.asarray(on_sphere.state_coords)
    np.testing.assert_allclose([date_line[0], abs(date_line[1])], [0, 180], atol=1e-4)
    middle = great_circles(jnp.asarray(plain)[None], jnp.asarray(places[2:]), 1.0)[0]
    np.testing.assert_allclose(middle[0], middle[1], rtol=1e-4)
