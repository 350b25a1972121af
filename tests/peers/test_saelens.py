"""SAELens's own classes with our weights: the same codes, reconstructions, losses, gradients."""

import warnings

import pytest
import torch
from weights import TOP, D, K, Weights, codes, constant, gradients, parameters, same, squared_errors

from vsae import (
    ClosedFormELBO,
    batch_topk_autoencoder,
    jumprelu_autoencoder,
    topk_autoencoder,
    with_auxk,
)
from vsae.presets.abs_topk import abs_topk_autoencoder
from vsae.presets.gated import gated_autoencoder
from vsae.presets.matching_pursuit import matching_pursuit_autoencoder
from vsae.presets.matryoshka import matryoshka_autoencoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lens = pytest.importorskip("sae_lens")
    from sae_lens.saes.sae import TrainStepInput


def theirs(name, state, **settings):
    config = getattr(lens, f"{name}TrainingSAEConfig")(d_in=D, d_sae=K, dtype="float64", **settings)
    sae = getattr(lens, f"{name}TrainingSAE")(config)
    sae.load_state_dict({**sae.state_dict(), **state})
    return sae


def step(sae, x, dead=None, **coefficients):
    return sae.training_forward_pass(
        TrainStepInput(
            sae_in=x,
            coefficients=coefficients,
            dead_neuron_mask=dead,
            n_training_steps=0,
            is_logging_step=False,
        )
    )


def their_parameters(sae):
    return [sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec]


def agree(ours, reference):
    for mine, other in zip(ours, reference, strict=True):
        same(mine, other.mT if mine.shape != other.shape else other)
        assert other.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("TopK", topk_autoencoder),
        ("AbsTopK", abs_topk_autoencoder),
        ("BatchTopK", batch_topk_autoencoder),
    ],
)
def test_topk_and_its_kin(name, build):
    w = Weights()
    pair, sae = w.into(build(D, K, k=TOP)), theirs(name, w.of_saelens(), k=TOP)
    out = step(sae, w.x)
    same(codes(pair, w.x), out.feature_acts)
    same(pair.decode(codes(pair, w.x)), out.sae_out)
    same(squared_errors(pair, w.x)["x"], out.losses["mse_loss"])
    loss = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    agree(gradients(loss, parameters(pair)), gradients(out.loss, their_parameters(sae)))


def test_the_inference_threshold_is_a_running_mean_of_the_same_minima():
    """Theirs starts from 0 and forgets 1 % a step, ours a tenth of the past: the same minima."""
    w = Weights()
    pair = w.into(batch_topk_autoencoder(D, K, k=TOP))
    sae, posterior = theirs("BatchTopK", w.of_saelens(), k=TOP), pair.guide.posterior
    generator, their_mean, our_mean = torch.Generator().manual_seed(3), 0.0, 0.0
    for n in range(1, 41):
        x = torch.randn(64, D, generator=generator)
        z = posterior(x)["z"].v
        least = z[z > 0].min()
        posterior.observe({"z": z})
        step(sae, x)
        their_mean = 0.99 * their_mean + 0.01 * least
        our_mean = our_mean + (least - our_mean) * 10 / (9 + n)
    same(their_mean, sae.topk_threshold)
    same(our_mean, posterior.threshold)


def test_auxk():
    """Theirs does not rectify the dead codes, so they are made positive; and scales by their share.

    The coefficient is 1 in SAELens and 1/32 in the paper.
    """
    w = Weights()
    dead = torch.arange(K) >= K - D
    w.b[:-D] += 30.0  # the living win all the slots
    w.b[-D:] += 15.0  # the dead are positive
    coefficient = 0.7
    pair = w.into(with_auxk(topk_autoencoder(D, K, k=TOP), after=10, coefficient=coefficient))
    pair.model.dead.silent_for[dead] = 10
    sae = theirs("TopK", w.of_saelens(), k=TOP, aux_loss_coefficient=coefficient)
    out = step(sae, w.x, dead)
    terms = ClosedFormELBO().terms(pair.model, pair.guide, w.x)
    residual = terms["residual"] / len(w.x) - constant(0.5 / coefficient)
    same(residual, out.losses["auxiliary_reconstruction_loss"])
    loss = sum(terms.values()) / len(w.x)
    agree(gradients(loss, parameters(pair)), gradients(out.loss, their_parameters(sae)))


def test_matryoshka():
    w, prefixes = Weights(), (5, 12, K)
    pair = w.into(matryoshka_autoencoder(D, K, k=TOP, prefixes=prefixes))
    sae = theirs("MatryoshkaBatchTopK", w.of_saelens(), k=TOP, matryoshka_widths=list(prefixes))
    out, ours = step(sae, w.x), squared_errors(pair, w.x)
    same(codes(pair, w.x), out.feature_acts)
    same(ours["x"], out.losses["mse_loss"])
    for m in prefixes[:-1]:
        same(ours[f"x_prefix_{m}"], out.losses[f"inner_mse_loss_{m}"])
    loss = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    agree(gradients(loss, parameters(pair)), gradients(out.loss, their_parameters(sae)))


