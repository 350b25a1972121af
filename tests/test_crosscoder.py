"""Crosscoders: a flat model of several layers, its gauge, its masks, its units, its door."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pairs import POSTERIORS, PRIORS, kl_exists
from program_checks import (
    assert_predictive_draws,
    assert_pyros_elbos_agree,
    assert_saved_is_loaded,
    assert_svi_trains,
)
from torch import nn

from priors import CholeskyPrior, Graph, GraphLaplacianPrior, IsotropicPrior, LaplacePrior
from priors.replicas import stack
from vsae import (
    AffineNormalizer,
    AmortizedGuide,
    ClosedFormELBO,
    ConcatenatedNorm,
    Crosscoder,
    GaussianPosterior,
    LayeredAutoencoder,
    LayeredDecoder,
    LayeredEncoder,
    LayerNormalizer,
    LinearDecoder,
    LinearEncoder,
    MixedNorm,
    ReLUPosterior,
    SkipConnection,
    SparseAutoencoder,
    SumOfNorms,
    SupportAutoencoder,
    TopKPosterior,
    batch_topk_crosscoder,
    causal_blocks,
    fit,
    jumprelu_crosscoder,
    l1_crosscoder,
    point_crosscoder,
    topk_crosscoder,
    variational_crosscoder,
    with_auxk,
)
from vsae.errors import VsaeError

NORMS = (SumOfNorms(), ConcatenatedNorm(), MixedNorm(0.7, 0.4))
LAYERS, K = (3, 2, 4), 6
PRESETS = {
    "l1": lambda layers, n: l1_crosscoder(layers, n, l1=0.1),
    "graph": lambda layers, n: point_crosscoder(layers, GraphLaplacianPrior(Graph.ring(n))),
    "variational": lambda layers, n: variational_crosscoder(layers, IsotropicPrior(n), noise=0.5),
    "topk": lambda layers, n: topk_crosscoder(layers, n, k=3),
    "batch topk": lambda layers, n: batch_topk_crosscoder(layers, n, k=3),
    "jumprelu": lambda layers, n: jumprelu_crosscoder(layers, n, l0=0.1),
}


def sizes(norm, atoms, layers=LAYERS):
    """By definition, for the oracle: torch alone."""
    parts = [part.norm(dim=-1) for part in atoms.split(layers, -1)]
    summed, whole = sum(parts), atoms.norm(dim=-1)
    if isinstance(norm, SumOfNorms):
        return summed
    if isinstance(norm, ConcatenatedNorm):
        return whole
    return norm.concatenated * whole + norm.summed * summed


@pytest.mark.parametrize("norm", NORMS, ids=lambda n: type(n).__name__)
@given(seed=st.integers(0, 2**31))
def test_the_gradient_that_is_left_does_not_change_an_atoms_size(norm, seed):
    torch.manual_seed(seed)
    decoder = LayeredDecoder(K, LAYERS, norm=norm)
    torch.testing.assert_close(sizes(norm, decoder.W_dec), torch.ones(K))
    decoder(torch.randn(7, K)).square().sum().backward()
    raw = decoder.W_dec.grad.clone()
    decoder.project_gradient()
    atoms = decoder.W_dec.detach().requires_grad_()
    (normal,) = torch.autograd.grad(sizes(norm, atoms).sum(), atoms)  # autograd is the oracle
    slope = (decoder.W_dec.grad * normal).sum(-1)
    torch.testing.assert_close(slope, torch.zeros(K), rtol=0, atol=1e-12)
    removed = raw - decoder.W_dec.grad  # and nothing but that direction was taken away
    along = (removed * normal).sum(-1) / normal.square().sum(-1)
    torch.testing.assert_close(removed, along[:, None] * normal)


@pytest.mark.parametrize("norm", NORMS, ids=lambda n: type(n).__name__)
def test_a_step_leaves_atoms_of_size_one(norm):
    pair = l1_crosscoder(LAYERS, K, l1=0.1, norm=norm)
    fit(pair, torch.randn(40, 9), steps=5, batch_size=20, lr=0.1).run(progress=False)
    torch.testing.assert_close(sizes(norm, pair.W_dec), torch.ones(K))


def test_a_layer_without_an_atom_has_no_slope_and_no_nan():
    writes = torch.tensor([[True, False, True]] * K)
    decoder = LayeredDecoder(K, LAYERS, writes=writes)
    decoder(torch.randn(7, K)).square().sum().backward()
    decoder.project_gradient()
    assert decoder.W_dec.grad.isfinite().all()
    assert not decoder.W_dec.grad[:, 3:5].any()
    assert not decoder.W_dec[:, 3:5].any()


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("posterior", ["gaussian", "full", "relu", "point"])
def test_it_is_the_flat_model_of_the_concatenation(prior, posterior):
    """Every prior under every dense posterior: value and gradients, and Pyro's own ELBOs agree."""
    if not kl_exists(prior, posterior):
        pytest.skip("no closed form")
    decoder = LayeredDecoder(K, (2, 2))
    nn.init.normal_(decoder.b_dec)
    flat = SparseAutoencoder(decoder, PRIORS[prior](), noise=0.5)
    guide, x = AmortizedGuide(POSTERIORS[posterior]()), torch.randn(8, 2, 2)
    pair = LayeredAutoencoder(Crosscoder(flat, (2, 2)), guide)
    torch.manual_seed(0)
    ours = ClosedFormELBO()(pair.model, guide)(pair.rows(x))
    torch.manual_seed(0)
    torch.testing.assert_close(ours, ClosedFormELBO()(flat, guide)(x.flatten(1)))
    torch.testing.assert_close(pair(x).flatten(1), decoder(pair.encode(x)))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train_save_and_load(name, tmp_path):
    pair = PRESETS[name]((4, 4, 4), 16)
    x = torch.randn(64, 3, 4)
    before = [p.detach().clone() for p in pair.parameters()]
    start = pair.elbo(x)
    fit(pair, x, steps=60, batch_size=32, lr=0.01).run(progress=False)
    assert pair.elbo(x) > start
    assert all((a != b).any() for a, b in zip(before, pair.parameters(), strict=True))
    assert_saved_is_loaded(pair, x, tmp_path / "sae")


