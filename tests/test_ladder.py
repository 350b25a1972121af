"""Ladders: the loss by hand for both readings, depth 1, the stopped gradient, the parts."""

import math

import numpy as np
import pytest
import torch
from program_checks import (
    HALF,
    assert_equals_published,
    assert_export_keeps_gradients,
    assert_masked_rows_do_not_count,
    assert_only_latents_are_scaled,
    assert_predictive_draws,
    assert_pyros_elbos_agree,
    assert_saved_is_loaded,
    assert_svi_trains,
    gaussian_constant,
)
from torch import nn

from priors import FlatPrior, Graph, GraphLaplacianPrior, LaplacePrior
from priors.replicas import stack, unstack
from vsae import (
    AdditiveDecoder,
    AmortizedGuide,
    Autoencoder,
    ChainDecoder,
    ClosedFormELBO,
    Consistency,
    LadderAutoencoder,
    LadderEncoder,
    LadderPosterior,
    LateralDecoder,
    LinearDecoder,
    LinearEncoder,
    ReLUPosterior,
    StoppedConsistency,
    TargetL0,
    fit,
    l1_autoencoder,
    ladder_autoencoder,
    load,
    save,
)
from vsae.errors import VsaeError
from vsae.metrics import tier_l0

D, SIZES, ROWS = 4, (7, 5, 3), 20
L1, GAMMA = (0.3, 0.2, 0.1), (0.7, 0.5, 0.4)
READINGS = [LateralDecoder, AdditiveDecoder]
TIES = [None, Consistency, StoppedConsistency]


def ladder(depth=3, *, decoder=LateralDecoder, consistency=StoppedConsistency, **settings):
    """Away from where it starts, with biases."""
    torch.manual_seed(0)
    given = {"l1": L1[:depth], "gamma": GAMMA[:depth]} | settings
    pair = ladder_autoencoder(D, SIZES[:depth], decoder=decoder, consistency=consistency, **given)
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    pair.project()
    return pair


def numpy_of(tensor):
    return tensor.detach().numpy()


def loss_by_hand(pair, x):
    """B24-B26 for each row, written out in numpy from the raw arrays."""
    model, codes, h = pair.model, [numpy_of(x)], numpy_of(x)
    for layer in pair.guide.posterior.encoder.layers:
        h = np.maximum(h @ numpy_of(layer.W_enc) + numpy_of(layer.b_enc), 0)
        codes.append(h)
    depth = len(codes) - 1
    if isinstance(model.decoder, LateralDecoder):
        alphas = 1 / (1 + np.exp(-numpy_of(model.decoder.logits)))
        guess = codes[depth]
        for i in range(depth, 0, -1):
            mixed = guess if i == depth else alphas[i - 1] * codes[i] + (1 - alphas[i - 1]) * guess
            level = model.decoder.levels[i - 1]
            guess = mixed @ numpy_of(level.W_dec) + numpy_of(level.b_dec)
    else:
        guess = numpy_of(model.decoder.b_dec)
        for z, part in zip(codes[1:], model.decoder.parts, strict=True):
            guess = guess + z @ numpy_of(part.W_dec)
    loss = ((codes[0] - guess) ** 2).sum(-1)
    for i in range(1, depth + 1):
        loss = loss + L1[i - 1] * np.abs(codes[i]).sum(-1)
        if model.consistency is not None:
            view = model.consistency.views[i - 1]
            explained = codes[i] @ numpy_of(view.W_dec) + numpy_of(view.b_dec)
            loss = loss + GAMMA[i - 1] * ((codes[i - 1] - explained) ** 2).sum(-1)
    return loss


def constants(sizes, tied):
    """Of the Gaussians and the Laplace densities, per row."""
    total = gaussian_constant(1, D, HALF)
    total += sum(n * math.log(2 / one) for n, one in zip(sizes, L1, strict=False))
    if tied:
        widths = (D, *sizes[:-1])
        scales = [HALF / one**0.5 for one in GAMMA[: len(sizes)]]
        total += sum(gaussian_constant(1, n, s) for n, s in zip(widths, scales, strict=True))
    return total


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("decoder", READINGS)
@pytest.mark.parametrize("consistency", TIES)
def test_elbo_is_the_loss_in_numpy(depth, decoder, consistency):
    pair, x = ladder(depth, decoder=decoder, consistency=consistency), torch.randn(ROWS, D)
    terms = ClosedFormELBO().site_terms(pair.model, pair.guide, x)
    expected = loss_by_hand(pair, x) + constants(SIZES[:depth], consistency is not None)
    torch.testing.assert_close(sum(terms.values()), torch.as_tensor(expected))
    assert len(set(terms)) == 1 + depth + (depth if consistency else 0)