def test_jumprelu():
    """They keep θ itself, in float32; we keep log θ."""
    w, price, theta = Weights(), 0.3, 0.5
    pair = w.into(jumprelu_autoencoder(D, K, l0=price, width=K, threshold=theta, bandwidth=0.25))
    sae = theirs(
        "JumpReLU",
        w.of_saelens() | {"threshold": torch.full((K,), theta)},
        jumprelu_bandwidth=0.25,
        jumprelu_init_threshold=theta,
    )
    out = step(sae, w.x, l0=price)
    same(codes(pair, w.x), out.feature_acts)
    same(squared_errors(pair, w.x)["x"], out.losses["mse_loss"])
    log_theta = pair.guide.posterior.log_threshold
    loss = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    *ours, ours_theta = gradients(loss, [*parameters(pair), log_theta])
    *reference, their_theta = gradients(out.loss, [*their_parameters(sae), sae.threshold])
    agree(ours, reference)
    same(ours_theta / theta, their_theta, 1e-6)  # d/d log θ = θ d/dθ; float32
    l0 = (codes(pair, w.x) != 0).sum(-1).double().mean()
    same(out.losses["l0_loss"], price * l0)
    active = ClosedFormELBO().terms(pair.model, pair.guide, w.x)["active"] / len(w.x)
    idle = K * torch.nn.functional.softplus(torch.tensor(-price))
    same(active - idle, out.losses["l0_loss"])


def test_gated_in_value_and_where_the_paper_trains():
    """Their auxiliary decoder is not frozen, as the paper's is: only the encoder's side agrees."""
    w, price = Weights(), 0.2
    pair = w.into(gated_autoencoder(D, K, l1=price))
    posterior = pair.guide.posterior
    with torch.no_grad():
        posterior.r_mag.copy_(0.2 * torch.randn(K))
        posterior.b_mag.copy_(0.2 * torch.randn(K))
    state = w.of_saelens() | {"r_mag": posterior.r_mag, "b_mag": posterior.b_mag, "b_gate": w.b}
    del state["b_enc"]
    sae = theirs("Gated", state)
    out = step(sae, w.x, l1=price)
    same(codes(pair, w.x), out.feature_acts)
    ours = squared_errors(pair, w.x)
    same(ours["x"], out.losses["mse_loss"])
    same(ours["x_gate"], out.losses["auxiliary_reconstruction_loss"])
    same(ours["gate"] - K * torch.tensor(2 / price).log(), out.losses["l1_loss"])
    loss = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    encoder = posterior.encoder
    leaves = [encoder.W_enc, encoder.b_enc, posterior.r_mag, posterior.b_mag]
    agree(
        gradients(loss, leaves), gradients(out.loss, [sae.W_enc, sae.b_gate, sae.r_mag, sae.b_mag])
    )


def test_l1():
    """With unit atoms their ℓ1, weighted by the norms of atoms, is ours; not its gradient there."""
    from vsae import AmortizedGuide, Autoencoder, DictionaryEncoder, ReLUPosterior, l1_autoencoder

    w, price = Weights(), 0.2
    model = l1_autoencoder(D, K, l1=price).model
    pair = w.into(
        Autoencoder(model, AmortizedGuide(ReLUPosterior(DictionaryEncoder(model.decoder))))
    )
    sae = theirs("Standard", w.of_saelens())
    out, ours = step(sae, w.x, l1=price), squared_errors(pair, w.x)
    same(codes(pair, w.x), out.feature_acts)
    same(ours["x"], out.losses["mse_loss"])
    same(ours["z"] - K * torch.tensor(2 / price).log(), out.losses["l1_loss"])
    loss = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    encoder = pair.guide.posterior.encoder
    leaves = [encoder.W_enc, encoder.b_enc, model.decoder.b_dec]
    agree(gradients(loss, leaves), gradients(out.loss, [sae.W_enc, sae.b_enc, sae.b_dec]))


def test_matching_pursuit():
    """Theirs rectifies each step; with a dictionary that has -w for each w nothing is negative."""
    w = Weights()
    w.W = torch.cat([w.W[: K // 2], -w.W[: K // 2]])
    pair = matching_pursuit_autoencoder(D, K, k=TOP).train()
    with torch.no_grad():
        pair.model.decoder.W_dec.copy_(w.W)
        pair.model.decoder.b_dec.copy_(w.c)
    sae = theirs(
        "MatchingPursuit",
        {"W_dec": w.W, "b_dec": w.c},
        decoder_init_norm=1.0,
        max_iterations=TOP,
        residual_threshold=0.0,
        stop_on_duplicate_support=False,
    )
    out = step(sae, w.x)
    same(codes(pair, w.x), out.feature_acts)
    same(pair.decode(codes(pair, w.x)), out.sae_out)
    same(squared_errors(pair, w.x)["x"], out.losses["mse_loss"])
    loss = ClosedFormELBO()(pair.model, pair.guide)(w.x) / len(w.x)
    ours = gradients(loss, [pair.model.decoder.W_dec, pair.model.decoder.b_dec])
    agree(ours, gradients(out.loss, [sae.W_dec, sae.b_dec]))
