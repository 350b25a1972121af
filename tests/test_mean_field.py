"""The mean field against quadrature of every latent, and against the exact evidence."""

import itertools
import math

import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from iterative_pairs import dictionary, given, iterative_pair, orthonormal
from program_checks import assert_predictive_draws, assert_svi_trains, leaves_of
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from test_persistence import assert_same
from torch import nn

from priors import (
    BernoulliPrior,
    CholeskyPrior,
    ExponentialPrior,
    Graph,
    HalfNormalPrior,
    IsingGatesPrior,
    SpikeSlab,
    SpikeSlabPrior,
    TreeGatesPrior,
    TruncatedNormal,
    TruncatedNormalPrior,
)
from priors.errors import ConfigError
from priors.replicas import stack
from vsae import (
    ClosedFormELBO,
    ExpectedELBO,
    FixedNoise,
    FreeDecoder,
    LearnedNoise,
    MeanFieldPosterior,
    RowNoise,
    UnrolledMeanFieldPosterior,
    load,
    save,
)

K, D, ROWS, NOISE = 4, 4, 4, 0.4
FLOOR, SHAPE = 0.05, 2.0  # of a noise per row
NODES, WEIGHTS = np.polynomial.legendre.leggauss(800)
GRID, MEASURE = 5 * (NODES + 1), 5 * WEIGHTS  # amplitudes of 0 to 10


def ising(strength=1.0):
    edges, weights = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([1.0, -0.8, 0.6])
    return IsingGatesPrior(Graph(edges, strength * weights, K, signed=True), rate=0.3)


GATES = {
    "independent": lambda: BernoulliPrior(K, rate=0.3),
    "ising": ising,
    "tree": lambda: TreeGatesPrior([-1, 0, 0, 1], rate=0.4, leak=0.1, exclusion=0.5),
}
SLABS = {
    "truncated": lambda: TruncatedNormalPrior(K, loc=1.0, scale=0.4),
    "half-normal": lambda: HalfNormalPrior(K, scale=1.0),
    "exponential": lambda: ExponentialPrior(K, scale=0.8),
}
LAWS = {  # the same, by others
    "truncated": scipy.stats.truncnorm(-1.0 / 0.4, np.inf, loc=1.0, scale=0.4),
    "half-normal": scipy.stats.halfnorm(scale=1.0),
    "exponential": scipy.stats.expon(scale=0.8),
}
NATURAL = {  # linear, precision, and log of the density at 0
    "truncated": (1.0 / 0.16, 1 / 0.16, LAWS["truncated"].logpdf(0.0)),
    "half-normal": (0.0, 1.0, LAWS["half-normal"].logpdf(0.0)),
    "exponential": (-1.25, 0.0, LAWS["exponential"].logpdf(0.0)),
}
EVERY = pytest.mark.parametrize(("gates", "slab"), list(itertools.product(GATES, SLABS)))


def decoder_of(latents=K, width=D):
    return dictionary(latents, width, bias=0.3)


def plane(cosine):
    """Two atoms of that cosine, and no bias."""
    decoder = decoder_of(2, 2)
    with torch.no_grad():
        decoder.W_dec.copy_(torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]]))
        decoder.b_dec.zero_()
    return decoder


def rows_for(decoder, rows=ROWS, seed=1):
    """Of two latents each, about."""
    generator = torch.Generator().manual_seed(seed)
    fires = torch.rand(rows, decoder.latents, generator=generator) < 2 / decoder.latents
    with torch.no_grad():
        mean = decoder(fires * (0.5 + torch.rand(fires.shape, generator=generator)))
    return mean + NOISE * torch.randn(mean.shape, generator=generator)


def pair_of(
    decoder=None, gates="independent", slab="truncated", *, noise=NOISE, unrolled=False, **settings
):
    decoder = decoder_of() if decoder is None else decoder
    prior = SpikeSlabPrior(
        GATES[gates]() if isinstance(gates, str) else gates,
        SLABS[slab]() if isinstance(slab, str) else slab,
    )
    cls = UnrolledMeanFieldPosterior if unrolled else MeanFieldPosterior
    settings = {"iterations": 300, "damping": 0.3} | settings
    return iterative_pair(cls, decoder, prior, noise=noise, **settings)


def losses(pair, sites, x):
    """Minus the ELBO of every row, at a given posterior."""
    return sum(ExpectedELBO().site_terms(pair.model, given(**sites), x).values()).detach()


