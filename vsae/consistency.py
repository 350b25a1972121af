"""What ties the levels of a ladder: each must explain the view it was computed from."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from priors.errors import ConfigError
from vsae.lateral_decoder import check_chain

Term = tuple[str, Tensor, Tensor, float]


class AbstractConsistency(nn.Module):
    r"""Gaussian terms around what each level says of the view below it.

    .. math:: -\log \mathcal N\big(z^{(\ell-1)};\ W^{(\ell)\top} z^{(\ell)} + b^{(\ell)},\
        s_\ell^2 I\big), \qquad z^{(0)} = x, \qquad γ_\ell = σ^2 / s_\ell^2

    with γ in units of the squared error of the activation, of noise σ. A subclass says whether the
    view on the left is data or learns too.

    Args:
        views: Per level the map to the view below it, e.g. ``LateralDecoder.levels``, shared with
            the decoder where that has them.
        scales: :math:`s_\ell` of each level, in the units of its view; ``None`` for no such term.

    Raises:
        ConfigError: ``ladder.widths``; ``ladder.scales`` unless there is a positive number or
            ``None`` for each level, and at least one number.
    """

    def __init__(self, views: Iterable[nn.Module], scales: Sequence[float | None]) -> None:
        super().__init__()
        self.views, self.scales = nn.ModuleList(check_chain(views)), tuple(scales)
        self.sizes = tuple(view.latents for view in self.views)
        given = [scale for scale in self.scales if scale is not None]
        if len(scales) != len(self.views) or not given or not all(0 < s < math.inf for s in given):
            raise ConfigError(
                f"got scales={self.scales} for {len(self.views)} levels, expected a positive "
                "standard deviation or None for each, and one number at least; no consistency is "
                "None instead of this module.",
                code="ladder.scales",
            )

    def terms(self, x: Tensor, codes: Sequence[Tensor]) -> Iterator[Term]:
        """Per term the name of its site, the view, what the level says of it, and the scale."""
        seen = [x, *codes[:-1]]
        names = ["x_view", *(f"z_{i}_view" for i in range(1, len(codes)))]
        levels = zip(names, seen, codes, self.views, self.scales, strict=True)
        for name, below, code, view, scale in levels:
            if scale is not None:
                yield name, self.target(below), view(code), scale

    @abstractmethod
    def target(self, view: Float[Tensor, "*rows k"]) -> Float[Tensor, "*rows k"]:
        """The view as it stands in the term."""

    def extra_repr(self) -> str:
        return f"scales={self.scales}"


class Consistency(AbstractConsistency):
    r"""Both sides learn: the view, too, moves towards what the level above says of it.

    With codes that may shrink this has a trivial optimum, :math:`z^{(\ell-1)} \to 0`; see
    :class:`StoppedConsistency`. It is the point limit of a Gaussian chain
    (:class:`vsae.GaussianLadderAutoencoder`).

    Args: as :class:`vsae.consistency.AbstractConsistency`.

    Example:
        >>> import torch
        >>> from vsae import LateralDecoder
        >>> tie = Consistency(LateralDecoder.of_sizes(3, (8, 4)).levels, (None, 1.0))
        >>> [name for name, *_ in tie.terms(torch.rand(5, 3), [torch.rand(5, 8), torch.rand(5, 4)])]
        ['z_1_view']

    Source:
        Rasmus et al. (2015), *Semi-Supervised Learning with Ladder Networks*, eq. 3 (a cost of
        reconstruction per level).
    """

    def target(self, view: Float[Tensor, "*rows k"]) -> Float[Tensor, "*rows k"]:
        return view


class StoppedConsistency(AbstractConsistency):
    """The view is data: no gradient through it, so that it cannot shrink to be explained.

    Args: as :class:`vsae.consistency.AbstractConsistency`.

    Example:
        >>> import torch
        >>> from vsae import LateralDecoder
        >>> tie = StoppedConsistency(LateralDecoder.of_sizes(3, (8, 4)).levels, (None, 1.0))
        >>> tie.target(torch.ones(2, requires_grad=True)).requires_grad
        False

    Source:
        The stopped target is this library's, against the trivial solution.
    """

    def target(self, view: Float[Tensor, "*rows k"]) -> Float[Tensor, "*rows k"]:
        return view.detach()
