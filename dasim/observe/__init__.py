"""Observations: operators, error models, and synthetic observations of a system."""

from dasim.observe.base import AbstractError as AbstractError
from dasim.observe.base import Gaussian as Gaussian
from dasim.observe.base import Observation as Observation
from dasim.observe.base import Select as Select
from dasim.observe.base import along_track as along_track
from dasim.observe.base import check_observations as check_observations
from dasim.observe.coarse import Censored as Censored
from dasim.observe.coarse import Quantised as Quantised
from dasim.observe.coarse import Threshold as Threshold
from dasim.observe.counts import Circular as Circular
from dasim.observe.counts import Poisson as Poisson
from dasim.observe.gross import Quality as Quality
from dasim.observe.gross import quality as quality
from dasim.observe.gross import stuck as stuck
from dasim.observe.pointwise import AbstractPointwiseError as AbstractPointwiseError
from dasim.observe.pointwise import Joint as Joint
from dasim.observe.pointwise import StandIn as StandIn
from dasim.observe.pointwise import StandInWarning as StandInWarning
from dasim.observe.quality import AbstractCheck as AbstractCheck
from dasim.observe.quality import BackgroundCheck as BackgroundCheck
from dasim.observe.quality import BuddyCheck as BuddyCheck
from dasim.observe.quality import Innovation as Innovation
from dasim.observe.robust import Contaminated as Contaminated
from dasim.observe.robust import Huber as Huber
from dasim.observe.robust import StudentT as StudentT
