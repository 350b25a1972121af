"""Distillation against the exact posteriors of orthonormal atoms: independent latents given x."""

import math

import pytest
import torch
from iterative_pairs import dictionary, iterative_pair, orthonormal, spike_and_slab
from program_checks import assert_predictive_draws
from pyro import distributions as dist
from test_persistence import assert_same
from torch import nn
from torch.distributions import Independent, kl_divergence

import vsae
from priors import (
    Graph,
    IsingGatesPrior,
    IsotropicPrior,
    SpikeSlab,
    SpikeSlabPrior,
    TruncatedNormal,
    TruncatedNormalPrior,
)
from vsae import (
    AffineNormalizer,
    AmortizedGuide,
    AnnealedNoise,
    Autoencoder,
    ExpectedELBO,
    FittedNoisePosterior,
    FittedSpikeSlabPrior,
    FixedNoise,
    GaussianPosterior,
    LinearEncoder,
    MeanFieldPosterior,
    MLPEncoder,
    RefinedMeanFieldPosterior,
    RowNoise,
    SparseAutoencoder,
    SpikeSlabPosterior,
    amortisation_gap,
    distil,
    inclusive_kl,
)
from vsae.errors import VsaeError

K, D, SIGMA, MU, S, RATE = 3, 4, 0.3, 1.0, 0.1, 0.3


def coherent():
    """More atoms than dimensions."""
    return dictionary(12, 8, bias=0.0)


def iterative(decoder=None, *, scale=S, noise=SIGMA, rate=RATE, **settings):
    """The pair with the mean-field guide."""
    decoder = orthonormal(K, D) if decoder is None else decoder
    prior = spike_and_slab(decoder.latents, rate=rate, loc=MU, scale=scale)
    return iterative_pair(MeanFieldPosterior, decoder, prior, noise=noise, **settings)


def rows_of(pair, rows, seed=1):
    """Activations from the model itself."""
    torch.manual_seed(seed)
    with torch.no_grad():
        mean = pair.model.decoder(pair.model.prior().sample((rows,)))
    return mean + SIGMA * torch.randn(rows, mean.shape[-1])


def with_posterior(pair, posterior):
    return Autoencoder(pair.model, AmortizedGuide(posterior), pair.normalizer)


class QuadraticEncoder(nn.Module):
    """Affine in ``u = W (x - b)`` and its squares, of fixed ``W`` and ``b``."""

    def __init__(self, decoder):
        super().__init__()
        self.d_model, self.outputs = decoder.d_model, 3 * decoder.latents
        self.register_buffer("atoms", decoder.W_dec.detach().clone())
        self.register_buffer("bias", decoder.b_dec.detach().clone())
        self.affine = nn.Linear(2 * decoder.latents, self.outputs)

    def forward(self, x):
        u = (x - self.bias) @ self.atoms.T
        return self.affine(torch.cat([u, u * u], -1))


def exact_numbers(scale, floor=1e-4):
    """By completing squares, of ``N(μ, s²)`` and ``N(u, σ²)``: the posterior as polynomials in u.

    Amplitude ``m0 + m1 u``, its raw scale, and log-odds ``l0 + l1 u + l2 u²``; the truncation at 0,
    ten deviations below every mean here, is nothing.
    """
    total = SIGMA**2 + scale**2
    width = SIGMA * scale / math.sqrt(total)
    m0, m1 = MU * SIGMA**2 / total, scale**2 / total
    raw = math.log(math.expm1(width - floor))
    l0 = math.log(RATE / (1 - RATE)) + 0.5 * math.log(SIGMA**2 / total) - MU**2 / (2 * total)
    return (m0, m1), raw, (l0, MU / total, 0.5 / SIGMA**2 - 0.5 / total)


def spread_out(latents, first, raw, logits):
    """Coefficients of u (and of its squares) as one matrix, and the bias."""
    matrix, eye = torch.zeros(3 * latents, 2 * latents), torch.eye(latents)
    matrix[:latents, :latents] = first[1] * eye
    matrix[2 * latents :, :latents] = logits[1] * eye
    matrix[2 * latents :, latents:] = logits[2] * eye
    bias = torch.tensor([first[0], raw, logits[0]]).repeat_interleave(latents)
    return matrix, bias


