r"""Any file of observations: one variable as a Gaussian field on a grid, some of it withheld.

The state is the variable's anomaly from a mean, on a regular grid of latitude and longitude whose
outermost points are the edges of a box. Its climate is N(0, C), C Matern's covariance in km on the
plane (longitude times the cosine of the box's middle latitude), and it forgets itself as an
autoregression: `dasim.models.AutoregressiveField`. What this leaves out, the earth's curvature and
all dynamics, a box of a continent's size and hours bear.
"""

from dataclasses import replace
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from dasim import config as schema
from dasim import observe
from dasim.fields import Grid, Matern, noise_process
from dasim.fields.variogram import Variogram, fit_variogram
from dasim.localization import Localization
from dasim.models import AutoregressiveField
from dasim.observe import Gaussian, Observation, check_observations
from dasim.operators import Interpolate
from dasim.problems.base import checks, quality
from dasim.problems.chosen import chosen, cycle_times, folds, nothing, why_none
from dasim.problems.sensors import RealSensors
from dasim.sensors import ObsTable, read_observations, to_cycles
from dasim.transitions import ModelTransition
from dasim.types import DataError, Key, Observations

DEGREE = 111.195  # km of latitude, of a sphere of 6371 km


class ObservedField(RealSensors):
    """One variable of a file of observations, as a field."""

    def __init__(self, run: schema.Run, key: Key):
        data, seen = run.data, run.observe
        _refuse_others(run)
        table = read_observations(data.path, data.columns)
        unit = table.units.get(data.variable, "")
        table, box = chosen(table, data)
        times = cycle_times(table, data)[: run.cycle.n_cycles]
        half = pd.Timedelta(data.cycles.every) / 2
        within = table.select(between=(times[0] - half, times[-1] + half))
        if seen.std is not None:
            within = replace(within, frame=within.frame.assign(std=np.nan))
        try:
            cut = to_cycles(within, times, half, several=data.several, good=data.good)
        except DataError as error:
            raise DataError(f"{error}, or set observe.std for all") from None
        if not np.asarray(cut.observations.mask).any():
            nothing(table, data, why_none(within, table, times, data))
        self.epoch = times[0]
        self.hours = np.asarray((times - times[0]) / pd.Timedelta("1h"), float)
        self.every = data.cycles.every
        self.station = np.array([station for station, _ in cut.slots])
        self.quantity = np.array([variable for _, variable in cut.slots])
        self.units, self.names = {data.variable: unit}, {data.variable: data.variable}
        self.latitude = cut.latitude
        self.longitude = box.longitude[0] + np.mod(cut.longitude - box.longitude[0], 360)
        observed = np.asarray(cut.observations.mask)
        self.values = np.where(observed, np.asarray(cut.observations.value, float), np.nan)
        self.scale = np.ones(len(self.station))
        self.std = self.added_std = self._errors(seen.std, cut.observations.std, table)
        self._lay_grid(box, data)
        self._find_law(data.field, table)
        operator = Interpolate(
            list(self.axes.values()), np.stack([self.latitude, self.longitude], 1)
        )
        self.weights = csr_array(
            (
                np.asarray(operator.weights, float).ravel(),
                np.asarray(operator.indices).ravel(),
                4 * np.arange(len(self.station) + 1),
            ),
            (len(self.station), np.prod(self.shape)),
        )
        error = Gaussian(std=self.std.mean(0))
        self.observation = Observation(operator, error, checks(run))
        self.observations = Observations(
            jnp.asarray(self.hours),
            jnp.asarray(np.where(observed, self.values - self.mean, 0.0)),
            jnp.asarray(observed),
            None if cut.observations.std is None else jnp.asarray(self.std),
        )
        check_observations(self.observations, len(self.station), table.source)
        own = eqx.tree_at(lambda o: o.value, self.observations, cut.observations.value)
        self.codes = quality(run, own)
        passed = self.codes == observe.Quality.PASSED
        self.folds, withheld = folds(seen.withhold, self.station, len(times), table)
        # what quality control refuses is no verification either
        self.masks, self.withheld = passed & ~withheld, passed & withheld
        self.segment = len(times)
        self.scored = np.arange(len(times)) >= run.cycle.burn_in
        if not self.scored.any():
            raise schema.ConfigError(
                f"cycle.burn_in is {run.cycle.burn_in}, expected fewer than the {len(times)} "
                f"cycles of {table.source}"
            )

    def _errors(self, given, own, table: ObsTable) -> np.ndarray:
        """Standard deviations `(cycle, sensor)`: a number of the config, or the file's."""
        if given is not None:
            return np.full(self.values.shape, float(given))
        if own is None:
            raise DataError(
                f"{table.source}: variable {self.quantity[0]} has no error standard deviations: "
                f"set observe.std, in {self.units[self.quantity[0]] or 'its unit'}"
            )
        return np.asarray(own, float)

    def _lay_grid(self, box: schema.Box, data: schema.ObservationFile):
        ends = box.latitude, box.longitude
        lines = [np.linspace(*e, n) for e, n in zip(ends, data.shape, strict=True)]
        self.axes = {"latitude": lines[0], "longitude": lines[1]}
        self.middle = np.mean(ends, 1)
        rows, columns = np.meshgrid(*lines, indexing="ij")
        self.state_places = self._km(rows.ravel(), columns.ravel())
        self.places = self._km(self.latitude, self.longitude)

    def _km(self, latitude, longitude) -> np.ndarray:
        """Places on the plane, `(place, 2)`."""
        shrink = np.cos(np.deg2rad(self.middle[0]))
        north, east = latitude - self.middle[0], (longitude - self.middle[1]) * shrink
        return DEGREE * np.stack([north, east], 1)

    def _find_law(self, law: schema.FieldLaw, table: ObsTable):
        """Mean, std and length of the field, as given or as the observations have them."""
        self.mean = float(np.nanmean(self.values)) if law.mean is None else law.mean
        fitted = Variogram(law.std, law.length, None)
        if law.std is None or law.length is None:
            try:
                fitted = fit_variogram(self.places, self.values, law.smoothness)
            except ValueError as error:
                raise DataError(
                    f"{table.source}: variable {self.quantity[0]}: {error}: set data.field.std and "
                    "data.field.length"
                ) from None
        std, length = law.std or fitted.std, law.length or fitted.length
        self.law = {"mean": self.mean, "std": std, "length": length, "nugget": fitted.nugget}
        shape = tuple(len(line) for line in self.axes.values())
        spacing = np.ptp(self.state_places, axis=0) / (np.array(shape) - 1)
        if spacing.max() > length:
            least = np.ceil((np.array(shape) - 1) * spacing / length).astype(int) + 1
            raise schema.ConfigError(
                f"data.shape: points {spacing.max():.0f} km apart do not resolve a field of length "
                f"{length:.0f} km; give [{least[0]}, {least[1]}] at least"
            )
        grid = Grid(shape, tuple(spacing * shape), "bounded")
        unit = noise_process(Matern(length, law.smoothness), grid)
        # the edges reflect: the given variance is that in the middle
        point = jnp.zeros(grid.size).at[np.ravel_multi_index([n // 2 for n in shape], shape)].set(1)
        root = float(jnp.sqrt(point @ unit.apply(point)))
        self.covariance = noise_process(unit.spectrum, grid, std / root)
        memory, step = (pd.Timedelta(t) / pd.Timedelta("1h") for t in (law.memory, self.every))
        self.dynamics = AutoregressiveField(self.covariance, memory, step)

    @property
    def shape(self):
        return tuple(len(line) for line in self.axes.values())

    @property
    def interval(self):
        return self.dynamics.dt

    def sensed(self, members, rows):
        flat = np.moveaxis(members, 1, 2).reshape(-1, np.prod(self.shape))
        m, f, c = members.shape[:3]
        return self.mean + (self.weights @ flat.T).T.reshape(m, c, f, -1)

    def ensemble(self, members, key):
        return jax.vmap(self.covariance.sample)(jax.random.split(key, members))

    @cached_property
    def climate_moments(self):
        return np.zeros(self.covariance.size), np.asarray(self.covariance.dense())

    @property
    def initial_moments(self):
        return self.climate_moments

    def model(self, name):
        return ModelTransition(self.dynamics)

    def localization(self, radius):
        return Localization(radius, self.state_places, self.places)

    @property
    def references(self):
        mean = np.full(self.values.shape, self.mean)
        return {"climatology": (mean, np.hypot(self.law["std"], self.std))}


def _refuse_others(run: schema.Run):
    seen = run.observe
    plain = schema.Observe()
    for name in ("every", "sites", "positions", "function", "error", "readings", "wind"):
        if getattr(seen, name) != getattr(plain, name):
            raise schema.ConfigError(f"observe.{name} does not belong to a file of observations")
    if isinstance(seen.std, dict):
        raise schema.ConfigError(
            "observe.std: one number, of the one variable; left out, the file's own errors"
        )
    if run.cycle.initial_std is not None:
        raise schema.ConfigError("cycle.initial_std belongs to a twin experiment")
