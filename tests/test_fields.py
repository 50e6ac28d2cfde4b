"""Fields on grids: expansions, moves between grids, and noise against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.fields import (
    Brownian,
    Grid,
    Matern,
    PowerLaw,
    SquaredExponential,
    Tabulated,
    White,
    noise_process,
    resample,
)

pytestmark = pytest.mark.usefixtures("float64")
rng = np.random.default_rng
EDGES = ["periodic", "bounded", "pinned"]
GRIDS = [
    Grid((8,), (2.0,)),
    Grid((9,), (2.0,)),
    Grid((8,), (2.0,), "bounded"),
    Grid((8,), (2.0,), "pinned"),
    Grid((4, 6), (1.0, 2.0)),
    Grid((4, 5), (1.0, 2.0), "bounded"),
]
# each compiled as one program
moved = jax.jit(resample, static_argnums=(1, 2))
coefficients = jax.jit(Grid.coefficients, static_argnums=0)
dense_of = eqx.filter_jit(lambda cov: cov.dense())
products = eqx.filter_jit(
    lambda cov, v: [f(v) for f in (cov.apply, cov.sqrt, cov.whiten, cov.solve)]
)
names = lambda grid: f"{grid.edges}{grid.shape}"


def normal(grid, seed=0):
    return jnp.asarray(rng(seed).normal(size=grid.shape))


# --- grids


def functions(n, length, edges):
    """The functions of the module's formulas at the points, times root(length / n)."""
    k = np.fft.fftfreq(n, 1 / n) if edges == "periodic" else np.arange(n)
    if edges == "periodic":
        return np.exp(2j * np.pi * np.outer(k, np.arange(n)) / n) / np.sqrt(n)
    points = (np.arange(n) + 0.5) * length / n
    if edges == "pinned":
        return np.sqrt(2 / n) * np.sin(np.pi * np.outer(k + 0.5, points) / length)
    scale = np.where(k > 0, np.sqrt(2 / n), np.sqrt(1 / n))[:, None]
    return scale * np.cos(np.pi * np.outer(k, points) / length)


@pytest.mark.parametrize("grid", GRIDS, ids=names)
def test_coefficients_are_those_of_the_functions(grid):
    parts = [functions(n, l, grid.edges) for n, l in zip(grid.shape, grid.lengths, strict=True)]
    basis = parts[0] if len(parts) == 1 else np.kron(*parts)
    np.testing.assert_allclose(basis.conj() @ basis.T, np.eye(grid.size), atol=1e-12)
    x = normal(grid)
    got = coefficients(grid, x)
    np.testing.assert_allclose(got.reshape(-1), basis.conj() @ x.reshape(-1), atol=1e-12)
    back = jax.jit(Grid.field, static_argnums=0)(grid, got)
    np.testing.assert_allclose(back, x, atol=1e-12)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("n", "m"), [(8, 9), (9, 16)])
def test_up_is_the_sum_of_the_functions_and_down_takes_it_back(n, m, edges):
    old, new = (Grid((size,), (2.0,), edges) for size in (n, m))
    x = normal(old)
    up = moved(x, old, new)
    np.testing.assert_allclose(up, old.basis(new.points[0][:, None]) @ x, atol=1e-12)
    np.testing.assert_allclose(moved(up, new, old), x, atol=1e-12)


@pytest.mark.parametrize("edges", EDGES)
def test_down_cuts_off_waves(edges):
    old, new = (Grid((size,), (2.0,), edges) for size in (16, 9))
    x = normal(old)
    before, after = coefficients(old, x), coefficients(new, moved(x, old, new))
    kept = range(-4, 5) if edges == "periodic" else range(9)
    for k in kept:
        np.testing.assert_allclose(after[k], before[k] * np.sqrt(9 / 16), atol=1e-12)