# What a posterior of one row could gain by changing one latent, whatever the family.


def field(prior, rate, k):
    """E[log p(g) with g_k on] - E[… off], over all states of the others."""
    states = np.array(list(itertools.product((0.0, 1.0), repeat=len(rate))))
    log_prob = prior.gates().log_prob(torch.from_numpy(states)).numpy()
    others = np.delete(np.arange(len(rate)), k)
    chance = np.where(states[:, others] == 1, rate[others], 1 - rate[others]).prod(-1)
    return (np.where(states[:, k] == 1, chance, -chance) * log_prob).sum()


def gains(pair, law, q, x, noise):
    """Nats of every latent of one row: the KL from its posterior to its best one, (K,)."""
    rate = q.probability.numpy()
    loc, scale = q.slab.base_dist.loc.numpy(), q.slab.base_dist.scale.numpy()
    sizes = scipy.stats.truncnorm(-loc / scale, np.inf, loc=loc, scale=scale)
    code = rate * sizes.mean()
    atoms = pair.W_dec.detach().numpy()
    target, found = (x - pair.b_dec.detach()).numpy(), np.zeros(len(rate))
    for k in range(len(rate)):
        pull = atoms[k] @ (target - code @ atoms + code[k] * atoms[k])
        log_on = law.logpdf(GRID) + (pull * GRID - GRID**2 / 2) / noise**2
        log_on += field(pair.model.prior, rate, k)
        evidence = MEASURE @ np.exp(log_on)
        best = evidence / (1 + evidence)
        log_q = sizes.logpdf(GRID[:, None])[:, k]
        density = MEASURE * np.exp(log_q)
        assert density.sum() == pytest.approx(1, abs=1e-9)
        of_sizes = density @ (log_q - log_on + np.log(evidence))
        found[k] = scipy.stats.entropy([rate[k], 1 - rate[k]], [best, 1 - best])
        found[k] += rate[k] * of_sizes
    return found


def row(q, at):
    gates = dist.Bernoulli(q.probability[at]).to_event(1)
    base = q.slab.base_dist
    return SpikeSlab(gates, dist.Independent(TruncatedNormal(base.loc[at], base.scale[at]), 1))


@EVERY
def test_at_the_fixed_point_no_latent_can_gain(gates, slab):
    pair = pair_of(gates=gates, slab=slab, iterations=600)
    x = rows_for(pair.model.decoder)
    q = pair.guide.posterior(x)["z"]
    assert q.probability.min() < 0.1
    assert q.probability.max() > 0.9
    found = np.stack([gains(pair, LAWS[slab], row(q, b), x[b], NOISE) for b in range(ROWS)])
    assert np.abs(found).max() < 1e-8
    early = pair_of(pair.model.decoder, gates, slab, iterations=3).guide.posterior(x)["z"]
    found = np.stack([gains(pair, LAWS[slab], row(early, b), x[b], NOISE) for b in range(ROWS)])
    assert found.max() > 1e-3  # before it, they can


@pytest.mark.parametrize("slab", SLABS)
def test_what_a_latent_can_gain_is_what_the_elbo_gains(slab):
    """Away from the fixed point: its best law is of the family, by completing the square."""
    pair = pair_of(gates="ising", slab=slab, iterations=2)
    x = rows_for(pair.model.decoder, 1)
    q = pair.guide.posterior(x)["z"]
    before, expected = losses(pair, {"z": q}, x), gains(pair, LAWS[slab], row(q, 0), x[0], NOISE)
    linear, precision, at_zero = NATURAL[slab]
    for k in range(K):
        with torch.no_grad():
            residual = x[0] - pair.b_dec - q.mean[0] @ pair.W_dec
            pull = (residual @ pair.W_dec[k] + q.mean[0, k]).item()
        sharp = precision + NOISE**-2
        loc, scale = (linear + pull / NOISE**2) / sharp, sharp**-0.5
        log_on = field(pair.model.prior, q.probability[0].numpy(), k) + at_zero
        log_on += 0.5 * (loc / scale) ** 2 + scipy.stats.norm.logcdf(loc / scale)
        log_on += math.log(scale * math.sqrt(2 * math.pi))
        logits = q.gates.base_dist.logits.clone()
        where, width = q.slab.base_dist.loc.clone(), q.slab.base_dist.scale.clone()
        logits[0, k], where[0, k], width[0, k] = log_on, loc, scale
        amplitudes = dist.Independent(TruncatedNormal(where, width), 1)
        better = SpikeSlab(dist.Bernoulli(logits=logits).to_event(1), amplitudes)
        gain = before - losses(pair, {"z": better}, x)
        assert gain.item() == pytest.approx(expected[k], abs=1e-9)
    assert expected.max() > 1e-2


