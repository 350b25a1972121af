"""Nested dictionaries: each prefix explains the activation, and all of them cost one decode."""

from collections import Counter

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
from torch.utils._python_dispatch import TorchDispatchMode

from priors import BernoulliPrior, FlatPrior, LaplacePrior, UniformSubsets
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    Autoencoder,
    BatchTopKPosterior,
    ClosedFormELBO,
    DictionaryEncoder,
    JumpReLUPosterior,
    LinearDecoder,
    SupportAutoencoder,
    TopKPosterior,
    fit,
    with_auxk,
)
from vsae.errors import ConfigError
from vsae.models.matryoshka import MatryoshkaAutoencoder
from vsae.presets.matryoshka import matryoshka_autoencoder

K, D, ROWS, WIDTH, ACTIVE = 24, 7, 30, 12, 4
PREFIXES = (2, 5, 11, 24)


def moved(sae):
    with torch.no_grad():
        for parameter in leaves_of(sae).values():
            parameter += 0.2 * torch.randn_like(parameter)
    sae.project()
    return sae.train()


def batch_topk(**settings):
    return moved(matryoshka_autoencoder(D, K, k=ACTIVE, width=WIDTH, prefixes=PREFIXES, **settings))


def topk(prior=None, *, prefixes=PREFIXES, k=ACTIVE, weights=None):
    decoder = LinearDecoder(K, D)
    prior = FlatPrior(K) if prior is None else prior
    model = MatryoshkaAutoencoder(
        decoder, prior, width=k, noise=HALF, prefixes=prefixes, weights=weights
    )
    posterior = TopKPosterior(DictionaryEncoder(decoder), k=k)
    return moved(Autoencoder(model, AmortizedGuide(posterior)))


def jumprelu():
    decoder = LinearDecoder(K, D)
    activity = BernoulliPrior(K, rate=0.1)
    model = MatryoshkaAutoencoder(
        decoder, FlatPrior(K), width=K, noise=HALF, prefixes=PREFIXES, activity=activity
    )
    encoder = DictionaryEncoder(decoder)
    posterior = JumpReLUPosterior(encoder, width=K, threshold=1.0, bandwidth=0.9)
    return moved(Autoencoder(model, AmortizedGuide(posterior)))


def dense_scores(sae, x):
    encoder = sae.guide.posterior.encoder
    return (x - sae.model.decoder.b_dec) @ encoder.W_enc.T + encoder.b_enc


def dense_batch_topk(sae, x):
    """The published code, dense: of all scores in the batch, the ``k`` per row greatest."""
    scores = dense_scores(sae, x).relu()
    best = scores.flatten().topk(ACTIVE * len(x))
    return torch.zeros_like(scores).flatten().scatter(0, best.indices, best.values).view_as(scores)


def published(sae, x, code, weights=(1.0, 1.0, 1.0, 1.0)):
    """Σ_m ω_m ‖x - (z[:m] W[:m] + b)‖², summed over rows."""
    atoms, bias = sae.model.decoder.W_dec, sae.model.decoder.b_dec
    means = [code[:, :m] @ atoms[:m] + bias for m in PREFIXES]
    return sum(w * (x - m).square().sum() for w, m in zip(weights, means, strict=True))


def constant(weights=(1.0, 1.0, 1.0, 1.0), width=WIDTH):
    of_x = sum(gaussian_constant(ROWS, D, HALF / w**0.5) for w in weights)
    return of_x + ROWS * UniformSubsets(K, width).log_count()


def test_the_elbo_is_the_published_loss():
    sae, x = batch_topk(), torch.randn(ROWS, D)
    assert sae.guide.posterior.overflow(x) == 0  # else the slots would not hold the batch's best
    assert_equals_published(sae, x, published(sae, x, dense_batch_topk(sae, x)), constant())


def test_weights_are_those_of_the_prefixes():
    weights = (0.25, 0.5, 2.0)
    sae, x = batch_topk(weights=weights), torch.randn(ROWS, D)
    by_hand = published(sae, x, dense_batch_topk(sae, x), (*weights, 1.0))
    assert_equals_published(sae, x, by_hand, constant((*weights, 1.0)))


def test_the_mean_over_prefixes_is_a_greater_noise():
    """Dividing the loss by M, as some do, is σ² = M/2."""
    sae, x = batch_topk(noise=(len(PREFIXES) / 2) ** 0.5), torch.randn(ROWS, D)
    by_hand = published(sae, x, dense_batch_topk(sae, x)) / len(PREFIXES)
    shift = (constant() - constant(width=K)) + len(PREFIXES) * gaussian_constant(ROWS, D, 2**0.5)
    assert_equals_published(sae, x, by_hand, shift)