WAVES = {
    "periodic": lambda x: 0.3 + np.sin(2 * np.pi * x / 2) - 0.5 * np.cos(6 * np.pi * x / 2),
    "bounded": lambda x: 0.3 + np.cos(np.pi * x / 2) - 0.5 * np.cos(4 * np.pi * x / 2),
    "pinned": lambda x: np.sin(0.5 * np.pi * x / 2) - 0.5 * np.sin(3.5 * np.pi * x / 2),
}


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("n", "m"), [(9, 16), (16, 9)])
def test_resolved_waves_are_moved_exactly(n, m, edges):
    old, new = (Grid((size,), (2.0,), edges) for size in (n, m))
    made = moved(jnp.asarray(WAVES[edges](old.points[0])), old, new)
    np.testing.assert_allclose(made, WAVES[edges](new.points[0]), atol=1e-12)
    points = np.array([[0.1], [0.77], [1.9]])
    expected = WAVES[edges](points[:, 0])
    np.testing.assert_allclose(new.basis(points) @ made, expected, atol=1e-12)


@pytest.mark.parametrize("edges", ["periodic", "bounded"])
def test_two_dimensions_are_moved_axis_by_axis(edges):
    old, new = (Grid(shape, (2.0, 2.0), edges) for shape in ((8, 15), (13, 8)))
    wave = lambda grid: WAVES[edges](grid.points[0])[:, None] * WAVES[edges](grid.points[1])
    made = moved(jnp.asarray(wave(old)), old, new)  # up along one axis, down along the other
    np.testing.assert_allclose(made, wave(new), atol=1e-12)
    fine, x = old.at((16, 17)), normal(old)
    up = moved(x, old, fine)
    mesh = np.stack(np.meshgrid(*fine.points, indexing="ij"), -1).reshape(-1, 2)
    np.testing.assert_allclose(up.reshape(-1), old.basis(mesh) @ x.reshape(-1), atol=1e-12)
    np.testing.assert_allclose(moved(up, fine, old), x, atol=1e-12)


@pytest.mark.parametrize("edges", EDGES)
def test_single_precision_stays_single(edges):
    old, new = (Grid((size,), (2.0,), edges) for size in (9, 16))
    x = normal(old).astype(jnp.float32)
    root = eqx.filter_jit(noise_process(Matern(0.5), old).sqrt)
    for f in (root, lambda x: moved(x, old, new)):
        assert f(x).dtype == jnp.float32
        np.testing.assert_allclose(f(x), f(x.astype(float)), atol=1e-5)


def test_what_is_no_grid_is_refused():
    for shape, lengths, edges, message in [
        ((8,), (1.0, 1.0), "periodic", r"shape \(8,\) in a box of lengths \(1.0, 1.0\)"),
        ((), (), "periodic", "a grid of shape"),
        ((8, 1), (1.0, 1.0), "periodic", "2 points or more"),
        ((8,), (0.0,), "periodic", "expected positive"),
        ((8, 8), (1.0, 1.0), "pinned", "one axis"),
    ]:
        with pytest.raises(ValueError, match=message):
            Grid(shape, lengths, edges)


def test_a_field_stays_in_its_box():
    old = Grid((8,), (2.0,))
    with pytest.raises(ValueError, match=r"shape \(9,\) is not on a grid of shape \(8,\)"):
        resample(jnp.zeros(9), old, Grid((16,), (2.0,)))
    for other, told in [
        (Grid((16,), (3.0,)), r"periodic box of lengths \(2.0,\) to a periodic one .*\(3.0,\)"),
        (Grid((16,), (2.0,), "bounded"), "from a periodic box .* to a bounded one"),
    ]:
        with pytest.raises(ValueError, match=told):
            resample(jnp.zeros(8), old, other)
    with pytest.raises(ValueError, match=r"expected \(positions, 1\)"):
        old.basis(np.zeros((3, 2)))


# --- noise

ROUGH = Matern(0.5, 0.5)  # all waves count


