"""Guides that iterate: optimality of what they find, and the ELBOs they are trained with."""

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import nnls
from torch import nn

from priors import (
    BernoulliPrior,
    ExponentialPrior,
    Graph,
    HalfNormalPrior,
    IsingGatesPrior,
    LaplacePrior,
    SpikeSlabPrior,
    TreeGatesPrior,
    TruncatedNormalPrior,
)
from priors.errors import ConfigError
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    ExpectedELBO,
    FISTAPosterior,
    FixedNoise,
    LinearDecoder,
    MeanFieldPosterior,
    RelaxedFISTAPosterior,
    RowNoise,
    SparseAutoencoder,
    UnrolledFISTAPosterior,
    UnrolledMeanFieldPosterior,
)
from vsae.posteriors.fista import greatest_eigenvalue

NOISE = 0.3


def dictionary(latents: int, width: int, seed: int = 0, *, coherent: bool = False) -> LinearDecoder:
    generator = torch.Generator().manual_seed(seed)
    decoder = LinearDecoder(latents, width)
    atoms = torch.randn(latents, width, generator=generator)
    if coherent:
        atoms = atoms + 1.5 * torch.randn(width, generator=generator)
    with torch.no_grad():
        decoder.W_dec.copy_(nn.functional.normalize(atoms, dim=-1))
        decoder.b_dec.copy_(0.1 * torch.randn(width, generator=generator))
    return decoder


