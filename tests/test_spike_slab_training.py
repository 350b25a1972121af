"""What follows the posterior in training: M-steps, learned couplings, schedules, the recipe."""

import copy
import itertools
import math

import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from iterative_pairs import iterative_pair
from program_checks import leaves_of
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO
from scipy.optimize import minimize
from scipy.stats import norm
from test_persistence import assert_same

from priors import (
    BernoulliPrior,
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
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    AnnealedExponentialPrior,
    AnnealedNoise,
    Autoencoder,
    ClosedFormELBO,
    CoFiringGatesPrior,
    Coherence,
    ExpectedELBO,
    FISTAPosterior,
    FittedSpikeSlabPrior,
    FixedNoise,
    GaussianPosterior,
    LinearDecoder,
    LinearEncoder,
    MeanFieldPosterior,
    PosteriorObserver,
    RecoveryRecipe,
    RowNoise,
    SparseAutoencoder,
    TargetedExponentialPrior,
    fit,
    load,
    save,
)
from vsae.cofiring_gates import lift_graph
from vsae.errors import ConfigError
from vsae.metrics import recovered_share
from vsae.row_noise import fitted_noise

K, D, ROWS, NOISE = 5, 4, 30, 0.3


def code_of(make, *args, **settings):
    with pytest.raises(ConfigError) as caught:
        make(*args, **settings)
    return caught.value.code


def slab_prior(gates=None):
    gates = BernoulliPrior(K, rate=0.3) if gates is None else gates
    return SpikeSlabPrior(gates, TruncatedNormalPrior(K, loc=1.0, scale=0.2))


def pair_of(prior, noise=NOISE):
    decoder = LinearDecoder(prior.dim, D)
    return iterative_pair(MeanFieldPosterior, decoder, prior, noise=noise, iterations=6)


def activations(rows=ROWS, seed=1):
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed))


def posterior(rows, latents=K, seed=0):
    """Of any gates and amplitudes."""
    generator = torch.Generator().manual_seed(seed)
    rate, where, width = (torch.rand(rows, latents, generator=generator) for _ in range(3))
    slab = TruncatedNormal(0.5 + where, 0.1 + 0.3 * width)
    return SpikeSlab(dist.Bernoulli(rate).to_event(1), dist.Independent(slab, 1))


def firing(fires):
    """A posterior that is nearly sure which latents fire."""
    slab = TruncatedNormal(torch.ones_like(fires), 0.1 * torch.ones_like(fires))
    gates = dist.Bernoulli(0.01 + 0.98 * fires).to_event(1)
    return {"z": SpikeSlab(gates, dist.Independent(slab, 1))}


# Who is shown what.


class Witness(PosteriorObserver):
    """A prior that keeps the posteriors it is shown."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.seen = prior, []

    @property
    def dim(self):
        return self.prior.dim

    def forward(self):
        return self.prior()

    def observe_posterior(self, posterior):
        self.seen.append(posterior)


def numbers(sites):
    q = sites["z"]
    assert isinstance(q, SpikeSlab)
    return torch.cat([q.probability, q.slab.mean, q.slab.variance, sites["noise"].v[:, None]], -1)


@pytest.mark.parametrize("through", ["fit", "SVI"])
@pytest.mark.parametrize("elbo", [ExpectedELBO, Trace_ELBO])
def test_observers_see_the_guides_distributions_of_each_update(through, elbo):
    """Those at the parameters before it, once each; never the model's."""
    witness = Witness(slab_prior())
    pair, x, expected = pair_of(witness, RowNoise(0.2)), activations(), []
    if through == "fit":
        elbo = ExpectedELBO if elbo is ExpectedELBO else ClosedFormELBO
        run = fit(pair, x, steps=3, batch_size=ROWS, lr=0.05, elbo=elbo())
        for step in range(3):
            batch = run.batches(step)
            expected.append(numbers(pair.guide.posterior(batch)))
            next(iter(run))
            assert len(witness.seen) == step + 1
    else:
        svi = SVI(pair.pyro_model, pair.pyro_guide, pyro.optim.Adam({"lr": 0.05}), elbo())
        for step in range(3):
            pair.project()
            assert len(witness.seen) == step
            expected.append(numbers(pair.guide.posterior(x)))
            svi.step(x)
            svi.evaluate_loss(x)  # no update follows it
        pair.project()
        pyro.clear_param_store()
    assert len(witness.seen) == 3
    for seen, before in zip(witness.seen, expected, strict=True):
        torch.testing.assert_close(numbers(seen), before)
    assert not torch.equal(expected[0], expected[2])


