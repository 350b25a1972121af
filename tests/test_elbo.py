"""ClosedFormELBO is Pyro's ELBO, and the ELBO is what theory says it is."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from gaussian_oracle import LinearGaussian
from hypothesis import given
from hypothesis import strategies as st
from pairs import PAIRS, D, K, pair, tied
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine.guide import GuideMessenger
from torch import nn

from priors import CholeskyPrior, GraphLaplacianPrior, IsotropicPrior, LaplacePrior
from priors.replicas import stack
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ClosedFormELBO,
    FreeBitsELBO,
    LinearDecoder,
    LinearEncoder,
    ReLUPosterior,
    SparseAutoencoder,
    TiedEncoder,
    scale_latents,
)
from vsae.errors import VsaeError

each_pair = pytest.mark.parametrize(("prior", "posterior"), PAIRS)


def value_and_gradients(objective, x):
    torch.manual_seed(1)  # the same noise on both sides
    loss = objective(x)
    leaves = [p for p in objective.parameters() if p.requires_grad]
    return [loss, *torch.autograd.grad(loss, leaves)]


@each_pair
def test_equals_pyros_mean_field_elbo(prior, posterior):
    autoencoder, x = pair(prior, posterior), torch.randn(7, D)
    ours = ClosedFormELBO()(autoencoder.model, autoencoder.guide)
    oracle = TraceMeanField_ELBO()(autoencoder.model, autoencoder.guide)
    for mine, theirs in zip(
        value_and_gradients(ours, x), value_and_gradients(oracle, x), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
        assert mine.abs().sum() > 0


def test_svi_with_tied_unit_atoms_and_several_particles():
    """The decoder's atoms are also the encoder's, read before and after they are put back."""
    decoder = LinearDecoder(K, D)
    model = SparseAutoencoder(decoder, LaplacePrior(K), noise=0.5)
    autoencoder = Autoencoder(model, AmortizedGuide(ReLUPosterior(TiedEncoder(decoder))))
    optimizer, elbo = pyro.optim.Adam({"lr": 0.1}), ClosedFormELBO(num_particles=2)
    svi = SVI(autoencoder.pyro_model, autoencoder.pyro_guide, optimizer, elbo)
    for _ in range(3):
        svi.step(torch.randn(16, D))
    pyro.clear_param_store()
    autoencoder.project()
    torch.testing.assert_close(autoencoder.W_dec.norm(dim=-1), torch.ones(K))


@each_pair
def test_every_parameter_moves_under_stock_svi(prior, posterior):
    autoencoder, x = pair(prior, posterior), torch.randn(16, D)
    before = {n: p.detach().clone() for n, p in autoencoder.named_parameters() if p.requires_grad}
    for elbo in (Trace_ELBO(), ClosedFormELBO()):
        svi = SVI(
            autoencoder.pyro_model, autoencoder.pyro_guide, pyro.optim.Adam({"lr": 0.1}), elbo
        )
        for _ in range(2):
            svi.step(x)
        for name, parameter in autoencoder.named_parameters():
            if parameter.requires_grad:
                assert not torch.equal(parameter, before[name]), name
                before[name] = parameter.detach().clone()
    pyro.clear_param_store()


def test_loss_and_gradients_for_svi_are_those_of_the_module():
    autoencoder, x = pair(), torch.randn(7, D)
    elbo, model, guide = ClosedFormELBO(), autoencoder.model, autoencoder.guide
    reference = value_and_gradients(elbo(model, guide), x)
    torch.manual_seed(1)
    loss = elbo.loss_and_grads(model, guide, x)
    assert loss == pytest.approx(reference[0].item(), rel=1e-14)
    leaves = [p for p in elbo(model, guide).parameters() if p.requires_grad]
    for leaf, gradient in zip(leaves, reference[1:], strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


def test_particles_average_draws():
    autoencoder, x = pair(), torch.randn(7, D)
    torch.manual_seed(3)
    alone = [ClosedFormELBO().loss(autoencoder.model, autoencoder.guide, x) for _ in range(4)]
    torch.manual_seed(3)
    together = ClosedFormELBO(num_particles=4).loss(autoencoder.model, autoencoder.guide, x)
    assert together == pytest.approx(np.mean(alone), rel=1e-13)
    assert len(set(alone)) == 4  # noise is real


@given(st.integers(0, 2**31), st.sampled_from(["cholesky", "graph", "shifted", "equicorrelated"]))
def test_elbo_plus_gap_is_the_log_marginal(seed, prior):
    """Exact at the best diagonal posterior; reconstruction by sigma points, no sampling."""
    autoencoder = pair(prior, "point", noise=0.6, seed=seed)
    model, x = autoencoder.model, torch.randn(3, D)
    p, decoder = model.prior(), model.decoder
    oracle = LinearGaussian(
        *(t.detach().numpy() for t in (dense(p), p.loc, decoder.W_dec, decoder.b_dec)), noise=0.6
    )
    mean, scale, gap = (torch.as_tensor(v) for v in oracle.best_diagonal(x.numpy()))
    q = dist.Normal(mean, scale.expand_as(mean)).to_event(1)
    kl = ClosedFormELBO().site_terms(model, FixedGuide(q), x)["z"]
    reconstruction = expected_log_likelihood(model, x, mean, scale)
    exact = torch.as_tensor(oracle.log_marginal(x.numpy()))
    torch.testing.assert_close(reconstruction - kl + gap, exact, rtol=1e-10, atol=1e-10)


@given(st.integers(0, 2**31), st.sampled_from(["cholesky", "graph", "shifted", "blocks"]))
def test_the_exact_posterior_has_no_gap(seed, prior):
    """A full-covariance guide at the true posterior: ELBO = log p(x), row by row."""
    autoencoder = pair(prior, "point", noise=0.6, seed=seed)
    model, x = autoencoder.model, torch.randn(3, D)
    p, decoder = model.prior(), model.decoder
    oracle = LinearGaussian(
        *(t.detach().numpy() for t in (dense(p), p.loc, decoder.W_dec, decoder.b_dec)), noise=0.6
    )
    mean = torch.as_tensor(oracle.posterior_mean(x.numpy()))
    factor = torch.as_tensor(np.linalg.cholesky(np.linalg.inv(oracle.posterior_precision())))
    q = dist.MultivariateNormal(mean, scale_tril=factor.expand(3, K, K))
    kl = ClosedFormELBO().site_terms(model, FixedGuide(q), x)["z"]
    reconstruction = expected_log_likelihood(model, x, mean, factor)
    exact = torch.as_tensor(oracle.log_marginal(x.numpy()))
    torch.testing.assert_close(reconstruction - kl, exact, rtol=1e-10, atol=1e-10)


class FixedGuide(nn.Module):
    """``z ~ q`` whatever the rows say."""

    def __init__(self, q):
        super().__init__()
        self.q = q

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", self.q)


def dense(p):
    """Λ by polarisation of its quadratic form."""
    eye = torch.eye(K)
    norm = p.precision.quadratic(eye)
    return (p.precision.quadratic(eye[:, None] + eye) - norm[:, None] - norm) / 2


def expected_log_likelihood(model, x, mean, scale):
    """``E_q log p(x | z)``: quadratic in z, so 2K points at distance √K take it exactly.

    ``scale`` holds standard deviations (K,), or a factor (K, K) of the covariance.
    """
    columns = scale.mT if scale.dim() == 2 else scale.diag()
    steps = K**0.5 * torch.cat([columns, -columns])
    points = (mean + steps[:, None]).flatten(0, 1)
    conditioned = poutine.condition(model, data={"z": points})
    trace = poutine.trace(conditioned).get_trace(x.repeat(2 * K, 1))
    trace.compute_log_prob(lambda name, _: name == "x")
    return trace.nodes["x"]["log_prob"].view(2 * K, len(x)).mean(0)


@given(st.integers(0, 2**31))
def test_no_elbo_exceeds_the_log_marginal(seed):
    autoencoder = pair("cholesky", "point", noise=0.6, seed=seed)
    model, x = autoencoder.model, torch.randn(1, D)
    p, decoder = model.prior(), model.decoder
    oracle = LinearGaussian(
        *(t.detach().numpy() for t in (dense(p), p.loc, decoder.W_dec, decoder.b_dec)), noise=0.6
    )
    mean, scale = torch.randn(1, K), torch.rand(K) + 0.01
    q = dist.Normal(mean, scale.expand_as(mean)).to_event(1)
    reconstruction = expected_log_likelihood(model, x, mean, scale)
    elbo = reconstruction - torch.distributions.kl_divergence(q, p)
    exact = oracle.log_marginal(x.numpy())
    assert elbo.item() <= exact.item() * (1 - np.sign(exact.item()) * 1e-10)


PENALTIES = {
    "laplace": (lambda: LaplacePrior(K, scale=0.4), lambda z: z.abs().sum(-1) / 0.4),
    "gaussian": (lambda: IsotropicPrior(K, scale=0.5), lambda z: z.square().sum(-1) / (2 * 0.25)),
}


@pytest.mark.parametrize("name", [*PENALTIES, "graph"])
def test_a_points_elbo_is_the_penalised_loss(name):
    """Value up to a constant of the prior, and all gradients: no second code path."""
    torch.manual_seed(0)
    if name == "graph":
        from pairs import ring

        dense = torch.as_tensor(ring().laplacian().toarray())
        prior = GraphLaplacianPrior(ring(), ridge=0.3, strength=1.7)

        def penalty(z):
            return 0.15 * z.square().sum(-1) + 0.85 * torch.einsum("bi,ij,bj->b", z, dense, z)
    else:
        prior, penalty = PENALTIES[name][0](), PENALTIES[name][1]
    sigma, decoder, encoder = 0.3, LinearDecoder(K, D), LinearEncoder(D, K)
    model = SparseAutoencoder(decoder, prior, noise=sigma)
    objective = ClosedFormELBO()(model, AmortizedGuide(ReLUPosterior(encoder)))
    x, leaves = torch.randn(9, D), [*decoder.parameters(), *encoder.parameters()]

    codes = (x @ encoder.W_enc + encoder.b_enc).relu()
    error = (x - codes @ decoder.W_dec - decoder.b_dec).square().sum(-1)
    by_hand = (error / (2 * sigma**2) + penalty(codes)).sum()

    constant = -9 * (prior().log_prob(torch.zeros(K)) - D * np.log(sigma * np.sqrt(2 * np.pi)))
    torch.testing.assert_close(objective(x) - constant, by_hand)
    ours, theirs = (torch.autograd.grad(loss, leaves) for loss in (objective(x), by_hand))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference)


@each_pair
def test_scale_latents_scales_both_sides(prior, posterior):
    autoencoder, x = pair(prior, posterior), torch.randn(7, D)
    model, guide = autoencoder.model, autoencoder.guide
    torch.manual_seed(1)
    terms = ClosedFormELBO().terms(model, guide, x)
    for elbo in (ClosedFormELBO(), TraceMeanField_ELBO()):
        torch.manual_seed(1)
        with scale_latents(0.25):
            scaled = elbo(model, guide)(x)
        torch.testing.assert_close(scaled, terms["x"] + 0.25 * terms["z"])
    torch.manual_seed(1)
    with scale_latents(0.25, sites={"another"}):
        torch.testing.assert_close(ClosedFormELBO()(model, guide)(x), sum(terms.values()))


def test_mask_drops_rows():
    autoencoder, x, valid = pair("cholesky", "point"), torch.randn(7, D), torch.arange(7) < 5
    objective = ClosedFormELBO()(autoencoder.model, autoencoder.guide)
    short = objective(x[:5])
    with poutine.mask(mask=valid):
        torch.testing.assert_close(objective(x), short)


def test_free_bits_hold_the_kl_up_and_stop_its_gradient():
    autoencoder, x = pair(), torch.randn(7, D)
    model, guide = autoencoder.model, autoencoder.guide
    kl = ClosedFormELBO().terms(model, guide, x)["z"].item() / 7
    torch.testing.assert_close(
        FreeBitsELBO(kl - 0.1).terms(model, guide, x)["z"], torch.tensor(7 * kl)
    )
    held = FreeBitsELBO(kl + 0.1).terms(model, guide, x)["z"]
    torch.testing.assert_close(held, torch.tensor(7 * (kl + 0.1)))
    leaves = [model.prior.strict_lower, guide.posterior.encoder.W_enc]
    assert not any(gradient.any() for gradient in torch.autograd.grad(held, leaves))


def test_free_bits_do_not_count_masked_rows():
    autoencoder, x = pair(posterior="point"), torch.randn(7, D)
    objective = FreeBitsELBO(1e-3)(autoencoder.model, autoencoder.guide)
    padded = torch.cat([x, 1e3 * torch.ones(2, D)])
    with poutine.mask(mask=torch.arange(9) < 7):
        masked = objective(padded)
    torch.testing.assert_close(masked, objective(x))


def test_free_bits_are_per_replica():
    pairs, x = [pair(posterior="point", seed=s) for s in range(3)], torch.randn(7, D)
    together, elbo = stack(pairs), FreeBitsELBO(10.0)
    terms = elbo.site_terms(together.model, together.guide, x)["z"].sum(-1)
    alone = [elbo.terms(p.model, p.guide, x)["z"] for p in pairs]
    torch.testing.assert_close(terms, torch.stack(alone))


class LopsidedGuide(nn.Module):
    """Samples these sites, which may not be the model's."""

    def __init__(self, *names):
        super().__init__()
        self.names = names

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            for name in self.names:
                pyro.sample(name, dist.Normal(torch.zeros(K), 1.0).to_event(1))


