"""Signed codes: the greatest in magnitude, and the same as TopK over a doubled dictionary."""

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
from vsae import AffineNormalizer, ClosedFormELBO, topk_autoencoder
from vsae.errors import ConfigError
from vsae.presets.abs_topk import abs_topk_autoencoder

K, D, ROWS, ACTIVE, SCALE = 24, 7, 30, 4, 2.0


def abs_topk(k=ACTIVE, *, prior=None):
    sae = abs_topk_autoencoder(D, K, k=k, prior=prior)
    with torch.no_grad():
        for parameter in leaves_of(sae).values():
            parameter += 0.2 * torch.randn_like(parameter)
    sae.project()
    return sae.train()


def dense_code(sae, x, k=ACTIVE):
    """The published code: of |v|, the k-th greatest is the row's threshold."""
    encoder = sae.guide.posterior.encoder
    scores = (x - sae.model.decoder.b_dec) @ encoder.W_enc.T + encoder.b_enc
    return scores * (scores.abs() >= scores.abs().sort(1, descending=True).values[:, k - 1 : k])


@pytest.mark.parametrize("k", [1, ACTIVE, K])
def test_the_elbo_is_the_published_loss(k):
    sae, x = abs_topk(k), torch.randn(ROWS, D)
    code = dense_code(sae, x, k)
    assert (code < 0).any()
    by_hand = (x - code @ sae.W_dec - sae.b_dec).square().sum()
    constant = gaussian_constant(ROWS, D, HALF) + ROWS * UniformSubsets(K, k).log_count()
    assert_equals_published(sae, x, by_hand, constant)


def test_a_penalty_is_on_magnitudes():
    sae, x = abs_topk(prior=LaplacePrior(K, scale=SCALE)), torch.randn(ROWS, D)
    code = dense_code(sae, x)
    by_hand = (x - code @ sae.W_dec - sae.b_dec).square().sum() + code.abs().sum() / SCALE
    constant = gaussian_constant(ROWS, D, HALF) + ROWS * UniformSubsets(K, ACTIVE).log_count()
    empty = -ROWS * sae.model.prior().log_prob(torch.zeros(K))
    assert_equals_published(sae, x, by_hand, constant + empty)


def test_is_topk_with_every_latent_and_its_opposite():
    sae, x = abs_topk(), torch.randn(ROWS, D)
    double = topk_autoencoder(D, 2 * K, k=ACTIVE)
    ours, theirs = sae.guide.posterior.encoder, double.guide.posterior.encoder
    with torch.no_grad():
        double.W_dec.copy_(torch.cat([sae.W_dec, -sae.W_dec]))
        double.b_dec.copy_(sae.b_dec)
        theirs.W_enc.copy_(torch.cat([ours.W_enc, -ours.W_enc]))
        theirs.b_enc.copy_(torch.cat([ours.b_enc, -ours.b_enc]))
    positive, negative = double.encode(x).split(K, -1)
    torch.testing.assert_close(sae.encode(x), positive - negative)
    torch.testing.assert_close(sae(x), double(x))


def test_is_a_pyro_program():
    sae, x = abs_topk(prior=LaplacePrior(K)), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(sae, x)
    assert_only_latents_are_scaled(sae, x, {"support", "z"})
    assert_masked_rows_do_not_count(sae, x)
    code = (ROWS, ACTIVE)
    assert_predictive_draws(sae, x, {"support": code, "z": code, "x": (ROWS, D)})
    assert_svi_trains(sae, x)


@pytest.mark.filterwarnings("ignore")
def test_export():
    assert_export_keeps_gradients(abs_topk(), torch.randn(ROWS, D))


def test_every_slot_is_filled_unless_a_score_is_zero():
    sae = abs_topk()
    assert (sae.code(torch.randn(ROWS, D)).l0() == ACTIVE).all()
    encoder = sae.guide.posterior.encoder
    nn.init.zeros_(encoder.b_enc)
    at_centre = sae.code(sae.b_dec.detach().expand(1, D))
    assert at_centre.l0().tolist() == [0]
    loss = ClosedFormELBO()(sae.model, sae.guide)(sae.b_dec.detach().expand(1, D))
    found = torch.autograd.grad(loss, leaves_of(sae).values(), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in found)


def test_opposite_scores_of_one_size_are_a_tie():
    """Either may win, both have the same size, and no latent wins twice."""
    sae, x = abs_topk(k=2), torch.ones(1, D)
    encoder = sae.guide.posterior.encoder
    with torch.no_grad():
        encoder.W_enc[:] = 0.0
        encoder.b_enc[:] = torch.tensor([1.0, -1.0]).repeat(K // 2)
    code = sae.code(x)
    assert code.z.abs().tolist() == [[1.0, 1.0]]
    assert code.support[0, 0] != code.support[0, 1]


@pytest.mark.parametrize("k", [0, -1, K + 1])
def test_bad_k(k):
    with pytest.raises(ConfigError) as caught:
        abs_topk_autoencoder(D, K, k=k)
    assert caught.value.code == "select.k"


def test_round_trip(tmp_path):
    sae, x = abs_topk(prior=LaplacePrior(K)), torch.randn(ROWS, D)
    sae.normalizer = AffineNormalizer.fit(x)
    assert_saved_is_loaded(sae, x, tmp_path / "sae")
