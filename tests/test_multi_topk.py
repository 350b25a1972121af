"""One code, two cuts: the loss of the k greatest, and that of all the slots with a weight."""

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

from priors import LaplacePrior, UniformSubsets
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    DictionaryEncoder,
    LinearDecoder,
    fit,
    topk_autoencoder,
    with_auxk,
)
from vsae.errors import ConfigError
from vsae.models.multi_topk import MultiTopKAutoencoder
from vsae.posteriors.abs_topk import AbsTopKPosterior
from vsae.presets.multi_topk import multi_topk_autoencoder

K, D, ROWS, ACTIVE, SCALE = 24, 7, 30, 3, 2.0


def multi_topk(k=ACTIVE, **settings):
    sae = multi_topk_autoencoder(D, K, k=k, **settings)
    with torch.no_grad():
        for parameter in leaves_of(sae).values():
            parameter += 0.2 * torch.randn_like(parameter)
    sae.project()
    return sae.train()


def dense_code(sae, x, k):
    encoder = sae.guide.posterior.encoder
    scores = (x - sae.model.decoder.b_dec) @ encoder.W_enc.T + encoder.b_enc
    best = scores.topk(k)
    return torch.zeros_like(scores).scatter(1, best.indices, best.values.relu())


def published(sae, x, k, width, weight):
    """L(k) + L(4k)/8, summed over rows."""
    errors = [
        (x - dense_code(sae, x, n) @ sae.W_dec - sae.b_dec).square().sum() for n in (k, width)
    ]
    return errors[0] + weight * errors[1]


def constant(width, weight):
    of_x = gaussian_constant(ROWS, D, HALF) + gaussian_constant(ROWS, D, HALF / weight**0.5)
    return of_x + ROWS * UniformSubsets(K, width).log_count()


@pytest.mark.parametrize(
    ("k", "width", "weight"), [(3, 12, 1 / 8), (1, 4, 0.7), (5, 5, 2.0), (24, 24, 1 / 8)]
)
def test_the_elbo_is_the_published_loss(k, width, weight):
    sae, x = multi_topk(k, width=width, weight=weight), torch.randn(ROWS, D)
    assert_equals_published(sae, x, published(sae, x, k, width, weight), constant(width, weight))


def test_the_defaults_are_the_published_ones():
    sae = multi_topk_autoencoder(D, K, k=3)
    assert (sae.model.k, sae.model.width, sae.model.weight) == (3, 12, 0.125)
    assert multi_topk_autoencoder(D, K, k=20).model.width == K


def test_all_slots_pay_a_penalty():
    sae, x = multi_topk(prior=LaplacePrior(K, scale=SCALE)), torch.randn(ROWS, D)
    by_hand = published(sae, x, 3, 12, 1 / 8) + dense_code(sae, x, 12).sum() / SCALE
    empty = -ROWS * sae.model.prior().log_prob(torch.zeros(K))
    assert_equals_published(sae, x, by_hand, constant(12, 1 / 8) + empty)


def test_the_code_is_that_of_topk():
    """At inference the wider code is not seen: encode and decode are TopK's."""
    sae, x = multi_topk(), torch.randn(ROWS, D)
    plain = topk_autoencoder(D, K, k=ACTIVE)
    plain.load_state_dict(sae.state_dict())
    torch.testing.assert_close(sae.encode(x), plain.encode(x))
    torch.testing.assert_close(sae(x), plain(x))
    assert sae.code(x).z.shape == (ROWS, ACTIVE)
    terms = ClosedFormELBO().terms(sae.eval().model, sae.guide, x)
    assert set(terms) == {"support", "z", "x"}
    torch.testing.assert_close(terms["x"], ClosedFormELBO().terms(plain.model, plain.guide, x)["x"])


def test_slots_have_no_order():
    sae, x = multi_topk(), torch.randn(ROWS, D)
    sites = {name: q.mean for name, q in sae.posterior(x).items()}
    shuffle = torch.rand(sites["z"].shape).argsort(-1)
    shuffled = {name: value.gather(-1, shuffle) for name, value in sites.items()}
    ours, theirs = sae.model.code(sites), sae.model.code(shuffled)
    assert torch.equal(ours.dense(), theirs.dense())


def test_is_a_pyro_program():
    sae, x = multi_topk(prior=LaplacePrior(K)), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(sae, x)
    assert_only_latents_are_scaled(sae, x, {"support", "z"})
    assert_masked_rows_do_not_count(sae, x)
    code, row = (ROWS, 12), (ROWS, D)
    assert_predictive_draws(sae, x, {"support": code, "z": code, "x": row, "x_multi": row})
    assert_svi_trains(sae, x)


@pytest.mark.filterwarnings("ignore")
def test_export():
    assert_export_keeps_gradients(multi_topk(), torch.randn(ROWS, D))


def test_signed_codes_are_cut_by_magnitude():
    decoder = LinearDecoder(K, D)
    model = MultiTopKAutoencoder(decoder, LaplacePrior(K), k=2, width=8, noise=HALF)
    guide = AmortizedGuide(AbsTopKPosterior(DictionaryEncoder(decoder), k=8))
    x = torch.randn(ROWS, D)
    code = Autoencoder(model, guide).encode(x)
    scores = (x @ decoder.W_dec.T).detach()
    best = scores.abs().topk(2).indices
    expected = torch.zeros_like(scores).scatter(1, best, scores.gather(1, best))
    torch.testing.assert_close(code, expected)


def test_empty_codes_and_one_row():
    sae, x = multi_topk(), torch.randn(1, D)
    nn.init.constant_(sae.guide.posterior.encoder.b_enc, -100.0)
    torch.testing.assert_close(sae(x)[0], sae.b_dec.detach())
    loss = ClosedFormELBO()(sae.model, sae.guide)(x)
    found = torch.autograd.grad(loss, leaves_of(sae).values(), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in found)


def test_with_dead_latents():
    sae, x = with_auxk(multi_topk(), after=1), torch.randn(ROWS, D)
    records = fit(sae, x, steps=5, batch_size=10, lr=0.01).run(progress=False)
    assert {"elbo/x_multi", "elbo/x"} <= set(records[-1])


def test_bad_settings():
    def model(**settings):
        decoder = LinearDecoder(K, D)
        return MultiTopKAutoencoder(decoder, LaplacePrior(K), noise=HALF, **settings)

    cases = [
        (lambda: multi_topk_autoencoder(D, K, k=0), "select.k"),
        (lambda: multi_topk_autoencoder(D, K, k=K + 1), "select.k"),
        (lambda: multi_topk_autoencoder(D, K, k=2, width=K + 1), "select.k"),
        (lambda: model(k=5, width=4), "multi_topk.k"),
        (lambda: model(k=0, width=4), "multi_topk.k"),
        (lambda: model(k=2, width=4, weight=0.0), "multi_topk.weight"),
        (lambda: model(k=2, width=4, weight=float("nan")), "multi_topk.weight"),
        (lambda: stack([multi_topk(), multi_topk()]), "replicas.slots"),
    ]
    for make, code in cases:
        with pytest.raises(ConfigError) as caught:
            make()
        assert caught.value.code == code


def test_round_trip(tmp_path):
    assert_saved_is_loaded(multi_topk(weight=0.3), torch.randn(ROWS, D), tmp_path / "sae")
