"""What all sections of a config share."""

from pydantic import BaseModel, ConfigDict

from dasim.types import DasimError

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"  # of runs, methods and priors: they become file names


class ConfigError(DasimError):
    """A setting that cannot be; names its path in the file."""


class Section(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
