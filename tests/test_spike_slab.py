"""Spike and slab against enumeration of the gates times quadrature of the amplitudes."""

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import Independent, kl_divergence

import vsae
from priors import (
    BernoulliPrior,
    CholeskyPrior,
    ExponentialPrior,
    Graph,
    HalfNormalPrior,
    IsingGates,
    IsingGatesPrior,
    SpikeSlab,
    SpikeSlabPrior,
    TreeGatesPrior,
    TruncatedNormal,
    TruncatedNormalPrior,
    replicas,
)
from priors.errors import ConfigError

K, D = 3, 4
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


def ising():
    graph = Graph(torch.tensor([[0, 1], [1, 2]]), torch.tensor([1.2, -0.8]), K, signed=True)
    return IsingGatesPrior(graph, rate=0.3)


GATES = {
    "independent": lambda: BernoulliPrior(K, rate=0.3),
    "ising": ising,
    "tree": lambda: TreeGatesPrior([-1, 0, 0], rate=0.4, leak=0.1),
}
SLABS = {
    "truncated": lambda: TruncatedNormalPrior(K, loc=0.8, scale=0.5),
    "half-normal": lambda: HalfNormalPrior(K, scale=0.7),
    "exponential": lambda: ExponentialPrior(K, scale=0.4),
}
EVERY = pytest.mark.parametrize(
    ("gates", "slab"),
    list(itertools.product(GATES.values(), SLABS.values())),
    ids=[f"{g} {s}" for g, s in itertools.product(GATES, SLABS)],
)


def posterior(rows=(), seed=0):
    """A factorised posterior: gates and amplitudes of every latent apart."""
    generator = torch.Generator().manual_seed(seed)
    rate, where, width = (torch.rand(*rows, K, generator=generator) for _ in range(3))
    gates = dist.Bernoulli(0.1 + 0.8 * rate).to_event(1)
    return SpikeSlab(gates, Independent(TruncatedNormal(2 * where - 0.5, 0.2 + width), 1))


def states():
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=K)))


def amplitudes(top=16.0, panels=80):
    """Nodes and weights of composite Gauss and Legendre on (0, top)."""
    half = top / panels / 2
    middles = half + 2 * half * torch.arange(panels)
    nodes = middles[:, None] + half * torch.from_numpy(NODES)
    return nodes.flatten(), half * torch.from_numpy(WEIGHTS).repeat(panels)


def densities(law):
    """Of every latent's amplitude at the nodes, (K, nodes): from the whole code's density."""
    a, _ = amplitudes()
    base = law.gates.log_prob(states()).exp()
    found = []
    for k in range(K):
        on = torch.zeros(len(a), K)
        on[:, k] = a
        state = torch.zeros(K)
        state[k] = 1.0
        at = int((states() == state).all(-1).nonzero())
        found.append((law.log_prob(on) - base[at].log()).exp())
    return torch.stack(found)


@EVERY
def test_sums_to_one_with_the_moments_it_states(gates, slab):
    """Over the states of the gates, an integral over the amplitudes of those that fire."""
    law = SpikeSlabPrior(gates(), slab())()
    a, weight = amplitudes()
    density = densities(law)
    mass, first, second = (density @ (weight * a**power) for power in range(3))
    torch.testing.assert_close(mass, torch.ones(K), rtol=1e-8, atol=0.0)
    chances = law.gates.log_prob(states()).exp()
    total = (chances * torch.where(states() > 0, mass, 1.0).prod(-1)).sum()
    assert total.item() == pytest.approx(1, abs=1e-8)
    if not isinstance(law.gates, IsingGates):  # whose marginals are those of its mean field
        rate = chances @ states()
        torch.testing.assert_close(law.probability, rate)
        torch.testing.assert_close(law.mean, rate * first, rtol=1e-8, atol=0.0)
        variance = rate * second - (rate * first) ** 2
        torch.testing.assert_close(law.variance, variance, rtol=1e-8, atol=0.0)


@EVERY
def test_density_of_a_whole_code(gates, slab):
    law = SpikeSlabPrior(gates(), slab())()
    a = torch.rand(8, K) + 0.05
    expected = law.gates.log_prob(states())
    sizes = law.slab.base_dist.log_prob(a)
    expected = expected + (states() * sizes).sum(-1)
    torch.testing.assert_close(law.log_prob(states() * a), expected)
    assert law.log_prob(torch.zeros(2, 5, K)).shape == (2, 5)


