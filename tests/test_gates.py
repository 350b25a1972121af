"""Structured gates: multilinear log-densities, against enumeration of every state."""

import itertools
import math

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from pyro import poutine
from torch.distributions import kl_divergence

from priors import BernoulliPrior, Graph, IsingGatesPrior, TreeGatesPrior, replicas
from priors.errors import ConfigError, VsaeError
from priors.gates import gate_field


def states(latents):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=latents)))


def independent(rates, gates):
    """The probability of every state under independent gates."""
    return torch.where(gates > 0, rates, 1 - rates).prod(-1)


def pairs(latents):
    return list(itertools.combinations(range(latents), 2))


@st.composite
def ising(draw, latents=5):
    """How to make a prior over random couplings of either sign, its rates of any size."""
    kept = draw(st.lists(st.sampled_from(pairs(latents)), unique=True))
    size = st.floats(-3.0, 3.0).filter(lambda j: abs(j) > 1e-3)
    weights = draw(st.lists(size, min_size=len(kept), max_size=len(kept)))
    seed = draw(st.integers(0, 2**16))

    def make():
        edges = torch.tensor(kept, dtype=torch.int64).reshape(-1, 2).mT
        graph = Graph(edges, torch.tensor(weights), latents, signed=True)
        return scattered(IsingGatesPrior(graph, rate=0.3), seed)

    return make


@st.composite
def tree(draw, latents=5, exclusive=True):
    """How to make a prior over a random forest, its latents in any order."""
    parents = [draw(st.integers(-1, k - 1)) for k in range(latents)]
    order = draw(st.permutations(range(latents)))
    moved = [0] * latents
    for k, parent in enumerate(parents):
        moved[order[k]] = -1 if parent < 0 else order[parent]
    leak = draw(st.sampled_from((1e-6, 0.05, 1.0)))
    exclusion = draw(st.floats(0.0, 4.0)) if exclusive else 0.0
    seed = draw(st.integers(0, 2**16))
    return lambda: scattered(TreeGatesPrior(moved, rate=0.3, leak=leak, exclusion=exclusion), seed)


def scattered(prior, seed):
    generator = torch.Generator().manual_seed(seed)
    prior.logits += 1.5 * torch.randn(prior.dim, generator=generator)
    return prior


def by_hand(prior):
    """The log-density of every state, from the formula, one factor at a time; not normalised."""
    rates, found = prior.logits.sigmoid().tolist(), []
    for state in states(prior.dim).tolist():
        if isinstance(prior, IsingGatesPrior):
            total = sum(math.log(p if g else 1 - p) for g, p in zip(state, rates, strict=True))
            graph = prior.couplings
            for (i, j), weight in zip(graph.edges.mT.tolist(), graph.weights.tolist(), strict=True):
                total += weight * (state[i] - rates[i]) * (state[j] - rates[j])
        else:
            parents, total = prior.parents.tolist(), 0.0
            for k, (g, p) in enumerate(zip(state, rates, strict=True)):
                on = parents[k] < 0 or state[parents[k]]
                p = p if on else prior.leak * p
                total += math.log(p if g else 1 - p)
            for i, j in pairs(prior.dim):
                siblings = parents[i] == parents[j] >= 0
                total -= prior.exclusion * siblings * state[i] * state[j]
        found.append(total)
    return torch.tensor(found)


either = st.one_of(ising(), tree())
few = settings(max_examples=60)


@few
@given(either)
def test_density_by_hand(make):
    prior = make()
    expected = by_hand(prior)
    if isinstance(prior, IsingGatesPrior):
        expected = expected - expected.logsumexp(0)
    torch.testing.assert_close(prior().log_prob(states(5)), expected, rtol=1e-9, atol=1e-9)


