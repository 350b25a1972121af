"""Decoders, encoders, posteriors, noise, units: each against its definition."""

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pairs import D, K, pair
from pyro.infer import Predictive
from torch import nn
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, kl_divergence

from priors import IsotropicPrior
from vsae import (
    AffineNormalizer,
    FixedNoise,
    FreeBitsELBO,
    FreeDecoder,
    FullGaussianPosterior,
    GaussianPosterior,
    LearnedNoise,
    LinearDecoder,
    LinearEncoder,
    MLPEncoder,
    SparseAutoencoder,
    SphericalNormal,
    l1_autoencoder,
    noise_from,
    variational_autoencoder,
)
from vsae.errors import VsaeError
from vsae.noise import from_noise
from vsae.posteriors import point
from vsae.schedules import Constant, LinearDecay, LinearWarmup


@given(st.integers(0, 2**31), st.sampled_from([(), (3,), (2, 3)]))
def test_spherical_normal_is_the_independent_normal(seed, batch):
    torch.manual_seed(seed)
    loc, x, scale = torch.randn(*batch, D), torch.randn(*batch, D), torch.rand(()) + 0.1
    oracle = dist.Normal(loc, scale).to_event(1)
    torch.testing.assert_close(SphericalNormal(loc, scale).log_prob(x), oracle.log_prob(x))
    torch.testing.assert_close(SphericalNormal(loc, scale.item()).log_prob(x), oracle.log_prob(x))


def test_spherical_normal_with_a_noise_per_replica():
    loc, x, scale = torch.randn(3, 5, D), torch.randn(5, D), torch.rand(3, 1) + 0.1
    oracle = dist.Normal(loc, scale[..., None]).to_event(1)
    ours = SphericalNormal(loc, scale)
    torch.testing.assert_close(ours.log_prob(x), oracle.log_prob(x))
    torch.manual_seed(0)
    drawn = ours.expand((3, 5)).sample((20_000,))
    deviation = drawn.std(0).mean((-2, -1))  # 20 000 × 20 draws: relative error 1 / sqrt(8e5)
    torch.testing.assert_close(deviation, scale[:, 0], rtol=4.5 / 8e5**0.5, atol=0)


def test_noise_modules():
    assert FixedNoise(0.3)().item() == pytest.approx(0.3)
    learned = LearnedNoise(0.5, floor=0.1)
    assert learned().item() == pytest.approx(0.5)
    with torch.no_grad():
        learned.log_excess.fill_(-1e3)
    assert learned().item() == pytest.approx(0.1)  # never below


