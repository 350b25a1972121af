"""Split and merge: moves that a gradient cannot make, kept where they raise the ELBO."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.decoders import LinearDecoder
from vsae.elbo import per_row
from vsae.errors import ConfigError, DataError
from vsae.expected_elbo import ExpectedELBO
from vsae.fitted_spike_slab import LEAST, FittedSpikeSlabPrior

MOVES = 9_000_000  # a random stream
FEWEST = 20  # rows on which a latent fires, or it is free to be used for another
TIED, GIVEN, OVERLAP = 0.5, 0.5, 0.15  # Jaccard index, P(k | j), |cosine|
APART = 0.02  # relative variance of the amplitudes of a latent that is new


@dataclass(frozen=True)
class Moves:
    """What was kept.

    Attributes:
        merged: Pairs of latents of which the first now does the work of both.
        split: Pairs of latents of which the second was free, and now does half of the first's.
    """

    merged: tuple[tuple[int, int], ...]
    split: tuple[tuple[int, int], ...]


def split_and_merge(
    pair: Autoencoder,
    x: Float[Tensor, "rows d"],
    *,
    seed: int = 0,
    most: int = 100,
    rows: int = 300,
) -> Moves:
    r"""Merge latents that are one feature, and split latents that are two, if the ELBO rises.

    Spike and slab has optima in which one feature is two latents that always fire together, and
    others in which a latent is two features, :math:`w \propto d_1 + d_2`, with the features that
    may stand in for :math:`d_2` written as differences to it. The first are merged into the mean
    of what they add, :math:`μ_i w_i + μ_j w_j`, and leave a latent free. The second show in what
    is left over where the latent fires without those below it (if it ever does): the first
    principal direction :math:`r` of that, across ``w``, is the difference of the two,

    .. math:: w \to \tfrac1{\sqrt2}(w - r),\ \tfrac1{\sqrt2}(w + r)

    of which a free latent takes one; latents that fire only where this one does lose what lies in
    the plane of both. A move is made in place and taken back unless the ELBO of ``x`` rises: that
    of some rows on which its latents fire and some on which they do not, or of all if ``rows`` is
    as many. It leaves a rough start: train on afterwards.

    Args:
        pair: Under a :class:`vsae.FittedSpikeSlabPrior`, with a :class:`vsae.LinearDecoder`.
        x: Rows to look at, in raw units; some ten thousand.
        seed: Of which rows a move is judged by.
        most: Latents that are tried to be split, those first in which most is left over.
        rows: That a move is judged by, of those on which its latents fire and of the others each.

    Returns:
        What was kept.

    Raises:
        ConfigError: ``moves.pair`` for another prior or decoder.
        DataError: ``moves.rows`` for too few rows, ``data.nonfinite``.

    Example:
        >>> from vsae import RecoveryRecipe
        >>> x = torch.randn(600, 4, generator=torch.Generator().manual_seed(0)).relu()
        >>> recipe = RecoveryRecipe(l1_rows=1000, slab_rows=1000, final_rows=0, batch_size=100)
        >>> pair = recipe.train(x, latents=8, progress=False)
        >>> found = split_and_merge(pair, x, rows=600)
        >>> len(found.merged) <= 4
        True

    Source:
        Ueda, Nakano, Ghahramani & Hinton (2000), *SMEM algorithm for mixture models*, Neural
        Computation 12; the moves for dictionaries are this library's.
    """
    _check(pair, x)
    training, generator = pair.training, stream(seed, MOVES)
    pair.eval()
    try:
        with torch.no_grad():
            search = _Search(pair, x, generator, rows)
            merged = tuple(found for found in search.pairs() if search.merge(*found))
            search = _Search(pair, x, generator, rows)
            split = tuple(search.all_splits(most))
    finally:
        pair.train(training)
    return Moves(merged, split)


class _Search:
    """A pair, what it makes of some rows, and which of its latents have moved."""

    def __init__(self, pair: Autoencoder, x: Tensor, generator: Generator, rows: int) -> None:
        self.pair, self.x, self.generator, self.rows = pair, x, generator, rows
        self.atoms, self.prior = pair.model.decoder.W_dec, pair.model.prior
        codes = pair.encode(x)
        self.left = pair.normalizer(x) - pair.normalizer(pair.decode(codes))
        self.fires = codes > 0
        self.count = self.fires.sum(0)
        on = self.fires.to(x.dtype)
        self.both = on.mT @ on
        self.moved = self.count < 0

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Latents that fire on the same rows, the most alike first."""
        either = self.count[:, None] + self.count - self.both
        alike = (self.both / either.clamp(min=1)).triu(1)
        alike[(self.count < FEWEST)] = 0.0
        found = (alike > TIED).nonzero()
        order = alike[found[:, 0], found[:, 1]].argsort(descending=True)
        yield from ((int(i), int(j)) for i, j in found[order])

    def merge(self, i: int, j: int) -> bool:
        """``i`` for both, and ``j`` free."""
        if self.moved[[i, j]].any():
            return False
        moments = self.prior.moments.clone()
        sizes = moments[1] / moments[0]
        both = sizes[i] * self.atoms[i] + sizes[j] * self.atoms[j]
        atoms = self.atoms.clone()
        atoms[i] = normalize(both, dim=0)
        drawn = torch.randn(atoms.shape[1], generator=self.generator, dtype=atoms.dtype)
        atoms[j] = normalize(drawn.to(atoms.device), dim=0)
        rate = torch.maximum(moments[0, i], moments[0, j])
        moments[:, i] = _fresh(rate, both.norm())
        moments[:, j] = _fresh(torch.full_like(rate, LEAST), both.norm())
        return self._keep(self.fires[:, [i, j]].any(1), atoms, moments, [i, j])

    def all_splits(self, most: int) -> Iterator[tuple[int, int]]:
        """Latents, and the free one that took a half of each, while there are any."""
        free = (self.count < FEWEST).nonzero().flatten()
        free = free[self.prior.moments[2, free].argsort()].tolist()
        for latent in self._by_what_is_left()[:most]:
            if free and self.split(latent, free[0]):
                yield latent, free.pop(0)

    def _by_what_is_left(self) -> list[int]:
        """Latents that fire, by the variance left over along one direction where they do."""
        power = torch.zeros(len(self.atoms), dtype=self.left.dtype)
        for k in (self.count >= FEWEST).nonzero().flatten().tolist():
            rows = self.left[self.fires[:, k]]
            values = torch.linalg.eigvalsh(rows.mT @ rows)
            power[k] = values[-1] - values.median()
        return [k for k in power.argsort(descending=True).tolist() if power[k] > 0]

    def split(self, k: int, free: int) -> bool:
        """``k`` along what is left over where it fires, the other half for ``free``."""
        if self.moved[[k, free]].any():
            return False
        below = (self.both[k] > GIVEN * self.count) & (self.count > 0) & ~self.moved
        below[[k, free]] = False
        atom, alone = self.atoms[k].clone(), self.fires[:, k] & ~self.fires[:, below].any(1)
        rows = self.left[alone if int(alone.sum()) >= FEWEST else self.fires[:, k]]
        along = torch.linalg.eigh(rows.mT @ rows).eigenvectors[:, -1]
        along = normalize(along - (along @ atom) * atom, dim=0)
        below &= (self.atoms @ along).abs() > OVERLAP
        tied = below.nonzero().flatten().tolist()
        about = self.fires[:, [k, free, *tied]].any(1)
        return any(
            self._keep(about, *self._halves(k, free, tied, atom, sign * along), [k, free, *tied])
            for sign in (1.0, -1.0)
        )

    def _halves(
        self, k: int, free: int, tied: list[int], atom: Tensor, along: Tensor
    ) -> tuple[Tensor, Tensor]:
        atoms, moments = self.atoms.clone(), self.prior.moments.clone()
        size = moments[1, k] / moments[0, k] / 2**0.5  # each half has its share of the length
        atoms[k], atoms[free] = normalize(torch.stack([atom - along, atom + along]), dim=-1)
        plane = torch.stack([atom, along])
        rest = atoms[tied] - atoms[tied] @ plane.mT @ plane
        length = rest.norm(dim=-1)
        atoms[tied] = normalize(rest, dim=-1)
        moments[1, tied] *= length
        moments[2, tied] *= length**2
        rate = moments[0, k].clone()
        moments[:, k], moments[:, free] = _fresh(rate, size), _fresh(rate / 2, size)
        return atoms, moments

    def _keep(self, about: Tensor, atoms: Tensor, moments: Tensor, latents: list[int]) -> bool:
        """Make a move; take it back unless the ELBO of all rows, estimated, rises."""
        judges = [self._some(about), self._some(~about)]
        before, old = self._bound(judges), (self.atoms.clone(), self.prior.moments.clone())
        self._set(atoms, moments)
        kept = self._bound(judges) > before
        if kept:
            self.moved[latents] = True
        else:
            self._set(*old)
        return kept

    def _some(self, kind: Tensor) -> tuple[Tensor, int]:
        """Some of the rows of a kind, and how many there are."""
        rows = kind.nonzero().flatten()
        dealt = torch.randperm(len(rows), generator=self.generator).to(rows.device)
        return self.x[rows[dealt[: self.rows]]], len(rows)

    def _bound(self, judges: list[tuple[Tensor, int]]) -> float:
        """The ELBO of all rows, in expectation, without a draw: nats, but for a constant."""
        total = 0.0
        for x, number in judges:
            if number:
                given = self.pair.model, self.pair.guide, self.pair.normalizer(x)
                terms = per_row(ExpectedELBO().site_terms(*given), len(x))
                total -= number * float(sum(terms.values()))
        return total

    def _set(self, atoms: Tensor, moments: Tensor) -> None:
        self.atoms.copy_(atoms)
        self.prior.follow(moments)


def _fresh(rate: Tensor, size: Tensor) -> Tensor:
    """Moments (3,) of a latent of which rate and mean amplitude are known."""
    return torch.stack([rate, rate * size, rate * size**2 * (1 + APART)])


def _check(pair: Autoencoder, x: Tensor) -> None:
    prior, decoder = pair.model.prior, pair.model.decoder
    if not isinstance(prior, FittedSpikeSlabPrior) or not isinstance(decoder, LinearDecoder):
        raise ConfigError(
            "moves are for a dictionary under spike and slab: got "
            f"{type(prior).__name__} and {type(decoder).__name__}, expected a FittedSpikeSlabPrior "
            "and a LinearDecoder, as RecoveryRecipe makes them.",
            code="moves.pair",
        )
    if x.dim() != 2 or len(x) < FEWEST:
        raise DataError(
            f"moves are judged by rows (rows, d): got {tuple(x.shape)}, expected {FEWEST} rows or "
            "more; some ten thousand are good.",
            code="moves.rows",
        )
    pair.check_finite(x)
