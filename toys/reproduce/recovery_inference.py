"""Inference on the true dictionary: by iteration, by encoders that learn it, and by TopK."""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toys.reproduce.jobs import Found, Job
from toys.reproduce.recovery_data import Draw, Problem, problem
from toys.reproduce.recovery_inference_guides import (
    DISTILLED,
    EMPTY,
    ENCODERS,
    Encoder,
    oracle,
    refined,
    stopped,
)
from toys.reproduce.recovery_inference_settings import InferenceSettings
from toys.reproduce.recovery_plan import draw, is_large
from toys.reproduce.recovery_scores import plain, scores
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_synthetic import described
from vsae.amortisation import amortisation_gap
from vsae.autoencoder import Autoencoder
from vsae.errors import NonFiniteLossError
from vsae.recipes.recovery import RecoveryRecipe

INFERENCE = "inference"  # the arm of all rows

Key = tuple[str, int]
"""Where a guide starts, and iterations from there."""

Rates = Mapping[str, Mapping[str, float]]
"""Learning rates by case and encoder."""


@dataclass(frozen=True, kw_only=True)
class EncoderJob(Job):
    """One encoder at one learning rate, to choose by.

    Args:
        draw: Which rows.
        recipe: Whose noise, iterations and damping the teacher has.
        encoder: How it is trained.
    """

    draw: Draw
    recipe: RecoveryRecipe
    encoder: Encoder

    def compute(self) -> Found:
        found = problem(self.draw)
        pair, row = attempt(self.encoder, found, oracle(found, self.recipe))
        row = described(self.draw, self.encoder.name) | row
        return Found(plain(row if pair is None else row | scores(found, pair)))


@dataclass(frozen=True, kw_only=True)
class InferenceJob(Job):
    """All guides of the true model of one draw, each a row of ``models``.

    Args:
        draw: Which rows.
        recipe: Whose noise, iterations and damping the model and the teacher have.
        encoders: How they are trained.
        iterations: From the empty code; gaps and times are against those of the last.
        refinements: Iterations from where distilled encoders start.
        gaps: Held-out rows of which the gap is taken.
        timed: Held-out rows that are encoded to take the time.
        rounds: How often each guide encodes them.
    """

    draw: Draw
    recipe: RecoveryRecipe
    encoders: tuple[Encoder, ...]
    iterations: tuple[int, ...]
    refinements: tuple[int, ...]
    gaps: int
    timed: int
    rounds: int

    def compute(self) -> Found:
        found = problem(self.draw)
        teacher = oracle(found, self.recipe)
        guides: dict[Key, Autoencoder] = {(EMPTY, n): stopped(teacher, n) for n in self.iterations}
        told: dict[Key, dict] = {}
        for own in self.encoders:
            pair, told[own.name, 0] = attempt(own, found, teacher)
            if pair is not None:
                guides[own.name, 0] = pair
                more = self.refinements if own.name in DISTILLED else ()
                guides |= {(own.name, n): refined(teacher, pair, n) for n in more}
        for key, seen in self._seen(found, guides).items():
            told[key] = told.get(key, {"failed": None, "seconds": 0.0}) | seen
        row = described(self.draw, INFERENCE) | {"true_l0": found.l0}
        row["seconds"] = sum(model["seconds"] for model in told.values())
        row["models"] = [{"start": key[0], "iterations": key[1]} | of for key, of in told.items()]
        return Found(plain(row))

    def _seen(self, found: Problem, guides: Mapping[Key, Autoencoder]) -> dict[Key, dict]:
        """What held-out rows say of every guide."""
        last = EMPTY, self.iterations[-1]
        times = time_ratios(guides, found.test[: self.timed], last, self.rounds)
        seen = {}
        for key, pair in guides.items():
            seen[key] = scores(found, pair) | {"time": times[key], "gap": None}
            if key[0] in (EMPTY, *DISTILLED):  # of the same model
                gap = amortisation_gap(guides[last], pair, found.test[: self.gaps])
                seen[key]["gap"] = gap.mean
        return seen