def test_discrete_guides_are_refused():
    """Their draws carry no gradient; a closed KL alone would train them wrongly."""

    def model(x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(D)).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    logits = torch.zeros(D, requires_grad=True)

    def guide(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits).to_event(1))

    with pytest.raises(VsaeError) as caught:
        ClosedFormELBO().differentiable_loss(model, guide, torch.randn(3, D))
    assert caught.value.code == "elbo.not_reparameterized"


def test_a_top_down_guide_is_unbiased_against_trace_elbo():
    """A two-level Gaussian ladder: mean of many one-draw estimates, both ways; z < 4.5."""
    scale = torch.tensor(0.7)

    def model(x):
        with pyro.plate("rows", len(x)):
            top = pyro.sample("top", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            low = pyro.sample("low", dist.Normal(0.8 * top, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(low, 0.3).to_event(1), obs=x)

    class TopDown(GuideMessenger):
        def get_posterior(self, name, prior):
            (x,) = self.args_kwargs[0]
            prior = prior.base_dist
            return dist.Normal((prior.loc + x) / 2, scale * prior.scale).to_event(1)

    x, n = torch.randn(4, D), 3000
    estimates = {}
    for elbo in (ClosedFormELBO(), Trace_ELBO()):
        guide = TopDown(model)
        drawn = torch.tensor([float(elbo.differentiable_loss(model, guide, x)) for _ in range(n)])
        estimates[elbo] = drawn.mean(), drawn.var() / n
    (ours, ours_error), (theirs, their_error) = estimates.values()
    assert (ours - theirs).abs() < 4.5 * (ours_error + their_error).sqrt()


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["z_typo"], "elbo.missing_site"),
        ([], "elbo.missing_site"),
        (["z", "more"], "elbo.stray_site"),
        (["z", "z"], "elbo.duplicate_site"),
    ],
)
def test_unmatched_sites_are_named(names, code):
    with pytest.raises(ValueError, match="site") as caught:
        ClosedFormELBO()(pair().model, LopsidedGuide(*names))(torch.randn(3, D))
    assert caught.value.code == code