@EVERY
def test_kl_by_enumeration_and_by_draws(gates, slab):
    p, q = SpikeSlabPrior(gates(), slab())(), posterior()
    found = kl_divergence(q, p).item()
    _, weight = amplitudes()
    ours, theirs = densities(q), densities(p)
    gap = torch.where(ours > 1e-300, ours.log() - theirs.log(), 0.0)
    sizes = (ours * gap) @ weight
    log_q, log_p = q.gates.log_prob(states()), p.gates.log_prob(states())
    expected = (log_q.exp() * (log_q - log_p + states() @ sizes)).sum().item()
    assert found == pytest.approx(expected, rel=1e-8)
    n = 20_000
    z = q.sample((n,))
    sampled = q.log_prob(z) - p.log_prob(z)
    assert abs(sampled.mean() - found) < 5 * sampled.std() / n**0.5
    rows = posterior(rows=(5,))
    assert kl_divergence(rows, p).shape == (5,)
    one = SpikeSlab(
        dist.Bernoulli(rows.probability[2]).to_event(1),
        Independent(TruncatedNormal(*(v[2] for v in parameters(rows))), 1),
    )
    torch.testing.assert_close(kl_divergence(rows, p)[2], kl_divergence(one, p))


def parameters(law):
    return law.slab.base_dist.loc, law.slab.base_dist.scale


def test_kl_of_itself_is_zero_and_of_a_point_its_surprise():
    q = posterior()
    assert kl_divergence(q, q).abs() < 1e-12
    p = SpikeSlabPrior(ising(), TruncatedNormalPrior(K))()
    z = torch.tensor([[0.0, 1.3, 0.2], [0.0, 0.0, 0.0]])
    for point in (dist.Delta(z, event_dim=1), dist.Delta(z).to_event(1)):
        torch.testing.assert_close(kl_divergence(point, p), -p.log_prob(z))
    with pytest.raises(NotImplementedError):
        kl_divergence(dist.Normal(torch.zeros(K), 1.0).to_event(1), p)


@EVERY
def test_draws(gates, slab):
    law, n = SpikeSlabPrior(gates(), slab())(), 20_000
    z = law.sample((n,))
    assert z.shape == (n, K)
    fires = (z > 0).double()
    assert ((z == 0) | (z > 0)).all()
    found = torch.stack([(fires == state).all(-1).double().mean() for state in states()])
    expected = law.gates.log_prob(states()).exp()
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all()
    for k in range(K):
        size, one = z[:, k][z[:, k] > 0], law.slab.base_dist
        assert abs(size.mean() - one.mean[k]) < 5 * size.std() / len(size) ** 0.5
        gap = (size - one.mean[k]) ** 2
        assert abs(gap.mean() - one.variance[k]) < 5 * gap.std() / len(size) ** 0.5


def test_pathwise_only_where_the_gates_are_fixed():
    loc = torch.full((K,), 0.5, requires_grad=True)
    slab = Independent(TruncatedNormal(loc, torch.full((K,), 0.7)), 1)
    fixed, n = SpikeSlab(posterior().gates, slab), 40_000
    assert fixed.has_rsample
    z = fixed.rsample((n,))
    draws = torch.autograd.grad(z.sum(), loc, retain_graph=True)[0] / n
    expected = torch.autograd.grad(fixed.mean.sum(), loc, retain_graph=True)[0]
    # Each draw's share is between 0 and 1: the deviation of the mean is at most ½ / √n.
    assert ((draws - expected).abs() < 5 * 0.5 / n**0.5).all()
    logits = torch.zeros(K, requires_grad=True)
    learned = SpikeSlab(dist.Bernoulli(logits=logits).to_event(1), slab)
    assert not learned.has_rsample
    assert not learned.sample().requires_grad
    log_prob = learned.log_prob(torch.tensor([1.0, 0.0, 2.0]))
    slopes = torch.autograd.grad(log_prob, (logits, loc))
    torch.testing.assert_close(slopes[0], torch.tensor([0.5, -0.5, 0.5]))
    assert ((slopes[1] != 0) == torch.tensor([True, False, True])).all()


def test_zeros_send_no_gradient():
    law = SpikeSlabPrior(BernoulliPrior(K, rate=0.2), ExponentialPrior(K, scale=0.5))()
    z = torch.tensor([1.0, 0.0, 0.3], requires_grad=True)
    (slope,) = torch.autograd.grad(law.log_prob(z), z)
    torch.testing.assert_close(slope, torch.tensor([-2.0, 0.0, -2.0]))


