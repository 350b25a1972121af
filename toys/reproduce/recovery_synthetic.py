"""Jobs where the truth is known: an arm of the field, or the recipe with some structure."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_arms import ARMS
from toys.reproduce.recovery_calibration import calibration
from toys.reproduce.recovery_data import Draw, Problem, problem
from toys.reproduce.recovery_field import field_run, weights_of
from toys.reproduce.recovery_prune import pruned
from toys.reproduce.recovery_scores import encoded, plain, quality, scores
from toys.reproduce.recovery_structure import STRUCTURES, structure_scores
from vsae.autoencoder import Autoencoder
from vsae.errors import NonFiniteLossError
from vsae.models.sae import SparseAutoencoder
from vsae.posteriors.mean_field import MeanFieldPosterior
from vsae.recipes.recovery import RecoveryRecipe
from vsae.run import Run
from vsae.schedules import LinearWarmup

FIRST = 10_000  # rows seen at the first look; then twice as many, and so on
L1, SLAB, STILL = "ours-l1", "ours", "ours-still"  # the last without moves


class Watch:
    """Trains runs one after another, and looks at the pair after 10 000, 20 000, 40 000, … rows.

    Args:
        found: The problem.
        look: Whether it does.
    """

    def __init__(self, found: Problem, *, look: bool) -> None:
        self.found, self.look = found, look
        self.rows, self.next, self.seconds = 0, FIRST, 0.0
        self.points: list[dict] = []

    def train(self, run: Run) -> Autoencoder:
        """Bring a run to its end; only training is timed, by the process's own clock."""
        begun = time.process_time()
        for _ in run:
            self.rows += run.batches.size
            if self.look and self.rows >= self.next:
                self.seconds += time.process_time() - begun
                self._see(run.autoencoder)
                begun = time.process_time()
        self.seconds += time.process_time() - begun
        return run.autoencoder

    def _see(self, pair: Autoencoder) -> None:
        truth, rows = self.found.watched
        seen = quality(truth, pair.W_dec.detach(), encoded(pair, rows).values)
        self.points.append({"rows": self.rows, "seconds": self.seconds} | seen)
        while self.next <= self.rows:
            self.next *= 2

    def finish(self, pair: Autoencoder) -> dict:
        """What it took, and the last look."""
        if self.look:
            self._see(pair)
        return {"seen": self.rows, "seconds": self.seconds, "curve": plain(self.points)}


@dataclass(frozen=True, kw_only=True)
class FieldJob(Job):
    """An architecture of the field.

    Args:
        draw: Which rows.
        arm: A name in ``ARMS``.
        strength: Of its knob.
        latents: ``K``.
        lr: Adam's learning rate, in a straight line to 0 over the last fifth.
        seen: Rows seen in training, in epochs of the distinct ones.
        batch: Rows per update.
        watch: Whether the sample-efficiency curve is taken.
    """

    draw: Draw
    arm: str
    strength: float
    latents: int
    lr: float
    seen: int
    batch: int
    watch: bool = False

    def compute(self) -> Found:
        found = problem(self.draw)
        row = described(self.draw, self.arm) | {"strength": self.strength, "lr": self.lr}
        with weights_of(self.draw.generator):
            pair = ARMS[self.arm].build(found, self.latents, self.strength)
        watch = Watch(found, look=self.watch)
        try:
            watch.train(self._run(pair, found))
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error), "seconds": watch.seconds})
        row |= watch.finish(pair) | scores(found, pair)
        return Found(row, {"atoms": pair.W_dec})

    def _run(self, pair: Autoencoder, found: Problem) -> Run:
        steps = max(1, self.seen // self.batch)
        return field_run(
            pair,
            found.train,
            steps=steps,
            batch=self.batch,
            lr=self.lr,
            seed=self.draw.generator,
            beta=LinearWarmup(max(1, steps // 10)),
        )


@dataclass(frozen=True, kw_only=True)
class RecipeJob(Job):
    """The recipe: its ℓ1 phase alone where it has no more rows, else all of it.

    Args:
        draw: Which rows.
        latents: ``K``.
        recipe: Its settings.
        structure: A name in ``STRUCTURES``.
        keep: Latents kept by a second pair, pruned without another fit; 0 for none.
        calibrated: Whether its probabilities and intervals are held against the truth.
        watch: Whether the sample-efficiency curve is taken.
    """

    draw: Draw
    latents: int
    recipe: RecoveryRecipe
    structure: str = "none"
    keep: int = 0
    calibrated: bool = False
    watch: bool = False

    @property
    def arm(self) -> str:
        """Its name in tables."""
        if not self.recipe.slab_rows:
            return L1
        return SLAB if self.recipe.moves else STILL

    def compute(self) -> Found:
        found = problem(self.draw)
        row = described(self.draw, self.arm) | {"structure": self.structure, "strength": None}
        watch = Watch(found, look=self.watch)
        try:
            *_, pair = (watch.train(run) for run in self._phases(found))
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error), "seconds": watch.seconds})
        row |= watch.finish(pair) | scores(found, pair)
        return Found(plain(row | self._more(found, pair)), {"atoms": pair.W_dec})

    def _phases(self, found: Problem) -> Iterator[Run]:
        gates = STRUCTURES[self.structure](found, self.recipe)
        recipe = replace(self.recipe, gates=gates)
        return recipe.phases(found.train, latents=self.latents, seed=self.draw.generator)

    def _more(self, found: Problem, pair: Autoencoder) -> dict:
        slab = isinstance(pair.guide.posterior, MeanFieldPosterior)
        assert isinstance(pair.model, SparseAutoencoder)
        more: dict = {}
        if slab and found.parents is not None:
            more["structure_found"] = structure_scores(found, pair)
        if slab and self.keep:
            more["pruned"] = scores(found, pruned(pair, self.keep))
        if slab and self.calibrated:
            more["calibration"] = calibration(found, pair)
        return more


def described(draw: Draw, arm: str) -> dict:
    """What is known before training."""
    return {"case": draw.case, "seed": draw.generator, "arm": arm, "failed": None}