def test_a_kl_without_a_closed_form_raises():
    model = SparseAutoencoder(LinearDecoder(K, D), CholeskyPrior(K), noise=0.5)

    class StudentGuide(nn.Module):
        def forward(self, x):
            with pyro.plate("rows", len(x)):
                pyro.sample("z", dist.StudentT(3.0, torch.zeros(K), 1.0).to_event(1))

    with pytest.raises(NotImplementedError) as caught:
        ClosedFormELBO()(model, StudentGuide())(torch.randn(3, D))
    assert caught.value.code == "elbo.no_kl"


def test_vectorised_particles_are_refused():
    with pytest.raises(ValueError, match="vectorize_particles") as caught:
        ClosedFormELBO(num_particles=2, vectorize_particles=True)(pair().model, pair().guide)(
            torch.randn(3, D)
        )
    assert caught.value.code == "elbo.vectorized"


@pytest.mark.parametrize(("prior", "posterior"), [p for p in PAIRS if p[0] != "product"])
def test_predictive_draws_every_site(prior, posterior):
    autoencoder, x = pair(prior, posterior), torch.randn(7, D)
    drawn = Predictive(autoencoder.model, guide=autoencoder.guide, num_samples=2)(x)
    assert drawn["z"].shape == (2, 7, K)


def test_the_decoders_input_is_noisy():
    """Two noise seeds, two inputs of the decoder; a point posterior has none."""
    x = torch.randn(5, D)
    for posterior, differs in (("gaussian", True), ("full", True), ("point", False)):
        autoencoder, seen = pair("cholesky", posterior), []
        hook = autoencoder.model.decoder.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0].detach())
        )
        for seed in (1, 2):
            torch.manual_seed(seed)
            ClosedFormELBO().terms(autoencoder.model, autoencoder.guide, x)
        hook.remove()
        assert torch.equal(*seen) is not differs