def test_a_penalty_is_paid_once():
    sae, x = topk(LaplacePrior(K, scale=2.0)), torch.randn(ROWS, D)
    scores = dense_scores(sae, x)
    best = scores.topk(ACTIVE)
    code = torch.zeros_like(scores).scatter(1, best.indices, best.values.relu())
    empty = -ROWS * sae.model.prior().log_prob(torch.zeros(K))
    by_hand = published(sae, x, code) + code.sum() / 2.0
    assert_equals_published(sae, x, by_hand, constant(width=ACTIVE) + empty)


@pytest.mark.parametrize("make", [batch_topk, topk, jumprelu])
def test_means_are_those_of_the_prefixes_alone(make):
    sae, x = make(), torch.randn(ROWS, D)
    code = sae.code(x)
    for m, mean in zip(PREFIXES, sae.model.means(code.z, code.support), strict=True):
        alone = code.dense()[:, :m] @ sae.W_dec[:m] + sae.b_dec
        torch.testing.assert_close(mean, alone)


@pytest.mark.parametrize("make", [batch_topk, topk])
def test_is_a_pyro_program(make):
    sae, x = make(), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(sae, x)
    assert_only_latents_are_scaled(sae, x, {"support", "z"})
    code, row = (ROWS, sae.model.width), (ROWS, D)
    shapes = {f"x_prefix_{m}": row for m in PREFIXES[:-1]}
    assert_predictive_draws(sae, x, shapes | {"support": code, "z": code, "x": row})
    assert_svi_trains(sae, x)


def test_masked_rows_do_not_count():
    assert_masked_rows_do_not_count(topk(), torch.randn(ROWS, D))


