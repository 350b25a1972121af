"""Which methods end in the true solution, where the absorbed or the hedged one is known."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from priors.errors import ConfigError
from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_absorption_arms import ABSORPTION_ARMS, CODING, SHUFFLED, TREE
from toys.reproduce.recovery_absorption_cases import ABSORPTION_CASES, Known, Where, known
from toys.reproduce.recovery_absorption_scores import Seen
from toys.reproduce.recovery_absorption_settings import AbsorptionSettings
from toys.reproduce.recovery_field import field_run, weights_of
from toys.reproduce.recovery_gates import on_tree
from toys.reproduce.recovery_plan import only_l1
from toys.reproduce.recovery_scores import encoded, plain
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_structure import SHUFFLE, Gates, parents_of_latents
from toys.reproduce.recovery_synthetic import L1, SLAB, STILL
from toys.tree_cases import TreeToy
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.errors import NonFiniteLossError
from vsae.metrics import shuffled_parents
from vsae.recipes.recovery import RecoveryRecipe
from vsae.recipes.sparse_coding import SparseCodingRecipe
from vsae.run import Run
from vsae.schedules import LinearWarmup

Rates = Mapping[str, Mapping[str, tuple[float | None, float]]]
"""Of a case and an arm: the strength, if one is chosen, and the learning rate."""

TREES = {"": STILL, "true": TREE, "shuffled": SHUFFLED}
"""The arm without moves, by which tree it is given."""


@dataclass(frozen=True, kw_only=True)
class AbsorptionFieldJob(Job):
    """An architecture of the field.

    Args:
        where: Which rows.
        arm: A name in ``ABSORPTION_ARMS``.
        strength: Of its knob.
        lr: Adam's learning rate, in a straight line to 0 over the last fifth.
        seen: Rows seen in training.
        batch: Rows per update.
    """

    where: Where
    arm: str
    strength: float
    lr: float
    seen: int
    batch: int

    def compute(self) -> Found:
        data = known(self.where)
        row = described(self.where, self.arm, self.strength) | {"lr": self.lr}
        with weights_of(self.where.seed):
            pair = ABSORPTION_ARMS[self.arm].build(data, self.strength)
        return trained(row, data, iter([self._run(pair, data)]))

    def _run(self, pair: Autoencoder, data: Known) -> Run:
        steps = max(1, self.seen // self.batch)
        return field_run(
            pair,
            data.train,
            steps=steps,
            batch=self.batch,
            lr=self.lr,
            seed=self.where.seed,
            beta=LinearWarmup(max(1, steps // 10)),
        )


@dataclass(frozen=True, kw_only=True)
class AbsorptionRecipeJob(Job):
    """The recipe: its ℓ1 phase alone where it has no more rows, else all of it.

    Args:
        where: Which rows.
        recipe: Its settings; without moves where a tree is given.
        tree: Which tree gates know, of the latents that ℓ1 has found: a name in ``TREES``.
    """

    where: Where
    recipe: RecoveryRecipe
    tree: str = ""

    @property
    def arm(self) -> str:
        """Its name in tables."""
        if not self.recipe.slab_rows:
            return L1
        return SLAB if self.recipe.moves else TREES[self.tree]

    def compute(self) -> Found:
        data = known(self.where)
        told = {"true": true_tree, "shuffled": shuffled_tree}
        gates = told[self.tree](data) if self.tree else None
        recipe = replace(self.recipe, gates=gates)
        runs = recipe.phases(data.train, latents=data.case.latents, seed=self.where.seed)
        return trained(described(self.where, self.arm, None), data, runs)


@dataclass(frozen=True, kw_only=True)
class AbsorptionCodingJob(Job):
    """Sparse coding.

    Args:
        where: Which rows.
        recipe: Its settings.
    """

    where: Where
    recipe: SparseCodingRecipe

    def compute(self) -> Found:
        data = known(self.where)
        runs = self.recipe.phases(data.train, latents=data.case.latents, seed=self.where.seed)
        return trained(described(self.where, CODING, float(self.recipe.k)), data, runs)


@dataclass(frozen=True, kw_only=True)
class AbsorptionSolutionsJob(Job):
    """The known solutions, scored as trained ones are: the true one, and in ``models`` the wrong.

    Args:
        where: Which rows.
    """

    where: Where

    def compute(self) -> Found:
        data = known(self.where)
        rows = [
            described(self.where, name, None) | data.scores(seen) | {"seen": 0, "seconds": 0.0}
            for name, seen in data.solutions().items()
        ]
        true, *wrong = rows
        return Found(plain(true | {"models": wrong}))


def described(where: Where, arm: str, strength: float | None) -> dict:
    """What is known before training."""
    row = {"case": where.case, "seed": where.seed, "arm": arm, "strength": strength}
    return row | {"lr": None, "failed": None}


def trained(row: dict, data: Known, runs: Iterator[Run]) -> Found:
    """Bring runs to their ends, one after another, and score the last pair; only training is timed.

    Each is asked for when the one before has ended.
    """
    begun = time.process_time()
    try:
        done = [finished(run) for run in runs]
    except (NonFiniteLossError, ConfigError) as error:
        if isinstance(error, ConfigError) and error.code != "recipe.silent":
            raise
        return Found(row | {"failed": str(error), "seconds": time.process_time() - begun})
    spent, (pair, _) = time.process_time() - begun, done[-1]
    row = row | {"seen": sum(seen for _, seen in done), "seconds": spent}
    return Found(plain(row | data.scores(as_seen(data, pair))), {"atoms": pair.W_dec})


def finished(run: Run) -> tuple[Autoencoder, int]:
    """The pair of a run that is brought to its end, and how many rows it saw."""
    seen = sum(run.batches.size for _ in run)
    return run.autoencoder, seen


@torch.no_grad()
def as_seen(data: Known, pair: Autoencoder) -> Seen:
    """The held-out rows as a pair has them, with as many iterations as at evaluation."""
    x = pair.normalizer(data.test) - pair.b_dec
    return Seen(x, pair.W_dec.detach(), encoded(pair, data.test).values, data.truth)


def true_tree(data: Known) -> Gates:
    """Parents gate children and siblings exclude, for the latents that ℓ1 has already found."""
    return lambda pair: on_tree(known_parents(data, pair))


def shuffled_tree(data: Known) -> Gates:
    """The control: on every level the same parents, of other children."""
    seed = data.where.seed
    return lambda pair: on_tree(shuffled_parents(known_parents(data, pair), stream(seed, SHUFFLE)))


def known_parents(data: Known, pair: Autoencoder) -> Tensor:
    """Which latent stands for the parent of the feature that a latent stands for."""
    assert isinstance(data.toy, TreeToy)
    return parents_of_latents(pair.W_dec, data.toy.dictionary, data.toy.parents)


def absorption_searches(chosen: Settings) -> Iterator[AbsorptionFieldJob]:
    """Every strength and learning rate of every arm of the field, on the choosing seed."""
    own = chosen.absorption
    for case in own.cases:
        for arm in own.arms:
            for strength in ABSORPTION_ARMS[arm].of(ABSORPTION_CASES[case]):
                for lr in own.rates:
                    yield field_job(place(case, chosen.choosing, own), arm, strength, lr, own)


def best_absorption_rates(rows: Sequence[Mapping]) -> dict[str, dict]:
    """Per case and arm the candidate of the greatest MCC + F1: by the truth, as ours.

    Strengths that are numbers of active latents are summed over: all of them are reported.
    """
    total: dict[tuple[str, str], dict[tuple[float | None, float], float]] = {}
    for row in rows:
        value = -1.0 if row["failed"] else row["mcc"] + row["f1"]
        strength = row["strength"] if ABSORPTION_ARMS[row["arm"]].chosen else None
        sums = total.setdefault((row["case"], row["arm"]), {})
        sums[strength, row["lr"]] = sums.get((strength, row["lr"]), 0.0) + value
    found: dict[str, dict] = {}
    for (case, arm), sums in total.items():
        found.setdefault(case, {})[arm] = max(sums, key=lambda candidate: sums[candidate])
    return found


def absorption_jobs(chosen: Settings, found: Rates) -> Iterator[Job]:
    """Every model, of every reported seed, and the known solutions."""
    own = chosen.absorption
    for case in own.cases:
        for seed in chosen.seeds:
            where = place(case, seed, own)
            yield AbsorptionSolutionsJob(where=where)
            yield from our_jobs(where, own)
            for arm in (name for name in own.arms if name in found[case]):
                strength, lr = found[case][arm]
                for value in ABSORPTION_ARMS[arm].of(ABSORPTION_CASES[case]):
                    if strength in (None, value):
                        yield field_job(where, arm, value, lr, own)


def our_jobs(where: Where, own: AbsorptionSettings) -> Iterator[Job]:
    """The recipe, its ℓ1 phase, sparse coding; of trees also without moves, and with a tree."""
    case, still = ABSORPTION_CASES[where.case], replace(own.recipe, moves=0)
    yield AbsorptionRecipeJob(where=where, recipe=own.recipe)
    yield AbsorptionRecipeJob(where=where, recipe=only_l1(own.recipe))
    for tree in TREES if case.roots else ():
        yield AbsorptionRecipeJob(where=where, recipe=still, tree=tree)
    for k in case.ks:
        yield AbsorptionCodingJob(where=where, recipe=replace(own.coding, k=k))


def field_job(
    where: Where, arm: str, strength: float, lr: float, own: AbsorptionSettings
) -> AbsorptionFieldJob:
    """An arm of the field with these settings."""
    return AbsorptionFieldJob(
        where=where, arm=arm, strength=strength, lr=lr, seen=own.seen, batch=own.batch
    )


def place(case: str, seed: int, own: AbsorptionSettings) -> Where:
    """The rows of a case."""
    return Where(case=case, seed=seed, rows=own.rows, test=own.test)
