"""The generators of document A's recovered notebook: sparse uniform features in pairs.

They are the inputs of a toy bottleneck model (``toys.tms``), whose hidden activations the
notebook's autoencoders then saw. Settings are facts recovered from it: eight instances in one
model; 5 features in cases 1-2, 4 in the others; case 3 does not exist there.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from priors.errors import ConfigError
from toys.correlation import Equicorrelated
from toys.toy import CodeLaw, Toy, weighted_graph


@dataclass(frozen=True, kw_only=True)
class PairedFeatures(CodeLaw):
    r"""Features uniform on [0, 1] when on: correlated pairs, anti-correlated pairs, then singles.

    Both of a *correlated* pair are on with probability ``p``, together; an *anti-correlated* pair
    fires with probability ``2p``, and then exactly one of the two, at even odds; a single feature
    is on with probability ``p``. Every feature's rate is ``p``. Values are independent uniforms.

    Args:
        correlated: Number of correlated pairs; features ``0 .. 2·correlated - 1``.
        anticorrelated: Number of anti-correlated pairs, next.
        singles: Number of independent features, last.
        probability: Rate ``p`` of every feature; one number, or one per instance.

    Raises:
        ConfigError: ``toy.empty`` without features; ``toy.rate`` for ``p`` outside (0, 1], or
            above ½ with an anti-correlated pair, which fires with probability ``2p``.

    Example:
        >>> law = PairedFeatures(correlated=1, anticorrelated=1, probability=0.3)
        >>> on = law.sample(1000, torch.Generator().manual_seed(0)) > 0
        >>> bool((on[:, 0] == on[:, 1]).all()), bool((on[:, 2] & on[:, 3]).any())
        (True, False)
        >>> eight = PairedFeatures(singles=5, probability=(0.1,) * 8)
        >>> eight.sample(10, torch.Generator()).shape  # instances, rows, features
        torch.Size([8, 10, 5])

    Source:
        The notebook's generators, from their recovered description; no code of theirs is used.
    """

    correlated: int = 0
    anticorrelated: int = 0
    singles: int = 0
    probability: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if min(self.correlated, self.anticorrelated, self.singles) < 0 or not self.features:
            raise ConfigError(f"no features in {self!r}: expected at least 1.", code="toy.empty")
        limit = 0.5 if self.anticorrelated else 1.0
        if not all(0 < p <= limit for p in self.probabilities):
            raise ConfigError(
                f"rates must lie in (0, {limit:g}]: got {self.probability}. An anti-correlated pair"
                " fires at twice the rate of its features.",
                code="toy.rate",
                context={"bound": limit},
            )

    @property
    def features(self) -> int:
        """Number of features ``F``."""
        return 2 * (self.correlated + self.anticorrelated) + self.singles

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The rates, one per instance; one of them if there are no instances."""
        p = self.probability
        return p if isinstance(p, tuple) else (p,)

    def sample(self, rows: int, generator: Generator) -> Float[Tensor, "*instances rows F"]:
        """``(rows, F)``, or ``(instances, rows, F)`` where ``probability`` is a tuple."""
        p = torch.tensor(self.probabilities)[:, None, None]
        instances, pairs = len(self.probabilities), self.correlated + self.anticorrelated
        draw = torch.rand(instances, rows, pairs + self.singles, generator=generator)
        values = torch.rand(instances, rows, self.features, generator=generator)
        both, one, single = draw.split([self.correlated, self.anticorrelated, self.singles], -1)
        # u < p: the first; p <= u < 2p: the second. One draw decides whether and which.
        first, second = one < p, (one >= p) & (one < 2 * p)
        on = torch.cat(
            [
                (both < p).repeat_interleave(2, -1),
                torch.stack([first, second], -1).flatten(-2),
                single < p,
            ],
            -1,
        )
        # 1 - U[0, 1) lies in (0, 1]: a feature that is on is never exactly 0.
        codes = on * (1 - values)
        return codes if isinstance(self.probability, tuple) else codes[0]


