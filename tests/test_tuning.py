"""Tuning: compiled scores against `dasim.cycle` and NumPy, the search, and the command."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from dasim import config as schema
from dasim import cycle, diagnostics, tuned, tuning
from dasim.build import make_filter
from dasim.cli import app

RUN = {
    "name": "tiny",
    "seed": 4,
    "system": {"kind": "lorenz63", "dt": 0.02, "interval": 0.1},
    "observe": {"every": 2, "std": 1.0},
    "cycle": {"n_cycles": 20, "burn_in": 5, "initial_std": 1.0},
    "members": 8,
    "methods": [
        {"name": "plain", "kind": "DEnKF"},
        {"name": "relaxed", "kind": "DEnKF", "inflation": {"kind": "rtps", "alpha": 0.5}},
        {"name": "climate", "kind": "Climatology"},
    ],
    "tune": {"seeds": 2, "grid": {"inflation": [1.0, 1.1], "inflation.alpha": [0.2, 0.4]}},
}
HUGE = 1e12  # an inflation that overflows


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Compiling costs more than running."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def config(**changes):
    return schema.Run(**RUN | changes)


def tuning_of(grid, **others):
    return schema.Tune(grid=grid, **others)


@pytest.fixture(scope="module")
def problems():
    return tuning.twins(config(), 2)


# --- what is measured ---


def by_hand(run, method, problems):
    """The same scores from `dasim.cycle` and the diagnostics, truth by truth."""
    found = []
    for s, problem in enumerate(problems):
        key = jax.random.fold_in(jax.random.key(run.seed + s), run.members)
        ensemble = problem.ensemble(run.members, jax.random.fold_in(key, 1))
        filter, transition = make_filter(method, problem), problem.transition("model")
        key = jax.random.fold_in(key, 2)
        about = transition, problem.observation, ensemble, problem.observations
        _, info = cycle(filter, *about, key)
        out = {}
        for stage in ("forecast", "analysis"):
            members = np.moveaxis(np.asarray(getattr(info, stage)), 1, 0)
            scores = diagnostics.score(members, problem.truth)
            scores = diagnostics.Scores(*(a[problem.scored] for a in scores))
            for name, value in diagnostics.summarize(scores, (1,), np.ones((), bool)).items():
                metric = name.removesuffix("_stderr")
                out[f"{metric}_{stage}{name[len(metric) :]}"] = value
        found.append(out)
    return found


def test_scores_are_those_of_cycle_and_diagnostics(problems, monkeypatch):
    """Of settings that run together and apart, in batches that do not divide them."""
    monkeypatch.setattr(tuning, "CPU_BATCH", 2)
    run, seen = config(), []
    plain, relaxed = run.methods[:2]
    tried = [tuning.with_settings(plain, {"inflation": a}) for a in (1.0, 1.1, 1.3)]
    tried.insert(1, relaxed)
    rows = tuning.measure(run, tried, problems, lambda *at: seen.append(at))
    assert seen == [(2, 4), (3, 4), (4, 4)]
    for method, row in zip(tried, rows, strict=True):
        alone = by_hand(run, method, problems)
        assert row["diverged"] == 0
        each = [one["rmse_analysis"] for one in alone]
        np.testing.assert_allclose(row["rmse_of_seeds"], each, rtol=1e-3)
        for name in (f"{m}_{s}" for m in tuning.METRICS for s in ("forecast", "analysis")):
            mean = np.mean([one[name] for one in alone])
            np.testing.assert_allclose(row[name], mean, rtol=1e-3, err_msg=name)
            error = np.hypot(*(one[f"{name}_stderr"] for one in alone)) / 2
            np.testing.assert_allclose(row[f"{name}_stderr"], error, rtol=1e-2, err_msg=name)
    assert len({row["rmse_analysis"] for row in rows}) == 4


@pytest.mark.parametrize("members", [2, 5, 40])
def test_compiled_fair_crps(members):
    rng = np.random.default_rng(members)
    ensemble, truth = rng.normal(size=(members, 6)), rng.normal(size=6)
    found = jax.jit(tuning.fair_crps)(*(jnp.asarray(a, jnp.float32) for a in (ensemble, truth)))
    expected = diagnostics.fair_crps(ensemble, truth).mean()
    np.testing.assert_allclose(found, expected, rtol=2e-5)


# --- what is tried ---


def test_the_grid_of_a_method():
    run = config()
    plain, relaxed, climate = run.methods
    assert tuning.candidates(plain, run.tune) == [{"inflation": 1.0}, {"inflation": 1.1}]
    # plain numbers do not replace its section
    assert tuning.candidates(relaxed, run.tune) == [
        {"inflation.alpha": 0.2},
        {"inflation.alpha": 0.4},
    ]
    assert tuning.candidates(climate, run.tune) == []
    section = {"kind": "rtpp", "alpha": 0.1}
    tune = tuning_of({"inflation": [1.0, section], "localization_radius": [None, 2, 4]})
    for method in (plain, relaxed):
        found = tuning.candidates(method, tune)
        assert len(found) == 6
        assert found[-1] == {"inflation": section, "localization_radius": 4}


def test_random_settings():
    method = schema.LETKFMethod(name="a", kind="LETKF")
    grid = {
        "inflation": [1.3, 1.0, 1.1],
        "block": [1, 5],
        "localization_radius": [1, 2.5],
        "rotation": [True, False],
    }
    tune = tuning_of(grid, random=200)
    found = tuning.candidates(method, tune, 3)
    assert len(found) == 200
    inflation, block, radius, rotation = (np.array([s[k] for s in found]) for k in grid)
    assert {type(s["block"]) for s in found} == {int} and set(block) == {1, 2, 3, 4, 5}
    assert {type(s["rotation"]) for s in found} == {bool} and 70 < rotation.sum() < 130
    for values, low, high in ((inflation, 1.0, 1.3), (radius, 1.0, 2.5)):
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high >= values.max() > high - 0.1 * (high - low)
    assert len(set(inflation)) > 150
    assert found == tuning.candidates(method, tune, 3) != tuning.candidates(method, tune, 4)


def test_random_settings_of_a_narrow_range():
    tune = tuning_of({"inflation": [1.0000001, 1.0000002]}, random=20)
    for settings in tuning.candidates(config().methods[0], tune):
        assert 1.0000001 <= settings["inflation"] <= 1.0000002


def test_settings_of_sections():
    relaxed = config().methods[1]
    found = tuning.with_settings(relaxed, {"inflation.alpha": 0.9, "localization_radius": 3})
    assert (found.inflation.alpha, found.inflation.kind) == (0.9, "rtps")
    assert (found.localization_radius, found.name) == (3.0, "relaxed")
    assert relaxed.inflation.alpha == 0.5  # as it was


@pytest.mark.parametrize(
    ("of", "settings", "message"),
    [
        (0, {"inflation.alpha": 0.5}, "inflation.alpha names a section that plain does not have"),
        (0, {"inflation": -1}, "plain cannot have inflation=-1: .*greater than 0"),
        (1, {"inflation.alpha": 3}, "relaxed cannot have inflation.alpha=3: .*less than or equal"),
        (1, {"inflation.beta": 3}, "relaxed cannot have inflation.beta=3: Extra"),
        (0, {"members": "many"}, "plain cannot have members=many: .*integer"),
    ],
)
def test_settings_that_a_method_cannot_have(of, settings, message):
    with pytest.raises(schema.ConfigError, match=f"tune.grid: {message}"):
        tuning.with_settings(config().methods[of], settings)


def test_the_best_kept_every_truth():
    rows = [{"diverged": d, "crps_analysis": c, "rmse_analysis": -c} for d, c in
            [(0, 0.5), (1, 0.1), (0, 0.4), (0, np.nan)]]  # fmt: skip
    assert tuning.best(rows, "crps") == 2
    assert tuning.best(rows, "rmse") == 0
    assert tuning.best(rows[1:2], "crps") is None
    assert tuning.best([], "crps") is None


@pytest.mark.parametrize(
    ("grid", "settings", "expected"),
    [
        ({"inflation": [1.0, 1.1, 1.2]}, {"inflation": 1.1}, []),
        ({"inflation": [1.1, 1.2, 1.0]}, {"inflation": 1.2}, ["inflation"]),
        ({"inflation": [1.0, 1.1, 1.2]}, {"inflation": 1.0}, ["inflation"]),
        ({"inflation": [1.2]}, {"inflation": 1.2}, []),  # fixed, not a range
        ({"localization_radius": [1, 2, 3]}, {"localization_radius": 1}, ["localization_radius"]),
        ({"localization_radius": [None, 2, 3]}, {"localization_radius": None}, []),
        # where the grid ends at the setting's own end it cannot be widened
        ({"lag": [1, 2, 4]}, {"lag": 1}, []),
        ({"lag": [2, 4]}, {"lag": 2}, ["lag"]),
        ({"lag": [1, 2, 4], "inflation": [1.0, 2.0]}, {"lag": 4, "inflation": 1.0}, "both"),
        ({"rotation": [False, True]}, {"rotation": True}, []),
    ],
)
def test_edges_of_the_grid(grid, settings, expected):
    method = config(methods=[{"name": "a", "kind": "EnKS", "lag": 3}]).methods[0]
    expected = list(settings) if expected == "both" else expected
    assert tuning.edges(method, settings, tuning_of(grid)) == expected
    assert tuning.edges(method, settings, tuning_of(grid, random=3)) == []


# --- the command ---


def tune(tmp_path, *arguments, **changes):
    """`dasim tune` on a config; its exit code and output as one line."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RUN | changes))
    words = ["tune", path, "--out", tmp_path / "out", *arguments]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def test_the_command(tmp_path):
    """Two settings of one method, one setting of another, nothing of the third."""
    grid = {
        "inflation": [1.0, 1.05, HUGE],
        "localization_radius": [2, 8],
        "inflation.alpha": [0.3],
    }
    code, output = tune(tmp_path, tune={"seeds": 1, "grid": grid}, precision="float64")
    assert code == 0, output
    assert "plain: 6 of 6 settings, 1 truth" in output
    assert "climate: nothing to tune" in output
    assert "at the edge of the grid: widen tune.grid.localization_radius" in output
    assert jnp.zeros(()).dtype == jnp.float32  # float64 does not outlive the command

    folder = tmp_path / "out"
    result = json.loads((folder / "tune.json").read_text())
    assert (result["score"], result["seeds"]) == ("crps", 1)
    assert result["cycles"] == {"total": 20, "scored": 15}
    plain, relaxed, climate = (result["methods"][m["name"]] for m in RUN["methods"])
    assert (climate["rows"], climate["winner"]) == ([], None)
    lost = [r["scores"]["diverged"] for r in plain["rows"]]
    assert lost == [0, 0, 0, 0, 1, 1]
    assert plain["rows"][4]["scores"]["crps_analysis"] is None
    scores = [r["scores"]["crps_analysis"] for r in plain["rows"][:4]]
    assert plain["winner"] == np.argmin(scores) and len(set(scores)) == 4
    assert plain["settings"] == plain["rows"][plain["winner"]]["settings"]
    assert "localization_radius" in plain["edge"]
    assert sorted(p.name for p in folder.iterdir()) == [
        "plain.png", "relaxed.png", "tune.json", "tuned.yaml",
    ]  # fmt: skip
    assert (folder / "plain.png").read_bytes().startswith(b"\x89PNG")

    text = (folder / "tuned.yaml").read_text()
    assert text.startswith(f"# dasim tune {tmp_path / 'tiny.yaml'} --out {folder}\n")
    again = schema.read(folder / "tuned.yaml", schema.Run)
    given = schema.read(tmp_path / "tiny.yaml", schema.Run)
    assert again == tuned.with_methods(given, {
        m.name: tuning.with_settings(m, result["methods"][m.name]["settings"])
        for m in given.methods[:2]
    })  # fmt: skip
    assert again.methods[0].inflation == plain["settings"]["inflation"]
    assert again.methods[2] == given.methods[2]


