"""Diagnostics on NumPy arrays: scores, ranks, consistency in observation space, spectra."""

from dasim.diagnostics.consistency import Consistency as Consistency
from dasim.diagnostics.consistency import Desroziers as Desroziers
from dasim.diagnostics.consistency import desroziers as desroziers
from dasim.diagnostics.consistency import innovation_consistency as innovation_consistency
from dasim.diagnostics.consistency import variance_scale as variance_scale
from dasim.diagnostics.ranks import ROC as ROC
from dasim.diagnostics.ranks import RankTest as RankTest
from dasim.diagnostics.ranks import Reliability as Reliability
from dasim.diagnostics.ranks import rank_chi_square as rank_chi_square
from dasim.diagnostics.ranks import rank_histogram as rank_histogram
from dasim.diagnostics.ranks import reliability as reliability
from dasim.diagnostics.ranks import roc as roc
from dasim.diagnostics.scores import Scores as Scores
from dasim.diagnostics.scores import autocorrelation_time as autocorrelation_time
from dasim.diagnostics.scores import bias as bias
from dasim.diagnostics.scores import effective_number as effective_number
from dasim.diagnostics.scores import energy_score as energy_score
from dasim.diagnostics.scores import fair_crps as fair_crps
from dasim.diagnostics.scores import log_score as log_score
from dasim.diagnostics.scores import score as score
from dasim.diagnostics.scores import summarize as summarize
from dasim.diagnostics.scores import time_mean as time_mean
from dasim.diagnostics.spectra import error_by_region as error_by_region
from dasim.diagnostics.spectra import power_spectrum as power_spectrum