@pytest.mark.parametrize(
    ("spectrum", "grid"),
    [
        (ROUGH, Grid((8,), (2.0,))),
        (ROUGH, Grid((8,), (2.0,), "bounded")),
        (ROUGH, Grid((8,), (2.0,), "pinned")),
        (ROUGH, Grid((4, 8), (1.0, 2.0))),
        (ROUGH, Grid((4, 5), (1.0, 2.0), "bounded")),
        (SquaredExponential(0.1), Grid((8,), (2.0,))),
        (PowerLaw(2.0), Grid((8,), (2.0,), "bounded")),
        (Brownian(), Grid((8,), (2.0,), "pinned")),
        (Tabulated((1.0, 9.0), (2.0, 0.5), mean=3.0, fall=2.5), Grid((9,), (2.0,))),
    ],
    ids=lambda value: names(value) if isinstance(value, Grid) else type(value).__name__,
)
def test_noise_is_the_same_on_shared_points(spectrum, grid):
    times, first = (2, 0) if grid.edges == "periodic" else (3, 1)
    fine = noise_process(spectrum, grid.at(tuple(times * n for n in grid.shape)), 1.3)
    shared = np.arange(fine.size).reshape(fine.grid.shape)
    shared = shared[tuple(slice(first, None, times) for _ in grid.shape)].reshape(-1)
    coarse = dense_of(noise_process(spectrum, grid, 1.3))
    # waves are summed to slightly different ends
    np.testing.assert_allclose(coarse, dense_of(fine)[np.ix_(shared, shared)], atol=1e-5)


@pytest.mark.parametrize(
    "grid",
    [
        Grid((8,), (2.0,)),
        Grid((9,), (2.0,)),
        Grid((8,), (2.0,), "bounded"),
        Grid((8,), (2.0,), "pinned"),
        Grid((6, 5), (2.0, 3.0)),
    ],
    ids=["even", "odd", "bounded", "pinned", "2-d"],
)
def test_noise_that_is_not_folded_is_that_of_a_finer_grid_moved(grid):
    fine = grid.at(tuple(3 * n for n in grid.shape))
    law = Matern(0.3, 0.5)  # with much beyond the coarse grid's waves
    coarse, finer = (noise_process(law, g, 1.2, folded=False) for g in (grid, fine))
    down = jax.vmap(lambda x: resample(x.reshape(fine.shape), fine, grid).reshape(-1))
    moved = down(down(finer.dense()).T)
    # waves are summed to slightly different ends
    np.testing.assert_allclose(coarse.dense(), moved, atol=1e-4)
    np.testing.assert_allclose(finer.on(grid).dense(), moved, atol=1e-4)
    assert np.abs(noise_process(law, grid, 1.2).dense() - moved).max() > 1e-2


@pytest.mark.parametrize("length", [1.0, 3.0])
def test_brownian_motion(length):
    grid = Grid((16,), (length,), "pinned")
    cov = noise_process(Brownian(), grid, np.sqrt(length / 2))
    x = grid.points[0]
    np.testing.assert_allclose(dense_of(cov), np.minimum.outer(x, x), atol=1e-5 * length)


@pytest.mark.parametrize(
    ("spectrum", "correlation"),
    [
        (Matern(0.7, 0.5), lambda r: np.exp(-r)),
        (Matern(0.7, 1.5), lambda r: (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r)),
        (SquaredExponential(0.7), lambda r: np.exp(-(r**2) / 2)),
    ],
    ids=["matern-1/2", "matern-3/2", "squared-exponential"],
)
def test_noise_has_the_correlation_of_its_name(spectrum, correlation):
    grid = Grid((32,), (21.0,))  # 30 lengths: what comes round the ring is 3e-7
    row = noise_process(spectrum, grid, 2.0).apply(jnp.eye(32)[0])
    x = grid.points[0]
    distance = np.minimum(x, 21.0 - x) / 0.7
    # beyond the waves summed is 2 / pi l / k_max = 2e-4 of an exponential's variance
    rough = isinstance(spectrum, Matern) and spectrum.smoothness == 0.5
    atol = 4 * (2e-4 if rough else 1e-6)
    np.testing.assert_allclose(row, 4 * correlation(distance), atol=atol)