def test_elbo_in_raw_units_does_not_depend_on_the_normaliser():
    """The change of variables is exact: σ in raw units is σ times the scale."""
    from vsae import AffineNormalizer

    x = 7 * torch.randn(50, D) + 3
    raw = pair("cholesky", "point", noise=2.0)
    normalizer = AffineNormalizer(torch.zeros(D), 4.0)
    scaled = pair("cholesky", "point", noise=0.5)
    scaled.load_state_dict(raw.state_dict() | {"model.noise.scale": torch.tensor(0.5)})
    scaled.normalizer = normalizer
    with torch.no_grad():
        scaled.model.decoder.b_dec /= 4
        scaled.guide.posterior.encoder.W_enc *= 4  # the same code of the same raw activation
        scaled.model.decoder.W_dec /= 4
    torch.testing.assert_close(raw.elbo(x), scaled.elbo(x))


def test_tied_weights_share_and_train():
    autoencoder, x = tied(), torch.randn(7, D)
    assert len(list(autoencoder.parameters())) == 4  # W_dec, b_dec, b_enc, noise
    loss = -autoencoder.elbo(x)
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in autoencoder.parameters())
    codes = ((x - autoencoder.b_dec) @ autoencoder.W_dec.mT + autoencoder.b_enc).relu()
    torch.testing.assert_close(autoencoder.encode(x), codes)


