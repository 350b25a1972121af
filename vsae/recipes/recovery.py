"""The recommended recipe: ℓ1 sparse coding first, then spike and slab, on one dictionary."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from priors.amplitudes import TruncatedNormalPrior
from priors.bernoulli import BernoulliPrior
from priors.spike_slab import SpikeSlabPrior
from vsae.annealed_exponential import AnnealedExponentialPrior
from vsae.annealed_noise import AnnealedNoise
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.coherence import Coherence
from vsae.decoders import LinearDecoder
from vsae.errors import ConfigError
from vsae.expected_elbo import ExpectedELBO
from vsae.fitted_spike_slab import FittedSpikeSlabPrior
from vsae.guides import AmortizedGuide
from vsae.likelihood import FixedNoise
from vsae.models.sae import SparseAutoencoder
from vsae.movable import check_movable
from vsae.moves import split_and_merge
from vsae.normalizers import AffineNormalizer
from vsae.posteriors.fista import FISTAPosterior
from vsae.posteriors.mean_field import MeanFieldPosterior
from vsae.row_noise import RowNoise
from vsae.run import Run
from vsae.schedules import Constant, LinearDecay
from vsae.training import fit

ATOMS, MOVED = 8_000_000, 10_000_000  # random streams
FIRST_ROWS, LOOKED_AT = 20_000, 16_000  # amplitudes are first read from, moves found on


@dataclass(frozen=True, kw_only=True)
class RecoveryRecipe:
    r"""Settings of the two phases; amplitudes and noises in units where E‖x - mean‖² = d.

    1. ℓ1: MAP codes by FISTA under an exponential prior, λ from ``l1[0]`` to ``l1[1]``
       geometrically, atoms from random data points. Finds most directions, shrinks amplitudes, and
       mixes parents into children.
    2. Slab: mean-field codes under spike and slab with a noise per row, whose floor goes from
       ``noise[0]`` to ``noise[1]``; rates and amplitudes by closed-form M-steps from those of
       phase 1. Gates, behind which size costs little, separate what the first phase mixed. From
       time to time latents are merged, and until the learning rate falls others split with what
       that leaves free (:func:`vsae.split_and_merge`).

    What a belief is worth is measured by a subclass without it: one that overrides
    ``first_prior``, ``noise_of_rows`` or ``move``.

    Args:
        l1_rows: Rows of phase 1.
        slab_rows: Rows of phase 2; 0 to leave it and phase 3 out.
        final_rows: Rows of phase 3; 0 to leave it out.
        batch_size: Rows per update.
        l1: λ beside ½‖x - x̂‖², at the start and at the end.
        l1_lr: Adam's learning rate of phase 1, constant.
        l1_coherence: Weight of :class:`vsae.Coherence` beside ½‖x - x̂‖² in phase 1.
        l1_iterations: Of FISTA.
        noise: Floors of :class:`vsae.RowNoise` at the start and at the end of phase 2.
        shape: Of :class:`vsae.RowNoise`, per dimension of the activation.
        slab_lr: Learning rate of phase 2, in a straight line to 0 over its last two fifths.
        slab_coherence: Weight of :class:`vsae.Coherence` in phase 2, nats per row.
        final_noise: Floor of :class:`vsae.RowNoise` in phase 3.
        final_lr: Learning rate of phase 3, in a straight line to 0 over its last half.
        iterations: Of the mean field.
        damping: Of the mean field.
        spread: Greatest relative deviation of amplitudes; 1 is that of an exponential law, so that
            a latent's may have a size or none. With less, latents have a size from the start.
        moves: Into as many parts moves divide phase 2, the last quarter without; 0 for no moves,
            which a prior of gates whose structure is given needs. A phase of fewer updates has
            none.
        gates: Of the pair after phase 1, the prior of which latents fire: structure that is known
            (:class:`priors.TreeGatesPrior`, :class:`priors.IsingGatesPrior`) or learned
            (:class:`vsae.CoFiringGatesPrior`). Independent, with a rate each, if ``None``.

    Raises:
        ConfigError: when trained, ``recipe.rows`` for a phase of less than one update,
            ``recipe.silent`` if no latent fires after phase 1, ``moves.gates`` for moves of latents
            whose structure is given, ``recipe.moves`` for a negative number of them.

    Example:
        >>> x = torch.randn(600, 4).relu()
        >>> recipe = RecoveryRecipe(l1_rows=1000, slab_rows=1000, batch_size=100)
        >>> pair = recipe.train(x, latents=8, progress=False)
        >>> pair.encode(x[:2]).shape
        torch.Size([2, 8])
    """

    l1_rows: int = 80_000
    slab_rows: int = 900_000
    final_rows: int = 80_000
    batch_size: int = 256
    l1: tuple[float, float] = (1.5, 0.3)
    l1_lr: float = 0.03
    l1_coherence: float = 0.01
    l1_iterations: int = 20
    noise: tuple[float, float] = (0.15, 0.03)
    shape: float = 0.5
    slab_lr: float = 0.01
    slab_coherence: float = 0.5
    final_noise: float = 0.05
    final_lr: float = 0.007
    iterations: int = 12
    damping: float = 0.3
    spread: float = 1.0
    moves: int = 22
    gates: Callable[[Autoencoder], nn.Module] | None = None

    def train(
        self, x: Float[Tensor, "rows d"], *, latents: int, seed: int = 0, progress: bool = True
    ) -> Autoencoder:
        """Both phases, behind a progress bar; the trained pair, in the units of ``x``."""
        pair = None
        for run in self.phases(x, latents=latents, seed=seed):
            run.run(every=max(1, run.steps // 100), progress=progress)
            pair = run.autoencoder
        return pair

    def phases(self, x: Float[Tensor, "rows d"], *, latents: int, seed: int = 0) -> Iterator[Run]:
        """The run of each phase, to be brought to its end before the next is asked for."""
        first = self.l1_phase(x, latents=latents, seed=seed)
        yield first
        if self.slab_rows:
            second = self.slab_phase(first.autoencoder, x, seed=seed)
            yield second
            if self.final_rows:
                yield self.final_phase(second.autoencoder, x, seed=seed)

    def l1_phase(self, x: Float[Tensor, "rows d"], *, latents: int, seed: int = 0) -> Run:
        """ℓ1 sparse coding from random data points."""
        steps, normalizer = updates(self.l1_rows, self.batch_size), AffineNormalizer.fit(x)
        decoder = dictionary_of_rows(normalizer(x), latents, stream(seed, ATOMS))
        noise, (start, end) = FixedNoise(1.0), self.l1
        prior = AnnealedExponentialPrior(latents, start=start, end=end, length=steps)
        coherence = Coherence(decoder, weight=self.l1_coherence)
        model = SparseAutoencoder(decoder, prior, noise=noise, dictionary=coherence)
        guide = FISTAPosterior(decoder, prior, noise, iterations=self.l1_iterations)
        pair = Autoencoder(model, AmortizedGuide(guide), normalizer)
        return self._fit(pair, x, steps, self.l1_lr, Constant(), seed)

    def slab_phase(self, pair: Autoencoder, x: Float[Tensor, "rows d"], *, seed: int = 0) -> Run:
        """Spike and slab on the dictionary of an ℓ1 pair, whose codes it starts from."""
        steps, decoder = updates(self.slab_rows, self.batch_size), pair.model.decoder
        prior = FittedSpikeSlabPrior(self.first_prior(pair, x), spread=self.spread)
        coherence = Coherence(decoder, weight=self.slab_coherence)
        new = self._slab_pair(pair, prior, AnnealedNoise(*self.noise, length=steps), coherence)
        settled = steps * 3 // 5
        decay = LinearDecay(start=settled, end=steps)
        run = self._fit(new, x, steps, self.slab_lr, decay, seed + 1)
        if self.moves < 0:
            raise ConfigError(
                f"a phase has no fewer than no moves: got moves={self.moves}, expected 0 or more.",
                code="recipe.moves",
            )
        if self.moves:
            check_movable(new)
        if 0 < self.moves <= steps:
            every = steps // self.moves
            move = partial(self._move, new, run.optimizer, x, seed, settled)
            run.between(range(every, steps * 3 // 4, every), move)
        return run

    def final_phase(self, pair: Autoencoder, x: Float[Tensor, "rows d"], *, seed: int = 0) -> Run:
        """The same with every latent's amplitude its own, and no belief about the dictionary."""
        steps = updates(self.final_rows, self.batch_size)
        prior = FittedSpikeSlabPrior(pair.model.prior.prior, spread=self.spread, pooling=0.0)
        prior.moments.copy_(pair.model.prior.moments)
        new = self._slab_pair(pair, prior, FixedNoise(self.final_noise), None)
        decay = LinearDecay(start=steps // 2, end=steps)
        return self._fit(new, x, steps, self.final_lr, decay, seed + 2)

    def _slab_pair(
        self, pair: Autoencoder, prior: nn.Module, floor: nn.Module, belief: nn.Module | None
    ) -> Autoencoder:
        decoder = pair.model.decoder
        noise = self.noise_of_rows(floor, decoder.d_model)
        model = SparseAutoencoder(decoder, prior, noise=noise, dictionary=belief)
        guide = MeanFieldPosterior(
            decoder, prior, noise, iterations=self.iterations, damping=self.damping
        )
        return Autoencoder(model, AmortizedGuide(guide), pair.normalizer)

    def noise_of_rows(self, floor: nn.Module, d_model: int) -> nn.Module:
        """The noise of phases 2 and 3, above a floor."""
        return RowNoise(floor, shape=self.shape * d_model)

    def move(
        self,
        pair: Autoencoder,
        x: Tensor,
        *,
        optimizer: torch.optim.Optimizer,
        seed: int,
        most: int | None,
    ) -> None:
        """Moves between latents of phase 2, as some rows suggest."""
        split_and_merge(pair, x, optimizer=optimizer, seed=seed, most=most)

    def _move(
        self,
        pair: Autoencoder,
        optimizer: torch.optim.Optimizer,
        x: Tensor,
        seed: int,
        settled: int,
        step: int,
    ) -> None:
        """Other rows every time; no splits that stay untrained."""
        generator = stream(seed, MOVED + step)
        picked = torch.randperm(len(x), generator=generator)[:LOOKED_AT]
        most = None if step < settled else 0
        rows = x[picked.to(x.device)]
        self.move(pair, rows, optimizer=optimizer, seed=seed + step, most=most)

    def first_prior(self, pair: Autoencoder, x: Tensor) -> SpikeSlabPrior:
        """Rates and amplitudes of codes, without the small ones that ℓ1 leaves."""
        codes = pair.encode(x[:FIRST_ROWS])
        fires = codes > 0.25 * codes.square().sum() / codes.sum()
        if not bool(fires.any()):
            raise ConfigError(
                f"no latent fires after phase 1: got l1={self.l1}, expected a smaller penalty.",
                code="recipe.silent",
            )
        count = fires.sum(0).clamp(min=1)
        typical = codes[fires].mean()
        size = torch.where(fires, codes, 0.0).sum(0) / count
        size = 0.5 * (torch.where(fires.any(0), size, typical) + typical)
        latents = codes.shape[-1]
        gates = BernoulliPrior(latents, rate=0.01) if self.gates is None else self.gates(pair)
        gates.match(fires.float().mean(0).clamp(1e-4, 0.5))
        slab = TruncatedNormalPrior(latents)
        slab.match(size, size**2 * (1 + self.spread**2))
        return SpikeSlabPrior(gates, slab)

    def _fit(self, pair: Autoencoder, x: Tensor, steps: int, lr: float, schedule, seed: int) -> Run:
        return fit(
            pair.to(x.device, x.dtype),
            x,
            steps=steps,
            batch_size=self.batch_size,
            lr=lr,
            lr_schedule=schedule,
            elbo=ExpectedELBO(),
            seed=seed,
        )


def updates(rows: int, batch_size: int) -> int:
    """The updates that so many rows are.

    Raises:
        ConfigError: ``recipe.rows`` for less than one.
    """
    if rows < batch_size:
        raise ConfigError(
            f"a phase has at least one update: got {rows} rows, expected {batch_size} or more.",
            code="recipe.rows",
        )
    return rows // batch_size


def dictionary_of_rows(
    x: Float[Tensor, "rows d"], latents: int, generator: torch.Generator
) -> LinearDecoder:
    """A dictionary whose atoms point at random rows, of centred activations."""
    with torch.random.fork_rng(devices=[]):  # random atoms are drawn, and replaced
        decoder = LinearDecoder(latents, x.shape[-1]).to(x.device, x.dtype)
    picked = torch.randint(len(x), (latents,), generator=generator)
    if latents <= len(x):
        picked = torch.randperm(len(x), generator=generator)[:latents]
    with torch.no_grad():
        decoder.W_dec.copy_(nn.functional.normalize(x[picked.to(x.device)], dim=-1))
    return decoder
