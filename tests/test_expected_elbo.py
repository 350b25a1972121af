"""The expected ELBO against enumeration, matrices, and draws."""

import itertools
import math

import pyro
import pytest
import torch
from iterative_pairs import given, iterative_pair
from program_checks import gaussian_constant, leaves_of
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI
from torch import nn
from torch.distributions import kl_divergence

from priors import (
    BernoulliPrior,
    CholeskyPrior,
    IsotropicPrior,
    LaplacePrior,
    SpikeSlab,
    SpikeSlabPrior,
    TruncatedNormal,
    TruncatedNormalPrior,
)
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    Coherence,
    ExpectedELBO,
    FISTAPosterior,
    FreeDecoder,
    FullGaussianPosterior,
    GaussianPosterior,
    LearnedNoise,
    LinearDecoder,
    LinearEncoder,
    RowNoise,
    SparseAutoencoder,
    SpikeSlabPosterior,
    fit,
    scale_latents,
    topk_autoencoder,
)
from vsae.errors import ConfigError

K, D, ROWS, NOISE = 3, 4, 5, 0.7


def gaussian_pair(decoder=None, prior=None, *, noise=NOISE, seed=0, **settings):
    torch.manual_seed(seed)
    decoder = FreeDecoder(K, D) if decoder is None else decoder
    model = SparseAutoencoder(decoder, prior or IsotropicPrior(K), noise=noise, **settings)
    pair = Autoencoder(model, AmortizedGuide(GaussianPosterior(LinearEncoder(D, 2 * K))))
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    pair.project()
    return pair


def gated_pair(noise=NOISE):
    """Amortised gates and amplitudes, which depend on parameters."""
    torch.manual_seed(0)
    slab = TruncatedNormalPrior(K, loc=0.8, scale=0.5, learnable=True)
    prior = SpikeSlabPrior(BernoulliPrior(K, rate=0.3, learnable=True), slab)
    model = SparseAutoencoder(FreeDecoder(K, D), prior, noise=noise)
    return Autoencoder(model, AmortizedGuide(SpikeSlabPosterior(LinearEncoder(D, 3 * K))))


def activations(rows=ROWS):
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(1))


def assert_same_loss_and_gradients(pair, x, expected):
    loss, leaves = ExpectedELBO().differentiable_loss(pair.model, pair.guide, x), leaves_of(pair)
    torch.testing.assert_close(loss, expected)
    mine = torch.autograd.grad(loss, leaves.values())
    theirs = torch.autograd.grad(expected, leaves.values())
    for name, ours, oracle in zip(leaves, mine, theirs, strict=True):
        torch.testing.assert_close(ours, oracle, msg=name)
        assert oracle.abs().sum() > 0, name


def test_of_gaussian_codes_by_matrices():
    """E‖x - b - zW‖² = ‖x - b - μW‖² + tr(W Wᵀ diag s²), and every gradient."""
    pair = gaussian_pair(noise=LearnedNoise(NOISE))
    x, decoder = activations(), pair.model.decoder
    q = pair.guide.posterior(x)["z"]
    gram, covariance = decoder.W_dec @ decoder.W_dec.mT, torch.diag_embed(q.variance)
    square = (x - decoder.b_dec - q.mean @ decoder.W_dec).square().sum()
    square = square + torch.einsum("bkl,lk->", covariance, gram)
    sigma = pair.model.noise()
    expected = square / (2 * sigma**2) + ROWS * D * (sigma.log() + 0.5 * math.log(2 * math.pi))
    expected = expected + kl_divergence(q, pair.model.prior()).sum()
    assert_same_loss_and_gradients(pair, x, expected)


@pytest.mark.parametrize("noise", [NOISE, LearnedNoise(NOISE)], ids=["fixed", "learned"])
def test_of_gates_by_enumeration(noise):
    """Every state of the gates; given it, amplitudes are independent. Gates' gradients too."""
    pair = gated_pair(noise)
    x, decoder = activations(), pair.model.decoder
    q, sigma = pair.guide.posterior(x)["z"], pair.model.noise()
    size, spread = q.slab.base_dist.mean, q.slab.base_dist.variance
    square = 0.0
    for state in itertools.product((0.0, 1.0), repeat=K):
        gates = torch.tensor(state)
        error = x - decoder(gates * size)
        given = error.square().sum(-1)
        given = given + (gates * spread) @ decoder.W_dec.square().sum(-1)
        square = square + q.gates.log_prob(gates.expand(ROWS, K)).exp() * given
    expected = (square / (2 * sigma**2)).sum()
    expected = expected + ROWS * D * (torch.as_tensor(sigma).log() + 0.5 * math.log(2 * math.pi))
    expected = expected + kl_divergence(q, pair.model.prior()).sum()
    assert_same_loss_and_gradients(pair, x, expected)


