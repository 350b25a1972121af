"""What can be recovered: directions, or subspaces; and how well some atoms and codes do."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from toys.synth_subspaces import SubspaceToy
from vsae import metrics
from vsae.metrics.recovery import Classification

NEAR = 0.9  # the cosine from which a feature counts as recovered


class AbstractTruth(ABC):
    """True features and how strongly they fire on held-out rows; *the following methods score*.

    Args:
        strengths: ``(rows, F)``, 0 where a feature does not fire.
    """

    strengths: Float[Tensor, "rows F"]

    @abstractmethod
    def cosines(self, atoms: Float[Tensor, "K d"]) -> Float[Tensor, "K F"]:
        """``|cos|`` of atoms and features, float64."""

    @abstractmethod
    def mcc(self, atoms: Float[Tensor, "K d"]) -> float:
        """The mean cosine over the one-to-one matching."""

    @abstractmethod
    def uniqueness(self, atoms: Float[Tensor, "K d"]) -> float:
        """Distinct features that are some atom's best, over ``K``."""

    @abstractmethod
    def classification(
        self, atoms: Float[Tensor, "K d"], codes: Float[Tensor, "rows K"]
    ) -> Classification:
        """Latents as classifiers of the feature that each is most like."""

    def share(self, atoms: Float[Tensor, "K d"]) -> float:
        """Share of features that some atom has a cosine above 0.9 with."""
        return float((self.cosines(atoms).amax(0) > NEAR).double().mean())

    def chance(self, latents: int, d_model: int, *, draws: int = 5) -> float:
        """MCC of random unit atoms, the mean of some draws."""
        generator = Generator().manual_seed(0)
        like = self.strengths.dtype
        random = torch.randn(draws, latents, d_model, generator=generator, dtype=like)
        return sum(self.mcc(atoms) for atoms in random) / draws


class Directions(AbstractTruth):
    """Features of one dimension.

    Args:
        dictionary: ``(F, d)``.
        strengths: ``(rows, F)``.
    """

    def __init__(self, dictionary: Tensor, strengths: Tensor) -> None:
        self.dictionary, self.strengths = dictionary, strengths

    def cosines(self, atoms: Tensor) -> Tensor:
        return metrics.cosine_similarities(atoms, self.dictionary)

    def mcc(self, atoms: Tensor) -> float:
        return metrics.mean_correlation_coefficient(atoms, self.dictionary)

    def uniqueness(self, atoms: Tensor) -> float:
        return metrics.uniqueness(atoms, self.dictionary)

    def classification(self, atoms: Tensor, codes: Tensor) -> Classification:
        return metrics.latent_f1(atoms, self.dictionary, codes, self.strengths)


class Subspaces(AbstractTruth):
    """Concepts of several dimensions, each a subspace: scored by the angle to it.

    The rest is as of directions, whose cosines those of one-dimensional subspaces are.

    Args:
        toy: With the subspaces.
        codes: Coordinates of held-out rows.
    """

    def __init__(self, toy: SubspaceToy, codes: Tensor) -> None:
        self.toy, self.strengths = toy, toy.strengths(codes)

    def cosines(self, atoms: Tensor) -> Tensor:
        return self.toy.cosines(atoms.detach()).double()

    def mcc(self, atoms: Tensor) -> float:
        cosines = self.cosines(atoms)
        latent, concept = map(torch.from_numpy, linear_sum_assignment(1 - cosines.numpy()))
        return float(cosines[latent, concept].mean())

    def uniqueness(self, atoms: Tensor) -> float:
        return len(self.cosines(atoms).argmax(-1).unique()) / len(atoms)

    def classification(self, atoms: Tensor, codes: Tensor) -> Classification:
        best = self.cosines(atoms).argmax(-1)
        concepts = torch.eye(self.strengths.shape[1], dtype=codes.dtype)
        return metrics.latent_f1(concepts[best], concepts, codes, self.strengths)
