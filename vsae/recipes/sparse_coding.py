"""The recommended recipe for the activations of networks: sparse coding, then without shrinkage."""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from priors.amplitudes import ExponentialPrior
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.coherence import Coherence
from vsae.expected_elbo import ExpectedELBO
from vsae.guides import AmortizedGuide
from vsae.likelihood import FixedNoise
from vsae.models.sae import SparseAutoencoder
from vsae.normalizers import AffineNormalizer
from vsae.posteriors.fista import FISTAPosterior
from vsae.posteriors.relaxed_fista import RelaxedFISTAPosterior
from vsae.recipes.recovery import ATOMS, dictionary_of_rows, updates
from vsae.run import Run
from vsae.schedules import Constant, LinearDecay
from vsae.targeted_exponential import TargetedExponentialPrior
from vsae.training import fit

CONTINUATION = 3.0  # by how much log λ may fall in phase 1


@dataclass(frozen=True, kw_only=True)
class SparseCodingRecipe:
    r"""Settings of the two phases, in units where E‖x - mean‖² = d.

    1. ℓ1: MAP codes by FISTA under an exponential prior whose λ is what the wanted sparsity needs;
       atoms from random data points.
    2. Relaxed: the ``k`` greatest of those codes, their amplitudes solved without the penalty.

    Inference is by iteration in both, and afterwards: no encoder is trained.

    Args:
        k: Active latents per row: of phase 2 at most so many.
        l1_rows: Rows of phase 1.
        relaxed_rows: Rows of phase 2.
        batch_size: Rows per update.
        density: Active latents of phase 1 on average, over ``k``: some have no positive amplitude
            once the penalty is gone.
        l1_lr: Adam's learning rate of phase 1, constant.
        relaxed_lr: Learning rate of phase 2, in a straight line to 0.
        coherence: Weight of :class:`vsae.Coherence` beside ½‖x - x̂‖² in phase 1.
        iterations: Of FISTA, and of the amplitudes.

    Example:
        >>> import torch
        >>> x = torch.randn(600, 4).relu()
        >>> recipe = SparseCodingRecipe(k=2, l1_rows=1000, relaxed_rows=500, batch_size=100)
        >>> pair = recipe.train(x, latents=8, progress=False)
        >>> bool(((pair.encode(x[:5]) != 0).sum(-1) <= 2).all())
        True

    Source:
        Olshausen & Field (1997), Vision Research 37:3311; Meinshausen (2007), *Relaxed Lasso*.
    """

    k: int
    l1_rows: int = 250_000
    relaxed_rows: int = 100_000
    batch_size: int = 256
    density: float = 1.25
    l1_lr: float = 0.01
    relaxed_lr: float = 0.002
    coherence: float = 0.01
    iterations: int = 20

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
        yield self.relaxed_phase(first.autoencoder, x, seed=seed)

    def l1_phase(self, x: Float[Tensor, "rows d"], *, latents: int, seed: int = 0) -> Run:
        """ℓ1 sparse coding from random data points."""
        normalizer = AffineNormalizer.fit(x)
        decoder = dictionary_of_rows(normalizer(x), latents, stream(seed, ATOMS))
        steps = updates(self.l1_rows, self.batch_size)
        # Slowly: atoms that form under a strong penalty are those that other seeds find, too.
        prior = TargetedExponentialPrior(
            latents, target=self.density * self.k, rate=CONTINUATION / steps
        )
        noise, belief = FixedNoise(1.0), Coherence(decoder, weight=self.coherence)
        model = SparseAutoencoder(decoder, prior, noise=noise, dictionary=belief)
        guide = FISTAPosterior(decoder, prior, noise, iterations=self.iterations)
        pair = Autoencoder(model, AmortizedGuide(guide), normalizer)
        return self._fit(pair, x, steps, self.l1_lr, Constant(), seed)

    def relaxed_phase(self, pair: Autoencoder, x: Float[Tensor, "rows d"], *, seed: int = 0) -> Run:
        """The dictionary of an ℓ1 pair, trained on codes without shrinkage."""
        decoder, noise = pair.model.decoder, pair.model.noise
        prior = ExponentialPrior(decoder.latents, scale=pair.model.prior().mean[0].item())
        model = SparseAutoencoder(decoder, prior, noise=noise)
        guide = RelaxedFISTAPosterior(decoder, prior, noise, k=self.k, iterations=self.iterations)
        new = Autoencoder(model, AmortizedGuide(guide), pair.normalizer)
        steps = updates(self.relaxed_rows, self.batch_size)
        decay = LinearDecay(start=0, end=steps)
        return self._fit(new, x, steps, self.relaxed_lr, decay, seed + 1)

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