def test_thresholds_of_ones_own():
    sae, x = jumprelu(), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(sae, x)
    assert_only_latents_are_scaled(sae, x, {"support", "z", "active"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [batch_topk, topk, jumprelu])
def test_export(make):
    assert_export_keeps_gradients(make(), torch.randn(ROWS, D))


def test_in_evaluation_it_is_the_plain_model():
    sae, x = topk(LaplacePrior(K)), torch.randn(ROWS, D)
    plain = SupportAutoencoder(sae.model.decoder, sae.model.prior, width=ACTIVE, noise=HALF)
    ours = ClosedFormELBO().terms(sae.eval().model, sae.guide, x)
    oracle = ClosedFormELBO().terms(plain, sae.guide, x)
    assert set(ours) == set(oracle)
    assert all(torch.equal(ours[name], term) for name, term in oracle.items())


def test_one_prefix_is_the_plain_model_too():
    sae, x = topk(prefixes=(K,)), torch.randn(ROWS, D)
    plain = SupportAutoencoder(sae.model.decoder, sae.model.prior, width=ACTIVE, noise=HALF)
    ours = ClosedFormELBO()(sae.model, sae.guide)(x)
    torch.testing.assert_close(ours, ClosedFormELBO()(plain, sae.guide)(x))


def test_early_latents_hear_from_every_prefix_and_late_ones_from_the_last():
    """The gradient of z in slot s is the sum over the prefixes that hold s."""
    sae, x = topk(k=K), torch.randn(1, D)
    code = sae.code(x)
    z = code.z.detach().requires_grad_()
    for m, mean in zip(PREFIXES, sae.model.means(z, code.support), strict=True):
        (heard,) = torch.autograd.grad(mean.sum(), z, retain_graph=True)
        assert torch.equal(heard != 0, code.support < m)


class Calls(TorchDispatchMode):
    """How often each of this library's operators is called."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += func.namespace == "vsae"
        return func(*args, **(kwargs or {}))


def test_more_prefixes_take_no_more_decodes():
    counts = []
    for prefixes in ((2, K), (2, 3, 4, 6, 9, 14, K)):
        sae, x = topk(prefixes=prefixes), torch.randn(ROWS, D)
        with Calls() as calls:
            ClosedFormELBO()(sae.model, sae.guide)(x).backward()
        counts.append(+calls.counts)
    assert counts[0] == counts[1]
    assert counts[0]["vsae.grouped_bag.default"] == counts[0]["vsae.grouped_dots.default"] == 1


def test_all_empty_codes_one_row_and_ties():
    sae = batch_topk()
    nn.init.constant_(sae.guide.posterior.encoder.b_enc, -100.0)
    x = torch.randn(1, D)
    code = sae.code(x)
    assert not code.z.any()
    for mean in sae.model.means(code.z, code.support):
        torch.testing.assert_close(mean[0], sae.b_dec.detach())
    found = torch.autograd.grad(
        ClosedFormELBO()(sae.model, sae.guide)(x), leaves_of(sae).values(), allow_unused=True
    )
    assert all(g is None or g.isfinite().all() for g in found)
    nn.init.zeros_(sae.guide.posterior.encoder.W_enc)  # every score the same
    nn.init.ones_(sae.guide.posterior.encoder.b_enc)
    assert ClosedFormELBO()(sae.model, sae.guide)(torch.randn(3, D)).isfinite()


def test_all_latents_active():
    sae, x = topk(k=K), torch.randn(ROWS, D)
    by_hand = published(sae, x, dense_scores(sae, x).relu())
    assert_equals_published(sae, x, by_hand, constant(width=K))


@pytest.mark.parametrize(
    "prefixes", [(), (2, 5), (2, 25), (5, 5, 24), (5, 2, 24), (0, 24), (-1, 24)]
)
def test_bad_prefixes(prefixes):
    with pytest.raises(ConfigError) as caught:
        matryoshka_autoencoder(D, K, k=ACTIVE, prefixes=prefixes)
    assert caught.value.code == "matryoshka.prefixes"


@pytest.mark.parametrize("weights", [(1.0,), (1.0,) * 4, (1.0, 0.0, 1.0), (1.0, -1.0, 1.0)])
def test_bad_weights(weights):
    with pytest.raises(ConfigError) as caught:
        matryoshka_autoencoder(D, K, k=ACTIVE, prefixes=PREFIXES, weights=weights)
    assert caught.value.code == "matryoshka.weights"


def test_other_bad_settings():
    for settings, code in (({"k": K + 1, "width": K + 1}, "select.k"), ({"k": 0}, "select.k")):
        with pytest.raises(ConfigError) as caught:
            matryoshka_autoencoder(D, K, prefixes=PREFIXES, **settings)
        assert caught.value.code == code
    with pytest.raises(ConfigError) as caught:
        matryoshka_autoencoder(D, 16, k=2)  # too few for the published fractions
    assert caught.value.code == "matryoshka.prefixes"
    with pytest.raises(ConfigError) as caught:
        stack([topk(), topk()])
    assert caught.value.code == "replicas.slots"
    decoder = LinearDecoder(K, D)
    model = MatryoshkaAutoencoder(decoder, FlatPrior(K), width=3, noise=1.0, prefixes=PREFIXES)
    posterior = BatchTopKPosterior(DictionaryEncoder(decoder), k=2, width=4)
    with pytest.raises(ConfigError) as caught:
        fit(Autoencoder(model, AmortizedGuide(posterior)), torch.randn(9, D), steps=1, batch_size=9)
    assert caught.value.code == "pair.width"


def test_with_dead_latents():
    sae, x = with_auxk(topk(), after=1), torch.randn(ROWS, D)
    records = fit(sae, x, steps=5, batch_size=10, lr=0.01).run(progress=False)
    assert {"elbo/residual", "elbo/x_prefix_2", "elbo/x"} <= set(records[-1])


@pytest.mark.parametrize("seed", range(3))
def test_the_inner_dictionary_explains_more_alone_than_latents_of_a_plain_one(seed):
    """Orthogonal features, two of them frequent: what the first two latents leave unexplained."""
    left = []
    for prefixes in ((2, 8), (8,)):
        torch.manual_seed(seed)
        features = torch.linalg.qr(torch.randn(8, 8)).Q
        active = torch.rand(2000, 8) < torch.tensor([0.5, 0.5] + [0.02] * 6)
        x = (active * (0.5 + torch.rand(2000, 8))) @ features
        sae = matryoshka_autoencoder(8, 8, k=1, width=8, prefixes=prefixes)
        fit(sae, x, steps=120, batch_size=100, lr=0.03).run(progress=False)
        inner = sae.encode(x)[:, :2] @ sae.W_dec[:2] + sae.b_dec
        left.append((x - inner).square().sum().item())
    assert left[0] < left[1]


def test_round_trip(tmp_path):
    assert_saved_is_loaded(
        batch_topk(weights=(0.5, 1.0, 2.0)), torch.randn(ROWS, D), tmp_path / "sae"
    )
