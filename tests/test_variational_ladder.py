"""The variational ladder: the merge, the bound against dense linear algebra, the point limit."""

import copy

import numpy as np
import pytest
import torch
from program_checks import (
    HALF,
    assert_masked_rows_do_not_count,
    assert_saved_is_loaded,
    assert_svi_trains,
)
from pyro.distributions import Laplace, Normal
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from priors import FlatPrior, Graph, GraphLaplacianPrior, IsotropicPrior, LaplacePrior
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ChainDecoder,
    ClosedFormELBO,
    Consistency,
    GaussianLadderAutoencoder,
    GaussianLadderPosterior,
    LadderAutoencoder,
    LadderEncoder,
    LadderPosterior,
    LateralDecoder,
    LearnedNoise,
    LinearDecoder,
    LinearWarmup,
    PrecisionWeightedGuide,
    fit,
    scale_latents,
    variational_ladder_autoencoder,
)
from vsae.errors import VsaeError
from vsae.precision_weighted import merge

D, SIZES, ROWS = 4, (6, 3), 20
NOISE, SPREAD = 0.6, 0.8


class AffineEvidence(nn.Module):
    """Means affine in the activation, scales fixed: what linear algebra can follow."""

    def __init__(self, maps, offsets, scales):
        super().__init__()
        self.maps, self.offsets, self.scales = maps, offsets, scales

    def forward(self, x):
        return {
            f"z_{i}": Normal(x @ a + c, s.expand(len(x), -1)).to_event(1)
            for i, (a, c, s) in enumerate(
                zip(self.maps, self.offsets, self.scales, strict=True), start=1
            )
        }


def variational(sizes=SIZES, **settings):
    torch.manual_seed(0)
    given = {"learnable": True} | settings
    pair = variational_ladder_autoencoder(D, sizes, noise=NOISE, **given)
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    pair.project()
    return pair


def linear_chain(levels=None):
    torch.manual_seed(1)
    decoder = ChainDecoder.of_sizes(D, SIZES) if levels is None else ChainDecoder(levels)
    for level in decoder.levels:
        nn.init.normal_(level.b_dec)
    prior = IsotropicPrior(decoder.sizes[-1], loc=0.3)
    return GaussianLadderAutoencoder(decoder, prior, spreads=(SPREAD,), noise=NOISE)


def random_evidence():
    maps = [torch.randn(D, n) for n in SIZES]
    return AffineEvidence(
        maps, [torch.randn(n) for n in SIZES], [torch.rand(n) + 0.3 for n in SIZES]
    )


def dense(model):
    """The joint of (z_1, z_2) and the likelihood as arrays: precision, mean, ``(A, b)``."""
    first, second = model.decoder.levels
    w1, b1, w2, b2 = (
        p.detach().numpy() for p in (first.W_dec, first.b_dec, second.W_dec, second.b_dec)
    )
    fine, coarse = len(w1), len(w2)
    top = np.eye(coarse) + w2 @ w2.T / SPREAD**2
    precision = np.block([[np.eye(fine) / SPREAD**2, -w2.T / SPREAD**2], [-w2 / SPREAD**2, top]])
    above = np.full(coarse, 0.3)
    mean = np.concatenate([above @ w2 + b2, above])
    return precision, mean, np.concatenate([w1, np.zeros((coarse, D))]), b1


def log_normal(x, mean, covariance):
    gap = x - mean
    quadratic = gap @ np.linalg.solve(covariance, gap)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])


def log_evidence(model, x):
    precision, mean, atoms, bias = dense(model)
    covariance = atoms.T @ np.linalg.solve(precision, atoms) + NOISE**2 * np.eye(D)
    return log_normal(x, mean @ atoms + bias, covariance)


def exact_posterior(model, x):
    precision, mean, atoms, bias = dense(model)
    exact = precision + atoms @ atoms.T / NOISE**2
    return exact, np.linalg.solve(exact, precision @ mean + atoms @ (x - bias) / NOISE**2)


