"""Fields on grids: their expansions, moves between grids, and Gaussian random fields."""

from dasim.fields.grids import Grid as Grid
from dasim.fields.grids import resample as resample
from dasim.fields.noise import FieldCovariance as FieldCovariance
from dasim.fields.noise import cut as cut
from dasim.fields.noise import noise_process as noise_process
from dasim.fields.spectra import AbstractSpectrum as AbstractSpectrum
from dasim.fields.spectra import Brownian as Brownian
from dasim.fields.spectra import Matern as Matern
from dasim.fields.spectra import PowerLaw as PowerLaw
from dasim.fields.spectra import SquaredExponential as SquaredExponential
from dasim.fields.spectra import Tabulated as Tabulated
from dasim.fields.spectra import White as White
