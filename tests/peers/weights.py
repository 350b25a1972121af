"""The same weights for our pairs and for those of others, and our loss in their words."""

import math

import torch

from vsae import ClosedFormELBO

D, K, ROWS, TOP = 6, 32, 48, 4


class Weights:
    """Encoder rows ``E`` (K, d), atoms ``W`` (K, d) of unit norm, biases ``b`` (K,), ``c`` (d,)."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.E = torch.randn(K, D, generator=generator)
        self.W = torch.nn.functional.normalize(torch.randn(K, D, generator=generator), dim=-1)
        self.b = 0.3 * torch.randn(K, generator=generator)
        self.c = 0.3 * torch.randn(D, generator=generator)
        self.x = torch.randn(ROWS, D, generator=generator)

    def of_saelens(self):
        return {"W_enc": self.E.mT, "b_enc": self.b, "W_dec": self.W, "b_dec": self.c}

    def of_linear_layers(self, bias="b_dec"):
        """dictionary_learning's names."""
        return {
            "encoder.weight": self.E,
            "encoder.bias": self.b,
            "decoder.weight": self.W.mT,
            bias: self.c,
        }

    @torch.no_grad()
    def into(self, pair):
        """``pair``, with these weights, in training mode."""
        encoder, decoder = pair.guide.posterior.encoder, pair.model.decoder
        encoder.W_enc.copy_(self.E if encoder.W_enc.shape == self.E.shape else self.E.mT)
        encoder.b_enc.copy_(self.b)
        decoder.W_dec.copy_(self.W)
        decoder.b_dec.copy_(self.c)
        return pair.train()


def constant(variance):
    """Of ``-log N(x; ·, σ² I)`` in one row."""
    return 0.5 * D * math.log(2 * math.pi * variance)


def squared_errors(pair, x):
    """Mean over rows of each term of our ELBO without its constant; latents as they are."""
    terms = ClosedFormELBO().terms(pair.model, pair.guide, x)
    return {
        name: term / len(x) - (constant(0.5) if name.startswith("x") else 0.0)
        for name, term in terms.items()
        if name != "support"
    }


def gradients(loss, parameters):
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def parameters(pair):
    """E, W, b, c."""
    encoder, decoder = pair.guide.posterior.encoder, pair.model.decoder
    return [encoder.W_enc, decoder.W_dec, encoder.b_enc, decoder.b_dec]


def same(ours, theirs, tolerance=1e-10):
    torch.testing.assert_close(
        ours, theirs.to(ours.dtype), rtol=tolerance, atol=tolerance, check_dtype=False
    )


def codes(pair, x):
    """Dense codes as they are in training: BatchTopK's are of the batch."""
    sites = {name: q.mean for name, q in pair.guide.posterior(x).items()}
    code = pair.model.code(sites)
    return code if isinstance(code, torch.Tensor) else code.dense()
