"""MAP codes against enumeration of supports; the pair as a program of models and guides."""

import itertools
import math

import numpy as np
import pytest
import torch
from iterative_pairs import dictionary, given, iterative_pair
from program_checks import (
    assert_export_keeps_gradients,
    assert_masked_rows_do_not_count,
    assert_only_latents_are_scaled,
    assert_predictive_draws,
    assert_saved_is_loaded,
    assert_svi_trains,
    gaussian_constant,
    leaves_of,
)
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from scipy.optimize import nnls

from priors import (
    BernoulliPrior,
    ExponentialPrior,
    Graph,
    GraphLaplacianPrior,
    HalfNormalPrior,
    IsotropicPrior,
    LaplacePrior,
    SpikeSlabPrior,
)
from priors.errors import ConfigError
from priors.replicas import stack
from vsae import (
    AnnealedExponentialPrior,
    ClosedFormELBO,
    ExpectedELBO,
    FISTAPosterior,
    FixedNoise,
    LearnedNoise,
    LinearDecoder,
    RelaxedFISTAPosterior,
    RowNoise,
    UnrolledFISTAPosterior,
    load,
    save,
)
from vsae.posteriors.fista import greatest_eigenvalue

NOISE, SCALE, ROWS = 0.4, 0.5, 8
PENALTY = NOISE**2 / SCALE  # λ beside ½‖x - b - zW‖²


def rows_for(decoder, rows=ROWS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(rows, decoder.d_model, generator=generator)


def fista(decoder, prior=None, *, cls=FISTAPosterior, iterations=2000, noise=None, **settings):
    prior = ExponentialPrior(decoder.latents, scale=SCALE) if prior is None else prior
    noise = FixedNoise(NOISE) if noise is None else noise
    return cls(decoder, prior, noise, iterations=iterations, **settings)


def pair_of(decoder, prior=None, *, noise=NOISE, cls=FISTAPosterior, iterations=30, **settings):
    prior = ExponentialPrior(decoder.latents, scale=SCALE) if prior is None else prior
    return iterative_pair(cls, decoder, prior, noise=noise, iterations=iterations, **settings)


# The code itself.


def optimum(atoms, target, signs):
    """The one code that meets the conditions of optimality, by trying every signed support."""
    latents, found = len(atoms), []
    for pattern in itertools.product(signs, repeat=latents):
        active = [k for k in range(latents) if pattern[k]]
        sign, z = np.array([pattern[k] for k in active], float), np.zeros(latents)
        if active:
            gram = atoms[active] @ atoms[active].T
            if np.linalg.matrix_rank(gram) < len(active):
                continue
            z[active] = np.linalg.solve(gram, atoms[active] @ target - PENALTY * sign)
        pull = atoms @ (target - z @ atoms)
        idle = [k for k in range(latents) if not pattern[k]]
        bar = pull[idle] if -1 not in signs else np.abs(pull[idle])
        if (z[active] * sign > 0).all() and (bar <= PENALTY).all():
            found.append(z)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    "shape",
    [{}, {"parallel": 1.5}, {"free": True}],
    ids=["unit", "coherent", "any length"],
)
@pytest.mark.parametrize(
    ("prior", "signs"),
    [(ExponentialPrior, (0, 1)), (LaplacePrior, (-1, 0, 1))],
    ids=["exponential", "Laplace"],
)
def test_equals_the_best_of_all_supports(prior, signs, shape):
    decoder = dictionary(5, 4, **shape)
    x = rows_for(decoder)
    found = fista(decoder, prior(5, scale=SCALE), iterations=20_000)(x)["z"].mean
    targets, atoms = (x - decoder.b_dec).detach().numpy(), decoder.W_dec.detach().numpy()
    expected = torch.tensor(np.stack([optimum(atoms, row, signs) for row in targets]))
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-9)
    counts = (expected != 0).sum(-1)
    assert counts.min() < counts.max()  # supports of several sizes were met


def objective(decoder, x, z):
    return 0.5 * (x - decoder(z)).square().sum(-1) / NOISE**2 + z.sum(-1) / SCALE


def test_the_bound_of_the_theorem_at_every_iteration_which_plain_steps_break():
    """Beck & Teboulle's theorem 4.4; without momentum the same steps only earn a 1/t."""
    decoder = dictionary(10, 8, parallel=1.0)
    with torch.no_grad():
        x = decoder(10 * torch.rand(6, 10, generator=torch.Generator().manual_seed(1)))
        best = fista(decoder, iterations=20_000)(x)["z"].mean
        least, length = objective(decoder, x, best), greatest_eigenvalue(decoder.W_dec)
        plain, broken = torch.zeros_like(best), False
        for t in range(1, 120):
            bound = 2 * length * best.square().sum(-1) / (NOISE * (t + 1)) ** 2
            above = objective(decoder, x, fista(decoder, iterations=t)(x)["z"].mean) - least
            assert (above <= bound * (1 + 1e-9)).all(), t
            pull = (x - decoder(plain)) @ decoder.W_dec.mT
            plain = (plain + (pull - PENALTY) / length).clamp(min=0)
            broken |= bool((objective(decoder, x, plain) - least > bound).any())
    assert broken


