"""Weather stations: their reports, one station withheld in each fold."""

from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dasim import config as schema
from dasim import models, observe, weather
from dasim.observe import Gaussian, Observation, Select, check_observations
from dasim.problems.base import checks, quality
from dasim.problems.sensors import RealSensors
from dasim.problems.wind import WindReports
from dasim.reportable import LIMITS
from dasim.transitions import ModelTransition
from dasim.types import DataError, Key, Observations


class WeatherStations(RealSensors):
    """The hourly reports of three airports, one of them withheld in each fold."""

    epoch, names = weather.EPOCH, weather.NAMES

    def __init__(self, run: schema.Run, key: Key):
        data, seen = run.data, run.observe
        if not seen.every is seen.sites is seen.positions is None:
            raise schema.ConfigError(
                "observe: every, sites and positions belong to a twin experiment"
            )
        if seen.error is not None:
            raise schema.ConfigError("observe.error belongs to a twin experiment")
        if run.cycle.initial_std is not None:
            raise schema.ConfigError("cycle.initial_std belongs to a twin experiment")
        self.reports = weather.load(data.path, data.train_days, data.of_days, data.censored)
        if isinstance(seen.withhold, schema.Folds):
            raise schema.ConfigError(
                f"observe.withhold: list stations, of {', '.join(weather.STATIONS)}; each of the "
                "three is a fold"
            )
        self.folds = tuple(seen.withhold or weather.STATIONS)
        for station in self.folds:
            if station not in weather.STATIONS:
                raise schema.ConfigError(
                    f"observe.withhold: there is no station {station!r}; "
                    f"the data have {', '.join(weather.STATIONS)}"
                )
        self.std = self._std(seen.std)
        self.index, self.scored, self.segment = self._windows(data.lead_in_hours)
        if run.cycle.n_cycles is not None:
            kept = max(1, run.cycle.n_cycles // self.segment)
            self.index, self.scored = (a[: kept * self.segment] for a in (self.index, self.scored))
            if run.cycle.n_cycles < self.segment:
                self.index, self.scored = (
                    a[: run.cycle.n_cycles] for a in (self.index, self.scored)
                )
                self.segment = run.cycle.n_cycles
            if not self.scored.any():
                raise schema.ConfigError(
                    f"cycle.n_cycles: {run.cycle.n_cycles} cycles are all of the lead-in, and none "
                    f"counts: give more than data.lead_in_hours, {data.lead_in_hours}"
                )
        values = self.reports.anomalies[self.index]
        present, std = np.isfinite(values), None  # the errors' own
        values = np.where(present, values, 0.0)
        operator, parts = Select(range(len(self.reports.variables))), self._errors(seen.readings)
        if seen.wind == "reported":
            operator = WindReports(self.reports)
            own = self.reports.values[self.index]
            values, present, std = operator.as_reported(
                values, own, present, self.std / self.reports.scale
            )
            parts = operator.errors(parts)
        self.observation = Observation(operator, self._joint(parts, seen.readings), checks(run))
        self.observations = Observations(
            jnp.asarray(self.reports.hours[self.index]),
            jnp.asarray(values),
            jnp.asarray(present),
            None if std is None else jnp.asarray(std),
        )
        check_observations(self.observations, len(self.reports.variables), "weather reports")
        names = [v.split(".") for v in self.reports.variables]
        self.station, self.quantity = (np.array(n) for n in zip(*names, strict=True))
        self.latitude, self.longitude = np.array([weather.PLACES[s] for s in self.station]).T
        self.units, self.censored = self.reports.quantities, self.reports.censored
        self.scale, self.unit = self.reports.reported_scale, self.reports.scale
        if run.quality_control is not None and run.quality_control.range is not None:
            raise schema.ConfigError(
                "quality_control.range belongs to a twin experiment: the quantities of real "
                "sensors have units of their own"
            )
        own = eqx.tree_at(
            lambda o: o.value, self.observations, jnp.asarray(self.reports.values[self.index])
        )
        self.codes = quality(run, own)
        good = self.codes == observe.Quality.PASSED
        own = self.station == np.array(self.folds)[:, None]
        self.masks = good & ~own[:, None]
        self.withheld = np.broadcast_to(own[:, None], self.masks.shape)
        self.hours = self.reports.hours[self.index]
        self.values = self.reported(self.reports.values[self.index])

    def _errors(self, readings: str) -> list[tuple[observe.AbstractError, list[int]]]:
        """Of anomalies, by variables; at a limit a report says no more than that it was passed."""
        reports, std = self.reports, self.std / self.reports.scale
        if not reports.censored:
            if readings != "events":
                raise schema.ConfigError(
                    "observe.readings: there are no censored reports; set data.censored"
                )
        plain = [j for j in range(len(std)) if j not in reports.censored]
        parts = [(Gaussian(std=std[plain]), plain)]
        for quantity, limits in LIMITS.items() if reports.censored else ():
            own = [j for j, q in reports.censored.items() if q == quantity]
            limits = {
                side: (limit - reports.cycle[0, own]) / reports.scale[own]
                for side, limit in limits.items()
            }
            climate = None if readings == "plain" else (0.0, 1.0)
            parts.append((observe.Censored(std[own], **limits, climate=climate), own))
        return parts

    @staticmethod
    def _joint(parts, readings: str) -> observe.AbstractError:
        if len(parts) == 1:
            return parts[0][0]
        error = observe.Joint(parts)
        return error if readings == "events" else observe.StandIn(error)

    def _std(self, std) -> np.ndarray:
        known = self.reports.quantities
        if not isinstance(std, dict):
            raise schema.ConfigError(
                f"observe.std: real sensors need one for each quantity: {', '.join(known)}"
            )
        unknown = sorted(set(std) - set(known))
        missing = sorted(set(known) - set(std))
        if unknown or missing:
            what = f"unknown variable {unknown[0]!r}" if unknown else f"{missing[0]} is missing"
            raise schema.ConfigError(f"observe.std: {what}; the data have {', '.join(known)}")
        return np.array([std[q] for _ in weather.STATIONS for q in known])

    def _windows(self, lead_in: int):
        test = ~self.reports.training
        index, scored, length = [], [], None
        for block in np.unique(self.reports.block[test]):
            hours = np.flatnonzero(test & (self.reports.block == block))
            window = np.arange(hours[0] - lead_in, hours[-1] + 1)
            length = len(window) if length is None else length
            if window[0] < 0 or len(window) != length:
                continue  # a block that the year's end cuts short
            index.append(window)
            scored.append(window >= hours[0])
        if not index:
            raise DataError("the reports hold no whole test block: lower data.of_days")
        return np.concatenate(index), np.concatenate(scored), length

    @property
    def added_std(self) -> np.ndarray:
        """Standard deviation of the error that members in own units lack, `(variable,)`."""
        return np.where(np.isin(np.arange(len(self.std)), list(self.reports.censored)), 0, self.std)

    def reported(self, values):
        return self.reports.reported(values)

    def sensed(self, members, rows):
        """In own units; of censored quantities with their errors, as they would be reported."""
        reports, index = self.reports, self.index[rows]
        own = np.moveaxis(members, 1, 2) * reports.scale + reports.cycle[index][:, None]
        if not self.censored:
            return own
        j = list(self.censored)
        noise = np.random.default_rng([rows.start, 8]).normal(size=(*own.shape[:-1], len(j)))
        own[..., j] += noise * self.std[j]
        return self.reported(own)

    @property
    def shape(self):
        return (len(self.reports.variables),)

    @property
    def interval(self):
        return 1.0

    @cached_property
    def _training_states(self) -> np.ndarray:
        a = self.reports.states[:, self.reports.training].reshape(-1, *self.shape)
        return a[np.isfinite(a).all(1)]

    def ensemble(self, members, key):
        picks = jax.random.randint(key, (members,), 0, len(self._training_states))
        return jnp.asarray(self._training_states)[picks]

    @cached_property
    def climate_moments(self):
        states = np.asarray(self._training_states, float)
        return states.mean(0), np.cov(states.T)

    def model(self, name):
        """The least-squares linear-Gaussian transition of the training pairs."""
        pairs, states = self.reports.pairs(), self.reports.states
        now, after = (states[:, i].reshape(-1, *self.shape) for i in (pairs, pairs + 1))
        regressors = np.concatenate([now, np.ones((len(now), 1))], 1)
        weights, *_ = np.linalg.lstsq(regressors, after, rcond=None)
        residual = after - regressors @ weights
        cov = residual.T @ residual / (len(residual) - regressors.shape[1])
        return ModelTransition(models.LinearGaussian(weights[:-1].T, cov, weights[-1]), 1)

    def localization(self, radius):
        raise schema.ConfigError(
            "localization_radius: three airports within 30 km have nothing to localise; "
            "leave it out"
        )

    @cached_property
    def references(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and std, `(time, variable)` each, of forecasts that use no other station."""
        reports = self.reports
        spread = np.broadcast_to(reports.scale, reports.values.shape)
        filled = np.empty_like(reports.values)
        filled[0] = reports.cycle[0]
        last = np.full(reports.values.shape[1], np.nan)
        for i, value in enumerate(reports.values):
            filled[i] = np.where(np.isnan(last), reports.cycle[i], last)
            last = np.where(np.isnan(value), last, value)
        error = np.nanstd((reports.values - filled)[reports.training], 0)
        persistence = filled, np.broadcast_to(error, filled.shape)
        both = {"climatology": (reports.cycle, spread), "persistence": persistence}
        return {name: (m[self.index], s[self.index]) for name, (m, s) in both.items()}
