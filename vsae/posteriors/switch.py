"""Switch: each row is encoded by one expert, chosen by a router."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.experts import block_size
from vsae.posteriors.point import point
from vsae.select import check_k, select


class SwitchPosterior(nn.Module):
    r"""Points ``support``, ``route`` and ``z``: TopK within the block of the best expert.

    .. math:: r = \mathrm{softmax}\big((x - b_{router}) W_{router}^\top\big), \quad
        e = \arg\max_i r_i, \quad z = r_e\, \mathrm{relu}\big(\mathrm{top}_k
        \text{ of block } e \text{ of } (x - b_{dec}) W_{enc}^\top + b_{enc}\big)

    Rows are sorted by expert and multiplied by their expert's block alone: the encoder costs
    ``1 / E`` of a dense one. The router learns through :math:`r_e` (and the model's ``balance``),
    as the choice itself has no derivative. How many rows each expert got is read by the host once
    per step. As its shapes depend on data, such a step cannot be exported.

    Args:
        encoder: With rows ``W_enc`` (K, d), ``b_enc`` (K,) and ``centre()``:
            :class:`vsae.DictionaryEncoder`.
        experts: ``E``, which divides ``K``; expert ``i`` owns the ``i``-th block of latents.
        k: Slots, and at most so many active latents, per row.

    Shapes:
        ``W_router (E, d)``, ``b_router (d,)``.

    Raises:
        ConfigError: ``switch.experts`` unless ``E`` divides ``K``, ``select.k`` unless
            ``0 < k <= K / E``.

    Example:
        >>> from vsae import DictionaryEncoder, LinearDecoder
        >>> q = SwitchPosterior(DictionaryEncoder(LinearDecoder(8, 3)), experts=2, k=3)
        >>> q(torch.ones(5, 3))["route"].event_shape
        torch.Size([2])

    Source:
        Mudide et al. (2024), *Efficient Dictionary Learning with Switch Sparse Autoencoders*,
        2410.08201, eq. 4-6.
    """

    def __init__(self, encoder: nn.Module, *, experts: int, k: int) -> None:
        super().__init__()
        check_k(k, block_size(experts, encoder.outputs))
        self.encoder, self.experts, self.k = encoder, experts, k
        self.latents, d_model = encoder.outputs, encoder.d_model
        bound = d_model**-0.5
        self.W_router = nn.Parameter(torch.empty(experts, d_model).uniform_(-bound, bound))
        self.b_router = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        route = F.linear(x - self.b_router, self.W_router).softmax(-1)
        expert = route.detach().argmax(-1)
        values, support = self.encode(x.reshape(-1, x.shape[-1]), expert.reshape(-1))
        shape = (*x.shape[:-1], self.k)
        gate = route.gather(-1, expert.unsqueeze(-1))
        z = gate * values.view(shape).relu()
        return {"support": point(support.view(shape)), "z": point(z), "route": point(route)}

    def encode(
        self, x: Float[Tensor, "B d"], expert: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]]:
        """The ``k`` greatest pre-activations of each row in its expert's block, and which."""
        size, centre = block_size(self.experts, self.latents), self.encoder.centre()
        order = expert.argsort(stable=True)
        counts = expert.bincount(minlength=self.experts).tolist()
        atoms = self.encoder.W_enc.unflatten(0, (self.experts, size)).unbind()
        biases = self.encoder.b_enc.unflatten(0, (self.experts, size)).unbind()
        parts = x.index_select(0, order).split(counts)
        found = [
            select(part, weight, bias, centre, self.k)
            for part, weight, bias in zip(parts, atoms, biases, strict=True)
        ]
        values, places = (torch.cat(column) for column in zip(*found, strict=True))
        back = torch.empty_like(order).scatter(0, order, torch.arange(len(x), device=x.device))
        support = places.index_select(0, back) + size * expert.unsqueeze(1)
        return values.index_select(0, back), support
