"""Trained priors of functions: measured laws, training, and files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dasim.fields import Grid, SquaredExponential, noise_process
from dasim.functions import (
    FunctionSpec,
    OperatorSpec,
    load_function_prior,
    measured_law,
    read_spec,
    save_function_prior,
    train_function_prior,
)
from dasim.priors import DiffusionPrior, on_grid, sample
from dasim.priors.field_training import field_loss
from dasim.priors.operators import FourierNetwork
from dasim.priors.store import read_header
from dasim.priors.train import FitSettings
from dasim.transitions import DiffusionTransition
from dasim.types import DataError

N, BOX = 16, 1.0
SMALL = OperatorSpec((2,), 8, 1)
SPECS = {
    "state": FunctionSpec((N,), (BOX,), SMALL, n_steps=6),
    "transition": FunctionSpec(
        (N,), (BOX,), SMALL, interval=0.5, mean=SMALL, inner=(N,), gains=True
    ),
}
WHITE = FunctionSpec(
    (N,),
    (BOX,),
    SMALL,
    noise={"kind": "white"},
    law={"kind": "measured"},
    gains=True,
    balanced=True,
    n_steps=24,
)
FIT = FitSettings(n_steps=400, batch=64, learning_rate=3e-2, ema=0.95, check=200)


@pytest.fixture(scope="module", autouse=True)
def sooner_compiled():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(
    "grid",
    [Grid((32,), (2.0,)), Grid((32,), (2.0,), "bounded"), Grid((16, 16), (2.0, 2.0))],
    ids=["periodic", "bounded", "2-d"],
)
def test_a_law_is_measured(grid):
    n = 1000
    law = noise_process(SquaredExponential(0.1), grid, 1.3)
    x = jax.jit(jax.vmap(law.sample))(jax.random.split(jax.random.key(0), n))
    noise = measured_law(x, grid)
    k = np.asarray(noise["wavenumbers"])
    highest = min(np.abs(a).max() for a in grid.wavenumbers)
    assert (np.diff(k) > 0).all() and k[-1] < highest
    square = sum(np.meshgrid(*(a**2 for a in grid.wavenumbers), indexing="ij"))
    spec = FunctionSpec(grid.shape, grid.lengths, SMALL, grid.edges, noise)
    made = np.asarray(noise_process(spec.spectrum(noise), grid, 1.3).values)
    # a wave is that of one or two numbers a draw
    known = np.sqrt(square) <= k[-1]
    largest = np.asarray(law.values).max()
    allowed = 5 * np.sqrt(2 / n) * law.values + 2e-3 * largest
    assert (np.abs(made - law.values) < allowed)[known].all()


def signs(key, n):
    """One or minus one all over, and small noise: two modes."""
    sign_key, noise_key = jax.random.split(key)
    sign = jnp.sign(jax.random.normal(sign_key, (n, 1)))
    return sign + 0.3 * jax.random.normal(noise_key, (n, N))


def states(key, n):
    return jnp.zeros((n, 0)), signs(key, n)


def steps(key, n):
    """A wave turned by an eighth, plus signs."""
    phase_key, sign_key = jax.random.split(key)
    phase = 2 * jnp.pi * jax.random.uniform(phase_key, (n, 1))
    wave = jnp.sqrt(2.0) * jnp.sin(2 * jnp.pi * jnp.arange(N) / N + phase)
    return wave, jnp.roll(wave, N // 8, -1) + 0.5 * signs(sign_key, n)


DRAWS = {"state": states, "transition": steps}


@pytest.fixture(scope="module")
def trained():
    """Of each kind: the prior, its specification, the figures, held-out pairs, and the reports."""
    made = {}
    for kind, draw in DRAWS.items():
        held_out, told = draw(jax.random.key(1), 512), []
        report = lambda *news, told=told: told.append(news)
        fits = (FIT, FIT) if kind == "transition" else (FIT,)
        found = train_function_prior(
            SPECS[kind], draw, held_out, jax.random.key(2), *fits, report=report
        )
        made[kind] = (*found, held_out, told)
    return made


@pytest.mark.parametrize("kind", SPECS)
def test_training_finds_what_is_not_gaussian(trained, kind):
    prior, spec, figures, held_out, told = trained[kind]
    assert isinstance(prior, DiffusionPrior if kind == "state" else DiffusionTransition)
    assert spec.noise["kind"] == "tabulated" and SPECS[kind].noise["kind"] == "measured"
    assert figures["steps"] == 400 and figures["held_out"] == 512
    stages = ["residual"] if kind == "state" else ["mean", "residual"]
    assert [(news[0], news[1:3]) for news in told] == [
        (stage, (step, 400)) for stage in stages for step in (200, 400)
    ]
    network = prior.denoiser.network.network
    new = jax.tree.map(jnp.zeros_like, network.last)
    zero = eqx.tree_at(lambda d: d.network.network.last, prior.denoiser, new)
    loss = eqx.filter_jit(lambda d: field_loss(d, prior.schedule, held_out, jax.random.key(5)))
    before, after = loss(zero), loss(prior.denoiser)
    # of a Gaussian of this size it would be 1; a noise of 5 % at 512 pairs cancels in the ratio
    assert before == pytest.approx(1, abs=0.1)
    assert after < 0.95 * before
    assert figures["denoising_loss"] == pytest.approx(float(after), rel=0.1)  # other noise


def test_a_trained_mean_and_the_size_of_what_it_leaves(trained):
    prior, _, figures, (cond, target), _ = trained["transition"]
    mean = jax.vmap(lambda x: prior.mean(x, jnp.zeros(())))(cond)
    left = float(jnp.sqrt(jnp.mean((target - mean) ** 2)))
    assert figures["rmse_mean"] == pytest.approx(left, rel=1e-4)
    np.testing.assert_allclose(prior.denoiser.noise.values.mean(), left**2, rtol=1e-4)
    # what the mean cannot know has a mean square of 1.09 / 4
    exact, turned = np.sqrt(1.09) / 2, np.sqrt(2 - 2 * np.cos(np.pi / 4) + 1.09 / 4)
    assert figures["rmse_persistence"] == pytest.approx(turned, rel=0.02)
    assert figures["rmse_mean"] == pytest.approx(exact, rel=0.1)
    assert figures["mean_loss"] == pytest.approx((exact / turned) ** 2, rel=0.2)


@pytest.mark.parametrize("kind", SPECS)
def test_a_prior_comes_back_from_its_file(trained, kind, tmp_path):
    prior, spec, _, (cond, _), _ = trained[kind]
    path = tmp_path / "prior.safetensors"
    save_function_prior(path, prior, spec, {"data": {"description": "signs"}})
    header = read_header(path)
    assert header["data"] == {"description": "signs"} and read_spec(header) == spec
    loaded = load_function_prior(path, header)
    assert jax.tree.structure(loaded) == jax.tree.structure(prior)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(prior), strict=True):
        np.testing.assert_array_equal(a, b)
    draw = eqx.filter_jit(
        lambda p: sample(p.denoiser, p.schedule, cond[0], jax.random.key(3), p.n_steps)
    )
    np.testing.assert_array_equal(draw(loaded), draw(prior))
    assert on_grid(loaded, (2 * N,)).shape == (2 * N,)


def test_a_file_of_another_size_is_refused(trained, tmp_path):
    path = tmp_path / "prior.safetensors"
    save_function_prior(path, *trained["state"][:2], {})
    header = read_header(path)
    header["spec"]["residual"]["channels"] = 5
    with pytest.raises(DataError, match="prior.safetensors: array .* has shape"):
        load_function_prior(path, header)


def test_draws_have_the_spectrum_of_the_fields():
    """Under a noise of another law, after no training to speak of."""
    fit = FitSettings(n_steps=50, batch=64, learning_rate=3e-2, check=50)
    held_out = states(jax.random.key(1), 512)
    prior, spec, _ = train_function_prior(WHITE, states, held_out, jax.random.key(2), fit)
    assert spec.noise["kind"] == "white" and spec.law["kind"] == "tabulated"
    assert float(jnp.abs(prior.denoiser.gains.values).max()) > 0
    keys = jax.random.split(jax.random.key(3), 2000)
    draw = lambda key: sample(prior.denoiser, prior.schedule, None, key, prior.n_steps)
    x = eqx.filter_jit(jax.vmap(draw))(keys)
    power = lambda x: np.mean(np.abs(np.fft.rfft(np.asarray(x))) ** 2, 0)
    np.testing.assert_allclose(
        power(x)[:-1], power(states(jax.random.key(4), 2000)[1])[:-1], rtol=0.15
    )


def test_a_specification_makes_what_it_says():
    spec = FunctionSpec(
        (12, 16),
        (1.0, 2.0),
        OperatorSpec((3, 4), 5, 2, located=True),
        "bounded",
        {"kind": "matern", "length": 0.2, "smoothness": 1.0},
        inner=(24, 32),
        schedule="vp",
        n_steps=7,
    )
    prior = spec.build(jax.random.key(0))
    network = prior.denoiser.network.network
    assert isinstance(prior, DiffusionPrior) and isinstance(network, FourierNetwork)
    assert prior.shape == (12, 16) and prior.n_steps == 7
    assert network.inner == Grid((24, 32), (1.0, 2.0), "bounded") and network.located
    assert network.modes == (3, 4) and len(network.waves) == 2
    assert prior.denoiser.noise.spectrum.smoothness == 1.0
    draw = jax.eval_shape(
        lambda key: sample(prior.denoiser, prior.schedule, None, key, 1), jax.random.key(0)
    )
    assert draw.shape == (192,)