# In programs.


def program(prior, atoms, noise, x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", prior())
        pyro.sample("x", dist.Normal(z @ atoms, noise).to_event(1), obs=x)
        return z


def exact_loss(q, prior, atoms, noise, x):
    """Minus the ELBO, from the moments of the posterior."""
    mean, spread = q.mean @ atoms, q.variance @ atoms.square()
    square = ((x - mean) ** 2 + spread).sum() / noise**2
    likelihood = -0.5 * square - x.numel() * (math.log(noise) + 0.5 * math.log(2 * math.pi))
    return kl_divergence(q, prior()).sum() - likelihood


@pytest.mark.parametrize("gates", GATES.values(), ids=GATES)
def test_elbo_of_a_fixed_posterior(gates):
    """Trace_ELBO and TraceMeanField_ELBO are the exact ELBO on average."""
    prior = SpikeSlabPrior(gates(), TruncatedNormalPrior(K, loc=0.8, scale=0.5))
    atoms, noise, x = torch.randn(K, D), 0.8, torch.randn(6, D)
    q = posterior(rows=(6,))
    expected = exact_loss(q, prior, atoms, noise, x).item()

    def model():
        return program(prior, atoms, noise, x)

    def guide():
        with pyro.plate("rows", len(x)):
            pyro.sample("z", q)

    for elbo in (Trace_ELBO(), TraceMeanField_ELBO()):
        losses = torch.tensor([elbo.loss(model, guide) for _ in range(200)])
        assert abs(losses.mean() - expected) < 5 * losses.std() / len(losses) ** 0.5
    # Of the closed form only the likelihood is drawn.
    torch.manual_seed(5)
    found = TraceMeanField_ELBO().loss(model, guide)
    torch.manual_seed(5)
    known = dist.Normal(q.rsample() @ atoms, noise).log_prob(x).sum()
    assert found == pytest.approx((kl_divergence(q, prior()).sum() - known).item(), rel=1e-10)


def test_score_function_gradient_of_the_gates():
    """Where gates are learned, Pyro's estimate is the exact gradient on average."""
    prior = SpikeSlabPrior(ising(), TruncatedNormalPrior(K, loc=0.8, scale=0.5))
    atoms, noise, x = torch.randn(K, D), 1.0, torch.randn(2, D)
    logits = torch.tensor([-0.5, 0.3, 0.0], requires_grad=True)

    def law():
        slab = TruncatedNormal(torch.full((K,), 0.6), torch.full((K,), 0.4))
        return SpikeSlab(dist.Bernoulli(logits=logits).to_event(1), Independent(slab, 1))

    def model(n):
        with pyro.plate("draws", n, dim=-2):
            return program(prior, atoms, noise, x)

    def guide(n):
        with pyro.plate("draws", n, dim=-2), pyro.plate("rows", len(x)):
            pyro.sample("z", law())

    exact = exact_loss(law().expand((2,)), prior, atoms, noise, x)
    (expected,) = torch.autograd.grad(exact, logits)
    found = []
    for _ in range(40):
        loss = Trace_ELBO(max_plate_nesting=2).differentiable_loss(model, guide, 500) / 500
        found.append(torch.autograd.grad(loss, logits)[0])
    found = torch.stack(found)
    assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / len(found) ** 0.5).all()


def test_predictive():
    prior = SpikeSlabPrior(BernoulliPrior(K, rate=0.3), HalfNormalPrior(K, scale=0.7))

    def model():
        with pyro.plate("rows", 4):
            return pyro.sample("z", prior())

    with torch.no_grad():
        z = Predictive(model, num_samples=1000)()["z"]
    assert z.shape == (1000, 4, K)
    n = z[..., 0].numel()
    mean, variance = z.flatten(0, 1).mean(0), z.flatten(0, 1).var(0)
    assert ((mean - prior().mean).abs() < 5 * (variance / n).sqrt()).all()


# As a module, and as a distribution.