def rows(decoder: LinearDecoder, count: int = 7, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(count, decoder.latents, generator=generator)
    codes = torch.where(codes > 0.7, 1 + codes, 0.0)
    noise = NOISE * torch.randn(count, decoder.d_model, generator=generator)
    return decoder(codes).detach() + noise


# --- FISTA ---------------------------------------------------------------------------------------


def objective(decoder, x, z, rate):
    residual = x - decoder(z)
    return residual.square().sum(-1) / (2 * NOISE**2) + rate * z.abs().sum(-1)


def kkt(decoder, x, z, rate):
    """Greatest violation of the optimality conditions of non-negative ℓ1 coding, in units of z."""
    pull = (x - decoder(z)) @ decoder.W_dec.mT - NOISE**2 * rate
    return torch.where(z > 0, pull.abs(), pull.clamp(min=0)).max().item()


@pytest.mark.parametrize("coherent", [False, True])
def test_fista_reaches_the_conditions_of_optimality(coherent):
    decoder = dictionary(12, 6, coherent=coherent)
    x = rows(decoder)
    prior = ExponentialPrior(12, scale=0.5)
    z = FISTAPosterior(decoder, prior, FixedNoise(NOISE), iterations=20_000)(x)["z"].mean
    assert (z >= 0).all()
    assert (z > 0).any()
    assert (z == 0).any()
    assert kkt(decoder, x, z, rate=2.0) < 1e-5


def test_fista_agrees_with_an_active_set_solver():
    decoder = dictionary(9, 5)
    x = rows(decoder)
    prior = ExponentialPrior(9, scale=0.5)
    z = FISTAPosterior(decoder, prior, FixedNoise(NOISE), iterations=20_000)(x)["z"].mean
    # ½‖t - zW‖² + λΣz = ½‖[t; -c] - z[W, m]‖² + const, with a column that adds up the codes
    atoms, weight = decoder.W_dec.detach().numpy(), 1e-4
    for row, found in zip((x - decoder.b_dec).detach().numpy(), z.numpy(), strict=True):
        tall = np.vstack([atoms.T, weight * np.ones((1, 9))])
        target = np.concatenate([row, [-2.0 * NOISE**2 / weight]])
        assert nnls(tall, target, maxiter=10_000)[0] == pytest.approx(found, abs=1e-4)


def test_fista_is_within_the_published_bound_at_every_iteration():
    decoder, rate = dictionary(12, 6, coherent=True), 2.0
    x = rows(decoder)

    def solve(iterations):
        prior = ExponentialPrior(12, scale=1 / rate)
        guide = FISTAPosterior(decoder, prior, FixedNoise(NOISE), iterations=iterations)
        return guide(x)["z"].mean

    best = solve(20_000)
    least = objective(decoder, x, best, rate)
    length = greatest_eigenvalue(decoder.W_dec)
    for t in (1, 2, 5, 10, 20, 50):
        bound = 2 * length * best.square().sum(-1) / (NOISE**2 * (t + 1) ** 2)
        assert (objective(decoder, x, solve(t), rate) - least <= bound + 1e-9).all()


@pytest.mark.parametrize(("latents", "width"), [(12, 6), (4, 9), (40, 8)])
def test_the_step_length_is_safe_and_not_much_shorter_than_need_be(latents, width):
    atoms = dictionary(latents, width, coherent=True).W_dec.detach()
    exact = torch.linalg.matrix_norm(atoms, 2).item() ** 2
    found = greatest_eigenvalue(atoms).item()
    assert exact * (1 - 1e-12) <= found <= exact * min(latents, width) ** (1 / 32) * (1 + 1e-12)


def test_a_laplace_prior_gives_codes_of_either_sign():
    decoder = dictionary(10, 5)
    x = rows(decoder)
    prior = LaplacePrior(10, scale=0.5)
    z = FISTAPosterior(decoder, prior, FixedNoise(NOISE), iterations=20_000)(x)["z"].mean
    pull = (x - decoder(z)) @ decoder.W_dec.mT
    active = z != 0
    assert (z < 0).any()
    assert torch.allclose(pull[active], 2.0 * NOISE**2 * z[active].sign(), atol=1e-6)
    assert (pull[~active].abs() <= 2.0 * NOISE**2 + 1e-7).all()


def test_the_elbo_of_a_map_code_is_minus_the_objective():
    decoder = dictionary(12, 6)
    x, prior = rows(decoder), ExponentialPrior(12, scale=0.5)
    model = SparseAutoencoder(decoder, prior, noise=NOISE)
    guide = AmortizedGuide(FISTAPosterior(decoder, prior, model.noise))
    z = guide.posterior(x)["z"].mean
    constants = 12 * math.log(0.5) + 6 * (math.log(NOISE) + 0.5 * math.log(2 * math.pi))
    expected = (objective(decoder, x, z, 2.0) + constants).sum().item()
    for elbo in (ClosedFormELBO(), ExpectedELBO()):
        assert elbo.loss(model, guide, x) == pytest.approx(expected, rel=1e-12)


def test_only_the_unrolled_code_has_a_gradient_and_it_is_that_of_the_iterations():
    decoder, prior = dictionary(5, 3), ExponentialPrior(5, scale=0.5)
    x, noise = rows(decoder, 3), FixedNoise(NOISE)
    assert not FISTAPosterior(decoder, prior, noise)(x)["z"].mean.requires_grad
    unrolled = UnrolledFISTAPosterior(decoder, prior, noise, iterations=4)
    length = greatest_eigenvalue(decoder.W_dec)

    def codes(atoms):  # the step length is a constant of the derivative
        z = ahead = x.new_zeros(3, 5)
        momentum = 1.0
        for _ in range(4):
            pull = (x - decoder.b_dec.detach() - ahead @ atoms) @ atoms.mT
            new = (ahead + (pull - 2.0 * NOISE**2) / length).clamp(min=0)
            after = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead, z, momentum = new + (momentum - 1) / after * (new - z), new, after
        return z.square().sum()

    (found,) = torch.autograd.grad(unrolled(x)["z"].mean.square().sum(), decoder.W_dec)
    atoms, step = decoder.W_dec.detach().clone(), 1e-6
    for k, j in itertools.product(range(5), range(3)):
        there, back = atoms.clone(), atoms.clone()
        there[k, j] += step
        back[k, j] -= step
        slope = (codes(there) - codes(back)) / (2 * step)
        assert found[k, j].item() == pytest.approx(slope.item(), abs=1e-6)


def test_relaxed_amplitudes_are_non_negative_least_squares_on_the_support():
    decoder, prior = dictionary(10, 6), ExponentialPrior(10, scale=0.5)
    x, noise = rows(decoder), FixedNoise(NOISE)
    code = FISTAPosterior(decoder, prior, noise, iterations=5_000)(x)["z"].mean
    relaxed = RelaxedFISTAPosterior(decoder, prior, noise, k=3, iterations=5_000)(x)["z"].mean
    atoms, targets = decoder.W_dec.detach().numpy(), (x - decoder.b_dec).detach().numpy()
    for row, first, found in zip(targets, code, relaxed, strict=True):
        support = [k for k in first.topk(3).indices.tolist() if first[k] > 0]
        expected = np.zeros(10)
        expected[support] = nnls(atoms[support].T, row)[0]
        assert found.numpy() == pytest.approx(expected, abs=1e-6)


def test_a_prior_without_a_proximal_step_is_refused():
    decoder = dictionary(4, 3)
    guide = FISTAPosterior(decoder, HalfNormalPrior(4), FixedNoise(1.0))
    with pytest.raises(ConfigError) as caught:
        guide(torch.zeros(2, 3))
    assert caught.value.code == "fista.prior"
    with pytest.raises(ConfigError) as caught:
        FISTAPosterior(decoder, ExponentialPrior(4), FixedNoise(1.0), iterations=0)
    assert caught.value.code == "iterations.count"


# --- mean field ----------------------------------------------------------------------------------

LATENTS, WIDTH, DRAWS = 6, 4, 300
SLABS = {
    "truncated": lambda: TruncatedNormalPrior(LATENTS, loc=1.2, scale=0.3),
    "half": lambda: HalfNormalPrior(LATENTS, scale=1.0),
    "exponential": lambda: ExponentialPrior(LATENTS, scale=0.8),
}
GATES = {
    "independent": lambda: BernoulliPrior(LATENTS, rate=0.2),
    "ising": lambda: IsingGatesPrior(
        Graph(
            torch.tensor([[0, 2], [1, 3]]), torch.tensor([0.8, -1.0]).double(), LATENTS, signed=True
        ),
        rate=0.2,
    ),
    "tree": lambda: TreeGatesPrior([-1, 0, 0, -1, 3, 3], rate=0.3, leak=0.1, exclusion=0.5),
}


def pair(gates="independent", slab="truncated", *, noise=NOISE, iterations=3000, unrolled=False):
    decoder = dictionary(LATENTS, WIDTH)
    prior = SpikeSlabPrior(GATES[gates](), SLABS[slab]())
    model = SparseAutoencoder(decoder, prior, noise=noise)
    family = UnrolledMeanFieldPosterior if unrolled else MeanFieldPosterior
    posterior = family(decoder, prior, model.noise, iterations=iterations, damping=0.2)
    return model, AmortizedGuide(posterior)


class Given(nn.Module):
    """A guide that samples given distributions."""

    def __init__(self, sites):
        super().__init__()
        self.sites = sites

    def forward(self, x):
        with pyro.plate("rows", len(x), dim=-1):
            return {name: pyro.sample(name, q) for name, q in self.sites.items()}


def changed(sites, row, k, *, logit=0.0, loc=0.0, scale=1.0):
    """The posterior with one latent of one row moved."""
    from priors.spike_slab import SpikeSlab
    from priors.truncated_normal import TruncatedNormal

    q = sites["z"]
    logits = q.gates.base_dist.logits.clone()
    where, width = q.slab.base_dist.loc.clone(), q.slab.base_dist.scale.clone()
    logits[row, k] += logit
    where[row, k] += loc
    width[row, k] *= scale
    gates = dist.Bernoulli(logits=logits).to_event(1)
    return sites | {"z": SpikeSlab(gates, dist.Independent(TruncatedNormal(where, width), 1))}


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("slab", SLABS)
def test_at_a_fixed_point_no_change_of_one_latent_raises_the_elbo(gates, slab):
    model, guide = pair(gates, slab)
    x = rows(model.decoder, 1)
    sites = guide.posterior(x)
    least = ExpectedELBO().loss(model, Given(sites), x)
    moves = [{"logit": 0.05}, {"loc": 0.02}, {"scale": 1.05}]
    moves += [{"logit": -0.05}, {"loc": -0.02}, {"scale": 0.95}, {"logit": 3.0}, {"logit": -3.0}]
    for k, move in itertools.product(range(LATENTS), moves):
        loss = ExpectedELBO().loss(model, Given(changed(sites, 0, k, **move)), x)
        assert loss >= least - 1e-8, (k, move)


def test_the_noise_of_a_row_maximises_the_elbo():
    model, guide = pair(noise=RowNoise(0.05, shape=1.5))
    x = rows(model.decoder, 3)
    sites = guide.posterior(x)
    least, noise = ExpectedELBO().loss(model, Given(sites), x), sites["noise"].v
    assert (noise > 0.05).any()
    for factor in (0.98, 0.999, 1.001, 1.02):
        moved = sites | {"noise": dist.Delta((noise * factor).clamp(min=0.05))}
        assert ExpectedELBO().loss(model, Given(moved), x) >= least - 1e-9


def log_evidence_orthonormal(x, decoder, prior):
    """log p(x) where atoms are orthonormal: latents are independent given x, by quadrature."""
    target = (x - decoder.b_dec).detach().numpy()
    pull = target @ decoder.W_dec.detach().numpy().T
    slab, rate = prior.slab().base_dist, prior.gates().base_dist.probs.numpy()
    nodes, weights = np.polynomial.legendre.leggauss(600)
    grid = 6 * (nodes + 1)
    density = np.exp(slab.log_prob(torch.from_numpy(grid)[:, None]).numpy())
    total = -0.5 * (target**2).sum(-1) / NOISE**2
    total = total - target.shape[1] * (math.log(NOISE) + 0.5 * math.log(2 * math.pi))
    for k in range(pull.shape[1]):
        inner = np.exp((pull[:, k, None] * grid - 0.5 * grid**2) / NOISE**2)
        marginal = (6 * weights * density[:, k] * inner).sum(-1)
        total = total + np.log(1 - rate[k] + rate[k] * marginal)
    return total


def test_the_elbo_is_the_evidence_where_atoms_are_orthonormal():
    decoder = LinearDecoder(4, 5)
    basis = torch.linalg.qr(torch.randn(5, 4, generator=torch.Generator().manual_seed(3))).Q.mT
    with torch.no_grad():
        decoder.W_dec.copy_(basis)
    slab = TruncatedNormalPrior(4, loc=1.2, scale=0.3)
    prior = SpikeSlabPrior(BernoulliPrior(4, rate=0.2), slab)
    model = SparseAutoencoder(decoder, prior, noise=NOISE)
    guide = AmortizedGuide(
        MeanFieldPosterior(decoder, prior, model.noise, iterations=2, damping=1.0)
    )
    x = rows(decoder, 5)
    terms = ExpectedELBO().site_terms(model, guide, x)
    found = -sum(terms.values())
    assert found.detach().numpy() == pytest.approx(
        log_evidence_orthonormal(x, decoder, prior), abs=1e-7
    )


def test_the_elbo_is_below_the_evidence_and_the_gap_shrinks_with_coherence():
    slab = TruncatedNormalPrior(2, loc=1.2, scale=0.3)
    prior = SpikeSlabPrior(BernoulliPrior(2, rate=0.3), slab)
    gaps = []
    for cosine in (0.0, 0.4, 0.8):
        decoder = LinearDecoder(2, 2)
        with torch.no_grad():
            decoder.W_dec.copy_(torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]]))
            decoder.b_dec.zero_()
        model = SparseAutoencoder(decoder, prior, noise=NOISE)
        posterior = MeanFieldPosterior(decoder, prior, model.noise, iterations=3000, damping=0.2)
        x = torch.tensor([[1.3, 0.4], [0.2, 0.1], [1.9, 1.2]])
        bound = -sum(ExpectedELBO().site_terms(model, AmortizedGuide(posterior), x).values())
        gaps.append(log_evidence_of_two(x, decoder, prior) - bound.detach().numpy())
        assert (gaps[-1] > -1e-6).all()
    assert gaps[0] == pytest.approx(np.zeros(3), abs=1e-6)
    assert gaps[1].sum() < gaps[2].sum()


