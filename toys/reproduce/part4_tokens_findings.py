"""What the part ``tokens`` says, by rules that were written before its numbers."""

from collections.abc import Iterator, Mapping, Sequence

from toys.reproduce.part4_arms import ARMS
from toys.reproduce.part4_compare import (
    Claim,
    against_null,
    called,
    chosen,
    judged,
    mean,
    missed,
    paired,
    share,
    value,
)
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_settings import Settings
from toys.reproduce.tables import Interval, interval

CLAIMS = (
    Claim(
        says="Does a graph substitute for ℓ1 ({one} against {other})",
        one="graph",
        other="l1",
        substitutes=True,
    ),
    Claim(says="Is {one} better than {other}", one="mixed", other="l1"),
    Claim(says="Is {one} better than its shuffled self", one="mixed", other="mixed-shuffled"),
    Claim(says="Is {one} better than its shuffled self", one="graph", other="shuffled"),
    Claim(says="Is {one} better than {other}", one="graph", other="isotropic"),
    Claim(says="Is {one} better than its shuffled self", one="v-graph", other="v-shuffled"),
    Claim(
        says="Does it not matter which latents are tied ({one} against {other})",
        one="v-graph",
        other="v-shuffled",
        no_effect=True,
    ),
    Claim(says="Is {one} better than {other}", one="v-graph", other="v-isotropic"),
    Claim(
        says="Does the structured KL match the deterministic graph ({one} against {other})",
        one="v-graph",
        other="graph",
        substitutes=True,
    ),
    Claim(
        says="Is it the mean, not the KL: is {one} better than {other}",
        one="v-isotropic",
        other="isotropic-low",
    ),
    Claim(
        says="Is it the mean, not the KL: is {one} better than {other}",
        one="v-graph",
        other="graph-low",
    ),
    Claim(says="Is {one} better than {other}", one="isotropic-low", other="isotropic"),
    Claim(says="Is {one} better than {other}", one="graph-low", other="isotropic-low"),
    Claim(says="Is {one} better than {other}", one="topk", other="l1"),
    Claim(
        says="Does the structured KL substitute for ℓ1 ({one} against {other})",
        one="v-graph",
        other="l1",
        substitutes=True,
    ),
)
PAIRS = (
    ("graph", "shuffled"),
    ("graph", "l1"),
    ("mixed", "l1"),
    ("mixed", "mixed-shuffled"),
    ("v-graph", "v-shuffled"),
    ("v-graph", "l1"),
)


def token_findings(settings: Settings, rows: Rows) -> list[str]:
    """Sentences, each with its numbers."""
    return [
        *judged(CLAIMS, rows, settings.targets),
        *neighbourhoods(settings, rows),
        *targets(settings, rows),
        *dead(settings, rows),
        *couplings(settings, rows),
    ]


def neighbourhoods(settings: Settings, rows: Rows) -> Iterator[str]:
    """Against chance, raw activations, and one another: NDCG at the shortest length."""
    ranked = [row for row in chosen(rows) if row.get("neighbours")]
    if not ranked:
        return
    k = next(iter(ranked[0]["neighbours"]))
    path = ("neighbours", k, "ndcg")
    raw = raw_score(rows, k)
    for target in settings.targets:
        for arm in ("l1", "graph", "mixed", "v-graph"):
            found = chosen(ranked, arm=arm, target=target)
            if found:
                yield beside(found, target, path, raw)
        for one, other in PAIRS:
            pair = [chosen(ranked, arm=arm, target=target) for arm in (one, other)]
            difference = paired(*pair, *path, "value")
            if difference is not None:
                names = " against ".join(found[0]["label"] for found in pair)
                yield (
                    f"Neighbourhoods, L0 {target}, {names}: **{called(difference)}** (NDCG@{k} "
                    f"{difference})."
                )


def raw_score(rows: Rows, k: str) -> float | None:
    """NDCG of the pooled activations themselves, if the controls were run."""
    path = ("controls", "raw activations", k, "ndcg", "value")
    return next((found for row in rows if (found := value(row, *path)) is not None), None)


def beside(found: Sequence[Mapping], target: int, path: tuple[str, ...], raw: float | None) -> str:
    """One arm against chance and the raw activations, by the score that the path leads to."""
    k, score = path[1], mean(found, *path, "value")
    text = (
        f"Neighbourhoods, L0 {target}, {found[0]['label']}: NDCG@{k} {score}, "
        f"{against_null(found, *path)} (chance {share(mean(found, *path, 'chance'))})"
    )
    if raw is None:
        return f"{text}."
    gap = interval([v - raw for row in found if (v := value(row, *path, "value")) is not None])
    return f"{text}; against raw activations, pooled: **{called(gap)}** ({gap})."


def targets(settings: Settings, rows: Rows) -> Iterator[str]:
    """Which arms reached no target, and which could not."""
    late = []
    for target in settings.targets:
        for name, arm in ARMS.items():
            found = chosen(rows, arm=name, target=target)
            if found and arm.start and missed(found, target):
                late.append(f"{arm.label} {share(mean(found, 'l0'))} for {target}")
    yield f"Targets of L0 that were missed: {'; '.join(late) or 'none'}."
    none = chosen(rows, arm="none")
    if none:
        yield f"Without any penalty L0 is {mean(none, 'l0')}, R² {mean(none, 'r2')}."


def dead(settings: Settings, rows: Rows) -> Iterator[str]:
    """Document B's "Dead %" beside what is dead."""
    for target in settings.targets:
        lines = []
        for arm in ARMS:
            found = chosen(rows, arm=arm, target=target)
            if found:
                real = Interval(100 * mean(found, "dead").mean, None, len(found))
                lines.append(f"{found[0]['label']} {share(mean(found, 'document_dead'))} ({real})")
        if lines:
            yield (
                f'"Dead %" as document B has it, L0 {target}, with the share of latents that never '
                f"fire in brackets: {'; '.join(lines)}."
            )


def couplings(settings: Settings, rows: Rows) -> Iterator[str]:
    """Whether codes are smoother over the graph than over its shuffled self."""
    for target in settings.targets:
        lines = []
        for arm in ("l1", "graph", "shuffled", "v-graph", "v-shuffled", "topk"):
            found = chosen(rows, arm=arm, target=target)
            if found:
                plain, other = mean(found, "rough"), mean(found, "rough_shuffled")
                lines.append(f"{found[0]['label']} {share(plain)} ({share(other)})")
        if lines:
            yield (
                f"zᵀLz / ‖z‖² over the sentence graph lifted through an arm's own codes, and over "
                f"that graph shuffled, L0 {target}: {'; '.join(lines)}."
            )
