"""What every filter owes its callers, with every kind of transition."""

import dataclasses
import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim import filters
from dasim.covariance import as_covariance
from dasim.cycling import cycle
from dasim.filters.base import AbstractFilter
from dasim.localization import Localization
from dasim.models import LinearGaussian, Lorenz63, Lorenz96
from dasim.observe import Gaussian, Observation
from dasim.priors import GaussianDenoiser
from dasim.trained import NetworkSpec, PriorSpec
from dasim.transitions import DiffusionTransition, ModelTransition
from dasim.types import Observations

MEMBERS, CYCLES, N_OBS = 6, 3, 2
KEY = jax.random.key(3)
WEIGHTED = "ConditionalScoreFilter weighted"


def make_filter(name, n):
    """A filter of a state of `n` numbers, with what it has of inflation and localisation."""
    local = Localization(2.0, np.arange(n), np.array([0, n - 1]), period=[n])
    mean, cov = jnp.ones(n), 0.3 + jnp.eye(n)
    relaxed = [filters.RTPS(0.5), filters.AdditiveInflation(as_covariance(0.1, n))]
    adaptive = filters.AdaptiveInflation(localization=local)
    options = {
        "BootstrapParticleFilter": {"threshold": 0.9, "bandwidth": 0.3},
        "ConditionalScoreFilter": {"evaluations": 300, "iterations": 2},
        WEIGHTED: {"localization": None, "weighted": True, "weighted_levels": 2, "draws": 2},
        "Climatology": {"mean": mean, "cov": cov},
        "OptimalInterpolation": {"mean": mean, "cov": cov},
        "Var3D": {"background": cov},
        "Var4D": {"background": cov, "lag": 2},
        "EnKS": {"filter": filters.ETKF(inflation=adaptive, localization=local), "lag": 2},
        "IEnKS": {"lag": 2, "iterations": 3, "certainty": 1.0, "rotation": True},
        "DEnKF": {"inflation": relaxed},
        "EnSF": {"steps": 20, "gaussian": True},
        "GuidedForecast": {"guidance": filters.MMPS(2), "n_steps": 6},
        "EAKF": {"inflation": adaptive},
        "GETKF": {"fraction": 0.9},
        "RHF": {"inflation": filters.RTPP(0.5), "rotation": True},
    }.get(name, {})
    kind = getattr(filters, name.partition(" ")[0])
    fields = {field.name for field in dataclasses.fields(kind)}
    general = {"inflation": 1.1, "localization": local}
    return kind(**{k: v for k, v in general.items() if k in fields} | options)


def edm():
    """An untrained prior whose network, zero at first, is made to give something."""
    network = NetworkSpec("conv", 4, 1, 3)
    spec = PriorSpec((4,), 0.5, (24.0,), alike=True, mean=network, residual=network, schedule="vp")
    made = spec.build(jax.random.key(1))
    weight = made.denoiser.network.last.weight
    return eqx.tree_at(lambda t: t.denoiser.network.last.weight, made, jnp.full_like(weight, 0.05))


def make_transition(name):
    if name == "lorenz63":
        return ModelTransition(Lorenz63(), 2)
    if name == "lorenz96":
        return ModelTransition(Lorenz96(4), 2)
    if name == "lorenz96-noise":
        return ModelTransition(Lorenz96(4), 1, noise=0.3)
    if name == "linear":
        return ModelTransition(LinearGaussian(0.9 * jnp.eye(4), cov=0.3))
    if name == "gaussian-prior":
        denoiser = GaussianDenoiser(jnp.ones(4), as_covariance(0.4, 4), 0.8 * jnp.eye(4))
        return DiffusionTransition(denoiser, 0.5, (4,))
    return edm()


