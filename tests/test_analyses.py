"""Analyses of a fixed ensemble against the Kalman update and other formulas, in NumPy alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed_ensemble import KEY, MASK, N_OBS, N_STATE, R, analyse, kalman, numbers, observe
from scipy import optimize, stats

from dasim import localization
from dasim.covariance import anomalies
from dasim.filters import (
    EAKF,
    ESRF,
    ETKF,
    GETKF,
    LETKF,
    DEnKF,
    EnKFN,
    StochasticEnKF,
)
from dasim.filters.base import constraints
from dasim.filters.enkf_n import finite_size_inflation
from dasim.filters.serial import adjust_normal
from dasim.localization import Localization, gaspari_cohn
from dasim.types import Observations

SITES = np.array([0.4, 1.0, 2.0, 3.3, 4.6])
WIDE = Localization(1e6, np.arange(N_STATE), SITES)


pytestmark = pytest.mark.usefixtures("float64")


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
