"""The autoencoders that ``ladder`` compares, all of as many latents."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from priors.graph import Graph
from priors.laplace import LaplacePrior
from priors.laplacian import GraphLaplacianPrior
from toys.reproduce.ladder_data import World
from toys.reproduce.ladder_settings import Sizes
from vsae.additive_decoder import AdditiveDecoder
from vsae.autoencoder import Autoencoder
from vsae.consistency import AbstractConsistency, Consistency, StoppedConsistency
from vsae.decoders import LinearDecoder
from vsae.guides import AmortizedGuide
from vsae.ladder_encoder import LadderEncoder
from vsae.lateral_decoder import LateralDecoder
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.layered_decoder import LayeredDecoder
from vsae.layered_encoder import LayeredEncoder
from vsae.models.crosscoder import Crosscoder
from vsae.models.ladder import LadderAutoencoder
from vsae.models.sae import SparseAutoencoder
from vsae.normalizers import AffineNormalizer
from vsae.posteriors import ReLUPosterior
from vsae.posteriors.ladder import LadderPosterior
from vsae.presets.dense import l1_autoencoder
from vsae.presets.ladder import ladder_autoencoder, variational_ladder_autoencoder
from vsae.presets.topk import HALF, topk_autoencoder

Reading = type[LateralDecoder] | type[AdditiveDecoder]
Tie = type[AbstractConsistency] | None


@dataclass(frozen=True, eq=False)
class Start:
    """Where a model begins: the same for all arms of a seed.

    Args:
        atoms: Directions of training rows, one per latent, the fine level's first.
        normalizer: Units.
        generator: For what is drawn beside.
    """

    atoms: Tensor
    normalizer: AffineNormalizer
    generator: Generator


Build = Callable[[Sizes, World, Start], Autoencoder]


@dataclass(frozen=True)
class Arm:
    """An autoencoder.

    Args:
        label: As tables and figures print it.
        build: The untrained model.
        levels: Whether it has any.
        controlled: Whether β is to be found; TopK has its L0 by construction.
        stacked: Whether its seeds are trained as one stack.
        start: β to begin with, from which the controller goes on.
        rate: Of the controller.
        factor: Of the target in training; a variational ladder's codes at the means, which are
            measured, are sparser than those in training. Chosen on seeds that are not reported.
    """

    label: str
    build: Build
    levels: bool = True
    controlled: bool = True
    stacked: bool = True
    start: float = 0.1
    rate: float = 0.01
    factor: float = 1.0


def ladder(reading: Reading, tie: Tie, graph: str = "") -> Build:
    """A deterministic ladder; ``graph`` is ``knn``, ``shuffled`` or none."""

    def build(sizes: Sizes, world: World, start: Start) -> Autoencoder:
        fine = sizes.levels[0]
        pair = ladder_autoencoder(
            start.atoms.shape[1],
            sizes.levels,
            l1=sizes.l1,
            decoder=reading,
            consistency=tie,
            gamma=sizes.gamma,
            structures=structures(graph, start.atoms[:fine], sizes, start.generator),
            normalizer=start.normalizer,
        )
        decoder, layers = pair.model.decoder, pair.guide.posterior.encoder.layers
        first = decoder.levels[0] if reading is LateralDecoder else decoder.parts[0]
        place(first, start.atoms[:fine])
        layers[0].align(first)
        if reading is AdditiveDecoder:  # coarse atoms begin where the second layer's inputs lead
            place(decoder.parts[1], layers[1].W_enc.detach().mT @ start.atoms[:fine])
        return pair

    return build


def equal(build: Build) -> Build:
    """The same with the fine level's λ on both."""

    def built(sizes: Sizes, world: World, start: Start) -> Autoencoder:
        return build(replace(sizes, l1=(sizes.l1[0], sizes.l1[0])), world, start)

    return built


def structures(
    graph: str, atoms: Tensor, sizes: Sizes, generator: Generator
) -> tuple[nn.Module | None, None] | None:
    """A graph on the fine level: nearest neighbours among the atoms it begins with, or renamed."""
    if not graph:
        return None
    tied = Graph.knn(atoms, sizes.neighbours)
    tied = tied.shuffled(generator) if graph == "shuffled" else tied
    return GraphLaplacianPrior(tied, ridge=1e-4, strength=2 * sizes.eta), None


@torch.no_grad()
def place(decoder: nn.Module, atoms: Tensor) -> None:
    """Let a dictionary begin with these directions."""
    decoder.W_dec.copy_(nn.functional.normalize(atoms, dim=-1))
    decoder.project()


def variational(sizes: Sizes, world: World, start: Start) -> Autoencoder:
    """The variational ladder."""
    pair = variational_ladder_autoencoder(
        start.atoms.shape[1], sizes.levels, noise=sizes.noise, normalizer=start.normalizer
    )
    first = pair.model.decoder.levels[0]
    place(first, start.atoms[: sizes.levels[0]])
    pair.guide.evidence.encoder.layers[0].align(first)
    return pair