def test_the_exact_posterior_is_quadratic_under_orthonormal_atoms():
    pair = iterative()
    encoder, x = QuadraticEncoder(pair.model.decoder), rows_of(pair, 500)
    matrix, bias = spread_out(K, *exact_numbers(S))
    with torch.no_grad():
        encoder.affine.weight.copy_(matrix)
        encoder.affine.bias.copy_(bias)
    student = SpikeSlabPosterior(encoder)
    assert inclusive_kl(pair.posterior(x)["z"], student(x)["z"]).abs().max() < 1e-12
    gap = amortisation_gap(pair, with_posterior(pair, student), x)
    assert gap.per_row.abs().max() < 1e-12


def test_a_linear_encoder_is_exact_in_the_limit_of_constant_amplitudes():
    """What it leaves out of the log-odds is of order s², of their KL therefore of order s⁴."""
    found = []
    for scale in (0.02, 0.01):
        pair = iterative(scale=scale)
        decoder, x = pair.model.decoder, rows_of(pair, 500)
        matrix, bias = spread_out(K, *exact_numbers(scale))
        encoder = LinearEncoder(D, 3 * K)
        with torch.no_grad():
            linear = matrix[:, :K] @ decoder.W_dec
            encoder.W_enc.copy_(linear.T)
            encoder.b_enc.copy_(bias - linear @ decoder.b_dec)
        student = with_posterior(pair, SpikeSlabPosterior(encoder))
        found.append(amortisation_gap(pair, student, x).mean)
    assert found[0] < 1e-3
    assert found[0] / found[1] == pytest.approx(16, rel=0.02)


def test_distillation_finds_a_posterior_that_it_can_represent():
    """A thousandth of the first gap is left; what one matrix cannot hold, it leaves."""
    pair = iterative(iterations=1)  # is exact here
    x, held_out = rows_of(pair, 4000), rows_of(pair, 1000, seed=2)
    found, before = {}, {}
    for name, encoder, steps in (
        ("quadratic", QuadraticEncoder(pair.model.decoder), 500),
        ("linear", LinearEncoder(D, 3 * K), 200),
    ):
        student = SpikeSlabPosterior(encoder)
        before[name] = amortisation_gap(pair, with_posterior(pair, student), held_out).mean
        found[name] = distil(pair, student, x, steps=steps, batch_size=100, lr=0.1, progress=False)
        assert found[name].kl.shape == (steps,)
        assert found[name].gap.per_row.shape == (4000,)
        assert found[name].kl[-100:].mean() < 0.1 * found[name].kl[:10].mean()
    best = found["quadratic"].autoencoder
    left = amortisation_gap(pair, best, held_out).mean
    assert 0 <= left < 1e-3 * before["quadratic"]
    lead = amortisation_gap(best, found["linear"].autoencoder, held_out)
    assert lead.mean > 5 * lead.standard_error > 0


def test_gap_is_the_divergence_from_the_exact_posterior():
    """Hence never negative, whatever the student; under orthonormal atoms alone."""
    pair = iterative()
    x = rows_of(pair, 300)
    for seed in range(4):
        torch.manual_seed(seed)
        student = SpikeSlabPosterior(MLPEncoder(D, 7, 3 * K))
        gap = amortisation_gap(pair, with_posterior(pair, student), x)
        exact = kl_divergence(student(x)["z"], pair.posterior(x)["z"])
        torch.testing.assert_close(gap.per_row, exact.detach(), rtol=1e-9, atol=1e-9)
        assert gap.per_row.min() > 0
        assert gap.mean == pytest.approx(exact.mean().item(), rel=1e-9)
        error = exact.std(correction=1).item() / math.sqrt(300)
        assert gap.standard_error == pytest.approx(error, rel=1e-9)


