"""Problems: what a run assimilates, made from its config.

A twin experiment simulates a truth and its observations; real sensors bring theirs, with some
withheld in each fold.
"""

from dasim import config as schema
from dasim.problems.base import SHIPPED as SHIPPED
from dasim.problems.base import Problem as Problem
from dasim.problems.base import checks as checks
from dasim.problems.base import find_prior as find_prior
from dasim.problems.base import quality as quality
from dasim.problems.files import ObservedField as ObservedField
from dasim.problems.sensors import RealSensors as RealSensors
from dasim.problems.stations import WeatherStations as WeatherStations
from dasim.problems.twin import MODELS as MODELS
from dasim.problems.twin import Twin as Twin
from dasim.problems.twin import climate as climate
from dasim.problems.twin import observed_function as observed_function
from dasim.problems.twin import system_transition as system_transition
from dasim.types import Key


def make_problem(run: schema.Run, key: Key) -> Problem:
    """The problem that a config describes."""
    if run.system is not None:
        problem = Twin(run, key)
    else:
        weather = isinstance(run.data, schema.NYCWeather)
        problem = WeatherStations(run, key) if weather else ObservedField(run, key)
    problem.error_estimation = run.error_estimation
    return problem
