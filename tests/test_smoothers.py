"""Smoothers, variational windows and baselines on linear problems, against NumPy alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.cycling import cycle
from dasim.filters import (
    ETKF,
    GETKF,
    LETKF,
    Climatology,
    EnKS,
    GaussianMixtureFilter,
    IEnKS,
    OptimalInterpolation,
    StochasticEnKF,
    Var3D,
    Var4D,
    ensemble_rts,
)
from dasim.localization import Localization
from dasim.models import LinearGaussian
from dasim.observe import Gaussian, Observation
from dasim.transitions import ModelTransition
from dasim.types import Observations

KEY = jax.random.key(6)
N, SIZE, CYCLES = 5, 4, 4
RNG = np.random.default_rng(8)
A = 0.6 * RNG.normal(size=(SIZE, SIZE))
H = RNG.normal(size=(3, SIZE))
R = np.array([[0.5, 0.2, 0.0], [0.2, 1.0, 0.1], [0.0, 0.1, 0.2]])
Q = np.diag([0.3, 0.1, 0.2, 0.4])
X0 = 2 + RNG.normal(size=(N, SIZE))
Y = RNG.normal(size=(CYCLES, 3))
MASK = np.array([[True] * 3, [True, False, True], [True] * 3, [False, True, True]])


pytestmark = pytest.mark.usefixtures("float64")


class Rows(eqx.Module):
    """The operator x -> H x."""

    linear = True

    def __call__(self, x, t):
        return jnp.asarray(H) @ x.reshape(-1)


@eqx.filter_jit
def run(filters, transition, observation, ensemble, obs):
    return {k: cycle(f, transition, observation, ensemble, obs, KEY) for k, f in filters}


def assimilate(filters, noise=None, ensemble=X0, cycles=CYCLES):
    """By name, the states of filters after `cycles` cycles and their infos; compiled together."""
    transition = ModelTransition(LinearGaussian(A, noise))
    time = 1 + jnp.arange(cycles, dtype=float)
    value = jnp.asarray(np.where(MASK, Y, np.nan)[:cycles])
    obs = Observations(time, value, jnp.asarray(MASK[:cycles]))
    observation = Observation(Rows(), Gaussian(cov=R))
    items = tuple(filters.items())
    return jax.tree.map(np.asarray, run(items, transition, observation, jnp.asarray(ensemble), obs))


def update(mean, p, h, k):
    """Kalman update of any state by the observations of cycle k through the rows `h`."""
    seen, r, y = h[MASK[k]], R[np.ix_(MASK[k], MASK[k])], Y[k, MASK[k]]
    gain = p @ seen.T @ np.linalg.inv(seen @ p @ seen.T + r)
    return mean + gain @ (y - seen @ mean), p - gain @ seen @ p


def check(ensemble, mean, cov, message=""):
    np.testing.assert_allclose(ensemble.mean(0), mean, atol=1e-8, err_msg=message)
    np.testing.assert_allclose(np.cov(ensemble.T), cov, atol=1e-8, err_msg=message)


def test_ienks_is_the_kalman_smoother_of_a_window():
    lag = 2
    filters = {
        "one iteration": IEnKS(lag, iterations=1),
        "many": IEnKS(lag, tolerance=1e-20),
        "MDA": IEnKS(lag, mda=True, iterations=3),
    }
    for name, (_, info) in assimilate(filters).items():
        mean, cov, first = X0.mean(0), np.cov(X0.T), 0
        for k in range(CYCLES):
            if k - first == lag:
                mean, cov, first = A @ mean, A @ cov @ A.T, first + 1
            ahead = np.linalg.matrix_power(A, k + 1 - first)
            mean, cov = update(mean, cov, H @ ahead, k)
            check(info.smoothed[k], mean, cov, f"{name}: smoothed {k}")
            check(info.analysis[k], ahead @ mean, ahead @ cov @ ahead.T, f"{name}: analysis {k}")


def test_ienks_of_lag_one_is_the_etkf_member_by_member():
    out = assimilate({"etkf": ETKF(rotation=False), "ienks": IEnKS(1)})
    etkf, ienks = out["etkf"][1], out["ienks"][1]
    np.testing.assert_allclose(ienks.forecast, etkf.forecast, atol=1e-8)
    np.testing.assert_allclose(ienks.analysis, etkf.analysis, atol=1e-8)
    np.testing.assert_allclose(ienks.log_evidence, etkf.log_evidence, atol=1e-8)


WIDE = Localization(1e7, np.arange(SIZE), np.arange(3))


def test_enks_is_the_kalman_update_of_the_augmented_state():
    """Of the states of three cycles, (x_k-2, x_k-1, x_k); before the first they are the initial."""
    lag = 2
    filters = {
        "ETKF": EnKS(ETKF(), lag),
        "ETKF, tapered": EnKS(ETKF(localization=WIDE), lag),
        "LETKF": EnKS(LETKF(localization=WIDE, block=2), lag),
    }
    zero, eye = np.zeros((SIZE, SIZE)), np.eye(SIZE)
    step = np.block([[zero, eye, zero], [zero, zero, eye], [zero, zero, A]])
    h = np.hstack([np.zeros((3, lag * SIZE)), H])
    window = np.tile(X0, (1, lag + 1))
    for name, (state, info) in assimilate(filters).items():
        mean, cov = window.mean(0), np.cov(window.T)
        for k in range(CYCLES):
            mean, cov = update(step @ mean, step @ cov @ step.T, h, k)
            check(info.smoothed[k], mean[:SIZE], cov[:SIZE, :SIZE], f"{name}: smoothed {k}")
            check(info.analysis[k], mean[-SIZE:], cov[-SIZE:, -SIZE:], f"{name}: analysis {k}")
        joint = np.moveaxis(state.ensembles, 0, 1).reshape(N, -1)
        check(joint, mean, cov, f"{name}: the window")


def test_enks_observes_the_present_state_of_its_window():
    """With a filter whose analysis calls the operator; a broad kernel makes it a Kalman update."""
    members = 1000
    ensemble = np.random.default_rng(1).normal(size=(members, SIZE))
    filter = EnKS(GaussianMixtureFilter(1e9))
    _, info = assimilate({"it": filter}, ensemble=ensemble, cycles=1)["it"]
    mean, cov = update(A @ ensemble.mean(0), A @ np.cov(ensemble.T) @ A.T, H, 0)
    error = np.abs(info.analysis[0].mean(0) - mean)
    assert np.all(error < 4 * np.sqrt(np.diag(cov) / members))


def rts(forecasts, analyses):
    """Rauch, Tung and Striebel's smoother for the moments (mean, cov) of all cycles."""
    out = [analyses[-1]]
    for (mean, cov), (ahead, cov_ahead) in zip(analyses[-2::-1], forecasts[:0:-1], strict=True):
        gain = cov @ A.T @ np.linalg.inv(cov_ahead)
        later, cov_later = out[-1]
        out.append((mean + gain @ (later - ahead), cov + gain @ (cov_later - cov_ahead) @ gain.T))
    return out[::-1]


