"""Switch: one expert per row, load balancing, and the published loss."""

import time

import numpy as np
import pytest
import torch
from program_checks import (
    HALF,
    assert_equals_published,
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

from priors import LaplacePrior
from vsae import ClosedFormELBO, DictionaryEncoder, LinearDecoder, TopKPosterior, fit
from vsae.errors import VsaeError
from vsae.models.switch import SwitchAutoencoder, imbalance
from vsae.posteriors.switch import SwitchPosterior
from vsae.presets.switch import switch_autoencoder

D, K, E, SLOTS, ROWS, ALPHA = 6, 24, 4, 3, 30, 0.7


def switch(k=SLOTS, experts=E, balance=ALPHA, prior=None):
    """In training mode, away from where it starts."""
    torch.manual_seed(0)
    pair = switch_autoencoder(D, K, k=k, experts=experts, balance=balance).train()
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    pair.project()
    if prior is not None:
        pair.model.prior = prior
    return pair


def by_hand(pair, x):
    """Dense, as in the authors' code: all experts are run, all but one multiplied by zero."""
    q, decoder = pair.guide.posterior, pair.model.decoder
    dense = ((x - decoder.b_dec) @ q.encoder.W_enc.T + q.encoder.b_enc).relu()
    route = ((x - q.b_router) @ q.W_router.T).softmax(-1)
    best = route.max(-1, keepdim=True).values
    filtered = torch.where(route == best, route, 0.0).repeat_interleave(K // E, -1)
    code = dense * filtered
    bar = code.detach().topk(SLOTS, dim=-1).values[:, -1:]
    code = torch.where(code >= bar, code, 0.0)
    share = torch.tensor([(route.argmax(-1) == i).double().mean() for i in range(E)])
    return code, route, E * (share * route.mean(0)).sum()


def test_elbo_is_the_published_loss():
    """Σ_b ‖x - x̂‖² + B α E Σ f P, value and every gradient, the router's included."""
    pair, x = switch(), torch.randn(ROWS, D)
    code, route, load = by_hand(pair, x)
    assert len(set(route.argmax(-1).tolist())) == E  # every expert has rows
    published = (x - code @ pair.W_dec - pair.b_dec).square().sum() + ROWS * ALPHA * load
    support = ClosedFormELBO().terms(pair.model, pair.guide, x)["support"].detach()
    assert_equals_published(pair, x, published, gaussian_constant(ROWS, D, HALF) + support)


def test_code_is_the_dense_one():
    pair, x = switch(), torch.randn(2, ROWS, D)
    expected = torch.stack([by_hand(pair, part)[0] for part in x])
    torch.testing.assert_close(pair.encode(x), expected)


def test_every_slot_is_in_the_block_of_the_routes_greatest():
    pair, x = switch(), torch.randn(ROWS, D)
    sites = pair.guide.posterior(x)
    expert = sites["route"].v.argmax(-1)
    block = sites["support"].v // (K // E)
    assert torch.equal(block, expert[:, None].expand(-1, SLOTS))
    assert all(len(set(row)) == SLOTS for row in sites["support"].v.tolist())


def test_evaluation_has_no_factor():
    pair, x = switch(), torch.randn(ROWS, D)
    training = ClosedFormELBO().terms(pair.model, pair.guide, x)
    pair.eval()
    bound = ClosedFormELBO().terms(pair.model, pair.guide, x)
    assert set(training) - set(bound) == {"balance"}
    torch.testing.assert_close(bound, {name: training[name] for name in bound})
    torch.testing.assert_close(training["balance"], ROWS * ALPHA * by_hand(pair, x)[2])
    assert training["route"] == 0


def test_imbalance_is_least_where_loads_are_even():
    """E Σ f P: 1 for even loads and routes, E for one expert; by numpy elsewhere."""
    torch.testing.assert_close(imbalance(torch.full((8, 4), 0.25)).mean(), torch.tensor(1.0))
    assert imbalance(torch.eye(4)[[2, 2, 2]]).tolist() == [4.0, 4.0, 4.0]
    route = torch.randn(50, 5).softmax(-1)
    array = route.numpy()
    share = np.bincount(array.argmax(1), minlength=5) / 50
    assert imbalance(route).mean().item() == pytest.approx(5 * share @ array.mean(0), rel=1e-12)


def test_balancing_spreads_the_rows():
    """From a router that sends all rows to expert 0."""
    x, used = torch.randn(256, D), {}
    for balance in (0.0, 5.0):
        pair = switch(balance=balance)
        with torch.no_grad():
            pair.guide.posterior.W_router.mul_(0.3)
            pair.guide.posterior.b_router.copy_(-20 * pair.guide.posterior.W_router[0])
        before = pair.guide.posterior(x)["route"].v.argmax(-1).bincount(minlength=E)
        fit(pair, x, steps=120, batch_size=256, lr=2e-2).run(progress=False)
        used[balance] = pair.guide.posterior(x)["route"].v.argmax(-1).bincount(minlength=E)
    assert before.max() > 200  # of 256
    assert used[5.0].max() < 100
    assert used[5.0].min() > 30
    assert used[5.0].max() < used[0.0].max()


@pytest.mark.parametrize("prior", [None, LaplacePrior])
def test_is_an_ordinary_program(prior):
    pair, x = switch(prior=prior and prior(K)), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(pair, x)
    assert_only_latents_are_scaled(pair, x, {"support", "route", "z"})
    slots = {"support": (ROWS, SLOTS), "z": (ROWS, SLOTS), "route": (ROWS, E), "x": (ROWS, D)}
    assert_predictive_draws(pair.eval(), x, slots)
    assert_masked_rows_do_not_count(pair, x)  # the factor, of training alone, couples rows
    assert_svi_trains(pair.train(), x)


def test_saves_and_loads(tmp_path):
    assert_saved_is_loaded(switch(), torch.randn(ROWS, D), tmp_path / "sae")


def test_one_expert_is_topk():
    """E = 1: the route is 1, its derivative 0, and the load always even."""
    pair, x = switch(experts=1), torch.randn(ROWS, D)
    topk = TopKPosterior(pair.guide.posterior.encoder, k=SLOTS)(x)
    dense = torch.zeros(ROWS, K).scatter(-1, topk["support"].v, topk["z"].v)
    torch.testing.assert_close(pair.encode(x), dense)


def test_degenerate_inputs():
    for settings, code in (
        ({"experts": 5}, "switch.experts"),
        ({"experts": 0}, "switch.experts"),
        ({"k": K // E + 1}, "select.k"),
        ({"k": 0}, "select.k"),
        ({"balance": -1.0}, "switch.balance"),
        ({"balance": float("nan")}, "switch.balance"),
    ):
        with pytest.raises(VsaeError) as caught:
            switch(**settings)
        assert caught.value.code == code
    with pytest.raises(VsaeError) as caught:
        SwitchPosterior(DictionaryEncoder(LinearDecoder(K, D)), experts=7, k=1)
    assert caught.value.code == "switch.experts"
    assert switch(k=K // E).elbo(torch.randn(1, D)).isfinite()  # one row, whole blocks
    pair, x = switch(), torch.randn(ROWS, D)
    with torch.no_grad():  # routes underflow to exact zeros, codes are all zero
        pair.guide.posterior.W_router.mul_(1e6)
        pair.guide.posterior.encoder.b_enc.fill_(-1e3)
    loss = ClosedFormELBO()(pair.model, pair.guide)(x)
    assert (pair.guide.posterior(x)["route"].v == 0).any()
    gradients = torch.autograd.grad(loss, leaves_of(pair).values(), allow_unused=True)
    assert all(g.isfinite().all() for g in gradients)
    assert not pair.encode(x).any()
    assert pair.encode(x[:0]).shape == (0, K)


def test_tied_routes_go_to_one_expert():
    pair, x = switch(), torch.randn(ROWS, D)
    nn.init.zeros_(pair.guide.posterior.W_router)
    sites = pair.guide.posterior(x)
    assert (sites["support"].v // (K // E)).unique().numel() == 1
    torch.testing.assert_close(sites["route"].v, torch.full((ROWS, E), 1 / E))


@pytest.mark.slow
def test_the_encoder_costs_its_share():
    """E = 16, one thread: well under half of TopK's time; 1/16 plus sorting in principle."""
    d, latents, rows = 256, 8192, 1024
    encoder = DictionaryEncoder(LinearDecoder(latents, d))
    x, best = torch.randn(rows, d), {}
    posteriors = {
        "topk": TopKPosterior(encoder, k=16),
        "switch": SwitchPosterior(encoder, experts=16, k=16),
    }
    for name, q in posteriors.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            q(x)
            times.append(time.perf_counter() - start)
        best[name] = min(times)
    assert best["switch"] < 0.4 * best["topk"]


def test_refuses_replicas():
    from priors.replicas import stack

    with pytest.raises(VsaeError) as caught:
        stack([switch(), switch()])
    assert caught.value.code == "replicas.slots"
    assert isinstance(switch().model, SwitchAutoencoder)