@few
@given(either, st.integers(0, 2**16))
def test_the_polynomial_is_the_expectation_and_the_field_its_derivative(make, seed):
    prior = make()
    generator = torch.Generator().manual_seed(seed)
    rates = torch.rand(3, 5, generator=generator).requires_grad_()
    law, every = prior(), states(5)
    chances = independent(rates.detach()[:, None], every)
    expected = chances @ law.log_prob(every)
    found = law.multilinear(rates)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    (slope,) = torch.autograd.grad(found.sum(), rates)
    torch.testing.assert_close(law.field(rates.detach()), slope, rtol=1e-9, atol=1e-9)
    # At a state the field is the log-odds of a gate, the others as they are.
    field = law.field(every)
    for k in range(5):
        on, off = every.clone(), every.clone()
        on[:, k], off[:, k] = 1.0, 0.0
        odds = law.log_prob(on) - law.log_prob(off)
        torch.testing.assert_close(field[:, k], odds, rtol=1e-9, atol=1e-9)


@few
@given(either, st.integers(0, 2**16))
def test_kl_from_independent_gates_by_enumeration(make, seed):
    prior = make()
    rates = torch.rand(3, 5, generator=torch.Generator().manual_seed(seed))
    q, every = dist.Bernoulli(rates).to_event(1), states(5)
    chances = independent(rates[:, None], every)
    gap = chances.log() - prior().log_prob(every)
    expected = (torch.where(chances > 0, gap, 0.0) * chances).sum(-1)
    torch.testing.assert_close(kl_divergence(q, prior()), expected, rtol=1e-9, atol=1e-9)


@few
@given(st.one_of(ising(), tree(exclusive=False)))
def test_normalised(make):
    prior = make()
    assert prior().log_prob(states(5)).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_normalised_at_the_greatest_size_and_not_beyond():
    """Sixteen latents in a ring of couplings, against the transfer matrix of the ring."""
    coupling, rate = 1.3, 0.2
    g = torch.tensor([0.0, 1.0])
    alone = torch.where(g > 0, math.log(rate), math.log(1 - rate))
    pair = coupling * (g - rate)[:, None] * (g - rate)
    transfer = (pair + 0.5 * (alone[:, None] + alone)).exp()
    log_z = torch.linalg.matrix_power(transfer, 16).trace().log()
    ring = Graph.ring(16)
    graph = Graph(ring.edges, coupling * ring.weights, 16)
    law = IsingGatesPrior(graph, rate=rate)()
    torch.testing.assert_close(law.log_partition(), log_z, rtol=1e-10, atol=1e-10)
    assert IsingGatesPrior(Graph.ring(17), rate=rate)().log_partition() == 0


@few
@given(tree())
def test_exclusion_only_takes_away(make):
    """With it the density sums to less than one, and is the one without times e^-κ per pair."""
    prior = make()
    free = TreeGatesPrior(prior.parents, leak=prior.leak)
    free.logits.copy_(prior.logits)
    every = states(5)
    gap = free().log_prob(every) - prior().log_prob(every)
    siblings = [(i, j) for i, j in pairs(5) if prior.parents[i] == prior.parents[j] >= 0]
    count = sum((every[:, i] * every[:, j] for i, j in siblings), torch.zeros(32))
    torch.testing.assert_close(gap, prior.exclusion * count, rtol=1e-9, atol=1e-9)
    assert prior().log_prob(every).exp().sum() <= 1 + 1e-12


@few
@given(ising())
def test_mean_field_marginals_stay_at_the_rates(make):
    prior = make()
    rates = prior.logits.sigmoid()
    torch.testing.assert_close(prior().field(rates), prior.logits)
    torch.testing.assert_close(prior().mean, rates)


@few
@given(tree(exclusive=False))
def test_tree_marginals(make):
    prior = make()
    weights = prior().log_prob(states(5)).exp()
    torch.testing.assert_close(prior().mean, weights @ states(5))
    again = TreeGatesPrior(prior.parents, leak=prior.leak)
    again.match(prior().mean)
    likely = prior.logits.sigmoid() > 0.99
    found, right = again.logits.sigmoid(), prior.logits.sigmoid()
    torch.testing.assert_close(found[~likely], right[~likely], rtol=1e-8, atol=0.0)


