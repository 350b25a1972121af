"""Training under the 16k protocol, phase by phase, and what each phase takes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tqdm import tqdm

from toys.reproduce.flat_arms import DEAD_AFTER
from toys.reproduce.recovery_16k_precision import HalfMeanField
from toys.reproduce.recovery_16k_world import World, peak_gib
from toys.reproduce.recovery_field import field_run
from toys.reproduce.recovery_scores import encoded, plain, quality
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.normalizers import AffineNormalizer
from vsae.presets import batch_topk_autoencoder, with_auxk
from vsae.recipes.recovery import updates
from vsae.run import Run

WEIGHTS = 4_000_000_000  # a random stream
APART = 10_000_000  # steps between the rows of phases
OURS, FIELD = "ours, spike and slab", "BatchTopK + AuxK"
CHUNK = 2_048  # rows decoded at once


@dataclass(frozen=True)
class Phase:
    """What a phase took.

    Args:
        arm: Of which.
        name: Which.
        batch: Rows per update.
        steps: Updates made.
        whole: Updates of the whole protocol.
        seconds: Of the updates made; CPU seconds on a CPU.
        setup: Of what comes before them, which does not grow with them.
    """

    arm: str
    name: str
    batch: int
    steps: int
    whole: int
    seconds: float
    setup: float

    @property
    def rows_per_second(self) -> float:
        """Rows that are trained on in a second, the drawing of them included."""
        return self.steps * self.batch / self.seconds

    def hours(self, steps: int | None = None) -> float:
        """Of the whole, or of so many updates, at this run's rate."""
        return (self.setup + self.seconds / self.steps * (steps or self.whole)) / 3600


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained pair.

    Args:
        arm: Its name in tables.
        pair: In raw units.
        phases: In order.
    """

    arm: str
    pair: Autoencoder
    phases: list[Phase]

    @property
    def rows(self) -> int:
        """Seen in training."""
        return sum(phase.steps * phase.batch for phase in self.phases)

    @property
    def seconds(self) -> float:
        """Of training."""
        return sum(phase.seconds + phase.setup for phase in self.phases)


def ours(world: World, *, half: bool) -> Trained:
    """The recipe, phase by phase.

    Args:
        world: Its rows.
        half: Whether the mean field's products are in bfloat16.
    """
    recipe, whole = world.chosen.part_recipe, world.chosen.recipe
    x, few, seed = world.sample, world.sample[: world.chosen.first], world.seed
    pairs: list[Autoencoder] = []
    made: list[tuple[str, Callable[[], Run], int]] = [
        ("ℓ1", lambda: recipe.l1_phase(x, latents=world.latents, seed=seed), whole.l1_rows),
        ("slab", lambda: recipe.slab_phase(pairs[-1], few, seed=seed), whole.slab_rows),
        ("final", lambda: recipe.final_phase(pairs[-1], few, seed=seed), whole.final_rows),
    ]
    phases = []
    for number, (name, build, rows) in enumerate(made):
        halved = half and number > 0
        run, phase = trained(world, OURS, name, build, rows, start=number * APART, half=halved)
        pairs.append(run.autoencoder)
        phases.append(phase)
    return Trained(OURS, pairs[-1], phases)


def field(world: World) -> Trained:
    """BatchTopK with AuxK, k the true L0."""
    chosen = world.chosen

    def build() -> Run:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream(world.seed, WEIGHTS).initial_seed())
            sample = world.sample
            pair = batch_topk_autoencoder(
                sample.shape[1],
                world.latents,
                k=max(1, round(world.l0)),
                normalizer=AffineNormalizer.fit(sample),
            )
            pair = with_auxk(pair, after=DEAD_AFTER).to(sample.device)
        steps = updates(chosen.part_seen, chosen.batch)
        return field_run(
            pair, sample, steps=steps, batch=chosen.batch, lr=chosen.lr, seed=world.seed
        )

    run, phase = trained(world, FIELD, "all", build, chosen.seen, start=3 * APART)
    return Trained(FIELD, run.autoencoder, [phase])


def trained(
    world: World,
    arm: str,
    name: str,
    build: Callable[[], Run],
    whole: int,
    *,
    start: int,
    half: bool = False,
) -> tuple[Run, Phase]:
    """A run on fresh rows, brought to its end behind a progress bar; and what it took."""
    begun = world.clock()
    run = build()
    size = run.batches.size
    run.batches = world.rows(size, start)
    if half:
        run.autoencoder.guide = HalfMeanField.of(run.autoencoder)
    middle = world.clock()
    for _ in tqdm(run, total=run.steps, desc=f"{arm}: {name}", unit="step", mininterval=0.5):
        pass
    seconds = world.clock() - middle
    phase = Phase(arm, name, size, run.steps, updates(whole, size), seconds, middle - begun)
    return run, phase


@torch.no_grad()
def scored(world: World, found: Trained) -> dict:
    """How well the features of the toy are found, on held-out rows; best cosines by feature."""
    pair, truth = found.pair, world.truth
    codes = encoded(pair, world.test).values
    parts = zip(codes.split(CHUNK), world.test.split(CHUNK), strict=True)
    error = sum(float((pair.decode(z) - x).square().sum()) for z, x in parts)
    spread = float((world.test - world.test.mean(0)).square().sum())
    atoms, codes = pair.W_dec.detach().cpu(), codes.cpu()
    row = {"arm": found.arm, "seed": world.seed, "rows": found.rows, "seconds": found.seconds}
    row |= quality(truth, atoms, codes) | {"ev": 1 - error / spread}
    row |= {"chance": world.chance, "true_l0": world.l0, "uniqueness": truth.uniqueness(atoms)}
    row |= {"dead": 100 * float(metrics.dead_fraction(codes)), "latents": len(atoms)}
    row |= {"memory": peak_gib(world.device), "best": truth.cosines(atoms).amax(0).tolist()}
    return plain(row)