# M-steps.


def expected_log_prior(q, gates, slab):
    """E_q log p of a batch, per row; slab as (linear, precision, log normaliser) per latent."""
    rate, size = q.probability.numpy(), q.slab.mean.numpy()
    square = q.slab.variance.numpy() + size**2
    linear, precision, normaliser = slab
    alone = rate * np.log(gates) + (1 - rate) * np.log1p(-gates)
    sizes = rate * (linear * size - 0.5 * precision * square - normaliser)
    return (alone + sizes).mean(0)


SLABS = {  # the module, and its natural form from one or two unconstrained numbers
    "half-normal": (
        HalfNormalPrior,
        lambda p: (0.0, math.exp(-2 * p[0]), p[0] + 0.5 * math.log(math.pi / 2)),
        lambda prior: prior.log_scale[:, None],
    ),
    "exponential": (
        ExponentialPrior,
        lambda p: (-math.exp(-p[0]), 0.0, p[0]),
        lambda prior: prior.log_scale[:, None],
    ),
    "truncated": (
        TruncatedNormalPrior,
        lambda p: (
            p[0] * math.exp(-2 * p[1]),
            math.exp(-2 * p[1]),
            p[1]
            + 0.5 * math.log(2 * math.pi)
            + 0.5 * p[0] ** 2 * math.exp(-2 * p[1])
            + norm.logcdf(p[0] * math.exp(-p[1])),
        ),
        lambda prior: torch.stack([prior.loc, prior.log_scale], -1),
    ),
}