def published(pair, x):
    """The loss again, in torch, for its gradients."""
    model, below, codes = pair.model, x, []
    for layer in pair.guide.posterior.encoder.layers:
        below = torch.clamp(torch.einsum("bi,ij->bj", below, layer.W_enc) + layer.b_enc, min=0)
        codes.append(below)
    z1, z2 = codes
    if isinstance(model.decoder, LateralDecoder):
        first, second = model.decoder.levels
        alpha = torch.sigmoid(model.decoder.logits[0])
        mean = (alpha * z1 + (1 - alpha) * (z2 @ second.W_dec + second.b_dec)) @ first.W_dec
        mean = mean + first.b_dec
    else:
        first, second = model.decoder.parts
        mean = z1 @ first.W_dec + z2 @ second.W_dec + first.b_dec
    loss = (x - mean).square().sum() + L1[0] * z1.abs().sum() + L1[1] * z2.abs().sum()
    stop = isinstance(model.consistency, StoppedConsistency)
    views = zip([x, z1], codes, model.consistency.views, GAMMA, strict=False)
    for seen, code, view, gamma in views:
        seen = seen.detach() if stop else seen
        loss = loss + gamma * (seen - code @ view.W_dec - view.b_dec).square().sum()
    return loss


@pytest.mark.parametrize("decoder", READINGS)
@pytest.mark.parametrize("consistency", TIES[1:])
def test_every_gradient_is_that_of_the_loss(decoder, consistency):
    pair, x = ladder(2, decoder=decoder, consistency=consistency), torch.randn(ROWS, D)
    assert_equals_published(pair, x, published(pair, x), ROWS * constants(SIZES[:2], tied=True))


@pytest.mark.parametrize("decoder", READINGS)
def test_one_level_is_the_l1_sae_exactly(decoder):
    flat, x = l1_autoencoder(D, 7, l1=0.3), torch.randn(ROWS, D)
    pair = ladder_autoencoder(D, (7,), l1=0.3, decoder=decoder)
    (level,) = getattr(pair.model.decoder, "levels" if decoder is LateralDecoder else "parts")
    (layer,) = pair.guide.posterior.encoder.layers
    with torch.no_grad():
        flat.model.decoder.b_dec.normal_()
        for mine, other in ((level.W_dec, flat.W_dec), (level.b_dec, flat.b_dec)):
            mine.copy_(other)
        layer.W_enc.copy_(flat.W_enc)
        layer.b_enc.copy_(flat.b_enc)
    losses = [ClosedFormELBO()(p.model, p.guide)(x) for p in (pair, flat)]
    assert torch.equal(*losses)
    ours = (level.W_dec, level.b_dec, layer.W_enc, layer.b_enc)
    encoder = flat.guide.posterior.encoder
    theirs = (flat.W_dec, flat.b_dec, encoder.W_enc, encoder.b_enc)
    assert len(list(pair.parameters())) == len(list(flat.parameters())) == 4
    for mine, other in zip(
        torch.autograd.grad(losses[0], ours), torch.autograd.grad(losses[1], theirs), strict=True
    ):
        assert torch.equal(mine, other)
    assert torch.equal(pair.encode(x), flat.encode(x))
    assert torch.equal(pair.W_dec, flat.W_dec)
    assert torch.equal(pair.b_dec, flat.b_dec)


