"""What a run of ``hsae-contexts`` is made of: every number that decides what the page shows."""

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes; the defaults are the run that is reported.

    Args:
        seeds: Of weights and the order of rows; the page shows the first, its table all.
        layer: The residual stream after this block.
        stories: Stories read for training, one in ten of them left out.
        heldout: Stories of which every tenth is held out, read and shown.
        roots: Parents, ``m``.
        children: Of each parent, ``a``.
        subspace: Dimensions of a parent's children, ``s``.
        k: Parents per row.
        orthogonality: λ of bi-orthogonality: the published 0.1, of rows of unit norm, times ``d``.
        steps: Updates per model.
        batch: Rows per update.
        lr: Learning rate, decayed linearly to 0 over the last fifth.
        low: Least share of tokens on which a chosen parent fires.
        high: Greatest.
        least: Held-out rows on which a latent fires, for it to count as active.
        parents: Chosen by the rule.
        drawn: Parents drawn at random beside them.
        tokens: Held-out tokens taken apart.
        contexts: Strongest contexts of a parent.
        child_contexts: Of a child.
        width: Tokens shown on either side.
        open: Children of a parent that are shown without unfolding.
    """

    seeds: tuple[int, ...] = (0, 1)
    layer: int = 2
    stories: int = 400
    heldout: int = 1000
    roots: int = 128
    children: int = 16
    subspace: int = 4
    k: int = 4
    orthogonality: float = 6.4
    steps: int = 500
    batch: int = 512
    lr: float = 5e-3
    low: float = 0.001
    high: float = 0.05
    least: int = 10
    parents: int = 12
    drawn: int = 6
    tokens: int = 8
    contexts: int = 5
    child_contexts: int = 3
    width: int = 16
    open: int = 4

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self)


def settings(
    *, smoke: bool, seeds: int | None = None, layer: int | None = None, parents: int | None = None
) -> Settings:
    """The reported run, or a tiny one that only shows that everything works."""
    chosen = Settings()
    if smoke:
        chosen = Settings(
            seeds=(0,),
            stories=40,
            heldout=40,
            roots=16,
            children=4,
            subspace=2,
            k=2,
            steps=40,
            batch=128,
            high=0.5,
            parents=3,
            drawn=2,
            tokens=3,
        )
    given = {
        "seeds": tuple(range(seeds)) if seeds else None,
        "layer": layer,
        "parents": parents,
    }
    return replace(chosen, **{name: value for name, value in given.items() if value is not None})