TRANSITIONS = ("lorenz63", "lorenz96", "lorenz96-noise", "linear", "gaussian-prior", "edm-prior")
# of a filter that takes nothing but draws of its transition, as others do in all cases
ONE = ("lorenz96-noise",)
TWO = ("lorenz96-noise", "edm-prior")
THREE = ("lorenz63", *TWO)
FILTERS = {
    "StochasticEnKF": TRANSITIONS,
    "ETKF": TRANSITIONS,
    "LETKF": TRANSITIONS,
    "BootstrapParticleFilter": TRANSITIONS,
    "ConditionalScoreFilter": TRANSITIONS,
    WEIGHTED: THREE,
    "DEnKF": ONE,
    "EnKFN": ONE,
    "GETKF": ONE,
    "EAKF": ONE,
    "ESRF": ONE,
    "RHF": ONE,
    "GaussianMixtureFilter": ONE,
    "ExtendedKalmanFilter": TWO,
    "EnSF": ONE,
    "GuidedForecast": TWO,
    "EnKS": TWO,
    "IEnKS": TWO,
    "Var3D": TWO,
    "Var4D": TWO,
    "Climatology": ONE,
    "OptimalInterpolation": ONE,
}
CASES = [(name, transition) for name in FILTERS for transition in FILTERS[name]]
WHOLE = [name for name in FILTERS if FILTERS[name] == TRANSITIONS]
SMOOTHERS = ("EnKS", "IEnKS", "ConditionalScoreFilter")


class Case:
    """One filter with one transition, compiled once."""

    def __init__(self, name, transition_name):
        self.name, self.transition_name = name, transition_name
        self.transition = make_transition(transition_name)
        n = self.transition.shape[0]
        self.filter = make_filter(name, n)
        self.traces = 0

        def operator(x, t):
            self.traces += 1  # runs when traced, not when executed
            return jnp.stack([x[0], jnp.arctan(x[-1])])

        self.observation = Observation(operator, Gaussian(std=0.5))
        self.ensemble = 1.0 + jax.random.normal(jax.random.key(0), (MEMBERS, n))
        time = self.transition.interval * (1 + jnp.arange(CYCLES, dtype=float))
        value = jnp.asarray([[0.3, 0.8], [1.6, -0.9], [2.2, 0.1]])
        self.observations = Observations(time, value, jnp.ones((CYCLES, N_OBS), bool))
        self.state, self.info = self.run(self.observations, KEY)

    def run(self, observations, key):
        return cycle(
            self.filter, self.transition, self.observation, self.ensemble, observations, key
        )

    def masked(self, mask):
        return eqx.tree_at(lambda o: o.mask, self.observations, jnp.asarray(mask))


make_case = functools.cache(Case)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Many small programs, each run a few times: what is spent on optimising them is lost."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", params=CASES, ids=lambda p: f"{p[0]}-{p[1]}")
def case(request):
    return make_case(*request.param)


def equal(a, b):
    return all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_every_filter_is_here():
    exported = {
        name
        for name, value in vars(filters).items()
        if isinstance(value, type)
        and issubclass(value, AbstractFilter)
        and not inspect.isabstract(value)
    }
    # linear problems alone: tests/test_exactness.py; around another: tests/test_online.py
    assert exported - {"KalmanFilter", "OnlineErrors"} == set(FILTERS) - {WEIGHTED}


def test_shapes_and_dtypes(case):
    n = case.transition.shape[0]
    expected = {
        "forecast": (CYCLES, MEMBERS, n),
        "analysis": (CYCLES, MEMBERS, n),
        "innovation": (CYCLES, N_OBS),
        "log_evidence": (CYCLES,),
    }
    if case.name in SMOOTHERS:
        expected["smoothed"] = (CYCLES, MEMBERS, n)
    else:
        assert case.info.smoothed is None
    for field, shape in expected.items():
        array = getattr(case.info, field)
        assert (array.shape, array.dtype) == (shape, jnp.float32), field
        assert np.isfinite(array).all(), field
    initial = case.filter.init(case.ensemble, KEY)
    assert jax.tree.structure(case.state) == jax.tree.structure(initial)
    for after, before in zip(jax.tree.leaves(case.state), jax.tree.leaves(initial), strict=True):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)


def test_innovation_is_the_value_less_the_forecast_mean(case):
    x = np.asarray(case.info.forecast)
    seen = np.stack([x[..., 0], np.arctan(x[..., -1])], -1).mean(1)
    np.testing.assert_allclose(
        case.info.innovation, case.observations.value - seen, rtol=1e-4, atol=1e-5
    )


def test_an_observation_moves_the_analysis(case):
    change = np.abs(np.asarray(case.info.analysis - case.info.forecast))
    assert (change[0].max() > 1e-3) == (case.name != "Climatology")


