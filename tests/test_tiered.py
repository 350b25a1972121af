"""Tiers: the loss by hand, gradients held tier by tier, the curriculum, scales and weights."""

import math

import numpy as np
import pyro
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
    leaves_of,
)
from pyro.infer import SVI, Trace_ELBO
from scipy import stats
from scipy.integrate import solve_ivp
from torch import nn

from priors import SoftmaxWeightsPrior, TieredLaplacePrior
from priors.replicas import stack, unstack
from vsae import (
    AffineNormalizer,
    ClosedFormELBO,
    Curriculum,
    LinearDecoder,
    TieredAutoencoder,
    TieredEncoder,
    fit,
    l1_autoencoder,
    metrics,
    tiered_autoencoder,
)
from vsae.errors import BottleneckWarning, NonFiniteLossError, VsaeError
from vsae.schedules import CubicWarmup
from vsae.tiered_encoder import Tier

D, SIZES, ROWS, L1 = 4, (6, 5, 3), 20, (0.3, 0.2, 0.1)
K = sum(SIZES)


def tiered(**settings):
    """Away from where it starts, the third tier half way in."""
    torch.manual_seed(0)
    curriculum = Curriculum((0, 0, 5), (0, 10, 10))
    curriculum.updates.fill_(10)
    given = {"l1": L1, "curriculum": curriculum, "learnable": True} | settings
    pair = tiered_autoencoder(D, SIZES, **given)
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    pair.project()
    return pair


def codes_by_hand(pair, x):
    """relu(W_i h_{i-1} / √(mean h² + 10⁻³) + b_i), ramped, without the library's parts."""
    h, found = x, []
    for i, tier in enumerate(pair.guide.posterior.encoder.tiers):
        if i:
            h = h / (h.square().mean(-1, keepdim=True) + 1e-3).sqrt()
        h = torch.clamp(torch.einsum("bi,ij->bj", h, tier.W) + tier.b, min=0)
        found.append(h)
    return [ramp * h for ramp, h in zip((1.0, 1.0, 0.5), found, strict=True)]


def test_elbo_is_the_loss_by_hand():
    """Σ ‖x - x̂‖² + Σ_i ‖z_i‖₁ / b_i + d_i log 2b_i: value and every gradient, scales' included."""
    pair, x = tiered(), torch.randn(ROWS, D)
    tiers = codes_by_hand(pair, x)
    scales = 1e-3 + pair.model.prior.log_excess.exp()
    mean = pair.b_dec + sum(
        z @ atoms for z, atoms in zip(tiers, pair.W_dec.split(SIZES), strict=True)
    )
    published = (x - mean).square().sum()
    for z, size, scale in zip(tiers, SIZES, scales, strict=True):
        published = published + z.abs().sum() / scale + ROWS * size * (2 * scale).log()
    assert_equals_published(pair, x, published, gaussian_constant(ROWS, D, HALF))
    torch.testing.assert_close(pair.encode(x), torch.cat(tiers, -1))


def test_the_preset_begins_at_the_published_loss():
    """Fixed scales: ‖x - x̂‖² + Σ λ_i ‖z_i‖₁ per row, and a constant, at any noise."""
    for noise in (HALF, 0.3):
        pair, x = tiered(learnable=False, noise=noise), torch.randn(ROWS, D)
        terms = ClosedFormELBO().site_terms(pair.model, pair.guide, x)
        tiers = pair.model.tiers(pair.encode(x))
        penalty = sum(l1 * z.abs().sum(-1) for l1, z in zip(L1, tiers, strict=True))
        loss = (x - pair(x)).square().sum(-1) + penalty
        offset = sum(terms.values()) - loss / (2 * noise**2)
        torch.testing.assert_close(offset, offset[:1].expand(ROWS))


