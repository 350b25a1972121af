"""A belief about dictionaries: atoms are not nearly parallel."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.replicas import stack_like
from vsae.errors import ConfigError
from vsae.observer import Observer
from vsae.unstackable import refuse_replicas


class Coherence(Observer):
    r"""An unnormalised log-density of unit atoms, per row of data: overlap beyond a threshold.

    .. math:: \log p(W) = -\frac c2 \sum_{i \ne j} \mathrm{relu}(w_i^\top w_j - t)^2 + \text{const}

    Two atoms of one feature, or a child that has absorbed its parent, overlap; features in
    superposition hardly do. Opposite atoms are not penalised. Of more latents than ``anchors`` the
    sum over ``i`` is that of so many, the next ones at every update, scaled up: no (K, K) array.

    Args:
        decoder: With unit atoms ``W_dec`` (K, d), shared with the model.
        weight: :math:`c`, nats per row, at least 0.
        threshold: :math:`t`, a cosine in [0, 1).
        anchors: Latents compared with all others in one update.

    Raises:
        ConfigError: ``coherence.setting``.

    Example:
        >>> from vsae import LinearDecoder
        >>> bool(Coherence(LinearDecoder(8, 2), weight=1.0)() < 0)
        True

    Source:
        Ramírez, Lecumberry & Sapiro (2009), *Universal priors for sparse modeling* (incoherence);
        the one-sided form is this library's.
    """

    start: Tensor

    def __init__(
        self,
        decoder: nn.Module,
        *,
        weight: float,
        threshold: float = 0.25,
        anchors: int = 512,
    ) -> None:
        super().__init__()
        if not (0 <= weight < float("inf") and 0 <= threshold < 1 and anchors >= 1):
            raise ConfigError(
                "coherence needs a weight of at least 0, a threshold in [0, 1) and an anchor: got "
                f"{weight=}, {threshold=}, {anchors=}.",
                code="coherence.setting",
            )
        self.decoder, self.weight = decoder, float(weight)
        self.threshold, self.anchors = float(threshold), int(anchors)
        self.register_buffer("start", torch.zeros((), dtype=torch.int64))

    def forward(self) -> Float[Tensor, ""]:
        atoms = self.decoder.W_dec
        latents, count = len(atoms), min(self.anchors, len(atoms))
        rows = (self.start + torch.arange(count, device=atoms.device)) % latents
        excess = (atoms.index_select(0, rows) @ atoms.mT - self.threshold).clamp(min=0)
        excess = excess.scatter(1, rows[:, None], 0.0)
        return -0.5 * self.weight * (latents / count) * excess.square().sum()

    @torch.no_grad()
    def observe(self, sites: dict[str, Tensor]) -> None:
        self.start.add_(self.anchors).remainder_(self.decoder.latents)

    def extra_repr(self) -> str:
        return f"weight={self.weight}, threshold={self.threshold}"


stack_like.register(Coherence, refuse_replicas)