def log_evidence_of_two(x, decoder, prior):
    """log p(x) of two latents, by quadrature over both amplitudes and enumeration of gates."""
    slab, rate = prior.slab().base_dist, 0.3
    nodes, weights = np.polynomial.legendre.leggauss(200)
    grid = torch.from_numpy(3 * (nodes + 1))
    density = slab.log_prob(grid[:, None]).exp()[:, 0].numpy() * 3 * weights
    out = []
    for row in x:

        def likelihood(z, row=row):
            square = (row - z @ decoder.W_dec.detach()).square().sum(-1)
            return (-0.5 * square / NOISE**2).exp().numpy() / (2 * math.pi * NOISE**2)

        zero = torch.zeros_like(grid)
        first = (density * likelihood(torch.stack([grid, zero], -1))).sum()
        second = (density * likelihood(torch.stack([zero, grid], -1))).sum()
        both = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
        both = (density[:, None] * density * likelihood(both)).sum()
        none = likelihood(torch.zeros(1, 2))[0]
        parts = (1 - rate) ** 2 * none + rate * (1 - rate) * (first + second) + rate**2 * both
        out.append(math.log(parts))
    return np.array(out)


@pytest.mark.parametrize("slab", SLABS)
def test_the_expected_elbo_is_the_mean_over_draws_in_value_and_gradient(slab):
    model, guide = pair(slab=slab, iterations=12)
    x = rows(model.decoder, 4)

    def value_and_gradient(elbo):
        loss = elbo.differentiable_loss(model, guide, x)
        return loss.item(), torch.autograd.grad(loss, model.decoder.W_dec)[0]

    expected, slope = value_and_gradient(ExpectedELBO())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = [value_and_gradient(ClosedFormELBO()) for _ in range(DRAWS)]
    values, slopes = torch.tensor([d[0] for d in draws]), torch.stack([d[1] for d in draws])
    assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(DRAWS)
    error = slopes.std(0) / math.sqrt(DRAWS)
    assert ((slopes.mean(0) - slope).abs() < 4.5 * error + 1e-9).all()


