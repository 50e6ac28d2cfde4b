"""Dynamical systems."""

from dasim.models.autoregressive import AutoregressiveField as AutoregressiveField
from dasim.models.base import AbstractModel as AbstractModel
from dasim.models.base import integrate as integrate
from dasim.models.burgers import Burgers as Burgers
from dasim.models.double_pendulum import DoublePendulum as DoublePendulum
from dasim.models.etd import ETDRK4 as ETDRK4
from dasim.models.fitzhugh_nagumo import FitzHughNagumo as FitzHughNagumo
from dasim.models.kolmogorov import KolmogorovFlow as KolmogorovFlow
from dasim.models.korteweg_de_vries import KortewegDeVries as KortewegDeVries
from dasim.models.kuramoto_sivashinsky import KuramotoSivashinsky as KuramotoSivashinsky
from dasim.models.linear import LinearGaussian as LinearGaussian
from dasim.models.lorenz63 import Lorenz63 as Lorenz63
from dasim.models.lorenz84 import Lorenz84 as Lorenz84
from dasim.models.lorenz96 import Lorenz96 as Lorenz96
from dasim.models.lorenz96_two_scale import TwoScaleLorenz96 as TwoScaleLorenz96
from dasim.models.seasonal import SeasonalLinear as SeasonalLinear
from dasim.models.seasonal import fit_seasonal as fit_seasonal
from dasim.models.shocked import Shocked as Shocked