def test_ensemble_rts_is_the_rts_smoother_up_to_sampling():
    members = 400
    ensemble = np.random.default_rng(9).normal(size=(members, SIZE))
    _, info = assimilate({"it": StochasticEnKF()}, Q, ensemble)["it"]
    mean, cov, forecasts, analyses = np.zeros(SIZE), np.eye(SIZE), [], []
    for k in range(CYCLES):
        mean, cov = A @ mean, A @ cov @ A.T + Q
        forecasts.append((mean, cov))
        mean, cov = update(mean, cov, H, k)
        analyses.append((mean, cov))
    smoothed = np.asarray(ensemble_rts(info))
    for ensemble, (mean, cov) in zip(smoothed, rts(forecasts, analyses), strict=True):
        variance = np.diag(cov)
        # of draws, and as much again from each earlier cycle's gain
        error = np.abs(ensemble.mean(0) - mean)
        assert np.all(error < 4 * np.sqrt(CYCLES * variance / members))
        spread = np.sqrt((np.outer(variance, variance) + cov**2) * CYCLES / members)
        assert np.all(np.abs(np.cov(ensemble.T) - cov) < 4 * spread)
    np.testing.assert_array_equal(smoothed[-1], info.analysis[-1])


def test_ensemble_rts_regresses_in_ensemble_space():
    """With the pseudo-inverse of the forecast's anomalies, of fewer members than variables."""
    ensemble, damping = np.random.default_rng(3).normal(size=(3, SIZE)), 0.7
    _, info = assimilate({"it": ETKF(rotation=False)}, Q, ensemble)["it"]
    later, expected = info.analysis[-1], [info.analysis[-1]]
    for k in range(CYCLES - 2, -1, -1):
        x, xf = (a - a.mean(0) for a in (info.analysis[k], info.forecast[k + 1]))
        gain = x.T @ np.linalg.pinv(xf.T, rcond=1e-6)
        later = info.analysis[k] + damping * (later - info.forecast[k + 1]) @ gain.T
        expected.append(later)
    np.testing.assert_allclose(ensemble_rts(info, damping), expected[::-1], atol=1e-7)


