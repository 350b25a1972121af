"""The gated SAE's loss is an ELBO, and each term teaches what the paper lets it teach."""

import pytest
import torch
from program_checks import (
    HALF,
    assert_equals_published,
    assert_export_keeps_gradients,
    assert_masked_rows_do_not_count,
    assert_only_latents_are_scaled,
    assert_predictive_draws,
    assert_pyros_elbos_agree,
    assert_saved_is_loaded,
    assert_svi_trains,
    gaussian_constant,
    leaves_of,
)
from torch import nn

from priors import CholeskyPrior
from priors.replicas import stack, unstack
from vsae import (
    AffineNormalizer,
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    DictionaryEncoder,
    FreeDecoder,
    LinearDecoder,
    fit,
)
from vsae.errors import ConfigError
from vsae.models.gated import GatedAutoencoder
from vsae.posteriors.gated import GatedPosterior
from vsae.presets.gated import gated_autoencoder

K, D, ROWS, L1 = 11, 4, 23, 0.3


def gated(seed=0):
    """A gated SAE away from where it starts, in training mode."""
    torch.manual_seed(seed)
    sae = gated_autoencoder(D, K, l1=L1)
    with torch.no_grad():
        for parameter in leaves_of(sae).values():
            parameter += 0.3 * torch.randn_like(parameter)
    sae.project()
    return sae.train()


def published(sae, x):
    """Appendix J of the paper, line by line; the sum over rows."""
    q, decoder = sae.guide.posterior, sae.model.decoder
    centred = x - decoder.b_dec
    pi_gate = centred @ q.encoder.W_enc.T + q.encoder.b_enc
    w_mag = q.r_mag.exp()[:, None] * q.encoder.W_enc
    code = (pi_gate > 0) * (centred @ w_mag.T + q.b_mag).relu()
    loss = (code @ decoder.W_dec + decoder.b_dec - x).square().sum()
    loss = loss + L1 * pi_gate.relu().sum()
    via_gate = pi_gate.relu() @ decoder.W_dec.detach() + decoder.b_dec.detach()
    return loss + (via_gate - x).square().sum()


def constant(sae):
    of_prior = -ROWS * sae.model.prior().log_prob(torch.zeros(K))
    return of_prior + 2 * gaussian_constant(ROWS, D, HALF)


@pytest.mark.parametrize("seed", range(5))
def test_the_elbo_is_the_published_loss(seed):
    sae, x = gated(seed), torch.randn(ROWS, D)
    assert_equals_published(sae, x, published(sae, x), constant(sae).detach())


def test_the_decoder_learns_nothing_from_the_gate():
    sae, x = gated(), torch.randn(ROWS, D)
    term = ClosedFormELBO().terms(sae.model, sae.guide, x)["x_gate"]
    leaves = leaves_of(sae)
    found = torch.autograd.grad(term, leaves.values(), allow_unused=True)
    learns = {name for name, g in zip(leaves, found, strict=True) if g is not None}
    assert not any("W_dec" in name or "mag" in name for name in learns)
    assert any("W_enc" in name for name in learns)
    # b_dec centres the encoder's input, in the paper too: that is its only way to learn here.
    (by_centre,) = torch.autograd.grad(
        ClosedFormELBO().terms(sae.model, sae.guide, x)["x_gate"], sae.b_dec
    )
    q, frozen = sae.guide.posterior, sae.model.frozen(sae.posterior(x)["gate"].mean).detach()
    back = 2 * (frozen - x) @ sae.W_dec.mT * (sae.posterior(x)["gate"].mean > 0)
    torch.testing.assert_close(by_centre, -(back @ q.encoder.W_enc).sum(0))


def test_amplitudes_are_not_penalised():
    sae, x = gated(), torch.randn(ROWS, D)
    terms = ClosedFormELBO().terms(sae.model, sae.guide, x)
    assert terms["z"] == 0
    of_gate = L1 * sae.posterior(x)["gate"].mean.sum() + constant(sae)
    expected = of_gate - 2 * gaussian_constant(ROWS, D, HALF)
    torch.testing.assert_close(terms["gate"], expected)


def test_is_a_pyro_program(tmp_path):
    sae, x = gated(), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(sae, x)
    assert_only_latents_are_scaled(sae, x, {"gate", "z"})
    assert_masked_rows_do_not_count(sae, x)
    code, row = (ROWS, K), (ROWS, D)
    assert_predictive_draws(sae, x, {"gate": code, "z": code, "x": row, "x_gate": row})
    assert_svi_trains(sae, x)


