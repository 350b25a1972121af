"""The sweeps: what one change to the H-SAE does, everything else as it was."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from toys.reproduce.hsae_plan import reference, tree
from toys.reproduce.hsae_recipes import Hierarchical, Recipe
from toys.reproduce.hsae_settings import Settings
from toys.reproduce.hsae_variants import (
    Penalised,
    Published,
    Revived,
    Variational,
    families,
    isotropic,
    shuffled_families,
    slab,
)
from vsae.biorthogonality import (
    AbstractBiorthogonality,
    Biorthogonality,
    FrobeniusBiorthogonality,
    ShippedBiorthogonality,
)
from vsae.presets.published_hierarchical import (
    paper_hierarchical_autoencoder,
    shipped_hierarchical_autoencoder,
)

DEEP = {
    "stories": ((16, 4), (4, 4), (4, 2)),
    "park-3": ((12, 8), (3, 3), (8, 2)),
}
"""Per data, children and subspace of two levels; branching and subspaces of three."""
SUBSPACES = {"stories": (1, 2, 4, 8), "park-2": (1, 2, 3, 4)}
STRONG = 30.0  # times the published ℓ1, which is weak


@dataclass(frozen=True)
class Variant:
    """A line of a sweep's table.

    Args:
        sweep: Which.
        name: What is changed, as the table prints it.
        data: On which data.
        recipe: The model.
        base: What it is compared with; itself for the base.
    """

    sweep: str
    name: str
    data: str
    recipe: Recipe
    base: Recipe


def variants(settings: Settings) -> list[Variant]:
    """All of them."""
    found = [v for data in DEEP if data in settings.data for v in depths(settings, data)]
    for data in settings.swept:
        found += subspaces(settings, data)
        found += orthogonality(settings, data)
        found += l1(settings, data)
        found += published(settings, data)
        found += variational(settings, data)
    return found


def subspaces(settings: Settings, data: str) -> list[Variant]:
    """The dimension ``s`` a parent gives its children."""
    base = reference(settings, data)
    return [
        Variant("subspace", f"s = {s}", data, replace(base, subspaces=(s,)), base)
        for s in SUBSPACES[data]
    ]


def depths(settings: Settings, data: str) -> list[Variant]:
    """Levels: at as many selected roots, and at as many selected latents."""
    (a, s), branching, subspaces = DEEP[data]
    sizes = settings.sizes[data]
    two = Hierarchical(k=sizes.k, roots=sizes.reference, branching=(a,), subspaces=(s,))
    one = replace(two, branching=(), subspaces=())
    three = replace(two, branching=branching, subspaces=subspaces)
    equal = {"1 level": one, "2 levels": two, "3 levels": three}
    found = [Variant("depth", f"{n}, k = {r.k}", data, r, two) for n, r in equal.items()]
    slots = 6 * sizes.k
    for name, recipe in equal.items():
        k = min(slots // recipe.tree.depth // 2, recipe.roots)
        same = replace(recipe, k=k)
        base = replace(two, k=min(slots // 4, two.roots))
        line = f"{name}, k = {k}: {k * recipe.tree.depth} latents"
        found.append(Variant("depth at equal slots", line, data, same, base))
    return found


def penalised(
    base: Hierarchical,
    name: str,
    belief: Callable[..., AbstractBiorthogonality] | None = Biorthogonality,
    *,
    selected: float = 0.0,
    lost: float = 0.0,
) -> Penalised:
    """The base with other penalties; ℓ1 in units of the published one."""
    return Penalised(
        k=base.k,
        roots=base.roots,
        branching=base.branching,
        subspaces=base.subspaces,
        name=name,
        belief=belief,
        selected=selected,
        lost=lost,
    )


def orthogonality(settings: Settings, data: str) -> list[Variant]:
    """Its forms, and AuxK, for the sake of dead latents: at the greatest width, where some die."""
    sizes = settings.sizes[data]
    base = tree(settings, data, sizes.widths[-1], sizes.children[0])
    without = penalised(base, "no orthogonality", None)
    forms = {
        "none": without,
        "mean square": base,
        "published norm": penalised(base, "published norm", FrobeniusBiorthogonality),
        "as shipped": penalised(base, "shipped norm", ShippedBiorthogonality),
        "none, AuxK": Revived(k=base.k, inner=without),
        "mean square, AuxK": Revived(k=base.k, inner=base),
    }
    return [Variant("orthogonality", name, data, r, without) for name, r in forms.items()]


def l1(settings: Settings, data: str) -> list[Variant]:
    """ℓ1 on nothing, on what is selected, on what lost, on all: as weak as published, and not."""
    base = reference(settings, data)
    forms = {
        "all, published": (1.0, 1.0),
        f"selected, {STRONG:g} × published": (STRONG, 0.0),
        f"unselected, {STRONG:g} × published": (0.0, STRONG),
        f"all, {STRONG:g} × published": (STRONG, STRONG),
    }
    found = [Variant("ℓ1", "none", data, base, base)]
    for name, (selected, lost) in forms.items():
        recipe = penalised(base, name, selected=selected, lost=lost)
        found.append(Variant("ℓ1", name, data, recipe, base))
    return found


def published(settings: Settings, data: str) -> list[Variant]:
    """The presets, in units of E‖x‖² = 1."""
    base = reference(settings, data)
    sizes = {"k": base.k, "roots": base.roots}
    sizes |= {"branching": base.branching, "subspaces": base.subspaces}
    paper = Published(name="the paper's", preset=paper_hierarchical_autoencoder, **sizes)
    shipped = Published(name="as shipped", preset=shipped_hierarchical_autoencoder, **sizes)
    forms = {"this library's": base, "the paper's": paper, "as shipped": shipped}
    return [Variant("presets", name, data, recipe, base) for name, recipe in forms.items()]


PRIORS = {
    "isotropic": isotropic,
    "slab (ELBO not comparable)": slab,
    "families": families,
    "shuffled families (control)": shuffled_families,
}


def variational(settings: Settings, data: str) -> list[Variant]:
    """Gaussian amplitudes, under priors with and without structure."""
    base = reference(settings, data)
    made = {
        name: Variational(
            k=base.k,
            roots=base.roots,
            branching=base.branching,
            subspaces=base.subspaces,
            name=name,
            belief=belief,
        )
        for name, belief in PRIORS.items()
    }
    control = made["shuffled families (control)"]
    forms = {"no prior": base} | made
    return [Variant("variational", name, data, r, control) for name, r in forms.items()]
