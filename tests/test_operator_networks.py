"""Operator networks: equivariance, one function on every grid, spectral layers, refusals."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from field_networks import EDGES, KEY, RING, ROD, moved, network, rng, smooth
from scipy.fft import dctn, idctn

from dasim.fields import Grid
from dasim.priors import FourierNetwork, OnGrid
from dasim.priors.operators import SpectralLayer

pytestmark = pytest.mark.usefixtures("float64")

# compiled as one program
apply = eqx.filter_jit(lambda network, fields, scalars, grid: network(fields, scalars, grid))


def shared(fine, times):
    """The points of a grid that one of fewer points has as well."""
    return slice(0, None, times) if fine.edges == "periodic" else slice(times // 2, None, times)


@pytest.mark.parametrize("located", [False, True])
def test_a_network_that_is_not_told_where_is_equivariant(located):
    x, s = jnp.asarray(rng(0).normal(size=(2, 32))), jnp.ones(1)
    net = network(located=located)
    plain, turned = apply(net, x, s, RING), apply(net, jnp.roll(x, 5, -1), s, RING)
    off = jnp.abs(turned - jnp.roll(plain, 5)).max() / jnp.abs(plain).max()
    assert off > 1e-2 if located else off < 1e-12
    assert jnp.abs(apply(net, x, -s, RING) - plain).max() > 1e-2 * jnp.abs(plain).max()


def test_a_new_network_gives_nothing():
    net = FourierNetwork(2, 1, RING, (4,), 4, 1, KEY)
    x = jnp.asarray(rng(0).normal(size=(2, 32)))
    assert (apply(net, x, jnp.ones(1), RING) == 0).all()


@EDGES
def test_with_an_inner_grid_a_network_is_one_function(box):
    times = 2 if box is RING else 3
    coarse, fine, s = box.at((64,)), box.at((64 * times,)), jnp.ones(1)
    net, free = network(box, inner=box, depth=2), network(box, depth=2)
    x, y = smooth(coarse), smooth(fine)
    got, expected = apply(net, x, s, coarse), apply(net, y, s, fine)[shared(fine, times)]
    size = jnp.abs(expected).max()
    np.testing.assert_allclose(got, expected, atol=1e-11 * size)
    # it does not see waves that its grid lacks, nor does it give them
    wave = np.cos(2 * np.pi * 40 * fine.points[0] / 2.0)
    unseen = apply(net, y + wave, s, fine)[shared(fine, times)]
    np.testing.assert_allclose(unseen, expected, atol=1e-10 * size)
    # products on the fields' own grid make waves that it takes for others
    own, other = apply(free, x, s, coarse), apply(free, y, s, fine)[shared(fine, times)]
    assert jnp.abs(own - other).max() > 1e-8 * size
    # on a grid of fewer points there is what it resolves
    few = box.at((16,))
    low = apply(net, smooth(few, 6), s, few)
    whole = apply(net, smooth(fine, 6), s, fine)
    np.testing.assert_allclose(low, moved(whole, fine, few), atol=1e-10 * size)


def numbers(layer):
    w = np.asarray(layer.weight)
    return w[..., 0] + 1j * w[..., 1] if layer.edges == "periodic" else w


@pytest.mark.parametrize("n", [16, 15])
def test_a_spectral_layer_is_a_transform_a_product_and_its_inverse(n):
    h = rng(3).normal(size=(3, n))
    layer = SpectralLayer(3, 2, (4,), "periodic", KEY)
    made = np.zeros((2, n // 2 + 1), complex)
    made[:, :4] = np.einsum("oik,ik->ok", numbers(layer), np.fft.rfft(h)[:, :4])
    np.testing.assert_allclose(layer(jnp.asarray(h)), np.fft.irfft(made, n), atol=1e-12)


def test_a_spectral_layer_in_two_dimensions():
    h, (p, q) = rng(3).normal(size=(3, 16, 12)), (3, 4)
    layer = SpectralLayer(3, 2, (p, q), "periodic", KEY)
    rows = np.arange(-p + 1, p)
    low = np.fft.rfft2(h)[:, rows][..., :q]
    made = np.zeros((2, 16, 7), complex)
    made[:, rows, :q] = np.einsum("oikl,ikl->okl", numbers(layer), low)
    np.testing.assert_allclose(layer(jnp.asarray(h)), np.fft.irfft2(made, (16, 12)), atol=1e-12)


@pytest.mark.parametrize(("shape", "modes"), [((16,), (4,)), ((16, 12), (3, 4))])
def test_a_spectral_layer_on_a_bounded_grid(shape, modes):
    h, axes = rng(3).normal(size=(3, *shape)), range(1, len(shape) + 1)
    layer = SpectralLayer(3, 2, modes, "bounded", KEY)
    low = (slice(None), *(slice(m) for m in modes))
    made = np.zeros((2, *shape))
    made[low] = np.einsum("oi...,i...->o...", numbers(layer), dctn(h, axes=axes)[low])
    np.testing.assert_allclose(layer(jnp.asarray(h)), idctn(made, axes=axes), atol=1e-12)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (RING.at((33,)), r"\(33,\) cannot serve .* even numbers of at least 8 points for its 4"),
        (RING.at((6,)), r"\(6,\) cannot serve .* even numbers of at least 8 points for its 4 wa"),
        (Grid((32,), (3.0,)), r"lengths \(3.0,\), the prior is of a periodic one .*\(2.0,\)"),
        (ROD, "is a bounded box .* is of a periodic one"),
    ],
)
def test_grids_that_a_network_cannot_serve_are_refused(grid, message):
    OnGrid(network(), RING.at((8,)))
    with pytest.raises(ValueError, match=message):
        OnGrid(network(), grid)


def test_a_bounded_grid_may_be_odd():
    OnGrid(network(ROD), ROD.at((5,)))
    with pytest.raises(ValueError, match="it needs at least 4 points for its 4 waves"):
        OnGrid(network(ROD), ROD.at((3,)))
    flat = Grid((32, 32), (2.0, 2.0))
    with pytest.raises(ValueError, match="at least 8 by 12 points for its 4 by 6 waves"):
        OnGrid(network(flat, modes=(4, 6)), flat.at((8, 10)))


def test_networks_that_cannot_be_made_are_refused():
    with pytest.raises(ValueError, match=r"\(6,\) cannot serve .*at least 8 points"):
        network(inner=RING.at((6,)))
    with pytest.raises(ValueError, match=r"\(32,\) cannot serve .*at least 40 points"):
        network(modes=(20,))
    with pytest.raises(ValueError, match="not on pinned"):
        network(Grid((32,), (2.0,), "pinned"))
