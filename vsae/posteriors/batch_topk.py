"""BatchTopK: as many active latents in a batch, more in some rows than in others."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError
from vsae.observer import Observer, everyone
from vsae.posteriors.point import point

SLOWEST, RECENT = 0.01, 10  # of the threshold's running mean: see observe


class BatchTopKPosterior(Observer):
    r"""The ``B·k`` greatest rectified pre-activations of a *batch*; a threshold afterwards.

    .. math:: z_{bj} = v_{bj}\,[v_{bj} \ge τ], \qquad τ = \text{the } (Bk)\text{-th greatest of } v

    In training mode every row offers its ``width`` best to one threshold, which is that of the
    whole batch as long as no row keeps all it offered (:meth:`overflow` counts those that do); see
    :func:`vsae.share_batches` for a batch of several processes. In evaluation mode, so that a row's
    code does not depend on its company, the threshold is ``threshold``: the running mean, over
    about the last tenth of the training batches and at most 100 of them, of the least active
    amplitude. Before the first, all that is offered and positive is active; if no pre-activation
    reaches the threshold, the row's code is zero.

    Args:
        encoder: With ``select(x, k)``, e.g. :class:`vsae.DictionaryEncoder`.
        k: Active latents per row, on average.
        width: Slots per row, more than ``k``: ``2k`` is fast, ``4k`` is safer.

    Raises:
        ConfigError: ``posterior.width`` unless ``0 < k <= width``; ``select.k``, when run, if
            ``width > K``.

    Example:
        >>> from vsae import DictionaryEncoder, LinearDecoder
        >>> q = BatchTopKPosterior(DictionaryEncoder(LinearDecoder(8, 3)), k=2, width=4)
        >>> q(torch.randn(50, 3))["z"].mean.count_nonzero().item()  # 50 rows, 2 each on average
        100

    Source:
        Bussmann et al. (2024), *BatchTopK Sparse Autoencoders*, 2412.06410.
    """

    def __init__(self, encoder: nn.Module, *, k: int, width: int) -> None:
        super().__init__()
        if not 0 < k <= width:
            raise ConfigError(
                f"k active latents need at least as many slots: got {k=}, {width=}, expected "
                "0 < k <= width.",
                code="posterior.width",
            )
        self.encoder, self.k, self.width, self.latents = encoder, k, width, encoder.outputs
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        values, support = self.encoder.select(x, self.width)
        values = values.relu()
        threshold = self.cut(values) if self.training else self.threshold
        return {"support": point(support), "z": point(values * (values >= threshold))}

    @torch.no_grad()
    def cut(self, values: Float[Tensor, "*rows W"]) -> Float[Tensor, ""]:
        """The ``B·k``-th greatest of what a batch offers, over all processes of a run."""
        offered = everyone(values, self).flatten()
        rank = offered.numel() - offered.numel() // self.width * self.k + 1
        return offered.kthvalue(rank).values

    @torch.no_grad()
    def overflow(self, x: Float[Tensor, "rows d"]) -> Tensor:
        """How many rows keep all their slots, so that more of them might have been kept."""
        values = self.encoder.select(x, self.width)[0].relu()
        return ((values >= self.cut(values)) & (values > 0)).all(-1).sum()

    def report(self) -> dict[str, Tensor]:
        return {"threshold": self.threshold.clone()}

    @torch.no_grad()
    def observe(self, sites: dict[str, Tensor]) -> None:
        z = sites["z"]
        least = everyone(torch.where(z > 0, z, torch.inf).amin(), self).amin()
        seen = least.isfinite()  # a batch without any active latent says nothing
        self.batches += seen
        rate = (RECENT / (RECENT - 1 + self.batches).to(z)).clamp(SLOWEST, 1.0)  # the first: 1
        self.threshold.lerp_(torch.where(seen, least, self.threshold), rate)