def merged_joint(model, evidence, x):
    """Mean and covariance of q(z_1, z_2): z_2 from the evidence, z_1 given it from the product."""
    second = model.decoder.levels[1]
    w2, b2 = second.W_dec.detach().numpy(), second.b_dec.detach().numpy()
    q = evidence(torch.as_tensor(x)[None])
    (m1, s1), (m2, s2) = ((q[n].mean[0].numpy(), q[n].stddev[0].numpy()) for n in ("z_1", "z_2"))
    variance = 1 / (1 / s1**2 + 1 / SPREAD**2)
    gain = w2 * (variance / SPREAD**2)  # of z_2 on the mean of z_1
    mean = np.concatenate([variance * (m1 / s1**2 + b2 / SPREAD**2) + m2 @ gain, m2])
    top = np.diag(s2**2)
    covariance = np.block(
        [[np.diag(variance) + gain.T @ top @ gain, gain.T @ top], [top @ gain, top]]
    )
    return mean, covariance


def gaussian_kl(mean, covariance, precision, target):
    gap = target - mean
    trace = np.trace(precision @ covariance) + gap @ precision @ gap - len(mean)
    return 0.5 * (trace - np.linalg.slogdet(precision)[1] - np.linalg.slogdet(covariance)[1])


@pytest.mark.parametrize(("m", "s"), [((0.0, 1.0), (1.0, 1.0)), ((-2.0, 3.0), (0.4, 2.0))])
def test_merging_is_the_product_of_two_gaussians(m, s):
    """The normalised product on a grid, by quadrature."""
    grid = np.linspace(-30, 30, 200_001)
    product = np.prod([np.exp(-0.5 * ((grid - a) / b) ** 2) for a, b in zip(m, s, strict=True)], 0)
    product /= product.sum()
    mean = (product * grid).sum()
    spread = ((product * (grid - mean) ** 2).sum()) ** 0.5
    p, q = (
        Normal(torch.tensor([a]), torch.tensor([b])).to_event(1) for a, b in zip(m, s, strict=True)
    )
    found = merge(p, q)
    assert found.mean.item() == pytest.approx(mean, abs=1e-9)
    assert found.stddev.item() == pytest.approx(spread, rel=1e-9)
    assert merge(q, p).mean.item() == pytest.approx(mean, abs=1e-9)


def test_the_bound_is_log_p_less_the_kl_to_the_exact_posterior():
    """Both estimators, over many draws at one row, within 5 standard errors of dense algebra."""
    model, evidence = linear_chain(), random_evidence()
    x, draws = torch.randn(D), 40_000
    guide = PrecisionWeightedGuide(model, evidence)
    mean, covariance = merged_joint(model, evidence, x.numpy())
    gap = gaussian_kl(mean, covariance, *exact_posterior(model, x.numpy()))
    bound = log_evidence(model, x.numpy()) - gap
    assert gap > 0.1
    rows = x.expand(draws, D)
    closed = -sum(ClosedFormELBO().site_terms(model, guide, rows).values())
    guide(rows)
    of_model, of_guide = guide.get_traces()
    of_model.compute_log_prob()
    of_guide.compute_log_prob()
    sampled = sum(site["log_prob"] for site in of_model.nodes.values() if "log_prob" in site)
    sampled = sampled - sum(
        site["log_prob"] for site in of_guide.nodes.values() if "log_prob" in site
    )
    for values in (closed, sampled):
        values = values.detach()
        assert abs(float(values.mean()) - bound) < 5 * float(values.std()) / draws**0.5
    assert closed.detach().std() < sampled.std()


def test_the_bound_is_tight_where_the_merged_posterior_is_exact():
    """Orthonormal maps: every single draw gives log p(x), as it does under no other posterior."""
    first, second = LinearDecoder(D, D), LinearDecoder(2, D)
    with torch.no_grad():
        first.W_dec.copy_(torch.linalg.qr(torch.randn(D, D)).Q)
        second.W_dec.copy_(torch.linalg.qr(torch.randn(D, D)).Q[:2])
    model = linear_chain([first, second])
    through, noise = second.W_dec @ first.W_dec, NOISE**2 + SPREAD**2  # of x given z_2
    precision = 1 + 1 / noise
    offset = second.b_dec @ first.W_dec + first.b_dec
    evidence = AffineEvidence(
        [first.W_dec.T, through.T / noise / precision],
        [-first.b_dec @ first.W_dec.T, (0.3 - offset @ through.T / noise) / precision],
        [torch.full((D,), NOISE), torch.full((2,), precision**-0.5)],
    )
    x, guide = torch.randn(50, D), PrecisionWeightedGuide(model, evidence)
    exact = sum(log_evidence(model, row) for row in x.numpy())
    draws = [-Trace_ELBO().loss(model, guide, x) for _ in range(3)]
    assert draws == pytest.approx([exact] * 3, rel=1e-10)
    evidence.scales[1] = 1.1 * evidence.scales[1]
    worse = [-Trace_ELBO().loss(model, guide, x) for _ in range(3)]
    assert np.ptp(worse) > 1e-3