@pytest.mark.parametrize("noise", [NOISE, LearnedNoise(NOISE)], ids=["fixed", "learned"])
def test_is_the_mean_over_draws_of_the_closed_form_one(noise):
    """Value and every gradient, each within its own error."""
    pair = gaussian_pair(noise=noise)
    x, leaves, batches, copies = activations(2), leaves_of(pair), 60, 200

    def found(elbo, rows):
        loss = elbo.differentiable_loss(pair.model, pair.guide, rows) / (len(rows) / len(x))
        parts = torch.autograd.grad(loss, leaves.values())
        return torch.cat([loss.detach().view(1), *(p.flatten() for p in parts)])

    expected = found(ExpectedELBO(), x)
    draws = torch.stack([found(ClosedFormELBO(), x.repeat(copies, 1)) for _ in range(batches)])
    error = draws.std(0) / batches**0.5
    assert ((draws.mean(0) - expected).abs() < 5 * error + 1e-12).all()
    assert (draws.std(0) > 1e-6).sum() > len(expected) // 2


def test_of_points_it_is_the_closed_form_one():
    x, prior = activations(), LaplacePrior(K)
    pair = iterative_pair(FISTAPosterior, LinearDecoder(K, D), prior, noise=NOISE)
    ours, theirs = (e.terms(pair.model, pair.guide, x) for e in (ExpectedELBO(), ClosedFormELBO()))
    torch.testing.assert_close(ours, theirs)


def test_the_variance_shortens_atoms_and_turns_none():
    """Its gradient is along each atom, of length Var z / σ²: unit atoms feel nothing of it."""
    pair = gaussian_pair()
    x, atoms = activations(), pair.W_dec
    loss = ExpectedELBO().differentiable_loss(pair.model, pair.guide, x)
    q, decoder = pair.guide.posterior(x)["z"], pair.model.decoder
    at_mean = (x - decoder(q.mean)).square().sum() / (2 * NOISE**2)
    total, from_mean = (torch.autograd.grad(v, atoms)[0] for v in (loss, at_mean))
    expected = q.variance.sum(0)[:, None] * atoms / NOISE**2
    torch.testing.assert_close(total - from_mean, expected)


def test_draws_nothing():
    pair, x = gated_pair(), activations()
    before = torch.get_rng_state()
    losses = {ExpectedELBO().loss(pair.model, pair.guide, x) for _ in range(3)}
    svi = SVI(pair.pyro_model, pair.pyro_guide, pyro.optim.Adam({"lr": 0.01}), ExpectedELBO())
    assert svi.evaluate_loss(x) in losses
    svi.step(x)
    pyro.clear_param_store()
    assert torch.equal(torch.get_rng_state(), before)
    assert len(losses) == 1
    runs = []
    for seed in (0, 1):  # one batch: the seed has nothing to decide
        twin = gated_pair()
        fit(twin, x, steps=3, batch_size=ROWS, elbo=ExpectedELBO(), seed=seed).run(progress=False)
        runs.append(twin.W_dec.detach())
    torch.testing.assert_close(*runs)


def test_scales_masks_and_factors():
    """β is on the KL alone, rows that are masked do not count, a belief about atoms does once."""
    pair, x = gaussian_pair(LinearDecoder(K, D)), activations()
    terms = ExpectedELBO().terms(pair.model, pair.guide, x)
    with scale_latents(0.25):
        scaled = ExpectedELBO().terms(pair.model, pair.guide, x)
    torch.testing.assert_close(scaled, terms | {"z": 0.25 * terms["z"]})
    objective = ExpectedELBO()(pair.model, pair.guide)
    with poutine.mask(mask=torch.arange(ROWS) < 3):
        masked = objective(x)
    torch.testing.assert_close(masked, objective(x[:3]))
    with poutine.scale(scale=7.0):
        torch.testing.assert_close(objective(x), 7 * sum(terms.values()))
    belief = Coherence(pair.model.decoder, weight=2.0, threshold=0.0)
    pair.model.dictionary = belief
    more = ExpectedELBO().terms(pair.model.train(), pair.guide, x)
    torch.testing.assert_close(more, terms | {"dictionary": -ROWS * belief()})
    assert belief() < 0
    assert ExpectedELBO().terms(pair.model.eval(), pair.guide, x).keys() == terms.keys()