def test_shapes():
    law = posterior(rows=(5,))
    assert law.shape() == (5, K)
    assert law.expand((2, 5)).shape() == (2, 5, K)
    assert law.expand((2, 5)).sample((7,)).shape == (7, 2, 5, K)
    assert law.expand((2, 5)).log_prob(torch.zeros(K)).shape == (2, 5)
    mixed = SpikeSlab(BernoulliPrior(K, rate=0.5)(), law.slab)
    assert mixed.shape() == (5, K)
    assert mixed.probability.shape == (5, K)
    prior = SpikeSlabPrior(ising(), TruncatedNormalPrior(K))
    assert prior.dim == K
    for fn in (law, law.expand((2, 5)), prior(), prior().expand((5,))):
        with pytest.raises(ValueError, match="support"):
            fn.log_prob(torch.tensor([0.0, -1.0, 1.0]))
        with pytest.raises(ValueError, match="support"):
            fn.log_prob(torch.tensor([0.0, math.nan, 1.0]))


def test_what_does_not_fit():
    gates = BernoulliPrior(K, rate=0.1)
    for slab in (HalfNormalPrior(K + 1), CholeskyPrior(K)):
        for make in (lambda s: SpikeSlab(gates(), s()), lambda s: SpikeSlabPrior(gates, s)):
            with pytest.raises(ConfigError) as caught:
                make(slab)
            assert caught.value.code == "spike.shape"
    with pytest.raises(ConfigError) as caught:
        SpikeSlab(dist.Bernoulli(torch.tensor(0.5)), TruncatedNormal(0.0, 1.0))
    assert caught.value.code == "spike.shape"


@pytest.mark.parametrize("slab", SLABS.values(), ids=SLABS)
def test_replicas(slab):
    both = [SpikeSlabPrior(BernoulliPrior(K, rate=rate), slab()) for rate in (0.1, 0.4)]
    both[1].slab.log_scale += 0.5
    stacked = replicas.stack(both)
    assert stacked().shape() == (2, 1, K)
    assert stacked.dim == K
    z = torch.rand(2, 7, K) * (torch.rand(2, 7, K) < 0.5)
    expected = torch.stack([p().log_prob(rows) for p, rows in zip(both, z, strict=True)])
    torch.testing.assert_close(stacked().log_prob(z), expected)
    with pytest.raises(ConfigError) as caught:
        replicas.stack([SpikeSlabPrior(ising(), slab()) for _ in range(2)])
    assert caught.value.code == "replicas.gates"


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize(
    ("gates", "slab"),
    [
        (BernoulliPrior, TruncatedNormalPrior),
        (IsingGatesPrior, HalfNormalPrior),
        (TreeGatesPrior, ExponentialPrior),
    ],
)
def test_saved_and_loaded(gates, slab, learnable, tmp_path):
    """Rates, amplitudes and couplings as they were left, not as they began."""
    first = {
        BernoulliPrior: lambda: BernoulliPrior(K, rate=0.1, learnable=learnable),
        IsingGatesPrior: lambda: IsingGatesPrior(Graph.ring(K), learnable=learnable),
        TreeGatesPrior: lambda: TreeGatesPrior([1, -1, 1], leak=0.2, learnable=learnable),
    }[gates]()
    prior = SpikeSlabPrior(first, slab(K, learnable=learnable))
    prior.gates.match(torch.tensor([0.1, 0.2, 0.05]))
    prior.slab.match(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 5.0, 11.0]))
    if isinstance(first, IsingGatesPrior):
        first.couple(Graph(torch.tensor([[0], [2]]), torch.tensor([-0.7]), K, signed=True))
    model = vsae.SparseAutoencoder(vsae.LinearDecoder(K, D), prior, noise=0.5)
    guide = vsae.AmortizedGuide(vsae.ReLUPosterior(vsae.LinearEncoder(D, K)))
    autoencoder = vsae.Autoencoder(model, guide)
    loaded = vsae.load(vsae.save(autoencoder, tmp_path / "sae"))
    again, z = loaded.model.prior, states() * torch.rand(8, K)
    assert torch.equal(again().log_prob(z), prior().log_prob(z))
    assert [n for n, _ in loaded.named_parameters()] == [
        n for n, _ in autoencoder.named_parameters()
    ]
    x = torch.randn(5, D)
    assert torch.equal(loaded.elbo(x), autoencoder.elbo(x))
    if isinstance(first, IsingGatesPrior):
        assert again.gates.couplings.weights.tolist() == [-0.7]
        again.gates.couple(Graph.ring(K))  # the loaded one lives on
        assert again.gates.couplings.num_edges == K
