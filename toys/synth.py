"""Synthetic activations at the scale of a benchmark: rare features, trees, a copula, a bias."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import normalize

from priors.errors import ConfigError
from priors.graph import Graph
from toys.directions import Directions
from toys.forest import Forest
from toys.synth_directions import OrthogonalisedDirections
from toys.synth_law import SynthLaw
from toys.synth_parts import FoldedNormal, LinearlySpaced, LowRankCopula, PerFeature, ZipfRates
from toys.synth_trees import SynthTrees
from toys.toy import ToyBatch, check_toy


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthToy:
    r"""A synthetic benchmark after its dictionary was drawn: :math:`x = z D + b + ε`.

    Args:
        law: The law of the codes ``z``.
        dictionary: ``(F, d)``, unit rows.
        bias: ``(d,)``, ``b``, in activation units.
        noise: Standard deviation of ``ε``, in activation units.
        requested: ``(F,)`` firing rates as asked for, which trees meet only about; float64.
    """

    law: SynthLaw
    dictionary: Float[Tensor, "F d"]
    bias: Float[Tensor, " d"]
    noise: float
    requested: Float[Tensor, " F"]

    def sample(self, rows: int, generator: Generator) -> ToyBatch:
        """``rows`` independent rows; the codes are drawn first, then the noise if there is any.

        Args:
            rows: How many.
            generator: On the device of the toy.

        Raises:
            ConfigError: ``toy.rows`` if ``rows < 1``.
        """
        if rows < 1:
            raise ConfigError(f"no rows: got {rows}, expected at least 1.", code="toy.rows")
        codes = self.law.sample(rows, generator)
        x = torch.addmm(self.bias, codes, self.dictionary)
        if self.noise > 0:
            x += self.noise * torch.randn(x.shape, generator=generator, device=x.device)
        return ToyBatch(x, codes)

    @property
    def rates(self) -> Float[Tensor, " F"]:
        """How often features fire, float64; see :meth:`toys.synth_law.SynthLaw.rates`."""
        return self.law.rates()

    @property
    def parents(self) -> Int[Tensor, " F"]:
        """The parent of each feature, -1 for roots and untied features."""
        features = len(self.dictionary)
        if self.law.trees is None:
            return torch.full((features,), -1)
        return self.law.trees.parents(features)

    @property
    def siblings(self) -> Int[Tensor, "families branching"]:
        """Groups of siblings, each in a row; none without trees."""
        trees = self.law.trees
        return torch.empty(0, 0, dtype=torch.long) if trees is None else trees.siblings()

    @property
    def graph(self) -> Graph:
        """Parents tied to their children."""
        return Graph.tree(self.parents.numpy())

    def forest(self) -> Forest:
        """The forest that fires as this toy would if gates were independent.

        Its cost is quadratic in the number of features.
        """
        rates, parents, trees = self.rates.cpu(), self.parents, self.law.trees
        above = torch.cat([rates, rates.new_ones(1)])[parents]  # -1: the one at the end
        return Forest(
            parents=tuple(parents.tolist()),
            probability=tuple((rates / above).tolist()),
            exclusive=(trees is not None and trees.exclusive,) * len(parents),
        )

    def overlap(self) -> Float[Tensor, " F"]:
        """Of each feature, the largest absolute cosine with another."""
        rows = self.dictionary
        found = torch.empty(len(rows), dtype=rows.dtype, device=rows.device)
        for start, chunk in enumerate(rows.split(1024)):
            cosine = (chunk @ rows.mT).abs()
            cosine.diagonal(1024 * start).fill_(0.0)
            found[1024 * start :][: len(chunk)] = cosine.amax(1)
        return found

    def to(self, device: torch.device | str) -> "SynthToy":
        """The same toy on another device, where the generator of :meth:`sample` must be."""
        return replace(
            self,
            law=self.law.to(device),
            dictionary=self.dictionary.to(device),
            bias=self.bias.to(device),
            requested=self.requested.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class SynthCase:
    """The law of SynthSAEBench and of SAELens's synthetic data, with every number a setting.

    Args:
        features: Number of features ``F``.
        d_model: Dimension ``d`` of the activations.
        rates: Firing rates that are asked for.
        trees: Trees over the first features, ``None`` for none.
        copula: Dependence of the gates, before the trees; ``None`` for none.
        mean: Of a firing feature's size, before ReLU, in activation units.
        deviation: Its standard deviation, one per feature.
        directions: Law of the dictionary.
        bias: Norm of the bias, whose direction is uniform.
        noise: Standard deviation of the noise, in activation units.

    Raises:
        ConfigError: ``toy.d_model``, ``toy.noise``, ``toy.size`` for trees of more nodes than there
            are features, ``toy.scale`` for a negative bias; from :meth:`build`, ``toy.scale`` if
            a mean is not positive, and those of the parts.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> toy = DATA_A.build(generator)
        >>> toy.sample(5, generator).x.shape, toy.parents[[0, 16, 207, 208]].tolist()
        (torch.Size([5, 96]), [-1, 0, 63, -1])
        >>> f"{toy.rates.sum():.2f} fire on a row"
        '6.80 fire on a row'

    Source:
        Chanin (2026), *SynthSAEBench*, 2602.14687.
    """

    features: int
    d_model: int
    rates: ZipfRates
    trees: SynthTrees | None
    copula: LowRankCopula | None
    mean: PerFeature
    deviation: PerFeature
    directions: Directions
    bias: float
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_toy(self.d_model, self.noise)
        if self.trees is not None and self.trees.size > self.features:
            raise ConfigError(
                f"trees of {self.trees.size} nodes for {self.features} features: expected at most "
                "as many nodes.",
                code="toy.size",
            )
        if not 0 <= self.bias < float("inf"):
            raise ConfigError(f"a bias has a norm >= 0: got {self.bias}.", code="toy.scale")

    def build(self, generator: Generator) -> SynthToy:
        """Draws dictionary, bias, loadings and sizes, on the generator's device."""
        device = generator.device
        dictionary = self.directions.draw(self.features, self.d_model, generator)
        normal = torch.empty(self.d_model, dtype=torch.float64, device=device)
        bias = normalize(normal.normal_(generator=generator), dim=0).to(dictionary.dtype)
        requested = self.rates.of(self.features).to(device)
        gates = requested if self.trees is None else self.trees.gates(requested)
        law = SynthLaw(
            gates=gates,
            mean=self._means(generator),
            deviation=self.deviation.draw(self.features, generator),
            loadings=self._loadings(generator),
            trees=self.trees,
        )
        return SynthToy(
            law=law,
            dictionary=dictionary,
            bias=self.bias * bias,
            noise=self.noise,
            requested=requested,
        )

    def _means(self, generator: Generator) -> Tensor:
        mean = self.mean.draw(self.features, generator)
        if not bool((mean > 0).all()):
            raise ConfigError(
                f"a feature has the mean size {mean.min().item()}: expected > 0.", code="toy.scale"
            )
        return mean

    def _loadings(self, generator: Generator) -> Tensor:
        if self.copula is None:
            return torch.empty(self.features, 0, dtype=torch.float32, device=generator.device)
        return self.copula.draw(self.features, generator)


DATA_A = SynthCase(
    features=512,
    d_model=96,
    rates=ZipfRates(exponent=0.5, low=5e-3, high=0.25),
    trees=SynthTrees(roots=16, branching=3, depth=2),
    copula=LowRankCopula(rank=8, scale=0.1),
    mean=LinearlySpaced(start=4.0, stop=4.0),
    deviation=LinearlySpaced(start=0.5, stop=0.5),
    directions=OrthogonalisedDirections(steps=200, rate=0.01),
    bias=0.5,
)
"""512 features in 96 dimensions, 208 of them in trees: a benchmark for one CPU thread."""

SYNTH_16K = SynthCase(
    features=16_384,
    d_model=768,
    rates=ZipfRates(exponent=0.5, low=5e-4, high=0.4),
    trees=SynthTrees(roots=128, branching=4, depth=3),
    copula=LowRankCopula(rank=25, scale=0.1),
    mean=LinearlySpaced(start=5.0, stop=4.0),
    deviation=FoldedNormal(loc=0.5, scale=0.5),
    directions=OrthogonalisedDirections(steps=100, rate=3e-4),
    bias=0.5,
)
"""The published protocol: 16 384 features in 768 dimensions, 10 880 of them in trees; for a GPU."""
