"""Graph priors whose graph follows the run: when, from what, its normaliser, save and load."""

import copy

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from test_persistence import assert_same
from torch import nn

from priors import (
    ComponentLU,
    Graph,
    GraphLaplacianPrior,
    LanczosSpectrum,
    Omitted,
    Spectrum,
    coactivation_graph,
)
from priors.replicas import stack
from vsae import (
    AbstractRefreshedGraphPrior,
    CoactivationPrior,
    DecoderGraphPrior,
    fit,
    load,
    save,
    topk_autoencoder,
    variational_autoencoder,
)
from vsae.errors import VsaeError

K, D = 12, 6


def base(**settings):
    return GraphLaplacianPrior(Graph.ring(K), ridge=0.5, strength=2.0, loc=-0.2, **settings)


def code_of(make, *args, **settings):
    with pytest.raises(VsaeError) as caught:
        make(*args, **settings)
    return caught.value.code


def pair_of(make, *, slots=False, **settings):
    """A pair whose prior refreshes its graph: ``make(prior, decoder)``."""
    torch.manual_seed(0)
    if slots:
        pair = topk_autoencoder(D, K, k=3)
    else:
        pair = variational_autoencoder(D, base(), noise=0.3, link=nn.ReLU())
    pair.model.prior = make(base(**settings), pair.model.decoder)
    return pair


def of_decoder(prior, decoder):
    return DecoderGraphPrior(prior, decoder, 2, every=3, start=1)


def of_codes(prior, decoder):
    return CoactivationPrior(prior, 2, every=4, start=2, window=2)


# The prior itself.


@pytest.mark.parametrize("logdet", [ComponentLU, Spectrum, LanczosSpectrum, Omitted])
@pytest.mark.parametrize("learnable", [False, True])
def test_a_prior_with_another_graph_is_the_prior_made_with_it(logdet, learnable):
    if learnable and not logdet.differentiable:
        return
    graph, z = Graph.grid(3, 4), torch.randn(5, K)
    replaced = base(learnable=learnable, logdet=logdet())
    replaced().log_prob(z)  # what was computed for the old graph
    replaced.replace_graph(graph)
    fresh = GraphLaplacianPrior(
        graph, ridge=0.5, strength=2.0, loc=-0.2, learnable=learnable, logdet=logdet()
    )
    torch.testing.assert_close(replaced().log_prob(z), fresh().log_prob(z), rtol=1e-12, atol=0)
    assert replaced.graph is graph
    if learnable:
        replaced().log_prob(z).sum().backward()
        fresh().log_prob(z).sum().backward()
        torch.testing.assert_close(replaced.log_strength.grad, fresh.log_strength.grad)
    q = dist.Normal(z, 1.0).to_event(1)
    torch.manual_seed(1)
    one = replaced().rsample((3,))
    torch.manual_seed(1)
    torch.testing.assert_close(one, fresh().rsample((3,)))
    assert torch.distributions.kl_divergence(q, replaced()).shape == (5,)


def test_a_graph_over_something_else_is_refused():
    with pytest.raises(VsaeError, match=r"not over the prior's latents.*rows is lifted") as caught:
        base().replace_graph(Graph.ring(K + 1))
    assert caught.value.code == "graph.num_nodes"
    assert code_of(stack([base(), base()]).replace_graph, Graph.ring(K)) == "replicas.graph"


# When, and from what.


class Counted(AbstractRefreshedGraphPrior):
    """Every graph it makes has one edge more."""

    made = 0

    def new_graph(self):
        self.made += 1
        edges = np.stack([np.zeros(self.made, np.int64), np.arange(1, self.made + 1)])
        return Graph(edges, np.ones(self.made), K)


@pytest.mark.parametrize(("every", "start"), [(1, 0), (3, 0), (3, 2), (2, 5)])
def test_a_graph_is_replaced_every_so_many_updates(every, start):
    prior = Counted(base(), every=every, start=start)
    for update in range(1, 12):
        prior.observe_posterior({})
        assert prior.made == max(0, update - start) // every
    assert prior.report()["graph_edges"] == prior.graph.num_edges