@few
@given(tree(exclusive=False))
def test_a_child_is_less_likely_without_its_parent(make):
    """By the leak exactly, whatever else the tree is."""
    prior = make()
    every, weights = states(5), prior().log_prob(states(5)).exp()
    for child, parent in enumerate(prior.parents.tolist()):
        if parent < 0:
            continue
        shares = [
            weights[(every[:, parent] == on) & (every[:, child] == 1)].sum()
            / weights[every[:, parent] == on].sum()
            for on in (1, 0)
        ]
        expected = prior.logits[child].sigmoid() * torch.tensor([1.0, prior.leak])
        torch.testing.assert_close(torch.stack(shares), expected)


def test_blocks_attract_or_exclude():
    """A coupling is the log odds ratio of two latents, the others as they are."""
    for coupling in (1.5, -2.0):
        prior = IsingGatesPrior.blocks((2, 3), coupling=coupling, rate=0.2)
        assert prior.couplings.num_edges == 1 + 3
        law, every = prior(), states(5)
        weights = law.log_prob(every).exp()
        for i, j in pairs(5):
            cell = {
                (a, b): weights[(every[:, i] == a) & (every[:, j] == b)].sum()
                for a in (0, 1)
                for b in (0, 1)
            }
            odds = (cell[1, 1] * cell[0, 0] / (cell[1, 0] * cell[0, 1])).log().item()
            together = (i < 2) == (j < 2)
            if j == 1:
                assert odds == pytest.approx(coupling, rel=1e-10)
            assert odds * coupling > 1e-3 if together else abs(odds) < 1e-10
    with pytest.raises(VsaeError):
        IsingGatesPrior.blocks((2, 3), coupling=0.0)


def test_a_graph_laplacian_over_gates_is_these_couplings_at_other_rates():
    """Squares of zeros and ones are themselves: (g - h)² = g + h - 2gh, edge by edge."""
    edges = {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 2.0, (3, 4): 1.5}
    strength, alone, every = 0.8, torch.tensor([-1.0, 0.3, -2.0, 0.5, -0.7]), states(5)
    energy, couplings = every @ alone, torch.zeros(5, 5)
    for (i, j), weight in edges.items():
        energy = energy - 0.5 * strength * weight * (every[:, i] - every[:, j]) ** 2
        couplings[i, j] = couplings[j, i] = strength * weight
    rates = torch.full((5,), 0.5)
    for _ in range(200):  # mean-field marginals of the one are the rates of the other
        rates = (alone - 0.5 * couplings.sum(0) + couplings @ rates).sigmoid()
    weights = [strength * weight for weight in edges.values()]
    graph = Graph.from_edges(torch.tensor(list(edges)).mT, weights, num_nodes=5)
    prior = IsingGatesPrior(graph)
    prior.match(rates)
    torch.testing.assert_close(prior().log_prob(every), energy.log_softmax(0))


SAMPLED = {
    "ising": lambda: IsingGatesPrior.blocks((3, 1), coupling=-1.5, rate=0.4),
    "tree": lambda: TreeGatesPrior([2, 2, -1, 0], rate=0.6, leak=0.1),
}


@pytest.mark.parametrize("make", SAMPLED.values(), ids=SAMPLED)
def test_draws_are_of_the_density(make):
    law, n = make()(), 40_000
    draws = law.sample((n,))
    found = counted(draws) / n
    expected = law.log_prob(states(4)).exp()
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all()


def counted(draws):
    """How many draws are each of the states, in the order of ``states``."""
    numbers = (draws.long() * 2 ** torch.arange(draws.shape[-1]).flip(0)).sum(-1)
    return torch.bincount(numbers, minlength=2 ** draws.shape[-1]).double()


def test_draws_of_siblings_that_exclude():
    """In order of birth: each elder that fires costs κ, so that two together are rare."""
    prior, n = TreeGatesPrior([-1, 0, 0], rate=0.5, leak=0.2, exclusion=2.0), 40_000
    found = counted(prior().sample((n,))) / n
    expected = []
    for top, elder, younger in states(3).tolist():
        share = 0.5 if top else 0.1
        odds = math.log(share / (1 - share)) - 2.0 * elder
        after = 1 / (1 + math.exp(-odds))
        expected.append(0.5 * (share if elder else 1 - share) * (after if younger else 1 - after))
    expected = torch.tensor(expected)
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all()


