"""What takes a pair and activations takes them as the pair does: rows, layers, or a list."""

import pytest
import torch

from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
from vsae import (
    AmortizedGuide,
    Crosscoder,
    LayeredAutoencoder,
    LayeredEncoder,
    LinearDecoder,
    LinearEncoder,
    MeanFieldPosterior,
    RefreshedNeighbours,
    ReLUPosterior,
    SkipConnection,
    SparseAutoencoder,
    SpikeSlabPosterior,
    ablated,
    ablation,
    ablation_effects,
    amortisation_gap,
    distil,
    topk_crosscoder,
)
from vsae.errors import VsaeError
from vsae.refreshed_neighbours import codes_of

LAYERS, K, N = (4, 4, 4), 10, 30


def crosscoder():
    return topk_crosscoder(LAYERS, K, k=3)


def spiked():
    """A crosscoder of unit atoms whose guide is iterative: what distillation is from."""
    prior = SpikeSlabPrior(BernoulliPrior(K, rate=0.2), TruncatedNormalPrior(K, loc=2.0, scale=0.3))
    model = SparseAutoencoder(LinearDecoder(K, 12), prior, noise=0.3)
    guide = AmortizedGuide(MeanFieldPosterior(model.decoder, prior, model.noise))
    return LayeredAutoencoder(Crosscoder(model, LAYERS), guide)


def forms(flat):
    return flat, flat.unflatten(-1, (3, 4)), list(flat.split(LAYERS, -1))


def gap(pair, x):
    other = LayeredAutoencoder(
        pair.model, AmortizedGuide(SpikeSlabPosterior(LinearEncoder(12, 3 * K)))
    )
    return amortisation_gap(pair, other, x).per_row


def neighbours(pair, x):
    return RefreshedNeighbours(pair, x, 2, every=5)(0).adjacency().todense()


SAME = {
    "ablation_effects": (
        crosscoder,
        lambda pair, x: ablation_effects(pair, x, [0, 1, 2], LAYERS).moved.nan_to_num(),
    ),
    "ablated": (crosscoder, lambda pair, x: ablated(pair, x, [0, 3])),
    "codes_of": (crosscoder, lambda pair, x: codes_of(pair, x).todense()),
    "neighbours": (crosscoder, neighbours),
    "amortisation": (spiked, gap),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_of_rows_of_layers_and_of_a_list(name):
    make, measure = SAME[name]
    pair, found = make(), []
    x = 2 * torch.randn(N, 12)
    for given in forms(x):
        torch.manual_seed(3)
        found.append(torch.as_tensor(measure(pair, given)))
    assert found[0].any()
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_an_ablation_gives_back_the_shape_it_was_given():
    pair, x = crosscoder(), 2 * torch.randn(N, 12)
    change = (ablated(pair, x, [0, 3]) - pair(x)).flatten(1).detach()
    assert change.any()
    without = ablation(pair, [0, 3])
    for given, shape in zip(forms(x), [(N, 12), (N, 3, 4), (N, 12)], strict=True):
        found = without(given)
        assert found.shape == shape
        torch.testing.assert_close(found.reshape(N, 12), x + change)


def test_a_part_cannot_be_taken_out_of_layers_that_are_given():
    inner = topk_crosscoder(LAYERS[1:], K, k=3).model.model
    skip = SkipConnection(LAYERS, inputs=(0,), targets=(1, 2))
    model = Crosscoder(inner, LAYERS, targets=(1, 2), skip=skip)
    encoder = LayeredEncoder(inner.decoder, LAYERS, targets=(1, 2))
    with pytest.raises(VsaeError) as caught:
        ablation(LayeredAutoencoder(model, AmortizedGuide(ReLUPosterior(encoder))), [0])
    assert caught.value.code == "intervention.targets"


@pytest.mark.parametrize("form", range(3))
def test_a_distilled_crosscoder_is_a_crosscoder(form):
    pair, x = spiked(), 2 * torch.randn(N, 12)
    given = forms(x)[form]
    student = SpikeSlabPosterior(LinearEncoder(12, 3 * K))
    found = distil(pair, student, given, steps=2, batch_size=10, progress=False)
    assert type(found.autoencoder) is LayeredAutoencoder
    assert found.autoencoder(given).shape == (N, 3, 4)
    assert len(found.gap.per_row) == N


def test_values_that_are_not_finite_are_named_by_layer():
    pair, x = spiked(), torch.randn(N, 12)
    x[5, 7] = torch.nan
    student = SpikeSlabPosterior(LinearEncoder(12, 3 * K))
    for call in (
        lambda: amortisation_gap(pair, pair, x),
        lambda: distil(pair, student, x, steps=1, batch_size=10, progress=False),
    ):
        with pytest.raises(VsaeError) as caught:
            call()
        assert caught.value.code == "data.nonfinite"
        assert (caught.value.context["layer"], caught.value.context["row"]) == (1, 5)
