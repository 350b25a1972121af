"""Typed errors: what is wrong, what was got, what was expected, how to fix it.

Every error carries a stable ``code`` (a slug such as ``graph.node_order``, what tests and scripts
match) and a ``context`` (a dict of the offending values), and also inherits the builtin that
callers of torch, scipy or Pyro already catch.
"""

import torch


class VsaeError(Exception):
    """The base of every error this library raises on purpose.

    Args:
        message: What is wrong, what was got, what was expected, and a one-line fix.
        code: A stable slug; match on this, never on prose.
        context: The offending values, for programs.

    Example:
        >>> VsaeError("no rows: got 0, expected at least 1.", code="data.empty").code
        'data.empty'
    """

    exit_status = 1

    def __init__(self, message: str, *, code: str = "", context: dict | None = None) -> None:
        super().__init__(message)
        self._code, self.context = code, context or {}

    @property
    def code(self) -> str:
        """The slug; of the cause, where Pyro has raised this error anew with a table of shapes."""
        return self._code or getattr(self.__cause__, "code", "")


class ConfigError(VsaeError, ValueError):
    """A setting that cannot be meant: a size of 0, block sizes that do not sum, an unknown name."""

    exit_status = 2


class GraphError(VsaeError, ValueError):
    """A graph that is not one: bad indices, node order, weights or size."""

    exit_status = 3


class AsymmetricWeightsError(GraphError):
    """Weights that differ in the two directions of an edge."""


class NegativeWeightError(GraphError):
    """A negative weight in a graph that was not declared ``signed``."""


class GraphWarning(UserWarning):
    """A graph that is legitimate but probably not meant: isolated nodes, many components."""


class NotPositiveDefiniteError(VsaeError, torch.linalg.LinAlgError):
    """A precision or covariance that is not positive-definite; the message says so in those words.

    Inherits ``torch.linalg.LinAlgError`` (a ``RuntimeError``), which callers of Pyro and BoTorch
    recognise by type and by the text "not positive-definite".
    """

    exit_status = 4