def test_draws_of_more_latents_than_are_enumerated():
    """Six equal triples, of which all eight joint states are known by enumeration of one."""
    prior = IsingGatesPrior.blocks((3,) * 6 + (1,), coupling=1.5, rate=0.3)
    one = IsingGatesPrior.blocks((3,), coupling=1.5, rate=0.3)
    rows = 3000
    draws = prior().sample((rows,))
    assert draws.shape == (rows, 19)
    found = counted(draws[:, :18].reshape(-1, 3)) / (6 * rows)
    expected = one().log_prob(states(3)).exp()
    error = (expected * (1 - expected) / (6 * rows)).sqrt()
    assert ((found - expected).abs() < 5 * error).all()
    assert abs(draws[:, 18].mean() - 0.3) < 5 * (0.21 / rows) ** 0.5


def test_shapes_and_programs():
    for make in SAMPLED.values():
        law = make()()
        assert law.shape() == (4,)
        wide = law.expand((5, 1)).expand((5, 3))
        assert wide.shape() == (5, 3, 4)
        assert wide.sample((2,)).shape == (2, 5, 3, 4)
        assert law.sample().shape == (4,)
        assert wide.log_prob(torch.zeros(4)).shape == (5, 3)
        assert wide.mean.shape == (5, 3, 4)
        for fn in (law, wide):
            with pytest.raises(ValueError, match="support"):
                fn.log_prob(torch.full((4,), 0.5))

        def program(law=law):
            with pyro.plate("rows", 7):
                return pyro.sample("g", law)

        trace = poutine.trace(program).get_trace()
        trace.compute_log_prob()
        site = trace.nodes["g"]
        torch.testing.assert_close(site["log_prob"], law.log_prob(site["value"]))
        assert not law.has_rsample


def test_couplings_are_replaced_and_rates_stay():
    prior = IsingGatesPrior(Graph.blocks((1, 1, 1)), rate=0.3, learnable=True)
    every, rates = states(3), torch.tensor([0.1, 0.2, 0.3])
    prior.match(rates)
    torch.testing.assert_close(prior().log_prob(every).exp(), independent(rates, every))
    prior.couple(Graph(torch.tensor([[0], [2]]), torch.tensor([-1.0]), 3, signed=True))
    expected = by_hand(prior)
    found = prior().log_prob(every)
    torch.testing.assert_close(found, expected - expected.logsumexp(0))
    assert prior.rate == pytest.approx(0.2)
    (slope,) = torch.autograd.grad(found[0], prior.logits)
    assert (slope != 0).all()
    assert "couplings=1" in repr(prior)
    assert prior.float()().log_prob(every.float()).dtype == torch.float32


@pytest.mark.float32
def test_extreme_rates_in_single_precision():
    """The log-odds of ε σ(b), where σ(b) rounds to 0 or 1."""
    prior = TreeGatesPrior([-1, 0, 0], leak=0.5)
    prior.logits.copy_(torch.tensor([0.0, 40.0, -90.0]))
    field = prior().field(torch.tensor([0.0, 0.0, 0.0]))
    assert field[1].item() == pytest.approx(0.0, abs=1e-5)  # logit ½
    assert field[2].item() == pytest.approx(-90 - math.log(2), rel=1e-6)
    certain = TreeGatesPrior([-1, 0], leak=1.0, learnable=True)
    with torch.no_grad():
        certain.logits.copy_(torch.tensor([0.0, 40.0]))
    value = certain().log_prob(torch.tensor([0.0, 1.0]))
    assert value.item() == pytest.approx(-math.log(2))
    (grad,) = torch.autograd.grad(value, certain.logits)
    assert grad.isfinite().all()