def test_one_tier_is_the_l1_sae():
    flat, x = l1_autoencoder(D, K, l1=0.3), torch.randn(ROWS, D)
    pair = tiered_autoencoder(D, (K,), l1=0.3)
    (tier,) = pair.guide.posterior.encoder.tiers
    with torch.no_grad():
        flat.model.decoder.b_dec.normal_()
        for mine, other in ((pair.W_dec, flat.W_dec), (pair.b_dec, flat.b_dec)):
            mine.copy_(other)
        tier.W.copy_(flat.W_enc)
        tier.b.copy_(flat.b_enc)
    mine, other = (ClosedFormELBO().terms(p.model, p.guide, x) for p in (pair, flat))
    torch.testing.assert_close(mine, other)


def test_an_aligned_tier_looks_for_its_atoms_in_what_the_tier_before_restores():
    decoder, encoder = LinearDecoder(K, D), TieredEncoder(D, SIZES)
    nn.init.normal_(decoder.b_dec)
    encoder.align(decoder)
    first, second, _ = decoder.W_dec.split(SIZES)
    x, h = torch.randn(ROWS, D), torch.rand(ROWS, SIZES[0])
    torch.testing.assert_close(encoder.tiers[0](x), ((x - decoder.b_dec) @ first.T).relu())
    torch.testing.assert_close(encoder.tiers[1](h), ((h @ first) @ second.T).relu())


@pytest.mark.parametrize("prior", [None, SoftmaxWeightsPrior])
def test_is_an_ordinary_program(prior):
    pair, x = tiered(), torch.randn(ROWS, D)
    if prior is not None:
        pair.model.prior = prior(SIZES, l1=0.3, weights=(0.2, 0.3, 0.5))
    assert_pyros_elbos_agree(pair, x)
    assert_only_latents_are_scaled(pair, x, {"z"})
    assert_predictive_draws(pair, x, {"z": (ROWS, K), "x": (ROWS, D)})
    assert_masked_rows_do_not_count(pair, x)
    assert_export_keeps_gradients(pair, x)
    assert_svi_trains(pair, x)


@pytest.mark.parametrize("norm", [nn.RMSNorm, nn.LayerNorm])
def test_saves_and_loads(tmp_path, norm):
    pair = tiered()
    encoder = TieredEncoder(D, SIZES, clip=(1.0, None, 5.0), norms=[norm(n) for n in SIZES[:-1]])
    pair.guide.posterior.encoder = encoder
    assert_saved_is_loaded(pair, torch.randn(ROWS, D), tmp_path / "sae")


def test_softmax_weights_are_saved(tmp_path):
    pair = tiered()
    pair.model.prior = SoftmaxWeightsPrior(SIZES, l1=0.3, weights=(1.0, 2.0, 3.0))
    assert_saved_is_loaded(pair, torch.randn(ROWS, D), tmp_path / "sae")


def test_a_stack_is_its_members():
    """Codes, losses and clipped gradients of each replica are those of the model alone."""
    pairs, x = [tiered(clip=(0.1, 0.2, 0.3)), tiered(clip=(0.1, 0.2, 0.3))], torch.randn(ROWS, D)
    with torch.no_grad():
        for parameter in pairs[1].parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    both = stack(pairs)
    for pair in (*pairs, both):
        ClosedFormELBO()(pair.model, pair.guide)(x).backward()
        for module in pair.projected():
            module.project_gradient()
    for r, pair in enumerate(pairs):
        torch.testing.assert_close(unstack(both)[r].encode(x), pair.encode(x))
        for (name, p), whole in zip(pair.named_parameters(), both.parameters(), strict=True):
            torch.testing.assert_close(whole.grad[r, 0], p.grad, msg=name)


def gradients(pair, x):
    for parameter in pair.parameters():
        parameter.grad = None
    ClosedFormELBO()(pair.model, pair.guide)(x).backward()
    return [
        torch.cat([p.grad.flatten() for p in tier.parameters()])
        for tier in pair.guide.posterior.encoder.tiers
    ]