@dataclass(frozen=True, kw_only=True)
class MaskedCorrelation(CodeLaw):
    r"""The notebook's "correlation matrix" case: correlated values, then independent masks.

    Uniform values ``u`` are mixed by the Cholesky factor ``L`` of an equicorrelation ``ρ`` and each
    entry is then kept with probability ``p``, independently. Kept to show what it does: the masks
    dilute the correlation to (:meth:`value_correlation`)

    .. math:: \frac{p\, \mathrm{Cov}(v_i, v_j)}{\sqrt{\prod_{k∈\{i,j\}}
        (\mathrm{Var}\,v_k + (1-p)\, (\mathrm E v_k)^2)}}

    which is 0.031 on average for four features, ρ = ½ and p = 0.316; supports are not correlated
    at all. Impose correlation on supports and on magnitudes instead: ``toys.copula``.

    Args:
        mixing: ``M``, as rows of a square matrix; see :meth:`notebook` and :meth:`transposed`.
        probability: ``p``, in (0, 1].

    Raises:
        ConfigError: ``toy.rate``; ``toy.size`` if ``M`` is not square.

    Example:
        >>> law = MaskedCorrelation.transposed(4, correlation=0.5, probability=0.316)
        >>> off = law.value_correlation()[~torch.eye(4, dtype=bool)]
        >>> round(off.mean().item(), 3)
        0.031

    Source:
        The notebook's generator, from its recovered description.
    """

    mixing: tuple[tuple[float, ...], ...]
    probability: float

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ConfigError(
                f"a rate is a probability in (0, 1]: got {self.probability}.", code="toy.rate"
            )
        if not self.mixing or any(len(row) != len(self.mixing) for row in self.mixing):
            raise ConfigError(f"mixing is square: got {self.mixing}.", code="toy.size")

    @classmethod
    def notebook(cls, size: int, *, correlation: float, probability: float) -> "MaskedCorrelation":
        """``v = u L`` as in the notebook: correlations 0.24 to 0.57 instead of 0.5 before masks."""
        mixing = _factor(size, correlation).tolist()
        return cls(mixing=tuple(map(tuple, mixing)), probability=probability)

    @classmethod
    def transposed(
        cls, size: int, *, correlation: float, probability: float
    ) -> "MaskedCorrelation":
        """``v = u Lᵀ``, which has the correlation asked for until the masks dilute it."""
        mixing = _factor(size, correlation).mT.tolist()
        return cls(mixing=tuple(map(tuple, mixing)), probability=probability)

    def value_correlation(self) -> Float[Tensor, "F F"]:
        """The exact correlation of the masked values, by the formula above."""
        mixing, p = torch.tensor(self.mixing, dtype=torch.float64), self.probability
        covariance, mean = mixing.mT @ mixing / 12, mixing.sum(0) / 2
        spread = (covariance.diagonal() + (1 - p) * mean**2).sqrt()
        return (p * covariance / spread / spread[:, None]).fill_diagonal_(1.0)

    def sample(self, rows: int, generator: Generator) -> Float[Tensor, "rows F"]:
        values, masks = torch.rand(2, rows, len(self.mixing), generator=generator)
        return (values @ torch.tensor(self.mixing)) * (masks < self.probability)


@dataclass(frozen=True, kw_only=True)
class NotebookCase:
    """One case of the notebook: features, their importances and the bottleneck they go through.

    Args:
        features: The law of the features; eight instances with a rate each where it is a tuple.
        hidden: Width ``m`` of the bottleneck model.
        importance: Weight of each feature in that model's loss.

    Raises:
        ConfigError: ``toy.size`` if there is not one importance per feature.

    Example:
        >>> toy = NOTEBOOK_CASES["case4"].build(Generator())
        >>> toy.graph.weights.tolist(), round(toy.support[0, 1].item(), 4)  # -p / (1 - p)
        ([-1.0, -1.0], -0.4625)
    """

    features: PairedFeatures
    hidden: int
    importance: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.importance) != self.features.features:
            raise ConfigError(
                f"{len(self.importance)} importances for {self.features.features} features.",
                code="toy.size",
            )

    def build(self, generator: Generator, *, instance: int = 0) -> Toy:
        """The features of one instance as a toy without noise, whose dictionary is the identity.

        ``Toy.correlation`` and ``support`` are the exact φ correlation of the supports. The graph
        joins the two of each pair, with weight 1 or -1: who goes with whom, not how much.
        Nothing is drawn from the generator.
        """
        law = replace(self.features, probability=self.features.probabilities[instance])
        support, weights = _pair_correlation(law)
        dtype = torch.get_default_dtype()
        return Toy(
            law=law,
            dictionary=torch.eye(law.features),
            noise=0.0,
            correlation=support.to(dtype),
            precision=None,
            support=support.to(dtype),
            graph=weighted_graph(weights),
        )


def _pair_correlation(law: PairedFeatures) -> tuple[Tensor, Tensor]:
    """Exact φ of the supports, and the sign of each pair's dependence, both ``(F, F)`` float64."""
    (p,) = law.probabilities
    support = torch.eye(law.features, dtype=torch.float64)
    signs = torch.zeros_like(support)
    for pair in range(law.correlated + law.anticorrelated):
        i, j = 2 * pair, 2 * pair + 1
        together = pair < law.correlated
        support[i, j] = support[j, i] = 1.0 if together else -p / (1 - p)
        signs[i, j] = signs[j, i] = 1.0 if together else -1.0
    return support, signs


def _factor(size: int, correlation: float) -> Float[Tensor, "F F"]:
    structure = Equicorrelated(size=size, correlation=correlation)
    return torch.linalg.cholesky(structure.matrix(Generator()))


_SWEEP = tuple(10 ** -(0.5 + 0.5 * i / 7) for i in range(8))  # 0.316 ... 0.1

NOTEBOOK_CASES: dict[str, NotebookCase] = {
    "case1": NotebookCase(
        features=PairedFeatures(singles=5, probability=(0.025,) * 8),
        hidden=2,
        importance=(1.0,) * 5,
    ),
    "case2": NotebookCase(
        features=PairedFeatures(singles=5, probability=tuple(50 ** -(i / 7) for i in range(8))),
        hidden=2,
        importance=tuple(0.9**i for i in range(5)),
    ),
    "case4": NotebookCase(
        features=PairedFeatures(anticorrelated=2, probability=_SWEEP),
        hidden=2,
        importance=(1.0,) * 4,
    ),
    "case5": NotebookCase(
        features=PairedFeatures(correlated=1, anticorrelated=1, probability=_SWEEP),
        hidden=2,
        importance=(1.0,) * 4,
    ),
}
"""The notebook's cases; case 6 is ``MaskedCorrelation.notebook(4, correlation=0.5, …)``.

Recovered: sizes, rates, and case 2's importances ``0.9^i``; those of the other cases are not, and
are 1 here. Case 5's split into one pair of each kind is what four features leave.
"""
