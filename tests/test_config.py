"""Configs: what is refused, and how the message helps."""

import json
import re

import pytest
import yaml

from dasim import config as schema
from dasim.config import ConfigError, configs_folder, find_config, read

RUN = {
    "name": "tiny",
    "system": {"kind": "lorenz96", "size": 8, "interval": 0.1},
    "observe": {"every": 2, "std": 1.0},
    "cycle": {"n_cycles": 12},
    "members": 6,
    "methods": [
        {"name": "a", "kind": "ETKF"},
        {"name": "b", "kind": "LETKF", "inflation": 1.1},
        {"name": "s", "kind": "EnKS", "lag": 2},
    ],
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(RUN))
    return path


def load(path, *overrides):
    return read(path, schema.Run, overrides)


@pytest.mark.parametrize("shipped", sorted(configs_folder().rglob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_validate(shipped):
    kind = schema.Train if shipped.parent.name == "priors" else schema.Run
    assert read(shipped, kind).name == shipped.stem


def test_shipped_configs_are_found_by_name():
    assert find_config("nyc-weather") == configs_folder() / "nyc-weather.yaml"
    assert find_config("priors/nyc-weather").parent.name == "priors"
    with pytest.raises(ConfigError, match="nyc-wether: there is no such.*did you mean nyc-weather"):
        find_config("nyc-wether")


def test_defaults_and_overrides(path):
    settings = load(path)
    assert (settings.seed, settings.precision, settings.cycle.burn_in) == (0, "float32", 0)
    assert type(settings.methods[1]) is schema.LETKFMethod
    settings = load(
        path,
        "seed=5",
        "cycle.burn_in=3",
        "methods.1.inflation=1.25",
        "observe.std=0.5",
        "system.noise=0.1",
        "methods.0={name: c, kind: BootstrapParticleFilter, threshold: 0.8}",
    )
    assert (settings.seed, settings.cycle.burn_in, settings.methods[1].inflation) == (5, 3, 1.25)
    assert (settings.observe.std, settings.system.noise) == (0.5, 0.1)
    assert settings.methods[0].threshold == 0.8


def test_what_is_written_is_read_back(path, tmp_path):
    settings = load(path)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    assert load(again) == settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # unknown keys
        ("member=5", r"run.yaml: member: unknown key; did you mean 'members'\?.*valid here"),
        ("system.sise=5", r"system.sise: unknown key; did you mean 'size'\?"),
        ("system.rho=5", "system.rho: unknown key; .*valid here: dt, forcing, interval"),
        ("methods.1.inflatoin=1", r"methods\[1\].inflatoin: unknown key; did you mean 'inflation'"),
        ("methods.0.levels=3", r"methods\[0\].levels: unknown key"),
        ("cycle.burnin=1", "cycle.burnin: unknown key; did you mean 'burn_in'"),
        # wrong types
        ("members=many", "members: .*integer.*found 'many'"),
        ("members=2.5", "members: .*integer.*found 2.5"),
        ("system.forcing=[1]", r"system.forcing: .*number.*found \[1\]"),
        ("cycle=12", "cycle: .*found 12"),
        ("methods={}", "methods: .*list.*found {}"),
        # impossible values
        ("members=1", "members: .*greater than or equal to 2.*found 1"),
        ("cycle.n_cycles=0", "cycle.n_cycles: .*greater than 0.*found 0"),
        ("methods.1.inflation=-1", r"methods\[1\].inflation: .*greater than 0.*found -1"),
        ("methods.0.inflation=.nan", r"methods\[0\].inflation: .*finite"),
        ("observe.std=0", "observe.std.*greater than 0.*found 0"),
        ("observe.sites=[-1]", r"observe.sites\[0\]: .*greater than or equal to 0.*found -1"),
        ("system.size=3", "system.size: .*greater than or equal to 4.*found 3"),
        ("cycle.burn_in=12", "burn_in is 12, expected fewer than the 12 cycles"),
        ("cycle.n_cycles=null", "n_cycles is missing"),
        ("methods.2.lag=0", r"methods\[2\].lag: .*greater than 0, found 0"),
        ("methods.2.lag=13", r"yaml: methods\[2\].lag: 13 cycles are more than the run's 12 "),
        ("cycle.initial_std=0", "cycle.initial_std: .*greater than 0, found 0"),
        ("methods.1.name=a", "two methods have the name 'a'"),
        ("methods.1.name=../a", r"methods\[1\].name"),
        ("data={kind: nyc-weather}", "exactly one of system .* and data"),
        # kinds
        (
            "system.kind=lorenz69",
            "system.kind: 'lorenz69' is not one of lorenz63, lorenz96, .*kolmogorov.*; did you",
        ),
        (
            "methods.0.kind=LETFK",
            r"methods\[0\].kind: 'LETFK' is not one of .*did you mean 'LETKF'",
        ),
        (
            "system.kind=kolmogorof",
            "'kolmogorof' is not one of .*; did you mean 'kolmogorov'",
        ),
        # inflation is a number, a section or a list of both; no tag of the union is shown
        ("methods.0.inflation=many", r"methods\[0\].inflation: .*number.*found 'many'"),
        ("methods.0.inflation=[]", r"methods\[0\].inflation: .*at least 1 item"),
        ("methods.0.inflation={kind: rtps}", r"yaml: methods\[0\].inflation.alpha: is missing"),
        ("methods.0.inflation={alpha: 1}", r"yaml: methods\[0\].inflation.kind: is missing"),
        (
            "methods.0.inflation={kind: rtpss, alpha: 1}",
            r"methods\[0\].inflation.kind: 'rtpss' is not one of multiplicative, .*mean 'rtps'",
        ),
        (
            "methods.0.inflation={kind: adaptive, dampng: 1}",
            r"methods\[0\].inflation.dampng: unknown key; did you mean 'damping'\?",
        ),
        (
            "methods.0.inflation=[1.02, {kind: rtpp, alpha: 2}]",
            r"yaml: methods\[0\].inflation\[1\].alpha: .*less than or equal to 1.5, found 2",
        ),
        (
            "methods.0.inflation=[0, {kind: rtpp, alpha: 1}]",
            r"yaml: methods\[0\].inflation\[0\]: .*greater than 0, found 0",
        ),
        ("methods.0.inflation=[1.02, [1.1]]", r"methods\[0\].inflation\[1\]: .*valid number"),
        (
            "methods.0.inflation=[1.02, {kind: rtppp, alpha: 1}]",
            r"methods\[0\].inflation\[1\].kind: 'rtppp' is not .*did you mean 'rtpp'",
        ),
        # what tuning tries
        ("tune.gird={lag: [1]}", "tune.gird: unknown key; did you mean 'grid'"),
        ("tune.grid={}", "tune.grid: .*at least 1 item"),
        ("tune.grid={inflation: []}", "yaml: tune.grid.inflation: .*at least 1 item"),
        ("tune.grid={inflation: 1.1}", "yaml: tune.grid.inflation: .*valid list, found 1.1"),
        ("tune.random=0", "tune.random: .*greater than 0, found 0"),
        ("tune.score=crpss", "tune.score: 'crpss' is not one of crps, rmse; did you"),
        ("precision=float23", "precision: 'float23' is not one of float32, float64; did you mean"),
        ("observe.shift=2.0", "observe: .*shift and scale belong to a function other than"),
        ("observe.function=arctangent", "observe.function: .*did you mean 'arctan'"),
        # the overrides themselves
        ("members", "--set members: expected a.b=value"),
        ("members.x=1", "--set members.x=1: there is no"),
        ("methods.7.kind=ETKF", "--set methods.7.kind=ETKF: there is no '7'"),
        ("members={", "is not a YAML value"),
    ],
)
def test_refusals(path, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(path, override)
    assert not re.search("<[a-z]+>", str(caught.value))


@pytest.mark.parametrize(
    "inflation",
    [
        1.02,
        {"kind": "rtps", "alpha": 0.7},
        [1.02, {"kind": "additive", "std": 0.1}, {"kind": "rtpp", "alpha": 0.5}],
    ],
)
def test_kinds_of_inflation(path, tmp_path, inflation):
    settings = load(path, f"methods.0.inflation={json.dumps(inflation)}")
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    assert load(again) == settings
    assert settings.model_dump(exclude_unset=True)["methods"][0]["inflation"] == inflation


@pytest.mark.parametrize("key", ["name", "observe", "members", "methods"])
def test_a_missing_key_is_named(path, key):
    path.write_text(yaml.safe_dump({k: v for k, v in RUN.items() if k != key}))
    with pytest.raises(ConfigError, match=f"run.yaml: {key}: is missing"):
        load(path)


def test_a_missing_kind_is_named(path):
    path.write_text(yaml.safe_dump(RUN | {"system": {"size": 8, "interval": 0.1}}))
    with pytest.raises(ConfigError, match="system.*kind"):
        load(path)


def test_all_faults_are_told_at_once(path):
    with pytest.raises(ConfigError) as caught:
        load(path, "members=1", "seed=-1", "cycle.chunk=0")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "seed",
        "cycle.chunk",
        "members",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b", "expected a mapping of settings, found list"),
        ("", "expected a mapping of settings, found NoneType"),
        ("a: [1", "not YAML"),
    ],
)
def test_files_that_are_no_config(path, content, message):
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"run.yaml: {message}"):
        load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path.parent)


def test_weather_split():
    settings = {"kind": "nyc-weather", "train_days": 60, "of_days": 60}
    with pytest.raises(ValueError, match="train_days must be fewer than of_days"):
        schema.NYCWeather(**settings)