@pytest.mark.parametrize("name", ["l1", "topk", "graph"])
def test_presets_are_pyro_programs(name):
    pair = PRESETS[name]((4, 4), 16)
    with torch.no_grad():
        pair.guide.posterior.encoder.b_enc += 0.1
    assert_svi_trains(pair, torch.randn(20, 8))
    if name != "topk":
        assert_pyros_elbos_agree(pair, torch.randn(20, 8))
        assert_predictive_draws(pair, torch.randn(20, 8), {"z": (20, 16), "x": (20, 8)})


def test_encoder_starts_by_restoring_one_latent():
    decoder = LayeredDecoder(K, LAYERS)
    encoder = LayeredEncoder(decoder, LAYERS)
    own = encoder(decoder(3.0 * torch.eye(K))).diagonal()
    torch.testing.assert_close(own, torch.full((K,), 3.0))


def causal(latents=6, layers=(3, 2, 4), k=None):
    reads, writes = causal_blocks(latents, len(layers))
    targets = tuple(range(1, len(layers)))
    decoder = LayeredDecoder(latents, layers[1:], writes=writes[:, 1:])
    encoder = LayeredEncoder(decoder, layers, targets=targets, reads=reads)
    if k is None:
        model, posterior = (
            SparseAutoencoder(decoder, LaplacePrior(latents), noise=0.5),
            ReLUPosterior(encoder),
        )
    else:
        model = SupportAutoencoder(decoder, LaplacePrior(latents), width=k, noise=0.5)
        posterior = TopKPosterior(encoder, k=k)
    return LayeredAutoencoder(Crosscoder(model, layers, targets=targets), AmortizedGuide(posterior))


