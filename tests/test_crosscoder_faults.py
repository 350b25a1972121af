"""What a crosscoder refuses, in words; what it must not refuse; units and rows of every kind."""

import jaxtyping
import numpy as np
import pytest
import torch
from program_checks import assert_saved_is_loaded
from test_crosscoder_masks import LAYERS, K, causal, causal_topk
from test_persistence import assert_same

from priors import LaplacePrior
from priors.replicas import num_replicas, stack, unstack
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    Crosscoder,
    IdentityNormalizer,
    LayeredAutoencoder,
    LayeredDecoder,
    LayeredEncoder,
    LayerNormalizer,
    PrecisionWeightedGuide,
    ReLUPosterior,
    SkipConnection,
    SparseAutoencoder,
    SumOfNorms,
    decoupled_crosscoder,
    fit,
    l1_autoencoder,
    l1_crosscoder,
    load,
    save,
    topk_crosscoder,
    variational_ladder_autoencoder,
    with_auxk,
)
from vsae.errors import VsaeError
from vsae.layers import per_column

EVEN = (4, 4, 4)


@pytest.fixture(autouse=True)
def as_users_call_it():
    """Annotations are checked in tests alone: what is refused here must be without them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def error_of(call):
    with pytest.raises(VsaeError) as caught:
        call()
    return caught.value


def flat(layers=EVEN):
    return SparseAutoencoder(LayeredDecoder(K, layers), LaplacePrior(K), noise=0.5)


def crossed_with(inputs, targets, *, layers=EVEN, own=(1, 2)):
    model = flat(tuple(EVEN[i] for i in own))
    skip = SkipConnection(layers, inputs=inputs, targets=targets)
    return Crosscoder(model, EVEN, targets=own, skip=skip)


def units(layers):
    return LayerNormalizer.fit(torch.randn(20, sum(layers)), layers)


def guided_by(encoder):
    return LayeredAutoencoder(Crosscoder(flat(), EVEN), AmortizedGuide(ReLUPosterior(encoder)))


def of_other_layers():
    return LayeredEncoder(LayeredDecoder(K, (4, 8)), (4, 8))


def ladder():
    return variational_ladder_autoencoder(12, (6, 3), noise=0.5)


def beside(model):
    """Guided by what follows the model inside it: the skip connection was never run."""
    skip = SkipConnection((12, 2), inputs=(1,), targets=(0,))
    crossed = Crosscoder(model.model, (12, 2), targets=(0,), skip=skip)
    return LayeredAutoencoder(crossed, model.guide)


FLOATS = torch.ones(K, 3)
REFUSED = {
    "units of other layers": (
        "layers.units",
        lambda: l1_crosscoder(EVEN, K, l1=1.0, normalizer=units((2, 6, 4))),
    ),
    "units of another width": (
        "layers.units",
        lambda: l1_crosscoder(EVEN, K, l1=1.0, normalizer=units((4, 4))),
    ),
    "units of a part": (
        "layers.units",
        lambda: LayeredAutoencoder(causal().model, causal().guide, units(LAYERS[1:])),
    ),
    "a skip of other layers": ("layers.skip", lambda: crossed_with((0,), (1, 2), layers=(5, 4, 4))),
    "a skip to other targets": ("layers.skip", lambda: crossed_with((0,), (1, 2), own=(0, 1))),
    "a skip to some targets": ("layers.skip", lambda: crossed_with((0,), (1,))),
    "a skip from a target": ("layers.skip", lambda: crossed_with((0, 1), (1, 2))),
    "a guide of another model": ("pair.guide", lambda: Autoencoder(ladder().model, ladder().guide)),
    "a guide of the model inside": ("pair.guide", lambda: beside(ladder())),
    "an encoder of other layers": ("layers.encoder", lambda: guided_by(of_other_layers())),
    "an encoder of its own targets": (
        "layers.encoder",
        lambda: LayeredAutoencoder(
            Crosscoder(flat((4, 4)), EVEN, targets=(0, 1)),
            AmortizedGuide(
                ReLUPosterior(LayeredEncoder(LayeredDecoder(K, (4, 4)), EVEN, targets=(1, 2)))
            ),
        ),
    ),
    "a decoder of other layers": (
        "layers.decoder",
        lambda: LayeredEncoder(LayeredDecoder(K, (4, 8)), EVEN),
    ),
    "a decoder of fewer layers": (
        "layers.decoder",
        lambda: LayeredEncoder(LayeredDecoder(K, (4, 4)), EVEN),
    ),
    "a decoder of more layers": (
        "layers.decoder",
        lambda: LayeredEncoder(LayeredDecoder(K, EVEN), EVEN, targets=(0, 1)),
    ),
    "a model of other layers": ("layers.decoder", lambda: Crosscoder(flat((8, 4)), EVEN)),
    "one width": ("layers.widths", lambda: topk_crosscoder(4, K, k=2)),
    "one width, decoupled": ("layers.widths", lambda: decoupled_crosscoder(4, K, k=2)),
    "widths by name": ("layers.widths", lambda: LayeredDecoder(K, "44")),
    "one target": ("layers.chosen", lambda: Crosscoder(flat(), EVEN, targets=1)),
    "targets by name": ("layers.chosen", lambda: Crosscoder(flat(), EVEN, targets=("last",))),
    "a norm by name": ("layers.norm", lambda: l1_crosscoder(EVEN, K, l1=1.0, norm="sum")),
    "a norm's class": ("layers.norm", lambda: topk_crosscoder(EVEN, K, k=2, norm=SumOfNorms)),
    "reads as floats": (
        "layers.blocks",
        lambda: LayeredEncoder(LayeredDecoder(K, EVEN), EVEN, reads=FLOATS),
    ),
    "writes as floats": ("layers.blocks", lambda: LayeredDecoder(K, EVEN, writes=0.5 * FLOATS)),
    "writes as a list": ("layers.blocks", lambda: LayeredDecoder(K, EVEN, writes=[[True] * 3] * K)),
    "units of integers": (
        "data.dtype",
        lambda: LayerNormalizer.fit(torch.arange(24).view(3, 8), (4, 4)),
    ),
}


@pytest.mark.parametrize(("code", "call"), REFUSED.values(), ids=REFUSED)
def test_settings_are_refused(code, call):
    assert error_of(call).code == code


def pair(layers=EVEN):
    return l1_crosscoder(layers, K, l1=1.0)


ROWS = {
    "rows of a list differ": ("data.layers", lambda: [torch.ones(n, 4) for n in (5, 5, 6)]),
    "ranks of a list differ": (
        "data.layers",
        lambda: [torch.ones(5, 4), torch.ones(4), torch.ones(4)],
    ),
    "numbers in a list": ("data.layers", lambda: [torch.tensor(1.0)] * 3),
    "an empty list": ("data.layers", list),
    "no axis": ("data.layers", lambda: torch.tensor(1.0)),
    "an array": ("data.tensor", lambda: np.ones((5, 3, 4))),
    "arrays": ("data.tensor", lambda: [np.ones((5, 4))] * 3),
    "None": ("data.tensor", lambda: None),
}  # fmt: skip


@pytest.mark.parametrize(("code", "x"), ROWS.values(), ids=ROWS)
def test_rows_are_refused(code, x):
    made, given = pair(), x()
    for call in (made.rows, made, made.elbo, lambda x: fit(made, x, steps=1, batch_size=1)):
        assert error_of(lambda call=call: call(given)).code == code


@pytest.mark.parametrize("shape", [(12,), (3, 4)], ids=["row", "layers"])
def test_one_row_has_codes_but_no_elbo(shape):
    made, x = pair(), torch.ones(shape)
    assert made.encode(x).shape == (K,)
    for call in (made.elbo, lambda x: fit(made, x, steps=1, batch_size=1)):
        assert error_of(lambda call=call: call(x)).code == "data.rank"
    assert made.elbo(x[None]).shape == ()
    single = l1_autoencoder(12, K, l1=1.0)
    assert error_of(lambda: single.elbo(torch.ones(12))).code == "data.rank"


def test_a_message_is_as_long_for_many_rows_as_for_few():
    made = pair()
    messages = [str(error_of(lambda n=n: made.rows(torch.ones(n, 7)))) for n in (5, 5000)]
    assert "(5000, 7)" in messages[1]
    assert "(…, 12) or (…, 3, 4)" in messages[1]
    assert len(messages[1]) == len(messages[0]) + 3
    uneven = str(error_of(lambda: pair((3, 2)).rows(torch.ones(6, 2, 3))))
    assert "(…, 5) or a list" in uneven


def test_raw_units_of_some_layers(tmp_path):
    """No normaliser is the identity one, by which a loaded pair has none."""
    x = torch.randn(30, sum(LAYERS))
    assert_saved_is_loaded(causal(), x, tmp_path / "dense")
    assert_saved_is_loaded(causal_topk(), x, tmp_path / "slots")
    revived = with_auxk(causal_topk(), after=10, k=2)
    fit(revived, x, steps=5, batch_size=30, lr=0.01).run(progress=False)
    assert_same(revived, load(save(revived, tmp_path / "auxk")), x)
    plain = causal()
    named = LayeredAutoencoder(plain.model, plain.guide, IdentityNormalizer())
    torch.testing.assert_close(named(x), plain(x))
    torch.testing.assert_close(named.elbo(x), plain.elbo(x))
    assert named.log_jacobian() == 0


def test_a_stack_of_flat_pairs_in_units_of_layers_has_an_elbo_each():
    def made(seed):
        torch.manual_seed(seed)
        scaled = LayerNormalizer.fit((seed + 1) * torch.randn(50, 12), EVEN)
        return l1_autoencoder(12, K, l1=1.0, normalizer=scaled)

    both, x = stack([made(0), made(1)]), torch.randn(30, 12)
    assert num_replicas(both) == 2
    alone = torch.stack([one.elbo(x) for one in unstack(both)])
    assert alone[0] != alone[1]
    torch.testing.assert_close(both.elbo(x), alone)
    torch.testing.assert_close(stack([units(EVEN)] * 2).log_jacobian(12).shape, torch.Size([2]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_units_of_16_bits_are_those_of_the_same_numbers_in_32(dtype):
    x = (1000 * torch.randn(40, 8)).to(dtype)
    found, expected = (LayerNormalizer.fit(data, (4, 4)) for data in (x, x.float()))
    assert found.scales.dtype == found.mean.dtype == torch.float32
    torch.testing.assert_close(found.scales, expected.scales)
    torch.testing.assert_close(found.mean, expected.mean)


def test_a_variational_ladder_of_layers_is_the_flat_one_of_their_concatenation():
    """The guide follows the crosscoder: site by site the same numbers at the same draws."""
    alone, x = ladder(), torch.randn(20, 3, 4)
    layered = LayeredAutoencoder.of(alone, EVEN)
    assert layered.guide.model is layered.model
    assert layered.guide.evidence is alone.guide.evidence
    terms = []
    for one in (alone, layered):
        torch.manual_seed(3)
        terms.append(ClosedFormELBO().site_terms(one.model, one.guide, x.flatten(1)))
    assert terms[0].keys() == terms[1].keys() == {"x", "z_1", "z_2"}
    for name, term in terms[0].items():
        torch.testing.assert_close(terms[1][name], term)
    torch.testing.assert_close(layered(x).flatten(1), alone(x.flatten(1)))


def test_a_guide_that_follows_the_crosscoder_scores_its_skip_connection(tmp_path):
    """x - offset under the ladder alone is x under the ladder and the skip connection."""
    alone, x = ladder(), torch.randn(20, 14)
    skip = SkipConnection((12, 2), inputs=(1,), targets=(0,))
    torch.nn.init.normal_(skip.W_skip)
    crossed = Crosscoder(alone.model, (12, 2), targets=(0,), skip=skip)

    class Padded(torch.nn.Module):
        def forward(self, x):
            return alone.guide.evidence(x[..., :12] - skip(x))

    together = LayeredAutoencoder(crossed, PrecisionWeightedGuide(crossed, Padded()))
    torch.manual_seed(3)
    found = together.elbo(x)
    torch.manual_seed(3)
    torch.testing.assert_close(found, alone.elbo(x[:, :12] - skip(x)))
    layered = LayeredAutoencoder.of(ladder(), EVEN)
    assert_saved_is_loaded(layered, torch.randn(20, 12), tmp_path / "ladder")
    again = load(tmp_path / "ladder")
    assert again.guide.model is again.model


class Asked(torch.overrides.TorchFunctionMode):
    """Which functions of torch are called."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.found.add(func)
        return func(*args, **(kwargs or {}))


def test_units_and_masks_copy_no_widths_to_the_device():
    """A tensor made of Python numbers is a copy that the host waits for."""
    made, x = causal(), torch.randn(5, sum(LAYERS))
    scaled, decoder, encoder = units(LAYERS), made.model.decoder, made.guide.posterior.encoder
    decoder.W_dec.grad, encoder.W_enc.grad = (
        torch.ones_like(made.W_dec),
        torch.ones_like(encoder.W_enc),
    )
    with Asked() as asked:
        scaled.inverse(scaled(x))
        for module in (decoder, encoder):
            module.project_gradient()
            module.project()
    assert asked.found
    assert torch.tensor not in asked.found


@pytest.mark.parametrize("lead", [(), (2,), (2, 1, 3)])
def test_a_number_per_layer_is_repeated(lead):
    values = torch.randn(*lead, 3, requires_grad=True)
    expected = values.repeat_interleave(torch.tensor([2, 1, 4]), -1)
    assert torch.equal(per_column(values, (2, 1, 4)), expected)
    found, oracle = (
        torch.autograd.grad(v.square().sum(), values)[0]
        for v in (per_column(values, (2, 1, 4)), expected)
    )
    torch.testing.assert_close(found, oracle)
