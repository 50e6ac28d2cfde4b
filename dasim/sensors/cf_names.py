"""Which variable of a CF file is what: told by standard names, units, axes and roles, not by names.

Where several would do, one that the data variable lists in its `coordinates` comes first, then one
of the most dimensions (a precise position before a nominal one), then one with an `axis`.
"""

from collections.abc import Callable

import netCDF4

from dasim.sensors.netcdf import attribute, is_text

NORTH = {"degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn"}
EAST = {"degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese"}
VERTICAL = {
    "altitude",
    "height",
    "depth",
    "air_pressure",
    "sea_water_pressure",
    "height_above_mean_sea_level",
    "height_above_geopotential_datum",
    "geopotential_height",
    "barometric_altitude",
}
ROLES = ("timeseries_id", "trajectory_id", "profile_id")
NAMED = ("platform_id", "platform_name", "station_id")


def _standard(variable) -> str:
    return attribute(variable, "standard_name").split(" ")[0]


class Coordinates:
    """The candidates for each coordinate of a file, best first."""

    def __init__(self, file: netCDF4.Dataset):
        variables = list(file.variables.values())
        self.listed = {word for v in variables for word in attribute(v, "coordinates").split()} | {
            name for name in file.dimensions if name in file.variables
        }
        self.times = [v for v in variables if self._is_time(v)]
        named = [v for v in self.times if _standard(v) == "time"]
        # a reference time counts from a date too, and is not when the value was observed
        self.times = named or [v for v in self.times if not _standard(v)] or self.times
        self.latitudes = [v for v in variables if self._is_horizontal(v, "latitude", NORTH)]
        self.longitudes = [v for v in variables if self._is_horizontal(v, "longitude", EAST)]
        self.verticals = [v for v in variables if self._is_vertical(v)]
        self.stations = [v for role in ROLES for v in variables if attribute(v, "cf_role") == role]
        if not self.stations:
            self.stations = [v for v in variables if _standard(v) in NAMED]
        found = self.latitudes + self.longitudes + self.verticals + self.stations
        self.coordinates = {v.name for v in found if v not in self.times}
        self.coordinates |= {v.name for v in variables if self._is_time(v)}
        self.coordinates |= self.listed
        self.file = file

    def _is_time(self, variable) -> bool:
        units = attribute(variable, "units")
        named = _standard(variable) == "time" or attribute(variable, "axis").upper() == "T"
        return " since " in units or (named and is_text(variable))

    def _is_horizontal(self, variable, name: str, units: set) -> bool:
        if is_text(variable):
            return False
        standard = _standard(variable)
        return standard == name or (not standard and attribute(variable, "units").lower() in units)

    def _is_vertical(self, variable) -> bool:
        if is_text(variable):
            return False
        if attribute(variable, "axis").upper() == "Z" or attribute(variable, "positive"):
            return True
        return _standard(variable) in VERTICAL and variable.name in self.listed

    def choose(self, variable: netCDF4.Variable, reach: Callable) -> dict:
        """The variable for each column of a data variable, or None.

        Args:
            variable: the data variable.
            reach: of a variable, None where its dimensions do not fit the data's.
        """
        listed = attribute(variable, "coordinates").split()

        def best(candidates):
            fitting = [v for v in candidates if reach(v) is not None]
            key = lambda v: (v.name in listed, v.ndim, bool(attribute(v, "axis")))
            return max(fitting, key=key, default=None)

        chosen = {
            "time": best(self.times),
            "latitude": best(self.latitudes),
            "longitude": best(self.longitudes),
            "vertical": best(v for v in self.verticals if v.name != variable.name),
            "station": next((v for v in self.stations if reach(v) is not None), None),
            "std": None,
            "qc": None,
        }
        for name in attribute(variable, "ancillary_variables").split():
            beside = self.file.variables.get(name)
            if beside is None or is_text(beside) or reach(beside) is None:
                continue
            standard = attribute(beside, "standard_name")
            if standard.endswith("standard_error"):
                chosen["std"] = chosen["std"] or beside
            elif standard.endswith(("status_flag", "quality_flag")):
                chosen["qc"] = chosen["qc"] or beside
        return chosen


def ancillary(file: netCDF4.Dataset) -> set[str]:
    """Names of the variables that describe others."""
    words = set()
    for variable in file.variables.values():
        words |= set(attribute(variable, "ancillary_variables").split())
    return words


def cells(file: netCDF4.Dataset) -> set[str]:
    """Names of the bounds, the grid mappings and the measures of cells."""
    words = set()
    for variable in file.variables.values():
        for name in ("bounds", "climatology", "grid_mapping", "cell_measures", "formula_terms"):
            words |= {word.rstrip(":") for word in attribute(variable, name).split()}
    return words


def is_auxiliary(variable: netCDF4.Variable) -> bool:
    """Whether it describes others by itself: a flag, or an error, without being listed as one."""
    standard = attribute(variable, "standard_name")
    return standard.endswith((" standard_error", "status_flag", "quality_flag"))
