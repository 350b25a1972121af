"""The errors of models, data, training and files; those of priors and graphs are re-exported.

Exit statuses of the command line: 2 settings, 3 data or graph, 4 numbers, 5 files, 6 a reproduction
out of its stated range.
"""

from priors.errors import (
    AsymmetricWeightsError as AsymmetricWeightsError,
)
from priors.errors import (
    ConfigError as ConfigError,
)
from priors.errors import (
    GraphError as GraphError,
)
from priors.errors import (
    GraphWarning as GraphWarning,
)
from priors.errors import (
    NegativeWeightError as NegativeWeightError,
)
from priors.errors import (
    NotPositiveDefiniteError as NotPositiveDefiniteError,
)
from priors.errors import (
    VsaeError as VsaeError,
)


class DataError(VsaeError, ValueError):
    """Activations that cannot be used."""

    exit_status = 3


class ShapeError(DataError):
    """A tensor of the wrong rank or width."""


class DTypeError(DataError, TypeError):
    """A number format that a model cannot train in."""


class NonFiniteDataError(DataError):
    """NaN or infinite activations."""


class EmptyDataError(DataError):
    """No rows, or fewer than one batch."""


class UnsafeFileError(DataError):
    """A file format that could run code when read."""


class NonFiniteLossError(VsaeError, FloatingPointError):
    """A loss or gradient that became NaN or infinite; parameters are those before it did."""

    exit_status = 4


class MissingKLError(VsaeError, NotImplementedError):
    """A posterior and a prior between which no closed-form KL is registered."""

    exit_status = 2


class CheckpointError(VsaeError, RuntimeError):
    """A saved folder that cannot be written or read back."""

    exit_status = 5


class CheckpointCorruptError(CheckpointError):
    """A saved folder whose files are missing, truncated or altered."""


class CheckpointMismatchError(CheckpointError):
    """A saved folder whose tensors do not fit the model its settings describe."""


class CheckpointWriteError(CheckpointError):
    """A folder that could not be written; nothing is left of it. ``context["errno"]`` is kept."""


class ReproductionFailed(VsaeError, AssertionError):
    """A reproduction that ran, with numbers outside its stated range."""

    exit_status = 6


class CollapseWarning(UserWarning):
    """Nearly all latents have stopped saying anything about their input."""


class BottleneckWarning(UserWarning):
    """Tiers that all read fewer numbers than an activation has."""


class NonFiniteWarning(UserWarning):
    """Some replicas became non-finite and were frozen; the others went on."""