@pytest.mark.parametrize("sizes", [SIZES, (6, 4, 2)])
def test_closed_form_and_sampled_bounds_agree_on_average(sizes):
    """With the rectified link, against Pyro's own estimators, over draws."""
    pair, x = variational(sizes), torch.randn(ROWS, D)
    found = {}
    for elbo in (ClosedFormELBO(), Trace_ELBO(), TraceMeanField_ELBO()):
        with torch.no_grad():
            draws = np.array([elbo.loss(pair.model, pair.guide, x) for _ in range(200)])
        found[type(elbo).__name__] = draws
    closed = found["ClosedFormELBO"]
    for name in ("Trace_ELBO", "TraceMeanField_ELBO"):
        error = (closed.var() / 200 + found[name].var() / 200) ** 0.5
        assert abs(closed.mean() - found[name].mean()) < 5 * error, name
    torch.manual_seed(5)
    ours = ClosedFormELBO()(pair.model, pair.guide)(x)
    torch.manual_seed(5)
    torch.testing.assert_close(ours, TraceMeanField_ELBO()(pair.model, pair.guide)(x))


def test_more_particles_average():
    pair, x = variational(), torch.randn(ROWS, D)
    with torch.no_grad():
        one = np.std([ClosedFormELBO().loss(pair.model, pair.guide, x) for _ in range(200)])
        many = ClosedFormELBO(num_particles=16)
        assert np.std([many.loss(pair.model, pair.guide, x) for _ in range(50)]) < one / 2


def test_gradients_of_the_two_bounds_agree_on_average():
    pair, x = variational(), torch.randn(3, D)
    leaves = list(pair.parameters())

    def gradient(elbo):
        found = torch.autograd.grad(elbo(pair.model, pair.guide)(x), leaves)
        return torch.cat([g.flatten() for g in found])

    ours = torch.stack([gradient(ClosedFormELBO()) for _ in range(200)])
    theirs = torch.stack([gradient(Trace_ELBO()) for _ in range(200)])
    error = ((ours.var(0) + theirs.var(0)) / 200).sqrt()
    z = (ours.mean(0) - theirs.mean(0)) / error.clamp(min=1e-12)
    assert z.abs().max() < 5
    assert z.square().mean() < 1.5


def test_points_on_the_chain_are_the_consistency_without_a_stopped_gradient():
    """-log p(z_1 | z_2) is γ C with γ = σ² / s²: values and every gradient."""
    torch.manual_seed(0)
    levels, encoder = LateralDecoder.of_sizes(D, SIZES).levels, LadderEncoder(D, SIZES)
    x, top = torch.randn(ROWS, D), LaplacePrior(3, scale=0.7)
    chain = GaussianLadderAutoencoder(ChainDecoder(levels), top, spreads=(SPREAD,), noise=HALF)
    tied = LadderAutoencoder(
        _FirstLevel(levels),
        [FlatPrior(6), top],
        noise=HALF,
        consistency=Consistency(levels, (None, SPREAD)),
    )
    guide = AmortizedGuide(LadderPosterior(encoder))
    leaves = [*levels.parameters(), *encoder.parameters()]
    losses = [ClosedFormELBO()(model, guide)(x) for model in (chain, tied)]
    torch.testing.assert_close(*losses)
    for one, two in zip(*(torch.autograd.grad(loss, leaves) for loss in losses), strict=True):
        torch.testing.assert_close(one, two)
        assert one.abs().sum() > 0


class _FirstLevel(ChainDecoder):
    """The decoder of a chain in the ladder's place: only the finest level reaches the input."""