def test_noise_in_two_dimensions_has_the_correlation_of_its_name():
    grid = Grid((16, 24), (8.0, 12.0))
    row = noise_process(SquaredExponential(0.7), grid).apply(jnp.eye(grid.size)[0])
    x, y = (np.minimum(x, l - x) for x, l in zip(grid.points, grid.lengths, strict=True))
    expected = np.exp(-(x[:, None] ** 2 + y**2) / (2 * 0.7**2))
    np.testing.assert_allclose(row, expected.reshape(-1), atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=names)
def test_products_with_a_covariance_agree(grid):
    cov = noise_process(ROUGH, grid, 1.7)
    v, dense = normal(grid, 1).reshape(-1), np.asarray(dense_of(cov))
    applied, root, white, solved = products(cov, v)
    _, root_of_root, white_of_root, _ = products(cov, root)
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    np.testing.assert_allclose(applied, dense @ v, atol=1e-11)
    np.testing.assert_allclose(root_of_root, dense @ v, atol=1e-11)
    np.testing.assert_allclose(white_of_root, v, atol=1e-11)
    np.testing.assert_allclose(solved, np.linalg.solve(dense, v), atol=1e-9)
    np.testing.assert_allclose(dense @ products(cov, white)[2], v, atol=1e-9)
    np.testing.assert_allclose(eqx.filter_jit(cov.diagonal)(), np.diag(dense), atol=1e-12)
    sign, log_det = np.linalg.slogdet(dense)
    assert sign == 1
    np.testing.assert_allclose(cov.log_det(), log_det, rtol=1e-10)
    assert cov.size == grid.size


def test_waves_that_a_noise_lacks_are_left_out():
    grid = Grid((32,), (2.0,))
    cov = noise_process(SquaredExponential(0.5), grid)
    lacking = np.asarray(cov.values) == 0
    assert 0 < lacking.sum() < 31
    _, drawn, white, solved = products(cov, normal(grid))
    for got in (white, solved):
        np.testing.assert_allclose(coefficients(grid, got)[lacking], 0, atol=1e-7)
    # but what it draws, it takes back
    _, _, white, solved = products(cov, drawn)
    np.testing.assert_allclose(products(cov, white)[1], drawn, atol=1e-10)
    np.testing.assert_allclose(products(cov, solved)[0], drawn, atol=1e-10)


@pytest.mark.parametrize("edges", EDGES)
def test_the_variance_over_the_box_is_that_asked_for(edges):
    cov = noise_process(ROUGH, Grid((64,), (2.0,), edges), 1.7)
    variances = np.diag(dense_of(cov))
    # points in the middle of cells take the mean of a bounded field's variance to second order
    np.testing.assert_allclose(variances.mean(), 1.7**2, rtol=1e-3 if edges == "bounded" else 1e-12)
    if edges == "bounded":
        assert variances[0] > variances[32] + 0.1  # waves come back from an edge
    if edges == "pinned":
        assert variances[0] < 0.2


def test_draws_have_the_covariance():
    grid, n = Grid((6,), (2.0,), "bounded"), 4000
    cov = noise_process(ROUGH, grid, 1.7)
    x = np.asarray(jax.jit(jax.vmap(cov.sample))(jax.random.split(jax.random.key(0), n)))
    dense = np.asarray(dense_of(cov))
    stderr = np.sqrt((np.outer(np.diag(dense), np.diag(dense)) + dense**2) / n)
    assert (np.abs(x.T @ x / n - dense) < 4 * stderr).all()
    assert (np.abs(x.mean(0)) < 4 * np.sqrt(np.diag(dense) / n)).all()


