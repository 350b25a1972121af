"""dictionary_learning's own trainers with our weights: the same codes, losses, gradients."""

import pytest
import torch
from weights import TOP, D, K, Weights, codes, constant, gradients, parameters, same, squared_errors

from vsae import (
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    DictionaryEncoder,
    ReLUPosterior,
    batch_topk_autoencoder,
    jumprelu_autoencoder,
    l1_autoencoder,
    topk_autoencoder,
    with_auxk,
)
from vsae.presets.gated import gated_autoencoder
from vsae.presets.matryoshka import matryoshka_autoencoder

pytest.importorskip("dictionary_learning")
from dictionary_learning import trainers
from dictionary_learning.trainers import (
    batch_top_k,
    gdm,
    jumprelu,
    matryoshka_batch_top_k,
)

COMMON = {
    "steps": 10,
    "activation_dim": D,
    "dict_size": K,
    "layer": 0,
    "lm_name": "",
    "device": "cpu",
    "warmup_steps": 0,
}


def theirs(kind, state, **settings):
    trainer = kind(**COMMON, **settings)
    trainer.ae.double()
    trainer.ae.load_state_dict({**trainer.ae.state_dict(), **state})
    return trainer


def agree(ours, reference, tolerance=1e-10):
    for mine, other in zip(ours, reference, strict=True):
        same(mine, other.mT if mine.shape != other.shape else other, tolerance)
        assert other.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "build"),
    [
        (trainers.TopKTrainer, topk_autoencoder),
        (batch_top_k.BatchTopKTrainer, batch_topk_autoencoder),
    ],
)
def test_topk_and_batch_topk(kind, build):
    w = Weights()
    pair, trainer = w.into(build(D, K, k=TOP)), theirs(kind, w.of_linear_layers(), k=TOP)
    ae = trainer.ae
    same(codes(pair, w.x), ae.encode(w.x, use_threshold=False))
    same(pair.decode(codes(pair, w.x)), ae.decode(ae.encode(w.x, use_threshold=False)))
    loss = trainer.loss(w.x, step=0)
    same(squared_errors(pair, w.x)["x"], loss)
    ours = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    theirs_parameters = [ae.encoder.weight, ae.decoder.weight, ae.encoder.bias, ae.b_dec]
    agree(gradients(ours, parameters(pair)), gradients(loss, theirs_parameters))


def test_auxk_is_ours_divided_by_the_residuals_variance():
    w = Weights()
    dead = torch.arange(K) >= K - 8
    w.b[:-8] += 30.0
    pair = w.into(topk_autoencoder(D, K, k=TOP))
    with torch.no_grad():
        residual = w.x - pair(w.x)
        variance = (residual - residual.mean(0)).square().sum(-1).mean()
    coefficient = (1 / 32 / variance).item()
    pair = with_auxk(pair, after=10, coefficient=coefficient).train()
    pair.model.dead.silent_for[dead] = 10
    trainer = theirs(trainers.TopKTrainer, w.of_linear_layers(), k=TOP)
    trainer.num_tokens_since_fired[dead] = trainer.dead_feature_threshold
    loss = trainer.loss(w.x, step=0)
    terms = ClosedFormELBO().terms(pair.model, pair.guide, w.x)
    ours = (terms["x"] + terms["residual"]) / len(w.x)
    same(ours - constant(0.5) - constant(0.5 / coefficient), loss, 1e-6)  # theirs: float32
    ae = trainer.ae
    theirs_parameters = [ae.encoder.weight, ae.decoder.weight, ae.encoder.bias, ae.b_dec]
    agree(gradients(ours, parameters(pair)), gradients(loss, theirs_parameters), 1e-5)


def test_gated():
    w, price = Weights(), 0.2
    pair = w.into(gated_autoencoder(D, K, l1=price))
    posterior, encoder = pair.guide.posterior, pair.guide.posterior.encoder
    with torch.no_grad():
        posterior.r_mag.copy_(0.2 * torch.randn(K))
        posterior.b_mag.copy_(0.2 * torch.randn(K))
    state = {
        "encoder.weight": w.E,
        "decoder.weight": w.W.mT,
        "decoder_bias": w.c,
        "gate_bias": w.b,
        "r_mag": posterior.r_mag,
        "mag_bias": posterior.b_mag,
    }
    trainer = theirs(gdm.GatedSAETrainer, state, l1_penalty=price, sparsity_warmup_steps=0)
    ae, loss = trainer.ae, trainer.loss(w.x, step=0)
    same(codes(pair, w.x), ae.encode(w.x))
    ours = squared_errors(pair, w.x)
    same(sum(ours.values()) - K * torch.tensor(2 / price).log(), loss)
    leaves = [encoder.W_enc, pair.model.decoder.W_dec, encoder.b_enc, pair.model.decoder.b_dec]
    reference = [ae.encoder.weight, ae.decoder.weight, ae.gate_bias, ae.decoder_bias]
    elbo = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    agree(
        gradients(elbo, [*leaves, posterior.r_mag, posterior.b_mag]),
        gradients(loss, [*reference, ae.r_mag, ae.mag_bias]),
    )


def test_matryoshka_with_its_weights_undone():
    """Theirs divides a mean by the number of groups once more; the paper adds the prefixes."""
    w = Weights()
    pair = w.into(matryoshka_autoencoder(D, K, k=TOP, prefixes=(8, 16, K)))
    state = w.of_saelens()
    trainer = theirs(
        matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer,
        state,
        k=TOP,
        group_fractions=[0.25, 0.25, 0.5],
        group_weights=[3, 3, 3],
    )
    ae, loss = trainer.ae, trainer.loss(w.x, step=0)
    same(sum(squared_errors(pair, w.x).values()), loss)
    ours = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    reference = gradients(loss, [ae.W_enc, ae.W_dec, ae.b_enc, ae.b_dec])
    agree(gradients(ours, parameters(pair)), reference)


def test_l1():
    w, price = Weights(), 0.2
    model = l1_autoencoder(D, K, l1=price).model
    pair = w.into(
        Autoencoder(model, AmortizedGuide(ReLUPosterior(DictionaryEncoder(model.decoder))))
    )
    trainer = theirs(
        trainers.StandardTrainer,
        w.of_linear_layers("bias"),
        l1_penalty=price,
        sparsity_warmup_steps=0,
    )
    ae, loss = trainer.ae, trainer.loss(w.x, step=0)
    same(codes(pair, w.x), ae.encode(w.x))
    same(sum(squared_errors(pair, w.x).values()) - K * torch.tensor(2 / price).log(), loss)
    ours = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    reference = [ae.encoder.weight, ae.decoder.weight, ae.encoder.bias, ae.bias]
    agree(gradients(ours, parameters(pair)), gradients(loss, reference))


def test_jumprelu_codes():
    """Theirs does not centre its input, and its penalty is another: the same codes without bias."""
    w, theta = Weights(), 0.5
    w.c.zero_()
    pair = w.into(jumprelu_autoencoder(D, K, l0=0.1, width=K, threshold=theta))
    state = w.of_saelens() | {"threshold": torch.full((K,), theta)}
    trainer = theirs(jumprelu.JumpReluTrainer, state, sparsity_warmup_steps=0)
    same(codes(pair, w.x), trainer.ae.encode(w.x))
    same(pair(w.x), trainer.ae(w.x))
