"""Filters from their configs."""

import jax.numpy as jnp
import numpy as np

from dasim import config as schema
from dasim import filters, observe
from dasim.covariance import as_covariance
from dasim.problems import Problem

MATRIX_SIZE = 512  # largest state whose localised covariance is held as a matrix
TRACE = 0.99  # share of the taper's trace that the modulation of a larger state holds
# these take a factor as their inflation, and no other kind
FACTORS = "ConditionalScoreFilter", "ExtendedKalmanFilter", "GuidedForecast", "IEnKS"


def make_inflation(given, problem: Problem):
    """An inflation from a number, a section, or a list of both."""
    if isinstance(given, list | tuple):
        return filters.CombinedInflation(tuple(make_inflation(g, problem) for g in given))
    if not isinstance(given, schema.Section):
        return filters.MultiplicativeInflation(given)
    options = given.model_dump(exclude={"kind"})
    if given.kind == "multiplicative":
        return filters.MultiplicativeInflation(**options)
    if given.kind == "additive":
        size = int(np.prod(problem.shape))
        return filters.AdditiveInflation(as_covariance(options["std"], size, "additive inflation"))
    if given.kind == "adaptive":
        options["localization"] = _localization(options.pop("localization_radius"), problem)
        return filters.AdaptiveInflation(**options)
    return {"rtpp": filters.RTPP, "rtps": filters.RTPS}[given.kind](**options)


def _localization(radius, problem):
    return None if radius is None else problem.localization(radius)


def make_filter(method: schema.Method, problem: Problem) -> filters.AbstractFilter:
    """A filter from its config.

    Raises:
        ConfigError: a setting that the problem or the filter cannot have.
    """
    try:
        return _estimating(_filter(method, problem), problem)
    except ValueError as error:
        raise schema.ConfigError(f"{method.name}: {error}") from None


def _estimating(filter, problem):
    asked = problem.error_estimation
    if asked is None:
        return filter
    error = problem.observation.error
    if not isinstance(error, observe.Gaussian):
        raise schema.ConfigError(
            f"error_estimation: is of Gaussian errors, not of {type(error).__name__}; leave it "
            "out, or leave observe.error and censored reports out"
        )
    n_obs = problem.observations.value.shape[1]
    return filters.OnlineErrors(
        filter,
        n_obs,
        filters.Predictors(asked.bias) if asked.bias else None,
        tuple(asked.bias.values()),
        asked.std,
        (0,) * n_obs if asked.shared else None,
        asked.memory,
    )


def _filter(method, problem):
    kind = method.kind
    options = method.model_dump(exclude={"name", "kind", "transition", "members"})
    if kind == "KalmanFilter":
        filters.KalmanFilter.check(problem.transition(method.transition), problem.observation)
        if problem.initial_moments is not None:
            options["initial"] = tuple(map(jnp.asarray, problem.initial_moments))
    if "localization_radius" in options:
        options["localization"] = _localization(options.pop("localization_radius"), problem)
    if kind == "ConditionalScoreFilter":
        taper = options["localization"]
        if taper is not None and len(taper.state_coords) > MATRIX_SIZE:
            options["modulation"] = taper.modes(TRACE)
    if "inflation" in options:
        inflation = method.inflation
        plain = kind in FACTORS
        options["inflation"] = inflation if plain else make_inflation(inflation, problem)
    if kind in ("Climatology", "OptimalInterpolation"):
        mean, cov = problem.climate_moments
        options |= {"mean": jnp.asarray(mean), "cov": jnp.asarray(cov)}
    if "background" in options:
        size = int(np.prod(problem.shape))
        which, scale = options.pop("background"), options.pop("scale")
        cov = problem.climate_moments[1] if which == "climate" else np.eye(size)
        options["background"] = jnp.asarray(scale * cov)
    if "guidance" in options:
        strength, which = options.pop("strength"), options["guidance"]
        guidances = {"pigdm": filters.PiGDM(), "mmps": filters.MMPS(), "dps": filters.DPS(strength)}
        options["guidance"] = guidances.get(which)
    if kind == "EnKS":
        lag = options.pop("lag")
        return filters.EnKS(filters.ETKF(**options), lag)
    return getattr(filters, kind)(**options)
