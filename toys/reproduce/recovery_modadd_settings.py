"""What the part ``modadd`` of ``vsae reproduce recovery`` is made of."""

from dataclasses import dataclass

from toys.modadd import NETWORKS

NUMBERS, SUMS = "numbers", "sums"


@dataclass(frozen=True, kw_only=True)
class ModAddSettings:
    """Sizes; the defaults are the run that is reported.

    Args:
        networks: Names of the networks.
        streams: Which activations: the embeddings of both tokens added up, and the last layer at
            the last token.
        latents: ``K``: below 59, so that no latent can stand for each number.
        train: Of the 3481 rows, those trained on.
        k: Active latents per row of TopK and its kin, and at most so many of ours.
        l1s: λ of the ℓ1 SAE; the last gives latents the identity by which a V-SAE's
            structure is assigned.
        noises: σ of the V-SAEs, in normalised units.
        per_plane: Latents per key plane and row that a V-SAE's prior expects to fire.
        ratio: Strength over ridge of the graph priors.
        first_steps: Updates of what the ℓ1 SAE and V-SAEs go on from, from either start.
        dense_steps: Their own updates.
        long_network: On whose first stream two arms are trained for longer, too.
        long_steps: Their updates.
        dense_batch: Rows per update of these.
        field_steps: Updates of TopK and its kin.
        coding_steps: Updates of each phase of ours.
        batch: Rows per update of TopK and its kin, and of ours.
        lr: Adam's learning rate, of all arms but ours.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    streams: tuple[str, ...] = (NUMBERS, SUMS)
    latents: int = 48
    train: int = 2_800
    k: int = 16
    l1s: tuple[float, ...] = (0.5, 2.0)
    noises: tuple[float, ...] = (0.4, 0.8)
    per_plane: float = 2.0
    ratio: float = 4.0
    first_steps: int = 300
    dense_steps: int = 300
    long_network: str = "pizza"
    long_steps: int = 900
    dense_batch: int = 64
    field_steps: int = 150
    coding_steps: int = 60
    batch: int = 128
    lr: float = 1e-2


SMOKE = ModAddSettings(
    networks=("pizza",),
    streams=(NUMBERS,),
    l1s=(1.5,),
    noises=(0.8,),
    first_steps=3,
    dense_steps=3,
    long_steps=4,
    field_steps=3,
    coding_steps=2,
)
"""A tiny run that only shows that everything works."""
