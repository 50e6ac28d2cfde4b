"""YAML configs: their schemas, and how they are read."""

from dasim.config.data import Box as Box
from dasim.config.data import FieldLaw as FieldLaw
from dasim.config.data import Folds as Folds
from dasim.config.data import NYCWeather as NYCWeather
from dasim.config.data import ObservationFile as ObservationFile
from dasim.config.errors import ErrorEstimation as ErrorEstimation
from dasim.config.errors import QualityControl as QualityControl
from dasim.config.methods import AnyMethod as AnyMethod
from dasim.config.methods import LETKFMethod as LETKFMethod
from dasim.config.methods import Method as Method
from dasim.config.methods import Tune as Tune
from dasim.config.reading import configs_folder as configs_folder
from dasim.config.reading import find_config as find_config
from dasim.config.reading import read as read
from dasim.config.runs import OF_TRANSITIONS as OF_TRANSITIONS
from dasim.config.runs import OF_VECTORS as OF_VECTORS
from dasim.config.runs import Observe as Observe
from dasim.config.runs import Run as Run
from dasim.config.runs import Train as Train
from dasim.config.section import NAME as NAME
from dasim.config.section import ConfigError as ConfigError
from dasim.config.section import Section as Section
from dasim.config.systems import KolmogorovSystem as KolmogorovSystem
from dasim.config.systems import System as System
