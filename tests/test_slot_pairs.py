"""A code in slots is a way of writing a dense code, and every pair an ordinary Pyro program."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from slot_pairs import PRIORS, ROWS, SLOT_PAIRS, WIDTH, D, K, topk
from torch import nn

from vsae import (
    AmortizedGuide,
    ClosedFormELBO,
    SparseAutoencoder,
    SparseCode,
    fit,
    load,
    save,
    scale_latents,
)
from vsae.errors import DTypeError, ShapeError
from vsae.posteriors import point

OBSERVED = {"x", "residual"}
each_pair = pytest.mark.parametrize("kind", SLOT_PAIRS)


class Densified(nn.Module):
    """A posterior in slots as a point over dense codes, ``{"z": Delta (B, K)}``."""

    def __init__(self, posterior):
        super().__init__()
        self.posterior = posterior

    def forward(self, x):
        sites = self.posterior(x)
        zeros = sites["z"].v.new_zeros(len(x), K)
        return {"z": point(zeros.scatter(-1, sites["support"].v, sites["z"].v))}


def gradients(loss, modules):
    leaves = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, leaves.values(), allow_unused=True)
    return [None if g is None else g for g in found]


@pytest.mark.parametrize("selection", SLOT_PAIRS)
@pytest.mark.parametrize("prior", PRIORS)
def test_the_sparse_elbo_is_the_dense_one(prior, selection):
    pair, x = SLOT_PAIRS[selection](prior), torch.randn(ROWS, D)
    posterior = pair.guide.posterior
    dense = SparseAutoencoder(pair.model.decoder, pair.model.prior, noise=0.5)
    ours = ClosedFormELBO().terms(pair.model, pair.guide, x)
    oracle = ClosedFormELBO().terms(dense, AmortizedGuide(Densified(posterior)), x)
    ours, oracle = ours["z"] + ours["x"], oracle["z"] + oracle["x"]
    torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-10)
    parts = [pair.model.decoder, pair.model.prior, posterior]
    for mine, theirs in zip(gradients(ours, parts), gradients(oracle, parts), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
        assert theirs.abs().sum() > 0


@each_pair
@pytest.mark.parametrize("oracle", [TraceMeanField_ELBO, Trace_ELBO])
def test_agrees_with_pyro(kind, oracle):
    pair, x = SLOT_PAIRS[kind](), torch.randn(ROWS, D)
    ours, theirs = ClosedFormELBO()(pair.model, pair.guide), oracle()(pair.model, pair.guide)
    torch.testing.assert_close(ours(x), theirs(x))
    named = [(n, p) for n, p in ours.named_parameters() if p.requires_grad]
    leaves = [p for _, p in named]
    mine, reference = torch.autograd.grad(ours(x), leaves), torch.autograd.grad(theirs(x), leaves)
    for (name, _), a, b in zip(named, mine, reference, strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().sum() > 0, name


@each_pair
def test_stock_svi_moves_every_parameter(kind):
    pair, x = SLOT_PAIRS[kind](), torch.randn(ROWS, D)
    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    svi = SVI(pair.pyro_model, pair.pyro_guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(30)]
    pyro.clear_param_store()
    assert losses[-1] < losses[0]
    for name, parameter in pair.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@each_pair
def test_scale_latents_scales_latents_alone(kind):
    pair, x = SLOT_PAIRS[kind](), torch.randn(ROWS, D)
    terms = ClosedFormELBO().terms(pair.model, pair.guide, x)
    with scale_latents(0.25):
        scaled = ClosedFormELBO()(pair.model, pair.guide)(x)
        by_pyro = Trace_ELBO()(pair.model, pair.guide)(x)
    expected = sum(v if n in OBSERVED else 0.25 * v for n, v in terms.items())
    torch.testing.assert_close(scaled, expected)
    torch.testing.assert_close(by_pyro, expected)


@each_pair
def test_masked_rows_do_not_count(kind):
    pair, x = SLOT_PAIRS[kind](), torch.randn(ROWS, D)
    objective, valid = ClosedFormELBO()(pair.model, pair.guide), torch.arange(ROWS) < 30
    if kind == "batch topk":  # one threshold couples the rows of a batch: mask in evaluation mode
        pair.eval()
        pair.guide.posterior.threshold.fill_(1.0)
    with poutine.mask(mask=valid):
        masked = objective(x)
    torch.testing.assert_close(masked, objective(x[:30]))


@each_pair
def test_predictive(kind):
    pair, x = SLOT_PAIRS[kind](), torch.randn(ROWS, D)
    drawn = Predictive(pair.model, guide=pair.guide, num_samples=2)(x)
    assert drawn["support"].shape == drawn["z"].shape == (2, ROWS, pair.model.width)


def test_the_support_costs_a_constant():
    pair = topk()
    cost = ClosedFormELBO().terms(pair.model, pair.guide, torch.randn(ROWS, D))["support"]
    expected = torch.tensor(ROWS * math.log(math.comb(K, WIDTH)))
    torch.testing.assert_close(cost, expected, check_dtype=False)


@pytest.mark.filterwarnings("ignore")
@each_pair
def test_export_keeps_the_sparse_backward(kind):
    pair, x = SLOT_PAIRS[kind](), torch.randn(ROWS, D)
    objective = ClosedFormELBO()(pair.model, pair.guide)
    with pyro.validation_enabled(False):
        exported = torch.export.export(objective, (x,), strict=False)
    called = {str(node.target) for node in exported.graph.nodes}
    assert {"vsae.select.default", "vsae.bag.default"} <= called
    step = exported.module()
    torch.testing.assert_close(step(x), objective(x))
    ours = {n: p for n, p in objective.named_parameters() if p.requires_grad}
    theirs = dict(step.named_parameters())
    mine = torch.autograd.grad(objective(x), ours.values())
    kept = torch.autograd.grad(step(x), [theirs[n] for n in ours])
    torch.testing.assert_close(kept, mine)


@each_pair
def test_saved_and_loaded_it_is_the_same(kind, tmp_path):
    pair, x = SLOT_PAIRS[kind](), torch.randn(ROWS, D)
    fit(pair, x, steps=3, batch_size=20, lr=1e-2).run(progress=False)
    again = load(save(pair, tmp_path / "sae"))
    assert torch.equal(again(x), pair(x))
    assert torch.equal(again.elbo(x), pair.elbo(x))
    state = pair.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    assert again.guide.posterior.encoder.decoder is again.model.decoder
    first, second = (fit(p, x, steps=2, batch_size=20).run(progress=False) for p in (pair, again))
    assert first == second


@each_pair
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_parameters_and_other_dtypes_of_data_are_refused(kind, dtype):
    pair, x = SLOT_PAIRS[kind](), torch.randn(ROWS, D)
    for wrong in (x.to(dtype), x.float()):
        with pytest.raises(DTypeError) as caught:
            pair.code(wrong)
        assert caught.value.code == "data.dtype"
    with pytest.raises(DTypeError) as caught:
        fit(pair.to(dtype), x.to(dtype), steps=1, batch_size=20)
    assert caught.value.code == "model.dtype"


def test_a_code_means_the_same_dense_and_in_slots_even_if_a_latent_comes_twice():
    pair = topk()
    twice = SparseCode(torch.tensor([[3, 3]]), torch.tensor([[0.5, 1.0]]), latents=K)
    torch.testing.assert_close(pair.decode(twice), pair.decode(twice.dense()))
    outside = SparseCode(torch.tensor([[K]]), torch.tensor([[0.5]]), latents=K)
    for read in (pair.decode, SparseCode.dense):
        with pytest.raises(ShapeError) as caught:
            read(outside)
        assert caught.value.code == "slots.out_of_range"