@pytest.mark.parametrize("name", SLABS)
def test_a_whole_m_step_maximises_the_expected_log_prior(name):
    made, natural, parameters = SLABS[name]
    prior = SpikeSlabPrior(BernoulliPrior(K, rate=0.01), made(K))
    fitted = FittedSpikeSlabPrior(prior, rate=1.0, pooling=0.0, spread=math.inf)
    q = posterior(40)
    q = SpikeSlab(dist.Bernoulli(0.5 * q.probability).to_event(1), q.slab)  # rates below ½
    fitted.observe_posterior({"z": q})
    found = torch.cat([prior.gates.logits[:, None], parameters(prior.slab)], -1).numpy()
    for k in range(K):

        def loss(p, k=k):
            gate = 1 / (1 + math.exp(-p[0]))
            return -expected_log_prior(q, gate, natural(p[1:]))[k]

        best = minimize(loss, found[k] + 0.3, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(found[k], best.x, atol=1e-5)
        assert loss(found[k]) <= best.fun + 1e-12


@pytest.mark.parametrize("deviations", [-1.0, 0.5, 2.0, 5.0, 8.0])
def test_the_m_step_finds_the_law_of_the_posterior_again(deviations):
    prior = SpikeSlabPrior(BernoulliPrior(1, rate=0.3), TruncatedNormalPrior(1))
    fitted = FittedSpikeSlabPrior(prior, rate=1.0, pooling=0.0, spread=math.inf)
    loc, scale = torch.full((1, 1), math.copysign(1.0, deviations)), 1 / abs(deviations)
    gates = dist.Bernoulli(torch.full((1, 1), 0.4)).to_event(1)
    law = TruncatedNormal(loc, torch.full((1, 1), scale))
    fitted.observe_posterior({"z": SpikeSlab(gates, dist.Independent(law, 1))})
    torch.testing.assert_close(prior.slab.loc, loc[0], rtol=1e-7, atol=0.0)
    torch.testing.assert_close(prior.slab.log_scale.exp().item(), scale, rtol=1e-7, atol=0.0)


def test_moments_fade_pool_and_are_capped_as_the_formula_says():
    rho, pooling, spread = 0.2, 0.3, 0.334
    fitted = FittedSpikeSlabPrior(slab_prior(), rate=rho, pooling=pooling, spread=spread)
    q0 = slab_prior()()
    start = torch.stack([q0.probability, q0.mean, q0.probability * (q0.slab.variance + 1.0)])
    start[2] = q0.probability * (q0.slab.variance + q0.slab.mean**2)
    n, f, s = start
    for seed in range(4):
        q = posterior(20, seed=seed)
        rate, size, width = q.probability, q.slab.mean, q.slab.variance
        n = (1 - rho) * n + rho * rate.mean(0)
        f = (1 - rho) * f + rho * (rate * size).mean(0)
        s = (1 - rho) * s + rho * (rate * (width + size**2)).mean(0)
        fitted.observe_posterior({"z": q})
    mean = (1 - pooling) * f / n + pooling * f.sum() / n.sum()
    free = s / n - (f / n) ** 2
    assert 0 < (free > (spread * mean) ** 2).sum() < K
    slab = fitted.prior.slab()
    torch.testing.assert_close(fitted.prior.gates.logits.sigmoid(), n.clamp(max=0.5))
    torch.testing.assert_close(slab.mean, mean)
    torch.testing.assert_close(slab.variance, torch.minimum(free, (spread * mean) ** 2))


@pytest.mark.parametrize("gates", ["independent", "ising", "tree"])
def test_rates_become_those_of_the_posterior_whatever_the_gates(gates):
    made = {
        "independent": lambda: BernoulliPrior(K, rate=0.1),
        "ising": lambda: IsingGatesPrior(Graph.ring(K), rate=0.1),
        "tree": lambda: TreeGatesPrior([-1, 0, 0, 1, -1], rate=0.1),
    }[gates]()
    fitted = FittedSpikeSlabPrior(slab_prior(gates=made), rate=1.0)
    rate = torch.tensor([0.4, 0.3, 0.2, 0.1, 1e-9])
    fitted.observe_posterior(
        {"z": SpikeSlab(dist.Bernoulli(rate.expand(7, K)).to_event(1), posterior(7).slab)}
    )
    torch.testing.assert_close(fitted().probability, rate.clamp(min=1e-5))


@pytest.mark.parametrize(("law", "deviation"), [("one size", 0.1), ("none", 1.0)])
def test_amplitudes_come_to_have_a_size_or_none_as_data_have(law, deviation):
    """Orthonormal atoms, exact posteriors: from one start, by default, to either end."""
    generator, n, latents = torch.Generator().manual_seed(6), 20_000, 3
    fires = torch.rand(n, latents, generator=generator) < 0.2
    size = 1 + 0.1 * torch.randn(n, latents, generator=generator)
    if law == "none":
        size = -torch.rand(n, latents, generator=generator).log()
    noise, decoder = 0.02, LinearDecoder(latents, D)
    with torch.no_grad():
        decoder.W_dec.copy_(torch.eye(latents, D))
    x = (fires * size) @ torch.eye(latents, D) + noise * torch.randn(n, D, generator=generator)
    slab = TruncatedNormalPrior(latents, loc=1.0, scale=0.4)
    fitted = FittedSpikeSlabPrior(
        SpikeSlabPrior(BernoulliPrior(latents, rate=0.1), slab), rate=1.0, pooling=0.0
    )
    guide = MeanFieldPosterior(decoder, fitted, FixedNoise(noise), iterations=1)
    for _ in range(15):
        fitted.observe_posterior(guide(x))
    found = fitted().slab
    torch.testing.assert_close(
        found.stddev / found.mean, torch.full((latents,), deviation), rtol=0.1, atol=0.0
    )
    # A firing too small to have a size is one only where there is none.
    faint = torch.zeros(1, D).index_fill(1, torch.arange(latents), 0.1)
    assert bool((guide(faint)["z"].probability > 0.9).all()) == (law == "none")


def test_a_latent_that_never_fires_keeps_a_proper_amplitude():
    """Of it nothing is known, at rate 1: it takes that of the others, not 0/0."""
    fitted = FittedSpikeSlabPrior(slab_prior(), rate=1.0, pooling=0.0)
    rate = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.0]).expand(7, K)
    q = SpikeSlab(dist.Bernoulli(rate).to_event(1), posterior(7).slab)
    fitted.observe_posterior({"z": q})
    shared = (rate * q.slab.mean).sum() / rate.sum()
    torch.testing.assert_close(fitted.prior.slab.loc[4], shared)
    assert fitted().slab.mean.isfinite().all()
    assert fitted().slab.variance.min() > 0


