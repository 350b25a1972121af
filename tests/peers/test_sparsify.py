"""sparsify's SparseCoder with our weights: the same codes, reconstruction, share of variance."""

import contextlib
import io

import pytest
import torch
from weights import TOP, D, K, Weights, codes, constant, gradients, parameters, same, squared_errors

from vsae import ClosedFormELBO, multi_topk_autoencoder, topk_autoencoder, with_auxk

with contextlib.redirect_stdout(io.StringIO()):  # it says which decoder it has
    sparsify = pytest.importorskip("sparsify")


def theirs(w, *, multi_topk=False):
    config = sparsify.SparseCoderConfig(num_latents=K, k=TOP, multi_topk=multi_topk)
    coder = sparsify.SparseCoder(D, config, dtype=torch.float64)
    state = {"encoder.weight": w.E, "encoder.bias": w.b, "W_dec": w.W, "b_dec": w.c}
    coder.load_state_dict(state)
    return coder


def total_variance(x):
    return (x - x.mean(0)).square().sum()


def test_topk():
    """Every row has k positive scores here: otherwise theirs sends a gradient through zeros."""
    w = Weights()
    w.b += 3.0
    pair, coder = w.into(topk_autoencoder(D, K, k=TOP)), theirs(w)
    out = coder(w.x)
    reference = torch.zeros(len(w.x), K).scatter(1, out.latent_indices, out.latent_acts)
    same(codes(pair, w.x), reference)
    assert (reference > 0).sum(-1).eq(TOP).all()
    same(pair.decode(codes(pair, w.x)), out.sae_out)
    share = len(w.x) / total_variance(w.x)
    same(squared_errors(pair, w.x)["x"] * share, out.fvu)
    ours = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x) * share
    leaves = [coder.encoder.weight, coder.W_dec, coder.encoder.bias, coder.b_dec]
    for mine, other in zip(
        gradients(ours, parameters(pair)), gradients(out.fvu, leaves), strict=True
    ):
        same(mine, other)
        assert other.abs().sum() > 0


def test_auxk_in_value_and_at_the_atoms():
    """Theirs scales by the share of dead latents and sends nothing to the encoder."""
    w = Weights()
    dead = torch.arange(K) >= K - 8
    w.b[:-8] += 30.0
    pair = w.into(with_auxk(topk_autoencoder(D, K, k=TOP), after=10, coefficient=1.0))
    pair.model.dead.silent_for[dead] = 10
    coder = theirs(w)
    out = coder(w.x, dead_mask=dead)
    share = len(w.x) / total_variance(w.x)  # min(n_dead / k_aux, 1) is 1: 8 dead, k_aux = 3
    terms = ClosedFormELBO().terms(pair.model, pair.guide, w.x)
    residual = terms["residual"] / len(w.x) * share
    same(residual - constant(0.5) * share, out.auxk_loss)
    ours = gradients(residual, [pair.model.decoder.W_dec])[0]
    same(ours, gradients(out.auxk_loss, [coder.W_dec])[0])
    assert ours.abs().sum() > 0


def test_multi_topk_in_value_and_at_the_decoder():
    """Theirs sends nothing of the longer code to the encoder."""
    w = Weights()
    pair, coder = w.into(multi_topk_autoencoder(D, K, k=TOP)), theirs(w, multi_topk=True)
    out, share = coder(w.x), len(w.x) / total_variance(w.x)
    ours = squared_errors(pair, w.x)
    same(ours["x"] * share, out.fvu)
    terms = ClosedFormELBO().terms(pair.model, pair.guide, w.x)
    longer = terms["x_multi"] / len(w.x) - constant(4.0)  # weight 1/8 of σ² = ½
    same(longer * 8 * share, out.multi_topk_fvu)
    atoms = [pair.model.decoder.W_dec]
    mine = gradients(terms["x_multi"] / len(w.x) * 8 * share, atoms)
    same(mine[0], gradients(out.multi_topk_fvu, [coder.W_dec])[0])
