"""Jobs on the words: the field's arms, sparse coding, and slabs with structure between gates."""

import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from priors.amplitudes import ExponentialPrior
from toys.reproduce.flat_arms import Size
from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_field import field_run, weights_of
from toys.reproduce.recovery_refit import refitted
from toys.reproduce.recovery_scores import encoded, plain
from toys.reproduce.recovery_words_arms import CONTROL, L1, OURS, SLAB, WORD_ARMS
from toys.reproduce.recovery_words_data import Split, Words, words
from toys.reproduce.recovery_words_gates import STRUCTURES, edges, wordnet_parents
from toys.reproduce.recovery_words_scores import detection, family, summary
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.errors import NonFiniteLossError
from vsae.guides import AmortizedGuide
from vsae.hierarchical_decoder import HierarchicalDecoder
from vsae.likelihood import FixedNoise
from vsae.models.sae import SparseAutoencoder
from vsae.posteriors.relaxed_fista import RelaxedFISTAPosterior
from vsae.recipes.recovery import ATOMS, RecoveryRecipe, dictionary_of_rows
from vsae.recipes.sparse_coding import SparseCodingRecipe
from vsae.run import Run
from vsae.schedules import LinearWarmup

WEAK = 0.5  # λ of the control: weak enough that more than k latents are active
PERMUTED = 19_000_000  # a random stream
TREES = (f"{SLAB} tree", f"{SLAB} tree-shuffled")
COVERED = 0.5  # of a latent's words, from which another is its parent


@dataclass(frozen=True, kw_only=True)
class WordsFieldJob(Job):
    """An architecture of the field.

    Args:
        split: Which words.
        arm: A name in ``WORD_ARMS``.
        strength: Of its knob.
        latents: ``K``.
        lr: Adam's learning rate, in a straight line to 0 over the last fifth.
        seen: Rows seen in training.
        batch: Rows per update.
    """

    split: Split
    arm: str
    strength: float
    latents: int
    lr: float
    seen: int
    batch: int

    def compute(self) -> Found:
        found, seed, steps = words(self.split), self.split.seed, max(1, self.seen // self.batch)
        pair = self.build(found)
        run = field_run(
            pair,
            found.train,
            steps=steps,
            batch=self.batch,
            lr=self.lr,
            seed=seed,
            beta=LinearWarmup(max(1, steps // 10)),
        )
        about = {"strength": self.strength, "lr": self.lr}
        return measured(self.split, self.arm, about, [(self.arm, lambda: run, ())])

    def build(self, found: Words) -> Autoencoder:
        """The untrained pair."""
        with weights_of(self.split.seed):
            size = Size(
                d_model=found.train.shape[1], latents=self.latents, normalizer=found.normalizer
            )
            return WORD_ARMS[self.arm].build(size, self.strength)


@dataclass(frozen=True, kw_only=True)
class WordsCodingJob(Job):
    """Sparse coding: a model after its ℓ1 phase, and one without shrinkage.

    Args:
        split: Which words.
        recipe: Its settings.
        latents: ``K``.
    """

    split: Split
    recipe: SparseCodingRecipe
    latents: int

    def compute(self) -> Found:
        train, seed = words(self.split).train, self.split.seed
        phases = self.recipe.phases(train, latents=self.latents, seed=seed)
        # A phase goes on with the dictionary of the one before it: what is measured is a copy.
        wanted = [(L1, lambda: next(phases), ()), (OURS, lambda: next(phases), ())]
        return measured(self.split, OURS, {"strength": float(self.recipe.k)}, wanted)


@dataclass(frozen=True, kw_only=True)
class WordsControlJob(Job):
    """The control without training: random words as atoms, under sparse coding's guide.

    Args:
        split: Which words.
        k: Active latents per row, at most.
        latents: ``K``.
    """

    split: Split
    k: int
    latents: int

    def compute(self) -> Found:
        pair = self.build(words(self.split))
        about = {"strength": float(self.k)}
        return measured(self.split, CONTROL, about, [(CONTROL, lambda: Untrained(pair), ())])

    def build(self, found: Words) -> Autoencoder:
        """The pair: its atoms are those that sparse coding starts from."""
        rows, seed = found.normalizer(found.train), self.split.seed
        decoder = dictionary_of_rows(rows, self.latents, stream(seed, ATOMS))
        noise, prior = FixedNoise(1.0), ExponentialPrior(self.latents, scale=1 / WEAK)
        guide = RelaxedFISTAPosterior(decoder, prior, noise, k=self.k)
        model = SparseAutoencoder(decoder, prior, noise=noise)
        return Autoencoder(model, AmortizedGuide(guide), found.normalizer)


@dataclass(frozen=True, eq=False)
class Untrained:
    """A training of no updates.

    Args:
        autoencoder: The pair.
    """

    autoencoder: Autoencoder

    def __iter__(self) -> Iterator[None]:
        return iter(())


@dataclass(frozen=True, kw_only=True)
class WordsSlabJob(Job):
    """One ℓ1 phase, and spike and slab after it, once with each structure between gates.

    Args:
        split: Which words.
        recipe: Its settings; phase 3 is left out.
        structures: Names in ``STRUCTURES``.
        latents: ``K``.
        levels: Values of L0 down to which the surest firings are kept.
    """

    split: Split
    recipe: RecoveryRecipe
    structures: tuple[str, ...]
    latents: int
    levels: tuple[float, ...]

    def compute(self) -> Found:
        found, seed = words(self.split), self.split.seed
        run = self.recipe.l1_phase(found.train, latents=self.latents, seed=seed)
        row: dict = {"strength": self.recipe.noise[1]}
        begun = time.process_time()
        try:
            for _ in run:
                pass
        except NonFiniteLossError as error:
            row |= {"seed": seed, "arm": SLAB, "seconds": time.process_time() - begun}
            return Found(row | {"failed": str(error), "models": []})
        row["l1_seconds"] = time.process_time() - begun
        wanted = [
            (
                f"{SLAB} {name}",
                lambda name=name: self._slab(found, run.autoencoder, name),
                self.levels,
            )
            for name in self.structures
        ]
        made, trees = (
            measured(self.split, SLAB, row, wanted),
            edges(wordnet_parents(found, run.autoencoder), seed),
        )
        for model in made.row["models"]:
            model |= trees if model["name"] in TREES else {}
        return made

    def _slab(self, found: Words, pair: Autoencoder, name: str) -> Run:
        seed = self.split.seed
        recipe = replace(self.recipe, gates=STRUCTURES[name](found, self.recipe, seed))
        return recipe.slab_phase(deepcopy(pair), found.train, seed=seed)


Wanted = tuple[str, Callable[[], Run | Untrained], tuple[float, ...]]
"""The name of a model, how its training begins, and the values of L0 it is also trimmed to."""


def measured(split: Split, arm: str, about: dict, wanted: Iterable[Wanted]) -> Found:
    """Train one model after another, and measure each."""
    row: dict = {"seed": split.seed, "arm": arm, "failed": None, "seconds": 0.0} | about
    row["seconds"] += row.pop("l1_seconds", 0.0)
    models, tensors = [], {}
    for name, begin, levels in wanted:
        run, begun = begin(), time.process_time()
        try:
            for _ in run:
                pass
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error), "models": []})
        row["seconds"] += time.process_time() - begun
        pair = run.autoencoder
        tensors[name] = pair.W_dec.detach().clone()
        models += [
            {"name": name, "seed": split.seed, "failed": None} | model
            for model in worths(words(split), pair, split.seed, levels)
        ]
    return Found(plain(row | {"models": models}), tensors)