def test_rates_and_amplitudes_of_data_from_the_prior_are_recovered():
    """Orthonormal atoms: the posterior is exact, so that this is maximum likelihood by EM."""
    generator, n, latents = torch.Generator().manual_seed(5), 20_000, 4
    rate = torch.tensor([0.02, 0.1, 0.2, 0.4])
    size, width, noise = torch.tensor([1.0, 2.0, 1.5, 0.8]), 0.1, 0.05
    fires = (torch.rand(n, latents, generator=generator) < rate).double()
    codes = fires * (size + width * torch.randn(n, latents, generator=generator))
    decoder = LinearDecoder(latents, D)
    with torch.no_grad():
        decoder.W_dec.copy_(torch.eye(D))
    x = codes + noise * torch.randn(n, D, generator=generator)
    prior = SpikeSlabPrior(BernoulliPrior(latents, rate=0.1), TruncatedNormalPrior(latents))
    fitted = FittedSpikeSlabPrior(prior, rate=1.0, pooling=0.0, spread=math.inf)
    guide, bounds = MeanFieldPosterior(decoder, fitted, FixedNoise(noise), iterations=1), []
    model = SparseAutoencoder(decoder, fitted, noise=noise)
    for _ in range(15):
        bounds.append(-ExpectedELBO().loss(model, AmortizedGuide(guide), x))
        fitted.observe_posterior(guide(x))
    assert all(b >= a - 1e-6 * abs(a) for a, b in itertools.pairwise(bounds))  # EM never falls
    error = (rate * (1 - rate) / n).sqrt()
    assert ((fitted().probability - rate).abs() < 4 * error).all()
    count, total = n * rate, math.hypot(width, noise)
    assert ((prior.slab.loc - size).abs() < 4 * total / count.sqrt()).all()
    variance = prior.slab.log_scale.exp() ** 2
    assert ((variance - width**2).abs() < 4 * total**2 * (2 / count).sqrt()).all()


def test_settings_of_m_steps_that_cannot_be():
    for settings in (
        {"rate": 0.0},
        {"rate": 1.1},
        {"pooling": -0.1},
        {"pooling": 1.1},
        {"spread": 0.0},
        {"spread": math.nan},
    ):
        assert code_of(FittedSpikeSlabPrior, slab_prior(), **settings) == "fitted.setting"
    assert code_of(stack, [FittedSpikeSlabPrior(slab_prior())] * 2) == "replicas.single"


# Couplings.


def gates_of(latents=8, rate=0.1, **settings):
    alone = IsingGatesPrior(Graph.blocks((1,) * latents), rate=rate)
    return CoFiringGatesPrior(alone, **({"start": 0, "every": 1} | settings))


def planted(rows, seed=0):
    """Independent but for 0 and 1, which fire together, and 2 and 3, which never do."""
    generator = torch.Generator().manual_seed(seed)
    fires = (torch.rand(rows, 8, generator=generator) < 0.15).double()
    fires[:, 1] = torch.where(torch.rand(rows, generator=generator) < 0.8, fires[:, 0], fires[:, 1])
    fires[:, 3] *= 1 - fires[:, 2]
    return fires


def couplings(gates):
    graph = gates.gates.couplings
    pairs = map(tuple, graph.edges.mT.tolist())
    return dict(zip(pairs, graph.weights.tolist(), strict=True))


def test_planted_pairs_are_coupled_and_no_others():
    gates = gates_of(strength=0.7, memory=10**9)
    for seed in range(10):
        gates.observe_posterior(firing(planted(500, seed)))
    found, n = couplings(gates), 5000
    assert found.keys() == {(0, 1), (2, 3)}
    counts = sum(planted(500, seed).mT @ planted(500, seed) for seed in range(10))
    lift = math.log((counts[0, 1] + 0.5) / (counts[0, 0] * counts[1, 1] / n + 0.5))
    assert found[0, 1] == pytest.approx(0.7 * lift, rel=1e-4)
    assert found[2, 3] == pytest.approx(-0.7 * 3.0)  # clipped
    q = gates()
    together, apart = torch.eye(8)[0] + torch.eye(8)[1], torch.eye(8)[0]
    assert (q.field(apart)[1] > q.field(torch.zeros(8))[1]) & (q.field(together)[0] > q.logits[0])


def test_the_relabelled_control_has_as_many_couplings_of_other_latents():
    order = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    true, control = gates_of(), gates_of(relabelling=order)
    for seed in range(10):
        for gates in (true, control):
            gates.observe_posterior(firing(planted(500, seed)))
    assert couplings(true).keys() == {(0, 1), (2, 3)}
    moved = {(4, 5): couplings(true)[0, 1], (6, 7): couplings(true)[2, 3]}
    assert couplings(control) == pytest.approx(moved)


@pytest.mark.parametrize("rate", [0.001, 0.005, 0.02, 0.1])
@pytest.mark.parametrize("memory", [10**9, 5])
def test_independent_latents_are_coupled_no_more_often_than_stated(rate, memory):
    """A share of at most 2 exp(-z²/2), however rare: here 1 in 45, of 11 175 pairs."""
    latents, z = 150, 3.0
    gates = gates_of(latents, significance=z, memory=memory, every=20)
    generator = torch.Generator().manual_seed(int(1e4 * rate))
    for _ in range(20):
        fires = torch.rand(600, latents, generator=generator) < rate
        gates.observe_posterior(firing(fires.double()))
    pairs = latents * (latents - 1) / 2
    most = pairs * 2 * math.exp(-(z**2) / 2)
    assert gates.gates.couplings.num_edges <= most + 4 * most**0.5


