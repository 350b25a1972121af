"""Both parts of the quickstart, from nothing to everything there is to report."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from toys.reproduce.quickstart_arms import Plan, first_run, l1_arm, variational_arms
from toys.reproduce.quickstart_scores import (
    HeldOut,
    SparseScore,
    pca_explained,
    principal_variances,
    references,
    scored,
)
from toys.reproduce.quickstart_settings import Settings
from toys.reproduce.quickstart_structure import Belief, structure
from toys.reproduce.quickstart_tables import Results
from toys.reproduce.quickstart_toys import toy_rows
from toys.reproduce.tables import Cell
from toys.stories import StoriesData
from vsae.autoencoder import Autoencoder


@dataclass(frozen=True, eq=False)
class Found:
    """All there is to report.

    Args:
        settings: What the run was made of.
        scales: Numbers that follow from the first run, for the settings table.
        toys: Rows of part (i).
        results: Part (ii).
        plan: What the first run decided.
        heldout: Rows that scores are over.
    """

    settings: Settings
    scales: dict[str, Cell]
    toys: list[dict]
    results: Results
    plan: Plan
    heldout: int


def run(chosen: Settings, threads: int) -> Found:
    """Toys and the network: one after the other, or at the same time with two threads or more.

    Small models on several threads of torch wait for each other more than they work, so every
    process has one.
    """
    if threads == 1:
        return network(chosen, threads, lambda: toy_rows(chosen))
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (1,)) as pool:
        return network(chosen, threads, pool.submit(toy_rows, chosen, place=1).result)


def network(chosen: Settings, threads: int, toys: Callable[[], list[dict]]) -> Found:
    """Part (ii): the first run, the arms, their scores; then what ``toys()`` found."""
    x, held = activations(chosen)
    first = first_run(x, chosen)
    score = held.sparse_score(first)
    plan = planned(first, score, x, chosen)
    runs = l1_arm(first, x, chosen) + variational_arms(plan, x, chosen)
    scores = scored(held, runs, threads)
    results = Results(
        first=score,
        runs=runs,
        scores=scores,
        references=references(held, x, components(scores, x.shape[1]), threads),
        pca=pca_explained(x, held.x),
    )
    variances = principal_variances(first.normalizer(x))
    scales = {"training rows": len(x), "held-out rows": len(held.x)}
    scales |= scales_of(plan, score, variances)
    return Found(chosen, scales, toys(), results, plan, len(held.x))


def activations(chosen: Settings) -> tuple[Tensor, HeldOut]:
    """Training rows of the layer, and what scores a reconstruction of held-out ones."""
    everything = StoriesData.load()
    texts = everything.texts[: chosen.stories]
    data = StoriesData.from_texts(texts, everything.model, everything.tokenizer)
    for split in tqdm(("train", "heldout"), desc="activations", unit="split"):
        data.activations(chosen.layer, split)  # kept by the data
    return data.activations(chosen.layer), HeldOut(data, chosen.layer)


@torch.no_grad()
def planned(first: Autoencoder, score: SparseScore, x: Tensor, chosen: Settings) -> Plan:
    """Structure, belief and noise, by the rules of the report, from the first run."""
    codes = first.encode(x[: chosen.coactivation_rows])
    size = float(codes[codes > 0].square().mean().sqrt())
    residual = (1 - score.explained_variance) ** 0.5
    return Plan(
        first=first,
        structure=structure(
            codes, neighbours=chosen.neighbours, blocks=chosen.blocks, seed=chosen.seed
        ),
        belief=Belief.matching(score.l0 / chosen.latents, size),
        noises=tuple(factor * residual for factor in chosen.noises),
        ratio=chosen.strength_over_ridge,
    )


def components(scores: Sequence[SparseScore], width: int) -> list[int]:
    """Numbers of PCA components the network reads: powers of two, all, and some arms' L0."""
    powers = {2**n for n in range(2, width.bit_length())}
    like_arms = {round(score.l0) for score in scores[:: max(1, len(scores) // 6)]}
    return sorted(k for k in powers | like_arms | {width} if 1 <= k <= width)


def scales_of(plan: Plan, score: SparseScore, variances: Tensor) -> dict[str, Cell]:
    """The units and strengths that the first run decided."""
    made, noises = plan.structure, plan.noises
    above = [int((variances > noise**2).sum()) for noise in noises]
    return {
        "L0 of the first run": score.l0,
        "explained variance of the first run": score.explained_variance,
        "prior mean m of every latent (learned priors begin there)": plan.belief.mean,
        "prior standard deviation s": plan.belief.scale,
        "σ, noise (variance of activations: 1 per neuron)": _listed(noises),
        "β": 1.0,
        "α = 2σ²β of “MSE + α·KL”": _listed([2 * noise**2 for noise in noises]),
        f"principal components with variance > σ², of {len(variances)}": _listed(above),
        "edges of the graph": made.graph.num_edges,
        "mean edge weight (a correlation)": float(made.graph.weights.mean()),
        "blocks": int(made.labels.max()) + 1,
        "largest block": int(made.labels.bincount().max()),
    }


def _listed(values: Sequence[float | int]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
