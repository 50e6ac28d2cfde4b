"""Events: what is known, or asked, of a state."""

from dasim.events.base import AbstractEvent as AbstractEvent
from dasim.events.base import GaussianEvent as GaussianEvent
from dasim.events.pointwise import AbstractLaw as AbstractLaw
from dasim.events.pointwise import PointwiseEvent as PointwiseEvent
from dasim.events.pointwise import sites as sites
from dasim.events.regions import Both as Both
from dasim.events.regions import Either as Either
from dasim.events.regions import Equals as Equals
from dasim.events.regions import Exceeds as Exceeds
from dasim.events.regions import Not as Not
from dasim.events.regions import Within as Within