@pytest.mark.filterwarnings("ignore")
def test_export():
    assert_export_keeps_gradients(gated(), torch.randn(ROWS, D))


def test_in_evaluation_x_is_observed_once():
    sae, x = gated(), torch.randn(ROWS, D)
    training = ClosedFormELBO().terms(sae.model, sae.guide, x)
    evaluation = ClosedFormELBO().terms(sae.eval().model, sae.guide, x)
    assert set(training) - set(evaluation) == {"x_gate"}
    assert all(torch.equal(training[name], term) for name, term in evaluation.items())
    rows = ClosedFormELBO().site_terms(sae.model, sae.guide, x)
    torch.testing.assert_close(sae.elbo(x), -sum(t.mean() for t in rows.values()))


def test_the_code_is_active_where_both_halves_are():
    sae, x = gated(), torch.randn(200, D)
    code, gate = sae.encode(x), sae.posterior(x)["gate"].mean
    assert (code >= 0).all()
    assert not code[gate == 0].any()
    assert ((code == 0) & (gate > 0)).any()  # a gate may be open and its amplitude below zero
    torch.testing.assert_close(sae(x), code @ sae.W_dec + sae.b_dec)


def test_replicas_are_the_models_alone():
    saes, x = [gated(seed) for seed in range(3)], torch.randn(ROWS, D)
    together = stack(saes)
    terms = ClosedFormELBO().site_terms(together.model, together.guide, x)
    alone = [ClosedFormELBO().site_terms(s.model, s.guide, x) for s in saes]
    for name, term in terms.items():
        torch.testing.assert_close(term, torch.stack([a[name] for a in alone]))
    fit(together, x, steps=4, batch_size=8, lr=0.01, seed=[0, 1, 2]).run(progress=False)
    for seed, sae in enumerate(saes):
        fit(sae, x, steps=4, batch_size=8, lr=0.01, seed=seed).run(progress=False)
    for ours, oracle in zip(unstack(together), saes, strict=True):
        for a, b in zip(ours.parameters(), oracle.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_any_prior_may_be_on_the_gate():
    decoder = FreeDecoder(K, D, bias=False)
    model = GatedAutoencoder(decoder, CholeskyPrior(K), noise=0.7)
    sae = Autoencoder(model, AmortizedGuide(GatedPosterior(DictionaryEncoder(decoder)))).train()
    x = torch.randn(ROWS, D)
    assert_pyros_elbos_agree_but(sae, x, "prior.strict_lower")


def assert_pyros_elbos_agree_but(sae, x, name):
    nn.init.normal_(sae.model.get_parameter(name), std=0.1)
    nn.init.normal_(sae.guide.posterior.b_mag, std=0.1)
    assert_pyros_elbos_agree(sae, x)


def test_closed_gates_and_one_row():
    sae = gated()
    nn.init.constant_(sae.guide.posterior.encoder.b_enc, -100.0)
    x = torch.randn(1, D)
    assert not sae.encode(x).any()
    torch.testing.assert_close(sae(x)[0], sae.b_dec.detach())
    loss = ClosedFormELBO()(sae.model, sae.guide)(x)
    found = torch.autograd.grad(loss, leaves_of(sae).values())
    assert all(g.isfinite().all() for g in found)


def test_a_gate_at_zero_is_closed():
    decoder = LinearDecoder(2, 2)
    encoder = DictionaryEncoder(decoder)
    sites = GatedPosterior(encoder)(torch.zeros(3, 2))
    assert not sites["gate"].mean.any()
    assert not sites["z"].mean.any()


def test_bad_settings():
    for l1 in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError) as caught:
            gated_autoencoder(D, K, l1=l1)
        assert caught.value.code == "prior.bad_l1"
    with pytest.raises(ConfigError) as caught:
        GatedAutoencoder(LinearDecoder(K, D), CholeskyPrior(K), noise=0.0)
    assert caught.value.code == "noise.scale"


def test_gate_and_decoder_of_different_widths_are_refused():
    decoder = LinearDecoder(K, D)
    model = GatedAutoencoder(decoder, CholeskyPrior(K + 1), noise=0.7)
    sae = Autoencoder(model, AmortizedGuide(GatedPosterior(DictionaryEncoder(decoder))))
    with pytest.raises(ConfigError) as caught:
        fit(sae, torch.randn(9, D), steps=1, batch_size=9)
    assert caught.value.code == "pair.latents"


def test_round_trip(tmp_path):
    sae, x = gated(), torch.randn(ROWS, D)
    sae.normalizer = AffineNormalizer.fit(x)
    assert_saved_is_loaded(sae, x, tmp_path / "sae")
