"""Which latents have stopped firing: a counter over rows, shared by model and guide."""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from priors._prior import check_dim
from priors.errors import ConfigError
from priors.replicas import stack_like
from vsae.observer import Observer, everyone


class DeadLatents(Observer):
    """How many rows ago each latent last fired, in all processes of a distributed run.

    A latent fires where the site ``z`` is not zero: that must be the code itself, without a link
    behind it.

    Args:
        latents: ``K``.
        after: Rows without firing after which a latent is dead.

    Raises:
        ConfigError: ``prior.bad_dim``, ``dead.after`` unless both are positive; ``replicas.dead``
            in a stack, whose members have different dead latents.

    Example:
        >>> dead = DeadLatents(3, after=2)
        >>> dead.observe({"support": torch.tensor([[0], [2]]), "z": torch.tensor([[0.5], [0.0]])})
        >>> dead.silent_for.tolist(), dead().tolist()  # an empty slot is not a firing
        ([0, 2, 2], [1, 2])

    Source:
        Gao et al. (2024), *Scaling and evaluating sparse autoencoders*, §2.4: 10 million tokens.
    """

    def __init__(self, latents: int, *, after: int) -> None:
        super().__init__()
        if after < 1:
            raise ConfigError(
                f"a latent is dead after at least one row: got {after}.", code="dead.after"
            )
        self.latents, self.after = check_dim(latents), after
        self.register_buffer("silent_for", torch.zeros(latents, dtype=torch.int64))

    def forward(self) -> Int[Tensor, " dead"]:
        """The dead, ascending: a covariate of the step, not a random variable."""
        return (self.silent_for >= self.after).nonzero().squeeze(-1)

    def report(self) -> dict[str, Tensor]:
        return {"dead": (self.silent_for >= self.after).sum()}

    @torch.no_grad()
    def observe(self, sites: dict[str, Tensor]) -> None:
        """Count the rows of a batch whose code is ``z``, dense or in the slots ``support``."""
        active = sites["z"] != 0
        fired = active.reshape(-1, active.shape[-1]).sum(0)
        if "support" in sites:
            slots = active.flatten().to(self.silent_for)
            fired = torch.zeros_like(self.silent_for).index_add_(
                0, sites["support"].flatten(), slots
            )
        rows = torch.full_like(fired[:1], active[..., 0].numel())
        counts = everyone(torch.cat([fired, rows]), self).sum(0)
        self.silent_for.add_(counts[-1]).masked_fill_(counts[:-1] > 0, 0)


@stack_like.register
def _(first: DeadLatents, modules: tuple, done: dict) -> nn.Module:
    raise ConfigError(
        f"replicas differ in their dead latents: got {len(modules)} models with a DeadLatents, "
        "expected none. Train them one after another.",
        code="replicas.dead",
    )