def test_without_structure_they_are_independent():
    rates, every = torch.tensor([0.2, 0.5, 0.9]), states(3)
    plain = BernoulliPrior(3, rate=0.5)
    lonely = IsingGatesPrior(Graph.blocks((1, 1, 1)), rate=0.5)
    open_ = TreeGatesPrior([-1, 0, 1], leak=1.0)
    roots = TreeGatesPrior([-1, -1, -1], leak=0.1, exclusion=3.0)
    for prior in (plain, lonely, open_, roots):
        prior.logits.copy_(rates.logit())
        torch.testing.assert_close(prior().log_prob(every).exp(), independent(rates, every))
        field = gate_field(prior(), every)
        torch.testing.assert_close(field, rates.logit().expand_as(field))
        assert prior.rate == pytest.approx(rates.mean().item())
        q = dist.Bernoulli(torch.tensor([0.4, 0.3, 0.1])).to_event(1)
        p = dist.Bernoulli(rates).to_event(1)
        torch.testing.assert_close(kl_divergence(q, prior()), kl_divergence(q, p))


def test_fields_of_other_laws():
    law = torch.distributions.Independent(torch.distributions.Bernoulli(torch.tensor([0.3])), 1)
    torch.testing.assert_close(gate_field(law, torch.zeros(1)), torch.tensor([0.3]).logit())
    normal = dist.Normal(torch.zeros(3), 1.0)
    for other, name in ((normal, "Normal"), (normal.to_event(1), "Normal")):
        with pytest.raises(ConfigError) as caught:
            gate_field(other, torch.zeros(3))
        assert caught.value.code == "gates.family"
        assert caught.value.context == {"class": name}
    with pytest.raises(NotImplementedError):
        kl_divergence(normal.to_event(1), IsingGatesPrior.blocks((3,), coupling=1.0)())


@pytest.mark.parametrize("make", SAMPLED.values(), ids=SAMPLED)
def test_stacks_are_refused(make):
    with pytest.raises(ConfigError) as caught:
        replicas.stack([make(), make()])
    assert caught.value.code == "replicas.gates"


def couple(graph):
    return IsingGatesPrior.blocks((2, 2), coupling=1.0).couple(graph)


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("prior.bad_rate", lambda: IsingGatesPrior(Graph.ring(4), rate=0.0)),
        ("prior.bad_rate", lambda: IsingGatesPrior(Graph.ring(4), rate=math.nan)),
        ("prior.bad_rate", lambda: TreeGatesPrior([-1, 0], rate=1.0)),
        ("prior.bad_rate", lambda: TreeGatesPrior([-1, 0], rate=-0.5)),
        ("prior.bad_dim", lambda: TreeGatesPrior([])),
        ("gates.scaled", lambda: IsingGatesPrior(Graph.ring(4).normalized())),
        ("gates.scaled", lambda: couple(Graph.ring(4).normalized())),
        ("gates.size", lambda: couple(Graph.ring(5))),
        ("gates.setting", lambda: TreeGatesPrior([-1, 0], leak=0.0)),
        ("gates.setting", lambda: TreeGatesPrior([-1, 0], leak=1.1)),
        ("gates.setting", lambda: TreeGatesPrior([-1, 0], leak=math.nan)),
        ("gates.setting", lambda: TreeGatesPrior([-1, 0], exclusion=-1.0)),
        ("gates.setting", lambda: TreeGatesPrior([-1, 0], exclusion=math.inf)),
        ("gates.tree", lambda: TreeGatesPrior([-1, 2])),
        ("gates.tree", lambda: TreeGatesPrior([-2, 0])),
        ("gates.tree", lambda: TreeGatesPrior([-1, 2, 1])),
        ("gates.tree", lambda: TreeGatesPrior([0])),
        ("gates.tree", lambda: TreeGatesPrior(torch.tensor([[-1, 0]]))),
        ("gates.tree", lambda: TreeGatesPrior(torch.tensor([-1.0, 0.0]))),
        ("gates.tree", lambda: TreeGatesPrior(torch.tensor(-1))),
    ],
)
def test_bad_settings(code, make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == code
