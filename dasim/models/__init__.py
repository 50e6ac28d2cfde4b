"""Dynamical systems."""

from dasim.models.base import AbstractModel as AbstractModel
from dasim.models.base import integrate as integrate
from dasim.models.linear import LinearGaussian as LinearGaussian
from dasim.models.lorenz63 import Lorenz63 as Lorenz63
from dasim.models.lorenz96 import Lorenz96 as Lorenz96