@torch.no_grad()
def worths(found: Words, pair: Autoencoder, seed: int, levels: tuple[float, ...]) -> list[dict]:
    """Of all firings, and of the surest."""
    codes = encoded(pair, found.vectors)
    models = [worth(found, pair, codes.values, None, seed)]
    for level in levels:
        kept = codes.trimmed(level)
        if kept is not None:
            models.append(worth(found, pair, kept, level, seed))
    return models


def worth(
    found: Words, pair: Autoencoder, codes: Tensor, level: float | None, seed: int
) -> dict[str, object]:
    """Everything that is measured of some codes of all words.

    EV is of the codes as they are, and again with amplitudes solved anew: two curves of every arm.
    """
    held = codes[found.held]
    known, asked = ((codes[half.words], half.on) for half in (found.known, found.asked))
    scores = summary(detection(known, asked, stream(seed, PERMUTED)))
    own = family(known, asked, parents_of(found, pair, codes), found.parents)
    solved = refitted(found.normalizer(found.test) - pair.b_dec, held, pair.W_dec)
    return (
        {
            "trimmed": level,
            "l0": float(metrics.l0(held)),
            "l0_asked": float(metrics.l0(asked[0])),
            "ev": explained(found, pair, held),
            "ev_refitted": explained(found, pair, solved),
            "dead": 100 * float(metrics.dead_fraction(codes)),
        }
        | scores
        | own
    )


def explained(found: Words, pair: Autoencoder, codes: Tensor) -> float:
    """Explained variance of the held-out words."""
    return float(metrics.explained_variance(found.test, pair.decode(codes)))


def parents_of(found: Words, pair: Autoencoder, codes: Tensor) -> Tensor:
    """An H-SAE's own tree; of other dictionaries, the latents that cover each on training words."""
    if isinstance(pair.model.decoder, HierarchicalDecoder):
        return pair.model.decoder.tree.parents()
    train = torch.ones(len(codes), dtype=torch.bool)
    train[found.held] = False
    return metrics.infer_parents(codes[train], threshold=COVERED).parents
