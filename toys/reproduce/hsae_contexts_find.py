"""Which rows a latent fires on, and which latents are worth reading: rules, without a taste."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Generator

from priors.tree import Tree
from toys.reproduce.hsae_contexts_settings import Settings
from vsae.sparse_code import SparseCode


@dataclass(frozen=True, eq=False)
class Firings:
    """Codes by latent: a latent fires on the rows where its code is not zero.

    Args:
        codes: ``(rows, K)``, column by column, rows ascending.
        rows: How many there are.
    """

    codes: sparse.csc_array
    rows: int

    @classmethod
    def of(cls, code: SparseCode) -> "Firings":
        """Of codes in slots ``(rows, W)``, without an array of ``(rows, K)``."""
        rows, width = code.support.shape
        row = torch.arange(rows).repeat_interleave(width).numpy()
        z, latent = code.z.flatten().double().numpy(), code.support.flatten().numpy()
        matrix = sparse.coo_array((z, (row, latent)), shape=(rows, code.latents)).tocsc()
        matrix.eliminate_zeros()
        matrix.sort_indices()
        return cls(matrix, rows)

    @property
    def counts(self) -> np.ndarray:
        """On how many rows each latent fires, ``(K,)``."""
        return np.diff(self.codes.indptr)

    def on(self, latent: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows on which a latent fires, ascending, and its codes there."""
        column = slice(self.codes.indptr[latent], self.codes.indptr[latent + 1])
        return self.codes.indices[column], self.codes.data[column]

    def at(self, latent: int, rows: Sequence[int]) -> list[float]:
        """The codes of a latent at some rows; 0 where it does not fire."""
        fires, z = self.on(latent)
        place = np.searchsorted(fires, rows)
        found = [p < len(fires) and fires[p] == r for p, r in zip(place, rows, strict=True)]
        return [float(z[p]) if f else 0.0 for p, f in zip(place, found, strict=True)]

    def strongest(self, latent: int, story: np.ndarray, count: int) -> list[int]:
        """The greatest codes, one per story as stories repeat themselves, greatest first.

        Of equal codes the first row counts.

        Args:
            latent: Which.
            story: Of every row.
            count: How many at most.
        """
        rows, z = self.on(latent)
        ordered = rows[np.lexsort((rows, -z))]
        _, first = np.unique(story[ordered], return_index=True)
        return ordered[np.sort(first)[:count]].tolist()

    def drawn(self, latent: int, count: int, generator: Generator) -> list[int]:
        """Rows on which a latent fires, drawn without replacement, strongest first."""
        rows, z = self.on(latent)
        order = torch.randperm(len(rows), generator=generator)[:count].numpy()
        return rows[order[np.lexsort((rows[order], -z[order]))]].tolist()


def active_children(counts: np.ndarray, tree: Tree, least: int) -> np.ndarray:
    """Of every root, how many of its children fire on at least so many rows, ``(roots,)``."""
    children = counts[tree.offsets[1] : tree.offsets[1] + tree.sizes[1]]
    return (children.reshape(tree.roots, -1) >= least).sum(-1)


def worth_reading(counts: np.ndarray, rows: int, tree: Tree, chosen: Settings) -> list[int]:
    """Of the roots that fire on between ``low`` and ``high`` of all rows, the richest families.

    That is those with the most active children; of equal ones those that fire more, then the first.
    """
    rates, active = counts[: tree.roots] / rows, active_children(counts, tree, chosen.least)
    eligible = np.flatnonzero((rates >= chosen.low) & (rates <= chosen.high))
    order = np.lexsort((eligible, -rates[eligible], -active[eligible]))
    return eligible[order][: chosen.parents].tolist()


def any_roots(counts: np.ndarray, tree: Tree, count: int, generator: Generator) -> list[int]:
    """Roots that fire at all, drawn without replacement, chosen ones or not."""
    firing = np.flatnonzero(counts[: tree.roots])
    return firing[torch.randperm(len(firing), generator=generator)[:count].numpy()].tolist()


@dataclass(frozen=True, eq=False)
class Tokens:
    """At which token each latent fires most often.

    Args:
        commonest: That token, ``(K,)``; of equally common ones the first of the vocabulary.
        share: Its share of the latent's firings; nan if there are none.
        shares: Of every token, ``(vocabulary, K)``.
    """

    commonest: np.ndarray
    share: np.ndarray
    shares: sparse.csc_array

    @classmethod
    def of(cls, firings: sparse.csc_array, tokens: np.ndarray) -> "Tokens":
        """Of rows that were read at ``tokens``."""
        rows = len(tokens)
        ones, size = np.ones(rows), int(tokens.max()) + 1
        at = sparse.csc_array((ones, (tokens, np.arange(rows))), shape=(size, rows))
        fires = firings.copy()
        fires.data = np.ones_like(fires.data)
        counts = (at @ fires).tocsc()
        total = np.asarray(counts.sum(0))
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(total > 0, 1 / total, 0.0)
        shares = (counts @ sparse.diags_array(inverse, format="csc")).tocsc()
        greatest = shares.max(axis=0).toarray().ravel()
        return cls(_first_greatest(shares), np.where(total > 0, greatest, np.nan), shares)


def _first_greatest(shares: sparse.csc_array) -> np.ndarray:
    shares.sort_indices()
    columns = zip(shares.indptr[:-1], shares.indptr[1:], strict=True)
    return np.array(
        [shares.indices[a + shares.data[a:b].argmax()] if b > a else -1 for a, b in columns]
    )


def siblings_shuffled(firings: Firings, tree: Tree, generator: Generator) -> sparse.csc_array:
    """The control: within every family, the children's firings dealt out anew to the same rows.

    Every child fires as often as before, and only where one of its siblings or itself did.
    """
    codes = firings.codes.tocoo()
    above = tree.parents().numpy()[codes.col]
    child = above >= 0
    row, column, family = codes.row[child], codes.col[child], above[child]
    chance = torch.rand(len(row), generator=generator).numpy()
    dealt = np.lexsort((chance, family))
    listed = np.argsort(family, kind="stable")
    shape, ones = firings.codes.shape, np.ones(len(row))
    return sparse.csc_array((ones, (row[dealt], column[listed])), shape=shape)