def test_significance_is_that_of_a_count():
    """The bound that significance rests on holds for binomial tails, computed exactly."""
    n, p = 400, 0.03**2
    for count in range(1, 12):
        gain = 2 * (count * math.log(count / (n * p)) - count + n * p)
        tail = scipy.stats.binom(n, p).sf(count - 1)
        assert tail <= math.exp(-gain / 2)
        single = torch.tensor([[12.0, count], [count, 12.0]])
        for margin, edges in ((0.999, 1), (1.001, 0)):
            graph = lift_graph(
                single, torch.tensor(float(n)), strength=1.0, significance=margin * gain**0.5
            )
            assert graph.num_edges == edges


def test_couplings_follow_their_schedule_and_live_on_after_loading(tmp_path):
    gates = gates_of(start=2, every=3, memory=10)
    pair = pair_of(SpikeSlabPrior(gates, TruncatedNormalPrior(8)))
    edges = []
    for seed in range(8):
        if seed == 6:  # in the middle of a period
            pair = load(save(pair, tmp_path / "sae"))
            gates = pair.model.prior.gates
            assert isinstance(gates, CoFiringGatesPrior)
            assert gates.updates == 6
            assert len(couplings(gates)) == 2
            gates.gates.couple(Graph.blocks((1,) * 8))
        gates.observe_posterior(firing(planted(2000, seed)))
        edges.append(len(couplings(gates)))
    assert edges == [0, 0, 0, 0, 2, 2, 0, 2]  # at 5 and, not a period late, at 8
    keep = [0.9**t for t in range(6)]
    assert gates.rows.item() == pytest.approx(2000 * sum(keep))
    counts = sum(w * planted(2000, 7 - t).mT @ planted(2000, 7 - t) for t, w in enumerate(keep))
    torch.testing.assert_close(gates.counts, counts)
    gates.match(torch.full((8,), 0.25))
    torch.testing.assert_close(gates().mean, torch.full((8,), 0.25))


def test_settings_of_couplings_that_cannot_be():
    for settings in (
        {"start": -1},
        {"every": 0},
        {"memory": 0},
        {"strength": 0.0},
        {"significance": -1.0},
        {"relabelling": torch.arange(7)},
        {"relabelling": torch.zeros(8, dtype=torch.int64)},
    ):
        assert code_of(gates_of, **settings) == "cofiring.setting"
    many = IsingGatesPrior(Graph.blocks((1,) * 8193))
    assert code_of(CoFiringGatesPrior, many, start=0) == "cofiring.size"


# Schedules.


def geometric(start, end, length, t):
    return start * (end / start) ** min(t / length, 1.0)


@pytest.mark.parametrize("through", ["fit", "SVI"])
def test_what_is_annealed_moves_once_an_update(through):
    """Shared by model and guide, wherever it stands: a noise, a floor of noises, a penalty."""
    decoder, length = LinearDecoder(K, D), 4
    penalty = AnnealedExponentialPrior(K, start=8.0, end=0.5, length=length)
    noise = AnnealedNoise(2.0, 0.1, length=length)
    first = iterative_pair(FISTAPosterior, decoder, penalty, noise=noise)
    floor = AnnealedNoise(0.5, 3.0, length=length)
    second, x = pair_of(slab_prior(), RowNoise(floor)), activations()
    for pair in (first, second):
        if through == "fit":
            run = fit(pair, x, steps=6, batch_size=10, elbo=ExpectedELBO())
            advance = lambda run=run: next(iter(run))  # noqa: E731
        else:
            optim = pyro.optim.Adam({"lr": 1e-3})
            svi = SVI(pair.pyro_model, pair.pyro_guide, optim, Trace_ELBO())
            advance = lambda svi=svi, pair=pair: (svi.step(x), pair.project())  # noqa: E731
        for t in range(6):
            if pair is first:
                assert noise().item() == pytest.approx(geometric(2.0, 0.1, length, t))
                torch.testing.assert_close(
                    penalty().base_dist.rate, torch.full((K,), geometric(8.0, 0.5, length, t))
                )
            else:
                expected = geometric(0.5, 3.0, length, t)
                assert floor().item() == pytest.approx(expected)
                assert pair.model.noise().scale.item() == pytest.approx(expected)
            advance()
        pyro.clear_param_store()
    assert noise.updates == penalty.updates == floor.updates == 6
    assert penalty().batch_shape == ()
    assert penalty().event_shape == (K,)


