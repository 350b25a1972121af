"""The cases of the recovery benchmark, and the seeds on which settings may be chosen."""

import math
from dataclasses import dataclass, replace

from torch import Generator

from toys.copula import CopulaCase, LatentCorrelation
from toys.correlation import (
    BlockCorrelation,
    CorrelationStructure,
    Independent,
    RandomCorrelation,
    blocks,
    pairs,
)
from toys.directions import SpreadDirections
from toys.forest import Forest
from toys.gaussian_cases import SPARSE_CASES
from toys.magnitudes import (
    ConstantMagnitude,
    LogNormalMagnitude,
    MagnitudeLaw,
    PositiveNormal,
    UniformMagnitude,
)
from toys.synth import DATA_A, SynthCase, SynthToy
from toys.synth_parts import LinearlySpaced
from toys.synth_subspaces import SubspaceCase, SubspaceToy
from toys.toy import Toy
from toys.tree_cases import TreeCase, TreeToy
from toys.tree_geometry import AnyDirections

CHOOSING = (0,)
"""Generator seeds on which settings may be chosen; nothing is reported on them."""

REPORTING = (1, 2, 3, 4, 5)
"""Generator seeds of which results are reported; no setting is chosen on them."""

SIZE = PositiveNormal(loc=1.0, scale=0.25)  # as in the flat reproduction; the pilot left it unsaid
NOISE = 0.05  # the same
PART1 = "part 1"  # the family of its sparse cases


@dataclass(frozen=True, kw_only=True)
class RecoveryCase:
    """A case of the benchmark.

    Args:
        family: What it varies; cases of one family make one table.
        case: The law of its toys.
        choosing: Generator seeds on which settings may be chosen; none for a case that is to
            show whether settings chosen elsewhere hold.
        reporting: Generator seeds of which results are reported.

    Example:
        >>> from torch import Generator
        >>> case = RECOVERY_CASES["copula-blocks"]
        >>> case.family, case.choosing, case.reporting
        ('copula', (0,), (1, 2, 3, 4, 5))
        >>> toy = case.build(Generator().manual_seed(case.reporting[0]))
        >>> toy.dictionary.shape
        torch.Size([64, 32])
    """

    family: str
    case: CopulaCase | TreeCase | SynthCase | SubspaceCase
    choosing: tuple[int, ...] = ()
    reporting: tuple[int, ...] = REPORTING

    def build(self, generator: Generator) -> Toy | TreeToy | SynthToy | SubspaceToy:
        """A toy of this case."""
        return self.case.build(generator)


def _copula(
    structure: CorrelationStructure, magnitude: MagnitudeLaw = SIZE, noise: float = NOISE
) -> CopulaCase:
    """Data B: 64 features in 32 dimensions that fire on a twentieth of the rows."""
    return CopulaCase(
        dependence=LatentCorrelation(structure=structure),
        rate=0.05,
        magnitude=magnitude,
        d_model=32,
        noise=noise,
    )


def _tree(sizes: tuple[int, ...], probability: tuple[float, ...], exclusive: bool) -> TreeCase:
    """About 64 features in 32 dimensions, siblings exclusive or independent, rates the same."""
    return TreeCase(
        forest=Forest.balanced(sizes, probability=probability, exclusive=exclusive),
        geometry=AnyDirections(directions=SpreadDirections()),
        magnitude=SIZE,
        d_model=32,
        noise=NOISE,
    )


_FREE = Independent(size=64)
_EIGHTS = BlockCorrelation(parts=(RandomCorrelation(size=8, degrees_of_freedom=10),) * 8)
_MIXED = BlockCorrelation(parts=(*blocks((4,) * 8, 0.8).parts, *pairs(16, -0.8).parts))

_COPULAS = {
    "copula-independent": RecoveryCase(family="copula", case=_copula(_FREE), choosing=CHOOSING),
    "copula-blocks": RecoveryCase(
        family="copula", case=_copula(blocks((4,) * 16, 0.8)), choosing=CHOOSING
    ),
    "copula-pairs": RecoveryCase(family="copula", case=_copula(pairs(32, -0.8)), choosing=CHOOSING),
    "copula-mixed": RecoveryCase(family="copula", case=_copula(_MIXED)),
    "copula-random": RecoveryCase(family="copula", case=_copula(_EIGHTS)),
}

_SHAPES = {
    "tree-1": ((16, 3), (0.1, 0.3)),
    "tree-2": ((4, 3, 4), (0.2, 0.3, 0.22)),
    "tree-3": ((4, 2, 2, 2), (0.3, 0.45, 0.45, 0.45)),
}

_TREES = {
    f"{name}-{kind}": RecoveryCase(family="trees", case=_tree(*shape, kind == "exclusive"))
    for name, shape in _SHAPES.items()
    for kind in ("exclusive", "free")
}

_NOISES = {
    f"noise-{noise}": RecoveryCase(family="noise", case=_copula(_FREE, noise=noise))
    for noise in (0.0, 0.1, 0.2, 0.3)
}

# All have the mean 1; the last three have no least size above 0.
_SIZES: dict[str, MagnitudeLaw] = {
    "constant": ConstantMagnitude(value=1.0),
    "uniform-away": UniformMagnitude(low=0.5, high=1.5),
    "uniform-from-0": UniformMagnitude(low=0.0, high=2.0),
    "log-normal": LogNormalMagnitude(loc=-0.5, scale=1.0),
    "half-normal": PositiveNormal(loc=0.0, scale=math.sqrt(math.pi / 2)),
}

_MAGNITUDES = {
    f"sizes-{name}": RecoveryCase(family="sizes", case=_copula(_FREE, magnitude=law))
    for name, law in _SIZES.items()
}

# Those of part 1 whose features outnumber the dimensions.
_PART1 = {
    f"part1-{name}": RecoveryCase(family=PART1, case=SPARSE_CASES[name])
    for name in ("case3", "case4", "case5", "case6")
}

_HARD = replace(DATA_A, deviation=LinearlySpaced(start=2.6, stop=2.6), noise=0.1)

RECOVERY_CASES: dict[str, RecoveryCase] = {
    "data-a": RecoveryCase(family="data-a", case=DATA_A, choosing=CHOOSING),
    "data-a-hard": RecoveryCase(family="data-a", case=_HARD),
    **_COPULAS,
    **_TREES,
    **_NOISES,
    **_MAGNITUDES,
    **_PART1,
    "subspaces": RecoveryCase(
        family="subspaces",
        case=SubspaceCase(
            dimensions=(1,) * 16 + (2,) * 8 + (3,) * 4 + (4,) * 5, magnitude=SIZE, noise=NOISE
        ),
    ),
}
"""Every case of the benchmark that one CPU thread can run, by name."""
