"""Part 1's tables: the document's shape beside its numbers, and every arm's metrics."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from toys.reproduce import part1_document as document
from toys.reproduce.part1_arms import ARMS
from toys.reproduce.part1_runs import problem
from toys.reproduce.tables import Interval, Table, interval

METRICS = ("mse", "l0", "kl", "mcc", "dead", "nelbo")
TITLES = {
    "mse": "MSE per neuron, held-out rows, posterior mean, activation units squared",
    "l0": "L0: active latents per row (of 32), posterior mean",
    "kl": "KL from posterior to prior, nats per row, summed over latents",
    "mcc": "MCC: mean |cos| of atoms matched one-to-one with the true features",
    "dead": "Share of latents never active on held-out rows",
    "nelbo": "Negative ELBO at β = 1, nats per row, held-out rows",
}
FAMILY = {
    "gaussian": "dense Gaussian codes, as document A writes",
    "copula": "sparse codes, the same correlations in the copula of their supports",
}
Rows = Sequence[dict]


def select(rows: Rows, **wanted) -> list[dict]:
    """The rows with these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def values(rows: Rows, metric: str) -> list[float | None]:
    """A metric's values in order of seeds, ``None`` where an arm has no such thing."""
    return [row[metric] for row in sorted(rows, key=lambda row: row["seed"])]


def cell(rows: Rows, metric: str) -> Interval | None:
    """Its interval over seeds; ``None`` where the arm has no such thing."""
    found = [value for value in values(rows, metric) if value is not None]
    return interval(found) if found else None


def level(rows: Rows, metric: str) -> Interval:
    """Its interval over seeds, of a metric that every arm has."""
    return interval(row[metric] for row in rows)


def long_table(rows: Rows) -> Table:
    """One row per data, arm, strength, number of latents and case; intervals over seeds."""
    groups = defaultdict(list)
    for row in rows:
        key = (row["data"], row["case"], row["arm"], row["latents"], row["strength"])
        groups[key].append(row)
    names = ("data", "case", "arm", "latents", "strength")
    lines = [
        dict(zip(names, key, strict=True))
        | {metric: cell(found, metric) for metric in (*METRICS, "mcc_chance")}
        for key, found in groups.items()
    ]
    return Table("Part 1: every arm and case", lines)


def model_table(rows: Rows) -> Table:
    """One row per trained model: what every interval is made of."""
    lines = [{name: value for name, value in row.items() if name != "restored"} for row in rows]
    return Table("Part 1: every model", lines)


def metric_table(rows: Rows, data: str, metric: str) -> Table:
    """Arms down, cases across."""
    rows = select(rows, data=data)
    cases = list(dict.fromkeys(row["case"] for row in rows))
    lines = []
    for arm, strength in dict.fromkeys((row["arm"], row["strength"]) for row in rows):
        found = select(rows, arm=arm, strength=strength)
        line = {"arm": label(arm, strength)}
        lines.append(line | {c: cell(select(found, case=c), metric) for c in cases})
    if metric == "mcc":
        found = select(rows, arm=rows[0]["arm"], strength=rows[0]["strength"])
        chance = {c: cell(select(found, case=c), "mcc_chance") for c in cases}
        lines.append({"arm": "chance: random unit atoms"} | chance)
    if (metric, data) == ("nelbo", "gaussian"):
        names = {case: select(rows, case=case, arm=rows[0]["arm"]) for case in cases}
        exact = {
            c: interval(_entropy(c, row["seed"]) for row in found) for c, found in names.items()
        }
        lines.append({"arm": "bound: entropy of the data"} | exact)
    lines = [line for line in lines if any(line[case] is not None for case in cases)]
    return Table(f"{TITLES[metric]}; {FAMILY[data]}", lines)


def _entropy(case: str, seed: int) -> float:
    """Nats per row of a dense Gaussian case: the least any negative ELBO can be, in expectation."""
    toy = problem("gaussian", case, seed).toy
    mixing = toy.law.factor.mT @ toy.dictionary.double()
    covariance = mixing.mT @ mixing + toy.noise**2 * torch.eye(mixing.shape[1], dtype=torch.float64)
    return 0.5 * torch.logdet(2 * math.pi * math.e * covariance).item()


def label(arm: str, strength: float) -> str:
    """An arm's label, with its strength where that is not the default."""
    text = ARMS[arm].label
    return text if strength == ARMS[arm].strength else f"{text}, β = {strength:g}"


def document_table(rows: Rows, data: str) -> Table:
    """The document's table: its numbers in columns of their own, then ours."""
    rows = select(rows, data=data)
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        printed = document.TABLE[case]
        here = {
            arm: _default(select(rows, case=case), arm) for arm in ("l1", "isotropic", "cholesky")
        }
        lines.append(
            {
                "case": case,
                "printed: SAE MSE": printed.sae_mse,
                "SAE MSE": cell(here["l1"], "mse"),
                "printed: VAE MSE": printed.vae_mse,
                "iso MSE": cell(here["isotropic"], "mse"),
                "Cholesky MSE": cell(here["cholesky"], "mse"),
                "printed: SAE L0": printed.sae_l0,
                "SAE L0": cell(here["l1"], "l0"),
                "printed: VAE L0": printed.vae_l0,
                "iso L0": cell(here["isotropic"], "l0"),
                "Cholesky L0": cell(here["cholesky"], "l0"),
                "printed: KL": printed.kl,
                "iso KL": cell(here["isotropic"], "kl"),
                "Cholesky KL": cell(here["cholesky"], "kl"),
            }
        )
    return Table(f"The document's table ({document.SOURCE}) and ours; {FAMILY[data]}", lines)


def _default(rows: Rows, arm: str) -> list[dict]:
    return select(rows, arm=arm, strength=ARMS[arm].strength)


def all_tables(rows: Rows) -> Iterable[Table]:
    """What part1.md shows, family by family."""
    for data in dict.fromkeys(row["data"] for row in rows):
        yield document_table(rows, data)
        for metric in METRICS:
            yield metric_table(rows, data, metric)