@pytest.mark.parametrize("k", [None, 3])
def test_causal_crosscoders_never_look_ahead(k):
    """After training, too: what a layer restores depends on no layer from it on."""
    pair, x = causal(k=k), torch.randn(64, 9)
    fit(pair, x, steps=20, batch_size=32, lr=0.05).run(progress=False)
    assert pair.model.decoder.W_dec.abs().sum() > 0
    encoder = pair.guide.posterior.encoder
    x = x[:5].clone().requires_grad_()
    scores = encoder(x)
    own = torch.arange(6) * 2 // 6
    starts = (0, 3, 5, 9)
    for latent in range(6):
        (seen,) = torch.autograd.grad(scores[:, latent].sum(), x, retain_graph=True)
        assert not seen[:, starts[own[latent] + 1] :].any()
        assert seen[:, : starts[own[latent] + 1]].all()
        written = pair.W_dec[latent].split((2, 4))
        assert [bool(part.any()) for part in written] == [
            layer + 1 > own[latent] for layer in (0, 1)
        ]


def test_causal_blocks_deal_latents_out_to_all_layers_but_the_last():
    reads, writes = causal_blocks(7, 4)
    assert (reads ^ writes).all()
    assert reads[:, 0].all()
    assert writes[:, 3].all()
    assert not writes[:, 0].any()
    counts = reads.sum(1).bincount()[1:]
    assert counts.sum() == 7
    assert counts.max() - counts.min() <= 1


def transport(skip):
    decoder = LayeredDecoderOfOne(4, 3)
    encoder = LinearEncoder(5, 4)
    model = SparseAutoencoder(decoder, LaplacePrior(4), noise=0.5)
    crossed = Crosscoder(
        model,
        (2, 3),
        targets=(1,),
        skip=SkipConnection((2, 3), inputs=(0,), targets=(1,)) if skip else None,
    )
    with torch.no_grad():
        encoder.W_enc[2:] = 0.0
    return LayeredAutoencoder(crossed, AmortizedGuide(ReLUPosterior(encoder)))


def LayeredDecoderOfOne(latents, d):
    return LinearDecoder(latents, d)


def test_transport_scores_the_target_given_the_other_layer():
    pair, x = transport(skip=True), torch.randn(8, 5)
    nn.init.normal_(pair.model.skip.W_skip)
    source, target = x.split((2, 3), -1)
    code = pair.encode(x)
    mean = code @ pair.W_dec + pair.b_dec + source @ pair.model.skip.W_skip
    oracle = torch.distributions.Normal(mean, 0.5).log_prob(target).sum()
    terms = ClosedFormELBO().terms(pair.model, pair.guide, x)
    torch.testing.assert_close(-terms["x"], oracle)
    torch.testing.assert_close(pair(x), mean)
    torch.testing.assert_close(pair.target(x), target)


def test_a_skip_connection_learns_what_is_linear():
    """With codes held at zero it is least squares; the oracle is numpy's."""
    pair = transport(skip=True)
    source = torch.randn(200, 2)
    target = source @ torch.randn(2, 3) + 0.1 * torch.randn(200, 3)
    with torch.no_grad():
        pair.guide.posterior.encoder.b_enc.fill_(-1e6)
    run = fit(pair, torch.cat([source, target], 1), steps=1500, batch_size=200, lr=0.02)
    run.run(progress=False)
    design = torch.cat([source, torch.ones(200, 1)], 1)
    oracle = torch.linalg.lstsq(design, target).solution
    torch.testing.assert_close(pair.model.skip.W_skip.detach(), oracle[:2], rtol=0, atol=1e-6)


