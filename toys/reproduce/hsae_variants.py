"""Variants of the H-SAE: one thing changed in each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from priors import BlockDiagonalPrior, FlatPrior, IsotropicPrior, LaplacePrior, SlabPrior, Tree
from toys.reproduce.flat_arms import DEAD_AFTER, Size
from toys.reproduce.hsae_recipes import L1, ORTHOGONALITY, Hierarchical, Recipe
from vsae.autoencoder import Autoencoder
from vsae.biorthogonality import AbstractBiorthogonality
from vsae.decoders import LinearDecoder
from vsae.guides import RoutedGuide
from vsae.hierarchical_decoder import HierarchicalDecoder
from vsae.hierarchical_encoder import HierarchicalEncoder
from vsae.models.hierarchical import HierarchicalAutoencoder
from vsae.normalizers import AffineNormalizer
from vsae.posteriors.gaussian_routed import GaussianRoutedPosterior
from vsae.posteriors.routed import RoutedPosterior
from vsae.posteriors.routed_losers import RoutedLosersPosterior
from vsae.presets import with_auxk
from vsae.presets.topk import HALF

TOP_WEIGHT = 0.1  # β, as published
SHUFFLE = 5  # seed of the families that are none


@dataclass(frozen=True, kw_only=True)
class Penalised(Hierarchical):
    """Another orthogonality, and ℓ1 where one wants it; weights as published, in our units.

    Args:
        name: As tables print it.
        belief: Of the orthogonality; none if ``None``.
        selected: ℓ1 on selected codes, in units of the published weight.
        lost: ℓ1 on the codes that lost.
    """

    name: str
    belief: Callable[..., AbstractBiorthogonality] | None
    selected: float = 0.0
    lost: float = 0.0

    @property
    def label(self) -> str:
        return self.name

    @property
    def rated_as(self) -> str:
        return "H-SAE"

    def build(self, size: Size) -> Autoencoder:
        routes, unit = encoder(self, size), size.d_model**0.5
        decoder, posterior = routes.decoder, self._posterior(routes)
        weight = ORTHOGONALITY * size.d_model
        model = HierarchicalAutoencoder(
            decoder,
            laplace(self.latents, self.selected * L1 * unit),
            k=self.k,
            noise=HALF,
            top_noise=HALF / TOP_WEIGHT**0.5,
            losers=laplace(self.latents, self.lost * L1 * unit) if self.lost else None,
            num_losers=posterior.num_losers if self.lost else 0,
            orthogonality=self.belief and self.belief(routes.top, decoder.top, weight=weight),
        )
        return Autoencoder(model, RoutedGuide(posterior), size.normalizer)

    def _posterior(self, routes: HierarchicalEncoder) -> nn.Module:
        if not self.lost:
            return RoutedPosterior(routes, k=self.k)
        relu = nn.ReLU()
        return RoutedLosersPosterior(
            routes, k=self.k, width=self.roots, activation=relu, child_activation=relu
        )


def encoder(recipe: Hierarchical, size: Size) -> HierarchicalEncoder:
    """The tree's dictionary, and its encoder."""
    top = LinearDecoder(recipe.roots, size.d_model)
    return HierarchicalEncoder(
        HierarchicalDecoder(top, branching=recipe.branching, subspaces=recipe.subspaces)
    )


def laplace(latents: int, weight: float) -> nn.Module:
    """``weight · ‖z‖₁``, or nothing."""
    return LaplacePrior(latents, scale=1 / weight) if weight else FlatPrior(latents)


@dataclass(frozen=True, kw_only=True)
class Published(Hierarchical):
    """One of the presets of the publication, in its units: E‖x‖² = 1.

    Args:
        name: As tables print it.
        preset: ``vsae.paper_hierarchical_autoencoder`` or the shipped one.
    """

    name: str
    preset: Callable[..., Autoencoder]

    @property
    def label(self) -> str:
        return self.name

    def build(self, size: Size) -> Autoencoder:
        units = size.normalizer
        return self.preset(
            size.d_model,
            self.roots,
            k=self.k,
            children=self.branching[0],
            subspace=self.subspaces[0],
            normalizer=AffineNormalizer(units.mean, units.scale * size.d_model**0.5),
        )


@dataclass(frozen=True, kw_only=True)
class Revived(Recipe):
    """AuxK on top.

    Args:
        inner: What it is on top of; it has the same ``k``.
    """

    inner: Recipe

    @property
    def label(self) -> str:
        return f"{self.inner.label} + AuxK"

    @property
    def rated_as(self) -> str:
        return self.inner.rated_as

    @property
    def tree(self) -> Tree:
        return self.inner.tree

    def describe(self) -> dict[str, str | int]:
        return self.inner.describe() | {"arm": self.label}

    def build(self, size: Size) -> Autoencoder:
        return with_auxk(self.inner.build(size), after=DEAD_AFTER)


@dataclass(frozen=True, kw_only=True)
class Variational(Hierarchical):
    """Gaussian amplitudes on the same routes, under a prior over all latents.

    Args:
        name: As tables print it.
        belief: ``(tree, scale) -> prior``; the scale is that of codes that explain ``E‖x‖² = d``.
        noise: σ of the observation, in units where x has variance 1 per neuron.
    """

    name: str
    belief: Callable[[Tree, float], nn.Module]
    noise: float = 0.35

    @property
    def label(self) -> str:
        return self.name

    @property
    def rated_as(self) -> str:
        return "variational H-SAE"

    def build(self, size: Size) -> Autoencoder:
        routes = encoder(self, size)
        slots = self.k * self.tree.depth
        scale = (size.d_model / slots) ** 0.5
        model = HierarchicalAutoencoder(
            routes.decoder,
            self.belief(self.tree, scale),
            k=self.k,
            noise=self.noise,
            top_noise=self.noise / TOP_WEIGHT**0.5,
        )
        # An orthogonal dictionary's posterior has about the noise as standard deviation.
        posterior = GaussianRoutedPosterior(routes, k=self.k, scale=self.noise)
        return Autoencoder(model, RoutedGuide(posterior), size.normalizer)


def isotropic(tree: Tree, scale: float) -> nn.Module:
    """One learned scale for all latents."""
    return IsotropicPrior(tree.latents, scale=scale, learnable=True)


def families(tree: Tree, scale: float) -> nn.Module:
    """A learned precision within each family, root included."""
    return BlockDiagonalPrior.from_labels(tree.families(), scale=scale)


def shuffled_families(tree: Tree, scale: float) -> nn.Module:
    """As many blocks of the same sizes, of latents drawn at random: the control."""
    order = torch.randperm(tree.latents, generator=torch.Generator().manual_seed(SHUFFLE))
    return BlockDiagonalPrior.from_labels(tree.families()[order], scale=scale)


def slab(tree: Tree, scale: float) -> nn.Module:
    """One learned scale, of the active latents alone."""
    return SlabPrior(IsotropicPrior(tree.latents, scale=scale, learnable=True))