def test_the_first_iterates_are_those_of_the_paper():
    """Equations 4.1 to 4.3, in numpy: y₁ = x₀, t₁ = 1; any momentum near it converges, too."""
    decoder = dictionary(6, 4)
    x, atoms = rows_for(decoder), decoder.W_dec.detach().numpy()
    target = (x - decoder.b_dec).detach().numpy()
    length = greatest_eigenvalue(decoder.W_dec).item()
    before, ahead, t = np.zeros((ROWS, 6)), np.zeros((ROWS, 6)), 1.0
    for count in range(1, 8):
        code = np.maximum(ahead - ((ahead @ atoms - target) @ atoms.T + PENALTY) / length, 0)
        following = (1 + math.sqrt(1 + 4 * t**2)) / 2
        ahead = code + (t - 1) / following * (code - before)
        before, t = code, following
        found = fista(decoder, iterations=count)(x)["z"].mean.numpy()
        np.testing.assert_allclose(found, code, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("latents", "width"), [(1, 1), (3, 7), (7, 3), (64, 16)])
@pytest.mark.parametrize("parallel", [0.0, 3.0])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_the_bound_on_the_eigenvalue_is_above_it_and_tight(latents, width, parallel, size):
    """Whatever the units: powers of the Gram matrix would leave float64 otherwise."""
    atoms = size * dictionary(latents, width, parallel=parallel).W_dec
    exact = torch.linalg.svdvals(atoms.detach())[0] ** 2
    found = greatest_eigenvalue(atoms)
    assert not found.requires_grad
    assert exact * (1 - 1e-12) <= found <= exact * min(latents, width) ** (1 / 32) * (1 + 1e-12)


def test_the_bound_on_the_eigenvalue_is_attained_by_orthonormal_atoms():
    """All ``d`` eigenvalues alike: the factor ``d^(1/32)`` is no slack."""
    found = greatest_eigenvalue(torch.linalg.qr(torch.randn(9, 9)).Q)
    assert found.item() == pytest.approx(9 ** (1 / 32), rel=1e-12)


def test_rows_are_apart_and_shapes_are_those_of_the_input():
    decoder = dictionary(6, 4)
    x, guide = rows_for(decoder, 10), fista(dictionary(6, 4), iterations=50)
    whole = guide(x)["z"]
    assert whole.batch_shape == (10,)
    assert whole.event_shape == (6,)
    torch.testing.assert_close(guide(x.view(2, 5, 4))["z"].mean.view(10, 6), whole.mean)
    torch.testing.assert_close(guide(x[3:4])["z"].mean, whole.mean[3:4])
    assert guide(x[:0])["z"].mean.shape == (0, 6)
    bare = LinearDecoder(6, 4, bias=False)
    with torch.no_grad():
        bare.W_dec.copy_(decoder.W_dec)
    shifted = fista(bare, iterations=50)(x - decoder.b_dec.detach())["z"].mean
    torch.testing.assert_close(shifted, whole.mean)


def test_a_strong_penalty_leaves_nothing_and_the_next_weaker_one_something():
    """z = 0 is optimal exactly while λ is at least the greatest pull."""
    decoder = dictionary(6, 4)
    x = rows_for(decoder, 1)
    greatest = ((x - decoder.b_dec) @ decoder.W_dec.mT).max().item()
    for factor, active in ((1.001, 0), (0.999, 1)):
        prior = ExponentialPrior(6, scale=NOISE**2 / (factor * greatest))
        assert fista(decoder, prior)(x)["z"].mean.count_nonzero() == active


@pytest.mark.float32
@pytest.mark.parametrize("parallel", [0.0, 1.0])
def test_single_precision(parallel):
    decoder = dictionary(12, 8, parallel=parallel)
    x = rows_for(decoder)
    single = fista(decoder, iterations=300)(x)["z"].mean
    double = fista(decoder.double(), iterations=300)  # float32 priors and noises promote
    double.prior.double()
    torch.testing.assert_close(single.double(), double(x.double())["z"].mean, rtol=0, atol=2e-4)


# As an autoencoder.


