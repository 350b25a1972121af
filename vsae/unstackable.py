"""What follows one model at a time: iterated posteriors, closed-form M-steps, counts."""

from torch import nn

from priors.errors import ConfigError


def refuse_replicas(first: nn.Module, modules: tuple, done: dict) -> nn.Module:
    """How ``priors.replicas`` stacks a part that follows one model: not at all."""
    raise ConfigError(
        f"{type(first).__name__} cannot be stacked: got {len(modules)} of them. Train the models "
        "one after another.",
        code="replicas.single",
        context={"class": type(first).__name__},
    )
