"""A trained autoencoder on held-out rows: who fires where, how much of each row is whose."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from priors.tree import Tree
from toys.reproduce.hsae_contexts_find import Firings, Tokens, siblings_shuffled
from toys.reproduce.hsae_contexts_runs import DRAWN, tree_of
from toys.reproduce.hsae_contexts_settings import Settings
from toys.reproduce.hsae_contexts_text import HeldOutText
from toys.reproduce.tables import Cell
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream

BLOCK = 1 << 22  # numbers of a dense block of codes: 32 MiB


@dataclass(frozen=True, eq=False)
class Reading:
    """What held-out rows show of an autoencoder whose codes are in slots.

    Args:
        firings: Of its latents.
        norms: Of the atoms, in the units the model works in, ``(K,)``.
        x: The rows in those units.
        mean: Their reconstruction, too.
    """

    firings: Firings
    norms: np.ndarray
    x: Tensor
    mean: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, pair: Autoencoder, x: Tensor) -> "Reading":
        """Of raw activations ``(rows, d)``."""
        x = x.to(next(pair.parameters()).dtype)
        code = pair.code(x)
        mean = pair.model.decoder(code.z, code.support)
        norms = pair.W_dec.norm(dim=-1).double().numpy()
        return cls(Firings.of(code), norms, pair.normalizer(x), mean)

    @cached_property
    def explained(self) -> Tensor:
        """Of every row, the share of its squared distance from the mean row that is explained."""
        error = (self.x - self.mean).double().square().sum(-1)
        return 1 - error / (self.x - self.x.mean(0)).double().square().sum(-1)

    def scores(self) -> dict[str, Cell]:
        """Of all latents together."""
        counts = self.firings.counts
        return {
            "explained variance": float(metrics.explained_variance(self.x, self.mean)),
            "L0": float(counts.sum() / self.firings.rows),
            "latents": len(counts),
            "never fire, %": 100 * float((counts == 0).mean()),
        }


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """An H-SAE on held-out rows.

    Args:
        reading: Of all its latents.
        tree: Of its latents.
        link: What each child takes away of the error, ``(K,)``; nan for roots and the silent.
        sibling: What a random sibling in its place would, ``(K,)``.
        tokens: At which each latent fires.
        shuffled: The same, with children's firings dealt out anew in their families.
    """

    reading: Reading
    tree: Tree
    link: np.ndarray
    sibling: np.ndarray
    tokens: Tokens
    shuffled: Tokens

    @classmethod
    def of(cls, pair: Autoencoder, x: Tensor, text: HeldOutText, seed: int) -> "Hierarchy":
        """Of raw activations, and the text they were read at."""
        tree, reading = tree_of(pair), Reading.of(pair, x)
        firings = reading.firings
        link, sibling = links(reading, pair.W_dec.detach(), tree)
        dealt = siblings_shuffled(firings, tree, stream(seed, DRAWN))
        tokens, shuffled = (Tokens.of(f, text.tokens) for f in (firings.codes, dealt))
        return cls(reading, tree, link, sibling, tokens, shuffled)

    def scores(self, chosen: Settings) -> dict[str, Cell]:
        """Of all parents and children together; a mean is over latents."""
        counts, tree = self.reading.firings.counts, self.tree
        rates = counts[: tree.roots] / self.reading.firings.rows
        child = (np.arange(tree.latents) >= tree.roots) & (counts >= chosen.least)
        parent = (np.arange(tree.latents) < tree.roots) & (counts >= chosen.least)
        better = (self.link > self.sibling)[child & ~np.isnan(self.sibling)]
        eligible = (rates >= chosen.low) & (rates <= chosen.high)
        return self.reading.scores() | {
            "parents that never fire, %": 100 * float((rates == 0).mean()),
            f"parents on {_range(chosen)} of tokens": int(eligible.sum()),
            "error a child takes away": _mean(self.link[child]),
            "a random sibling in its place": _mean(self.sibling[child]),
            "children better than a random sibling, %": 100 * _mean(better),
            "share of the commonest token: parents": _mean(self.tokens.share[parent]),
            "children": _mean(self.tokens.share[child]),
            "children, shuffled among siblings": _mean(self.shuffled.share[child]),
        }


def _range(chosen: Settings) -> str:
    return f"{100 * chosen.low:g}–{100 * chosen.high:g} %"


def _mean(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    return float(values.mean()) if len(values) else None


def links(reading: Reading, atoms: Tensor, tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """:func:`vsae.metrics.functional_link` family by family, as codes of all would not fit."""
    values, siblings = (np.full(tree.latents, math.nan) for _ in range(2))
    families, parents = tree.families(), tree.parents()
    step = max(1, BLOCK * tree.roots // (reading.firings.rows * tree.latents))
    for start in range(0, tree.roots, step):
        members = ((families >= start) & (families < start + step)).nonzero().flatten()
        dense = torch.from_numpy(reading.firings.codes[:, members.numpy()].toarray())
        local = torch.searchsorted(members, parents[members])
        local = torch.where(parents[members] >= 0, local, -1)
        found = metrics.functional_link(reading.x, reading.mean, dense, atoms[members], local)
        children = members[found.edges[:, 0]].numpy()
        values[children], siblings[children] = found.values.numpy(), found.siblings.numpy()
    return values, siblings
