"""Decoupled crosscoders against numpy: what each layer gets of each latent."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vsae import DecoupledDecoder, DecoupledEncoder, decoupled_crosscoder, fit, load, save
from vsae.errors import VsaeError

K, N, D = 6, 3, 4


def scattered(seed=0):
    torch.manual_seed(seed)
    pair = decoupled_crosscoder((D,) * N, K, k=4, width=K * N)
    with torch.no_grad():
        encoder = pair.guide.posterior.encoder
        encoder.log_sizes.normal_()
        encoder.W_enc.normal_()
        encoder.b_enc.normal_()
        pair.model.decoder.b_dec.normal_()
    return pair


def by_hand(pair, x, threshold):
    """The package's equations: f, its share of every layer, one cut for all, a layer at a time."""
    encoder, decoder = pair.guide.posterior.encoder, pair.model.decoder
    w_enc, b_enc = encoder.W_enc.detach().numpy(), encoder.b_enc.detach().numpy()
    sizes = np.exp(encoder.log_sizes.detach().numpy()).reshape(K, N)
    atoms = decoder.atoms.detach().numpy().reshape(K, N, D)
    f = np.maximum(x.numpy().reshape(len(x), -1) @ w_enc.T + b_enc, 0)
    scaled = f[:, :, None] * sizes
    scaled = np.where(scaled >= threshold(scaled), scaled, 0.0)
    mean = np.einsum("bkl,kld->bld", scaled, atoms)
    return scaled, mean + decoder.b_dec.detach().numpy().reshape(N, D)


@given(st.integers(0, 2**31))
def test_training_keeps_the_greatest_shares_of_a_batch(seed):
    pair, x = scattered(seed), torch.randn(9, N, D)
    sites = pair.guide.train().posterior(pair.rows(x))
    code = pair.model.code({name: q.mean for name, q in sites.items()})
    cut = 9 * 4
    scaled, mean = by_hand(pair, x, lambda s: max(np.sort(s.ravel())[-cut], 1e-300))
    np.testing.assert_allclose(code.dense().detach().numpy(), scaled.reshape(9, -1), atol=1e-12)
    restored = pair.decode(code).detach().numpy()
    np.testing.assert_allclose(restored, mean, rtol=1e-9, atol=1e-10)
    dense = pair.decode(code.dense())
    torch.testing.assert_close(dense, pair.decode(code))
    flat = code.dense() @ pair.W_dec + pair.b_dec
    torch.testing.assert_close(flat, dense.flatten(1))


def test_selection_and_its_gradients_are_those_of_the_dense_scores():
    pair = scattered()
    encoder, x = pair.guide.posterior.encoder, torch.randn(7, N * D, requires_grad=True)
    values, support = encoder.select(x, 5)
    oracle = encoder(x).gather(1, support)
    torch.testing.assert_close(values, oracle)
    kept = torch.sort(encoder(x).topk(5).values).values
    torch.testing.assert_close(torch.sort(values).values, kept)
    weight = torch.randn(7, 5)
    leaves = [x, *encoder.parameters()][:4]
    mine = torch.autograd.grad((weight * values).sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad((weight * oracle).sum(), leaves)
    for ours, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_latent_lives_in_one_layer_alone_if_only_its_size_there_is_large():
    pair = scattered()
    encoder = pair.guide.posterior.encoder
    with torch.no_grad():
        encoder.log_sizes.fill_(-30.0)
        encoder.log_sizes[torch.arange(K) * N] = 0.0  # every latent, layer 0
    code = pair.encode(torch.randn(50, N, D)).unflatten(-1, (K, N))
    assert code[..., 0].any()
    assert code[..., 1:].max() < 1e-9


def test_it_trains_is_saved_and_refuses_unequal_layers(tmp_path):
    torch.manual_seed(1)
    pair, x = decoupled_crosscoder((D,) * N, 16, k=4), torch.randn(200, N, D)
    start = pair.elbo(x)
    fit(pair, x, steps=100, batch_size=50, lr=0.02).run(progress=False)
    assert pair.elbo(x) > start
    norms = pair.model.decoder.atoms.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(16 * N))
    torch.testing.assert_close(load(save(pair, tmp_path / "sae"))(x), pair(x))
    with pytest.raises(VsaeError) as caught:
        DecoupledDecoder(8, (3, 4, 3))
    assert (caught.value.code, caught.value.context["others"]) == ("layers.unequal", [1])


def test_it_starts_by_restoring_one_latent():
    decoder = DecoupledDecoder(K, (D,) * N)
    encoder = DecoupledEncoder(decoder)
    whole = decoder(torch.eye(K).repeat_interleave(N, 1)) - decoder.b_dec
    own = encoder(whole).unflatten(-1, (K, N)).diagonal(dim1=0, dim2=1)
    torch.testing.assert_close(own, torch.ones(N, K))


@pytest.mark.float32
def test_float32():
    pair = decoupled_crosscoder((D,) * N, 16, k=4).float()
    x = torch.randn(100, N, D, dtype=torch.float32)
    start = pair.elbo(x)
    fit(pair, x, steps=60, batch_size=50, lr=0.02).run(progress=False)
    assert pair.elbo(x) > start