@given(st.integers(0, 2**31), st.lists(st.integers(1, 4), min_size=2, max_size=4))
def test_units_of_each_layer(seed, layers):
    torch.manual_seed(seed)
    spread = torch.cat([torch.randn(50, d) * 10.0**i + i for i, d in enumerate(layers)], 1)
    units = LayerNormalizer.fit(spread, layers)
    for part in units(spread).split(tuple(layers), -1):
        torch.testing.assert_close(part.mean(0), torch.zeros(part.shape[1]), rtol=0, atol=1e-10)
        assert part.square().sum(-1).mean().item() == pytest.approx(part.shape[1])
    torch.testing.assert_close(units.inverse(units(spread)), spread)
    x = torch.randn(sum(layers))
    jacobian = torch.autograd.functional.jacobian(units, x)
    torch.testing.assert_close(units.log_jacobian(len(x)), jacobian.slogdet().logabsdet)


def test_elbos_of_layers_compare_in_raw_units():
    """ELBO per row of raw targets: normalised densities and the Jacobian of the targets alone."""
    x = torch.cat([torch.randn(50, 2) * 10, torch.randn(50, 3) * 3 + 1], 1)
    units = LayerNormalizer.fit(x, (2, 3))
    pair = LayeredAutoencoder(transport(False).model, transport(False).guide, units)
    terms = ClosedFormELBO().terms(pair.model, pair.guide, units(x))
    expected = -sum(terms.values()) / len(x) - 3 * units.scales[1].log()
    torch.testing.assert_close(pair.elbo(x), expected)
    whole = l1_crosscoder((2, 3), 4, l1=0.1, normalizer=units)
    terms = ClosedFormELBO().terms(whole.model, whole.guide, units(x))
    jacobian = -2 * units.scales[0].log() - 3 * units.scales[1].log()
    torch.testing.assert_close(whole.elbo(x), -sum(terms.values()) / len(x) + jacobian)


def test_units_are_undone_in_what_is_restored():
    x = torch.cat([torch.randn(50, 2) * 10, torch.randn(50, 2) + 5], 1)
    units = LayerNormalizer.fit(x, (2, 2))
    pair = l1_crosscoder((2, 2), 8, l1=0.1, normalizer=units)
    expected = units.inverse(pair.model.decoder(pair.encode(x)))
    torch.testing.assert_close(pair(x.unflatten(1, (2, 2))).flatten(1), expected)


def test_layers_come_in_three_forms():
    pair, parts = l1_crosscoder((3, 2), K, l1=0.1), (torch.randn(5, 3), torch.randn(5, 2))
    torch.testing.assert_close(pair(list(parts)), pair(torch.cat(parts, 1)))
    assert [part.shape[1] for part in pair.split(pair(list(parts)))] == [3, 2]
    even, x = l1_crosscoder((3, 3), K, l1=0.1), torch.randn(5, 2, 3)
    torch.testing.assert_close(even(x), even(x.flatten(1)))
    assert even(x).shape == even(x.flatten(1)).shape == (5, 2, 3)
    assert even(x[0]).shape == (2, 3)
    torch.testing.assert_close(torch.stack(even.split(even(x)), 1), even(x))
    assert even.rows(x).data_ptr() == x.data_ptr()


def code_of(call):
    with pytest.raises(VsaeError) as caught:
        call()
    return caught.value


def test_errors_at_the_door_name_the_layer():
    pair = l1_crosscoder((3, 2), K, l1=0.1)
    error = code_of(lambda: pair([torch.zeros(5, 3), torch.zeros(5, 4)]))
    assert (error.code, error.context["layers"]) == ("data.layers", [1])
    assert "layer 1" in str(error)
    even = l1_crosscoder((3, 3), K, l1=0.1)
    for wrong in (torch.zeros(5, 3, 3), torch.zeros(5, 2, 4), torch.zeros(5, 7), torch.zeros(3)):
        assert code_of(lambda wrong=wrong: even(wrong)).code == "data.layers"
    bad = torch.zeros(5, 2, 3)
    bad[3, 1, 2] = math.nan
    for call in (lambda: fit(even, bad, steps=1, batch_size=2), lambda: even.elbo(bad)):
        error = code_of(call)
        assert error.code == "data.nonfinite"
        assert (error.context["layer"], error.context["row"], error.context["column"]) == (1, 3, 2)
        assert "layer 1" in str(error)


