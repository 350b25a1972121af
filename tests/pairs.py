"""Small (model, guide) pairs, one per prior and posterior: a new one is tested by a line here."""

import torch
from torch import nn

from priors import (
    BlockDiagonalPrior,
    CholeskyPrior,
    EquicorrelatedPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
    LaplacePrior,
    ProductPrior,
)
from priors.ard import ARDPrior
from vsae import (
    AmortizedGuide,
    Autoencoder,
    FreeDecoder,
    FullGaussianPosterior,
    GaussianPosterior,
    LearnedNoise,
    LinearDecoder,
    LinearEncoder,
    MLPEncoder,
    PointPosterior,
    ReLUPosterior,
    SparseAutoencoder,
    TiedEncoder,
)

K, D = 6, 4


def scattered(prior, seed=0):
    """``prior`` with its parameters moved away from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return prior


def ring(signed=False):
    weights = [1.0, 2.0, -0.5 if signed else 0.5, 1.0, 1.5, 0.7]
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 5, 5]])
    return Graph(edges, torch.tensor(weights), K, signed=signed)


PRIORS = {
    "isotropic": lambda: scattered(IsotropicPrior(K, scale=0.7, learnable=True)),
    "ard": lambda: scattered(ARDPrior(K, scale=0.7)),
    "shifted": lambda: IsotropicPrior(K, loc=nn.Parameter(torch.linspace(-1.0, 1.0, K))),
    "equicorrelated": lambda: EquicorrelatedPrior(K, correlation=0.4),
    "cholesky": lambda: scattered(CholeskyPrior(K)),
    "blocks": lambda: scattered(BlockDiagonalPrior((3, 1, 2))),
    "graph": lambda: GraphLaplacianPrior(ring(), ridge=0.5, strength=2.0, learnable=True),
    "signed graph": lambda: GraphLaplacianPrior(ring(signed=True), ridge=0.5),
    "product": lambda: ProductPrior(GraphLaplacianPrior(ring()), LaplacePrior(K, scale=0.5)),
    "laplace": lambda: scattered(LaplacePrior(K, scale=0.5, learnable=True)),
}
POSTERIORS = {
    "gaussian": lambda: GaussianPosterior(LinearEncoder(D, 2 * K)),
    "gaussian mlp": lambda: GaussianPosterior(MLPEncoder(D, 9, 2 * K)),
    "full": lambda: FullGaussianPosterior(LinearEncoder(D, 2 * K + K * (K - 1) // 2), K),
    "relu": lambda: ReLUPosterior(MLPEncoder(D, 9, K)),
    "point": lambda: PointPosterior(LinearEncoder(D, K)),
}


def pair(prior="cholesky", posterior="gaussian", *, link=None, noise=0.5, seed=0):
    """An autoencoder of ``K`` latents on activations of width ``D``."""
    torch.manual_seed(seed)
    model = SparseAutoencoder(LinearDecoder(K, D), PRIORS[prior](), noise=noise, link=link)
    nn.init.normal_(model.decoder.b_dec)
    return Autoencoder(model, AmortizedGuide(POSTERIORS[posterior]()))


def tied():
    """Encoder and decoder of one matrix, with atoms of any norm and learned noise."""
    decoder = FreeDecoder(K, D)
    model = SparseAutoencoder(decoder, LaplacePrior(K), noise=LearnedNoise(0.5))
    return Autoencoder(model, AmortizedGuide(ReLUPosterior(TiedEncoder(decoder))))


def kl_exists(prior, posterior):
    """Laplace has a closed-form KL from diagonal Gaussians and points only."""
    return not (prior == "laplace" and posterior == "full")


PAIRS = [
    (prior, posterior)
    for prior in PRIORS
    for posterior in POSTERIORS
    if kl_exists(prior, posterior)
]
