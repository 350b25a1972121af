"""A model and a guide of three latents, for the examples in this library's docstrings."""

import torch
from torch import Tensor, nn

from priors.isotropic import IsotropicPrior
from vsae.decoders import LinearDecoder
from vsae.encoders import LinearEncoder
from vsae.guides import AmortizedGuide
from vsae.models.sae import SparseAutoencoder
from vsae.posteriors import GaussianPosterior


def tiny() -> tuple[nn.Module, nn.Module, Tensor]:
    """``(model, guide, x)``: 3 latents, activations (5, 2)."""
    model = SparseAutoencoder(LinearDecoder(3, 2), IsotropicPrior(3), noise=0.5)
    guide = AmortizedGuide(GaussianPosterior(LinearEncoder(2, 6)))
    return model, guide, torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
