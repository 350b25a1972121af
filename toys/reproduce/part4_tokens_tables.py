"""Tables of the part ``tokens``, document B's two among them, in their shape."""

from collections.abc import Iterator, Mapping, Sequence

from toys.reproduce.part4_arms import ARMS, EVERY, OTHERS
from toys.reproduce.part4_compare import chosen, mean, missed
from toys.reproduce.part4_neighbours import KS
from toys.reproduce.part4_part import Rows
from toys.reproduce.part4_settings import Settings
from toys.reproduce.tables import Cell, Table, interval

SOURCE = "document B"
TABLE_2 = {
    "Vanilla/ℓ1": (92.83, 0.008996, 0.07166, 1.38788, 0.0600, 556.27, 0.9401),
    "Gaussian-iso": (13.16, 0.87490, 0.86800, 0.04600, 0.3150, 2905.33, 0.6870),
    "Graph": (84.72, 0.05423, 0.15276, 0.72870, 0.0658, 606.61, 0.9347),
}
"""As published: "Dead %", median and mean AF, mean AV, neuron and batch MSE, R²."""
TABLE_3 = {
    "Vanilla/ℓ1": (0.21274, 0.17952, 0.14804, 0.01289, 0.02350, 0.05469),
    "Graph": (0.20912, 0.17677, 0.14610, 0.01340, 0.02355, 0.05284),
}
"""As published: NDCG and precision at 64, 128 and 256."""


def token_tables(settings: Settings, rows: Rows) -> Mapping[str, Table]:
    """All of them."""
    return {
        "tokens_fidelity": Table(
            "Explained variance of held-out tokens, all layers together and each",
            list(fidelity(settings, rows)),
        ),
        "tokens_table2": Table(
            'Document B, table 2, and ours ("Dead %" is 100 (1 - mean AF), as there)',
            list(table_2(settings, rows)),
        ),
        "tokens_table3": Table(
            "Document B, table 3, and ours: neighbours of held-out sentences",
            list(table_3(settings, rows)),
        ),
        "tokens_controls": Table(
            "Neighbours of held-out sentences without a crosscoder", list(controls(rows))
        ),
        "tokens_layers": Table(
            "Effective number of layers of a latent, and roughness over its own graph",
            list(layers(settings, rows)),
        ),
        "tokens_network": Table(
            "Share of the network's loss recovered, each layer replaced alone, first seed",
            list(network(settings, rows)),
        ),
        "tokens_graphs": Table(
            "Other graphs, first seed, without shuffled twins", list(others(settings, rows))
        ),
        "tokens_bootstrap": Table(
            "NDCG of the first seed, its 95 % bootstrap interval over sentences, its null's",
            list(bootstrap(settings, rows)),
        ),
    }


def groups(
    settings: Settings, rows: Rows, arms: Sequence[str]
) -> Iterator[tuple[int, str, list[Mapping]]]:
    """Target, arm and its rows, where there are any."""
    for target in settings.targets:
        for arm in arms:
            found = chosen(rows, arm=arm, target=target)
            if found:
                yield target, arm, found


def named(target: int, found: Sequence[Mapping]) -> dict[str, Cell]:
    """What a line begins with."""
    return {"target L0": target, "arm": found[0]["label"], "L0": mean(found, "l0")}


def fidelity(settings: Settings, rows: Rows) -> Iterator[dict[str, Cell]]:
    """A line per arm and target; ``cut`` is with the greatest entries only."""
    for target, arm, found in groups(settings, rows, list(ARMS)):
        line = named(target, found)
        line["target"] = "missed" if ARMS[arm].start and missed(found, target) else "met"
        line["target"] = line["target"] if ARMS[arm].start else "–" if arm == "none" else "by k"
        line |= {"R²": mean(found, "r2"), "R², cut": mean(found, "cut", str(target), "r2")}
        line |= {"L0, cut": mean(found, "cut", str(target), "l0")}
        line |= {"R², raw": mean(found, "r2_raw"), "R², mean of neurons": mean(found, "r2_neurons")}
        count = len(found[0]["r2_layers"])
        line |= {f"layer {i + 1}": mean(found, "r2_layers", i) for i in range(count)}
        line |= {"β": mean(found, "beta"), "CPU s": mean(found, "seconds")}
        yield line