def test_annealed_parts_stack():
    both = [AnnealedExponentialPrior(K, start=8.0, end=0.5, length=4) for _ in range(2)]
    both[1].observe({})
    stacked = stack(both)
    assert stacked().shape() == (2, 1, K)
    torch.testing.assert_close(stacked().mean[1, 0], both[1]().mean)


def test_a_targeted_penalty_is_an_integral_controller():
    prior = TargetedExponentialPrior(K, target=2.0, start=3.0, rate=0.5)
    log = math.log(3.0)
    for active in (0, 1, 2, 4, 5):
        z = torch.zeros(10, K)
        z[:, :active] = 1.0
        prior.observe({"z": z})
        log += 0.5 * min(max(math.log(active / 2), -1.0), 1.0) if active else -0.5
        assert prior.report()["l1"].item() == pytest.approx(math.exp(log))
        torch.testing.assert_close(prior().base_dist.rate, torch.full((K,), math.exp(log)))


def test_settings_of_schedules_that_cannot_be():
    assert code_of(AnnealedNoise, 0.0, 1.0, length=1) == "prior.bad_start"
    assert code_of(AnnealedNoise, 1.0, math.inf, length=1) == "prior.bad_end"
    assert code_of(AnnealedNoise, 1.0, 1.0, length=0) == "noise.length"
    made = AnnealedExponentialPrior
    assert code_of(made, 0, start=1.0, end=1.0, length=1) == "prior.bad_dim"
    assert code_of(made, 2, start=-1.0, end=1.0, length=1) == "prior.bad_start"
    assert code_of(made, 2, start=1.0, end=0.0, length=1) == "prior.bad_end"
    assert code_of(made, 2, start=1.0, end=1.0, length=0) == "noise.length"


# A belief about the dictionary.


def overlap(atoms, weight, threshold):
    """By pairs."""
    total = 0.0
    for i, j in itertools.permutations(range(len(atoms)), 2):
        total -= 0.5 * weight * max(float(atoms[i] @ atoms[j]) - threshold, 0.0) ** 2
    return total


def test_coherence_is_the_sum_over_pairs_with_its_gradient():
    decoder = LinearDecoder(9, 3)
    belief, atoms = Coherence(decoder, weight=0.7, threshold=0.2), decoder.W_dec.detach()
    assert belief().item() == pytest.approx(overlap(atoms, 0.7, 0.2))
    assert belief() < -0.01
    (slope,) = torch.autograd.grad(belief(), decoder.W_dec)
    step = 1e-6
    for i, j in itertools.product(range(9), range(3)):
        sides = []
        for sign in (1, -1):
            moved = atoms.clone()
            moved[i, j] += sign * step
            sides.append(overlap(moved, 0.7, 0.2))
        assert slope[i, j].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


def test_opposite_atoms_are_not_held_to_be_unlikely():
    decoder = LinearDecoder(2, 2)
    with torch.no_grad():
        for other, expected in ((-1.0, 0.0), (1.0, -((1 - 0.25) ** 2))):
            decoder.W_dec.copy_(torch.tensor([[1.0, 0.0], [other, 0.0]]))
            assert Coherence(decoder, weight=1.0)().item() == pytest.approx(expected)


@pytest.mark.parametrize("anchors", [1, 3, 4, 6, 9, 10, 50])
def test_anchors_take_turns_and_average_to_the_whole(anchors):
    """Over one period of updates, value and gradient."""
    decoder = LinearDecoder(9, 3)
    whole = Coherence(decoder, weight=1.0, threshold=0.1)
    parts = Coherence(decoder, weight=1.0, threshold=0.1, anchors=anchors)
    values, period = [], 9 // math.gcd(anchors, 9)
    for _ in range(period):
        values.append(parts())
        parts.observe({})
    assert parts.start == 0
    mean = torch.stack(values).mean()
    torch.testing.assert_close(mean, whole())
    slopes = [torch.autograd.grad(v, decoder.W_dec)[0] for v in (mean, whole())]
    torch.testing.assert_close(*slopes)
    assert (anchors >= 9) == all(torch.allclose(v, values[0]) for v in values)


def test_a_belief_is_per_row_and_of_training_only():
    pair = pair_of(slab_prior())
    pair.model.dictionary = Coherence(pair.model.decoder, weight=3.0, threshold=0.0)
    x = activations()
    terms = ClosedFormELBO().site_terms(pair.model.train(), pair.guide, x)
    torch.testing.assert_close(terms["dictionary"], -pair.model.dictionary().expand(ROWS))
    assert "dictionary" not in ClosedFormELBO().site_terms(pair.model.eval(), pair.guide, x)
    before = (pair.W_dec @ pair.W_dec.mT).detach().triu(1).max()
    pair.model.dictionary.weight = 1e4
    fit(pair, x, steps=100, batch_size=ROWS, lr=0.01, elbo=ExpectedELBO()).run(progress=False)
    assert (pair.W_dec @ pair.W_dec.mT).triu(1).max() < before


