"""dasim: data assimilation with diffusion priors, in JAX."""

from dasim import filters as filters
from dasim import models as models
from dasim import operators as operators
from dasim import priors as priors
from dasim.conditioning import conditional_draws as conditional_draws
from dasim.conditioning import event_probability as event_probability
from dasim.cycling import cycle as cycle
from dasim.localization import Localization as Localization
from dasim.localization import ring as ring
from dasim.observe import Gaussian as Gaussian
from dasim.observe import Observation as Observation
from dasim.observe import Select as Select
from dasim.trained import load_prior as load_prior
from dasim.transitions import DiffusionTransition as DiffusionTransition
from dasim.transitions import ModelTransition as ModelTransition
from dasim.transitions import simulate as simulate
from dasim.types import Observations as Observations