@pytest.mark.parametrize("gates", GATES)
def test_the_noise_of_a_row_is_the_best_one_and_the_codes_are_best_at_it(gates):
    pair = pair_of(gates=gates, noise=RowNoise(FLOOR, shape=SHAPE))
    x = rows_for(pair.model.decoder, 6)
    with torch.no_grad():  # explained exactly: at the floor
        x[0] = pair.model.decoder(torch.tensor([0.0, 0.0, 1.0, 0.0]))
    sites = pair.guide.posterior(x)
    q, noise = sites["z"], sites["noise"].v
    assert noise.shape == (6,)
    with torch.no_grad():
        square = (x - pair.model.decoder(q.mean)).square().sum(-1) + q.variance.sum(-1)
    best = (square / (D + SHAPE + 1)).sqrt().clamp(min=FLOOR)
    torch.testing.assert_close(noise, best, rtol=1e-6, atol=0.0)
    assert noise[0] == FLOOR
    assert (noise > FLOOR).sum() >= 4
    law = LAWS["truncated"]
    found = [gains(pair, law, row(q, b), x[b], noise[b].item()) for b in range(6)]
    assert np.abs(np.stack(found)).max() < 1e-8
    least = losses(pair, sites, x)
    for factor in (0.5, 0.99, 1.01, 2.0):  # the formula is that of a maximum
        other = sites | {"noise": dist.Delta((factor * noise).clamp(min=FLOOR))}
        moved = other["noise"].v != noise
        assert (losses(pair, other, x)[moved] > least[moved]).all()


def test_the_fixed_point_does_not_depend_on_the_damping():
    decoder = decoder_of()
    x, found = rows_for(decoder), []
    for damping in (0.1, 0.2, 0.4):
        q = pair_of(decoder, "ising", damping=damping, iterations=800).guide.posterior(x)["z"]
        found.append(torch.stack([q.probability, q.mean, q.variance]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0.0, atol=1e-9)


# The evidence.


def orthant(mean, covariance):
    """P(a > 0) of a normal vector."""
    if np.count_nonzero(covariance - np.diag(np.diag(covariance))) == 0:
        return scipy.stats.norm.cdf(mean / np.sqrt(np.diag(covariance))).prod()
    law = scipy.stats.multivariate_normal(
        np.zeros(len(mean)), covariance, abseps=1e-9, releps=1e-9, maxpts=50_000
    )
    return law.cdf(mean)


def log_evidence(pair, slab, x):
    """log p(x) of one row: all states of the gates, amplitudes integrated over the orthant."""
    target, atoms = (x - pair.b_dec.detach()).numpy(), pair.W_dec.detach().numpy()
    gram = atoms @ atoms.T
    gram[np.abs(gram) < 1e-12] = 0.0  # orthonormal up to rounding
    linear, precision, at_zero = NATURAL[slab]
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(atoms))))
    logs = pair.model.prior.gates().log_prob(states).numpy().copy()
    for number, state in enumerate(states.numpy()):
        on = np.flatnonzero(state)
        if len(on):
            sharp = gram[np.ix_(on, on)] / NOISE**2 + precision * np.eye(len(on))
            pull = linear + atoms[on] @ target / NOISE**2
            covariance = np.linalg.inv(sharp)
            covariance[np.abs(covariance) < 1e-14] = 0.0
            mean = covariance @ pull
            logs[number] += len(on) * (at_zero + 0.5 * math.log(2 * math.pi))
            logs[number] += 0.5 * pull @ mean - 0.5 * np.linalg.slogdet(sharp)[1]
            logs[number] += math.log(orthant(mean, covariance))
    normal = -0.5 * target @ target / NOISE**2 - 0.5 * len(target) * math.log(2 * math.pi)
    return normal - len(target) * math.log(NOISE) + scipy.special.logsumexp(logs)