def test_no_other_code_has_a_greater_elbo():
    decoder = dictionary(6, 4)
    x, pair = rows_for(decoder), pair_of(decoder, iterations=5000)
    best = pair.guide.posterior(x)["z"].mean
    least = ClosedFormELBO().site_terms(pair.model, pair.guide, x)
    least = (least["x"] + least["z"]).detach()
    constant = gaussian_constant(1, 4, NOISE) + 6 * math.log(SCALE)
    torch.testing.assert_close(least, (objective(decoder, x, best) + constant).detach())
    for size in (1e-3, 0.1, 1.0):
        for _ in range(50):
            other = (best + size * torch.randn_like(best)).clamp(min=0)
            guide = given(z=dist.Delta(other, event_dim=1))
            terms = ClosedFormELBO().site_terms(pair.model, guide, x)
            assert (terms["x"] + terms["z"] >= least - 1e-9).all()


@pytest.mark.parametrize("elbo", [ClosedFormELBO, ExpectedELBO, Trace_ELBO, TraceMeanField_ELBO])
def test_gradients_are_those_at_a_fixed_code(elbo):
    """Of dictionary, bias, the prior's scale and the noise; by hand."""
    decoder = dictionary(6, 4)
    prior = LaplacePrior(6, scale=SCALE, learnable=True)
    x, pair = rows_for(decoder), pair_of(decoder, prior, noise=LearnedNoise(NOISE, floor=0.1))
    leaves = leaves_of(pair)
    loss = elbo().differentiable_loss(pair.model, pair.guide, x)
    found = dict(zip(leaves, torch.autograd.grad(loss, leaves.values()), strict=True))
    with torch.no_grad():
        z = pair.guide.posterior(x)["z"].mean
        error = decoder(z) - x
        square, size = error.square().sum(), z.abs().sum()
        expected = {
            "model.decoder.W_dec": z.mT @ error / NOISE**2,
            "model.decoder.b_dec": error.sum(0) / NOISE**2,
            "model.prior.log_scale": z.numel() - size / SCALE,
            "model.noise.log_excess": (x.numel() / NOISE - square / NOISE**3) * (NOISE - 0.1),
        }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_the_unrolled_gradient_in_everything_but_the_atoms():
    """Bias, noise, the prior's scale and the activation: central differences."""
    decoder = dictionary(5, 4)
    noise, prior = LearnedNoise(NOISE, floor=0.1), LaplacePrior(5, scale=SCALE, learnable=True)
    unrolled = fista(decoder, prior, cls=UnrolledFISTAPosterior, noise=noise, iterations=7)
    x, weight = rows_for(decoder, 3).requires_grad_(), torch.randn(3, 5)
    leaves = [decoder.b_dec, noise.log_excess, prior.log_scale, x]
    found = torch.autograd.grad((weight * unrolled(x)["z"].mean).sum(), leaves)
    step = 1e-6
    for leaf, slope in zip(leaves, found, strict=True):
        assert slope.abs().max() > 1e-3
        flat = leaf.detach().view(-1)  # the same memory
        for at, expected in enumerate(slope.flatten().tolist()):
            sides = []
            for sign in (1, -2, 1):
                flat[at] += sign * step
                sides.append((weight * unrolled(x)["z"].mean).sum().item())
            assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(expected, abs=1e-7)


def test_the_unrolled_gradient_in_the_atoms():
    """Central differences of the iterations by hand: the step length is a constant of it."""
    decoder = dictionary(5, 3)
    x, count = rows_for(decoder, 3), 4
    unrolled = fista(decoder, cls=UnrolledFISTAPosterior, iterations=count)
    length, bias = greatest_eigenvalue(decoder.W_dec), decoder.b_dec.detach()

    def total(atoms):
        z = ahead = x.new_zeros(3, 5)
        momentum = 1.0
        for _ in range(count):
            pull = (x - bias - ahead @ atoms) @ atoms.mT
            new = (ahead + (pull - PENALTY) / length).clamp(min=0)
            after = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead, z, momentum = new + (momentum - 1) / after * (new - z), new, after
        return z.square().sum().item()

    (found,) = torch.autograd.grad(unrolled(x)["z"].mean.square().sum(), decoder.W_dec)
    atoms, step = decoder.W_dec.detach().clone(), 1e-6
    flat = atoms.view(-1)
    for at, slope in enumerate(found.flatten().tolist()):
        sides = []
        for sign in (1, -2, 1):
            flat[at] += sign * step
            sides.append(total(atoms))
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(slope, abs=1e-6)
    assert found.abs().max() > 1e-2


def test_both_find_the_same_and_only_one_remembers_how():
    decoder = dictionary(6, 4)
    x = rows_for(decoder)
    plain, unrolled = (
        fista(decoder, cls=cls, iterations=9)(x)["z"].mean
        for cls in (FISTAPosterior, UnrolledFISTAPosterior)
    )
    assert torch.equal(plain, unrolled)
    assert unrolled.requires_grad
    assert not plain.requires_grad