def beliefs(rows=(), seed=0):
    """Numbers of a factorised posterior: log-odds, location, scale."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(3, *rows, K, generator=generator)
    return draws[0], 1 + 0.5 * draws[1], 0.3 + 0.2 * draws[2].sigmoid()


def spike_slab(logits, loc, scale):
    gates = dist.Bernoulli(logits=logits).to_event(1)
    return SpikeSlab(gates, Independent(TruncatedNormal(loc, scale), 1))


def test_objective_is_the_registered_divergence():
    teacher, student = spike_slab(*beliefs((50,))), spike_slab(*beliefs((50,), seed=1))
    torch.testing.assert_close(inclusive_kl(teacher, student), kl_divergence(teacher, student))


def test_gradient_is_that_of_the_expected_log_density_of_the_teachers_codes():
    """-∇ E_teacher[log q(z)], by Monte Carlo with a gradient per draw: 9 numbers, 5 deviations."""
    draws = 200_000
    teacher = spike_slab(*beliefs())
    torch.manual_seed(0)
    z = teacher.sample((draws,))
    numbers = beliefs(seed=1)
    leaves = [n.clone().requires_grad_() for n in numbers]
    exact = torch.autograd.grad(inclusive_kl(teacher, spike_slab(*leaves)), leaves)
    each = [n.expand(draws, K).clone().requires_grad_() for n in numbers]
    sampled = torch.autograd.grad(-spike_slab(*each).log_prob(z).sum(), each)
    for found, per_draw in zip(exact, sampled, strict=True):
        error = per_draw.std(0) / math.sqrt(draws)
        assert ((per_draw.mean(0) - found).abs() < 5 * error).all()
        assert (error < 0.03 * found.abs().max()).all()  # so that it could fail


@pytest.mark.float32
def test_certain_gates_have_finite_divergences():
    """Where probabilities round to one: KL(γ‖1 - e⁻ˡ) = (1-γ) l + log-odds' own, in float64."""
    slab = torch.ones(1), torch.ones(1)
    for teacher, student in ((5.0, 40.0), (-5.0, -40.0), (600.0, -600.0), (-600.0, 600.0)):
        t, s = (spike_slab(torch.tensor([v]), *slab) for v in (teacher, student))
        rate = 1 / (1 + math.exp(-teacher))
        cross = rate * math.log1p(math.exp(-abs(student))) + max(-student, 0.0) * rate
        cross += (1 - rate) * (math.log1p(math.exp(-abs(student))) + max(student, 0.0))
        entropy = 0.0 if abs(teacher) > 50 else -rate * math.log(rate)
        entropy -= 0.0 if abs(teacher) > 50 else (1 - rate) * math.log1p(-rate)
        assert inclusive_kl(t, s).item() == pytest.approx(cross - entropy, rel=1e-5)
    sure = spike_slab(torch.tensor([40.0]), *slab)
    assert kl_divergence(spike_slab(torch.tensor([5.0]), *slab), sure).isinf()  # the registered


@pytest.mark.float32
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e2, 1e4])
def test_is_finite_whatever_the_encoder_says(size):
    """Objective, ELBO and every gradient, in single precision."""
    pair = iterative()
    encoder, x = LinearEncoder(D, 3 * K), rows_of(pair, 200)
    with torch.no_grad():
        encoder.W_enc.normal_().mul_(size)
    student = SpikeSlabPosterior(encoder)
    kl = inclusive_kl(pair.posterior(x)["z"], student(x)["z"]).mean()
    other = with_posterior(pair, student)
    loss = ExpectedELBO()(other.model, other.guide)(x)
    for objective in (kl, loss):
        assert objective.isfinite()
        grads = torch.autograd.grad(objective, list(encoder.parameters()))
        assert all(g.isfinite().all() for g in grads)


def test_gradient_of_the_elbo_is_that_of_the_exclusive_divergence():
    """So that an amortised pair trains by its ELBO, too: -∇ELBO = ∇ KL(q ‖ exact)."""
    pair = iterative()
    encoder, x = LinearEncoder(D, 3 * K), rows_of(pair, 60)
    other = with_posterior(pair, SpikeSlabPosterior(encoder))
    loss = ExpectedELBO()(other.model, other.guide)(x)
    exact = kl_divergence(other.guide.posterior(x)["z"], pair.posterior(x)["z"]).sum()
    leaves = list(encoder.parameters())
    ours, theirs = (torch.autograd.grad(value, leaves) for value in (loss, exact))
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)
        assert two.abs().max() > 1