@EVERY
def test_the_elbo_is_a_bound_on_the_evidence(gates, slab):
    """Of coherent atoms, and, where gates are coupled, of orthonormal ones: strictly."""
    for decoder in (decoder_of(), orthonormal(K, 6, bias=0.3)):
        pair, x = pair_of(decoder, gates, slab), rows_for(decoder, 2)
        bound = -losses(pair, pair.guide.posterior(x), x).numpy()
        gap = np.array([log_evidence(pair, slab, one) for one in x]) - bound
        assert (gap > -1e-6).all()  # to the accuracy of the orthants
        if gates == "independent" and decoder.d_model == 6:
            assert np.abs(gap).max() < 1e-9
        else:
            assert gap.max() > 1e-3


@pytest.mark.parametrize("slab", SLABS)
@pytest.mark.parametrize("damping", [0.1, 1.0])
def test_one_iteration_is_exact_for_orthonormal_atoms_and_independent_gates(slab, damping):
    """The ELBO then is the evidence: the posterior is exact, and found at once."""
    decoder = orthonormal(K, 6, bias=0.3)
    pair = pair_of(decoder, slab=slab, iterations=1, damping=damping)
    x = rows_for(decoder)
    bound = -losses(pair, pair.guide.posterior(x), x).numpy()
    expected = [log_evidence(pair, slab, one) for one in x]
    np.testing.assert_allclose(bound, expected, rtol=0, atol=1e-9)


def test_the_gap_is_of_second_order_in_the_overlap():
    """KL(q ‖ p) → ½ (cos/σ²)² Var z₁ Var z₂: the mean field leaves out one covariance."""
    x, ratios = torch.tensor([[0.6, 0.5]]), []
    gates, slab = BernoulliPrior(2, rate=0.3), TruncatedNormalPrior(2, loc=1.0, scale=0.4)
    for cosine in (0.04, 0.02, 0.01):
        pair = pair_of(plane(cosine), gates, slab, iterations=300, damping=0.5)
        q = pair.guide.posterior(x)["z"]
        gap = log_evidence(pair, "truncated", x[0]) + losses(pair, {"z": q}, x).item()
        ratios.append(gap / (0.5 * (cosine / NOISE**2) ** 2 * q.variance.prod().item()))
    errors = [abs(ratio - 1) for ratio in ratios]
    assert errors[0] > 1.8 * errors[1] > 1.8**2 * errors[2]  # and that to first order
    assert errors[2] < 0.02


# Gradients.


@pytest.mark.parametrize(("gates", "slab"), [("tree", "truncated"), ("ising", "exponential")])
def test_the_unrolled_gradient_is_that_of_central_differences(gates, slab):
    """Of the ELBO, in every parameter: dictionary, rates, amplitudes, noise."""
    made = {
        "tree": lambda: TreeGatesPrior([-1, 0, 0, 1], rate=0.4, leak=0.1, learnable=True),
        "ising": lambda: IsingGatesPrior(ising().couplings, rate=0.3, learnable=True),
        "truncated": lambda: TruncatedNormalPrior(K, loc=1.0, scale=0.4, learnable=True),
        "exponential": lambda: ExponentialPrior(K, scale=0.8, learnable=True),
    }
    noise = LearnedNoise(NOISE, floor=0.1)
    pair = pair_of(
        None, made[gates](), made[slab](), noise=noise, unrolled=True, iterations=5, damping=0.4
    )
    x, leaves = rows_for(pair.model.decoder, 2), leaves_of(pair)
    loss = ExpectedELBO().differentiable_loss(pair.model, pair.guide, x)
    found = dict(zip(leaves, torch.autograd.grad(loss, leaves.values()), strict=True))
    step = 1e-5
    for name, leaf in leaves.items():
        flat = leaf.detach().view(-1)  # the same memory
        for at, slope in enumerate(found[name].flatten().tolist()):
            sides = []
            for move in (1, -2, 1):
                flat[at] += move * step
                sides.append(ExpectedELBO().loss(pair.model, pair.guide, x))
            difference = (sides[0] - sides[1]) / (2 * step)
            assert difference == pytest.approx(slope, rel=1e-5, abs=1e-6), name
        assert found[name].abs().max() > 1e-3, name


