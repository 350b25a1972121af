"""What the recipe is without some of its beliefs, on Data A."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from priors.amplitudes import ExponentialPrior
from priors.spike_slab import SpikeSlabPrior
from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_data import Draw, problem
from toys.reproduce.recovery_plan import draw, long_l1, plain_slab
from toys.reproduce.recovery_scores import plain, scores
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_synthetic import Watch, described
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.errors import NonFiniteLossError
from vsae.moves import Search
from vsae.recipes.recovery import RecoveryRecipe

ONE_SIZE = 0.15  # a greatest relative deviation with which amplitudes keep away from zero
SPLITS = 20_000_000  # a random stream
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of the floors, where they are all the noise

R = TypeVar("R", bound=RecoveryRecipe)


class OneNoiseRecipe(RecoveryRecipe):
    """Without a noise for every row: the floor is the noise of all."""

    def noise_of_rows(self, floor: nn.Module, d_model: int) -> nn.Module:
        return floor


class ExponentialRecipe(RecoveryRecipe):
    """Without a size for every latent: exponential amplitudes, of the same means."""

    def first_prior(self, pair: Autoencoder, x: Tensor) -> SpikeSlabPrior:
        found = super().first_prior(pair, x)
        slab, known = ExponentialPrior(found.dim), found.slab()
        slab.match(known.mean, known.mean**2 + known.variance)
        return SpikeSlabPrior(found.gates, slab)


class RandomSplitsRecipe(RecoveryRecipe):
    """Without what the data suggest to split: as many latents, along some direction, at random."""

    @torch.no_grad()
    def move(
        self,
        pair: Autoencoder,
        x: Tensor,
        *,
        optimizer: torch.optim.Optimizer,
        seed: int,
        most: int | None,
    ) -> None:
        generator = stream(seed, SPLITS)
        with pair.evaluating():
            search = RandomSplits(pair, x, generator)
        search.run(search.generator, most)
        search.write_to(pair, optimizer)


class RandomSplits(Search):
    """What is merged and unfolded as it is; what is split, and along which direction, at random.

    Args:
        pair: That is evaluated.
        x: The rows.
        generator: Of directions.
    """

    def __init__(self, pair: Autoencoder, x: Tensor, generator: Generator) -> None:
        super().__init__(pair, x)
        self.generator = generator

    def power(self, generator: Generator) -> Tensor:
        return torch.rand(len(self.atoms), generator=generator).to(self.atoms)

    def direction(self, k: int, below: Tensor) -> Tensor:
        return torch.randn(self.atoms.shape[-1], generator=self.generator).to(self.atoms)


@dataclass(frozen=True)
class Ablation:
    """A belief that is taken away, or added.

    Args:
        label: What is left, as tables and figures print it.
        recipe: The recipe so changed.
    """

    label: str
    recipe: Callable[[RecoveryRecipe], RecoveryRecipe]


def under(kind: type[R]) -> Callable[[RecoveryRecipe], R]:
    """The same settings under another recipe."""
    return lambda recipe: kind(**{f.name: getattr(recipe, f.name) for f in fields(recipe)})


ONE_NOISE = "ours-one-noise"
ABLATIONS = {
    "ours-long-l1": Ablation("ℓ1 phase alone, as many rows", long_l1),
    ONE_NOISE: Ablation("one noise for all rows", under(OneNoiseRecipe)),
    "ours-exponential": Ablation("exponential amplitudes", under(ExponentialRecipe)),
    "ours-sized": Ablation(
        "amplitudes of a size, ± 15 %", lambda recipe: replace(recipe, spread=ONE_SIZE)
    ),
    "ours-random-splits": Ablation("splits at random", under(RandomSplitsRecipe)),
}
"""By name, in the order of tables."""


@dataclass(frozen=True, kw_only=True)
class AblationJob(Job):
    """The recipe without some of its beliefs.

    Args:
        draw: Which rows.
        latents: ``K``.
        recipe: With all of them.
        arm: A name in ``ABLATIONS``.
        strength: What the floors of the noise are multiplied with.
    """

    draw: Draw
    latents: int
    recipe: RecoveryRecipe
    arm: str
    strength: float = 1.0

    def compute(self) -> Found:
        found = problem(self.draw)
        row = described(self.draw, self.arm) | {"strength": self.strength}
        watch = Watch(found, look=False)
        phases = self.without().phases(found.train, latents=self.latents, seed=self.draw.generator)
        try:
            *_, pair = (watch.train(run) for run in phases)
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error), "seconds": watch.seconds})
        row |= watch.finish(pair) | scores(found, pair)
        return Found(plain(row), {"atoms": pair.W_dec})

    def without(self) -> RecoveryRecipe:
        """The recipe that is left."""
        start, end = (self.strength * noise for noise in self.recipe.noise)
        louder = replace(
            self.recipe, noise=(start, end), final_noise=self.strength * self.recipe.final_noise
        )
        return ABLATIONS[self.arm].recipe(louder)


def ablation_searches(chosen: Settings) -> Iterator[AblationJob]:
    """One noise for all rows needs its own floor: each, on the choosing seed, at full length.

    After fewer rows a floor was the best under which training does not stay finite in the end.
    """
    where = draw("data-a", chosen.choosing, chosen)
    for factor in FACTORS:
        yield AblationJob(
            draw=where,
            latents=chosen.widths[0],
            recipe=chosen.recipe,
            arm=ONE_NOISE,
            strength=factor,
        )


def best_floor(rows: Sequence[Mapping]) -> dict[str, float]:
    """By MCC + F1, as everything is chosen."""
    values = {row["strength"]: -1.0 if row["failed"] else row["mcc"] + row["f1"] for row in rows}
    return {ONE_NOISE: max(values, key=lambda factor: values[factor])}


def ablations(chosen: Settings, found: Mapping[str, float]) -> Iterator[Job]:
    """The recipe as it is, without moves, and all ablations, on the same rows."""
    for seed in chosen.seeds[: chosen.structured]:
        whole = plain_slab("data-a", seed, chosen)
        yield whole
        yield replace(
            whole, recipe=replace(whole.recipe, moves=0), keep=0, calibrated=False, watch=False
        )
        for name in ABLATIONS:
            yield AblationJob(
                draw=whole.draw,
                latents=whole.latents,
                recipe=whole.recipe,
                arm=name,
                strength=found.get(name, 1.0),
            )