class Off(nn.Module):
    """No latent fires."""

    def __init__(self, latents):
        super().__init__()
        self.latents, self.encoder = latents, None

    def forward(self, x):
        zeros = x.new_zeros(*x.shape[:-1], self.latents)
        return {"z": spike_slab(zeros - 1000, zeros, zeros + 1)}


def assert_same_beliefs(one, two, **tolerance):
    for name in ("mean", "variance", "probability"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), **tolerance)


@pytest.mark.parametrize("iterations", [1, 3, 12])
def test_refinement_of_the_empty_code_is_the_iteration_itself(iterations):
    pair = iterative(coherent(), iterations=iterations)
    x, whole = rows_of(pair, 50), pair.guide.posterior
    refined = RefinedMeanFieldPosterior(Off(12), whole, iterations=iterations)
    assert_same_beliefs(refined(x)["z"], whole(x)["z"], rtol=1e-12, atol=1e-12)


def test_refinement_ends_where_the_iteration_does():
    """From any encoder, at a noise where there is one fixed point; never below its start."""
    pair = iterative(coherent(), noise=1.0, iterations=200)
    x, whole = rows_of(pair, 20), pair.guide.posterior
    for seed in range(3):
        torch.manual_seed(seed)
        start = SpikeSlabPosterior(LinearEncoder(8, 36))
        refined = RefinedMeanFieldPosterior(start, whole, iterations=200)
        assert_same_beliefs(refined(x)["z"], whole(x)["z"], rtol=1e-9, atol=1e-9)
        gain = amortisation_gap(with_posterior(pair, refined), with_posterior(pair, start), x)
        assert gain.per_row.min() > 0


