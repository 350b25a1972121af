"""A job on a real network: the recipe that is recommended for activations of networks."""

from dataclasses import dataclass, replace

from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_scores import encoded, plain
from toys.reproduce.recovery_stories import DATA, described, timed, worth
from toys.reproduce.recovery_text import Reading, text
from vsae.errors import NonFiniteLossError
from vsae.recipes.sparse_coding import SparseCodingRecipe

RECOMMENDED = "ours-recommended"


@dataclass(frozen=True, kw_only=True)
class StoriesRecommendedJob(Job):
    """Sparse coding whose penalty finds itself, then amplitudes without shrinkage.

    Args:
        reading: Which rows.
        recipe: Its settings.
        latents: ``K``.
        seed: Of atoms and the order of rows.
        length: Times the rows of the recipe that are seen.
    """

    reading: Reading
    recipe: SparseCodingRecipe
    latents: int
    seed: int
    length: float = 1.0

    def compute(self) -> Found:
        found, recipe = text(self.reading), self.longer()
        row = described(self, RECOMMENDED, DATA, float(recipe.k)) | {"length": self.length}
        seconds, seen = 0.0, 0
        try:
            for run in recipe.phases(found.train, latents=self.latents, seed=self.seed):
                seconds, seen = seconds + timed(run), seen + run.steps * recipe.batch_size
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error), "seconds": seconds})
        pair = run.autoencoder
        row |= worth(found, pair, encoded(pair, found.test).values, None)
        return Found(plain(row | {"seconds": seconds, "seen": seen}), {"atoms": pair.W_dec})

    def longer(self) -> SparseCodingRecipe:
        """The recipe with both phases so many times as long."""
        recipe, length = self.recipe, self.length
        return replace(
            recipe,
            l1_rows=int(length * recipe.l1_rows),
            relaxed_rows=int(length * recipe.relaxed_rows),
        )
