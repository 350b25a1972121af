"""The published crosscoder losses on fixed weights; the numbers are from outside."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vsae import (
    ClosedFormELBO,
    ConcatenatedNorm,
    MixedNorm,
    SumOfNorms,
    from_released_crosscoder,
    metrics,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "crosscoder_golden.json").read_text())
B, N, D, H = 3, 2, 4, 5
NORMS = {"CROSSCODER": SumOfNorms(), "SAE": ConcatenatedNorm(), "MIXED": MixedNorm(1.0, 0.1)}


def formula(phase, *shape, scale=1.0):
    i = np.arange(math.prod(shape))
    return torch.from_numpy(scale * np.sin(phase + 0.7 * i + 0.013 * i**2)).reshape(shape)


X = formula(0.3, B, N, D)
W_ENC = formula(1.1, N, D, H)
B_ENC = formula(2.2, H, scale=0.1)
W_DEC = formula(3.3, H, N, D, scale=0.4)
B_DEC = formula(4.4, N, D, scale=0.05)


def golden_pair(norm, l1):
    """The published weights, atoms divided by their size and codes multiplied by it."""
    released = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    pair = from_released_crosscoder(released, l1=l1, norm=norm)
    assert not pair.model.decoder.has_left()
    return pair, norm.size(W_DEC.norm(dim=-1))


@pytest.mark.parametrize("name", NORMS)
def test_the_penalty_of_every_weighting_is_the_prior_of_atoms_of_size_one(name):
    pair, _ = golden_pair(NORMS[name], l1=2.0)
    code = pair.encode(X)
    assert code.sum(-1).mean().item() == pytest.approx(GOLDEN["B"][f"l1_{name}"], rel=1e-12)
    terms = ClosedFormELBO().terms(pair.model, pair.guide, pair.rows(X))
    squared = terms["x"] / B - N * D * math.log(math.pi) / 2  # at σ² = ½
    assert squared.item() == pytest.approx(GOLDEN["A"]["l2"], rel=1e-12)
    penalty = terms["z"] / B + H * math.log(2.0 / 2)  # the Laplace normaliser, λ / 2 per latent
    assert penalty.item() == pytest.approx(2 * GOLDEN["B"][f"l1_{name}"], rel=1e-12)


def test_the_whole_loss_of_a():
    pair, _ = golden_pair(SumOfNorms(), l1=2.0)
    loss = ClosedFormELBO()(pair.model, pair.guide)(pair.rows(X)) / B
    constants = N * D * math.log(math.pi) / 2 - H * math.log(2.0 / 2)
    assert (loss - constants).item() == pytest.approx(GOLDEN["A"]["loss_l1coef2"], rel=1e-12)


@pytest.mark.parametrize("name", NORMS)
def test_codes_frequencies_and_reconstruction_do_not_depend_on_the_gauge(name):
    pair, size = golden_pair(NORMS[name], l1=1.0)
    code = pair.encode(X) / size
    torch.testing.assert_close(code, torch.tensor(GOLDEN["f"], dtype=torch.float64))
    assert code.sum(-1).mean().item() == pytest.approx(GOLDEN["B"]["l1_NONE"], rel=1e-12)
    assert metrics.l0(code).item() == GOLDEN["A"]["l0"]
    residual = (pair(X) - X).detach()
    assert residual.square().sum((1, 2)).mean().item() == pytest.approx(
        GOLDEN["A"]["l2"], rel=1e-12
    )
    assert residual.square().sum(-1).mean().item() == pytest.approx(GOLDEN["B"]["recon_mse"])
    assert residual.norm(dim=-1).mean().item() == pytest.approx(GOLDEN["B"]["recon_l2norm"])


def test_explained_variance_per_token_and_relative_norms():
    pair, _ = golden_pair(SumOfNorms(), l1=1.0)
    squared, centred = (pair(X) - X).square(), (X - X.mean(0)).square()
    per_token = 1 - squared.sum((1, 2)) / centred.sum((1, 2))
    assert per_token.mean().item() == pytest.approx(GOLDEN["ev_A"], rel=1e-12)
    norms = pair.model.decoder.layer_norms()
    shares = norms[:, 1] / norms.sum(-1)
    torch.testing.assert_close(shares.detach(), torch.tensor(GOLDEN["rel_dec_norm"]).double())
