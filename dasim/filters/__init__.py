"""Filters."""

from dasim.filters.base import AbstractFilter as AbstractFilter
from dasim.filters.conditional_score import ConditionalScoreFilter as ConditionalScoreFilter
from dasim.filters.enkf import StochasticEnKF as StochasticEnKF
from dasim.filters.etkf import ETKF as ETKF
from dasim.filters.letkf import LETKF as LETKF
from dasim.filters.particle import BootstrapParticleFilter as BootstrapParticleFilter