def test_a_noise_per_row():
    """E[log p(x | z, σ)] of every row at its own σ, and minus the log-density of σ."""
    pair, x = gaussian_pair(noise=RowNoise(0.3, shape=2.0)), activations()
    q = pair.guide.posterior(x)["z"]
    sigma = torch.linspace(0.3, 2.0, ROWS)
    guide = given(z=q, noise=dist.Delta(sigma))
    found = ExpectedELBO().site_terms(pair.model, guide, x)
    decoder = pair.model.decoder
    square = (x - decoder(q.mean)).square().sum(-1)
    square = square + q.variance @ decoder.W_dec.square().sum(-1)
    expected = square / (2 * sigma**2) + D * (sigma.log() + 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(found["x"], expected)
    pareto = math.log(2.0) + 2.0 * math.log(0.3) - 3.0 * sigma.log()
    torch.testing.assert_close(found["noise"], -pareto)


def test_a_stack_is_its_models():
    pairs = [gaussian_pair(seed=seed) for seed in (0, 1)]
    x = activations(2 * ROWS).view(2, ROWS, D)
    stacked = stack(pairs)
    found = ExpectedELBO().site_terms(stacked.model, stacked.guide, x)
    for number, (pair, rows) in enumerate(zip(pairs, x, strict=True)):
        expected = ExpectedELBO().site_terms(pair.model, pair.guide, rows)
        torch.testing.assert_close({n: v[number] for n, v in found.items()}, expected)


def test_nothing_to_decode_costs_the_noise_alone():
    """All latents off for certain: no mean, no variance, no KL of amplitudes."""
    pair, x = gated_pair(), activations()
    off = SpikeSlab(
        dist.Bernoulli(torch.zeros(ROWS, K)).to_event(1),
        dist.Independent(TruncatedNormal(torch.ones(ROWS, K), torch.ones(ROWS, K)), 1),
    )
    terms = ExpectedELBO().terms(pair.model, given(z=off), x)
    square = (x - pair.b_dec).square().sum() / (2 * NOISE**2)
    torch.testing.assert_close(terms["x"], square + gaussian_constant(ROWS, D, NOISE))
    assert terms["z"].item() == pytest.approx(-ROWS * K * math.log(0.7), rel=1e-6)


# What is refused.


def refused(model, guide, x):
    with pytest.raises(ConfigError) as caught:
        ExpectedELBO().loss(model, guide, x)
    return caught.value.code, caught.value.context.get("site")


def test_codes_that_do_not_enter_linearly():
    x = activations()
    linked = gaussian_pair(link=nn.ReLU())
    assert refused(linked.model, linked.guide, x)[0] == "elbo.expected"
    slots = topk_autoencoder(D, 8, k=2)
    assert refused(slots.model, slots.guide, x)[0] == "elbo.expected"


def test_codes_that_are_not_independent():
    """A covariance has terms that the sum of variances leaves out."""
    x, pair = activations(), gaussian_pair(prior=CholeskyPrior(K))
    full = FullGaussianPosterior(LinearEncoder(D, 2 * K + K * (K - 1) // 2), K)
    assert refused(pair.model, AmortizedGuide(full), x) == ("elbo.expected", "z")


def test_a_noise_that_is_not_a_point():
    """E[1/σ²] is not 1/E[σ]²."""
    pair, x = gaussian_pair(noise=RowNoise(0.3)), activations()
    q = pair.guide.posterior(x)["z"]
    pareto = dist.Pareto(torch.full((ROWS,), 0.3), torch.tensor(4.0))
    guide = given(z=q, noise=pareto)
    assert refused(pair.model, guide, x) == ("elbo.expected", "noise")
