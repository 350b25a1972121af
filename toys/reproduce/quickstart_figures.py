"""The quickstart's figures, each with the numbers it shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from toys.reproduce.part1_tables import label, select
from toys.reproduce.quickstart_arms import L1
from toys.reproduce.quickstart_structure import Structure, prior_correlation
from toys.reproduce.quickstart_tables import Results
from vsae import plots

PCA_STYLE = "k:"


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, what it shows in one sentence, and the numbers behind it.

    Args:
        stem: Of the file names.
        caption: Plain text.
        drawn: The figure.
        data: As JSON.
    """

    stem: str
    caption: str
    drawn: Figure
    data: dict


def all_pictures(
    results: Results, found: Structure, heldout_rows: int, toys: Sequence[dict]
) -> Iterator[Picture]:
    """Every figure, in the order of the report."""
    yield toy_bars(toys)
    yield frontier(results)
    yield losses(results)
    yield training(results)
    yield correlations(results, found)
    yield firing(results, heldout_rows)
    yield information(results)


def toy_bars(rows: Sequence[dict]) -> Picture:
    """MSE, L0 and MCC of part (i), a panel each, averaged over cases."""
    arms = list(dict.fromkeys((row["arm"], row["strength"]) for row in rows))
    columns = {"mse": "MSE per neuron", "l0": "L0 (of 32)", "mcc": "MCC"}
    data = {
        name: {label(*arm): _mean(select(rows, arm=arm[0]), name) for arm in arms}
        for name in columns
    }
    chance = _mean(rows, "mcc_chance")
    drawn = Figure(figsize=(11, 3), layout="constrained")
    for ax, name in zip(drawn.subplots(1, 3, sharey=True), columns, strict=True):
        lines = {"random atoms": chance} if name == "mcc" else None
        plots.bars(ax, data[name], label=columns[name], references=lines)
    cases = ", ".join(dict.fromkeys(row["case"] for row in rows))
    caption = f"Part (i): means over {cases}, one seed, at each arm's own L0."
    return Picture("toys", caption, drawn, data | {"mcc_chance": chance})