def test_atoms_are_compared_as_they_are_after_the_update():
    pair, x = pair_of(of_decoder), torch.randn(40, D)
    seen = [pair.model.prior.graph]
    for record in fit(pair, x, steps=8, batch_size=20, lr=0.05):
        if record.step + 1 in (4, 7):  # one, and every three
            assert pair.model.prior.graph == Graph.knn(pair.W_dec.detach(), 2)
        else:
            assert pair.model.prior.graph is seen[-1]
        seen.append(pair.model.prior.graph)
        assert record.to_dict()["codes/graph_edges"] == seen[-1].num_edges
    assert len({id(graph) for graph in seen}) == 3


@pytest.mark.parametrize("slots", [False, True])
def test_codes_of_the_window_before_a_refresh_count(slots):
    """Those at the posterior mean, as they were when the update was made."""
    pair, x = pair_of(of_codes, slots=slots), torch.randn(60, D)
    run = fit(pair, x, steps=10, batch_size=20, lr=0.05)
    steps, codes = iter(run), []
    for step in range(10):
        codes.append(pair.encode(run.batches(step)).detach().clone())
        next(steps)
        if step + 1 in (6, 10):  # two, and every four
            expected = coactivation_graph(torch.cat(codes[-2:]), 2)
            assert torch.equal(pair.model.prior.graph.edges, expected.edges)
            torch.testing.assert_close(pair.model.prior.graph.weights, expected.weights)
    assert pair.model.prior.graph.num_edges


def test_gamma_and_lambda_go_on_being_learned():
    pair, x = pair_of(of_decoder, learnable=True), torch.randn(40, D)
    before = pair.model.prior.prior.log_strength.item()
    fit(pair, x, steps=9, batch_size=20, lr=0.05).run(progress=False)
    after = pair.model.prior.prior.log_strength.item()
    fit(pair, x, steps=3, batch_size=20, lr=0.05).run(progress=False)
    assert len({before, after, pair.model.prior.prior.log_strength.item()}) == 3


# Save, load, copy.


@pytest.mark.parametrize("make", [of_decoder, of_codes])
@pytest.mark.parametrize("slots", [False, True])
def test_the_graph_of_the_moment_is_saved_and_the_clock_goes_on(make, slots, tmp_path):
    pair, x = pair_of(make, slots=slots), torch.randn(40, D)
    fit(pair, x, steps=6, batch_size=20, lr=0.05).run(progress=False)
    loaded = load(save(pair, tmp_path / "sae"))
    assert_same(pair, loaded, x)
    assert loaded.model.prior.graph == pair.model.prior.graph != Graph.ring(K)
    for _ in range(5):
        posterior = pair.guide.posterior(x)
        for prior in (pair.model.prior, loaded.model.prior):
            prior.observe_posterior(posterior)
        assert loaded.model.prior.graph == pair.model.prior.graph
    assert loaded.model.prior.updates == pair.model.prior.updates == 11
    if make is of_decoder:
        assert loaded.model.prior.decoder is loaded.model.decoder
    assert_same(pair, copy.deepcopy(pair), x)


@pytest.mark.float32
def test_it_keeps_the_dtype_of_the_model():
    prior = base().double()
    prior.replace_graph(Graph.grid(3, 4))
    assert prior().log_prob(torch.randn(2, K, dtype=torch.float64)).dtype == torch.float64
    assert prior.laplacian.weights.dtype == torch.float64
    single = base()
    single.replace_graph(Graph.grid(3, 4))
    assert single.laplacian.weights.dtype == torch.float32


# What is refused.


def test_schedules_that_cannot_be():
    decoder = topk_autoencoder(D, K, k=3).model.decoder
    assert code_of(DecoderGraphPrior, base(), decoder, 2, every=0) == "refresh.every"
    assert code_of(DecoderGraphPrior, base(), decoder, 2, every=1, start=-1) == "refresh.start"
    for window in (0, 6):
        made = {"every": 5, "window": window}
        assert code_of(CoactivationPrior, base(), 2, **made) == "refresh.window"
    assert code_of(stack, [of_codes(base(), None)] * 2) == "replicas.single"
