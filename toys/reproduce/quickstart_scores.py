"""What a trained autoencoder is worth: variance, sparsity, and the network that reads it."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from tqdm import tqdm

from toys.losses import replaced_losses
from toys.reproduce.quickstart_arms import Trained
from toys.reproduce.quickstart_structure import prior_covariance
from toys.stories import StoriesData
from vsae import metrics
from vsae.autoencoder import Autoencoder


@dataclass(frozen=True, eq=False)
class Score:
    """One reconstruction of held-out activations.

    Args:
        l0: Mean active latents per row, at the posterior mean; numbers kept per row for PCA.
        explained_variance: Of held-out rows.
        ce: Cross-entropy of the network reading the reconstruction, nats per token.
        ce_recovered_mean: Share of the cross-entropy recovered, mean ablation being 0.
        ce_recovered_zero: The same, zero ablation being 0.
    """

    l0: float
    explained_variance: float
    ce: float
    ce_recovered_mean: float
    ce_recovered_zero: float


@dataclass(frozen=True, eq=False)
class SparseScore(Score):
    """With what only codes have.

    Args:
        dead: Share of latents that never fire on held-out rows.
        active_units: Share of latents whose posterior mean says something about the row.
        kl: Nats per row to the prior; ``None`` for a point posterior.
        frequency: ``(K,)`` share of rows on which each latent is active.
        kl_marginal: ``(K,)`` nats per row from the prior's *marginals*; ``None`` for a point.
    """

    dead: float
    active_units: float
    kl: float | None
    frequency: Tensor
    kl_marginal: Tensor | None


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out activations of a layer, and the network that reads them."""

    data: StoriesData
    layer: int

    @property
    def x(self) -> Tensor:
        """Held-out rows ``(N, d)``."""
        return self.data.activations(self.layer, "heldout")

    @torch.no_grad()
    def score(self, l0: float, reconstruct: Callable[[Tensor], Tensor]) -> Score:
        """Variance explained and loss recovered by any reconstruction."""
        losses = replaced_losses(self.data, self.layer, reconstruct)
        clean, replaced = losses.ce_clean, losses.ce_replaced
        return Score(
            l0=l0,
            explained_variance=float(metrics.explained_variance(self.x, reconstruct(self.x))),
            ce=replaced,
            ce_recovered_mean=metrics.loss_recovered(clean, replaced, losses.ce_mean),
            ce_recovered_zero=metrics.loss_recovered(clean, replaced, losses.ce_zero),
        )

    @torch.no_grad()
    def sparse_score(self, pair: Autoencoder) -> SparseScore:
        """The score of an autoencoder at its posterior mean."""
        posterior = pair.posterior(self.x)["z"]
        codes = pair.model.link(posterior.mean)
        plain = self.score(float(metrics.l0(codes)), pair.forward)
        point = not bool(posterior.variance.any())
        units = metrics.active_units(posterior.mean, posterior.variance) / codes.shape[-1]
        return SparseScore(
            **vars(plain),
            dead=float(metrics.dead_fraction(codes)),
            active_units=float(units),
            kl=None if point else float(kl_divergence(posterior, pair.model.prior()).mean()),
            frequency=metrics.activation_frequency(codes),
            kl_marginal=None if point else kl_marginal(pair, self.x),
        )


@torch.no_grad()
def kl_marginal(pair: Autoencoder, x: Tensor) -> Tensor:
    """KL of each latent's posterior from the *marginal* of the prior, mean nats over rows.

    Under a prior that couples latents these do not add up to the KL, which has no parts.
    """
    q, prior = pair.posterior(x)["z"], pair.model.prior
    marginal = Normal(prior.loc, prior_covariance(prior).diagonal().sqrt())
    return kl_divergence(Normal(q.mean, q.variance.sqrt()), marginal).mean(0)


def pca(x: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    """Projection on the first ``k`` principal components of ``x``, about its mean."""
    mean = x.double().mean(0)
    vectors = torch.linalg.eigh(torch.cov(x.double().mT)).eigenvectors.flip(1)[:, :k]

    def project(rows: Tensor) -> Tensor:
        return (mean + (rows.double() - mean) @ vectors @ vectors.mT).to(rows)

    return project


def principal_variances(x: Tensor) -> Tensor:
    """Eigenvalues of the covariance of ``x``, largest first."""
    return torch.linalg.eigvalsh(torch.cov(x.double().mT)).flip(0)


def references(
    held: HeldOut, train: Tensor, components: Sequence[int], threads: int
) -> dict[str, Score]:
    """Zero and mean ablation, and PCA with several numbers of components; fitted on training."""
    mean, width = train.double().mean(0), train.shape[1]
    constructions = {
        "untouched": (float(width), torch.clone),
        "zero ablation": (0.0, torch.zeros_like),
        "mean ablation": (0.0, lambda rows: mean.to(rows).expand_as(rows)),
    }
    for k in components:
        constructions[f"PCA, k = {k}" + (" (all)" if k == width else "")] = (
            float(k),
            pca(train, k),
        )
    scores = _at_once(lambda made: held.score(*made), constructions.values(), threads, "references")
    return dict(zip(constructions, scores, strict=True))


def pca_explained(train: Tensor, x: Tensor) -> Tensor:
    """Explained variance on ``x`` of PCA fitted on ``train``, with 0 … d components."""
    kept = (pca(train, k)(x) for k in range(train.shape[1] + 1))
    return torch.stack([metrics.explained_variance(x, mean) for mean in kept])


def scored(held: HeldOut, trained: Sequence[Trained], threads: int) -> list[SparseScore]:
    """The score of every run."""
    return _at_once(lambda run: held.sparse_score(run.pair), trained, threads, "scores")


def _at_once(score: Callable, items: Collection, threads: int, name: str) -> list:
    """``score`` of every item, ``threads`` at a time, behind a progress bar."""
    with ThreadPoolExecutor(threads) as pool:
        return list(tqdm(pool.map(score, items), total=len(items), desc=name, unit="run"))