def test_methods_that_lose_every_truth(tmp_path):
    lost = {"seeds": 1, "grid": {"inflation": [HUGE], "inflation.alpha": [0.2, 0.3]}}
    code, output = tune(tmp_path, tune=lost)
    assert code == 0 and "plain: every setting lost a truth; it keeps its own" in output
    again = schema.read(tmp_path / "out" / "tuned.yaml", schema.Run)
    assert again.methods[0].inflation == 1.0 and again.methods[1].inflation.alpha in (0.2, 0.3)

    code, output = tune(tmp_path, "--method", "plain", tune=lost)
    assert code == 1 and "no method could be tuned: every setting of plain lost" in output
    assert not (tmp_path / "out" / "tuned.yaml").exists()
    rows = json.loads((tmp_path / "out" / "tune.json").read_text())["methods"]["plain"]["rows"]
    assert [r["scores"]["diverged"] for r in rows] == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "tune.grid={inflatoin: [1.0]}"], "'inflatoin' as a setting .* 'inflation'"),
        (["--set", "tune.grid={inflation.alfa: [1.0]}"], "did you mean 'inflation.alpha'"),
        (["--set", "tune.grid={lag: [1]}"], "no method has 'lag' .*the methods have: inflation,"),
        (["--set", "tune.grid={kind: [ETKF]}"], "no method has 'kind'"),
        (["--set", "tune.grid={inflation: [0]}"], "plain cannot have inflation=0: .*greater"),
        (["--method", "plane"], "--method plane: the config has plain, relaxed, climate"),
        (["--method", "climate"], "nothing to tune: climate has none of the settings of tune.grid"),
        (["--set", "tune.seeds=0"], "tune.seeds: .*greater than 0"),
        (["--set", "tune.score=crpss"], "tune.score: 'crpss' .*did you mean 'crps'"),
        (
            ["--set", "methods.0.kind=EnKS", "--set", "tune.grid={lag: [1, 21]}"],
            r"tune.grid: methods\[0\].lag: 21 cycles are more than the run's 20",
        ),
    ],
)
def test_refusals(tmp_path, arguments, message):
    code, output = tune(tmp_path, *arguments)
    assert code == 1 and output.count("error:") == 1
    assert re.search(message, output), output
    assert not (tmp_path / "out").exists()


def test_real_sensors_have_no_truth(tmp_path):
    words = ["tune", "nyc-weather", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and "tune: needs a twin experiment" in result.output


def test_a_file_in_the_folders_way(tmp_path):
    (tmp_path / "out").write_text("mine")
    code, output = tune(tmp_path)
    assert code == 1 and "out: cannot be written" in output
    assert (tmp_path / "out").read_text() == "mine"
