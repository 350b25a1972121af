"""The two kinds of data, and what an autoencoder is worth on their held-out rows."""

from abc import ABC, abstractmethod
from functools import cache

import torch
from torch import Tensor

from toys.copula import CopulaCase, LatentCorrelation
from toys.correlation import BlockCorrelation, blocks, pairs
from toys.losses import Reconstruct, replaced_losses
from toys.magnitudes import PositiveNormal
from toys.reproduce.flat_arms import Size
from toys.reproduce.flat_settings import Settings
from toys.stories import StoriesData
from vsae import metrics
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.normalizers import AffineNormalizer

TOY, CHANCE = (1_000_000 * n for n in (6, 7))  # random streams
DATA = ("toy", "stories")
TITLES = {"toy": "copula toy", "stories": "layer 2 of stories260K"}


class Problem(ABC):
    """Training and held-out rows of one seed; *the following methods say what else is known*.

    Args:
        train: ``(N, d)``.
        test: ``(M, d)``, of which all scores are.
        latents: ``K``.
    """

    def __init__(self, train: Tensor, test: Tensor, latents: int) -> None:
        self.train, self.test = train, test
        self.size = Size(
            d_model=train.shape[1], latents=latents, normalizer=AffineNormalizer.fit(train)
        )

    @abstractmethod
    def recovery(self, codes: Tensor, atoms: Tensor) -> dict[str, float]:
        """Metrics of codes and atoms that only this kind of data has."""

    @abstractmethod
    def use(self, reconstruct: Reconstruct) -> dict[str, float]:
        """Metrics of reconstructions that only this kind of data has."""

    @torch.no_grad()
    def score(self, pair: Autoencoder) -> dict[str, float]:
        """Metrics at the posterior mean, in evaluation mode, on held-out rows."""
        codes = pair.encode(self.test)
        sparsity = {
            "l0": float(metrics.l0(codes)),
            "dead": 100 * float(metrics.dead_fraction(codes)),
        }
        return sparsity | self.recovery(codes, pair.W_dec) | self.fidelity(pair.forward)

    @torch.no_grad()
    def fidelity(self, reconstruct: Reconstruct) -> dict[str, float]:
        """What any reconstruction is worth, sparse or not."""
        restored = reconstruct(self.test)
        return {
            "ev": float(metrics.explained_variance(self.test, restored)),
            "mse": float(metrics.mse(self.test, restored)),
        } | self.use(reconstruct)


class ToyProblem(Problem):
    """Sparse features with correlated supports, whose directions and firings are known."""

    def __init__(self, settings: Settings, seed: int) -> None:
        generator = stream(seed, TOY)
        self.toy = toy_case(settings).build(generator)
        train = self.toy.sample(settings.toy_rows, generator)
        test = self.toy.sample(settings.toy_test, generator)
        super().__init__(train.x, test.x, settings.toy_latents)
        self.codes, self.seed = test.codes, seed

    def recovery(self, codes: Tensor, atoms: Tensor) -> dict[str, float]:
        features = self.toy.dictionary
        return {
            "mcc": metrics.mean_correlation_coefficient(atoms, features),
            "f1": metrics.latent_f1(atoms, features, codes, self.codes).f1,
        }

    def use(self, reconstruct: Reconstruct) -> dict[str, float]:
        return {}

    def chance(self, draws: int = 20) -> float:
        """MCC of random unit atoms, as many and as wide, the mean of some draws."""
        shape = (draws, self.size.latents, self.size.d_model)
        random = torch.randn(shape, generator=stream(self.seed, CHANCE))
        found = [metrics.mean_correlation_coefficient(r, self.toy.dictionary) for r in random]
        return sum(found) / draws


class StoriesProblem(Problem):
    """Activations of a network, and the network that reads them."""

    def __init__(self, settings: Settings) -> None:
        everything = StoriesData.load()
        texts = everything.texts[: settings.stories]
        self.data = StoriesData.from_texts(texts, everything.model, everything.tokenizer)
        self.layer = settings.layer
        train, test = (self.data.activations(self.layer, split) for split in ("train", "heldout"))
        super().__init__(train, test, settings.stories_latents)

    def recovery(self, codes: Tensor, atoms: Tensor) -> dict[str, float]:
        return {}

    def use(self, reconstruct: Reconstruct) -> dict[str, float]:
        losses = replaced_losses(self.data, self.layer, reconstruct)
        recovered = metrics.loss_recovered(losses.ce_clean, losses.ce_replaced, losses.ce_mean)
        return {"ce": losses.ce_replaced, "ce_recovered": recovered}


def toy_case(settings: Settings) -> CopulaCase:
    """Half of the features in groups of four that fire together, half in pairs that exclude."""
    fours, twos = settings.features // 8, settings.features // 4
    parts = (*blocks((4,) * fours, 0.8).parts, *pairs(twos, -0.8).parts)
    return CopulaCase(
        dependence=LatentCorrelation(structure=BlockCorrelation(parts=parts)),
        rate=settings.firing,
        magnitude=PositiveNormal(loc=1.0, scale=0.25),
        d_model=settings.toy_width,
        noise=settings.noise,
    )


@cache
def problem(data: str, settings: Settings, seed: int) -> Problem:
    """The data of a seed: a pure function of its arguments. The stories are the same for all."""
    return ToyProblem(settings, seed) if data == "toy" else _stories(settings)


@cache
def _stories(settings: Settings) -> StoriesProblem:
    return StoriesProblem(settings)
