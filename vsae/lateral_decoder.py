"""The top-down decoder of a ladder: each level's view is a mixture of its code and its guess."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors._prior import register
from priors.errors import ConfigError
from priors.replicas import rows_times
from priors.tiers import check_sizes
from vsae.decoders import LinearDecoder


class LateralDecoder(nn.Module):
    r"""From the coarsest level down, each level mixing its own code with what is above it.

    .. math:: \hat z^{(L)} = z^{(L)}, \qquad \hat z^{(\ell-1)} = b^{(\ell)} + W^{(\ell)\top}\big(
        α_\ell z^{(\ell)} + (1 - α_\ell) \hat z^{(\ell)}\big), \qquad \hat x = \hat z^{(0)}

    It is linear in the concatenated code, finest level first, so every latent has an atom in the
    space of activations. Rows of every :math:`W^{(\ell)}` have unit norm; the atoms ``W_dec``, in
    which the mixing weights are included, do not.

    Args:
        levels: Per level a :class:`vsae.LinearDecoder` from its code to the view below it: the
            first to activations, the others to the codes of the level before.
        alphas: :math:`α_\ell` in (0, 1) of each level but the coarsest, or one number for all.
        learnable: Whether they are learned, as logits.

    Raises:
        ConfigError: ``ladder.widths`` unless each level maps to the codes of the one before,
            ``ladder.alphas``.

    Shapes:
        ``W_dec (K, d)``, ``b_dec (d,)``, ``K`` the latents of all levels.

    Example:
        >>> decoder = LateralDecoder.of_sizes(3, (8, 4))
        >>> z = torch.rand(5, 12)
        >>> torch.allclose(decoder(z), z @ decoder.W_dec + decoder.b_dec, atol=1e-5)
        True

    Source:
        Rasmus et al. (2015), *Semi-Supervised Learning with Ladder Networks* (lateral connections);
        the linear mixture is this library's reading.
    """

    def __init__(
        self,
        levels: Iterable[nn.Module],
        *,
        alphas: float | Sequence[float] = 0.5,
        learnable: bool = True,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(check_chain(levels))
        self.sizes = tuple(level.latents for level in self.levels)
        self.latents, self.d_model = sum(self.sizes), self.levels[0].d_model
        self.learnable = learnable
        mixed = len(self.levels) - 1
        given = alphas if isinstance(alphas, Sequence) else [alphas] * mixed
        if len(given) != mixed or not all(0 < alpha < 1 for alpha in given):
            raise ConfigError(
                f"each level but the coarsest mixes its code in: got alphas={alphas} for "
                f"{mixed + 1} levels, expected {mixed} numbers in (0, 1).",
                code="ladder.alphas",
            )
        logits = torch.logit(torch.tensor(given, dtype=torch.get_default_dtype()))
        register(self, "logits", logits, learnable=learnable and mixed > 0)

    @classmethod
    def of_sizes(cls, d_model: int, sizes: Sequence[int]) -> "LateralDecoder":
        """With random unit rows, for levels of these sizes, the finest first."""
        return cls(random_levels(d_model, sizes))

    @classmethod
    def from_levels(cls, levels: Sequence[LinearDecoder]) -> "LateralDecoder":
        """Over these maps, with the default mixture."""
        return cls(levels)

    def alphas(self) -> Float[Tensor, "*batch n"]:
        """The mixing weights of all levels but the coarsest."""
        return self.logits.sigmoid()

    def forward(self, z: Float[Tensor, "*rows K"]) -> Float[Tensor, "*batch d"]:
        *below, top = z.split(self.sizes, -1)
        alphas, guess = self.alphas(), self.levels[-1](top)
        for i in reversed(range(len(below))):
            alpha = alphas[..., i, None]
            guess = self.levels[i](alpha * below[i] + (1 - alpha) * guess)
        return guess

    @property
    def W_dec(self) -> Float[Tensor, "*batch K d"]:
        """Atoms: what a unit of each latent adds to an activation."""
        weights = self._through() * torch.cat([self.alphas(), self._one()], -1)
        parts = enumerate(reach(self.levels))
        return torch.cat([weights[..., i, None, None] * reached for i, reached in parts], -2)

    @property
    def b_dec(self) -> Float[Tensor, "*batch d"]:
        """The activation of the code zero."""
        first, *others = self.levels
        through, bias = self._through(), first.b_dec
        for i, (level, below) in enumerate(zip(others, reach(self.levels), strict=False), start=1):
            bias = bias + through[..., i, None] * rows_times(level.b_dec, below)
        return bias

    def _through(self) -> Float[Tensor, "*batch n"]:
        """Of a guess at each level, how much of it reaches the activation: Π (1 - α) below it."""
        return torch.cat([self._one(), (1 - self.alphas()).cumprod(-1)], -1)

    def _one(self) -> Float[Tensor, "*batch 1"]:
        return self.logits.new_ones((*self.logits.shape[:-1], 1))


def check_chain(levels: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """``levels`` if each maps to the codes of the one before, or ``ladder.widths``."""
    levels = tuple(levels)
    ends = [(level.latents, level.d_model) for level in levels]
    if not ends or any(above[1] != below[0] for below, above in pairwise(ends)):
        raise ConfigError(
            f"levels do not fit on each other: got (latents, outputs) {ends}, expected every "
            "level but the first to have the latents of the one before as outputs.",
            code="ladder.widths",
            context={"levels": ends},
        )
    return levels


def random_levels(d_model: int, sizes: Sequence[int]) -> list[LinearDecoder]:
    """Per level a map with random unit rows to the view below it."""
    widths = pairwise((d_model, *check_sizes(sizes)))
    return [LinearDecoder(latents, width) for width, latents in widths]


def reach(levels: Iterable[nn.Module]) -> list[Float[Tensor, "*batch k d"]]:
    """Per level :math:`W^{(ℓ)} … W^{(1)}`: a unit of each latent, carried down to activations."""
    return list(accumulate((level.W_dec for level in levels), lambda below, own: own @ below))
