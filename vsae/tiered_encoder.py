"""Encoders in tiers: each reads the codes of the tier before it."""

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from priors.replicas import rows_affine, rows_times
from priors.tiers import check_count, check_sizes
from vsae.decoders import FreeDecoder, LinearDecoder, Projected
from vsae.errors import BottleneckWarning

EPS = 1e-3  # of the scaling between tiers: a tier of zeros has a gradient of 32, not of 316


class Tier(Projected):
    r"""``relu(h W + b)``, the gradient of both held to a norm of its own.

    :func:`vsae.fit` calls :meth:`project_gradient` after backward, before it clips everything.
    A gradient that is not finite stays so, for :func:`vsae.fit` to see.

    Args:
        inputs: Width of the tier before, or of the activation.
        outputs: Latents.
        clip: Greatest norm of the gradient of ``W`` and ``b`` together; any if ``None``.

    Shapes:
        ``W (inputs, outputs)``, Xavier-uniform to begin with; ``b (outputs,)``, zero.

    Raises:
        ConfigError: ``tiers.clip`` unless above 0 and finite.

    Source:
        Glorot & Bengio (2010); Pascanu et al. (2013), *On the difficulty of training RNNs*
        (clipping by norm).
    """

    def __init__(self, inputs: int, outputs: int, *, clip: float | None = None) -> None:
        super().__init__()
        if clip is not None and not 0 < clip < math.inf:
            raise ConfigError(
                f"a gradient is clipped at a finite norm above 0: got {clip}. None clips nothing.",
                code="tiers.clip",
            )
        self.clip = clip
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inputs, outputs)))
        self.b = nn.Parameter(torch.zeros(outputs))

    def forward(self, h: Float[Tensor, "*rows i"]) -> Float[Tensor, "*batch o"]:
        return rows_affine(h, self.W, self.b).relu()

    @torch.no_grad()
    def project_gradient(self) -> None:
        if self.clip is None or self.W.grad is None or self.b.grad is None:
            return
        squares = self.W.grad.square().sum((-2, -1)), self.b.grad.square().sum(-1)
        norm = sum(squares).sqrt()
        factor = torch.where(norm.isfinite(), (self.clip / norm).clamp(max=1.0), torch.nan)
        self.W.grad.mul_(factor[..., None, None])
        self.b.grad.mul_(factor[..., None])

    def has_left(self) -> bool:
        return False

    def project(self) -> None:
        """Parameters are free: only their gradient is held."""


class TieredEncoder(nn.Module):
    r"""The codes of all tiers, concatenated.

    .. math:: h_i = \mathrm{relu}\big(W_i\, \mathrm{norm}(h_{i-1}) + b_i\big), \qquad h_0 = x

    with no norm in front of the first tier. Each tier but the first knows of a row what the tier
    before it does, and with the default norm nothing of its length: a first tier of fewer latents
    than the activation has numbers is a bottleneck for all, and warned of.

    Args:
        d_model: Width :math:`d` of an activation.
        sizes: Latents of each tier.
        clip: Greatest norm of the gradient of each tier's parameters, one each; ``None``, for a
            tier or for all, is any.
        norms: What stands between tiers, one module less than there are tiers. ``nn.RMSNorm``
            without weights, without centring and with ε = 10⁻³ if ``None``; as published,
            ``nn.LayerNorm(size)``.

    Raises:
        ConfigError: ``tiers.sizes``, ``tiers.count``, ``tiers.clip``.

    Example:
        >>> TieredEncoder(3, (6, 4))(torch.ones(5, 3)).shape
        torch.Size([5, 10])

    Source:
        *Compositional Hierarchies* (tiered HSAE, under review), eq. 1; Zhang & Sennrich (2019),
        *Root Mean Square Layer Normalization*.
    """

    def __init__(
        self,
        d_model: int,
        sizes: Sequence[int],
        *,
        clip: Sequence[float | None] | None = None,
        norms: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.d_model, self.sizes = d_model, check_sizes(sizes)
        self.outputs = sum(self.sizes)
        self.clip = check_count("clip", clip or [None] * len(self.sizes), self.sizes)
        if self.sizes[0] < d_model:
            warnings.warn(
                f"the first tier is a bottleneck: {self.sizes[0]} latents for activations of "
                f"{d_model} numbers, and all tiers see no more than it does. Make it wider.",
                BottleneckWarning,
                stacklevel=2,
            )
        if norms is None:
            norms = [nn.RMSNorm(n, eps=EPS, elementwise_affine=False) for n in self.sizes[:-1]]
        self.between = nn.ModuleList(check_count("norms", norms, self.sizes[:-1]))
        widths = pairwise((d_model, *self.sizes))
        self.tiers = nn.ModuleList(
            Tier(*ends, clip=clip) for ends, clip in zip(widths, self.clip, strict=True)
        )

    @property
    def norms(self) -> tuple[nn.Module, ...]:
        """What stands between tiers."""
        return tuple(self.between)

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*batch K"]:
        codes = [self.tiers[0](x)]
        for norm, tier in zip(self.between, list(self.tiers)[1:], strict=True):
            codes.append(tier(norm(codes[-1])))
        return torch.cat(codes, -1)

    @torch.no_grad()
    def align(self, decoder: LinearDecoder | FreeDecoder) -> None:
        """Let the first tier look for its atoms, and every other in the atoms of that before it.

        ``W_1`` has the atoms as columns; ``W_i`` the inner products of tier ``i``'s atoms with
        tier ``i - 1``'s, which is the same with a row restored from tier ``i - 1`` alone.
        """
        atoms = decoder.W_dec.split(self.sizes, -2)
        self.tiers[0].W.copy_(atoms[0].mT)
        if decoder.b_dec is not None:
            self.tiers[0].b.copy_(-rows_times(decoder.b_dec, atoms[0].mT))
        for tier, (before, own) in zip(list(self.tiers)[1:], pairwise(atoms), strict=True):
            tier.W.copy_(before @ own.mT)
