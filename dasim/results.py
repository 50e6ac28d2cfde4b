"""The NetCDF file of a method: created whole, filled chunk by chunk, scored at the end.

The classic 64-bit format (CDF-5) has a fixed layout: a file opened again after a crash and
written on is, byte for byte, the file that an undisturbed run writes, and a disk that cannot
hold it says so before the first cycle.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import netCDF4
import numpy as np

from dasim.diagnostics import Scores, energy_score, score, summarize, time_mean
from dasim.problems import Problem, RealSensors
from dasim.reportable import EVENTS
from dasim.types import DasimError, DataError
from dasim.withheld import chances, event_scores, score_table

FILL = np.float32(netCDF4.default_fillvals["f4"])
DEGREES = {"latitude": "degrees_north", "longitude": "degrees_east"}
ENERGY_MEMBERS = 50  # drawn for the energy score, whose cost grows with their square


@contextmanager
def _opened(path: Path, mode: str, **options) -> Iterator[netCDF4.Dataset]:
    try:
        with netCDF4.Dataset(path, mode, **options) as file:
            yield file
    except IndexError as error:
        raise DataError(
            f"{path}: not a run's whole file ({error}); run without --resume to write it again"
        ) from None
    except (OSError, RuntimeError) as error:
        raise DasimError(
            f"{path}: cannot be written ({error}); free some space or choose another --out, then "
            "go on with --resume: the cycles written so far are kept"
        ) from None


def _labels(file, name: str, dimension: str, values):
    values = [v.encode() for v in values]
    width = max(1, *map(len, values))
    if f"{name}_length" not in file.dimensions:
        file.createDimension(f"{name}_length", width)
    variable = file.createVariable(name, "S1", (dimension, f"{name}_length"))
    variable[:] = netCDF4.stringtochar(np.array(values, f"S{width}"))
    variable.long_name = name.replace("_", " ")


class MethodFile:
    """One method's `NAME.nc`."""

    def __init__(self, path: Path, problem: Problem, members: int, save_forecast: bool):
        self.path, self.problem, self.members = path, problem, members
        self.real = isinstance(problem, RealSensors)
        self.save_forecast = save_forecast
        if self.real:
            self.space = self.verified = ("withheld", "variable")
            if problem.axes is not None:
                self.space = ("withheld", *problem.axes)
        else:
            one = "site" if len(problem.shape) == 1 and problem.shape[0] > 9 else "variable"
            names = (
                [one] if len(problem.shape) == 1 else [f"x{i}" for i in range(len(problem.shape))]
            )
            self.space = self.verified = tuple(names)

    def create(self, name: str, kind: str, burn_in: int):
        """Write the header, the coordinates, and fill values everywhere else."""
        problem = self.problem
        with _opened(self.path, "w", format="NETCDF3_64BIT_DATA") as file:
            file.Conventions = "CF-1.11"
            file.title = f"dasim: {name} ({kind})"
            file.method, file.kind, file.burn_in = name, problem.kind, np.int32(burn_in)
            file.createDimension("realization", self.members)
            file.createDimension("time", problem.n_cycles)
            realization = file.createVariable("realization", "i4", ("realization",))
            realization.standard_name, realization.units = "realization", "1"
            realization[:] = np.arange(self.members)
            time = file.createVariable("time", "f8", ("time",))
            time[:] = np.asarray(problem.observations.time, float)
            scored = file.createVariable("scored", "i1", ("time",))
            scored.long_name = "cycle counts in the scores"
            scored[:] = problem.scored.astype("i1")
            if self.real:
                self._real_header(file, time)
            else:
                self._twin_header(file, time)
            state = ("realization", "time", *self.space)
            for stage in ("analysis", "forecast") if self.save_forecast else ("analysis",):
                self._field(file, stage, state, f"{stage} ensemble")
            for stage in ("analysis", "forecast"):
                for field in Scores._fields:
                    self._field(
                        file,
                        f"{field}_{stage}",
                        ("time", *self.verified),
                        f"{field} of the {stage}",
                    )
                if not self.real:
                    self._field(file, f"energy_{stage}", ("time",), f"energy score of the {stage}")
            evidence = ("time", "withheld") if self.real else ("time",)
            if self.real and problem.censored:
                file.createDimension("event", len(EVENTS))
                _labels(file, "event", "event", list(EVENTS))
                what = "probability of the event at the withheld station, of the analysis"
                self._field(file, "chance", ("time", "withheld", "event"), what)
            self._field(file, "log_evidence", evidence, "log p(y_k | y_1:k-1)")
            seen = ("time", "withheld", "variable") if self.real else ("time", "obs")
            used = file.createVariable("used", "i1", seen)
            used.long_name = "observation counted: it was there, and quality control kept it"
            used[:] = 0
            if problem.error_estimation is not None:
                self._field(file, "observation_bias", seen, "bias that was taken off")
                self._field(file, "learned_std", seen, "error std that was used")

    def _field(self, file, name, dimensions, long_name):
        variable = file.createVariable(name, "f4", dimensions, fill_value=FILL)
        variable.long_name = long_name
        if not self.real:
            variable.units = "1"
        return variable

    def _twin_header(self, file, time):
        problem = self.problem
        time.units, time.long_name = "1", "model time"
        for dimension, size in zip(self.space, problem.shape, strict=True):
            file.createDimension(dimension, size)
            index = file.createVariable(dimension, "i4", (dimension,))
            index.units, index.long_name = "1", f"index of the {dimension}"
            index[:] = np.arange(size)
        file.createDimension("obs", len(problem.obs_coords))
        if problem.sites is not None:
            site = file.createVariable("observation_site", "i4", ("obs",))
            site.units, site.long_name = "1", "index of the observed variable in the flat state"
            site[:] = problem.sites
        else:
            file.createDimension("axis", problem.positions.shape[1])
            place = file.createVariable("observation_position", "f8", ("obs", "axis"))
            place.units, place.long_name = "1", "position of the sensor in the system's box"
            place[:] = problem.positions
        self._field(file, "truth", ("time", *self.space), "true state")[:] = problem.truth
        observed = self._field(file, "observation", ("time", "obs"), "observed value")
        mask = problem.masks[0]
        observed[:] = np.where(mask, np.asarray(problem.observations.value), FILL)

    def _real_header(self, file, time):
        problem = self.problem
        time.units = f"hours since {problem.epoch:%Y-%m-%d %H:%M:%S}"
        time.calendar, time.standard_name = "standard", "time"
        file.createDimension("withheld", len(problem.folds))
        file.createDimension("variable", len(problem.station))
        _labels(file, "withheld", "withheld", problem.folds)
        _labels(file, "variable", "variable", problem.sensors)
        _labels(file, "station", "variable", problem.station)
        _labels(file, "quantity", "variable", problem.quantity)
        _labels(file, "units", "variable", [problem.units[q] for q in problem.quantity])
        what = "observation error std; zero where members are draws of the report itself"
        space = ("time", "variable")
        std = self._field(file, "observation_std", space[-problem.added_std.ndim :], what)
        std[:] = problem.added_std
        observed = self._field(file, "observation", space, "report, own units")
        observed[:] = np.where(np.isfinite(problem.values), problem.values, FILL)
        if problem.axes is not None:
            self._grid_header(file)

    def _grid_header(self, file):
        problem = self.problem
        for name, values in problem.axes.items():
            file.createDimension(name, len(values))
            axis = file.createVariable(name, "f8", (name,))
            axis.standard_name, axis.units = name, DEGREES[name]
            axis[:] = values
        for name, unit in DEGREES.items():
            place = file.createVariable(f"sensor_{name}", "f8", ("variable",))
            place.standard_name, place.units = name, unit
            place[:] = getattr(problem, name)
        fold = file.createVariable("fold", "i4", ("time", "variable"))
        fold.long_name = "number of the fold that withholds the sensor, -1 where none does"
        fold[:] = np.where(problem.withheld.any(0), problem.withheld.argmax(0), -1)
        members = ("realization", "time", "variable")
        self._field(file, "analysis_withheld", members, "analysis ensemble at withheld sensors")

    def check(self):
        """Refuse a file that does not hold this run's variables."""
        with _opened(self.path, "r") as file:
            shape = file["analysis"].shape[:2], file["log_evidence"].shape[0]
            expected = (self.members, self.problem.n_cycles), self.problem.n_cycles
            if shape != expected:
                raise IndexError(f"dimensions {shape}, expected {expected}")

    def write(
        self,
        start: int,
        forecast: np.ndarray,
        analysis: np.ndarray,
        log_evidence: np.ndarray,
        used: np.ndarray,
    ):
        """Fill the cycles from `start` on.

        Args:
            forecast, analysis: `(fold, cycle, member, *state)`.
            log_evidence: `(fold, cycle)`.
            used: `(fold, cycle, obs)`.
        """
        n = min(analysis.shape[1], self.problem.n_cycles - start)
        rows = slice(start, start + n)
        with _opened(self.path, "r+") as file:
            for stage, ensemble in (("analysis", analysis), ("forecast", forecast)):
                raw = np.moveaxis(ensemble[:, :n], 2, 0)
                members = self.problem.sensed(raw, rows) if self.real else raw[:, 0]
                for field, values in zip(Scores._fields, self._verify(members, rows), strict=True):
                    file[f"{field}_{stage}"][rows] = np.where(np.isfinite(values), values, FILL)
                if not self.real:
                    values = energy_score(self._drawn(members), self.problem.truth[rows])
                    file[f"energy_{stage}"][rows] = np.where(np.isfinite(values), values, FILL)
                if stage == "analysis" and self.real and self.problem.censored:
                    values = chances(self.problem, ensemble[:, :n], rows)
                    file["chance"][rows] = np.where(np.isfinite(values), values, FILL)
                if self.space != self.verified:
                    if stage == "analysis":
                        own = self.problem.withheld[:, rows].argmax(0)[:, None]
                        own = np.take_along_axis(members, own[None], 2)[:, :, 0]
                        file["analysis_withheld"][:, rows] = np.where(np.isfinite(own), own, FILL)
                    members = self.problem.law["mean"] + np.moveaxis(raw, 1, 2)
                if stage == "analysis" or self.save_forecast:
                    file[stage][:, rows] = np.where(np.isfinite(members), members, FILL)
            file["used"][rows] = np.swapaxes(used[:, :n], 0, 1) if self.real else used[0, :n]
            evidence = log_evidence[:, :n].T if self.real else log_evidence[0, :n]
            file["log_evidence"][rows] = np.where(np.isfinite(evidence), evidence, FILL)

    def write_learned(self, start: int, bias: np.ndarray, std: np.ndarray):
        """Fill in what a method learned of the errors, `(fold, cycle, obs)`, from `start` on."""
        n = min(bias.shape[1], self.problem.n_cycles - start)
        with _opened(self.path, "r+") as file:
            for name, values in ("observation_bias", bias), ("learned_std", std):
                if self.real:
                    values = np.swapaxes(values * self.problem.unit, 0, 1)
                file[name][start : start + n] = (values if self.real else values[0])[:n]

    def _drawn(self, members):
        """At most `ENERGY_MEMBERS` of the members, the same at each cycle.

        At random, because resampling leaves members in an order. The expectation of a fair
        score does not depend on their number.
        """
        if self.members <= ENERGY_MEMBERS:
            return members
        return members[np.random.default_rng(0).permutation(self.members)[:ENERGY_MEMBERS]]

    def _verify(self, members, rows) -> Scores:
        if not self.real:
            return score(members, self.problem.truth[rows])
        # a report is compared with members that carry its error, too
        noise = np.random.default_rng([rows.start, 7]).normal(size=members.shape)
        value = np.broadcast_to(self.problem.values[rows][:, None], members.shape[1:])
        std = self.problem.added_std
        std = std if std.ndim == 1 else std[rows][:, None]
        with_error = score(members + noise * std, value)
        bare = members.mean(0) - value
        return with_error._replace(error=bare)

    def read(self, name: str) -> np.ndarray:
        """A variable as a float array, NaN where it was not computed."""
        try:
            with netCDF4.Dataset(self.path) as file:
                if name not in file.variables:
                    raise DataError(f"{self.path}: variable {name} is missing; not a run's file")
                return np.ma.filled(np.ma.asarray(file[name][:], float), np.nan)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error}); run it again") from None

    def scores(self) -> dict:
        """The method's entries of `scores.json`, time averages over the scored cycles."""
        scored = self.problem.scored
        out = {}
        for stage in ("analysis", "forecast"):
            fields = Scores(*(self.read(f"{f}_{stage}")[scored] for f in Scores._fields))
            if self.real:
                keep = np.moveaxis(self.problem.withheld[:, scored], 0, 1)
                scale = self.problem.scale
                fields = fields._replace(
                    error=fields.error / scale,
                    variance=fields.variance / scale**2,
                    crps=fields.crps / scale,
                )
            else:
                keep = np.ones((), bool)
            axes = tuple(range(1, fields.error.ndim))
            for key, value in summarize(fields, axes, keep).items():
                metric = key.removesuffix("_stderr")
                out[f"{metric}_{stage}{key[len(metric) :]}"] = value
            if not self.real:
                mean, stderr = time_mean(self.read(f"energy_{stage}")[scored])
                out |= {f"energy_{stage}": mean, f"energy_{stage}_stderr": stderr}
        evidence = self.read("log_evidence")[scored]
        out["log_evidence"] = float(np.nanmean(evidence)) if np.isfinite(evidence).any() else None
        return out

    def withheld_scores(self) -> dict[str, dict[str, dict[str, float]]]:
        """Real sensors: scores of each fold at what it withholds, in own units."""
        scored = self.problem.scored
        fields = Scores(*(self.read(f"{f}_analysis")[scored] for f in Scores._fields))
        out = {}
        for f, name in enumerate(self.problem.folds):
            own = Scores(*(a[:, f] for a in fields))
            out[name] = score_table(own, self.problem.quantity, self.problem.withheld[f][scored])
        return out

    def withheld_events(self) -> dict[str, dict[str, dict[str, float]]]:
        """Real sensors: Brier scores of the events at each withheld station."""
        return event_scores(self.problem, self.read("chance"))
