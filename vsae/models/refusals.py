"""What models of codes in slots cannot be."""

from torch import nn

from priors.errors import ConfigError


def refuse_replicas(first: nn.Module, modules: tuple, done: dict) -> nn.Module:
    """How ``priors.replicas`` stacks a model of codes in slots: not at all."""
    raise ConfigError(
        f"codes in slots cannot be stacked: got {len(modules)} models of {type(first).__name__}. "
        "Train them one after another.",
        code="replicas.slots",
    )
