"""Toys on which the absorbed or the hedged solution is known, their rows, and who is scored how."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from toys.absorption import absorption_case
from toys.directions import SpreadDirections
from toys.forest import Forest
from toys.hedging import HedgingCase, principal
from toys.reproduce.recovery_absorption_scores import Seen, found, pair_scores, tree_scores
from toys.reproduce.recovery_ceiling import TRUTH
from toys.reproduce.recovery_data import HELD_OUT, ROWS
from toys.toy import Toy
from toys.tree_cases import TreeCase, TreeToy
from toys.tree_geometry import AnyDirections
from vsae.batches import stream
from vsae.normalizers import AffineNormalizer

CONTROLS, UNTRAINED = 23_000_000, 24_000_000  # random streams
ABSORBED, HEDGED, BIASED = "absorbed", "hedged", "hedged-bias"
RANDOM = "random"  # the control: atoms that have learned nothing


class AbstractKnown(ABC):
    """A toy with a known wrong solution; *the following methods make one*.

    Args:
        label: As tables and figures print it.
        ks: Active latents that arms with such a knob are given.
    """

    label: str
    ks: tuple[int, ...]

    @property
    @abstractmethod
    def latents(self) -> int:
        """``K``."""

    @property
    @abstractmethod
    def roots(self) -> int:
        """How many features have no parent; 0 where there are no trees."""

    @abstractmethod
    def build(self, generator: Generator) -> TreeToy | Toy:
        """Draws the directions."""

    @abstractmethod
    def solutions(self, toy: TreeToy | Toy, x: Tensor, truth: Tensor) -> dict[str, Seen]:
        """The true solution of some rows and the wrong ones, by name."""

    @abstractmethod
    def scores(self, toy: TreeToy | Toy, seen: Seen, seed: int) -> dict[str, float]:
        """All that is measured."""


@dataclass(frozen=True, kw_only=True)
class Absorbing(AbstractKnown):
    r"""Parents whose children exclude each other; as many latents as features.

    The absorbed solution restores as much as the true one: its latents are the deepest features,

    .. math:: z_i = f_i \prod_{c\,:\,π(c) = i} (1 - f_c), \qquad d_i \propto \ell_i

    Where directions are orthonormal, :func:`toys.absorption.absorbed_solution` is an autoencoder
    that has these codes. In superposition only inference by iteration may have them.

    Args:
        label: As tables and figures print it.
        case: Its law; sizes are constant.
        ks: Active latents: about as many as truly fire on a row, and as nearly all rows need.
    """

    label: str
    case: TreeCase
    ks: tuple[int, ...]

    @property
    def latents(self) -> int:
        """As many as features."""
        return self.case.features

    @property
    def roots(self) -> int:
        """How many trees there are."""
        return len(self.case.forest.children(-1))

    def build(self, generator: Generator) -> TreeToy:
        """Draws the directions."""
        return self.case.build(generator)

    def solutions(self, toy: TreeToy, x: Tensor, truth: Tensor) -> dict[str, Seen]:
        """The true codes, and those of the deepest features alone."""
        children = (toy.parents >= 0).nonzero().flatten()
        fires = (truth > 0).to(truth.dtype)
        covered = torch.zeros_like(fires).index_add_(1, toy.parents[children], fires[:, children])
        return {
            TRUTH: Seen(x, toy.offsets, fires, truth),
            ABSORBED: Seen(x, toy.concepts, fires * (1 - covered), truth),
        }

    def scores(self, toy: TreeToy, seen: Seen, seed: int) -> dict[str, float]:
        """What is found, of parents and of children."""
        controls = stream(seed, CONTROLS)
        return found(toy.dictionary, seen) | tree_scores(toy, seen, controls)


@dataclass(frozen=True, kw_only=True)
class Hedging(AbstractKnown):
    """Two correlated features and one latent, which has to choose one or to mix both.

    Args:
        label: As tables and figures print it.
        case: Their law.
        ks: None: where one of one latent may fire, nothing is sparse.
    """

    label: str
    case: HedgingCase
    ks: tuple[int, ...] = ()

    @property
    def latents(self) -> int:
        """One."""
        return 1

    @property
    def roots(self) -> int:
        """None: there are no trees."""
        return 0

    def build(self, generator: Generator) -> Toy:
        """Draws the two directions."""
        return self.case.build(generator)

    def solutions(self, toy: Toy, x: Tensor, truth: Tensor) -> dict[str, Seen]:
        """The more frequent feature alone, and the two that hedge."""
        rate = torch.tensor(self.case.rate)
        first = truth[:, [int(rate.argmax())]]
        known = {TRUTH: Seen(x, toy.dictionary[[int(rate.argmax())]], first, truth)}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            pairs = {HEDGED: self.case.solution(toy), BIASED: self.case.biased_solution(toy)}
            for name, pair in pairs.items():
                known[name] = Seen(x - pair.b_dec, pair.W_dec.detach(), pair.encode(x), truth)
        return known

    def scores(self, toy: Toy, seen: Seen, seed: int) -> dict[str, float]:
        """What is found, and where the atom points."""
        moments = self.case.second_moment(), self.case.covariance()
        hedged, biased = (principal(moment)[0] for moment in moments)
        return found(toy.dictionary, seen) | pair_scores(toy.dictionary, seen, hedged, biased)


# Several trees, as nearly all rows of a single one are equal, and so are atoms that begin at rows.
_COUPLE = absorption_case()
_COUPLES = Forest.balanced((4, 1), probability=_COUPLE.forest.probability, exclusive=True)
_FAMILIES = Forest.balanced((4, 4), probability=(0.3, 0.2), exclusive=True)
_FOREST = Forest.balanced((8, 3), probability=(0.15, 0.25), exclusive=True)

ABSORPTION_CASES: Mapping[str, Absorbing | Hedging] = {
    "couples": Absorbing(label="one child each", case=replace(_COUPLE, forest=_COUPLES), ks=(2, 4)),
    "families": Absorbing(
        label="four children each", case=TreeCase(forest=_FAMILIES, d_model=20), ks=(2, 4)
    ),
    "forest": Absorbing(
        label="three children each, in superposition",
        case=TreeCase(
            forest=_FOREST, geometry=AnyDirections(directions=SpreadDirections()), d_model=20
        ),
        ks=(2, 4),
    ),
    "together": Hedging(label="two that fire together", case=HedgingCase(correlation=0.4)),
    "apart": Hedging(label="two that avoid each other", case=HedgingCase(correlation=-0.2)),
}
"""By name, in the order of tables."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which rows.

    Args:
        case: A name in ``ABSORPTION_CASES``.
        seed: Of the toy and of its rows.
        rows: Distinct draws to train on.
        test: Held-out rows.
    """

    case: str
    seed: int
    rows: int
    test: int


class Known:
    """Training and held-out rows of one toy.

    Args:
        where: Which.
    """

    def __init__(self, where: Where) -> None:
        self.where, self.case = where, ABSORPTION_CASES[where.case]
        self.toy = self.case.build(Generator().manual_seed(where.seed))
        self.train = self.toy.sample(where.rows, stream(where.seed, ROWS)).x
        self.test, self.truth = self.toy.sample(where.test, stream(where.seed, HELD_OUT))
        self.normalizer = AffineNormalizer.fit(self.train)

    @property
    def d_model(self) -> int:
        """Width of an activation."""
        return self.train.shape[1]

    def scores(self, seen: Seen) -> dict[str, float]:
        """Of a solution of the held-out rows."""
        return self.case.scores(self.toy, seen, self.where.seed)

    def solutions(self) -> dict[str, Seen]:
        """The known ones of the held-out rows, and last the control."""
        known = self.case.solutions(self.toy, self.test, self.truth)
        size, chance = (self.case.latents, self.d_model), stream(self.where.seed, UNTRAINED)
        atoms = normalize(torch.randn(size, generator=chance), dim=-1)
        codes = (self.test @ atoms.mT).relu()
        return known | {RANDOM: Seen(self.test, atoms, codes, self.truth)}


@lru_cache(maxsize=1)
def known(where: Where) -> Known:
    """A pure function of its argument; the last one is kept."""
    return Known(where)
