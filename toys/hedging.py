"""Feature hedging, exactly: what one latent makes of two correlated features."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from toys.copula import CopulaCase, SupportCorrelation
from toys.correlation import pairs
from toys.directions import OrthonormalDirections
from toys.magnitudes import ConstantMagnitude
from toys.toy import Toy
from vsae.autoencoder import Autoencoder
from vsae.presets import l1_autoencoder


@dataclass(frozen=True, kw_only=True)
class HedgingCase:
    r"""Two orthonormal features of size 1 for an autoencoder of one latent, which must hedge.

    No code can do better than the projection on the atom, so that the best atom without a bias is
    the principal direction of the second moment, and with one that of the covariance: in the plane
    of the two features, for a moment :math:`\begin{pmatrix} a & b \\ b & c \end{pmatrix}`,

    .. math:: w = (\cos θ, \sin θ), \qquad θ = \tfrac12 \mathrm{atan2}(2b,\, a - c), \qquad
        \text{error} = \tfrac{a + c}{2} - \sqrt{\bigl(\tfrac{a - c}{2}\bigr)^2 + b^2}

    Without a bias :math:`b = P(\text{both})`: the atom mixes the features unless they exclude each
    other. With one, :math:`b` is their covariance: it mixes them with the sign of the correlation.

    Args:
        rate: Firing probabilities of the two.
        correlation: φ correlation of their supports.
        d_model: Dimension of the activations, >= 2.

    Raises:
        ConfigError: Those of :class:`toys.copula.CopulaCase`.

    Example:
        >>> case = HedgingCase(rate=(0.3, 0.2), correlation=0.5)
        >>> toy = case.build(torch.Generator().manual_seed(0))
        >>> direction, error = principal(case.second_moment())
        >>> bool((direction > 0.3).all()), case.solution(toy).W_dec.shape
        (True, torch.Size([1, 8]))

    Source:
        Chanin et al. (2025), *Feature Hedging*, 2505.11756; the optimum is that of PCA.
    """

    rate: tuple[float, float] = (0.3, 0.2)
    correlation: float = 0.4
    d_model: int = 8

    def __post_init__(self) -> None:
        self._case()

    def _case(self) -> CopulaCase:
        return CopulaCase(
            dependence=SupportCorrelation(structure=pairs(1, self.correlation)),
            rate=self.rate,
            magnitude=ConstantMagnitude(),
            directions=OrthonormalDirections(),
            d_model=self.d_model,
            noise=0.0,
        )

    def build(self, generator: Generator) -> Toy:
        """Draws the two directions."""
        return self._case().build(generator)

    def second_moment(self) -> Float[Tensor, "2 2"]:
        """The expected ``z zᵀ`` of the codes, float64: of a model without a bias."""
        first, second = self.rate
        return self.covariance() + torch.tensor(
            [[first**2, first * second], [first * second, second**2]], dtype=torch.float64
        )

    def covariance(self) -> Float[Tensor, "2 2"]:
        """The covariance of the codes, float64: of a model with a bias."""
        first, second = (rate * (1 - rate) for rate in self.rate)
        both = self.correlation * math.sqrt(first * second)
        return torch.tensor([[first, both], [both, second]], dtype=torch.float64)

    def solution(self, toy: Toy) -> Autoencoder:
        """The best autoencoder of one latent and no bias."""
        return _autoencoder(toy, principal(self.second_moment())[0], torch.zeros(2))

    def biased_solution(self, toy: Toy) -> Autoencoder:
        """The best one with a bias, so far along the atom that no code is negative."""
        direction, _ = principal(self.covariance())
        mean = torch.tensor(self.rate, dtype=torch.float64)
        least = direction.clamp(max=0.0).sum()  # of w'z over the four possible rows
        return _autoencoder(toy, direction, mean - (direction @ mean - least) * direction)


def principal(moment: Float[Tensor, "2 2"]) -> tuple[Float[Tensor, " 2"], float]:
    """The principal direction of a 2 x 2 moment, and the least expected squared error, float64.

    Example:
        >>> direction, error = principal(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        >>> round((direction[0] / direction[1]).item(), 6), error
        (1.0, 1.0)
    """
    (a, b), (_, c) = moment.double().tolist()
    angle = math.atan2(2 * b, a - c) / 2
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    return direction, (a + c) / 2 - math.hypot((a - c) / 2, b)


def _autoencoder(toy: Toy, weights: Tensor, bias: Tensor) -> Autoencoder:
    """One latent that projects ``x - bias`` on an atom; both in coordinates of the features."""
    autoencoder = l1_autoencoder(toy.dictionary.shape[1], 1, l1=1.0)
    rows = toy.dictionary.double()
    atom, centre = weights.double() @ rows, bias.double() @ rows
    encoder, decoder = autoencoder.guide.posterior.encoder, autoencoder.model.decoder
    with torch.no_grad():
        decoder.W_dec.copy_(atom[None])
        decoder.b_dec.copy_(centre)
        encoder.align(decoder)
    return autoencoder
