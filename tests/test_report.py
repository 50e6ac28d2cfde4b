"""The report and its reductions, on synthetic runs whose numbers are known."""

import base64
import json
import re

import netCDF4
import numpy as np
import pytest
import yaml

from dasim import plot, report, verification

MEMBERS, TIMES = 9, 40


def new_file(path, kind):
    nc = netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_DATA")
    nc.setncatts({"Conventions": "CF-1.11", "title": "a test", "method": path.stem, "kind": kind})
    nc.burn_in = np.int32(5)
    nc.createDimension("label", 8)
    put(nc, "scored", "i1", time=np.arange(TIMES) >= 5)
    return nc


def put(nc, name, kind, dims=(), data=None, **coordinate):
    """Write a variable; `time=values` makes it one along that dimension."""
    if coordinate:
        ((dim, data),) = coordinate.items()
        dims = (dim,)
    data = np.ma.masked_invalid(data) if kind.startswith("f") else np.asarray(data)
    for dim, size in zip(dims, data.shape, strict=True):
        if dim not in nc.dimensions:
            nc.createDimension(dim, size)
    if kind == "S1":
        data = netCDF4.stringtochar(data.astype("S8"))
        dims = (*dims, "label")
    fill = 9.96921e36 if kind.startswith("f") else None
    variable = nc.createVariable(name, kind, dims, fill_value=fill)
    variable[:] = data
    return variable


def write_texts(folder, scores, **config):
    config = {"name": "run <1>", "seed": 0, "members": MEMBERS} | config
    config["cycle"] = {"n_cycles": TIMES, "burn_in": 5}
    scores["cycles"] = {"total": TIMES, "scored": TIMES - 5}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture
