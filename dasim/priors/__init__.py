"""Diffusion priors: schedules, denoisers, networks, sampling, training and files."""

from dasim.priors.denoisers import AbstractDenoiser as AbstractDenoiser
from dasim.priors.denoisers import EDMDenoiser as EDMDenoiser
from dasim.priors.denoisers import GaussianDenoiser as GaussianDenoiser
from dasim.priors.denoisers import MeanNetwork as MeanNetwork
from dasim.priors.denoisers import Standardizer as Standardizer
from dasim.priors.denoisers import Whitener as Whitener
from dasim.priors.functions import FieldDenoiser as FieldDenoiser
from dasim.priors.functions import GaussianFieldDenoiser as GaussianFieldDenoiser
from dasim.priors.networks import MLP as MLP
from dasim.priors.networks import AbstractNetwork as AbstractNetwork
from dasim.priors.networks import PeriodicConv as PeriodicConv
from dasim.priors.operators import FourierNetwork as FourierNetwork
from dasim.priors.operators import OnGrid as OnGrid
from dasim.priors.prior import DiffusionPrior as DiffusionPrior
from dasim.priors.resolutions import multilevel_flow as multilevel_flow
from dasim.priors.resolutions import on_grid as on_grid
from dasim.priors.sampler import flow as flow
from dasim.priors.sampler import sample as sample
from dasim.priors.schedules import AbstractSchedule as AbstractSchedule
from dasim.priors.schedules import SubVPSchedule as SubVPSchedule
from dasim.priors.schedules import VESchedule as VESchedule
from dasim.priors.schedules import VPSchedule as VPSchedule
from dasim.priors.unet import UNet as UNet
from dasim.priors.windows import WindowDenoiser as WindowDenoiser
