"""Split and merge: moves between latents that a gradient cannot make."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.fitted_spike_slab import LEAST
from vsae.movable import FEWEST, check_movable, check_move
from vsae.resampling import forget

MOVES = 9_000_000  # a random stream
TIED, SHARED = 0.5, 0.42  # Jaccard index of two latents that are one feature, and if one says less
LEAST_LESS, LESS = 0.5**0.5, 0.9  # so much of what it says alone: not a whole feature less
OPPOSITE = 0.85  # -cosine of latents that are differences of the same two features
NOTHING = 0.1  # of an atom of length 1, that is left of it outside a plane
GIVEN, OVERLAP = 0.5, 0.15  # least P(k | j) of a latent j below k, and |cosine| to be moved by k
APART = 0.02  # relative variance of the amplitudes of a latent that is new
FREE = 10 * LEAST  # a rate below which a latent is of no use where it is
POWERS = 10  # steps of power iteration
ROWS = 4096  # encoded at a time
CHUNK = 1024  # latents whose firings are compared with those of all others at once


@dataclass(frozen=True)
class Moves:
    """What was moved.

    Attributes:
        unfolded: Latents ``(k, a, b)``: ``k`` and ``a`` now do the work of all three.
        merged: Pairs of latents of which the first now does the work of both.
        split: Pairs of latents of which the second was free, and now does half of the first's.
    """

    unfolded: tuple[tuple[int, int, int], ...]
    merged: tuple[tuple[int, int], ...]
    split: tuple[tuple[int, int], ...]


@torch.no_grad()
def split_and_merge(
    pair: Autoencoder,
    x: Float[Tensor, "rows d"],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    seed: int = 0,
    most: int | None = None,
) -> Moves:
    r"""Merge latents that are one feature, and split others with what that leaves free.

    Spike and slab has optima that no small step leaves. Three of them have a way out, by which
    latents become free, and a use for free ones.

    - *Merge.* One feature is two latents. They fire together, with a Jaccard index above ½; or
      above 0.42, if the more frequent one says less where the other one fires, which independent
      amplitudes would not, but not by as much as :math:`1/\sqrt2`, as if another feature had
      taken its place. The first becomes the mean of what they add,
      :math:`w_i \propto μ_i w_i + μ_j w_j`.
    - *Unfold.* Two features are three latents, :math:`w_k \propto d_1 + d_2` and, where only one
      of them fires, :math:`w_a \approx -w_b \propto d_1 - d_2`: ``k`` and ``a`` become
      :math:`(w_k \mp r)/\sqrt2` with :math:`r` along :math:`w_a - w_b`, across :math:`w_k`.
    - *Split.* Two features are one latent, and what may stand in for the second of them is
      written as a difference to it. The first principal direction :math:`r` of the residuals
      where the latent fires, and none of those that fire only below it do, is the difference of
      the two: it becomes :math:`(w - r)/\sqrt2`, and a free latent :math:`(w + r)/\sqrt2`.
      Free are latents with a rate below 1e-4 that fire on fewer than 20 of the rows, and those
      that merging and unfolding leave; at most as many are split, those first in which most energy
      is left over along one direction.

    Latents that mostly fire where the one in question does lose what lies in the plane of the two
    new atoms. A move is a rough start, and is not judged: train on, and move again. The halves of
    a latent that was one feature still fire together then, and are merged. At the end merge only,
    or they stay. Two *features* with a Jaccard index above ½, a child on more than half of its
    parent's rows, are merged, too, and found no more. Thresholds are settings, chosen on toys.

    Args:
        pair: Under a :class:`vsae.FittedSpikeSlabPrior`, with a :class:`vsae.LinearDecoder` and a
            :class:`vsae.MeanFieldPosterior`, as :class:`vsae.RecoveryRecipe` makes it; changed in
            place. Gates are independent, or learned and then learned anew; structure that is
            given would be that of other latents afterwards.
        x: Rows to look at, in raw units; some ten thousand. A few ``(rows, K)`` tensors are made.
        optimizer: That trains the pair, to forget what it knows of atoms that have moved: their
            momentum becomes zero, their mean square that of all.
        seed: Of where power iteration starts.
        most: Latents that are split, at most; as many as are free if ``None``.

    Returns:
        What was moved.

    Raises:
        ConfigError: ``moves.pair`` for another prior, decoder or posterior, ``moves.gates`` for
            gates whose structure is given, ``moves.most`` for a negative number,
            ``moves.optimizer`` for an optimizer of other parameters.
        DataError: ``moves.rows`` for too few rows, ``data.nonfinite``.

    Example:
        >>> from vsae import RecoveryRecipe
        >>> x = torch.randn(600, 4, generator=torch.Generator().manual_seed(0)).relu()
        >>> recipe = RecoveryRecipe(l1_rows=1000, slab_rows=1000, final_rows=0, batch_size=100)
        >>> pair = recipe.train(x, latents=8, progress=False)
        >>> split_and_merge(pair, x, most=0).split
        ()

    Source:
        Ueda, Nakano, Ghahramani & Hinton (2000), *SMEM algorithm for mixture models*, Neural
        Computation 12, merges and splits parts of mixtures; the moves of dictionaries are this
        library's.
    """
    check_movable(pair)
    check_move(pair, x, most, optimizer)
    with pair.evaluating():
        search = Search(pair, x)
    made = search.run(stream(seed, MOVES), most)
    search.write_to(pair, optimizer)
    return made


class Search:
    """A pair, what it makes of some rows, and which of its latents have moved.

    Args:
        pair: That is evaluated.
        x: The rows.
    """

    def __init__(self, pair: Autoencoder, x: Tensor) -> None:
        self.atoms = pair.model.decoder.W_dec.detach().clone()
        self.moments = pair.model.prior.moments.clone()
        codes = torch.cat([pair.encode(part) for part in x.split(ROWS)])
        self.left = pair.normalizer(x) - pair.model.decoder(codes)
        self.codes, self.on = codes, (codes > 0).to(x.dtype)
        self.count = self.on.sum(0)
        self.moved = self.count < FEWEST  # of which too little is known to move them
        self.free = self.moved & (self.moments[0] < FREE)

    def run(self, generator: Generator, most: int | None) -> Moves:
        """All moves, on a copy of atoms and moments."""
        unfolded, merged = tuple(self.unfolds()), tuple(self.merges())
        return Moves(unfolded, merged, tuple(self.splits(generator, most)))

    def write_to(self, pair: Autoencoder, optimizer: torch.optim.Optimizer | None) -> None:
        """The atoms and moments that were moved, to the pair."""
        atoms = pair.model.decoder.W_dec
        changed = (self.atoms != atoms).any(-1)
        atoms.copy_(self.atoms)
        if optimizer is not None:
            forget(optimizer, atoms, changed)
        pair.model.prior.follow(self.moments)

    def unfolds(self) -> Iterator[tuple[int, int, int]]:
        """Opposite latents below one and the same, and that one first."""
        for _, a, b in self.alike(lambda first: -self.atoms[first] @ self.atoms.mT, OPPOSITE):
            if bool(self.moved[[a, b]].any()):
                continue
            given = self.on[:, [a, b]].mT @ self.on / self.count[[a, b], None]
            given[:, self.moved] = 0.0
            given[:, [a, b]] = 0.0
            least, k = given.amin(0).max(0)
            if least > GIVEN:
                k = int(k)
                along, size = self.atoms[a] - self.atoms[b], self.sizes([k, a]).sum() / 2**0.5
                self.halve(k, a, along, size, self.below(k, a, b))
                self.release(b)
                yield k, a, b

    def merges(self) -> Iterator[tuple[int, int]]:
        """Latents that fire on the same rows, the most alike first."""
        for index, i, j in self.alike(self.jaccard, SHARED):
            one = index > TIED or self.shared(i, j)
            if one and not bool(self.moved[[i, j]].any()):
                both = self.sizes([i, j]) @ self.atoms[[i, j]]
                self.atoms[i] = normalize(both, dim=0)
                self._set(i, self.moments[0, [i, j]].max(), both.norm())
                self.release(j)
                yield i, j

    def splits(self, generator: Generator, most: int | None) -> Iterator[tuple[int, int]]:
        """Latents, and the free one that took a half of each."""
        free = self.free.nonzero().flatten().tolist()[:most]
        if not free:
            return
        power = self.power(generator)
        power[self.moved] = 0.0
        for k in power.argsort(descending=True).tolist():
            if free and power[k] > 0 and not bool(self.moved[k]):
                below = self.below(k)
                size = self.sizes([k])[0] / 2**0.5  # each half has its share of the length
                self.halve(k, other := free.pop(0), self.direction(k, below), size, below)
                yield k, other

    def alike(
        self, likeness: Callable[[slice], Tensor], least: float
    ) -> list[tuple[float, int, int]]:
        """Pairs that are more alike than ``least``, the most alike first; without a whole K×K."""
        found: list[tuple[float, int, int]] = []
        for first in range(0, len(self.atoms), CHUNK):
            values = likeness(slice(first, first + CHUNK)).triu(first + 1)
            rows, columns = (values > least).nonzero().T
            each = values[rows, columns].tolist(), (rows + first).tolist(), columns.tolist()
            found += zip(*each, strict=True)
        return sorted(found, key=lambda pair: -pair[0])

    def jaccard(self, first: slice) -> Tensor:
        """Of the firings of some latents and of all."""
        both = self.on[:, first].mT @ self.on
        return both / (self.count[first, None] + self.count - both).clamp(min=1)

    def shared(self, i: int, j: int) -> bool:
        """Whether, of two that fire together at times, the more frequent one says less then."""
        often, other = (i, j) if self.count[i] > self.count[j] else (j, i)
        values, given = self.codes[:, often], self.on[:, other]
        together, both = values @ given, self.on[:, often] @ given
        less = together / both / ((values.sum() - together) / (self.count[often] - both))
        return bool((less > LEAST_LESS) & (less < LESS))

    def below(self, k: int, *others: int) -> Bool[Tensor, " K"]:
        """Which fire mostly where ``k`` does, but for it and ``others``."""
        found = self.on[:, k] @ self.on > GIVEN * self.count
        found[[k, *others]] = False
        return found & ~self.moved

    def power(self, generator: Generator) -> Float[Tensor, " K"]:
        """Of what is left over where a latent fires, that along one direction above the mean."""
        along = torch.randn(self.atoms.shape, generator=generator, dtype=self.atoms.dtype)
        along = along.to(self.atoms.device)
        for _ in range(POWERS):
            seen = (self.left @ normalize(along, dim=-1).mT) * self.on
            along = seen.mT @ self.left
        return along.norm(dim=-1) - self.on.mT @ self.left.square().mean(-1)

    def direction(self, k: int, below: Bool[Tensor, " K"]) -> Float[Tensor, " d"]:
        """The first principal one of what is left over where ``k`` fires and those below do not.

        Of the two signs that with a third moment above zero: eigenvectors have none of their own.
        """
        fires = self.on[:, k] > 0
        alone = fires & ~self.on[:, below].any(1)
        rows = self.left[alone if int(alone.sum()) >= FEWEST else fires]
        along = torch.linalg.eigh(rows.mT @ rows).eigenvectors[:, -1]
        return along if (rows @ along).pow(3).sum() >= 0 else -along

    def sizes(self, latents: list[int]) -> Tensor:
        """Their mean amplitudes."""
        return self.moments[1, latents] / self.moments[0, latents]

    def halve(
        self, k: int, other: int, along: Tensor, size: Tensor, below: Bool[Tensor, " K"]
    ) -> None:
        """``k`` and ``other`` to both sides of ``k``; those below leave the plane of the two."""
        atom, rate = self.atoms[k].clone(), self.moments[0, k].clone()
        along = normalize(along - (along @ atom) * atom, dim=0)
        below = below & ((self.atoms @ along).abs() > OVERLAP)
        plane = torch.stack([atom, along])
        rest = self.atoms - self.atoms @ plane.mT @ plane
        length = rest.norm(dim=-1)
        for gone in (below & (length < NOTHING)).nonzero().flatten().tolist():
            self.release(gone)
        below = below & (length >= NOTHING)
        self.atoms[below] = normalize(rest[below], dim=-1)
        self.moments[1, below] *= length[below]
        self.moments[2, below] *= length[below] ** 2
        self.atoms[k] = normalize(atom - along, dim=0)
        self.atoms[other] = normalize(atom + along, dim=0)
        self._set(k, rate, size)
        self._set(other, rate / 2, size)
        self.moved |= below
        self.moved[[k, other]] = True

    def release(self, k: int) -> None:
        """Leave a latent without a use where it is."""
        size = self.sizes([k])[0]
        self._set(k, torch.full_like(size, LEAST), size)
        self.free[k] = True

    def _set(self, k: int, rate: Tensor, size: Tensor) -> None:
        """A latent's moments, from its rate and mean amplitude; it has moved."""
        self.moments[:, k] = torch.stack([rate, rate * size, rate * size**2 * (1 + APART)])
        self.moved[k] = True
