"""TopK: as many active latents in every row."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.posteriors.point import point


class TopKPosterior(nn.Module):
    r"""The ``k`` greatest pre-activations of each row, rectified: a point in ``k`` slots.

    .. math:: S = \mathrm{top}_k\big((x - b_{dec}) W_{enc}^\top + b_{enc}\big), \qquad
        z_j = \mathrm{relu}(v_{S_j})

    A row with fewer than ``k`` positive pre-activations has empty slots. Ties are broken
    arbitrarily.

    Args:
        encoder: With ``select(x, k)``, e.g. :class:`vsae.DictionaryEncoder`.
        k: Slots, and at most so many active latents, per row.

    Raises:
        ConfigError: ``select.k``, when run, unless ``0 < k <= K``.

    Example:
        >>> import torch
        >>> from vsae import DictionaryEncoder, LinearDecoder
        >>> sites = TopKPosterior(DictionaryEncoder(LinearDecoder(8, 3)), k=2)(torch.ones(5, 3))
        >>> sites["support"].event_shape, sites["z"].event_shape
        (torch.Size([2]), torch.Size([2]))

    Source:
        Makhzani & Frey (2014), *k-Sparse Autoencoders*; Gao et al. (2024), §2.3.
    """

    def __init__(self, encoder: nn.Module, *, k: int) -> None:
        super().__init__()
        self.encoder, self.k, self.latents = encoder, k, encoder.outputs

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        values, support = self.encoder.select(x, self.k)
        return {"support": point(support), "z": point(values.relu())}