def test_settings_of_coherence_that_cannot_be():
    decoder = LinearDecoder(4, 2)
    for settings in (
        {"weight": -1.0},
        {"weight": math.inf},
        {"weight": math.nan},
        {"weight": 1.0, "threshold": 1.0},
        {"weight": 1.0, "threshold": -0.1},
        {"weight": 1.0, "anchors": 0},
    ):
        assert code_of(Coherence, decoder, **settings) == "coherence.setting"
    assert code_of(stack, [Coherence(decoder, weight=1.0)] * 2) == "replicas.single"


# A noise per row.


def test_a_noise_per_row_is_scipys_pareto_and_its_best_value_a_maximum():
    prior = RowNoise(0.3, shape=2.5)()
    sigma = torch.linspace(0.3, 4.0, 20)
    expected = scipy.stats.pareto(2.5, scale=0.3).logpdf(sigma.numpy())
    torch.testing.assert_close(prior.log_prob(sigma), torch.from_numpy(expected))
    for square in (1e-6, 0.5, 30.0):
        best = fitted_noise(prior, torch.tensor([square]), D)
        grid = torch.cat([best, torch.linspace(0.3, 6.0, 20_001)])
        value = prior.log_prob(grid) - D * grid.log() - square / (2 * grid**2)
        assert value[0] >= value.max() - 1e-9
    assert code_of(RowNoise, 0.0) == "noise.scale"
    assert code_of(RowNoise, 1.0, shape=0.0) == "prior.bad_shape"


# The whole.


def whole_pair():
    """Everything at once, as the recipe makes it."""
    gates = CoFiringGatesPrior(
        IsingGatesPrior(Graph.blocks((1,) * K), rate=0.2),
        start=1,
        every=2,
        significance=0.5,
        relabelling=torch.tensor([1, 2, 3, 4, 0]),
    )
    prior = FittedSpikeSlabPrior(slab_prior(gates=gates), spread=math.inf, pooling=0.25, rate=0.1)
    noise = RowNoise(AnnealedNoise(0.4, 0.2, length=10), shape=2.0)
    pair = pair_of(prior, noise)
    pair.model.dictionary = Coherence(pair.model.decoder, weight=0.5, threshold=0.1, anchors=3)
    return pair


def test_everything_is_saved_and_goes_on_where_it_stopped(tmp_path):
    """Moments, counts, couplings, schedules, anchors: two runs, one of them through a file."""
    x, pair = activations(200), whole_pair()
    fit(pair, x, steps=5, batch_size=40, lr=0.01, elbo=ExpectedELBO()).run(progress=False)
    assert pair.model.prior.prior.gates.gates.couplings.num_edges > 0
    loaded = load(save(pair, tmp_path / "sae"))
    with torch.no_grad():
        assert_same(pair, loaded, x)
    assert loaded.model.prior.spread == math.inf
    for part in (pair, loaded):
        run = fit(part, x, steps=6, batch_size=40, lr=0.01, elbo=ExpectedELBO(), seed=1)
        run.run(progress=False)
    with torch.no_grad():
        assert_same(pair, loaded, x)
    ours, theirs = (p.model.prior.prior.gates for p in (pair, loaded))
    assert torch.equal(ours.gates.couplings.edges, theirs.gates.couplings.edges)
    assert torch.equal(ours.gates.couplings.weights, theirs.gates.couplings.weights)
    assert ours.updates == theirs.updates == 11
    with torch.no_grad():
        assert_same(copy.deepcopy(loaded), loaded, x)


def test_every_parameter_moves_and_the_prior_follows_in_svi():
    pair, x = whole_pair(), activations()
    before = {name: p.detach().clone() for name, p in pair.named_parameters()}
    moments = pair.model.prior.moments.clone()
    optim = pyro.optim.Adam({"lr": 0.01})
    svi = SVI(pair.pyro_model, pair.pyro_guide, optim, Trace_ELBO())
    for _ in range(4):
        svi.step(x)
    pair.project()
    pyro.clear_param_store()
    assert leaves_of(pair).keys() == before.keys()
    for name, parameter in pair.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert (pair.model.prior.moments != moments).all()
    assert pair.model.dictionary.start == 4 * 3 % K