def attempt(own: Encoder, found: Problem, teacher: Autoencoder) -> tuple[Autoencoder | None, dict]:
    """The pair of an encoder, none if it became non-finite, and what it took to train it."""
    begun, pair, failed = time.process_time(), None, None
    try:
        pair = own.trained(found, teacher)
    except NonFiniteLossError as error:
        failed = str(error)
    seen = own.steps * own.batch
    spent = time.process_time() - begun
    return pair, {"failed": failed, "lr": own.lr, "seen": seen, "seconds": spent}


@torch.no_grad()
def time_ratios(
    guides: Mapping[Key, Autoencoder], rows: Tensor, base: Key, rounds: int
) -> dict[Key, float]:
    """CPU time of encoding rows, of that of one of the guides: the median over rounds.

    All take their turn in every round, so that whatever else the machine does disturbs all alike;
    one round before does not count.
    """
    spent: dict[Key, list[float]] = {key: [] for key in guides}
    for _ in range(1 + rounds):
        for key, pair in guides.items():
            begun = time.process_time()
            pair.encode(rows)
            spent[key].append(time.process_time() - begun)
    whole = spent[base][1:]
    return {
        key: statistics.median(a / b for a, b in zip(own[1:], whole, strict=True))
        for key, own in spent.items()
    }


def encoder(name: str, lr: float, case: str, own: InferenceSettings) -> Encoder:
    """One of them at this learning rate, trained at full length."""
    seen = own.seen if is_large(case) else own.small_seen
    return Encoder(name=name, lr=lr, seen=seen, batch=own.batch, hidden=own.hidden)


def rates_of(name: str, own: InferenceSettings) -> tuple[float, ...]:
    """The learning rates that an encoder is tried at."""
    return own.rates if name in DISTILLED else own.topk_rates


def inference_searches(chosen: Settings) -> Iterator[EncoderJob]:
    """Every encoder of every case at every learning rate, on the choosing seed, at full length."""
    own = chosen.inference
    for case in own.cases:
        where = draw(case, chosen.choosing, chosen)
        for name in ENCODERS:
            for rate in rates_of(name, own):
                made = encoder(name, rate, case, own)
                yield EncoderJob(draw=where, recipe=chosen.recipe, encoder=made)


def best_rate(rows: Sequence[Mapping]) -> dict[str, dict[str, float]]:
    """Per case and encoder the rate of the greatest F1 + explained variance.

    At a great rate an encoder may detect as well as at a smaller one, and its sizes be wild.
    """
    values: dict[tuple[str, str], dict[float, float]] = {}
    for row in rows:
        wild = row["failed"] or row["ev"] is None
        value = -math.inf if wild else row["f1"] + row["ev"]
        values.setdefault((row["case"], row["arm"]), {})[row["lr"]] = value
    found: dict[str, dict[str, float]] = {}
    for (case, name), tried in values.items():
        found.setdefault(case, {})[name] = max(tried, key=lambda rate: tried[rate])
    return found


def inference_jobs(chosen: Settings, found: Rates) -> Iterator[InferenceJob]:
    """All guides, of every case and reported seed; at the first rates where none is chosen."""
    own = chosen.inference
    for case in own.cases:
        rates = {name: rates_of(name, own)[0] for name in ENCODERS} | dict(found.get(case, {}))
        trained = tuple(encoder(name, rates[name], case, own) for name in ENCODERS)
        count = chosen.structured if is_large(case) else len(chosen.seeds)
        for seed in chosen.seeds[:count]:
            yield InferenceJob(
                draw=draw(case, seed, chosen),
                recipe=chosen.recipe,
                encoders=trained,
                iterations=own.iterations,
                refinements=own.refinements,
                gaps=own.gaps,
                timed=own.timed,
                rounds=own.rounds,
            )