def test_learned_noise_finds_the_residual():
    """σ² converges to the mean squared residual per neuron: the maximum of the likelihood."""
    x = 1.7 * torch.randn(2000, D)
    model = SparseAutoencoder(LinearDecoder(K, D), IsotropicPrior(K), noise=LearnedNoise(0.5))
    optimizer = torch.optim.Adam([model.noise.log_excess], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-SphericalNormal(torch.zeros(D), model.noise()).log_prob(x)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(model.noise() ** 2, x.square().mean(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("decoder", [LinearDecoder, FreeDecoder])
def test_decoders_are_affine(decoder):
    made, z = decoder(K, D), torch.randn(7, K)
    nn.init.normal_(made.b_dec)
    torch.testing.assert_close(made(z), torch.einsum("bk,kd->bd", z, made.W_dec) + made.b_dec)
    assert decoder(K, D, bias=False)(torch.zeros(1, K)).abs().max() == 0


def test_projection_keeps_the_tangent():
    decoder = LinearDecoder(K, D)
    decoder(torch.randn(7, K)).square().sum().backward()
    raw = decoder.W_dec.grad.clone()
    decoder.project_gradient()
    atoms = decoder.W_dec.detach()
    torch.testing.assert_close((decoder.W_dec.grad * atoms).sum(-1), torch.zeros(K))
    removed = raw - decoder.W_dec.grad
    torch.testing.assert_close(removed, (raw * atoms).sum(-1, keepdim=True) * atoms)


def test_an_aligned_encoder_starts_at_the_atoms():
    decoder, encoder, x = LinearDecoder(K, D), LinearEncoder(D, 2 * K), torch.randn(7, D)
    nn.init.normal_(decoder.b_dec)
    encoder.align(decoder)
    torch.testing.assert_close(encoder(x)[:, :K], (x - decoder.b_dec) @ decoder.W_dec.T)


def test_mlp_is_two_layers_of_relu():
    mlp, x = MLPEncoder(D, 9, K), torch.randn(7, D)
    oracle = nn.Sequential(nn.Linear(D, 9), nn.ReLU(), nn.Linear(9, K))
    state = {"0.weight": mlp.W_hidden.T, "0.bias": mlp.b_hidden, "2.weight": mlp.W_out.T}
    oracle.load_state_dict(state | {"2.bias": mlp.b_out})
    torch.testing.assert_close(mlp(x), oracle(x))


def test_a_full_posterior_has_the_factor_its_outputs_spell():
    posterior = FullGaussianPosterior(LinearEncoder(D, 2 * K + K * (K - 1) // 2), K, floor=0.01)
    x = torch.randn(3, D)
    q, raw = posterior(x)["z"], posterior.encoder(x)
    for b in range(3):
        entries = iter(raw[b, 2 * K :].tolist())
        for i in range(K):
            for j in range(i):
                assert q.scale_tril[b, i, j].item() == pytest.approx(next(entries))
            diagonal = 0.01 + nn.functional.softplus(raw[b, K + i]).item()
            assert q.scale_tril[b, i, i].item() == pytest.approx(diagonal)


FAMILIES = {
    "normal": lambda: dist.Normal(torch.randn(2, K), torch.rand(2, K) + 0.1).to_event(1),
    "full": lambda: MultivariateNormal(
        torch.randn(2, K), scale_tril=torch.randn(2, K, K).tril(-1) + torch.eye(K)
    ),
    "low rank": lambda: LowRankMultivariateNormal(
        torch.randn(2, K), torch.randn(2, K, 2), torch.rand(2, K) + 0.1
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_our_noise_has_the_familys_moments(family):
    """Mean and covariance of 100 000 draws, each entry within 5 standard errors."""
    q, n = FAMILIES[family](), 100_000
    wide = q.expand((n, 2))
    generator = torch.Generator().manual_seed(1)
    drawn = from_noise(wide, lambda shape, like: torch.randn(shape, generator=generator))
    covariance = torch.stack([drawn[:, b].T.cov() for b in range(2)])
    expected = q.covariance_matrix if family != "normal" else torch.diag_embed(q.variance)
    spread = expected.diagonal(dim1=-2, dim2=-1)
    assert ((drawn.mean(0) - q.mean).abs() < 5 * (spread / n).sqrt()).all()
    error = ((spread[:, :, None] * spread[:, None] + expected**2) / n).sqrt()
    assert ((covariance - expected).abs() < 5 * error).all()


def test_other_families_draw_from_a_seed_and_leave_the_global_generator():
    import pyro

    before = torch.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        with noise_from([torch.Generator().manual_seed(seed)]):
            draws.append(pyro.sample("z", dist.StudentT(3.0).expand((4,)).to_event(1)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_point_is_one_event_per_row_even_when_square():
    assert point(torch.ones(K, K)).batch_shape == (K,)


def test_the_l1_preset_is_the_published_loss():
    """ELBO per row = ‖x - x̂‖² + λ‖z‖₁ + constant."""
    autoencoder, x = l1_autoencoder(D, K, l1=0.3), torch.randn(50, D)
    codes = autoencoder.encode(x)
    loss = (x - autoencoder(x)).square().sum(-1) + 0.3 * codes.abs().sum(-1)
    from vsae import ClosedFormELBO

    terms = ClosedFormELBO().site_terms(autoencoder.model, autoencoder.guide, x)
    offset = sum(terms.values()) - loss
    torch.testing.assert_close(offset, offset[:1].expand(50))


def test_the_variational_preset_starts_with_its_scale():
    autoencoder = variational_autoencoder(D, IsotropicPrior(K), noise=0.5, scale=0.2, hidden=9)
    with torch.no_grad():
        autoencoder.guide.posterior.encoder.W_out.zero_()
    q = autoencoder.posterior(torch.randn(3, D))["z"]
    torch.testing.assert_close(q.variance.sqrt(), torch.full((3, K), 0.2 + 1e-4))


def test_rectified_codes_are_sparse_and_their_kl_is_gaussian():
    autoencoder = pair("cholesky", "gaussian", link=nn.ReLU())
    x = torch.randn(50, D)
    codes = autoencoder.encode(x)
    assert (codes == 0).any()
    assert (codes >= 0).all()
    q, p = autoencoder.posterior(x)["z"], autoencoder.model.prior()
    oracle = kl_divergence(
        MultivariateNormal(q.mean, torch.diag_embed(q.variance)),
        MultivariateNormal(p.loc, precision_matrix=dense(p)),
    )
    torch.testing.assert_close(kl_divergence(q, p), oracle)
    torch.testing.assert_close(codes, q.mean.relu())


def dense(p):
    eye = torch.eye(K)
    norm = p.precision.quadratic(eye)
    return (p.precision.quadratic(eye[:, None] + eye) - norm[:, None] - norm) / 2


def test_affine_units_are_undone():
    x = 7 * torch.randn(100, D) + 3
    unit = AffineNormalizer.fit(x)
    torch.testing.assert_close(unit.inverse(unit(x)), x)
    torch.testing.assert_close(unit(x).square().sum(-1).mean(), torch.tensor(float(D)))
    jacobian = torch.autograd.functional.jacobian(unit, x[0])
    torch.testing.assert_close(unit.log_jacobian(D), torch.linalg.slogdet(jacobian)[1])


def test_linear_weights_are_the_posterior_mean():
    autoencoder, x = pair("cholesky", "gaussian"), torch.randn(7, D)
    assert autoencoder.W_enc.shape == (D, K)
    torch.testing.assert_close(x @ autoencoder.W_enc + autoencoder.b_enc, autoencoder.encode(x))
    torch.testing.assert_close(autoencoder.decode(torch.zeros(1, K))[0], autoencoder.b_dec)
    torch.testing.assert_close(autoencoder(x), autoencoder.decode(autoencoder.encode(x)))


def test_generation_from_the_prior():
    """Predictive without a guide draws z from the prior and x around its decoding."""
    autoencoder = pair("isotropic", noise=0.01)
    drawn = Predictive(autoencoder.model, num_samples=3)(torch.randn(5, D))
    assert drawn["z"].shape == (3, 5, K)


def test_schedules():
    assert [LinearWarmup(4, 2.0)(t) for t in (0, 1, 3, 9)] == [0.5, 1.0, 2.0, 2.0]
    assert [LinearDecay(2, 6)(t) for t in (0, 2, 4, 6, 9)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert Constant(0.3)(7) == 0.3


def mismatched():
    return GaussianPosterior(LinearEncoder(D, 5))


BAD = {
    "noise.scale": lambda: FixedNoise(0.0),
    "posterior.outputs": mismatched,
    "normalizer.scale": lambda: AffineNormalizer(torch.zeros(D), 0.0),
    "encoder.not_linear": lambda: pair(posterior="gaussian mlp").W_enc,
    "data.width": lambda: pair().encode(torch.zeros(2, D + 1)),
    "data.dtype": lambda: pair().encode(torch.zeros(2, D, dtype=torch.float32)),
    "data.device": lambda: pair().encode(torch.zeros(2, D, device="meta")),
    "elbo.free_bits": lambda: FreeBitsELBO(-1.0),
}


@pytest.mark.parametrize("code", BAD)
def test_bad_input(code):
    with pytest.raises(VsaeError) as caught:
        BAD[code]()
    assert caught.value.code == code


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_impossible_noise(wrong):
    for make in (FixedNoise, LearnedNoise):
        with pytest.raises(VsaeError, match="positive standard deviation"):
            make(wrong)