def test_white_noise_is_independent():
    cov = noise_process(White(), Grid((4, 6), (1.0, 2.0)), 1.7)
    np.testing.assert_allclose(dense_of(cov), 1.7**2 * np.eye(24), atol=1e-12)


def test_a_power_law():
    grid = Grid((64,), (2 * np.pi,))
    values = np.asarray(noise_process(PowerLaw(4.0), grid).values)
    # of the first waves' variance, that of the aliases is 2 (2 / 62)^4
    np.testing.assert_allclose(values[1:3] / values[1], [1, 1 / 16], rtol=1e-4)
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)


def test_a_table():
    k, variances = (1.0, 2.0, 8.0), (3.0, 0.5, 0.1)
    table = Tabulated(k, variances, mean=7.0, fall=6.0)
    asked = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    between = np.sqrt(0.5 * 0.1)  # half way in the logarithms
    expected = [7.0, 3.0, 3.0, 0.5, between, 0.1, 0.1 * 2.0**-6]
    np.testing.assert_allclose(table(asked**2, 1), expected, rtol=1e-12)
    assert Tabulated(k, variances)(np.zeros(1), 1) == pytest.approx(3.0)
    # on a grid that resolves it all, the eigenvalues are the table's up to the size
    steep = Tabulated(k, variances, mean=7.0, fall=60.0)
    values = np.asarray(noise_process(steep, Grid((64,), (2 * np.pi,)), 1.5).values)
    np.testing.assert_allclose(values[[0, 1, 2, 8]] / values[1] * 3, [7, 3, 0.5, 0.1], rtol=1e-9)
    np.testing.assert_allclose(values.mean(), 1.5**2, rtol=1e-9)


@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[3], GRIDS[4]], ids=names)
def test_noise_on_another_grid_is_that_made_there(grid):
    other = grid.at(tuple(n + 3 for n in grid.shape))
    cov = noise_process(ROUGH, grid, 1.7).on(other)
    made = noise_process(ROUGH, other, 1.7)
    assert cov.grid == other and cov.spectrum == made.spectrum
    np.testing.assert_array_equal(cov.values, made.values)


def test_products_do_not_take_a_matrix():
    cov = noise_process(ROUGH, Grid((2**14,), (2.0,)))
    v = jnp.ones(cov.size)
    for product in (cov.apply, cov.sqrt, cov.whiten, cov.solve):
        assert "dot_general" not in str(jax.make_jaxpr(product)(v))
    # a constant is an eigenvector
    expected = np.full(3, np.sqrt(cov.values[0]))
    np.testing.assert_allclose(cov.sqrt(v)[:3], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("spectrum", "grid", "message"),
    [
        (PowerLaw(1.0), Grid((8,), (2.0,)), "exponent 1.0 in 1 dimensions .* more than 1"),
        (PowerLaw(2.0), Grid((8, 8), (2.0, 2.0)), "exponent 2.0 in 2 dimensions .* more than 2"),
        (Brownian(), Grid((8,), (2.0,)), "pinned grid, not periodic"),
        (Brownian(), Grid((8,), (2.0,), "bounded"), "pinned grid, not bounded"),
    ],
)
def test_laws_of_no_finite_variance_are_refused(spectrum, grid, message):
    with pytest.raises(ValueError, match=message):
        noise_process(spectrum, grid)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Matern(0.0),
        lambda: Matern(1.0, -1.0),
        lambda: SquaredExponential(-1.0),
        lambda: Tabulated((1.0,), (1.0,)),
        lambda: Tabulated((1.0, 2.0), (1.0, 2.0, 3.0)),
        lambda: Tabulated((2.0, 1.0), (1.0, 2.0)),
        lambda: Tabulated((0.0, 1.0), (1.0, 2.0)),
        lambda: Tabulated((1.0, 2.0), (1.0, 0.0)),
    ],
)
def test_what_is_no_law_is_refused(make):
    with pytest.raises(ValueError, match="positive"):
        make()