def test_each_tiers_gradient_is_held_to_a_norm_of_its_own():
    x = torch.randn(ROWS, D)
    before = gradients(tiered(), x)
    norms = [float(g.norm()) for g in before]
    clips = (norms[0] / 3, 2 * norms[1], norms[2] / 7)
    pair = tiered(clip=clips)
    gradients(pair, x)
    for module in pair.projected():
        module.project_gradient()
    for tier, clip, raw in zip(pair.guide.posterior.encoder.tiers, clips, before, strict=True):
        held = torch.cat([p.grad.flatten() for p in tier.parameters()])
        torch.testing.assert_close(held, raw * min(1.0, clip / float(raw.norm())))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_what_is_not_finite_stays_so(bad):
    """1e200 is finite and its square is not: that too must not become a gradient of zero."""
    tier = Tier(3, 2, clip=1.0)
    tier(torch.randn(5, 3)).sum().backward()
    tier.W.grad[0, 0] = bad
    tier.project_gradient()
    assert not tier.W.grad[0, 0].isfinite()
    assert not tier.b.grad.isfinite().all()


def test_fit_stops_at_a_tiers_nan():
    pair, x = tiered(clip=(1.0, 1.0, 1.0)), torch.randn(ROWS, D)
    tier = pair.guide.posterior.encoder.tiers[1]
    before = tier.W.detach().clone()
    tier.W.register_hook(lambda g: g * math.nan)
    with pytest.raises(NonFiniteLossError):
        fit(pair, x, steps=1, batch_size=ROWS).run(progress=False)
    assert torch.equal(tier.W, before)


def test_fit_holds_gradients_before_the_optimiser():
    """A step of plain gradient descent moves each tier by lr times its clip."""
    x, clips = torch.randn(ROWS, D), (1e-3, 2e-3, 5e-3)
    pair = tiered(clip=clips)
    tiers = pair.guide.posterior.encoder.tiers
    before = [torch.cat([p.detach().flatten() for p in tier.parameters()]) for tier in tiers]
    sgd = torch.optim.SGD(pair.parameters(), lr=0.1)
    fit(pair, x, steps=1, batch_size=ROWS, optimizer=sgd).run(progress=False)
    for tier, clip, old in zip(tiers, clips, before, strict=True):
        moved = torch.cat([p.detach().flatten() for p in tier.parameters()]) - old
        assert float(moved.norm()) == pytest.approx(0.1 * clip, rel=1e-9)


@pytest.mark.parametrize("t", [0, 1, 3, 5, 6, 9, 20])
def test_ramps_are_their_formula(t):
    curriculum = Curriculum((0, 3, 4), (0, 4, 0))
    curriculum.updates.fill_(t)
    expected = [1.0, min(max((t - 3) / 4, 0.0), 1.0), float(t >= 4)]
    assert curriculum().tolist() == expected


def test_fit_counts_updates():
    pair, x = tiered(curriculum=Curriculum((0, 3, 4), (0, 4, 0))), torch.randn(ROWS, D)
    fit(pair, x, steps=7, batch_size=ROWS).run(progress=False)
    assert pair.guide.posterior.curriculum.updates == 7
    pair.encode(x)
    assert pair.guide.posterior.curriculum.updates == 7


