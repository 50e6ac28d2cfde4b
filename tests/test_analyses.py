"""Analyses of a fixed ensemble against the Kalman update and other formulas, in NumPy alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats

from dasim import localization
from dasim.covariance import anomalies
from dasim.filters import (
    EAKF,
    ESRF,
    ETKF,
    GETKF,
    LETKF,
    RHF,
    DEnKF,
    EnKFN,
    EnSF,
    GaussianMixtureFilter,
    StochasticEnKF,
)
from dasim.filters.base import constraints
from dasim.filters.enkf_n import finite_size_inflation
from dasim.filters.serial import adjust_normal, adjust_ranks
from dasim.localization import Localization, gaspari_cohn
from dasim.observe import Gaussian, Observation
from dasim.types import Observations

KEY = jax.random.key(5)
N_STATE, N_OBS = 6, 5
MASK = np.array([True, True, False, True, True])
R = {"diagonal": np.diag([0.5, 2.0, 1.0, 0.3, 1.2])}
R["full"] = R["diagonal"] + 0.2 * np.ones((N_OBS, N_OBS))
SITES = np.array([0.4, 1.0, 2.0, 3.3, 4.6])
WIDE = Localization(1e6, np.arange(N_STATE), SITES)


pytestmark = pytest.mark.usefixtures("float64")


def numbers(members, n_obs=N_OBS):
    """An ensemble, the rows of H and observed values."""
    rng = np.random.default_rng(members)
    x = 3 + rng.normal(size=(members, N_STATE)) @ rng.normal(size=(N_STATE, N_STATE))
    return x, rng.normal(size=(n_obs, N_STATE)), rng.normal(size=n_obs)


class Rows(eqx.Module):
    """The operator x -> H x."""

    h: jax.Array
    linear = True

    def __call__(self, x, t):
        return self.h @ x.reshape(-1)


def observe(h, r):
    diagonal = np.array_equal(r, np.diag(np.diag(r)))
    error = Gaussian(std=np.sqrt(np.diag(r))) if diagonal else Gaussian(cov=r)
    return Observation(Rows(jnp.asarray(h)), error)


@eqx.filter_jit
def run(filters, members, observation, obs, key):
    event = observation.event(obs)
    return {k: f.analyse(members, constraints(event, members), event, key) for k, f in filters}


def analyse(filters, x, h, r, y, mask=MASK):
    """The analyses of several filters by name, compiled together."""
    obs = Observations(jnp.zeros(()), jnp.asarray(np.where(mask, y, np.nan)), jnp.asarray(mask))
    items = tuple(filters.items())
    return jax.tree.map(np.asarray, run(items, jnp.asarray(x), observe(h, r), obs, KEY))


def kalman(mean, p, h, r, y, mask=MASK):
    """Mean, covariance, gain and H, all of the observed values alone."""
    h, r, y = h[mask], r[np.ix_(mask, mask)], y[mask]
    gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
    return mean + gain @ (y - h @ mean), p - gain @ h @ p, gain, h


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def taper(a, b, radius):
    distance = np.abs(np.subtract.outer(a, b))
    return np.asarray(gaspari_cohn(jnp.asarray(distance), radius))


@pytest.mark.parametrize(("members", "kind"), [(4, "full"), (9, "diagonal")])
def test_moments_are_those_of_the_kalman_filter(members, kind):
    """In ensemble space (4 members) and in observation space (9)."""
    filters = {
        "ETKF": ETKF(),
        "ETKF, tapered": ETKF(localization=WIDE),
        "ESRF": ESRF(),
        "EAKF": EAKF(),
        "EAKF, tapered": EAKF(localization=WIDE, rotation=True),
        "GETKF": GETKF(WIDE, fraction=1.0, rotation=True),
        "LETKF": LETKF(rotation=True),
        "DEnKF": DEnKF(),
        "StochasticEnKF": StochasticEnKF(),
    }
    x, h, y = numbers(members)
    p = np.cov(x.T)
    mean, cov, gain, seen = kalman(x.mean(0), p, h, R[kind], y)
    for name, out in analyse(filters, x, h, R[kind], y).items():
        np.testing.assert_allclose(out.mean(0), mean, atol=1e-9, err_msg=name)
        expected = cov
        if name == "DEnKF":
            expected = cov + gain @ seen @ p @ seen.T @ gain.T / 4
        if name != "StochasticEnKF":
            np.testing.assert_allclose(np.cov(out.T), expected, atol=1e-9, err_msg=name)


@eqx.filter_jit
def evidence(members, observation, obs):
    event = observation.event(obs)
    c_mean, y = anomalies(constraints(event, members))
    return jnp.stack([event.log_prob_anomalies(c_mean, y), event.log_prob(c_mean, y.T @ y)])


@pytest.mark.parametrize("members", [3, 9])
@pytest.mark.parametrize("kind", R)
def test_evidence_from_anomalies(members, kind):
    """log N(y; h(m), H P H^T + R) of the observed values, in either space."""
    x, h, y = numbers(members)
    obs = Observations(jnp.zeros(()), jnp.asarray(np.where(MASK, y, np.nan)), jnp.asarray(MASK))
    mean, p, seen = x.mean(0), np.cov(x.T), h[MASK]
    cov = seen @ p @ seen.T + R[kind][np.ix_(MASK, MASK)]
    exact = stats.multivariate_normal.logpdf(y[MASK], seen @ mean, cov)
    np.testing.assert_allclose(evidence(jnp.asarray(x), observe(h, R[kind]), obs), exact)


def serial_square_root(x, h, r, y, order, taper_x, taper_y):
    """The filter of Whitaker and Hamill (2002), eqs. 10-13, about members and their H x."""
    z = np.concatenate([x, x @ h.T], 1)
    tapers = np.concatenate([taper_x, taper_y])
    for j in order:
        mean, dev = z.mean(0), z - z.mean(0)
        hx = dev[:, N_STATE + j]
        cov, total = dev.T @ hx / (len(x) - 1), hx @ hx / (len(x) - 1) + r[j, j]
        gain = tapers[:, j] * cov / total
        alpha = 1 / (1 + np.sqrt(r[j, j] / total))
        mean = mean + gain * (y[j] - mean[N_STATE + j])
        z = mean + dev - alpha * np.outer(hx, gain)
    return z[:, :N_STATE]


def test_serial_filters_are_the_serial_square_root_filter_member_by_member():
    x, h, y = numbers(9)
    r = R["diagonal"]
    order = np.asarray(jax.random.permutation(jax.random.split(KEY)[0], N_OBS))
    order = order[MASK[order]]
    local = Localization(1.5, np.arange(N_STATE), SITES)
    filters = {"EAKF": EAKF(), "tapered": EAKF(localization=local), "ESRF": ESRF(rotation=False)}
    out = analyse(filters, x, h, r, y)
    tapers = taper(np.arange(N_STATE), SITES, 1.5), taper(SITES, SITES, 1.5)
    ones = np.ones((N_STATE, N_OBS)), np.ones((N_OBS, N_OBS))
    plain = serial_square_root(x, h, r, y, order, *ones)
    np.testing.assert_allclose(out["EAKF"], plain, atol=1e-9)
    np.testing.assert_allclose(out["ESRF"], plain, atol=1e-9)
    expected = serial_square_root(x, h, r, y, order, *tapers)
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(out["tapered"], expected, atol=1e-9)


def local_analysis(x, h, r, y, taper_x):
    """Hunt, Kostelich and Szunyogh (2007), steps 1-8 of section 2.3, for blocks of variables."""
    n, size = len(x), N_STATE // len(taper_x)
    out = np.empty_like(x)
    dev, c = x - x.mean(0), x @ h.T
    for block, row in enumerate(taper_x):
        precision = np.diag(MASK * row / np.diag(r))
        hx = (c - c.mean(0)).T
        cov = np.linalg.inv((n - 1) * np.eye(n) + hx.T @ precision @ hx)
        weights = cov @ hx.T @ precision @ (y - c.mean(0))
        cols = slice(block * size, (block + 1) * size)
        transform = root((n - 1) * cov) + weights[:, None]
        out[:, cols] = x.mean(0)[cols] + (dev[:, cols].T @ transform).T
    return out


def test_letkf_is_the_published_one_on_every_path(monkeypatch):
    x, h, y = numbers(9)
    coords = np.arange(N_STATE, dtype=float)
    filters = {
        "global": ETKF(rotation=False),
        "wide": LETKF(localization=WIDE),
        "single": LETKF(localization=Localization(1.5, coords, SITES)),
        "blocks": LETKF(localization=Localization(1.5, coords, SITES), block=2),
    }
    monkeypatch.setattr(localization, "DENSE", 10)
    filters["single, near"] = LETKF(localization=Localization(1.5, coords, SITES))
    filters["blocks, near"] = LETKF(localization=Localization(1.5, coords, SITES), block=2)
    assert filters["single, near"].localization.near.shape == (N_STATE, 5)
    assert filters["blocks, near"].localization.near.shape[0] == N_STATE // 2
    out = analyse(filters, x, h, R["diagonal"], y)
    np.testing.assert_allclose(out["wide"], out["global"], atol=1e-9)
    single = local_analysis(x, h, R["diagonal"], y, taper(coords, SITES, 1.5))
    blocks = local_analysis(x, h, R["diagonal"], y, taper(coords[::2] + 0.5, SITES, 1.5))
    for name in filters.keys() - {"wide", "global"}:
        expected = single if name.startswith("single") else blocks
        np.testing.assert_allclose(out[name], expected, atol=1e-9, err_msg=name)
    with pytest.raises(ValueError, match="blocks of 4 variables do not divide the state's 6"):
        LETKF(localization=WIDE, block=4)


def test_tapered_covariances():
    """Gains of tapered covariances; the modified gain of Andrews (1968) for the anomalies."""
    x, h, y = numbers(9)
    h = np.eye(N_STATE)[:N_OBS]
    sites, coords = np.arange(5.0), np.arange(6.0)
    local = Localization(1.5, coords, sites)
    filters = {
        "ETKF": ETKF(localization=local, rotation=False),
        "GETKF": GETKF(local, fraction=1.0),
        "StochasticEnKF": StochasticEnKF(localization=local),
        "DEnKF": DEnKF(localization=local),
    }
    r = R["full"]
    dev = x - x.mean(0)
    p = np.cov(x.T) * taper(coords, coords, 1.5)
    mean, _, gain, seen = kalman(x.mean(0), p, h, r, y)
    r_seen = r[np.ix_(MASK, MASK)]
    total, white = seen @ p @ seen.T + r_seen, np.linalg.inv(root(r_seen))
    factors = {
        "ETKF": (root(total), root(r_seen)),
        # the roots R^(1/2) (I + A)^(1/2) and R^(1/2) of S and R, A the whitened H P H^T
        "GETKF": (root(r_seen) @ root(white @ total @ white), root(r_seen)),
    }
    out = analyse(filters, x, h, r, y)
    for name, members in out.items():
        np.testing.assert_allclose(members.mean(0), mean, atol=1e-9, err_msg=name)
    expected = {"DEnKF": dev - dev @ (gain @ seen).T / 2}
    for name, (left, right) in factors.items():
        modified = p @ seen.T @ np.linalg.inv(left).T @ np.linalg.inv(left + right)
        expected[name] = dev - dev @ (modified @ seen).T
    for name, deviations in expected.items():
        np.testing.assert_allclose(out[name] - mean, deviations, atol=1e-9, err_msg=name)
    # with a multiple of the identity for R the two roots are one
    same = analyse({k: filters[k] for k in factors}, x, h, 0.7 * np.eye(N_OBS), y)
    np.testing.assert_allclose(same["GETKF"], same["ETKF"], atol=1e-9)


def finite_size(p, h, r, d, n, certainty):
    """log l at the least of the cost of `dasim.filters.enkf_n`, for full matrices."""
    inverse = np.linalg.inv(root(r))
    g = np.zeros(n)
    values = np.linalg.eigvalsh(inverse @ h @ p @ h.T @ inverse)[::-1][: n - 1]
    g[: len(values)] = values
    m = ((n + 1) * (n - 1) / n**2) ** (np.mean(1 / (1 + g)) / 2)
    e, c = certainty * (n + 1) / (n * m), certainty * n * m / (n - 1)

    def cost(log_l):
        l2 = np.exp(2 * log_l)
        misfit = d @ np.linalg.solve(r + l2 * h @ p @ h.T, d)
        return misfit + (n - 1) * (e / l2 + c * np.log(l2))

    found = optimize.minimize_scalar(cost, bounds=(-1.5, 4), method="bounded")
    return found.x


def test_finite_size_inflation_is_at_the_least_of_the_cost():
    r = R["full"]
    for members in (4, 9):
        x, h, y = numbers(members)
        p, seen = np.cov(x.T), h[MASK]
        filters = {c: EnKFN(certainty=c) for c in (1.0, 3.0)}
        out = analyse(filters, x, h, r, y + 40.0)
        d = (y + 40.0 - h @ x.mean(0))[MASK]
        for certainty, analysis in out.items():
            log_l = finite_size(p, seen, r[np.ix_(MASK, MASK)], d, members, certainty)
            assert log_l > 0.1
            mean, cov, *_ = kalman(x.mean(0), np.exp(2 * log_l) * p, h, r, y + 40.0)
            # the search leaves an error of 1e-4 in log l
            scale = np.abs(mean - x.mean(0)).max()
            np.testing.assert_allclose(analysis.mean(0), mean, atol=1e-3 * scale)
            np.testing.assert_allclose(np.cov(analysis.T), cov, atol=1e-3 * np.abs(p).max())


def test_finite_size_inflation_follows_the_surprise():
    """None where an observation tells nothing or is as expected, more where it surprises."""
    n, g = 10, jnp.asarray([1e-9, 1e-10])
    nothing = finite_size_inflation(g, g, n, 1.0)
    np.testing.assert_allclose(nothing, 1.0, atol=2e-4)
    g = jnp.asarray([4.0, 1.0])
    found = [float(finite_size_inflation(g, s * (1 + g), n, 1.0)) for s in (0.0, 1.0, 9.0, 100.0)]
    assert found[0] < 1 < found[2] < found[3] and abs(found[1] - 1) < 0.1
    sure = [float(finite_size_inflation(g, 100 * (1 + g), n, c)) for c in (10.0, 1000.0)]
    assert 1 < sure[1] < sure[0] < found[3] and sure[1] < 1.05


def test_adjust_normal_has_exact_moments():
    y = np.random.default_rng(3).normal(1.0, 2.0, 12)
    v = y.var(ddof=1)
    new = np.asarray(adjust_normal(jnp.asarray(y), 2.5))
    np.testing.assert_allclose(new.mean(), (y.mean() + v * 2.5) / (1 + v), atol=1e-12)
    np.testing.assert_allclose(new.var(ddof=1), v / (1 + v), atol=1e-12)
    np.testing.assert_array_equal(np.argsort(new), np.argsort(y))


@pytest.mark.parametrize("observed", [0.5, 6.0])
def test_adjust_ranks_gives_the_posterior_of_a_normal_law(observed):
    """Members at the quantiles of N(0.3, 1.5^2) go to the quantiles of the posterior."""
    n = 4000
    quantiles = stats.norm.ppf(np.arange(1, n + 1) / (n + 1))
    order = np.random.default_rng(4).permutation(n)
    y = (0.3 + 1.5 * quantiles)[order]
    new = np.asarray(jax.jit(adjust_ranks)(jnp.asarray(y), observed))
    v = 1.5**2 / (1 + 1.5**2)
    exact = v * (0.3 / 1.5**2 + observed) + np.sqrt(v) * quantiles
    np.testing.assert_array_equal(np.argsort(new), np.argsort(y))
    np.testing.assert_allclose(new[np.argsort(order)], exact, atol=0.02)
    np.testing.assert_allclose([new.mean(), new.std()], [exact.mean(), exact.std()], atol=2e-3)


@pytest.mark.parametrize("observed", [-9.0, 0.4, 3.0])
def test_adjust_ranks_takes_the_quantiles_of_the_rank_histogram(observed):
    """The distribution function by quadrature, of four members and two normal tails."""
    y = np.array([1.0, -0.7, 0.2, 2.4])
    x, n, s = np.sort(y), 4, y.std(ddof=1)
    shift = s * stats.norm.ppf(1 / (n + 1))
    likelihood = lambda u: np.exp(-0.5 * (observed - u) ** 2)

    def density(u):
        if u < x[0]:
            return stats.norm.pdf(u, x[0] - shift, s) * likelihood(u)
        if u > x[-1]:
            return stats.norm.pdf(u, x[-1] + shift, s) * likelihood(u)
        i = min(np.searchsorted(x, u, side="right") - 1, n - 2)
        mean = 0.5 * (likelihood(x[i]) + likelihood(x[i + 1]))
        return mean / ((n + 1) * (x[i + 1] - x[i]))

    def mass(end):
        knots = [-20.0, *x[x < end], end]
        pairs = zip(knots[:-1], knots[1:], strict=True)
        return sum(integrate.quad(density, a + 1e-12, b - 1e-12, limit=200)[0] for a, b in pairs)

    new = np.sort(jax.jit(adjust_ranks)(jnp.asarray(y), observed))
    np.testing.assert_allclose([mass(u) / mass(20.0) for u in new], np.arange(1, 5) / 5, atol=1e-5)


def test_rank_histogram_filter_regresses_on_the_new_values():
    x, h, y = numbers(9)
    mask = np.arange(N_OBS) == 1
    r = R["diagonal"]
    out = analyse({"RHF": RHF()}, x, h, r, y, mask)["RHF"]
    c, std = x @ h[1], np.sqrt(r[1, 1])
    new = std * np.asarray(jax.jit(adjust_ranks)(jnp.asarray(c / std), y[1] / std))
    slope = np.cov(x.T, c)[:-1, -1] / c.var(ddof=1)
    np.testing.assert_allclose(out, x + np.outer(new - c, slope), atol=1e-9)


def test_mixture_filter_gives_the_posterior_of_two_modes():
    n, observed = 2000, 0.5
    rng = np.random.default_rng(7)
    x = rng.choice([-2.0, 2.0], (n, 1)) + 0.5 * rng.normal(size=(n, 1))
    density = lambda u: stats.norm.pdf(u, -2, 0.5) + stats.norm.pdf(u, 2, 0.5)
    weight = lambda u: stats.norm.pdf(u, observed, 1.0)

    def moment(f):
        value = lambda g: integrate.quad(lambda u: g(u) * density(u) * weight(u), -9, 9)[0]
        return value(f) / value(lambda u: 1.0)

    filters = {"narrow": GaussianMixtureFilter(0.2), "one": GaussianMixtureFilter(1e9)}
    one = np.ones((1, 1))
    out = analyse(filters, x, one, one, np.array([observed]), np.array([True]))
    narrow = out["narrow"][:, 0]
    w = weight(x[:, 0]) / weight(x[:, 0]).sum()
    for f in (lambda u: u, lambda u: u**2, lambda u: u > 0):
        exact = moment(f)
        # of the weighted prior sample, and of as many draws again
        stderr = np.sqrt(np.sum((w * (f(x[:, 0]) - exact)) ** 2) + f(narrow).var() / n)
        assert abs(f(narrow).mean() - exact) < 4 * stderr
    mean, cov, *_ = kalman(
        x.mean(0), np.atleast_2d(np.cov(x.T)), one, one, observed * one[0], [True]
    )
    assert abs(out["one"].mean() - mean[0]) < 4 * np.sqrt(cov[0, 0] / n)
    assert abs(out["one"].var() / cov[0, 0] - 1) < 4 * np.sqrt(2 / n)


def test_ensemble_score_filter():
    """It keeps the forecast's law where nothing is known; a precise observation decides."""
    rng = np.random.default_rng(3)
    x = jnp.asarray(5 + rng.normal(size=(400, 2)) * [1.0, 10.0])
    x = x.at[:, 1].add(8 * (x[:, 0] - 5))

    def analysed(std):
        observation = Observation(lambda v, t: v[:1], Gaussian(std=std))
        one = Observations(jnp.zeros(()), jnp.asarray([6.0]), jnp.ones(1, bool))
        event = observation.event(one)
        return np.asarray(EnSF(steps=400).analyse(x, constraints(event, x), event, KEY))

    vague, precise = analysed(1e3), analysed(0.1)
    np.testing.assert_allclose(vague.mean(0), x.mean(0), atol=0.2 * np.asarray(x.std(0)).max())
    np.testing.assert_allclose(np.cov(vague.T), np.cov(x.T), rtol=0.25, atol=1.5)
    assert abs(precise[:, 0].mean() - 6) < 0.1
    assert precise[:, 0].std() < 0.3
    assert precise[:, 1].mean() - x[:, 1].mean() > 3  # carried by the covariance
    with pytest.raises(ValueError, match="steps is 0"):
        EnSF(steps=0)
