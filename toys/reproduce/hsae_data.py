"""The data: stories, words, toys; what their truth is, and their two views of one thing."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from toys.absorption import absorption_case
from toys.hedging import HedgingCase
from toys.losses import Reconstruct
from toys.magnitudes import PositiveNormal
from toys.reproduce import flat_data, flat_settings
from toys.reproduce.flat_data import Problem
from toys.reproduce.hsae_settings import Settings
from toys.tree_cases import TREE_CASES
from toys.words import WordNouns
from vsae import metrics
from vsae.batches import stream
from vsae.whitening import WhiteningNormalizer

TOY, VIEWS = (1_000_000 * n for n in (8, 9))  # random streams
TITLES = {
    "stories": "layer 2 of stories260K",
    "words": "GloVe nouns",
    "white": "GloVe nouns, whitened",
    "published": "published tree",
    "park-2": "Park geometry, 2 levels",
    "park-3": "Park geometry, 3 levels",
    "absorption": "absorption toy",
    "hedging": "hedging toy",
}
CASES = {name: TREE_CASES[name] for name in ("published", "park-2", "park-3")}
CASES["absorption"] = absorption_case(d_model=2)


@dataclass(frozen=True)
class Truth:
    """What is known of rows.

    Args:
        rows: Activations ``(N, d)`` about which it is known.
        on: Whether a feature is on, ``(N, F)``.
        parents: Of the features, ``(F,)``, -1 for a root.
        features: Their directions ``(F, d)``, what each *adds* to its parent, where known.
    """

    rows: Tensor
    on: Tensor
    parents: Tensor
    features: Tensor | None = None


class HierarchyProblem(Problem):
    """Data on which hierarchies are looked for.

    Args:
        train: ``(N, d)``.
        test: ``(M, d)``.
    """

    truth: Truth | None = None
    views: tuple[Tensor, Tensor] | None = None

    def __init__(self, train: Tensor, test: Tensor) -> None:
        super().__init__(train, test, train.shape[1])
        self.whitening = WhiteningNormalizer.fit(train)

    def special(self, atoms: Tensor) -> dict[str, float]:
        """What is measured of roots' atoms on this data alone."""
        return {}

    def recovery(self, codes: Tensor, atoms: Tensor) -> dict[str, float]:
        if self.truth is None or self.truth.features is None:
            return {}
        return {"mcc": metrics.mean_correlation_coefficient(atoms, self.truth.features)}

    def use(self, reconstruct: Reconstruct) -> dict[str, float]:
        return {}


class TreeProblem(HierarchyProblem):
    """A toy of the hierarchical cases, dictionary drawn anew for each seed."""

    def __init__(self, case: str, settings: Settings, seed: int) -> None:
        generator = stream(seed, TOY)
        self.toy = CASES[case].build(generator)
        train = self.toy.sample(settings.toy_rows, generator)
        test = self.toy.sample(settings.toy_test, generator)
        super().__init__(train.x, test.x)
        on = test.codes > 0
        self.truth = Truth(test.x, on, self.toy.parents, self.toy.dictionary)
        again = stream(seed, VIEWS)
        self.views = tuple(self._view(test.codes, settings, again) for _ in range(2))

    def _view(self, codes: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
        """The same features, of other sizes, with other noise."""
        law = PositiveNormal(loc=1.0, scale=settings.jitter)
        size = law.from_normal(torch.randn(codes.shape, generator=generator))
        x = (codes * size.to(codes.dtype)) @ self.toy.dictionary
        return x + settings.view_noise * torch.randn(x.shape, generator=generator)


class HedgingProblem(HierarchyProblem):
    """Two correlated features without a hierarchy, which too few latents must mix."""

    def __init__(self, settings: Settings, seed: int) -> None:
        generator = stream(seed, TOY)
        self.case = HedgingCase(d_model=2)
        self.toy = self.case.build(generator)
        train = self.toy.sample(settings.toy_rows, generator)
        test = self.toy.sample(settings.toy_test, generator)
        super().__init__(train.x, test.x)

    def special(self, atoms: Tensor) -> dict[str, float]:
        """``hedging``: of each atom the lesser |cosine| with a feature, on average."""
        cosines = metrics.cosine_similarities(atoms, self.toy.dictionary)
        return {"hedging": float(cosines.min(-1).values.mean())}


class WordsProblem(HierarchyProblem):
    """Vectors of nouns, every fifth held out; WordNet is the truth about those that are trusted."""

    def __init__(self, settings: Settings, vectors: Tensor) -> None:
        nouns = WordNouns.load()
        held = torch.arange(len(vectors)) % 5 == 4
        super().__init__(vectors[~held], vectors[held])
        clean, concepts = nouns.clean, nouns.trusted().concepts(settings.least)
        self.truth = Truth(vectors[clean], concepts.members, concepts.parents)
        pairs = nouns.views()
        self.views = vectors[pairs[:, 0]], vectors[pairs[:, 1]]


class StoriesProblem(HierarchyProblem):
    """Activations of a network, and the network that reads them."""

    def __init__(self, settings: Settings) -> None:
        given = flat_settings.Settings(layer=settings.layer, stories=settings.stories)
        self.network = flat_data.StoriesProblem(given)
        super().__init__(self.network.train, self.network.test)

    def use(self, reconstruct: Reconstruct) -> dict[str, float]:
        return self.network.use(reconstruct)


@cache
def problem(data: str, settings: Settings, seed: int) -> HierarchyProblem:
    """The data of a seed: a pure function of its arguments. Stories and words are no draws."""
    if data in _FIXED:
        return _fixed(data, settings)
    if data == "hedging":
        return HedgingProblem(settings, seed)
    return TreeProblem(data, settings, seed)


@cache
def _fixed(data: str, settings: Settings) -> HierarchyProblem:
    return _FIXED[data](settings)


def _words(settings: Settings) -> WordsProblem:
    return WordsProblem(settings, WordNouns.load().vectors)


def _whitened(settings: Settings) -> WordsProblem:
    """Whitened by the nouns that are trained on: Euclidean geometry is then the causal one."""
    raw = _words(settings)
    return WordsProblem(settings, raw.whitening(WordNouns.load().vectors))


_FIXED = {"stories": StoriesProblem, "words": _words, "white": _whitened}