def table_2(settings: Settings, rows: Rows) -> Iterator[dict[str, Cell]]:
    """Theirs first. Dead latents are also counted as such."""
    names = ("Dead %", "median AF", "mean AF", "mean AV", "neuron MSE", "batch MSE", "R²")
    for model, numbers in TABLE_2.items():
        yield {"model": f"{SOURCE}: {model}"} | dict(zip(names, numbers, strict=True))
    paths = ("document_dead", "frequency_median", "density", "value_over_active")
    for target, _, found in groups(settings, rows, list(ARMS)):
        line: dict[str, Cell] = {"model": f"{found[0]['label']}, L0 {target}"}
        metrics = (*paths, "neuron_mse", "batch_mse", "r2")
        line |= {name: mean(found, path) for name, path in zip(names, metrics, strict=True)}
        dead = [100 * row["dead"] for row in found]
        yield line | {"L0": mean(found, "l0"), "never active, %": interval(dead)}


def table_3(settings: Settings, rows: Rows) -> Iterator[dict[str, Cell]]:
    """Theirs first; then chance, and every arm."""
    names = [f"{metric}@{k}" for metric in ("NDCG", "P") for k in KS]
    for model, numbers in TABLE_3.items():
        yield {"model": f"{SOURCE}: {model}"} | dict(zip(names, numbers, strict=True))
    ranked = [row for row in chosen(rows) if row.get("neighbours")]
    for name, what in (("chance", "chance"), ("renamed at random, mean", "null_mean")):
        if ranked:
            yield {"model": name} | scores(ranked[:1], ("neighbours",), what)
    for target, _, found in groups(settings, rows, list(ARMS)):
        yield {"model": f"{found[0]['label']}, L0 {target}"} | scores(found, ("neighbours",))


def scores(rows: Sequence[Mapping], path: Sequence[str], what: str = "value") -> dict[str, Cell]:
    """NDCG and precision at every length there is."""
    lengths = list(_at(rows[0], path)) if rows else []
    return {
        f"{short}@{k}": mean(rows, *path, k, metric, what)
        for short, metric in (("NDCG", "ndcg"), ("P", "precision"))
        for k in lengths
    }


def _at(row: Mapping, path: Sequence[str]) -> Mapping:
    for name in path:
        row = row.get(name, {})
    return row


def bootstrap(settings: Settings, rows: Rows) -> Iterator[dict[str, Cell]]:
    """At the shortest length: what one model's sentences say, beside chance."""
    for target, _, found in groups(settings, rows, list(ARMS)):
        first = [row for row in found if row["seed"] == settings.seeds[0] and row.get("neighbours")]
        if not first:
            continue
        k, scored = next(iter(first[0]["neighbours"].items()))
        own = scored["ndcg"]
        yield {
            "target L0": target,
            "arm": first[0]["label"],
            f"NDCG@{k}": own["value"],
            "from": own["interval"][0],
            "to": own["interval"][1],
            "chance": own["chance"],
            "null, from": own["null_interval"][0],
            "null, to": own["null_interval"][1],
        }


def controls(rows: Rows) -> Iterator[dict[str, Cell]]:
    """Raw activations, principal components and random projections, pooled alike."""
    for row in chosen(rows, arm="controls"):
        for name in row["controls"]:
            line: dict[str, Cell] = {"points": name, "queries": row["queries"]}
            yield line | scores([row], ("controls", name))


def layers(settings: Settings, rows: Rows) -> Iterator[dict[str, Cell]]:
    """What latents read and write, and how rough codes are over the graph they make."""
    for target, _, found in groups(settings, rows, list(ARMS)):
        yield named(target, found) | {
            "layers, by encoder": mean(found, "layers_drive"),
            "layers, by masking": mean(found, "layers_masking"),
            "layers, by decoder": mean(found, "layers_atoms"),
            "zᵀLz / ‖z‖²": mean(found, "rough"),
            "zᵀLz / ‖z‖², shuffled": mean(found, "rough_shuffled"),
            "edges": mean(found, "edges"),
        }


def network(settings: Settings, rows: Rows) -> Iterator[dict[str, Cell]]:
    """Each layer replaced alone. All together is the last alone: it overwrites the others."""
    for target, _, found in groups(settings, rows, list(ARMS)):
        known = [row for row in found if "ce_recovered" in row]
        if known:
            each = known[0]["ce_layers"]
            line = named(target, known) | {f"layer {i + 1}": v for i, v in enumerate(each)}
            yield line | {"all (the last overwrites the others)": known[0]["ce_recovered"]}


def others(settings: Settings, rows: Rows) -> Iterator[dict[str, Cell]]:
    """Beside the sentence graph and its shuffled self, of the same seed."""
    same = ("graph", "shuffled", "v-graph", "v-shuffled")
    for target, arm, found in groups(settings, rows, list(EVERY)):
        first = [row for row in found if row["seed"] == settings.seeds[0]]
        if first and (arm in OTHERS or arm in same):
            line = named(target, first) | {"R²": mean(first, "r2")}
            line |= {"R², cut": mean(first, "cut", str(target), "r2")}
            yield line | scores(first, ("neighbours",))