def test_svi_counts_updates():
    pair, x = tiered(curriculum=Curriculum((0, 3, 4), (0, 4, 0))), torch.randn(ROWS, D)
    svi = SVI(pair.pyro_model, pair.pyro_guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(5):
        svi.step(x)
    pair.project()
    pyro.clear_param_store()
    assert pair.guide.posterior.curriculum.updates == 5


def test_a_tier_that_has_not_joined_learns_nothing():
    """Neither its codes' parameters nor its scale; the scale would, were the prior not told."""
    x = torch.randn(ROWS, D)
    for ramps, moves in ((True, False), (False, True)):
        pair = tiered(curriculum=Curriculum((0, 5, 5), (0, 4, 4)))
        if not ramps:
            pair.model.prior.ramps = None
        prior, tiers = pair.model.prior, pair.guide.posterior.encoder.tiers
        before = [p.detach().clone() for p in (prior.log_excess, tiers[1].W, tiers[2].b)]
        running = iter(fit(pair, x, steps=12, batch_size=ROWS, lr=1e-2))
        for _ in range(6):  # the last of these sees a ramp of (5 - 5) / 4
            next(running)
        assert not pair.encode(x)[:, : SIZES[0]].eq(0).all()
        assert (prior.log_excess[1:] != before[0][1:]).any() == moves
        assert prior.log_excess[0] != before[0][0]
        assert torch.equal(tiers[1].W, before[1])
        assert torch.equal(tiers[2].b, before[2])
        list(running)
        assert (prior.log_excess != before[0]).all()
        assert not torch.equal(tiers[1].W, before[1])


def test_tiered_laplace_is_scipys():
    prior = TieredLaplacePrior(SIZES, scales=(0.5, 0.2, 1.7))
    z = torch.randn(7, K)
    scale = np.repeat([0.5, 0.2, 1.7], SIZES)
    oracle = stats.laplace(scale=scale).logpdf(z.numpy()).sum(-1)
    torch.testing.assert_close(prior().log_prob(z), torch.as_tensor(oracle))


def test_the_best_scale_is_the_mean_size_and_there_tiers_pay_alike():
    z = torch.randn(500, K) * torch.tensor([3.0] * 6 + [0.5] * 5 + [1.0] * 3)
    prior = TieredLaplacePrior(SIZES, floor=1e-9)
    adam = torch.optim.Adam(prior.parameters(), lr=0.05)
    for _ in range(600):
        adam.zero_grad()
        (-prior().log_prob(z).mean()).backward()
        adam.step()
    best = torch.stack([part.abs().mean() for part in z.split(SIZES, -1)])
    torch.testing.assert_close(prior.tier_scales(), best, rtol=1e-4, atol=0)
    paid = torch.stack([part.abs().sum(-1).mean() for part in z.split(SIZES, -1)]) / best
    torch.testing.assert_close(paid, torch.tensor(SIZES).double())  # ‖z_i‖₁ / b_i = d_i nats


def test_without_a_floor_codes_and_scale_go_to_zero_together():
    """-log p(εz) at the best scale falls by d_i nats per factor e, to no bound but the floor's."""
    z = torch.randn(50, K)

    def best(epsilon, floor):
        total = 0.0
        for part, size in zip((epsilon * z).split(SIZES, -1), SIZES, strict=True):
            scale = max(float(part.abs().mean()), floor)
            prior = TieredLaplacePrior((size,), scales=scale, floor=0.5 * scale)
            total += -prior().log_prob(part).mean().item()
        return total

    assert best(math.exp(-3), 0.0) - best(math.exp(-2), 0.0) == pytest.approx(-K)
    bound = K * math.log(2 * 0.01)
    for epsilon in (1.0, 1e-3, 1e-9):
        assert best(epsilon, 0.01) >= bound
    assert best(1e-9, 0.01) == pytest.approx(bound, abs=1e-3)


def test_the_softmax_gradient_is_its_formula():
    prior, z = SoftmaxWeightsPrior(SIZES, l1=0.7, weights=(0.1, 0.3, 0.6)), torch.randn(9, K)
    (-prior().log_prob(z).mean()).backward()
    sizes = torch.stack([part.abs().sum(-1).mean() for part in z.split(SIZES, -1)])
    w = torch.tensor([0.1, 0.3, 0.6])
    torch.testing.assert_close(prior.weights(), w)
    torch.testing.assert_close(prior.logits.grad, 0.7 * w * (sizes - (w * sizes).sum()))


@pytest.mark.parametrize("sizes", [(3.0, 1.0, 2.0), (2.0, 5.0, 0.0), (1.0, 1.01, 4.0)])
def test_softmax_weights_all_go_to_the_smallest_tier(sizes):
    """Gradient flow da/dt = -∂L/∂a, by an integrator: w tends to the tier of least ℓ1."""
    sizes = np.array(sizes)

    def flow(_, a):
        w = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
        return -w * (sizes - w @ sizes)

    a = solve_ivp(flow, (0, 1e5), np.log([0.1, 0.3, 0.6]), rtol=1e-8, method="LSODA").y[:, -1]
    w = np.exp(a - a.max()) / np.exp(a - a.max()).sum()
    assert w.argmax() == sizes.argmin()
    assert w.max() > 0.99
    assert w @ sizes == pytest.approx(sizes.min(), abs=0.02)  # the others pay nothing


def test_published_logits_are_not_published_weights():
    """Softmax of [.1, .3, .6] is [.258, .316, .426]: E-D4."""
    logits = torch.tensor([0.1, 0.3, 0.6]).softmax(0)
    prior = SoftmaxWeightsPrior((1, 1, 1), l1=1.0, weights=logits.tolist())
    expected = torch.tensor([0.258, 0.316, 0.426])
    torch.testing.assert_close(prior.weights(), expected, rtol=0, atol=5e-4)
    assert SoftmaxWeightsPrior((2, 2), l1=1.0).weights().tolist() == [0.5, 0.5]


@pytest.mark.float32
@pytest.mark.parametrize("normalised", [True, False])
def test_a_thousand_updates_at_a_norm_of_300(normalised):
    """In float32, as published runs were not: finite throughout, every tier active."""
    torch.manual_seed(0)
    features = nn.functional.normalize(torch.randn(24, 8), dim=-1)
    codes = torch.rand(4000, 24) * (torch.rand(4000, 24) < 0.15)
    x = codes @ features + 0.3 * torch.randn(8)
    x *= 300 / x.norm(dim=-1).mean()
    units = AffineNormalizer.fit(x)
    l1 = 0.3 if normalised else 0.3 * float(units.scale)
    pair = tiered_autoencoder(
        8,
        (16, 12, 8),
        l1=(l1, l1 / 2, l1 / 4),
        curriculum=Curriculum((0, 100, 200), (0, 100, 100)),
        clip=(1.0, 2.0, 5.0),
        normalizer=units if normalised else None,
    )
    losses = [record.loss for record in fit(pair, x, steps=1000, batch_size=128, lr=3e-3)]
    assert torch.stack(losses).isfinite().all()
    active = metrics.tier_l0(pair.encode(x), (16, 12, 8))
    assert (active > 0.05).all(), active


def test_tier_metrics_add_up():
    codes = torch.randn(2, 50, K).relu()
    parts = metrics.tier_l0(codes, SIZES)
    torch.testing.assert_close(parts.sum(-1), metrics.l0(codes))
    torch.testing.assert_close(parts[0, 1], (codes[0, :, 6:11] > 0).double().sum(-1).mean())
    share = metrics.tier_allocation(codes, SIZES)
    torch.testing.assert_close(share.sum(-1), torch.ones(2))
    torch.testing.assert_close(share, parts / metrics.l0(codes)[:, None])


def test_coverage_is_numpys_least_squares():
    lower, upper = torch.randn(200, 5), torch.randn(200, 3)
    lower[:, 4] = 2 * lower[:, 3]  # of one rank less
    upper = upper + lower @ torch.randn(5, 3) + 7
    a, b, held_a, held_b = (h.numpy() for h in (lower[:150], upper[:150], lower[150:], upper[150:]))
    design, held = (np.c_[h, np.ones(len(h))] for h in (a, held_a))
    fitted = held @ np.linalg.lstsq(design, b, rcond=None)[0]
    residual, spread = held_b - fitted, held_b - held_b.mean(0)
    found = metrics.coverage_ratio(lower[:150], upper[:150], lower[150:], upper[150:])
    assert float(found) == pytest.approx(1 - (residual**2).sum() / (spread**2).sum(), rel=1e-9)


def test_coverage_of_chance_is_nothing():
    """Of n independent rows and m regressors, 1 - E ≈ -m/n, within 5 standard errors."""
    n, m = 4000, 5
    lower, upper, held_lower, held_upper = (torch.randn(n, m) for _ in range(4))
    found = float(metrics.coverage_ratio(lower, upper, held_lower, held_upper))
    assert abs(found + m / n) < 5 * (4 * m / n / n / m) ** 0.5 + 5 * (2 * m) ** 0.5 / n


def test_cubic_warmup():
    rate = CubicWarmup(4, 2.0)
    assert [rate(t) for t in (0, 1, 3, 9)] == [2 / 64, 2 / 8, 2.0, 2.0]
    assert [CubicWarmup(2000)(t) for t in (999, 1999)] == [0.125, 1.0]


def test_a_bottleneck_is_warned_of():
    with pytest.warns(BottleneckWarning, match="4 latents for activations of 6"):
        TieredEncoder(6, (4, 8))


BAD = {
    "tiers.sizes": [
        lambda: tiered_autoencoder(D, (), l1=1.0),
        lambda: tiered_autoencoder(D, (6, 0), l1=1.0),
        lambda: TieredEncoder(D, (6, -1)),
        lambda: TieredLaplacePrior(()),
        lambda: SoftmaxWeightsPrior((0,), l1=1.0),
    ],
    "tiers.count": [
        lambda: tiered_autoencoder(D, SIZES, l1=(1.0, 2.0)),
        lambda: tiered_autoencoder(D, SIZES, l1=1.0, clip=(1.0, 2.0)),
        lambda: tiered_autoencoder(D, SIZES, l1=1.0, curriculum=Curriculum((0, 1), (1, 1))),
        lambda: Curriculum((0, 1), (1,)),
        lambda: TieredEncoder(D, SIZES, norms=[nn.Identity()]),
        lambda: TieredLaplacePrior(SIZES, scales=(1.0, 2.0)),
        lambda: SoftmaxWeightsPrior(SIZES, l1=1.0, weights=(1.0, 2.0)),
    ],
    "tiers.clip": [
        lambda: TieredEncoder(D, (6,), clip=(0.0,)),
        *(lambda c=c: Tier(2, 2, clip=c) for c in (math.nan, math.inf, -1.0)),
    ],
    "tiers.weights": [lambda: SoftmaxWeightsPrior((1, 1), l1=1.0, weights=(0.0, 1.0))],
    "tiers.latents": [
        lambda: TieredAutoencoder(
            LinearDecoder(9, D), TieredLaplacePrior(SIZES), sizes=SIZES, noise=1.0
        )
    ],
    "tiers.codes": [lambda: metrics.tier_l0(torch.zeros(4, K + 1), SIZES)],
    "noise.scale": [lambda: tiered_autoencoder(D, SIZES, l1=1.0, noise=0.0)],
    "curriculum.steps": [lambda: Curriculum((0, -1), (0, 1))],
    "schedule.steps": [lambda: CubicWarmup(0)],
    "prior.bad_l1": [
        lambda: tiered_autoencoder(D, SIZES, l1=0.0),
        lambda: SoftmaxWeightsPrior(SIZES, l1=-1.0),
    ],
    "prior.bad_scale": [lambda: TieredLaplacePrior(SIZES, scales=-1.0)],
    "prior.bad_floor": [
        lambda: TieredLaplacePrior(SIZES, scales=0.1, floor=0.1),
        lambda: TieredLaplacePrior(SIZES, floor=0.0),
    ],
    "elbo.no_kl": [lambda: no_kl()],
    "metrics.no_variance": [lambda: metrics.coverage_ratio(*(torch.ones(5, 2) for _ in range(4)))],
}


def no_kl():
    """Weights without a normaliser have no KL from a posterior with a density."""
    from vsae import GaussianPosterior, LinearEncoder
    from vsae.guides import AmortizedGuide

    prior = SoftmaxWeightsPrior(SIZES, l1=1.0)
    model = TieredAutoencoder(LinearDecoder(K, D), prior, sizes=SIZES, noise=1.0)
    guide = AmortizedGuide(GaussianPosterior(LinearEncoder(D, 2 * K)))
    ClosedFormELBO()(model, guide)(torch.randn(5, D))


@pytest.mark.parametrize("code", BAD)
def test_bad_input(code):
    for make in BAD[code]:
        with pytest.raises(VsaeError) as caught:
            make()
        assert caught.value.code == code


def test_every_gradient_is_finite_where_a_tier_is_silent():
    """The scaling between tiers at exactly zero: a gain of 1 / √10⁻³, not an infinity."""
    pair, x = tiered(), torch.randn(ROWS, D)
    with torch.no_grad():
        pair.guide.posterior.encoder.tiers[0].b.fill_(-1e3)
    loss = ClosedFormELBO()(pair.model, pair.guide)(x)
    found = torch.autograd.grad(loss, leaves_of(pair).values(), allow_unused=True)
    assert all(g.isfinite().all() for g in found if g is not None)
