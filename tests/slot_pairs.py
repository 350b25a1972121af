"""Small pairs whose codes are written in slots: a new one is tested by a line here."""

import torch
from torch import nn

from priors import (
    BernoulliPrior,
    BlockDiagonalPrior,
    CholeskyPrior,
    EquicorrelatedPrior,
    Graph,
    GraphLaplacianPrior,
    IsotropicPrior,
    LaplacePrior,
)
from vsae import (
    AmortizedGuide,
    Autoencoder,
    BatchTopKPosterior,
    DictionaryEncoder,
    JumpReLUPosterior,
    LinearDecoder,
    SupportAutoencoder,
    TopKPosterior,
)

K, D, WIDTH, ROWS = 24, 7, 5, 40


def moved(module, std=0.3):
    """``module`` with its parameters away from where they start, so that no gradient is zero."""
    for parameter in module.parameters():
        with torch.no_grad():
            parameter += std * torch.randn_like(parameter)
    return module


def wheel(signed=False):
    """A ring with a hub in the middle: degrees from 3 to K - 1."""
    ring = torch.stack([torch.arange(1, K), torch.arange(1, K) % (K - 1) + 1])
    spokes = torch.stack([torch.zeros(K - 1, dtype=torch.int64), torch.arange(1, K)])
    edges = torch.cat([ring, spokes], 1)
    weights = torch.rand(edges.shape[1]) + 0.1
    if signed:
        weights[::3] *= -1
    return (
        Graph.from_edges(edges, weights, num_nodes=K)
        if not signed
        else Graph(edges.sort(0).values, weights, K, signed=True)
    )


PRIORS = {
    "laplace": lambda: moved(LaplacePrior(K, scale=0.7, learnable=True)),
    "isotropic": lambda: moved(IsotropicPrior(K, scale=0.7, learnable=True)),
    "shifted": lambda: IsotropicPrior(K, loc=nn.Parameter(torch.randn(K))),
    "equicorrelated": lambda: EquicorrelatedPrior(K, correlation=0.3),
    "cholesky": lambda: moved(CholeskyPrior(K)),
    "shifted cholesky": lambda: moved(CholeskyPrior(K, loc=nn.Parameter(torch.randn(K)))),
    "blocks": lambda: moved(BlockDiagonalPrior((7, 1, 16))),
    "graph": lambda: GraphLaplacianPrior(wheel(), ridge=0.3, strength=1.7, learnable=True),
    "signed graph": lambda: GraphLaplacianPrior(wheel(signed=True), ridge=0.3),
    "normalised graph": lambda: GraphLaplacianPrior(wheel().normalized(), ridge=0.3),
    "shifted graph": lambda: GraphLaplacianPrior(
        wheel(), ridge=0.3, learnable=True, loc=nn.Parameter(torch.randn(K))
    ),
}


def dictionary():
    """A decoder and its encoder, away from where they start."""
    decoder = LinearDecoder(K, D)
    nn.init.normal_(decoder.b_dec)
    encoder = DictionaryEncoder(decoder)
    nn.init.normal_(encoder.b_enc, std=0.3)
    with torch.no_grad():
        encoder.W_enc += 0.2 * torch.randn_like(encoder.W_enc)
    return decoder, encoder


def slot_pair(posterior, *, width, prior="laplace", activity=None):
    """``posterior(encoder)`` under a :class:`SupportAutoencoder`, in training mode."""
    decoder, encoder = dictionary()
    model = SupportAutoencoder(decoder, PRIORS[prior](), width=width, noise=0.5, activity=activity)
    return Autoencoder(model, AmortizedGuide(posterior(encoder))).train()


def topk(prior="laplace"):
    return slot_pair(lambda e: TopKPosterior(e, k=WIDTH), width=WIDTH, prior=prior)


def batch_topk(prior="laplace"):
    width = 3 * WIDTH
    return slot_pair(
        lambda e: BatchTopKPosterior(e, k=WIDTH, width=width), width=width, prior=prior
    )


def jumprelu(prior="laplace"):
    width = 3 * WIDTH
    return slot_pair(
        lambda e: moved(JumpReLUPosterior(e, width=width, threshold=1.0, bandwidth=0.9), 0.1),
        width=width,
        prior=prior,
        activity=moved(BernoulliPrior(K, rate=0.05, learnable=True)),
    )


SLOT_PAIRS = {"topk": topk, "batch topk": batch_topk, "jumprelu": jumprelu}