@pytest.mark.parametrize("decoder", READINGS)
def test_stopping_takes_away_exactly_the_gradient_of_the_view(decoder):
    """2 γ (z - ẑ) through z = relu(x W + b), which is of the first layer alone."""
    x, found = torch.randn(ROWS, D), []
    for consistency in TIES[1:]:
        pair = ladder(2, decoder=decoder, consistency=consistency)
        loss = ClosedFormELBO()(pair.model, pair.guide)(x)
        names, leaves = zip(*pair.named_parameters(), strict=True)
        found.append(dict(zip(names, torch.autograd.grad(loss, leaves), strict=True)))
    layer, above = pair.guide.posterior.encoder.layers
    pre = numpy_of(x) @ numpy_of(layer.W_enc) + numpy_of(layer.b_enc)
    z1 = np.maximum(pre, 0)
    z2 = np.maximum(z1 @ numpy_of(above.W_enc) + numpy_of(above.b_enc), 0)
    view = pair.model.consistency.views[1]
    pull = 2 * GAMMA[1] * (z1 - z2 @ numpy_of(view.W_dec) - numpy_of(view.b_dec)) * (pre > 0)
    through = {"W_enc": numpy_of(x).T @ pull, "b_enc": pull.sum(0)}
    for name, free in found[0].items():
        prefix, _, last = name.rpartition(".")
        missing = through[last] if prefix == "guide.posterior.encoder.layers.0" else 0.0
        expected = found[1][name] + torch.as_tensor(missing)
        torch.testing.assert_close(free, expected, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("decoder", READINGS)
def test_evaluation_observes_the_activation_alone(decoder):
    pair, x = ladder(decoder=decoder), torch.randn(ROWS, D)
    sites = ClosedFormELBO().terms(pair.model.eval(), pair.guide, x)
    assert set(sites) == {"z_1", "z_2", "z_3", "x"}
    tied = ClosedFormELBO().terms(pair.model.train(), pair.guide, x)
    assert set(tied) - set(sites) == {"x_view", "z_1_view", "z_2_view"}
    torch.testing.assert_close(pair.elbo(x), -sum(sites.values()) / ROWS)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("decoder", READINGS)
def test_decoders_are_their_atoms(depth, decoder):
    pair = ladder(depth, decoder=decoder)
    z = torch.randn(ROWS, sum(SIZES[:depth]))
    torch.testing.assert_close(pair.decode(z), z @ pair.W_dec + pair.b_dec)
    norms = [m.W_dec.norm(dim=-1) for m in pair.projected()]
    torch.testing.assert_close(torch.cat(norms), torch.ones(sum(map(len, norms))))


def test_both_readings_begin_with_the_same_coarse_directions():
    pairs = []
    for decoder in READINGS:
        torch.manual_seed(3)
        pairs.append(ladder_autoencoder(D, SIZES, l1=0.1, decoder=decoder))
    units = [nn.functional.normalize(pair.W_dec, dim=-1) for pair in pairs]
    torch.testing.assert_close(*units)
    first, second, _ = pairs[0].model.decoder.levels
    torch.testing.assert_close(  # alphas of one half: a quarter of the second level passes
        pairs[0].W_dec[SIZES[0] : SIZES[0] + SIZES[1]], 0.25 * second.W_dec @ first.W_dec
    )


def test_levels_share_their_maps_with_the_consistency():
    pair = ladder()
    assert pair.model.consistency.views[1] is pair.model.decoder.levels[1]
    additive = ladder(decoder=AdditiveDecoder)
    assert additive.model.consistency.views[0] is additive.model.decoder.parts[0]
    names = [name for name, _ in ladder(decoder=AdditiveDecoder, consistency=None).named_modules()]
    assert not any("consistency" in name for name in names)


def test_defaults_are_stronger_at_fine_levels_and_untie_the_first():
    model = ladder_autoencoder(D, SIZES, l1=0.4).model
    scales = [prior().base_dist.scale[0].item() for prior in model.priors]
    assert scales == pytest.approx([1 / 0.4, 1 / 0.2, 1 / 0.1])
    assert isinstance(model.consistency, StoppedConsistency)
    assert model.consistency.scales == pytest.approx((None, HALF, HALF))


def test_a_level_may_have_a_graph():
    """λ‖z‖₁ + η zᵀLz + ½ ridge ‖z‖², at strength 2η, against a dense Laplacian."""
    edges, eta, ridge = [(0, 1), (1, 2), (3, 4)], 0.6, 1e-3
    graph = Graph.from_edges(torch.tensor(edges).T, num_nodes=5)
    belief = GraphLaplacianPrior(graph, ridge=ridge, strength=2 * eta)
    pair = ladder(2, structures=(None, belief))
    plain, x = ladder(2), torch.randn(ROWS, D)
    laplacian = np.zeros((5, 5))
    for i, j in edges:
        laplacian[[i, j], [i, j]] += 1
        laplacian[[i, j], [j, i]] -= 1
    z = numpy_of(pair.encode(x))[:, 7:]
    quadratic = np.einsum("bi,ij,bj->b", z, eta * laplacian + 0.5 * ridge * np.eye(5), z)
    with_graph, without = (
        ClosedFormELBO().site_terms(p.model, p.guide, x)["z_2"] for p in (pair, plain)
    )
    gap = with_graph - without - torch.as_tensor(quadratic)
    torch.testing.assert_close(gap, gap[:1].expand(ROWS))
    assert_pyros_elbos_agree(pair, x)


@pytest.mark.parametrize("decoder", READINGS)
@pytest.mark.parametrize("consistency", TIES)
def test_is_an_ordinary_program(decoder, consistency):
    pair, x = ladder(decoder=decoder, consistency=consistency), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(pair, x)
    assert_only_latents_are_scaled(pair, x, {"z_1", "z_2", "z_3"})
    assert_masked_rows_do_not_count(pair, x)
    assert_export_keeps_gradients(pair, x)
    assert_svi_trains(pair, x)
    codes = {f"z_{i}": (ROWS, n) for i, n in enumerate(SIZES, start=1)}
    pair.eval()
    assert_predictive_draws(pair, x, codes | {"x": (ROWS, D)})


@pytest.mark.parametrize("decoder", READINGS)
@pytest.mark.parametrize("consistency", TIES)
def test_saves_and_loads(tmp_path, decoder, consistency):
    pair, x = ladder(decoder=decoder, consistency=consistency), torch.randn(ROWS, D)
    assert_saved_is_loaded(pair, x, tmp_path / "sae")
    model = load(tmp_path / "sae").model
    if consistency is not None:
        parts = model.decoder.levels if decoder is LateralDecoder else model.decoder.parts
        assert model.consistency.views[0] is parts[0]


def test_products_of_priors_are_saved(tmp_path):
    belief = GraphLaplacianPrior(Graph.ring(5), ridge=1e-3, strength=0.4)
    pair, x = ladder(2, structures=(None, belief)), torch.randn(ROWS, D)
    again = load(save(pair, tmp_path / "sae"))
    torch.testing.assert_close(again.elbo(x), pair.elbo(x))


@pytest.mark.parametrize("decoder", READINGS)
def test_a_stack_is_its_members(decoder):
    pairs, x = [ladder(decoder=decoder), ladder(decoder=decoder)], torch.randn(ROWS, D)
    with torch.no_grad():
        for parameter in pairs[1].parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    both = stack(pairs)
    for pair in (*pairs, both):
        ClosedFormELBO()(pair.model, pair.guide)(x).backward()
    for r, pair in enumerate(pairs):
        torch.testing.assert_close(unstack(both)[r].encode(x), pair.encode(x))
        torch.testing.assert_close(both(x)[r], pair(x))
        torch.testing.assert_close(both.W_dec[r, 0], pair.W_dec)
        torch.testing.assert_close(both.b_dec[r, 0], pair.b_dec)
        for (name, p), whole in zip(pair.named_parameters(), both.parameters(), strict=True):
            torch.testing.assert_close(whole.grad[r, 0], p.grad, msg=name)


def test_free_codes_shrink_under_a_moving_view_and_not_under_a_stopped_one():
    """Codes free, a silent coarse level: γ‖z‖² pulls the view to zero, or does not."""
    for consistency, moves in ((Consistency, True), (StoppedConsistency, False)):
        views = LateralDecoder.of_sizes(D, (6, 2)).levels
        model = LadderAutoencoder(
            AdditiveDecoder([views[0], LinearDecoder(2, D, bias=False)]),
            [FlatPrior(6), FlatPrior(2)],
            noise=HALF,
            consistency=consistency(views, (None, HALF)),
        )
        z = torch.rand(ROWS, 6, requires_grad=True)
        terms = list(model.consistency.terms(torch.zeros(ROWS, D), [z, torch.zeros(ROWS, 2)]))
        ((_, view, explained, scale),) = terms
        term = ((view - explained).square().sum() / (2 * scale**2)).add(0.0 * z.sum())
        (gradient,) = torch.autograd.grad(term, z)
        torch.testing.assert_close(gradient, 2.0 * z.detach() if moves else torch.zeros_like(z))


def test_the_controller_counts_all_levels():
    """β finds the L0 of both levels together."""
    torch.manual_seed(0)
    x = (torch.rand(1000, 12) * (torch.rand(1000, 12) < 0.2)) @ torch.randn(12, 6)
    pair, beta = ladder_autoencoder(6, (16, 5), l1=0.1), TargetL0(3.0, start=0.3, rate=0.02)
    records = fit(pair, x, steps=500, batch_size=128, lr=3e-3, beta=beta).run(progress=False)
    levels = tier_l0(pair.encode(x), (16, 5))
    assert float(levels.sum()) == pytest.approx(3.0, rel=0.15)
    assert (levels > 0).all()
    assert records[-1]["codes/l0"] == pytest.approx(3.0, rel=0.2)


@pytest.mark.float32
@pytest.mark.parametrize("decoder", READINGS)
def test_learns_in_float32(decoder):
    torch.manual_seed(0)
    features = nn.functional.normalize(torch.randn(24, 8), dim=-1)
    x = (torch.rand(2000, 24) * (torch.rand(2000, 24) < 0.1)) @ features
    pair = ladder_autoencoder(8, (32, 6), l1=0.05, decoder=decoder)
    losses = [r.loss for r in fit(pair, x, steps=400, batch_size=128, lr=3e-3)]
    losses = torch.stack(losses)
    assert losses.dtype == torch.float32
    assert losses.isfinite().all()
    assert losses[-50:].mean() < losses[:50].mean()
    assert (tier_l0(pair.encode(x), (32, 6)) > 0).all()
    assert float((x - pair(x).detach()).square().sum() / x.square().sum()) < 0.3


def posterior(*sizes, numbers=1):
    return LadderPosterior(LadderEncoder(D, sizes, numbers=numbers))


def mismatched(guide):
    decoder = LateralDecoder.of_sizes(D, (7, 5))
    model = LadderAutoencoder(decoder, [LaplacePrior(7), LaplacePrior(5)], noise=1.0)
    fit(Autoencoder(model, AmortizedGuide(guide)), torch.zeros(8, D), steps=1, batch_size=8)


BAD = {
    "tiers.sizes": [
        lambda: ladder_autoencoder(D, (), l1=1.0),
        lambda: LateralDecoder.of_sizes(D, (3, 0)),
        lambda: LadderEncoder(D, (3, -1)),
    ],
    "tiers.count": [
        lambda: ladder_autoencoder(D, SIZES, l1=(1.0, 2.0)),
        lambda: ladder_autoencoder(D, SIZES, l1=1.0, gamma=(1.0, 2.0)),
        lambda: ladder_autoencoder(D, SIZES, l1=1.0, structures=(None,)),
    ],
    "prior.bad_l1": [lambda: ladder_autoencoder(D, SIZES, l1=0.0)],
    "ladder.gamma": [
        lambda: ladder_autoencoder(D, SIZES, l1=1.0, gamma=-1.0),
        lambda: ladder_autoencoder(D, SIZES, l1=1.0, gamma=math.nan),
    ],
    "ladder.alphas": [
        lambda: LateralDecoder([LinearDecoder(7, D), LinearDecoder(5, 7)], alphas=1.0),
        lambda: LateralDecoder([LinearDecoder(7, D), LinearDecoder(5, 7)], alphas=(0.5, 0.5)),
    ],
    "ladder.widths": [
        lambda: LateralDecoder([LinearDecoder(7, D), LinearDecoder(5, 6)]),
        lambda: ChainDecoder([]),
        lambda: AdditiveDecoder([LinearDecoder(7, D), LinearDecoder(5, D)]),
        lambda: AdditiveDecoder([LinearDecoder(7, D), LinearDecoder(5, 3, bias=False)]),
    ],
    "ladder.scales": [
        lambda: Consistency(LateralDecoder.of_sizes(D, SIZES).levels, (1.0,)),
        lambda: Consistency(LateralDecoder.of_sizes(D, SIZES).levels, (None, None, None)),
        lambda: StoppedConsistency(LateralDecoder.of_sizes(D, SIZES).levels, (1.0, -1.0, None)),
    ],
    "ladder.latents": [
        lambda: LadderAutoencoder(LateralDecoder.of_sizes(D, (7, 5)), [LaplacePrior(12)], noise=1.0)
    ],
    "ladder.numbers": [lambda: LadderEncoder(D, SIZES, numbers=3)],
    "posterior.outputs": [lambda: posterior(7, 5, numbers=2)],
    "pair.latents": [lambda: mismatched(posterior(7, 4)), lambda: mismatched(posterior(7, 5, 2))],
    "pair.slots": [lambda: mismatched(ReLUPosterior(LinearEncoder(D, 12)))],
}


@pytest.mark.parametrize(("code", "call"), [(c, call) for c in BAD for call in BAD[c]])
def test_bad_input_is_named(code, call):
    with pytest.raises(VsaeError) as raised:
        call()
    assert raised.value.code == code