def test_the_pass_at_the_means_is_its_recursion():
    pair, x = variational((6, 4, 2)), torch.randn(ROWS, D)
    evidence = pair.guide.evidence(x)
    q = pair.posterior(x)
    assert list(q) == ["z_3", "z_2", "z_1"]
    above = evidence["z_3"].mean
    torch.testing.assert_close(q["z_3"].mean, above)
    for i in (2, 1):
        level, spread = pair.model.decoder.levels[i], pair.model.spreads[i - 1]()
        prior = above.relu() @ level.W_dec + level.b_dec
        own = evidence[f"z_{i}"]
        precision = own.variance.reciprocal() + spread**-2
        above = (own.mean / own.variance + prior / spread**2) / precision
        torch.testing.assert_close(q[f"z_{i}"].mean, above)
        torch.testing.assert_close(q[f"z_{i}"].variance, precision.reciprocal())
    code = torch.cat([q[f"z_{i}"].mean.relu() for i in (1, 2, 3)], -1)
    torch.testing.assert_close(pair.encode(x), code)
    assert torch.equal(pair.encode(x), pair.encode(x))
    torch.testing.assert_close(pair.encode(x.view(4, 5, D)), code.view(4, 5, -1))
    torch.testing.assert_close(pair.encode(x[0]), code[0])
    torch.testing.assert_close(
        pair(x), code[:, :6] @ pair.model.decoder.levels[0].W_dec + pair.b_dec
    )


def test_atoms_are_where_a_unit_of_each_latent_moves_the_mean():
    """Without rectification: the mean of x of z_2 + e_j less that of z_2, down the chain."""
    model = linear_chain()
    first, second = model.decoder.levels
    down = lambda z: second(z) @ first.W_dec + first.b_dec  # noqa: E731
    moved = down(torch.eye(3)) - down(torch.zeros(3, 3))
    torch.testing.assert_close(model.decoder.W_dec[6:], moved)
    torch.testing.assert_close(model.decoder.W_dec[:6], first.W_dec)


def test_is_an_ordinary_program(tmp_path):
    pair, x = variational(), torch.randn(ROWS, D)
    assert_svi_trains(pair, x, steps=60)
    for elbo in (ClosedFormELBO(), TraceMeanField_ELBO(), Trace_ELBO()):
        torch.manual_seed(2)
        with scale_latents(0.0):
            scaled = elbo(pair.model, pair.guide)(x)
        torch.manual_seed(2)
        terms = ClosedFormELBO().terms(pair.model, pair.guide, x)
        torch.testing.assert_close(scaled, terms["x"])
    assert_saved_is_loaded(pair, x, tmp_path / "sae")


