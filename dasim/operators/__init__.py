"""Observation operators: from a state and the time to what sensors read."""

from dasim.operators.areas import AreaMean as AreaMean
from dasim.operators.areas import Column as Column
from dasim.operators.areas import area_weights as area_weights
from dasim.operators.base import AbstractOperator as AbstractOperator
from dasim.operators.base import Compose as Compose
from dasim.operators.base import Modes as Modes
from dasim.operators.base import Stack as Stack
from dasim.operators.base import TimeMean as TimeMean
from dasim.operators.blackbox import BlackBox as BlackBox
from dasim.operators.blackbox import WithDerivative as WithDerivative
from dasim.operators.checks import check_operator as check_operator
from dasim.operators.fields import FieldMeans as FieldMeans
from dasim.operators.fields import FieldValues as FieldValues
from dasim.operators.functions import Log as Log
from dasim.operators.functions import Power as Power
from dasim.operators.functions import RadialVelocity as RadialVelocity
from dasim.operators.functions import WindDirection as WindDirection
from dasim.operators.functions import WindSpeed as WindSpeed
from dasim.operators.grids import Interpolate as Interpolate
from dasim.operators.grids import InterpolateSphere as InterpolateSphere