def test_all_masked_cycle_keeps_the_forecast(case):
    mask = np.ones((CYCLES, N_OBS), bool)
    mask[0] = False
    _, info = case.run(case.masked(mask), KEY)
    assert np.array_equal(info.analysis[0], info.forecast[0])
    assert np.array_equal(info.innovation[0], np.zeros(N_OBS))
    assert abs(float(info.log_evidence[0])) < 1e-6
    assert np.array_equal(info.forecast[0], case.info.forecast[0])


def test_what_stands_under_a_false_mask_is_not_used(case):
    mask = np.array([[True, False], [False, False], [False, True]])
    plain = case.masked(mask)
    results = [case.run(plain, KEY)]
    for junk in (jnp.nan, jnp.inf, 1e30):
        value = jnp.where(plain.mask, plain.value, junk)
        results.append(case.run(eqx.tree_at(lambda o: o.value, plain, value), KEY))
    assert np.isfinite(results[0][1].analysis).all()
    assert all(equal(results[0], other) for other in results[1:])


def test_the_key_decides(case):
    assert equal(case.run(case.observations, KEY), (case.state, case.info))
    # several: six particles may by chance be chosen alike
    others = [case.run(case.observations, jax.random.key(seed)) for seed in range(4, 9)]
    deterministic = case.name == "LETKF" and case.transition_name in ("lorenz63", "lorenz96")
    assert all(equal(o, (case.state, case.info)) for o in others) == deterministic


def test_one_compilation(case):
    """Not one more for other observations, masks, seeds or first cycles."""
    other = Observations(
        case.observations.time + 7, case.observations.value - 1, ~case.observations.mask
    )
    case.run(case.observations, KEY)  # its program may have been forgotten: few_programs
    before = case.traces
    assert before > 0
    case.run(other, jax.random.key(9))
    assert case.traces == before


@pytest.mark.parametrize("name", WHOLE)
def test_compiled_equals_step_by_step(name):
    case = make_case(name, "gaussian-prior")
    init_key, key = jax.random.split(KEY)
    state = case.filter.init(case.ensemble, init_key)
    first = case.observations[0]
    _, info = case.filter.step(
        case.transition, case.observation, state, first, jax.random.fold_in(key, 0)
    )
    for a, b in zip(jax.tree.leaves(info), jax.tree.leaves(case.info), strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "transition_name"),
    [(k, "lorenz96-noise") for k in FILTERS] + [(k, "edm-prior") for k in WHOLE],
)
def test_float64_stays_float64(name, transition_name):
    with jax.enable_x64(True):
        transition = make_transition(transition_name)
        observation = Observation(lambda x, t: x[:2], Gaussian(std=0.5))
        filter = make_filter(name, 4)
        obs = Observations(jnp.zeros(()), jnp.zeros(N_OBS), jnp.ones(N_OBS, bool))
        state = filter.init(jnp.zeros((MEMBERS, 4)), KEY)
        after, info = eqx.filter_eval_shape(filter.step, transition, observation, state, obs, KEY)
        types = {leaf.dtype for leaf in jax.tree.leaves((after, info))}
        assert {t for t in types if jnp.issubdtype(t, jnp.inexact)} == {np.dtype("float64")}


def test_misfits_are_refused():
    transition = make_transition("linear")
    obs = Observations(jnp.zeros(1), jnp.zeros((1, 1)), jnp.ones((1, 1), bool))
    observation = Observation(lambda x, t: x[:1], Gaussian(std=1.0))
    with pytest.raises(ValueError, match=r"members have shape \(3,\).*\(4,\)"):
        cycle(filters.ETKF(), transition, observation, jnp.zeros((5, 3)), obs, KEY)
    with pytest.raises(ValueError, match="at least 2 members"):
        cycle(filters.ETKF(), transition, observation, jnp.zeros((1, 4)), obs, KEY)
    with pytest.raises(ValueError, match="inflation is 0"):
        filters.LETKF(inflation=0.0)
    with pytest.raises(ValueError, match="threshold is 2"):
        filters.BootstrapParticleFilter(threshold=2.0)
    with pytest.raises(ValueError, match="evaluations is 0"):
        filters.ConditionalScoreFilter(evaluations=0)
    with pytest.raises(ValueError, match="levels is 0"):
        filters.ConditionalScoreFilter(guide_levels=0)
    with pytest.raises(ValueError, match="lag is 2, expected 1 with weights"):
        filters.ConditionalScoreFilter(weighted=True, lag=2)
