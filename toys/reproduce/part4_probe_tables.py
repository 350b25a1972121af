"""The causal probe's tables, and what they say: paired over latents."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from toys.reproduce.part4_compare import chosen
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_probe_arms import LABELS
from toys.reproduce.part4_probe_jobs import ASKED, OTHER, SWAPPED
from toys.reproduce.part4_settings import Settings
from toys.reproduce.tables import Cell, Interval, Table, interval, number

KINDS = {
    ASKED: "latents of tokens",
    OTHER: "others of equal frequency",
    SWAPPED: "the same rows and lengths, another's direction",
}


def lines(row: Mapping, kind: str) -> list[Mapping]:
    """The latents of a kind that fired on held-out rows."""
    return [line for line in row["models"] if line["kind"] == kind and line["rows"]]


def log_ratios(row: Mapping, kind: str, layer: int) -> Interval | None:
    """Of KL per row on which a latent fires, log₁₀: the asked over another kind, paired."""
    others = {line["pair"]: line["kl"][layer] for line in lines(row, kind)}
    found = [
        math.log10(line["kl"][layer] / others[line["pair"]])
        for line in lines(row, ASKED)
        if line["kl"][layer] > 0 and others.get(line["pair"], 0.0) > 0
    ]
    return interval(found) if found else None


def over(own: Sequence[Mapping], of: Callable[[Mapping], float | None]) -> Interval | None:
    """A mean over latents."""
    found = [value for line in own if (value := of(line)) is not None]
    return interval(found) if found else None


def probe_tables(settings: Settings, rows: Rows) -> dict[str, Table]:
    """By the stem of their files."""
    done = chosen(rows)
    return {
        "probe_effects": Table(
            "Switched off in one layer: nats per row on which the latent fires, mean over latents",
            list(_effects(done)),
        ),
        "probe_carried": Table(
            "Switched off in a layer: does the network carry the change to the next as the decoder "
            "says?",
            list(_carried(done)),
        ),
        "probe_latents": Table("Latents of tokens", list(_latents(done))),
    }


def _effects(rows: Rows) -> Iterator[dict[str, Cell]]:
    for row in rows:
        for kind, label in KINDS.items():
            own = lines(row, kind)
            if not own:
                continue
            line: dict[str, Cell] = {"crosscoder": LABELS[row["arm"]], "EV": row["ev"]}
            line |= {"L0": row["l0"], "switched off": label, "latents": len(own)}
            for at in range(len(own[0]["kl"])):
                line[f"KL, layer {at + 1}"] = over(own, lambda m, at=at: m["kl"][at])
            last = len(own[0]["kl"]) - 1
            line[f"cross-entropy, layer {last + 1}"] = over(own, lambda m: m["ce"][-1])
            yield line


def _carried(rows: Rows) -> Iterator[dict[str, Cell]]:
    for row in rows:
        for kind in (ASKED, OTHER):
            own = lines(row, kind)
            for at in range(len(own[0]["kl"]) - 1 if own else 0):
                yield {
                    "crosscoder": LABELS[row["arm"]],
                    "latents": KINDS[kind],
                    "from, to": f"{at + 1}, {at + 2}",
                    "cosine": over(own, lambda m, at=at: m["cosine"][at][at + 1]),
                    "carried": over(own, lambda m, at=at: m["carried"][at][at + 1]),
                    "to the last: cosine": over(own, lambda m, at=at: m["cosine"][at][-1]),
                    "error more, over what moved": over(own, lambda m, at=at: m["needed"][at]),
                }


def _latents(rows: Rows) -> Iterator[dict[str, Cell]]:
    for row in rows:
        for line in lines(row, ASKED):
            yield {
                "crosscoder": LABELS[row["arm"]],
                "latent": line["latent"],
                "token": repr(line["token"]),
                "F1": line["f1"],
                "rate": line["rate"],
                "rows": line["rows"],
                "KL, layer 1": line["kl"][0],
                f"KL, layer {len(line['kl'])}": line["kl"][-1],
            }


def probe_findings(settings: Settings, rows: Rows) -> list[str]:
    """Of each crosscoder and comparison a verdict by layer."""
    said = []
    for row in chosen(rows):
        for kind, question in (
            (SWAPPED, "Is it the latent's direction that matters"),
            (
                OTHER,
                "Do latents of tokens, of whatever size, do more than others of equal frequency",
            ),
        ):
            found = [log_ratios(row, kind, at) for at in range(layers(row))]
            if any(found):
                said.append(f"{question} ({LABELS[row['arm']]})? {_verdicts(found)}.")
        said += _carried_said(row)
    return said


def layers(row: Mapping) -> int:
    """How many the crosscoder has, as far as its latents fired."""
    return max((len(line["kl"]) for line in row["models"] if line["rows"]), default=0)


def _verdicts(found: Sequence[Interval | None]) -> str:
    parts = []
    for at, one in enumerate(found, start=1):
        if one is None:
            continue
        verdict = "more" if one.low > 0 else "less" if one.high < 0 else "undecided"
        parts.append(f"layer {at} **{verdict}** (KL times {number(10**one.mean)})")
    return ", ".join(parts)


def _carried_said(row: Mapping) -> Iterator[str]:
    listed = {}
    for kind in (ASKED, OTHER):
        own = lines(row, kind)
        steps = [
            over(own, lambda m, at=at: m["cosine"][at][at + 1]) for at in range(layers(row) - 1)
        ]
        listed[kind] = ", ".join(number(step.mean) for step in steps if step)
    if listed[ASKED]:
        yield (
            f"Without a latent of a token in one layer, the next layer's stream changes along the "
            f"latent's own atom there with a cosine of {listed[ASKED]}, from layers 1 to "
            f"{layers(row) - 1} ({LABELS[row['arm']]}); without another of equal frequency "
            f"{listed[OTHER] or '–'}. A residual stream carries any direction on."
        )
