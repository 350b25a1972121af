"""What a run of ``hsae`` is made of: every number that decides a result but those of recipes."""

from dataclasses import asdict, dataclass, field, replace

VALIDATION = 1_000  # the seed on which learning rates are chosen; no result is of it


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the models of one data set.

    Args:
        k: Selected roots per row; of a flat SAE at equal ``k``, latents.
        widths: Top widths ``m``, ascending.
        children: ``(a, s)`` of each line of figure 3.
        reference: The width at which one thing at a time is matched or changed.
    """

    k: int
    widths: tuple[int, ...]
    children: tuple[tuple[int, int], ...]
    reference: int


_WORDS = Sizes(k=4, widths=(8, 16, 32, 64), children=((4, 2), (16, 4)), reference=32)
SIZES = {
    "stories": Sizes(k=4, widths=(32, 64, 128, 256), children=((16, 4), (64, 8)), reference=64),
    "words": replace(_WORDS, widths=(32,), children=((4, 2),)),
    "white": _WORDS,
    "published": Sizes(k=2, widths=(5, 11, 22), children=((3, 2),), reference=11),
    "park-2": Sizes(k=2, widths=(4, 8, 16), children=((4, 3),), reference=8),
    "park-3": Sizes(k=2, widths=(6,), children=((12, 8),), reference=6),
    "absorption": Sizes(k=1, widths=(1, 2), children=((2, 1),), reference=1),
    "hedging": Sizes(k=1, widths=(1,), children=((2, 1),), reference=1),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes; the defaults are the run that is reported.

    Args:
        seeds: Of toys, their rows, weights and the order of rows.
        steps: Updates per model.
        batch: Rows per update.
        rates: Learning rates, of which each arm and size gets the better; decayed to 0 over the
            last fifth.
        toy_rows: Training rows of a toy.
        toy_test: Held-out rows of a toy.
        jitter: Of the size of each active feature in a second view, relative.
        view_noise: Of each view, per neuron.
        layer: The residual stream after this block.
        stories: Stories read, one in ten of them held out.
        structure_rows: Held-out rows of the stories on which parents and children are compared.
        least: Words at or below a WordNet concept for it to count.
        tolerance: Relative difference of L0 up to which two models have the same.
        margin: Of "on par" and "no effect", in explained variance.
        data: Names of the data sets; claims about others are undecided.
        swept: Those on which the H-SAE is varied.
        sizes: Of the models, by data.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 400
    batch: int = 256
    rates: tuple[float, ...] = (1e-2, 2e-2)
    toy_rows: int = 32_768
    toy_test: int = 4_096
    jitter: float = 0.25
    view_noise: float = 0.1
    layer: int = 2
    stories: int = 100
    structure_rows: int = 3_000
    least: int = 10
    tolerance: float = 0.05
    margin: float = 0.02
    data: tuple[str, ...] = tuple(SIZES)
    swept: tuple[str, ...] = ("stories", "park-2")
    sizes: dict[str, Sizes] = field(default_factory=lambda: dict(SIZES), hash=False)

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self)


def settings(*, smoke: bool, seeds: int | None, steps: int | None = None) -> Settings:
    """The reported run, or a tiny one that only shows that everything works."""
    chosen = Settings()
    if smoke:
        small = {name: replace(s, widths=(s.reference,)) for name, s in SIZES.items()}
        small["stories"] = Sizes(k=2, widths=(8,), children=((4, 2),), reference=8)
        chosen = Settings(
            seeds=(0, 1),
            steps=2,
            batch=64,
            rates=(1e-2,),
            toy_rows=512,
            toy_test=256,
            stories=10,
            structure_rows=300,
            data=("stories", "park-2", "absorption", "hedging"),
            swept=("park-2",),
            sizes=small,
        )
    given = {"seeds": tuple(range(seeds)) if seeds else None, "steps": steps}
    return replace(chosen, **{name: value for name, value in given.items() if value is not None})
