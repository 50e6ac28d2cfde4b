"""Errors that are not Gaussian: laws by quadrature, sites, and the filters that use them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import dasim
from dasim import observe
from dasim.events import PointwiseEvent
from dasim.events.pointwise import site
from dasim.filters import BootstrapParticleFilter, ConditionalScoreFilter, StochasticEnKF
from dasim.models import LinearGaussian
from dasim.transitions import ModelTransition

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(0)


def wrapped(y, c, std, low=None, high=None):
    turns = 360.0 * np.arange(-3, 4)
    if low is None:
        return stats.norm.pdf(y - c + turns, 0, std).sum()
    return (
        stats.norm.cdf(high - c + turns, 0, std) - stats.norm.cdf(low - c + turns, 0, std)
    ).sum()


def huber_shape(z, k=1.345):
    return np.exp(-0.5 * z**2 if z <= k else 0.5 * k**2 - k * z)


HUBER = 2 * sum(integrate.quad(huber_shape, *ends)[0] for ends in ((0, 1.345), (1.345, np.inf)))


def huber(y, c, std=0.7):
    return huber_shape(abs(y - c) / std) / HUBER / std


normal = stats.norm
LAWS = {
    "student": (observe.StudentT(0.5, 3.0), 1.7, lambda y, c: stats.t.pdf((y - c) / 0.5, 3) / 0.5),
    "student, far": (
        observe.StudentT(0.5, 3.0), 9.0, lambda y, c: stats.t.pdf((y - c) / 0.5, 3) / 0.5,
    ),
    "huber": (observe.Huber(0.7), 1.1, huber),
    "huber, far": (observe.Huber(0.7), 6.0, huber),
    "saturated": (observe.Censored(0.3, high=1.0), 1.0, lambda y, c: normal.sf(1.0, c, 0.3)),
    "below detection": (observe.Censored(0.3, low=-2.0), -2.0, lambda y, c: normal.cdf(-2, c, 0.3)),
    "not censored": (observe.Censored(0.3, high=1.0), 0.4, lambda y, c: normal.pdf(0.4, c, 0.3)),
    "quantised": (
        observe.Quantised(2.0, 0.3),
        2.0,
        lambda y, c: normal.cdf(3, c, 0.3) - normal.cdf(1, c, 0.3),
    ),
    "yes": (observe.Threshold(1.5, 0.2), 1.0, lambda y, c: normal.sf(1.5, c, 0.2)),
    "no": (observe.Threshold(-1.5, 0.2), 0.0, lambda y, c: normal.cdf(-1.5, c, 0.2)),
    "count": (observe.Poisson(), 3.0, lambda y, c: stats.poisson.pmf(3, c) if c > 1e-3 else 0.0),
    "no count": (observe.Poisson(), 0.0, lambda y, c: stats.poisson.pmf(0, c) if c > 1e-3 else 0.0),
    "direction": (observe.Circular(8.0), 355.0, lambda y, c: wrapped(y, c, 8.0)),
    "rounded direction": (
        observe.Circular(8.0, step=10.0), 0.0, lambda y, c: wrapped(y, c, 8.0, -5.0, 5.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_laws_and_sites_by_quadrature(name):
    """log Z, and moments of c after the reading, for c ~ N(mean, var) of several widths."""
    error, y, p = LAWS[name]
    unit = 20.0 if "direction" in name else 1.0
    for mean, std in ((0.3 * unit, 1.0 * unit), (1.2 * unit, 0.2 * unit)):
        points = np.linspace(mean - 9 * std, mean + 9 * std, 5001)
        prior = normal.pdf(points, mean, std)
        weight = prior * np.array([p(y, c) for c in points])
        z = np.trapezoid(weight, points)
        value, m, v = (jnp.array([a]) for a in (y, mean, std**2))
        got = error.log_z(value, m, v, None)[0]
        np.testing.assert_allclose(got, np.log(z), atol=2e-3)
        after = np.trapezoid(weight * points, points) / z
        spread = np.trapezoid(weight * (points - after) ** 2, points) / z
        shift, precision, _ = site(error, value, m, v)
        total = 1 / v + precision
        if spread < 0.999 * std**2:  # else no site of positive precision has these moments
            # a reading that leaves the variance as it is has a site that takes up to a 20th
            np.testing.assert_allclose(1 / total[0], spread, rtol=0.06)
            np.testing.assert_allclose((m / v + shift)[0] / total[0], after, atol=0.02 * std)
    exact = error.log_z(jnp.array([y]), jnp.array([0.4 * unit]), jnp.zeros(1), None)[0]
    np.testing.assert_allclose(exact, np.log(p(y, 0.4 * unit)), atol=1e-3)


@pytest.mark.parametrize("name", LAWS)
def test_samples_follow_the_law(name):
    """Frequencies of readings near `y`, or equal to it, against the law."""
    error, y, p = LAWS[name]
    c = {"student, far": 1.0, "huber, far": 0.5, "direction": 350.0, "rounded direction": 352.0}
    exact, n = c.get(name, 0.8), 20000
    drawn = np.asarray(error.sample(jnp.full(n, exact), 0.0, KEY))
    if name in ("student", "student, far", "huber", "huber, far", "not censored", "direction"):
        width = 0.2 * (20 if name == "direction" else 1)
        around = exact + width if name.endswith("far") or name == "not censored" else y
        around = min(around, 0.85) if name == "not censored" else around
        inside = np.mean(np.abs(drawn - around) < width / 2)
        wanted = integrate.quad(
            lambda v: error_density(error, v, exact), around - width / 2, around + width / 2
        )[0]
    else:
        inside, wanted = np.mean(drawn == y), p(y, exact)
    assert abs(inside - wanted) < 4 * np.sqrt(max(wanted, 1e-4) / n)


def error_density(error, value, c):
    return float(np.exp(error.log_z(jnp.array([value]), jnp.array([c]), jnp.zeros(1), None)[0]))


def event_of(error, value, n=1):
    select = observe.Select(range(n))
    obs = dasim.Observations(jnp.zeros(()), jnp.asarray(value, float), jnp.ones(n, bool))
    return observe.Observation(select, error).event(obs)


def test_propagation_in_two_dimensions():
    """Sites under a correlated normal law, against the exact moments on a grid."""
    cov, mean = np.array([[1.0, 0.8], [0.8, 1.5]]), np.array([0.2, -0.3])
    event = event_of(observe.Threshold(0.5, 0.2), [1.0, 0.0], 2)
    near = event.sites(jnp.asarray(mean), jnp.asarray(cov))
    precision = np.linalg.inv(cov) + np.linalg.inv(near.cov.dense())
    posterior = np.linalg.inv(precision)
    middle = posterior @ (
        np.linalg.solve(cov, mean) + np.linalg.solve(near.cov.dense(), near.value)
    )
    axis = np.linspace(-6, 6, 601)
    a, b = np.meshgrid(axis, axis, indexing="ij")
    density = stats.multivariate_normal(mean, cov).pdf(np.stack([a, b], -1))
    density *= normal.sf(0.5, a, 0.2) * normal.cdf(0.5, b, 0.2)
    z = density.sum() * 0.02**2
    exact = np.array([(density * x).sum() * 0.02**2 / z for x in (a, b)])
    second = [
        (density * (x - e) ** 2).sum() * 0.02**2 / z for x, e in zip((a, b), exact, strict=True)
    ]
    np.testing.assert_allclose(middle, exact, atol=0.03)
    np.testing.assert_allclose(np.diag(posterior), second, rtol=0.06)
    got = event.log_prob(jnp.asarray(mean), jnp.asarray(cov))
    np.testing.assert_allclose(got, np.log(z), atol=0.03)


def test_gaussian_values_among_others_stay_exact():
    error = observe.Joint([(dasim.Gaussian(std=0.5), (0, 2)), (observe.Quantised(1.0, 0.1), (1,))])
    event = event_of(error, [0.3, 1.0, -0.2], 3)
    near = event.sites(jnp.zeros(3), jnp.eye(3) + 0.5)
    np.testing.assert_allclose(np.asarray(near.value)[[0, 2]], [0.3, -0.2], atol=1e-9)
    np.testing.assert_allclose(near.cov.diagonal()[jnp.array([0, 2])], 0.25, rtol=1e-9)


def test_masked_values_do_nothing():
    select, error = observe.Select(range(2)), observe.Threshold(0.0, 0.1)
    mask = jnp.array([True, False])
    obs = dasim.Observations(jnp.zeros(()), jnp.array([1.0, np.nan]), mask)
    event = observe.Observation(select, error).event(obs)
    cov = jnp.array([[1.0, 0.0], [0.0, 0.0]])
    assert np.isfinite(event.log_prob(jnp.zeros(2), cov))
    alone = event_of(error, [1.0])
    np.testing.assert_allclose(
        event.log_prob(jnp.zeros(2), cov), alone.log_prob(jnp.zeros(1), cov[:1, :1]), rtol=1e-6
    )


CASES = {
    "saturated": (observe.Censored(0.3, high=0.5), [0.5, 0.1]),
    "yes and no": (observe.Threshold(0.6, 0.2, climate=(0.0, 1.0)), [1.0, 0.0]),
    "quantised": (observe.Quantised(2.0, 0.2), [2.0, 0.0]),
    "student": (observe.StudentT(0.3, 3.0), [0.4, 5.0]),
}


@pytest.fixture(scope="module")
def stepped():
    """One jitted step for all filters and errors."""
    return eqx.filter_jit(lambda f, tr, ob, state, obs, key: f.step(tr, ob, state, obs, key))


@pytest.mark.parametrize(
    ("name", "weighted"),
    [("saturated", False), ("yes and no", False), ("student", False), ("quantised", True)],
)
def test_the_conditional_score_filter_uses_the_event(name, weighted, stepped):
    """Moments of the analysis of a linear model against weights of 100,000 draws."""
    error, value = CASES[name]
    transition = ModelTransition(
        LinearGaussian(np.array([[0.9, 0.2], [-0.2, 0.9]]), 0.05 * np.eye(2))
    )
    observation = dasim.Observation(dasim.Select(range(2)), error)
    cov = np.array([[1.0, 0.3], [0.3, 0.8]])
    obs = dasim.Observations(jnp.asarray(1.0), jnp.asarray(value), jnp.ones(2, bool))
    start = jax.random.multivariate_normal(KEY, jnp.zeros(2), jnp.asarray(cov), (400,))
    filter = ConditionalScoreFilter(weighted=weighted, inflation=1.0)
    _, info = stepped(filter, transition, observation, filter.init(start, KEY), obs, KEY)
    first = jax.random.multivariate_normal(
        jax.random.key(1), start.mean(0), jnp.cov(start.T), (100_000,)
    )
    keys = jax.random.split(jax.random.key(2), len(first))
    ahead = jax.vmap(transition.sample, (0, None, 0))(first, 0.0, keys)
    event = observation.event(obs)
    assert isinstance(event, PointwiseEvent)
    log_p = jax.vmap(lambda x: event.log_prob(event.constraint(x), None))(ahead)
    w = np.asarray(jax.nn.softmax(log_p))
    mean = w @ np.asarray(ahead)
    std = np.sqrt(w @ (np.asarray(ahead) - mean) ** 2)
    drawn = np.asarray(info.analysis)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.2 * std.max() + 0.02)
    np.testing.assert_allclose(drawn.std(0), std, rtol=0.2)
    assert np.isfinite(info.log_evidence)


@pytest.mark.parametrize("name", CASES)
def test_an_enkf_takes_the_stand_in(name, stepped):
    error, value = CASES[name]
    transition = ModelTransition(LinearGaussian(0.9 * np.eye(2), 0.05 * np.eye(2)))
    observation = dasim.Observation(dasim.Select(range(2)), error)
    obs = dasim.Observations(jnp.asarray(1.0), jnp.asarray(value), jnp.ones(2, bool))
    start = jax.random.normal(KEY, (50, 2))
    filter = StochasticEnKF()
    with pytest.warns(observe.StandInWarning, match=type(error).__name__):
        _, info = filter.step(transition, observation, filter.init(start, KEY), obs, KEY)
    assert np.isfinite(info.analysis).all()
    assert (info.analysis.std(0) < start.std(0)).all()


def test_stand_ins():
    plain = observe.Quantised(3.0, 0.3).gaussian(jnp.array([6.0]), None)
    np.testing.assert_allclose(plain[1], np.sqrt(0.09 + 0.75))
    # under a wide climate the site of an interval has the moments of a uniform law
    wide = observe.Quantised(3.0, 0.3, climate=(0.0, 300.0)).gaussian(jnp.array([6.0]), None)
    np.testing.assert_allclose(wide, [[6.0], [np.sqrt(0.09 + 0.75)]], rtol=1e-3)
    with pytest.raises(ValueError, match="no Gaussian stand-in"):
        observe.Threshold(1.0, 0.1).gaussian(jnp.array([1.0]), None)
    near = observe.Circular(10.0).near(jnp.array([355.0]), jnp.array([3.0]))
    np.testing.assert_allclose(near, 363.0)


def test_a_particle_filter_weighs_by_the_event(stepped):
    transition = ModelTransition(LinearGaussian(np.eye(1), 0.1 * np.eye(1)))
    observation = dasim.Observation(dasim.Select([0]), observe.Threshold(0.5, 0.1))
    obs = dasim.Observations(jnp.asarray(1.0), jnp.ones(1), jnp.ones(1, bool))
    filter = BootstrapParticleFilter()
    start = jax.random.normal(KEY, (20_000, 1))
    _, info = stepped(filter, transition, observation, filter.init(start, KEY), obs, KEY)
    p = normal.sf(0.5, 0, np.sqrt(1 + 0.1 + 0.01))
    np.testing.assert_allclose(info.log_evidence, np.log(p), atol=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: observe.Censored(0.1), "give low, high or both"),
        (lambda: observe.Censored(0.1, 2.0, 1.0), "expected below high"),
        (lambda: observe.Quantised(0.0, 0.1), "step is 0.0"),
        (lambda: observe.StudentT(-1.0), "scale is -1.0"),
        (lambda: observe.Huber(1.0, 0.0), "k is 0.0"),
        (lambda: observe.Circular(1.0, step=-1), "step is -1"),
        (lambda: observe.Joint([(dasim.Gaussian(std=1.0), (0, 2))]), r"values \[0, 2\]"),
        (lambda: observe.Joint([(dasim.Gaussian(cov=np.eye(1)), (0,))]), "has std, not cov"),
        (lambda: observe.along_track(1.0, np.zeros(2), 5.0), "two values at one distance"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_errors_along_a_track():
    cov = observe.along_track(2.0, np.array([0.0, 1.0, 3.0]), 2.0, 0.25).cov
    np.testing.assert_allclose(np.diag(cov), 4.0)
    np.testing.assert_allclose(cov[0, 2], 4 * 0.75 * np.exp(-1.5))


RUN = """
name: sensors
system: {kind: lorenz63, interval: 0.1}
observe: {sites: [0, 2], std: 0.5}
cycle: {n_cycles: 6}
members: 10
methods: [{name: EnKF, kind: StochasticEnKF}]
"""


def problem(tmp_path, *settings):
    from dasim import config as schema
    from dasim.problems import make_problem

    (tmp_path / "run.yaml").write_text(RUN)
    run = schema.read(tmp_path / "run.yaml", schema.Run, list(settings))
    return make_problem(run, KEY)


def test_errors_of_a_config(tmp_path):
    found = problem(tmp_path, "observe.error={kind: censored, high: 25}").observation.error
    assert isinstance(found, observe.Censored) and float(found.high) == 25
    mean, std = found.climate
    np.testing.assert_allclose(mean, [0.0, 23.5], atol=1.0)  # Lorenz-63's x and z
    np.testing.assert_allclose(std, [7.9, 8.6], atol=0.6)
    twin = problem(tmp_path, "observe.error={kind: quantised, step: 4, stand_in: plain}")
    assert twin.observation.error.climate is None
    np.testing.assert_array_equal(np.asarray(twin.observations.value) % 4, 0)
    huber = problem(tmp_path, "observe.error={kind: huber, k: 2}").observation.error
    assert isinstance(huber, observe.Huber) and huber.k == 2


def test_quality_control_of_a_config(tmp_path):
    given = "quality_control={range: [-15, 15], blacklist: [0], background: 4, most: 0.3}"
    twin = problem(tmp_path, given)
    value = np.asarray(twin.observations.value)
    wanted = (np.abs(value) <= 15) & (np.arange(2) != 0)
    np.testing.assert_array_equal(twin.masks[0], wanted)
    (check,) = twin.observation.checks
    assert isinstance(check, observe.BackgroundCheck) and check.limit == 4 and check.most == 0.3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("observe.error={kind: censored}", "give low, high or both"),
        ("observe.error={kind: censord, low: 1}", "censord"),
        ("quality_control={range: [3, 1]}", "the lower end first"),
        ("quality_control={stuck: 1}", "greater than or equal to 2"),
    ],
)
def test_configs_that_make_no_sense(tmp_path, setting, message):
    from dasim.config import ConfigError

    with pytest.raises(ConfigError, match=message):
        problem(tmp_path, setting)