B = 0.3 * np.eye(SIZE) + 0.2


MEMBERS = 4000


def stderr(cov):
    """Of the sample covariance of `MEMBERS` normal draws (Isserlis)."""
    return np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / MEMBERS)


@pytest.fixture(scope="module")
def drawn():
    """The filters of normal laws, of which `info` shows draws."""
    climate = jnp.arange(SIZE, dtype=float), jnp.asarray(B)
    filters = {
        "3D": Var3D(jnp.asarray(B)),
        "4D": Var4D(jnp.asarray(B), 2),
        "climatology": Climatology(*climate),
        "interpolation": OptimalInterpolation(*climate),
    }
    out = assimilate(filters, ensemble=np.repeat(X0, MEMBERS // N, 0))
    return {name: info for name, (_, info) in out.items()}


@pytest.mark.parametrize("lag", [0, 2], ids=["3D", "4D"])
def test_variational_analyses_are_kalman_updates(drawn, lag):
    """With B at the beginning of each window, whatever was learned before."""
    info = drawn["4D" if lag else "3D"]
    mean, first = X0.mean(0), 0
    for k in range(CYCLES):
        if lag == 0 or k - first == lag:
            mean, first = A @ mean, first + 1
        ahead = np.linalg.matrix_power(A, k + 1 - first)
        np.testing.assert_allclose(info.forecast[k].mean(0), ahead @ mean, atol=1e-8)
        mean, cov = update(mean, B, H @ ahead, k)
        np.testing.assert_allclose(info.analysis[k].mean(0), ahead @ mean, atol=1e-6)
        for draws, exact in ((info.analysis[k], cov), (info.forecast[k], B)):
            exact = ahead @ exact @ ahead.T
            assert np.all(np.abs(np.cov(draws.T) - exact) < 4 * stderr(exact))


def test_baselines_have_the_moments_of_the_climate(drawn):
    mean = np.arange(SIZE, dtype=float)
    plain, used = drawn["climatology"], drawn["interpolation"]
    for k in range(CYCLES):
        for draws in (plain.forecast[k], plain.analysis[k], used.forecast[k]):
            np.testing.assert_allclose(draws.mean(0), mean, atol=1e-10)
            assert np.all(np.abs(np.cov(draws.T) - B) < 4 * stderr(B))
        after, cov = update(mean, B, H, k)  # whatever came before
        np.testing.assert_allclose(used.analysis[k].mean(0), after, atol=1e-10)
        assert np.all(np.abs(np.cov(used.analysis[k].T) - cov) < 4 * stderr(cov))
        innovation = np.where(MASK[k], Y[k] - H @ mean, 0.0)
        np.testing.assert_allclose(plain.innovation[k], innovation, atol=1e-10)
        np.testing.assert_allclose(used.innovation[k], innovation, atol=1e-10)


def test_windows_refuse():
    for make in (lambda: EnKS(ETKF(), 0), lambda: IEnKS(0), lambda: Var4D(jnp.eye(2), 0)):
        with pytest.raises(ValueError, match="lag is 0, expected a whole number"):
            make()
    with pytest.raises(ValueError, match="the modes of a GETKF are those of one state"):
        EnKS(GETKF(WIDE))
    with pytest.raises(ValueError, match="lag is 1.5"):
        IEnKS(1.5)
    with pytest.raises(ValueError, match="iterations is 0"):
        IEnKS(iterations=0)
