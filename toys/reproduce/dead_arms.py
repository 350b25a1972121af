"""The arms: where encoders start, what is done for the dead, and priors that prune."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from priors.ard import ARDPrior
from priors.isotropic import IsotropicPrior
from toys.reproduce.dead_settings import Settings
from vsae.autoencoder import Autoencoder
from vsae.presets import topk_autoencoder, variational_autoencoder, with_auxk

Make = Callable[[Settings, int, nn.Module], Autoencoder]

ALIGNED, RANDOM, ISOTROPIC = "TopK, encoder = atoms", "TopK, random encoder", "V-SAE, isotropic"


@dataclass(frozen=True)
class Arm:
    """A row of the table.

    Args:
        name: As it is printed.
        make: ``(settings, d_model, normalizer) -> Autoencoder``, untrained.
        base: The arm it is compared with, pair by pair of equal seeds; ``None`` for a base.
        resampled: Norm of resampled encoder rows over that of the living; ``None``: no resampling.
    """

    name: str
    make: Make
    base: str | None = None
    resampled: float | None = None


def aligned(settings: Settings, d_model: int, normalizer: nn.Module) -> Autoencoder:
    """The TopK SAE as the library starts it: encoder rows equal to the atoms."""
    return topk_autoencoder(d_model, settings.latents, k=settings.k, normalizer=normalizer)


def unaligned(settings: Settings, d_model: int, normalizer: nn.Module) -> Autoencoder:
    """The same with encoder rows drawn apart from the atoms, of equal norm."""
    pair = aligned(settings, d_model, normalizer)
    rows = pair.guide.posterior.encoder.W_enc
    with torch.no_grad():
        rows.copy_(nn.functional.normalize(torch.randn_like(rows), dim=-1))
    return pair


def _auxk(make: Make) -> Make:
    def made(settings: Settings, d_model: int, normalizer: nn.Module) -> Autoencoder:
        return with_auxk(make(settings, d_model, normalizer), after=settings.after)

    return made


def _variational(prior: nn.Module, settings: Settings, d_model: int, normalizer) -> Autoencoder:
    return variational_autoencoder(
        d_model, prior, noise=settings.noise, link=nn.ReLU(), normalizer=normalizer
    )


def isotropic(settings: Settings, d_model: int, normalizer: nn.Module) -> Autoencoder:
    """Rectified Gaussian codes; one fixed scale for all latents."""
    prior = IsotropicPrior(settings.latents, loc=settings.loc)
    return _variational(prior, settings, d_model, normalizer)


def ard(settings: Settings, d_model: int, normalizer: nn.Module) -> Autoencoder:
    """The same with a learned scale per latent."""
    prior = ARDPrior(settings.latents, loc=settings.loc)
    return _variational(prior, settings, d_model, normalizer)


ARMS = (
    Arm(ALIGNED, aligned),
    Arm("encoder = atoms, + AuxK", _auxk(aligned), ALIGNED),
    Arm(RANDOM, unaligned, ALIGNED),
    Arm("random encoder + AuxK", _auxk(unaligned), RANDOM),
    Arm("random encoder + resampling, norm 0.2", unaligned, RANDOM, 0.2),
    Arm("random encoder + resampling, norm 1", unaligned, RANDOM, 1.0),
    Arm(ISOTROPIC, isotropic),
    Arm("V-SAE, ARD", ard, ISOTROPIC),
)
