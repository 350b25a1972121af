"""Mistakes that used to end in a bare error, or in none, end in one that says what was meant."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from priors import Graph, GraphLaplacianPrior, coactivation_graph, lifted_graph
from priors.errors import GraphWarning
from vsae import (
    CoactivationPrior,
    SampleGraphELBO,
    SparseCode,
    TargetL0,
    fit,
    l1_autoencoder,
    ladder_autoencoder,
    point_crosscoder,
    save,
    to_released_crosscoder,
    topk_autoencoder,
    topk_crosscoder,
    variational_ladder_autoencoder,
    with_auxk,
)
from vsae.activations import read_activations
from vsae.batches import Batches
from vsae.commands.eval import main, measure
from vsae.errors import VsaeError
from vsae.metrics import recruitment


def caught(call):
    with pytest.raises(VsaeError) as error:
        call()
    return error.value


def test_co_activation_of_a_ladder_is_refused_at_its_first_update():
    """Not at the first refresh, when the run is half over."""
    pair = ladder_autoencoder(4, (8, 5), l1=0.1)
    graph = GraphLaplacianPrior(Graph.ring(5))
    pair.model.priors[1] = CoactivationPrior(graph, 2, every=100)
    run = fit(pair, torch.randn(40, 4), steps=200, batch_size=20)
    error = caught(lambda: run.run(progress=False))
    assert (error.code, run.step) == ("refresh.site", 0)
    assert error.context["sites"] == ["z_1", "z_2"]


def test_a_guide_without_an_encoder_has_no_auxk():
    pair = variational_ladder_autoencoder(4, (8, 5), noise=0.3)
    assert caught(lambda: with_auxk(pair, after=10)).code == "auxk.pair"


def test_a_flat_pair_has_no_released_layout_of_layers():
    assert caught(lambda: to_released_crosscoder(l1_autoencoder(4, 8, l1=0.1))).code == (
        "conversion.source"
    )


def test_a_file_of_layers_names_row_layer_and_column(tmp_path):
    x = np.random.default_rng(0).standard_normal((9, 3, 4))
    x[5, 1, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    error = caught(lambda: read_activations(str(tmp_path / "x.npy")))
    assert error.code == "data.nonfinite"
    assert [error.context[name] for name in ("row", "layer", "column")] == [5, 1, 3]
    assert "layer 1" in str(error)
    assert "row 5, column 3" in str(error)


def test_data_of_a_replica_names_it():
    x = torch.zeros(3, 9, 4)
    x[2, 5, 1] = torch.inf
    error = caught(lambda: Batches(x, 3, (0, 1, 2)))
    assert (error.context["part"], error.context["row"], error.context["column"]) == ([2], 5, 1)
    assert "row 5, column 1 of part [2]" in str(error)


def test_eval_of_a_flat_pair_on_layers(tmp_path, capsys):
    pair, x = l1_autoencoder(4, 8, l1=0.1), torch.randn(9, 3, 4)
    assert caught(lambda: measure(pair, x)).code == "data.rank"
    save(pair, tmp_path / "run")
    np.save(tmp_path / "x.npy", x.numpy())
    error = caught(lambda: main([str(tmp_path / "run"), str(tmp_path / "x.npy")]))
    assert error.code == "data.rank"
    assert measure(topk_crosscoder((4, 4, 4), 8, k=2), x)["rows"] == 9


@pytest.mark.parametrize("rows", [12, 13])
def test_a_prior_over_as_many_latents_as_rows_is_warned_of(rows):
    """Built of a graph over rows, a crosscoder has a latent per row, and nothing else is wrong."""
    pair = point_crosscoder((2, 2), GraphLaplacianPrior(Graph.ring(12)))
    x = torch.randn(rows, 2, 2)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit(pair, x, steps=1, batch_size=6)
    told = [w for w in found if issubclass(w.category, GraphWarning)]
    assert len(told) == (rows == 12)
    if told:
        assert "rows" in str(told[0].message)
        assert "SampleGraphELBO" in str(told[0].message)


def test_no_targets_are_no_target():
    assert caught(lambda: TargetL0(())).code == "prior.bad_target"


def test_codes_in_slots_are_codes_of_a_graph():
    code = topk_autoencoder(4, 9, k=3).code(torch.randn(30, 4))
    assert isinstance(code, SparseCode)
    assert coactivation_graph(code, 2) == coactivation_graph(code.dense(), 2)
    rows = Graph.ring(30)
    assert lifted_graph(rows, code, 2) == lifted_graph(rows, code.dense(), 2)


def test_a_prior_of_other_latents_than_the_slots_are_of():
    pair = topk_crosscoder((4, 4), 16, k=2, prior=GraphLaplacianPrior(Graph.ring(8)))
    error = caught(lambda: pair.elbo(torch.randn(5, 2, 4)))
    assert error.code == "pair.latents"
    assert error.context == {"prior": 8, "decoder": 16}


def test_a_strength_that_is_a_tensor_is_not_read_in_training():
    elbo = SampleGraphELBO(Graph.ring(12), strength=lambda step: torch.empty(2, 1, device="meta"))
    elbo.on(torch.arange(12)[None].expand(2, -1), 0)  # a controller's, one per replica, say


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_a_schedule_of_strengths_is_held_to_what_a_constant_is(strength):
    graph, x = Graph.ring(20), torch.randn(20, 4)
    elbo = SampleGraphELBO(graph, strength=lambda step: strength if step == 2 else 0.1)
    run = fit(l1_autoencoder(4, 8, l1=0.1), x, steps=5, batch_size=10, elbo=elbo)
    assert caught(lambda: run.run(progress=False)).code == "elbo.strength"
    assert run.step == 2
    assert caught(lambda: SampleGraphELBO(graph, strength=strength)).code == "elbo.strength"


def test_codes_that_are_no_numbers_recruit_nobody():
    fine, coarse = torch.eye(4).repeat(25, 1), torch.eye(4).repeat(25, 1)
    fine[3, 1] = torch.nan
    for codes in ((fine, coarse), (coarse, fine)):
        error = caught(lambda codes=codes: recruitment(*codes, generator=torch.Generator()))
        assert error.code == "data.nonfinite"


def test_a_lifted_signed_graph_has_positive_ties_alone():
    """Weights below zero are dropped, and those above are lessened by them."""
    edges = torch.tensor([[0, 0, 1], [1, 2, 2]])
    signed = Graph(edges, torch.tensor([1.0, -0.5, 1.0]), 3, signed=True)
    found = lifted_graph(signed, torch.eye(3), 2)
    assert (found.weights > 0).all()
    assert found.edges.T.tolist() == [[0, 1], [1, 2]]
    both = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # 1 - 0.5, over √2
    assert lifted_graph(signed, both, 1).weights.tolist() == pytest.approx([0.5 / 2**0.5])


def test_a_controller_of_a_variational_ladder_sees_means_given_the_draws():
    """As its documentation says: it is what metrics.l0 says of the coarsest level alone."""
    torch.manual_seed(0)
    pair, x = variational_ladder_autoencoder(4, (8, 5), noise=0.3, loc=0.0), torch.randn(64, 4)
    q = pair.posterior(x)
    controller = TargetL0(3.0)
    fit(pair, x, steps=1, batch_size=64, lr=1e-12, beta=controller).run(progress=False)
    drawn = controller.active.item()
    means = sum((each.mean > 0).double().sum(-1).mean().item() for each in q.values())
    assert drawn != pytest.approx(means, abs=1e-9)
    only = TargetL0(3.0)
    only.observe_posterior({"z_2": q["z_2"]})
    assert only.active.item() == pytest.approx((q["z_2"].mean > 0).double().sum(-1).mean().item())


UNTYPED = """
import torch
from vsae import SampleGraphELBO, ladder_autoencoder
from vsae.errors import ConfigError
for call in (
    lambda: ladder_autoencoder(4, (8, 5), l1=0.1, decoder="lateral"),
    lambda: SampleGraphELBO(torch.eye(4)),
):
    try:
        call()
    except ConfigError as error:
        print(error.code)
"""


def test_where_no_type_checker_runs_mistakes_of_type_are_named():
    """These tests run under one; callers need not."""
    command = [sys.executable, "-c", UNTYPED]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["ladder.decoder", "elbo.graph"]