def test_fit_moves_every_parameter_and_the_seed_decides():
    x, found = torch.randn(200, D), []
    for seed in (0, 0, 1):
        pair = variational((6, 4, 2))
        before = {n: p.detach().clone() for n, p in pair.named_parameters()}
        records = fit(
            pair, x, steps=60, batch_size=50, lr=1e-2, beta=LinearWarmup(30), seed=seed
        ).run(progress=False)
        assert {"elbo/z_1", "elbo/z_2", "elbo/z_3", "elbo/x"} < set(records[0])
        for name, parameter in pair.named_parameters():
            assert not torch.equal(parameter, before[name]), name
        found.append(pair.W_dec.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_biases_and_spreads_are_fixed_unless_asked(tmp_path):
    pair, x = variational(learnable=False), torch.randn(200, D)
    second = pair.model.decoder.levels[1]
    before = second.b_dec.detach().clone()
    assert not list(pair.model.spreads.parameters())
    fit(pair, x, steps=5, batch_size=50, lr=1e-2).run(progress=False)
    assert torch.equal(second.b_dec, before)
    assert_saved_is_loaded(pair, x, tmp_path / "sae")


def test_masked_rows_do_not_count():
    """Points, so that the same draws are compared: evidence far surer than the chain."""
    pair, x = variational(), torch.randn(ROWS, D)
    with torch.no_grad():
        for layer, size in zip(pair.guide.evidence.encoder.layers, SIZES, strict=True):
            layer.W_enc[:, size:] = 0.0
            layer.b_enc[size:] = -40.0
    pair.guide.evidence.floor = 1e-12
    pair.model.link = nn.Identity()
    assert_masked_rows_do_not_count(pair, x)


@pytest.mark.parametrize("top", ["laplace", "graph"])
def test_the_coarsest_level_may_have_any_prior(top, tmp_path):
    graph = GraphLaplacianPrior(Graph.ring(3), ridge=0.5)
    pair = variational(prior=LaplacePrior(3) if top == "laplace" else graph)
    x = torch.randn(ROWS, D)
    assert pair.elbo(x).isfinite()
    assert_saved_is_loaded(pair, x, tmp_path / "sae")


def test_the_model_is_not_a_part_of_the_guide():
    pair, x = variational(), torch.randn(ROWS, D)
    names = [name for name, _ in pair.named_parameters()]
    assert len(names) == len(set(names))
    assert all("model" not in name for name, _ in pair.guide.named_parameters())
    pair.elbo(x)
    for again in (copy.deepcopy(pair), copy.deepcopy(copy.deepcopy(pair))):
        assert again.guide.model is again.model
        assert again.model is not pair.model
        torch.testing.assert_close(again.encode(x), pair.encode(x))


@pytest.mark.float32
def test_learns_in_float32():
    torch.manual_seed(0)
    features = nn.functional.normalize(torch.randn(24, 8), dim=-1)
    x = (torch.rand(2000, 24) * (torch.rand(2000, 24) < 0.1)) @ features
    pair = variational_ladder_autoencoder(8, (32, 6), noise=0.1)
    losses = [r.loss for r in fit(pair, x, steps=400, batch_size=128, lr=3e-3)]
    losses = torch.stack(losses)
    assert losses.isfinite().all()
    assert losses.dtype == torch.float32
    assert losses[-50:].mean() < losses[:50].mean()
    with torch.no_grad():
        assert float((x - pair(x)).square().sum() / x.square().sum()) < 0.3


def chain_with(evidence):
    model = linear_chain()
    return ClosedFormELBO()(model, PrecisionWeightedGuide(model, evidence))(torch.zeros(5, D))


class OnlyOne(nn.Module):
    def forward(self, x):
        return {"z_2": Normal(torch.zeros(len(x), 3), 1.0).to_event(1)}


class LaplaceBelow(OnlyOne):
    def forward(self, x):
        return super().forward(x) | {"z_1": Laplace(torch.zeros(len(x), 6), 1.0).to_event(1)}


def mismatched():
    model = GaussianLadderAutoencoder(
        ChainDecoder.of_sizes(D, SIZES), IsotropicPrior(3), spreads=(LearnedNoise(1.0),), noise=1.0
    )
    evidence = GaussianLadderPosterior(LadderEncoder(D, (6, 3), numbers=2))
    encoder = evidence.encoder.layers[0]
    encoder.W_enc = nn.Parameter(encoder.W_enc[:, :2].clone())
    encoder.b_enc = nn.Parameter(encoder.b_enc[:2].clone())
    evidence.encoder.sizes = (1, 3)
    evidence.encoder.layers[1] = type(encoder)(1, 6)
    pair = Autoencoder(model, AmortizedGuide(evidence))
    fit(pair, torch.zeros(8, D), steps=1, batch_size=8)


BAD = {
    "ladder.evidence": [lambda: chain_with(OnlyOne())],
    "ladder.merge": [lambda: chain_with(LaplaceBelow())],
    "ladder.spreads": [
        lambda: GaussianLadderAutoencoder(
            ChainDecoder.of_sizes(D, SIZES), IsotropicPrior(3), spreads=(), noise=1.0
        )
    ],
    "ladder.latents": [
        lambda: variational_ladder_autoencoder(D, SIZES, noise=1.0, prior=IsotropicPrior(4))
    ],
    "noise.scale": [lambda: variational_ladder_autoencoder(D, SIZES, noise=-1.0)],
    "prior.bad_scale": [lambda: variational_ladder_autoencoder(D, SIZES, noise=1.0, scale=0.0)],
    "posterior.outputs": [lambda: GaussianLadderPosterior(LadderEncoder(D, SIZES))],
    "posterior.floor": [
        lambda: GaussianLadderPosterior(LadderEncoder(D, SIZES, numbers=2), floor=0.0)
    ],
    "pair.latents": [mismatched],
    "replicas.single": [lambda: stack([variational(), variational()])],
}


@pytest.mark.parametrize(("code", "call"), [(c, call) for c in BAD for call in BAD[c]])
def test_bad_input_is_named(code, call):
    with pytest.raises(VsaeError) as raised:
        call()
    assert raised.value.code == code