def _mean(rows: Sequence[dict], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def frontier(results: Results) -> Picture:
    """Explained variance and CE recovered against L0, PCA as a reference."""
    columns = {
        "explained_variance": "explained variance",
        "ce_recovered_mean": "CE recovered (mean ablation = 0)",
    }
    data: dict = {"l0": {arm: [s.l0 for _, s in results.of(arm)] for arm in results.arms}}
    drawn = Figure(figsize=(11, 4.4), layout="constrained")
    for ax, (name, title) in zip(drawn.subplots(1, 2), columns.items(), strict=True):
        curves = {
            arm: [plots.FrontierPoint(s.l0, getattr(s, name)) for _, s in results.of(arm)]
            for arm in results.arms
        }
        curves["PCA (numbers per row)"] = [
            plots.FrontierPoint(s.l0, getattr(s, name))
            for key, s in results.references.items()
            if key.startswith("PCA")
        ]
        plots.pareto_frontier(ax, curves, label=title, styles={"PCA (numbers per row)": PCA_STYLE})
        data[name] = {arm: [p.value for p in points] for arm, points in curves.items()}
        data["l0"] |= {arm: [p.l0 for p in points] for arm, points in curves.items()}
    caption = (
        "Quality against sparsity on held-out rows; up and to the left is better. A point per "
        "strength: λ of the ℓ1 SAE, σ of the V-SAEs. PCA keeps the same directions on every row."
    )
    return Picture("frontier", caption, drawn, data)


def losses(results: Results) -> Picture:
    """Cross-entropy of the network at each arm's middle strength, between its reference points."""
    values = {
        f"{arm}, L0 {results.middle(arm)[1].l0:.1f}": results.middle(arm)[1].ce
        for arm in results.arms
    }
    shown = ("untouched", "mean ablation", "zero ablation")
    lines = {name: results.references[name].ce for name in shown}
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    plots.bars(drawn.add_subplot(), values, references=lines, label="cross-entropy, nats per token")
    caption = (
        "What the network loses when it reads reconstructions of layer 2, at each arm's middle "
        "strength; the arms differ in L0, so compare them on the frontier."
    )
    return Picture("network_loss", caption, drawn, {"ce": values, "references": lines})


def training(results: Results) -> Picture:
    """−log p(x|z) and KL by step, V-SAEs at their middle strength."""
    runs = {arm: results.middle(arm)[0].records for arm in results.arms if arm != L1}
    drawn = Figure(figsize=(11, 3.8), layout="constrained")
    titles = {"elbo/x": "−log p(x | z), nats per row", "elbo/z": "KL, nats per row"}
    for ax, (metric, title) in zip(drawn.subplots(1, 2), titles.items(), strict=True):
        plots.compared_curves(ax, runs, metric=metric).set_ylabel(title)
    caption = "Training of the V-SAEs at their middle strength (σ), on batches, normalised units."
    return Picture("training", caption, drawn, {"runs": runs})


def correlations(results: Results, found: Structure) -> Picture:
    """Correlation of the first run's codes beside that of each prior after training."""
    shown = {"codes of the first run": found.correlation} | {
        f"prior: {arm}": prior_correlation(results.middle(arm)[0].pair.model.prior)
        for arm in results.arms
        if arm not in (L1, "isotropic")
    }
    drawn = Figure(figsize=(12, 7.6), layout="constrained")
    axes = drawn.subplots(2, 3).flatten()
    axes[-1].set_axis_off()
    for ax, (name, matrix) in zip(axes, shown.items(), strict=False):
        plots.correlation_heatmap(ax, matrix, labels=found.labels, limit=1.0).set_title(
            name, fontsize="medium"
        )
    caption = (
        "Correlations over latents, put in order of the blocks (framed): of codes, which made the "
        "graph and the blocks, and of the priors after training. Medians over pairs in a block: "
        + ", ".join(f"{name} {median_within(m, found.labels):.2f}" for name, m in shown.items())
        + ". A learned prior whose median is near 1 has learned one shift common to all "
        "latents of a block, not who fires with whom: its mean is held fixed."
    )
    order = plots.block_order(found.labels)
    data = {name: _rounded(matrix[order][:, order]) for name, matrix in shown.items()}
    return Picture("correlations", caption, drawn, {"order": order.tolist(), "matrices": data})


def median_within(matrix: torch.Tensor, labels: torch.Tensor) -> float:
    """Median of the entries of different latents of one block."""
    pairs = (labels[:, None] == labels) & ~torch.eye(len(labels), dtype=torch.bool)
    return float(matrix[pairs].median())


def _rounded(matrix: torch.Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in matrix.double().tolist()]


def firing(results: Results, rows: int) -> Picture:
    """A histogram of firing rates per arm."""
    drawn = Figure(figsize=(12, 5.6), layout="constrained")
    axes = drawn.subplots(2, 3, sharex=True, sharey=True).flatten()
    data = {}
    for ax, arm in zip(axes, results.arms, strict=True):
        run, score = results.middle(arm)
        name = f"{arm} ({'λ' if arm == L1 else 'σ'} = {run.strength:.2g})"
        plots.firing_rate_histogram(ax, score.frequency, rows=rows, label=name)
        data[arm] = score.frequency.tolist()
    caption = (
        f"Firing rates of latents over {rows} held-out rows at each arm's middle strength; left of "
        "the dashed line are latents that never fired."
    )
    return Picture("firing_rates", caption, drawn, {"rows": rows, "frequency": data})


def information(results: Results) -> Picture:
    """KL of each latent from the prior's marginals, sorted."""
    values = {
        arm: score.kl_marginal
        for arm in results.arms
        if (score := results.middle(arm)[1]).kl_marginal is not None
    }
    drawn = Figure(figsize=(8, 4), layout="constrained")
    plots.kl_per_latent(drawn.add_subplot(), values)
    caption = (
        "KL of each latent's posterior from the marginal of its prior, mean over held-out rows, "
        "sorted, at each arm's middle strength. Priors that couple latents have a KL in total "
        "only; their marginals have one per latent, and these do not add up to it."
    )
    data = {arm: v.tolist() for arm, v in values.items()}
    return Picture("kl_per_latent", caption, drawn, data)