def test_gradients_at_a_fixed_posterior_are_not_those_through_it_until_it_is_best():
    """Envelope: at a fixed point the posterior's own movement changes the ELBO by nothing."""
    x, gaps = rows_for(decoder_of()), []
    for iterations in (3, 400):
        slopes = []
        for unrolled in (False, True):
            pair = pair_of(gates="ising", unrolled=unrolled, iterations=iterations)
            loss = ExpectedELBO().differentiable_loss(pair.model, pair.guide, x)
            slopes.append(torch.autograd.grad(loss, pair.W_dec)[0])
        gaps.append((slopes[0] - slopes[1]).abs().max().item())
    assert gaps[0] > 1e-2
    assert gaps[1] < 1e-8


# As an autoencoder.

SETTINGS = {
    "independent": {},
    "ising": {"gates": "ising", "slab": "half-normal"},
    "tree": {"gates": "tree", "slab": "exponential"},
    "row noise": {"noise": lambda: RowNoise(FixedNoise(0.2), shape=SHAPE)},
}


def program(kind, **settings):
    made = SETTINGS[kind] | {"iterations": 8, "damping": 0.3}
    noise = made.get("noise", lambda: NOISE)()
    return pair_of(**made | settings | {"noise": noise})


@pytest.mark.parametrize("kind", ["tree", "row noise"])
def test_elbos_of_draws_are_the_expected_one_on_average(kind):
    pair = program(kind)
    x = rows_for(pair.model.decoder, 2)
    expected, n = losses(pair, pair.guide.posterior(x), x).sum().item(), 2000
    many = x.repeat(n, 1)
    for elbo in (ClosedFormELBO(), TraceMeanField_ELBO(), Trace_ELBO()):
        # Rows are alike and independent; batches of them give the error of their mean.
        found = torch.tensor([elbo.loss(pair.model, pair.guide, x) for _ in range(60)])
        error = found.std() / n**0.5
        assert abs(elbo.loss(pair.model, pair.guide, many) / n - expected) < 5 * error


@pytest.mark.parametrize("kind", SETTINGS)
def test_is_an_ordinary_program(kind):
    pair = program(kind)
    x = rows_for(pair.model.decoder)
    sites = {"z": (ROWS, K), "x": (ROWS, D)} | ({"noise": (ROWS,)} if kind == "row noise" else {})
    assert_predictive_draws(pair, x, sites)
    q = pair.posterior(x)["z"]
    assert q.batch_shape == (ROWS,)
    torch.testing.assert_close(pair.posterior(x.view(2, 2, D))["z"].mean, q.mean.view(2, 2, K))
    assert pair.posterior(x[:0])["z"].mean.shape == (0, K)
    code = torch.where(q.probability > 0.5, q.mean, 0.0)
    assert torch.equal(pair.encode(x), code)
    torch.testing.assert_close(pair(x), pair.model.decoder(code))
    assert_svi_trains(pair, x)


@pytest.mark.parametrize("unrolled", [False, True])
def test_every_parameter_moves_in_svi(unrolled):
    """Rates, amplitudes and noise too, where they are learned by gradients."""
    gates = BernoulliPrior(K, rate=0.3, learnable=True)
    slab = TruncatedNormalPrior(K, loc=1.0, scale=0.4, learnable=True)
    noise = LearnedNoise(NOISE)
    pair = pair_of(None, gates, slab, noise=noise, unrolled=unrolled, iterations=4)
    x = rows_for(pair.model.decoder, 20)
    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    optim = pyro.optim.Adam({"lr": 1e-3})
    svi = pyro.infer.SVI(pair.pyro_model, pair.pyro_guide, optim, ExpectedELBO())
    steps = [svi.step(x) for _ in range(20)]
    pyro.clear_param_store()
    assert steps[-1] < steps[0]
    for name, parameter in pair.named_parameters():
        assert (parameter != before[name]).all(), name


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("unrolled", [False, True])
def test_saves_and_loads(kind, unrolled, tmp_path):
    pair = program(kind, unrolled=unrolled, damping=0.35)
    x = rows_for(pair.model.decoder)
    loaded = load(save(pair, tmp_path / "sae"))
    with torch.no_grad():
        assert_same(pair, loaded, x)
    ours, theirs = pair.guide.posterior, loaded.guide.posterior
    assert type(theirs) is type(ours)
    assert (theirs.iterations, theirs.damping) == (8, 0.35)
    assert theirs.prior is loaded.model.prior
    assert theirs.decoder is loaded.model.decoder
    assert theirs.noise is loaded.model.noise
    assert torch.equal(loaded.posterior(x)["z"].variance, pair.posterior(x)["z"].variance)