def superposition(seed, *, features=48, width=32, rows=20_000):
    """More features than dimensions, on one row in 20 each."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(features, width, generator=generator)
    atoms = torch.nn.functional.normalize(atoms, dim=-1)
    fires = torch.rand(rows, features, generator=generator) < 1 / 20
    codes = fires * (1 + 0.1 * torch.randn(rows, features, generator=generator))
    return codes @ atoms + 0.5, atoms, codes


RECIPE = RecoveryRecipe(l1_rows=20_000, slab_rows=40_000, final_rows=10_000)


@pytest.mark.float32
def test_the_recipe_finds_features_in_superposition():
    """Nine in ten at a cosine of .9, when they fire, and how strongly; and draws nothing global."""
    x, atoms, codes = superposition(11)
    before = torch.get_rng_state()
    pair = RECIPE.train(x, latents=48, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert recovered_share(pair.W_dec.detach(), atoms, threshold=0.9) > 0.9
    found = pair.encode(x[:2000])
    cosine = pair.W_dec.detach() @ atoms.mT
    best, at = cosine.max(0)
    good = best > 0.9
    fires = (found[:, at] > 0)[:, good]
    truth = (codes[:2000] > 0)[:, good]
    assert (fires & truth).sum() / truth.sum() > 0.9
    assert (fires & truth).sum() / fires.sum() > 0.9
    sizes = (pair.normalizer.scale * found)[:, at][:, good][fires & truth]
    assert sizes.mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.float32
def test_the_recipe_is_its_seed():
    x = superposition(3, rows=3000)[0]
    recipe = RecoveryRecipe(l1_rows=2000, slab_rows=2000, final_rows=1000, batch_size=100)
    pairs = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbance)
        pairs.append(recipe.train(x, latents=48, seed=seed, progress=False))
    torch.testing.assert_close(pairs[0].W_dec, pairs[1].W_dec, rtol=0.0, atol=0.0)
    assert not torch.equal(pairs[0].W_dec, pairs[2].W_dec)


@pytest.mark.float32
def test_the_recipe_in_double_precision_and_with_couplings(tmp_path):
    """Under a default of single precision; what it makes is a pair that can be saved."""
    x = superposition(3, rows=2000)[0].double()
    learned = lambda pair: CoFiringGatesPrior(  # noqa: E731
        IsingGatesPrior(Graph.blocks((1,) * pair.W_dec.shape[0])), start=5, every=5
    )
    recipe = RecoveryRecipe(
        l1_rows=1000, slab_rows=2000, final_rows=1000, batch_size=100, gates=learned
    )
    pair = recipe.train(x, latents=48, progress=False)
    assert {p.dtype for p in pair.parameters()} == {torch.float64}
    assert pair.model.prior.prior.gates.updates == 30
    loaded = load(save(pair, tmp_path / "sae"))
    assert torch.equal(loaded.encode(x[:50]), pair.encode(x[:50]))


def test_recipes_that_cannot_be():
    x = superposition(3, rows=1000)[0]
    few = RecoveryRecipe(l1_rows=10)
    assert code_of(few.train, x, latents=48, progress=False) == "recipe.rows"
    strong = RecoveryRecipe(l1=(1e3, 1e3), l1_rows=500, batch_size=100)
    assert code_of(strong.train, x, latents=48, progress=False) == "recipe.silent"


def test_a_recipe_of_one_phase_ends_there():
    x = superposition(3, rows=1000)[0]
    recipe = RecoveryRecipe(l1_rows=500, slab_rows=0, batch_size=100)
    runs = []
    for run in recipe.phases(x, latents=48):
        run.run(progress=False)
        runs.append(run)
    assert len(runs) == 1
    assert isinstance(runs[0].autoencoder.guide.posterior, FISTAPosterior)
    model = runs[0].autoencoder.model
    assert model.prior().base_dist.rate[0].item() == pytest.approx(recipe.l1[1])


def test_a_gaussian_pair_has_nothing_for_a_slab_to_learn():
    """A posterior without gates under a fitted prior: a typed error, not an attribute's."""
    decoder = LinearDecoder(K, D)
    model = SparseAutoencoder(decoder, FittedSpikeSlabPrior(slab_prior()), noise=NOISE)
    pair = Autoencoder(model, AmortizedGuide(GaussianPosterior(LinearEncoder(D, 2 * K))))
    with pytest.raises(NotImplementedError) as caught:
        ClosedFormELBO().loss(pair.model, pair.guide, activations())
    assert caught.value.code == "elbo.no_kl"
