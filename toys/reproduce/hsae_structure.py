"""Is there a hierarchy in a dictionary? Each measure beside what shuffled parents would score.

The parents of an H-SAE are its own; those of a flat dictionary are inferred from who fires with
whom. Every score ``name`` comes with ``name_chance``; what cannot be measured is left out.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Generator, Tensor

from toys.reproduce.hsae_data import HierarchyProblem, Truth
from toys.reproduce.hsae_recipes import Recipe
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream

CONTROLS = 10_000_000  # a random stream
Score = tuple[str, float, float]  # name, value, chance


@torch.no_grad()
def structure(
    found: HierarchyProblem, pair: Autoencoder, recipe: Recipe, rows: int, seed: int
) -> dict[str, float]:
    """All scores of one trained pair, on rows whose truth is known or on held-out rows.

    Args:
        found: Data.
        pair: Trained.
        recipe: What it was built by.
        rows: Held-out rows used where no truth is known.
        seed: Of the controls.
    """
    truth, generator = found.truth, stream(seed, CONTROLS)
    x = found.test[:rows] if truth is None else truth.rows
    codes = pair.encode(x)
    # Inferred from other rows than are scored, as an H-SAE's parents are given by none.
    parents = recipe.tree.parents()
    if recipe.tree.depth == 1:
        parents = metrics.infer_parents(pair.encode(found.train[: 4 * rows])).parents
    scores: dict[str, float] = {"edges": float((parents >= 0).sum())}
    measured = [*_redundancy(found, pair, recipe)]
    if (parents >= 0).any():
        measured += [*_functional(x, pair, codes, parents, generator)]
        measured += [*_geometry(found, x, codes, parents, generator)]
        if truth is not None:
            measured += [*_true(truth, codes, pair.W_dec, parents)]
    if truth is not None and truth.features is not None:
        measured += [*absorbed(truth, truth.features, pair, codes, recipe, generator)]
    return scores | collected(measured)


def collected(measured: Iterable[Score]) -> dict[str, float]:
    """By name, without what is undefined."""
    found = {}
    for name, value, chance in measured:
        both = {name: value, f"{name}_chance": chance}
        found |= {key: number for key, number in both.items() if not math.isnan(number)}
    return found


def _true(truth: Truth, codes: Tensor, atoms: Tensor, parents: Tensor) -> Iterator[Score]:
    """Against the true hierarchy: latents are matched to features on even rows, scored on odd."""
    if truth.features is not None:
        found = metrics.parent_recovery(atoms, parents, truth.features, truth.parents)
        # of_all counts unmatched features as missed; its chance is scaled likewise
        whole = found.evaluated / found.true_edges if found.true_edges else math.nan
        chance = found.chance * whole if found.evaluated else 0.0
        yield "recovery", found.of_all, chance
    similar = metrics.f1_similarities(codes[::2], truth.on[::2])
    purity = metrics.child_purity(codes[1::2], truth.on[1::2], parents, truth.parents, similar)
    yield "purity", purity.mean, purity.chance_in_parent
    yield "family", purity.family.mean, purity.family.chance


def _geometry(
    found: HierarchyProblem, x: Tensor, codes: Tensor, parents: Tensor, generator: Generator
) -> Iterator[Score]:
    """Cosines of concept vectors, whitened by the training rows."""
    vectors = metrics.concept_vectors(found.whitening(x), codes)
    cosine = metrics.parent_child_cosine(vectors, parents, generator=generator)
    yield "child_cosine", cosine.child.scores.mean, cosine.child.scores.chance
    yield "offset_cosine", cosine.offset.scores.mean, cosine.offset.scores.chance


def _functional(
    x: Tensor, pair: Autoencoder, codes: Tensor, parents: Tensor, generator: Generator
) -> Iterator[Score]:
    """What needs no truth: who fires with whom, what a child is good for, what can be read."""
    covered = metrics.coverage(codes, parents)
    yield "coverage", covered.conditional.mean, covered.conditional.chance
    yield "lift", covered.lift.mean, covered.lift.chance
    centred, restored = pair.normalizer(x), pair.model.decoder(codes)
    link = metrics.functional_link(centred, restored, codes, pair.W_dec, parents)
    yield "link", link.mean, link.chance
    probe = metrics.parent_child_probe(x, codes, parents, generator=generator)
    yield "probe", probe.mean, probe.chance


def _redundancy(found: HierarchyProblem, pair: Autoencoder, recipe: Recipe) -> Iterator[Score]:
    """Two views of one thing: the most active roots, as published, and latents of all levels."""
    if found.views is None:
        return
    first, second = (pair.encode(view) for view in found.views)
    roots = recipe.tree.roots
    k = min(recipe.k, roots)
    top = metrics.redundancy(first[:, :roots], second[:, :roots], k=k)
    yield "redundancy_top", top.normalised, 1.0
    yield "difference_top", top.difference, top.chance
    k = min(recipe.k * recipe.tree.depth, recipe.latents)
    everything = metrics.redundancy(first, second, k=k)
    yield "redundancy", everything.normalised, 1.0
    yield "difference", everything.difference, everything.chance


def absorbed(
    truth: Truth,
    directions: Tensor,
    pair: Autoencoder,
    codes: Tensor,
    recipe: Recipe,
    generator: Generator,
) -> Iterator[Score]:
    """Absorption of the features that have children: by roots alone, and by all latents.

    With one main latent, "what is not explained by a single feature" as the paper has it, and with
    further main latents where they add to a probe's F1, as the benchmark has it, but none that
    another feature correlates with more: a child is no part of its parent. All in the units of the
    codes.
    """
    above = truth.parents[truth.parents >= 0].unique()
    x = pair.normalizer(truth.rows) - pair.b_dec
    for name, latents in (("absorption_top", recipe.tree.roots), ("absorption", recipe.latents)):
        inputs = x, codes[:, :latents], pair.W_dec[:latents], truth.on, directions
        one = metrics.absorption(*inputs, generator=generator, limit=1)
        yield name, *_mean(above, one.fraction, one.chance_fraction)
        yield f"{name}_full", *_mean(above, one.full, one.chance_full)
        yield f"{name}_f1", float(one.f1[above].nanmean()), math.nan
        complete = metrics.absorption(*inputs, generator=generator)
        yield f"{name}_protocol", *_mean(above, complete.fraction, complete.chance_fraction)


def _mean(features: Tensor, value: Tensor, chance: Tensor) -> tuple[float, float]:
    """Of some features, and of their control."""
    return float(value[features].nanmean()), float(chance[features].nanmean())