def test_relaxed_amplitudes_are_non_negative_least_squares_on_the_support():
    """Of the three greatest; where one of them then drops out, the others are without it."""
    decoder = dictionary(10, 6)
    x = rows_for(decoder, 20)
    code = fista(decoder, iterations=5_000)(x)["z"].mean
    relaxed = fista(decoder, cls=RelaxedFISTAPosterior, k=3, iterations=5_000)(x)["z"].mean
    atoms, targets = decoder.W_dec.detach().numpy(), (x - decoder.b_dec).detach().numpy()
    sizes = set()
    for row, first, found in zip(targets, code, relaxed, strict=True):
        support = [k for k in first.topk(3).indices.tolist() if first[k] > 0]
        expected = np.zeros(10)
        expected[support] = nnls(atoms[support].T, row)[0]
        assert found.numpy() == pytest.approx(expected, abs=1e-6)
        sizes.add((len(support), np.count_nonzero(expected)))
    assert (3, 3) in sizes
    assert len(sizes) > 1


KINDS = {
    "fista": lambda d, p=None: pair_of(d, p),
    "unrolled": lambda d, p=None: pair_of(d, p, cls=UnrolledFISTAPosterior),
    "relaxed": lambda d, p=None: pair_of(d, p, cls=RelaxedFISTAPosterior, k=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_is_an_ordinary_program(kind):
    decoder = dictionary(6, 4)
    x, pair = rows_for(decoder), KINDS[kind](decoder, ExponentialPrior(6, scale=SCALE))
    expected = ClosedFormELBO().loss(pair.model, pair.guide, x)
    for elbo in (ExpectedELBO(), TraceMeanField_ELBO(), Trace_ELBO()):
        assert elbo.loss(pair.model, pair.guide, x) == pytest.approx(expected, rel=1e-12)
    assert_only_latents_are_scaled(pair, x, {"z"})
    assert_masked_rows_do_not_count(pair, x)
    assert_predictive_draws(pair, x, {"z": (ROWS, 6), "x": (ROWS, 4)})
    assert_export_keeps_gradients(pair, x)
    assert_svi_trains(pair, x)


@pytest.mark.parametrize("kind", KINDS)
def test_saves_and_loads(kind, tmp_path):
    decoder = dictionary(6, 4)
    pair = KINDS[kind](decoder, AnnealedExponentialPrior(6, start=4.0, end=1.0, length=10))
    assert_saved_is_loaded(pair, rows_for(decoder), tmp_path / "sae")
    loaded = load(tmp_path / "sae")
    assert loaded.guide.posterior.prior is loaded.model.prior
    assert loaded.guide.posterior.decoder is loaded.model.decoder
    assert loaded.guide.posterior.noise is loaded.model.noise
    assert loaded.model.prior.updates == 3
    assert save(loaded, tmp_path / "again").exists()


def test_an_annealed_penalty_is_that_of_the_moment():
    decoder = dictionary(6, 4)
    x, prior = rows_for(decoder), AnnealedExponentialPrior(6, start=40.0, end=2.0, length=3)
    guide, counts = fista(decoder, prior), []
    for t in range(5):
        rate = 40.0 * (2.0 / 40.0) ** min(t / 3, 1)
        fixed = fista(decoder, ExponentialPrior(6, scale=1 / rate))
        torch.testing.assert_close(guide(x)["z"].mean, fixed(x)["z"].mean)
        counts.append(guide(x)["z"].mean.count_nonzero().item())
        prior.observe({})
    assert counts[0] < counts[3] == counts[4]


# What is refused.


@pytest.mark.parametrize(
    "prior",
    [
        HalfNormalPrior(4),
        IsotropicPrior(4),
        GraphLaplacianPrior(Graph.ring(4)),
        SpikeSlabPrior(BernoulliPrior(4, rate=0.1), HalfNormalPrior(4)),
    ],
    ids=lambda p: type(p).__name__,
)
def test_priors_without_a_proximal_step(prior):
    with pytest.raises(ConfigError) as caught:
        fista(dictionary(4, 3), prior)(torch.zeros(2, 3))
    assert caught.value.code == "fista.prior"


def test_settings_that_cannot_be():
    decoder = dictionary(4, 3)
    for iterations in (0, -1, True):
        with pytest.raises(ConfigError) as caught:
            fista(decoder, iterations=iterations)
        assert caught.value.code == "iterations.count"
    with pytest.raises(ConfigError) as caught:
        fista(decoder, noise=RowNoise(0.1))
    assert caught.value.code == "fista.noise"
    for k in (0, 5):
        with pytest.raises(ConfigError) as caught:
            fista(decoder, cls=RelaxedFISTAPosterior, k=k)
        assert caught.value.code == "select.k"


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_replicas(kind):
    with pytest.raises(ConfigError) as caught:
        stack([KINDS[kind](dictionary(4, 3)) for _ in range(2)])
    assert caught.value.code == "replicas.single"