def test_collapse_threshold_of_the_linear_model():
    """pPCA with the gauge off: a latent survives iff its eigenvalue exceeds σ² (β-VAE: βσ²)."""
    torch.manual_seed(0)
    variances = torch.tensor([4.0, 2.0, 0.6, 0.3])
    x = torch.randn(4000, 4)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T * variances.sqrt()
    from vsae import FreeDecoder, GaussianPosterior

    for beta in (1.0, 3.0):
        model = SparseAutoencoder(FreeDecoder(4, 4), IsotropicPrior(4), noise=0.4**0.5)
        guide = AmortizedGuide(GaussianPosterior(LinearEncoder(4, 8)))
        autoencoder = Autoencoder(model, guide)
        optimizer = torch.optim.Adam(autoencoder.parameters(), lr=0.02)
        for step in range(1500):
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 1500)
            optimizer.zero_grad()
            with scale_latents(beta):
                loss = ClosedFormELBO()(model, guide)(x[torch.randint(4000, (256,))]) / 256
            loss.backward()
            optimizer.step()
        spectrum = torch.linalg.svdvals(model.decoder.W_dec.detach()).square()
        expected = (variances - beta * 0.4).clamp(min=0)
        alive = expected > 0
        # 1 500 noisy steps: within 15 % of the exact optimum, and dead ones near 0
        torch.testing.assert_close(spectrum[alive], expected[alive], rtol=0.15, atol=0.02)
        assert (spectrum[~alive] < 0.02).all()
