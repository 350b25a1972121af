"""Which latents die of a KL on codes that are not used: variational TopK, its readings compared."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from scipy.special import ndtri
from torch import Generator, Tensor, nn

from toys.copula import CopulaCase, SupportCorrelation
from toys.correlation import blocks
from toys.directions import RandomDirections
from toys.stories import StoriesData
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.normalizers import AffineNormalizer
from vsae.presets.variational_topk import (
    masked_variational_topk_autoencoder,
    shrunk_topk_autoencoder,
    variational_topk_autoencoder,
)
from vsae.training import fit

LATENTS, BATCH, LR = 512, 256, 1e-3
TRAIN, TEST, D_MODEL = 100_000, 10_000, 64
BLOCKS, RATE = (8,) * 32, 0.03  # 256 features in 64 dimensions, 8 of them active on average


@dataclass(frozen=True)
class Problem:
    """Rows to train on and rows to count on.

    Args:
        name: As tables print it.
        train: Activations ``(N, d)``.
        test: Activations ``(M, d)``, held out.
    """

    name: str
    train: Tensor
    test: Tensor


def gaussian(seed: int = 0) -> Problem:
    """Isotropic noise: nothing to find, no direction better than another."""
    x = torch.randn(TRAIN + TEST, D_MODEL, generator=Generator().manual_seed(seed))
    return Problem("gaussian noise", x[:TRAIN], x[TRAIN:])


def copula(seed: int = 0) -> Problem:
    """256 sparse features in blocks of 8 that fire together (φ = 0.3), in 64 dimensions."""
    case = CopulaCase(
        dependence=SupportCorrelation(structure=blocks(BLOCKS, 0.3)),
        rate=RATE,
        directions=RandomDirections(),
        d_model=D_MODEL,
    )
    generator = Generator().manual_seed(seed)
    x = case.build(generator).sample(TRAIN + TEST, generator).x
    return Problem("copula", x[:TRAIN], x[TRAIN:])


def stories(layer: int = 2) -> Problem:
    """Activations of stories260K."""
    data = StoriesData.load()
    test = data.activations(layer, "heldout")
    rows = torch.randperm(len(test), generator=Generator().manual_seed(0))[:TEST]
    return Problem("stories260K", data.activations(layer), test[rows])


Make = Callable[[int, int, float, nn.Module], Autoencoder]


def _all(latents: int, k: int, alpha: float, normalizer: nn.Module) -> Autoencoder:
    return shrunk_topk_autoencoder(D_MODEL, latents, k=k, alpha=alpha, normalizer=normalizer)


def _selected(latents: int, k: int, alpha: float, normalizer: nn.Module) -> Autoencoder:
    best = (alpha / (2 + alpha)) ** 0.5  # σ / √(1 + σ²)
    return masked_variational_topk_autoencoder(
        D_MODEL, latents, k=k, alpha=alpha, scale=best, normalizer=normalizer
    )


def _noisy(latents: int, k: int, alpha: float, normalizer: nn.Module) -> Autoencoder:
    return variational_topk_autoencoder(D_MODEL, latents, k=k, alpha=alpha, normalizer=normalizer)


@dataclass(frozen=True)
class Arm:
    """A reading of variational TopK.

    Args:
        name: As tables print it.
        make: ``(latents, k, alpha, normalizer) -> Autoencoder``.
        beta: Weight of its KL: 0 for the control.
    """

    name: str
    make: Make
    beta: float = 1.0


ARMS = (
    Arm("no KL", _all, beta=0.0),
    Arm("KL on selected", _selected),
    Arm("KL on all, no noise", _all),
    Arm("KL on all, noise 1", _noisy),
)


def collapse(
    problems: Sequence[Problem],
    *,
    ks: Sequence[int] = (4, 8, 16, 32),
    arms: Sequence[Arm] = ARMS,
    alpha: float = 0.3,
    latents: int = LATENTS,
    steps: int = 1000,
    seed: int = 0,
) -> Iterator[dict[str, str | int | float]]:
    r"""A row of a table per problem, number of active latents and arm, as it is trained.

    Every arm has the same architecture, initial weights, order of rows and learning rate; they
    differ in which codes pay :math:`α \tfrac12 μ^2`. Latents are alive if they are active on any
    held-out row. By counting, ``k / alive`` is the mean activation frequency of the living.

    Args:
        problems: Data, of width 64.
        ks: Active latents per row.
        arms: Which readings.
        alpha: Weight of the KL beside the squared error; codes are linear in the activations, so
            it has no units.
        latents: ``K``.
        steps: Updates of 256 rows.
        seed: Of weights, order and noise.

    Source:
        Baker & Li (2025), *Analysis of Variational Sparse Autoencoders*, 2509.22994.
    """
    for problem in problems:
        normalizer = AffineNormalizer.fit(problem.train)
        for k in ks:
            for arm in arms:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    pair = arm.make(latents, k, alpha, normalizer)
                fit_quietly(pair, problem.train, steps=steps, beta=arm.beta, seed=seed)
                yield {"data": problem.name, "k": k, "arm": arm.name} | scores(pair, problem.test)


def best_ratio(alpha: float) -> float:
    r"""``alive / k`` at the optimum of a model of the collapse: it depends on α alone.

    .. math:: \max_p \frac{G(p)^2}{p\,(G(p) + α/2)}, \qquad G(p) = E[u^2\, 1\{|u| > t\}],
        \quad p = P(|u| > t), \quad u \sim \mathcal N(0, 1)

    Orthonormal latents on Gaussian data, each active on the share ``p`` of the rows where it is
    largest, where it explains energy ``G``, and penalised by ``α/2 · slope²`` on all rows. The
    ratio is ``1 / p``.

    Args:
        alpha: Weight of the KL beside the squared error.

    Example:
        >>> round(best_ratio(3.0), 2), round(best_ratio(1e9), 2)
        (7.42, 4.87)
    """

    def loss(log_share: float) -> float:
        share = math.exp(log_share)
        bar = -float(ndtri(share / 2))
        energy = share + 2 * bar * math.exp(-(bar**2) / 2) / math.sqrt(2 * math.pi)
        return -(energy**2) / (share * (energy / alpha + 0.5))

    found = minimize_scalar(loss, bounds=(math.log(1e-6), 0.0), method="bounded")
    return math.exp(-found.x)


def fit_quietly(pair: Autoencoder, x: Tensor, *, steps: int, beta: float, seed: int) -> None:
    """Train to the end, without bar or warning of the collapse that is the subject."""
    for _ in fit(pair, x, steps=steps, batch_size=BATCH, lr=LR, beta=beta, seed=seed):
        pass


@torch.no_grad()
def scores(pair: Autoencoder, test: Tensor) -> dict[str, int | float]:
    """Living latents, reconstruction, and how far the pre-activations of the dead have shrunk."""
    code = pair.encode(test)
    active = code != 0
    alive = active.any(0)
    size = pair.guide.posterior.encoder(pair.normalizer(test)).square().mean(0).sqrt()
    row: dict[str, int | float] = {
        "alive": int(alive.sum()),
        "alive / k": float(alive.sum() / active.sum(-1).double().mean()),
        "explained variance": float(metrics.explained_variance(test, pair.decode(code))),
        "rms pre-activation, living": float(size[alive].median()),
    }
    if not bool(alive.all()):
        row["rms pre-activation, dead"] = float(size[~alive].median())
    return row