def test_a_fixed_point_is_not_refined_away():
    """With a noise per row and gates that depend on one another: all that an update reads."""
    decoder = coherent()
    edges = torch.stack([torch.arange(11), torch.arange(1, 12)])
    gates = IsingGatesPrior(Graph(edges, torch.ones(11), 12), rate=0.1)
    prior = SpikeSlabPrior(gates, TruncatedNormalPrior(12, loc=MU, scale=S))
    noise = RowNoise(0.3, shape=2.0)
    whole = MeanFieldPosterior(decoder, prior, noise, iterations=500)
    x = decoder(prior().sample((20,))).detach() + SIGMA * torch.randn(20, 8)
    found = whole(x)
    assert (found["noise"].v > 0.3).any()
    for iterations in (1, 5):
        again = RefinedMeanFieldPosterior(whole, whole, iterations=iterations)(x)
        assert_same_beliefs(again["z"], found["z"], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(again["noise"].v, found["noise"].v, rtol=1e-8, atol=1e-8)


def test_one_refinement_is_exact_under_orthonormal_atoms():
    pair = iterative()
    x, start = rows_of(pair, 100), SpikeSlabPosterior(LinearEncoder(D, 3 * K))
    refined = RefinedMeanFieldPosterior(start, pair.guide.posterior, iterations=1)
    gap = amortisation_gap(pair, with_posterior(pair, refined), x)
    assert gap.per_row.abs().max() < 1e-10


def test_refinement_of_a_distilled_belief_beats_as_many_iterations_from_nothing():
    """In superposition; by five standard errors of the difference, row by row."""
    pair = iterative(coherent(), noise=0.2, rate=0.1)
    x, held_out = rows_of(pair, 4000), rows_of(pair, 1000, seed=2)
    student = SpikeSlabPosterior(MLPEncoder(8, 48, 36))
    whole = pair.guide.posterior
    found = distil(pair, student, x, steps=250, batch_size=100, lr=0.02, progress=False)
    few = MeanFieldPosterior(whole.decoder, whole.prior, whole.noise, iterations=3)
    empty = with_posterior(pair, few)
    refined = with_posterior(pair, RefinedMeanFieldPosterior(student, whole, iterations=3))
    for other in (empty, found.autoencoder):
        lead = amortisation_gap(refined, other, held_out)
        assert lead.mean > 5 * lead.standard_error > 0


def row_noise_pair():
    """As the recipe leaves it: M-steps, annealed floors, a noise per row, units; in training."""
    prior = FittedSpikeSlabPrior(spike_and_slab(12, rate=0.1, loc=MU, scale=S))
    noise = RowNoise(AnnealedNoise(0.5, 0.1, length=100), shape=8.0)
    pair = iterative_pair(MeanFieldPosterior, coherent(), prior, noise=noise)
    x = rows_of(pair, 400)
    return Autoencoder(pair.model, pair.guide, AffineNormalizer.fit(x)).train(), x


class Shared(nn.Module):
    """An encoder that is centred on the model's own bias."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.linear = decoder, LinearEncoder(8, 36)
        self.outputs = 36

    def forward(self, x):
        return self.linear(x - self.decoder.b_dec)


def test_nothing_but_the_posterior_moves():
    """Model, prior, noise, units, modes and random state, bit by bit."""
    pair, x = row_noise_pair()
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    modes, state = [m.training for m in pair.modules()], torch.get_rng_state()
    student = SpikeSlabPosterior(Shared(pair.model.decoder))
    initial = student.encoder.linear.W_enc.detach().clone()
    state = torch.get_rng_state()
    found = distil(pair, student, x, steps=20, batch_size=50, lr=1e-2, progress=False)
    assert found.autoencoder.model is pair.model
    assert not torch.equal(student.encoder.linear.W_enc, initial)
    for name, value in pair.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [m.training for m in pair.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in found.autoencoder.parameters())
    assert all(p.requires_grad for p in pair.parameters())


def test_is_a_function_of_the_seed():
    pair, x = row_noise_pair()
    found = {}
    for run, seed in enumerate((0, 0, 1)):
        torch.manual_seed(7)
        student = SpikeSlabPosterior(LinearEncoder(8, 36))
        found[run] = distil(
            pair, student, x, steps=10, batch_size=50, lr=1e-2, seed=seed, progress=False
        ).kl
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_works_in_the_units_of_the_model():
    """The first value of the objective, on all rows: teacher of raw rows, student of normalised."""
    pair, x = row_noise_pair()
    student = SpikeSlabPosterior(LinearEncoder(8, 36))
    with torch.no_grad():
        first = inclusive_kl(pair.posterior(x)["z"], student(pair.normalizer(x))["z"]).mean()
    found = distil(pair, student, x, steps=1, batch_size=400, progress=False)
    assert found.kl.item() == pytest.approx(first.item(), rel=1e-12)


def test_gap_is_that_of_evaluation():
    """The noise of dropout, which is of training, is not in it."""
    pair, x = row_noise_pair()
    encoder = MLPEncoder(8, 48, 36)
    student = SpikeSlabPosterior(encoder)
    other = with_posterior(
        pair, FittedNoisePosterior(student, pair.model.decoder, pair.model.noise)
    )
    encoder.register_forward_pre_hook(
        lambda module, x: nn.functional.dropout(x[0], training=module.training)
    )
    gaps = [amortisation_gap(pair, other.train(mode), x) for mode in (True, False)]
    assert torch.equal(gaps[0].per_row, gaps[1].per_row)


def test_fitted_noise_maximises_the_elbo():
    """No other noise of a row does better: the ELBO by hand, at 40 factors of the one found."""
    pair, x = row_noise_pair()
    units, model = pair.normalizer(x), pair.model
    q = FittedNoisePosterior(SpikeSlabPosterior(LinearEncoder(8, 36)), model.decoder, model.noise)
    with torch.no_grad():
        sites = q(units)
        found, prior = sites["noise"].v, model.noise()
        z = sites["z"]
        square = (units - model.decoder(z.mean)).square().sum(-1) + z.variance.sum(-1)

        def elbo(noise):
            likelihood = -8 * noise.log() - square / (2 * noise**2)
            return likelihood - (prior.alpha + 1) * noise.log()

        assert (found > prior.scale).any()
        for factor in torch.linspace(0.5, 2.0, 40):
            other = (factor * found).clamp(min=prior.scale)
            assert (elbo(found) >= elbo(other) - 1e-12).all()


def test_pairs_are_ordinary_programs_and_are_saved(tmp_path):
    pair, x = row_noise_pair()
    pair.eval()
    student = SpikeSlabPosterior(LinearEncoder(8, 36))
    amortised = distil(pair, student, x, steps=2, batch_size=50, progress=False).autoencoder
    assert isinstance(amortised.guide.posterior, FittedNoisePosterior)
    start, whole = amortised.guide.posterior, pair.guide.posterior
    refined = with_posterior(pair, RefinedMeanFieldPosterior(start, whole, iterations=2))
    shapes = {"z": (400, 12), "noise": (400,), "x": (400, 8)}
    for name, other in (("amortised", amortised), ("refined", refined)):
        assert_predictive_draws(other, x, shapes)
        with torch.no_grad():  # a draw of gates has no gradient
            assert_same(other, vsae.load(vsae.save(other, tmp_path / name)), x)
        assert other.W_enc.shape == (8, 12)
        copy = vsae.load(tmp_path / name)
        assert amortisation_gap(other, copy, x).mean == pytest.approx(0, abs=1e-9)


def raises(code, call, *arguments, **settings):
    with pytest.raises(VsaeError) as caught:
        call(*arguments, **settings)
    assert caught.value.code == code


def test_refuses_what_cannot_be_meant():
    pair, other = iterative(), iterative(orthonormal(K, D, seed=3))
    x, whole = rows_of(pair, 20), pair.guide.posterior
    student = SpikeSlabPosterior(LinearEncoder(D, 3 * K))
    gaussian = GaussianPosterior(LinearEncoder(D, 2 * K))
    raises("posterior.outputs", SpikeSlabPosterior, LinearEncoder(D, 3 * K + 1))
    raises("posterior.floor", SpikeSlabPosterior, LinearEncoder(D, 3 * K), floor=0.0)
    raises("iterations.count", RefinedMeanFieldPosterior, student, whole, iterations=0)
    small = SpikeSlabPosterior(LinearEncoder(D, 3))
    raises("pair.latents", RefinedMeanFieldPosterior, small, whole)
    raises("refined.start", RefinedMeanFieldPosterior(gaussian, whole), x)
    raises("row_noise.prior", FittedNoisePosterior, student, whole.decoder, FixedNoise(0.1))
    settings = {"steps": 1, "batch_size": 10, "progress": False}
    raises("pair.latents", distil, pair, small, x, **settings)
    raises("distil.family", distil, pair, gaussian, x, **settings)
    gauss_pair = Autoencoder(
        SparseAutoencoder(whole.decoder, IsotropicPrior(K), noise=0.1), AmortizedGuide(gaussian)
    )
    raises("distil.family", distil, gauss_pair, student, x, **settings)
    raises("fit.setting", distil, pair, student, x, **settings | {"steps": 0})
    raises("fit.setting", distil, pair, student, x, **settings, lr=0.0)
    raises("data.empty", distil, pair, student, x, **settings | {"batch_size": 21})
    raises("data.nonfinite", distil, pair, student, x / 0, **settings)
    raises("data.width", distil, pair, student, x[:, :2], **settings)
    raises("loss.nonfinite", distil, pair, student, x, **settings | {"steps": 9}, lr=1e300)
    frozen = SpikeSlabPosterior(LinearEncoder(D, 3 * K).requires_grad_(False))
    raises("fit.optimizer", distil, pair, frozen, x, **settings)
    raises("amortisation.model", amortisation_gap, pair, other, x)
    raises("data.empty", amortisation_gap, pair, pair, x[:1])
    raises("data.nonfinite", amortisation_gap, pair, pair, x * math.nan)