def test_the_variance_of_codes_pulls_no_unit_atom_sideways():
    model, guide = pair(iterations=12)
    x = rows(model.decoder, 4)
    loss = ExpectedELBO().differentiable_loss(model, guide, x)
    (slope,) = torch.autograd.grad(loss, model.decoder.W_dec)
    atoms = model.decoder.W_dec.detach()
    code = guide.posterior(x)["z"].mean
    from_mean = -code.mT @ (x - model.decoder(code).detach()) / NOISE**2

    def tangent(g):
        return g - (g * atoms).sum(-1, keepdim=True) * atoms

    assert torch.allclose(tangent(slope), tangent(from_mean), atol=1e-9)
    assert not torch.allclose(slope, from_mean, atol=1e-3)


@pytest.mark.parametrize("elbo", [pyro.infer.Trace_ELBO, pyro.infer.TraceMeanField_ELBO])
def test_pyros_elbos_take_the_same_pair(elbo):
    model, guide = pair(iterations=12)
    x = rows(model.decoder, 4)
    expected = ExpectedELBO().loss(model, guide, x)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = torch.tensor([elbo().loss(model, guide, x) for _ in range(DRAWS)])
    assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(DRAWS)


def test_svi_moves_the_dictionary_and_predictive_draws_codes():
    pyro.clear_param_store()
    model, guide = pair(iterations=5)
    sae = Autoencoder(model, guide)
    x = rows(model.decoder, 8)
    before = {name: p.detach().clone() for name, p in sae.named_parameters()}
    svi = pyro.infer.SVI(
        sae.pyro_model, sae.pyro_guide, pyro.optim.Adam({"lr": 0.01}), ExpectedELBO()
    )
    for _ in range(3):
        svi.step(x)
    assert all(not torch.equal(before[name], p) for name, p in sae.named_parameters())
    drawn = pyro.infer.Predictive(model, guide=guide, num_samples=5)(x)
    assert drawn["z"].shape == (5, 8, LATENTS)
    assert (drawn["z"] == 0).any()
    assert (drawn["z"] > 0).any()
    pyro.clear_param_store()