def flat(sizes: Sizes, world: World, start: Start) -> Autoencoder:
    """The ℓ1 SAE."""
    latents, d_model = start.atoms.shape
    pair = l1_autoencoder(d_model, latents, l1=sizes.l1[0], normalizer=start.normalizer)
    place(pair.model.decoder, start.atoms)
    pair.guide.posterior.encoder.align(pair.model.decoder)
    return pair


def topk(sizes: Sizes, world: World, start: Start) -> Autoencoder:
    """The TopK SAE at the target itself."""
    latents, d_model = start.atoms.shape
    pair = topk_autoencoder(d_model, latents, k=round(sizes.target), normalizer=start.normalizer)
    place(pair.model.decoder, start.atoms)
    with torch.no_grad():
        pair.guide.posterior.encoder.W_enc.copy_(pair.W_dec)
    return pair


def crosscoder(sizes: Sizes, world: World, start: Start) -> Autoencoder:
    """The ℓ1 crosscoder."""
    decoder = LayeredDecoder(len(start.atoms), world.layers)
    place(decoder, start.atoms)
    prior = LaplacePrior(len(start.atoms), scale=1 / sizes.l1[0])
    model = Crosscoder(SparseAutoencoder(decoder, prior, noise=HALF), world.layers)
    guide = AmortizedGuide(ReLUPosterior(LayeredEncoder(decoder, world.layers)))
    return LayeredAutoencoder(model, guide, start.normalizer)


def crosscoder_ladder(sizes: Sizes, world: World, start: Start) -> Autoencoder:
    """A ladder whose fine level writes to every layer: lateral, stopped."""
    fine, coarse = sizes.levels
    first, second = LayeredDecoder(fine, world.layers), LinearDecoder(coarse, fine)
    place(first, start.atoms[:fine])
    encoder = LadderEncoder(sum(world.layers), sizes.levels)
    encoder.align([first, second])
    inner = LadderAutoencoder(
        LateralDecoder([first, second]),
        [LaplacePrior(n, scale=1 / one) for n, one in zip(sizes.levels, sizes.l1, strict=True)],
        noise=HALF,
        consistency=StoppedConsistency([first, second], (None, HALF / sizes.gamma**0.5)),
    )
    guide = AmortizedGuide(LadderPosterior(encoder))
    return LayeredAutoencoder(Crosscoder(inner, world.layers), guide, start.normalizer)


LATERAL, ADDITIVE, VARIATIONAL, FLAT, TOPK = "lateral", "additive", "variational", "flat", "topk"
TIES: dict[str, tuple[str, Tie]] = {
    "none": ("not tied", None),
    "moving": ("moving view", Consistency),
    "stopped": ("stopped view", StoppedConsistency),
}
READINGS: dict[str, Reading] = {LATERAL: LateralDecoder, ADDITIVE: AdditiveDecoder}
GRAPHS = {"knn": "graph", "shuffled": "shuffled graph"}
LADDERS: dict[str, Arm] = {
    f"{name}-{tie}": Arm(f"{name}, {label}", ladder(reading, kind))
    for name, reading in READINGS.items()
    for tie, (label, kind) in TIES.items()
}
STRUCTURED: dict[str, Arm] = {
    f"{name}-{graph}": Arm(f"{name}, {label}", ladder(reading, StoppedConsistency, graph))
    for name, reading in READINGS.items()
    for graph, label in GRAPHS.items()
}
FASTER = {"start": 0.3, "rate": 0.02}
FAST: dict[str, Arm] = {
    "lateral-fast": replace(LADDERS["lateral-stopped"], label="lateral, faster", **FASTER),
    "crosscoder-fast": Arm("crosscoder of a ladder, faster", crosscoder_ladder, **FASTER),
}
EQUAL: dict[str, Arm] = {
    f"{name}-equal": Arm(f"{name}, equal λ", equal(ladder(reading, StoppedConsistency)))
    for name, reading in READINGS.items()
}
ARMS: dict[str, Arm] = {
    **LADDERS,
    **STRUCTURED,
    **EQUAL,
    **FAST,
    VARIATIONAL: Arm("variational", variational, stacked=False, start=1e-3, factor=1.25),
    FLAT: Arm("flat ℓ1", flat, levels=False),
    TOPK: Arm("flat TopK", topk, levels=False, controlled=False, stacked=False),
    "crosscoder-ladder": Arm("crosscoder of a ladder", crosscoder_ladder),
    "crosscoder": Arm("flat crosscoder", crosscoder, levels=False),
}
OF_WORLD = {
    "clusters": (*LADDERS, *EQUAL, "lateral-fast", *STRUCTURED, VARIATIONAL, FLAT, TOPK),
    "rings": (*LADDERS, *EQUAL, "lateral-fast", *STRUCTURED, VARIATIONAL, FLAT, TOPK),
    "layers": ("crosscoder-ladder", "crosscoder-fast", "crosscoder", f"{LATERAL}-stopped", FLAT),
}
"""The arms of each toy. A lateral ladder and a flat SAE of concatenated layers know no layers."""
