"""SAELens's synthetic data: the same gates and directions, the same law of codes."""

import logging
import warnings

import pytest
import torch

from toys.directions import RandomDirections
from toys.synth import SynthCase
from toys.synth_directions import OrthogonalisedDirections
from toys.synth_law import SynthLaw
from toys.synth_parts import FoldedNormal, LinearlySpaced, LowRankCopula, ZipfRates
from toys.synth_trees import SynthTrees

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("sae_lens")
    from sae_lens.synthetic import (
        FoldedNormalMagnitudeConfig,
        HierarchyConfig,
        LinearMagnitudeConfig,
        LowRankCorrelationConfig,
        SyntheticModel,
        SyntheticModelConfig,
        ZipfianFiringProbabilityConfig,
    )
    from sae_lens.synthetic.feature_dictionary import orthogonalize_embeddings

ROWS, LIMIT = 200_000, 4.5  # of each sample; standard errors

CASE = SynthCase(
    features=96,
    d_model=24,
    rates=ZipfRates(exponent=0.5, low=0.02, high=0.3),
    trees=SynthTrees(roots=4, branching=3, depth=2),
    copula=LowRankCopula(rank=4, scale=0.25),
    mean=LinearlySpaced(start=3.0, stop=1.5),
    deviation=FoldedNormal(loc=0.5, scale=0.5),
    directions=RandomDirections(),
    bias=0.5,
)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def theirs(seed, *, exclusive=1.0, scaled=True):
    """Their model of ``CASE``; float32, as its samples are."""
    torch.set_default_dtype(torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SyntheticModel(
            SyntheticModelConfig(
                num_features=96,
                hidden_dim=24,
                firing_probability=ZipfianFiringProbabilityConfig(
                    exponent=0.5, min_prob=0.02, max_prob=0.3
                ),
                hierarchy=HierarchyConfig(
                    total_root_nodes=4,
                    branching_factor=3,
                    max_depth=2,
                    mutually_exclusive_portion=exclusive,
                    compensate_probabilities=True,
                    scale_children_by_parent=scaled,
                ),
                correlation=LowRankCorrelationConfig(rank=4, correlation_scale=0.25),
                mean_firing_magnitudes=LinearMagnitudeConfig(start=3.0, end=1.5),
                std_firing_magnitudes=FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
                bias=0.5,
                seed=seed,
            )
        )
    torch.set_default_dtype(torch.float64)
    return model


def law_of(model, trees):
    """Our law with the numbers that their model has drawn."""
    drawn = model.activation_generator
    return SynthLaw(
        gates=drawn.firing_probabilities.double(),
        mean=drawn.mean_firing_magnitudes,
        deviation=drawn.std_firing_magnitudes,
        loadings=model.correlation_matrix.correlation_factor,
        trees=trees,
    )


def same_means(ours, reference):
    """Means of two samples' columns within ``LIMIT`` errors of their difference."""
    error = ((ours.var(0) + reference.var(0)) / ROWS).sqrt()
    assert ((ours.mean(0) - reference.mean(0)).abs() <= LIMIT * error + 1e-12).all()


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_law_of_codes(exclusive, scaled):
    trees = SynthTrees(roots=4, branching=3, depth=2, exclusive=exclusive, scaled=scaled)
    model = theirs(3, exclusive=float(exclusive), scaled=scaled)
    law = law_of(model, trees)
    gates = trees.gates(CASE.rates.of(96))
    torch.testing.assert_close(gates, law.gates, rtol=1e-5, atol=0)
    ours = law.sample(ROWS, torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    reference = model.activation_generator.sample(ROWS).double()
    fires, fire = (ours > 0).double(), (reference > 0).double()
    same_means(fires, fire)
    same_means(ours, reference)
    same_means(ours**2, reference**2)
    together, both = fires.mT @ fires / ROWS, fire.mT @ fire / ROWS
    pooled = (together + both) / 2
    error = (2 * pooled * (1 - pooled) / ROWS).sqrt()
    # 4560 pairs: five errors, and one row for pairs that hardly ever meet.
    assert ((together - both).abs() <= 5 * error + 5 / ROWS).all()
    product, products = ours.mT @ ours / ROWS, reference.mT @ reference / ROWS
    fourth = ((ours**2).mT @ ours**2 + (reference**2).mT @ reference**2) / ROWS
    assert ((product - products).abs() <= 5 * (fourth / ROWS).sqrt() + 50 / ROWS).all()
    assert (model.hierarchy.feature_indices_used) == set(range(trees.size))


def test_activations_are_a_dictionary_of_unit_rows_and_a_bias():
    model, ours = theirs(3), CASE.build(torch.Generator().manual_seed(0))
    x, codes = model.sample_with_features(10)
    rows, shift = model.feature_dict.feature_vectors, model.feature_dict.bias
    torch.testing.assert_close(x, codes @ rows + shift)
    for bias in (shift, ours.bias):
        assert bias.norm().item() == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(ours.law.mean, model.activation_generator.mean_firing_magnitudes)


def test_orthogonalised_directions():
    start = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    theirs = orthogonalize_embeddings(start, num_steps=60, lr=0.01, chunk_size=16)
    torch.testing.assert_close(OrthogonalisedDirections(steps=60).descend(start), theirs)