def twin(tmp_path):
    """Three methods on 12 sites: one sound, one that diverges at cycle 20, one without a file."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(TIMES, 12))
    for name in ("etkf", "lost"):
        with new_file(tmp_path / f"{name}.nc", "twin") as nc:
            put(nc, "time", "f8", time=np.arange(TIMES) * 0.05).units = "1"
            put(nc, "site", "i4", site=np.arange(12))
            ensemble = truth + rng.normal(size=(MEMBERS, TIMES, 12)) + rng.normal(size=truth.shape)
            if name == "lost":
                ensemble[:, 20:] = np.nan
            put(nc, "analysis", "f4", ("realization", "time", "site"), ensemble)
            put(nc, "truth", "f4", ("time", "site"), truth)
    scores = {
        "etkf": {"rmse_analysis": 0.2, "spread_analysis": 0.25, "crps_analysis": 0.123456},
        "lost": {"rmse_analysis": 0.1, "crps_analysis": float("nan"), "diverged_at": 20},
        "no file": {"rmse_analysis": 0.3, "crps_analysis": None},
    }
    return write_texts(tmp_path, {"methods": scores}, system={"kind": "lorenz96", "n": 12})


@pytest.fixture
def real(tmp_path):
    """Two stations with two sensors each; in fold A the members at A are the reports plus k - 4."""
    variables = ["A.temp", "A.wind", "B.temp", "B.wind"]
    rng = np.random.default_rng(2)
    observation = rng.normal(size=(TIMES, 4))
    ensemble = np.full((MEMBERS, TIMES, 2, 4), 1e6)  # the fold that must not be looked at
    offset = np.arange(MEMBERS)[:, None] - 4.0
    for i, fold in enumerate([0, 0, 1, 1]):
        ensemble[:, :, fold, i] = observation[:, i] + offset
    observation[7:9] = np.nan
    with new_file(tmp_path / "letkf.nc", "real") as nc:
        time = put(nc, "time", "f8", time=np.arange(TIMES))
        time.setncatts({"units": "hours since 2013-01-01", "standard_name": "time"})
        put(nc, "withheld", "S1", withheld=["A", "B"])
        put(nc, "variable", "S1", variable=variables)
        put(nc, "station", "S1", variable=["A", "A", "B", "B"])
        put(nc, "units", "S1", variable=["degC", "m s-1"] * 2)
        put(nc, "observation_std", "f4", variable=[0.0, 0.0, 0.0, 0.0])
        put(nc, "observation", "f4", ("time", "variable"), observation)
        put(nc, "analysis", "f4", ("realization", "time", "withheld", "variable"), ensemble)
    row = {"rmse": 1.0625, "crps": 0.5, "coverage_90": 0.9, "n": 33}
    withheld = {
        s: {
            "letkf": {"temp": row, "wind": row},
            "climatology": {"temp": row | {"rmse": 7.654}, "wind": row},
            "persistence": {"temp": row | {"coverage_90": None}},
        }
        for s in "AB"
    }
    units = dict(zip(variables, ["degC", "m s-1"] * 2, strict=True))
    scores = {"methods": {"letkf": {"rmse_analysis": 0.5}}, "withheld": withheld, "units": units}
    return write_texts(tmp_path, scores, data={"path": "stations.nc"})


def cells(page):
    """The rows of all tables as `(name, [text of each cell])`."""
    rows = re.findall(r"<tr>\s*<th><i[^>]*></i>(.*?)</th>(.*?)</tr>", page, re.DOTALL)
    return [(name, re.findall(r"<td>(.*?)</td>", row)) for name, row in rows]


def images(page):
    """The files inside the page, once it is certain that neither it nor they refer to others."""
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    data = [base64.b64decode(data) for data in re.findall(r'src="data:[^,]*,([^"]*)"', page)]
    assert len(data) == page.count("src=")
    assert not any(re.search(rb'href="(?!#)|<dc:date|<script', svg) for svg in data)
    return data


def test_spread_skill_bins_lie_on_the_line_of_a_calibrated_ensemble():
    rng = np.random.default_rng(4)
    spread = rng.uniform(1.0, 3.0, 100_000)
    x, y = plot.spread_skill_bins(np.append(spread, np.nan), np.append(spread, 1.0) * 1.5, bins=5)
    np.testing.assert_allclose(y, 1.5 * x)
    np.testing.assert_allclose(x, [1.204, 1.604, 2.003, 2.403, 2.803], atol=0.02)


def test_running_mean_skips_what_is_missing():
    values = np.array([1.0, 2.0, np.nan, 4.0, np.nan, np.nan, np.nan])
    expected = [1.5, 1.5, 3.0, 4.0, 4.0, np.nan, np.nan]
    np.testing.assert_allclose(plot.running_mean(values, 3), expected)


def test_richest_window_is_where_the_reports_are():
    times = np.datetime64("2013-01-01T00", "ns") + np.arange(24 * 60) * np.timedelta64(1, "h")
    present = np.zeros((len(times), 2), bool)
    present[500:900] = True
    assert report.richest_window(times, present) == slice(500, 500 + 14 * 24)


def test_twin_report(twin):
    path = report.write_report(twin)
    page = path.read_text()
    assert path == twin / "report.html"
    assert report.write_report(twin).read_text() == page
    sound, lost, no_file = cells(page)
    assert sound == ("etkf", ["<b>0.2000</b>", "0.2500", "1.250", "0.1235"])
    assert lost == ("lost (diverged at cycle 20)", ["0.1000", "\u2013", "\u2013", "\u2013"])
    assert no_file == ("no file", ["0.3000", "\u2013", "\u2013", "\u2013"])
    assert "without their files: no file." in page
    assert "run &lt;1&gt;" in page and "run <1>" not in page
    assert "kind lorenz96, n 12" in page and "9 members, 40 cycles of which 35 are scored" in page
    kinds = [data[:4] for data in images(page)]
    assert kinds == [b"<?xm"] * 3 + [b"\x89PNG"]


def test_twin_verification_is_the_ensemble_beside_the_truth(twin):
    v = verification.read_verification(twin / "lost.nc", band=True)
    with netCDF4.Dataset(twin / "lost.nc") as nc:
        ensemble, truth = nc["analysis"][:].filled(np.nan), nc["truth"][:]
    np.testing.assert_allclose(v.mean[:20], ensemble[:, :20].mean(0), atol=1e-6)
    np.testing.assert_allclose(v.variance[:20], ensemble[:, :20].var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(v.reference, truth)
    assert np.isnan(v.mean[20:]).all() and np.isnan(v.high[20:]).all()
    assert v.ranks.sum() == (20 - 5) * 12  # of the scored cycles before it diverged
    inside = (ensemble[:, :20] >= v.low[:20]) & (ensemble[:, :20] <= v.high[:20])
    assert np.all(inside.sum(0) == MEMBERS - 2)  # 5 % of 9 members lies inside the outermost two


def test_blocks_of_time_do_not_matter(twin, monkeypatch):
    whole = verification.read_verification(twin / "etkf.nc")
    monkeypatch.setattr(verification, "BLOCK", 7 * MEMBERS * 12)
    parts = verification.read_verification(twin / "etkf.nc")
    np.testing.assert_array_equal(whole.mean, parts.mean)
    np.testing.assert_array_equal(whole.ranks, parts.ranks)


def test_real_report(real):
    page = report.write_report(real).read_text()
    rows = cells(page)
    assert rows[0] == ("letkf", ["0.5000"])
    assert [name for name, _ in rows[1:]] == ["letkf", "climatology", "persistence"] * 2
    assert rows[1][1] == ["<b>1.062</b>", *["<b>0.5000</b>", "<b>0.9000</b>"], *rows[1][1][3:]]
    assert rows[2][1][0] == "7.654"
    assert rows[3][1][2:] == ["\u2013"] * 4
    assert "temp (degC), n = 33" in page and "wind (m s-1), n = 33" in page
    assert len(images(page)) == 3 + 2  # a figure of each station
    assert "letkf without station A" in page and "letkf without station B" in page


def test_real_verification_uses_the_fold_without_the_station(real):
    v = verification.read_verification(real / "letkf.nc", band=True)
    good = np.isfinite(v.reference)
    assert v.stations == ["A", "A", "B", "B"] and v.labels[1] == "wind (m s-1)"
    assert good.sum() == 4 * (TIMES - 2)
    np.testing.assert_allclose(v.mean[good], v.reference[good], atol=1e-5)
    np.testing.assert_allclose(v.variance, 7.5, rtol=1e-5)  # of -4..4
    assert v.ranks.sum() == 4 * (TIMES - 5 - 2)


def test_report_without_any_file(twin):
    for path in twin.glob("*.nc"):
        path.unlink()
    page = report.write_report(twin).read_text()
    assert len(cells(page)) == 3 and "<img" not in page


def test_report_of_methods_that_diverged_at_once(twin):
    for name in ("etkf", "lost"):
        with netCDF4.Dataset(twin / f"{name}.nc", "a") as nc:
            nc["analysis"][:] = np.ma.masked
    assert report.write_report(twin).read_text().count("<img") == 4