def test_exports():
    pair = program("ising")
    x, objective = rows_for(pair.model.decoder), ExpectedELBO()(pair.model, pair.guide)
    with pyro.validation_enabled(False):
        step = torch.export.export(objective, (x,), strict=False).module()
    torch.testing.assert_close(step(x), objective(x))


# Numbers.


@pytest.mark.float32
@pytest.mark.parametrize("slab", SLABS)
def test_far_from_anything_seen(slab):
    """A thousand noises away on either side, silent latents, sharp slabs: finite, and sensible."""
    decoder = decoder_of()
    gates = BernoulliPrior(K, rate=1e-5)
    prior = SLABS[slab]() if slab != "truncated" else TruncatedNormalPrior(K, loc=1.0, scale=1e-3)
    pair = pair_of(decoder, gates, prior, noise=0.01, iterations=12)
    with torch.no_grad():
        x = torch.cat([10 * decoder.W_dec, -10 * decoder.W_dec, torch.zeros(1, D)])
        x = x + decoder.b_dec
    loss = ExpectedELBO().differentiable_loss(pair.model, pair.guide, x)
    slopes = torch.autograd.grad(loss, [pair.W_dec, pair.model.decoder.b_dec])
    q = pair.posterior(x)["z"]
    for value in (loss, *slopes, q.mean, q.variance):
        assert value.isfinite().all()
    assert (q.variance >= 0).all()
    assert (q.probability[-1] < 1e-3).all()
    assert (q.probability.diagonal() > 0.99).all()


@pytest.mark.float32
@pytest.mark.parametrize("rate", [1e-6, 0.2])
def test_single_precision(rate):
    """Also of one in a million, whose log-odds are far below the last bit of a probability."""
    decoder = decoder_of(40, 16)
    x = rows_for(decoder, 200)
    slab = TruncatedNormalPrior(40, loc=1.0, scale=0.15)
    pair = pair_of(decoder, BernoulliPrior(40, rate=rate), slab, noise=0.15, iterations=12)
    single = pair.posterior(x)["z"]
    double = pair.double().posterior(x.double())["z"]
    odds = double.gates.base_dist.logits
    assert single.probability.dtype == torch.float32
    torch.testing.assert_close(
        single.probability.double(), double.probability, rtol=1e-2, atol=1e-4
    )
    assert (odds.min() < -30) == (rate < 1e-3)


# What is refused.


def test_settings_that_cannot_be():
    decoder = decoder_of(4, 3)
    prior = SpikeSlabPrior(BernoulliPrior(4, rate=0.1), HalfNormalPrior(4))

    def code(make):
        with pytest.raises(ConfigError) as caught:
            make()
        return caught.value.code

    noise, mean_field = FixedNoise(1.0), MeanFieldPosterior
    for damping in (0.0, -0.1, 1.1, math.nan):
        made = lambda d=damping: mean_field(decoder, prior, noise, damping=d)  # noqa: E731
        assert code(made) == "iterations.damping"
    assert code(lambda: mean_field(decoder, prior, noise, iterations=0)) == "iterations.count"
    assert code(lambda: mean_field(decoder, HalfNormalPrior(4), noise)) == "mean_field.prior"
    assert code(lambda: mean_field(FreeDecoder(4, 3), prior, noise)) == "mean_field.decoder"
    pairs = [pair_of(iterations=2) for _ in range(2)]
    assert code(lambda: stack(pairs)) == "replicas.single"


def test_families_without_an_update():
    class Odd(nn.Module):
        """A prior of some gates and some amplitudes."""

        def __init__(self, gates, slab):
            super().__init__()
            self.law = SpikeSlab(gates, slab)

        def forward(self):
            return self.law

    decoder, x = decoder_of(3, 3), torch.zeros(2, 3)
    usual = BernoulliPrior(3, rate=0.1)(), HalfNormalPrior(3)()
    lognormal = dist.LogNormal(torch.zeros(3), torch.ones(3)).to_event(1)
    spins = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    for prior, code in (
        (Odd(usual[0], lognormal), "amplitude.family"),
        (Odd(spins, usual[1]), "gates.family"),
        (Odd(CholeskyPrior(3)(), usual[1]), "gates.family"),
    ):
        with pytest.raises(ConfigError) as caught:
            MeanFieldPosterior(decoder, prior, FixedNoise(1.0))(x)
        assert caught.value.code == code