def test_gradients_through_the_iterations_are_those_of_finite_differences():
    model, guide = pair(iterations=4, unrolled=True)
    x = rows(model.decoder, 2)
    loss = ExpectedELBO().differentiable_loss(model, guide, x)
    (slope,) = torch.autograd.grad(loss, model.decoder.W_dec)
    step = 1e-6
    for k, j in itertools.product(range(LATENTS), range(WIDTH)):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                model.decoder.W_dec[k, j] += sign * step
                sides.append(ExpectedELBO().loss(model, guide, x))
                model.decoder.W_dec[k, j] -= sign * step
        assert slope[k, j].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=2e-5)


def test_gates_with_a_gradient_have_no_draws_but_an_expectation():
    model, guide = pair(iterations=3, unrolled=True)
    x = rows(model.decoder, 2)
    with pytest.raises(ConfigError) as caught:
        ClosedFormELBO().loss(model, guide, x)
    assert caught.value.code == "elbo.not_reparameterized"
    assert math.isfinite(ExpectedELBO().loss(model, guide, x))


def test_a_prior_without_gates_and_a_link_are_refused():
    decoder = dictionary(4, 3)
    with pytest.raises(ConfigError) as caught:
        MeanFieldPosterior(decoder, ExponentialPrior(4), FixedNoise(1.0))
    assert caught.value.code == "mean_field.prior"
    prior = SpikeSlabPrior(BernoulliPrior(4, rate=0.1), HalfNormalPrior(4))
    with pytest.raises(ConfigError) as caught:
        MeanFieldPosterior(decoder, prior, FixedNoise(1.0), damping=0.0)
    assert caught.value.code == "iterations.damping"
    model = SparseAutoencoder(decoder, prior, noise=1.0, link=nn.ReLU())
    with pytest.raises(ConfigError) as caught:
        ExpectedELBO().loss(
            model,
            AmortizedGuide(MeanFieldPosterior(decoder, prior, model.noise)),
            torch.zeros(2, 3),
        )
    assert caught.value.code == "elbo.expected"


@pytest.mark.float32
def test_single_precision_finds_the_same_gates():
    model, guide = pair(iterations=50)
    x = rows(model.decoder).double()
    double = guide.double().posterior(x)["z"].probability
    single = guide.float().posterior(x.float())["z"].probability
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, atol=2e-4)