def test_errors_of_settings():
    decoder = LayeredDecoder(K, (3, 2))
    flat = SparseAutoencoder(decoder, IsotropicPrior(K), noise=0.5)
    one = AffineNormalizer(torch.zeros(5), 1.0)
    found = [
        code_of(call).code
        for call in (
            lambda: LayeredDecoder(K, (3,)),
            lambda: LayeredDecoder(K, (3, 0)),
            lambda: LayeredDecoder(K, (3, 2), writes=torch.zeros(K, 2, dtype=torch.bool)),
            lambda: LayeredEncoder(decoder, (3, 2), reads=torch.ones(K, 3, dtype=torch.bool)),
            lambda: Crosscoder(flat, (3, 4)),
            lambda: Crosscoder(flat, (3, 2, 2), targets=(1, 0)),
            lambda: Crosscoder(flat, (3, 2), targets=(0, 2)),
            lambda: LayeredAutoencoder(transport(False).model, nn.Identity(), one),
            lambda: causal_blocks(1, 3),
            lambda: LayerNormalizer(torch.zeros(5), torch.tensor([1.0, 0.0]), (3, 2)),
            lambda: LayerNormalizer.fit(torch.zeros(5, 4), (3, 2)),
            lambda: MixedNorm(0.0, 1.0),
        )
    ]
    assert found == [
        "layers.widths",
        "layers.widths",
        "layers.blocks",
        "layers.blocks",
        "layers.decoder",
        "layers.chosen",
        "layers.chosen",
        "layers.units",
        "layers.causal",
        "normalizer.scale",
        "data.rank",
        "prior.bad_concatenated",
    ]


def test_auxk_revives_latents_of_a_crosscoder():
    torch.manual_seed(0)
    pair, x = topk_crosscoder((4, 4), 32, k=2), torch.randn(256, 2, 4)
    revived = with_auxk(pair, after=64, k=8)
    records = fit(revived, x, steps=40, batch_size=32).run(progress=False)
    assert isinstance(revived, LayeredAutoencoder)
    assert any("elbo/residual" in record for record in records)
    assert revived(x).shape == x.shape


def test_dense_crosscoders_stack():
    """Two models as one: each trains as it would alone."""

    def made(seed):
        torch.manual_seed(seed)
        prior = CholeskyPrior(K)
        decoder = LayeredDecoder(K, (2, 2))
        encoder = GaussianPosterior(LinearEncoder(4, 2 * K))
        model = Crosscoder(SparseAutoencoder(decoder, prior, noise=0.5), (2, 2))
        return LayeredAutoencoder(model, AmortizedGuide(encoder))

    x = torch.randn(30, 2, 2)
    alone, both = [made(0), made(1)], stack([made(0), made(1)])
    for seed, pair in enumerate(alone):
        fit(pair, x, steps=8, batch_size=10, seed=seed).run(progress=False)
    fit(both, x, steps=8, batch_size=10, seed=(0, 1)).run(progress=False)
    for replica, pair in enumerate(alone):
        torch.testing.assert_close(both.W_dec[replica, 0], pair.W_dec, rtol=0, atol=1e-9)


@pytest.mark.float32
def test_float32():
    pair = topk_crosscoder((4, 4), 16, k=3).float()
    x = torch.randn(64, 2, 4, dtype=torch.float32)
    start = pair.elbo(x)
    fit(pair, x, steps=50, batch_size=32, lr=0.01).run(progress=False)
    assert pair.elbo(x) > start
    assert pair(x).dtype == torch.float32
