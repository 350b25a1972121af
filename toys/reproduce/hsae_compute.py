"""What the hierarchy costs at the published sizes, and at ours: arithmetic, nothing measured."""

from collections.abc import Iterator
from dataclasses import dataclass

from toys.reproduce.hsae_cost import flat_operations, tree_operations
from toys.reproduce.hsae_plan import lines
from toys.reproduce.hsae_results import Results
from toys.reproduce.hsae_verdicts import AtLeast, Claim, Comparison
from toys.reproduce.tables import Cell, Table

NEGLIGIBLE = 0.1  # of the top-level SAE's own cost
QUARTER = 0.275  # "a quarter", up to a tenth of it


@dataclass(frozen=True, kw_only=True)
class Setup:
    """An H-SAE of two levels, by its numbers.

    Args:
        where: Whose sizes these are.
        d_model: ``d``.
        roots: ``m``.
        k: Selected roots.
        a: Children of each.
        s: Dimension of their subspace.
    """

    where: str
    d_model: int
    roots: int
    k: int
    a: int
    s: int

    @property
    def operations(self) -> int:
        """Multiply-adds per row."""
        return tree_operations(self.roots, self.d_model, self.k, (self.a,), (self.s,))

    def overhead(self) -> float:
        """Over a flat SAE of the top width, relative to it."""
        return self.operations / flat_operations(self.roots, self.d_model, self.k) - 1

    def quarter(self) -> float:
        """As a share of a flat SAE of four times the top width."""
        return self.operations / flat_operations(4 * self.roots, self.d_model, self.k)


PUBLISHED = tuple(
    Setup(where="published", d_model=2304, roots=m, k=32, a=a, s=s)
    for a, s in ((16, 4), (64, 8))
    for m in (8192, 16384, 32768)
)


def ours(results: Results) -> Iterator[Setup]:
    """The lines of figure 3 on the stories."""
    for one in lines(results.settings, "stories"):
        yield Setup(
            where="here",
            d_model=results.sizes["stories"].d_model,
            roots=one.roots,
            k=one.k,
            a=one.branching[0],
            s=one.subspaces[0],
        )


def compute_table(results: Results) -> Table:
    """Both, term by term."""
    return Table(
        "Multiply-adds per row of a forward pass, and against flat SAEs of m and of 4m latents",
        [_line(setup) for setup in (*PUBLISHED, *ours(results))],
    )


def _line(setup: Setup) -> dict[str, Cell]:
    families = setup.k * setup.s
    return {
        "sizes": setup.where,
        "d": setup.d_model,
        "m": setup.roots,
        "k": setup.k,
        "a": setup.a,
        "s": setup.s,
        "top encode, md": setup.roots * setup.d_model,
        "two projections, 2ksd": 2 * families * setup.d_model,
        "low encode, kas": families * setup.a,
        "low decode, ks": families,
        "top decode, kd": setup.k * setup.d_model,
        "over width m": setup.overhead(),
        "of width 4m": setup.quarter(),
    }


def compute(results: Results) -> list[Claim]:
    """Of the published sizes; the same for every seed."""
    cases = [(f"m = {one.roots}, a = {one.a}", one) for one in PUBLISHED]
    said = {
        f"negligible overhead in multiply-adds over the top-level SAE, at most {NEGLIGIBLE:.0%}": [
            (case, NEGLIGIBLE - one.overhead()) for case, one in cases
        ],
        f"a = 64 at a quarter of the multiply-adds of 4 × the top latents, at most {QUARTER:.1%}": [
            (case, QUARTER - one.quarter()) for case, one in cases if one.a == 64
        ],
    }
    return [
        Claim(
            name=text.split(",")[0],
            source="§3.1, §4 (C5, C12)",
            text=f"{text}, at the published sizes",
            table="compute",
            comparisons=[
                Comparison(
                    data="arithmetic",
                    case=case,
                    lead=dict.fromkeys(results.settings.seeds, lead),
                )
                for case, lead in leads
            ],
            rule=AtLeast(),
        )
        for text, leads in said.items()
    ]
