"""Which layers a latent reads and writes: kept by every optimiser, from a start that sees."""

import copy

import pyro
import pytest
import torch
from program_checks import assert_saved_is_loaded
from pyro.infer import SVI, Trace_ELBO

from priors import IsotropicPrior, LaplacePrior
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    Crosscoder,
    GaussianPosterior,
    JoinedEncoder,
    LayeredAutoencoder,
    LayeredDecoder,
    LayeredEncoder,
    LinearDecoder,
    LinearEncoder,
    ReLUPosterior,
    SparseAutoencoder,
    SupportAutoencoder,
    TopKPosterior,
    causal_blocks,
    fit,
)
from vsae.errors import ConfigError

LAYERS, K = (4, 3, 4, 2), 9
COUNT = len(LAYERS)
TARGETS = tuple(range(1, COUNT))


def causal():
    """The pair of dense codes."""
    reads, writes = causal_blocks(K, COUNT)
    decoder = LayeredDecoder(K, LAYERS[1:], writes=writes[:, 1:])
    encoder = LayeredEncoder(decoder, LAYERS, targets=TARGETS, reads=reads)
    flat = SparseAutoencoder(decoder, LaplacePrior(K), noise=0.5)
    guide = AmortizedGuide(ReLUPosterior(encoder))
    return LayeredAutoencoder(Crosscoder(flat, LAYERS, targets=TARGETS), guide)


def causal_topk(k=3):
    """The pair of codes in slots."""
    dense = causal()
    model = SupportAutoencoder(dense.model.decoder, LaplacePrior(K), width=k, noise=0.5)
    guide = AmortizedGuide(TopKPosterior(dense.guide.posterior.encoder, k=k))
    return LayeredAutoencoder(Crosscoder(model, LAYERS, targets=TARGETS), guide)


def blocks(matrix, layers):
    """The norm of every latent's part in every layer, by definition."""
    return torch.stack([part.norm(dim=-1) for part in matrix.detach().split(layers, -1)], -1)


@pytest.mark.parametrize("made", [causal, causal_topk])
def test_svi_keeps_the_masks(made):
    """Pyro's own loop projects no gradient: what it moves is put back before it is used."""
    pair, x = made(), torch.randn(50, sum(LAYERS))
    reads, writes = causal_blocks(K, COUNT)
    svi = SVI(pair.pyro_model, pair.pyro_guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(20):
        svi.step(x)
    pair.project()
    pyro.clear_param_store()
    assert torch.equal(blocks(pair.guide.posterior.encoder.W_enc, LAYERS) > 0, reads)
    assert torch.equal(blocks(pair.W_dec, LAYERS[1:]) > 0, writes[:, 1:])


@pytest.mark.parametrize("replicas", [0, 2])
def test_a_part_where_there_is_none_is_off_the_manifold(replicas):
    """Even an atom whose size is 1 all the same."""
    pair = stack([causal() for _ in range(replicas)]) if replicas else causal()
    decoder, encoder = pair.model.decoder, pair.guide.posterior.encoder
    assert not decoder.has_left()
    assert not encoder.has_left()
    before = copy.deepcopy(pair.state_dict())
    with torch.no_grad():
        decoder.W_dec[..., K - 1, 0] = 1e-17  # writes to the last layer alone
        encoder.W_enc[..., 0, -1] = 1e-17  # reads the first layer alone
    assert decoder.has_left()
    assert encoder.has_left()
    pair.project()
    for name, value in pair.state_dict().items():
        torch.testing.assert_close(value, before[name])
    assert not decoder.has_left()
    assert not encoder.has_left()


def test_an_encoder_starts_by_reading_all_it_may():
    reads, _ = causal_blocks(K, COUNT)
    assert torch.equal(blocks(causal().guide.posterior.encoder.W_enc, LAYERS) > 0, reads)


def test_latents_that_read_one_target_and_write_another_start_somewhere():
    """Atom and mask have no layer in common: the row was 0 / 0."""
    reads = torch.tensor([[True, False]] * K)
    decoder = LayeredDecoder(K, (3, 2), writes=~reads)
    encoder = LayeredEncoder(decoder, (3, 2), reads=reads)
    assert encoder.W_enc.isfinite().all()
    assert torch.equal(blocks(encoder.W_enc, (3, 2)) > 0, reads)


def test_where_all_that_is_read_has_an_atom_one_latent_is_restored_at_once():
    reads = torch.tensor([[True, False, True], [True, True, False], [False, True, True]])
    decoder = LayeredDecoder(3, (3, 2, 4), writes=reads)
    encoder = LayeredEncoder(decoder, (3, 2, 4), reads=reads)
    own = encoder(decoder(3.0 * torch.eye(3))).diagonal()
    torch.testing.assert_close(own, torch.full((3,), 3.0))
    of_one = LinearDecoder(K, 3)  # a single target
    encoder = LayeredEncoder(of_one, (2, 3), targets=(1,))
    torch.testing.assert_close(
        encoder.W_enc[:, 2:] / encoder.W_enc.square().sum(-1, keepdim=True), of_one.W_dec
    )


def causal_gaussian():
    """The variational pair: means and scales from an encoder each, under the same mask."""
    reads, writes = causal_blocks(K, COUNT)
    decoder = LayeredDecoder(K, LAYERS[1:], writes=writes[:, 1:])
    both = [LayeredEncoder(decoder, LAYERS, targets=TARGETS, reads=reads) for _ in range(2)]
    flat = SparseAutoencoder(decoder, IsotropicPrior(K), noise=0.5)
    guide = AmortizedGuide(GaussianPosterior(JoinedEncoder(both)))
    return LayeredAutoencoder(Crosscoder(flat, LAYERS, targets=TARGETS), guide)


def test_learned_scales_of_a_causal_crosscoder_never_look_ahead(tmp_path):
    pair, x = causal_gaussian(), torch.randn(60, sum(LAYERS))
    start = pair.elbo(x)
    fit(pair, x, steps=40, batch_size=30, lr=0.02).run(progress=False)
    assert pair.elbo(x) > start
    reads, _ = causal_blocks(K, COUNT)
    seen = x[:5].clone().requires_grad_()
    q = pair.posterior(seen)["z"]
    for numbers in (q.mean, q.stddev):
        for latent in range(K):
            (slope,) = torch.autograd.grad(numbers[:, latent].sum(), seen, retain_graph=True)
            assert torch.equal((blocks(slope, LAYERS) > 0).all(0), reads[latent])
            assert torch.equal((blocks(slope, LAYERS) > 0).any(0), reads[latent])
    assert_saved_is_loaded(pair, x, tmp_path / "sae")


def test_joined_encoders_are_one_after_another():
    x, parts = torch.randn(7, 3), [LinearEncoder(3, 4), LinearEncoder(3, 2)]
    both = stack([JoinedEncoder(parts), JoinedEncoder([*parts[:1], LinearEncoder(3, 2)])])
    torch.testing.assert_close(both(x)[0], torch.cat([part(x) for part in parts], -1))
    for wrong in ([], [LinearEncoder(3, 4), LinearEncoder(2, 4)]):
        with pytest.raises(ConfigError) as caught:
            JoinedEncoder(wrong)
        assert caught.value.code == "encoder.joined"
