"""One learned scale per latent: where its gradient vanishes, what it prunes, its limits."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from priors import IsotropicPrior, SlabPrior, restrict
from priors.ard import ARDPrior
from priors.errors import ConfigError
from priors.replicas import stack
from vsae import fit, variational_autoencoder

K, ROWS = 7, 50


def posterior():
    """A diagonal Gaussian per row, of another size for every latent."""
    size = torch.logspace(-1, 1, K)
    return Normal(size * torch.randn(ROWS, K), size * torch.rand(ROWS, K) + 0.01)


def slopes(prior, q):
    kl = kl_divergence(Independent(q, 1), prior()).sum()
    return torch.autograd.grad(kl, prior.log_scale)[0]


@pytest.mark.parametrize("loc", [0.0, -0.8])
def test_the_fixed_point_is_the_mean_second_moment(loc):
    """ML-II: the KL's gradient in every scale is 0 at mean((μ - m)² + s²), and points there."""
    q = posterior()
    best = ((q.loc - loc) ** 2 + q.scale**2).mean(0).sqrt()
    for factor, sign in ((1.0, 0), (1.1, 1), (1 / 1.1, -1)):
        prior = ARDPrior(K, loc=loc)
        prior.log_scale.data = (factor * best).log()
        found = slopes(prior, q)
        if sign:
            assert (found.sign() == sign).all()
        else:  # ROWS terms of either sign and of size about 1 cancel
            assert found.abs().max() < 1e-12 * ROWS


def test_equal_scales_are_the_isotropic_prior():
    z, q = torch.randn(ROWS, K), Independent(posterior(), 1)
    ard, isotropic = ARDPrior(K, scale=0.6, loc=0.2)(), IsotropicPrior(K, scale=0.6, loc=0.2)()
    torch.testing.assert_close(ard.log_prob(z), isotropic.log_prob(z))
    torch.testing.assert_close(kl_divergence(q, ard), kl_divergence(q, isotropic))


@pytest.mark.parametrize("loc", [0.0, 0.4])
def test_codes_in_slots_have_the_dense_density_and_gradient(loc):
    prior = ARDPrior(K, loc=loc)
    prior.log_scale.data = torch.randn(K)
    support = torch.stack([torch.randperm(K)[:3] for _ in range(ROWS)])
    values = torch.randn(ROWS, 3)
    dense = prior().log_prob(torch.zeros(ROWS, K).scatter(1, support, values)).sum()
    sparse = restrict(prior(), support).log_prob(values).sum()
    torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)
    found, wanted = (torch.autograd.grad(v, prior.log_scale)[0] for v in (sparse, dense))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_stack_is_its_members():
    members = [ARDPrior(K, scale=s) for s in (0.3, 1.0, 2.0)]
    z = torch.randn(3, ROWS, K)
    together = stack(members)()
    assert together.batch_shape == (3, 1)
    for r, prior in enumerate(members):
        torch.testing.assert_close(together.log_prob(z)[r], prior().log_prob(z[r]))


def test_under_a_point_posterior_a_silent_latent_runs_away_and_under_a_slab_it_rests():
    support, z = torch.randint(2, (ROWS, 1)), torch.randn(ROWS, 1)  # of two latents in seven
    dense, slab = ARDPrior(K), SlabPrior(ARDPrior(K))
    for prior, scales in ((dense, dense.log_scale), (slab, slab.prior.log_scale)):
        loss = -restrict(prior(), support).log_prob(z).sum()
        (slope,) = torch.autograd.grad(loss, scales)
        assert (slope[:2] != 0).all()
        expected = ROWS if prior is dense else 0.0  # d/d log s of log s, per row, whatever s is
        torch.testing.assert_close(slope[2:], torch.full((K - 2,), float(expected)))


def test_a_slab_learns_every_latents_own_amplitude():
    support = torch.randint(K, (400, 1))
    z = torch.randn(400, 1) * torch.logspace(-1, 1, K)[support]
    slab = SlabPrior(ARDPrior(K))
    best = torch.stack([z[support == k].square().mean().sqrt() for k in range(K)])
    slab.prior.log_scale.data = best.log()
    loss = -restrict(slab(), support).log_prob(z).sum()
    (slope,) = torch.autograd.grad(loss, slab.prior.log_scale)
    assert slope.abs().max() < 1e-12 * 400


def test_latents_that_are_not_needed_are_pruned():
    """Two factors, six latents: ARD keeps two scales near theirs, and shrinks the others."""
    factors = torch.randn(2000, 2) * torch.tensor([2.0, 1.0])
    x = factors @ torch.linalg.qr(torch.randn(5, 2)).Q.mT + 0.1 * torch.randn(2000, 5)
    prior = ARDPrior(6)
    pair = variational_autoencoder(5, prior, noise=0.2)
    fit(pair, x, steps=800, batch_size=200, lr=0.03).run(progress=False)
    scales, order = prior.log_scale.detach().exp().sort(descending=True)
    assert scales[2] < 0.2 * scales[1], scales
    signal = pair.posterior(x)["z"].mean.var(0)[order]
    assert signal[2:].sum() < 1e-3 * signal.sum()


def test_impossible_settings_are_refused():
    for settings, code in (
        ({"dim": 0}, "prior.bad_dim"),
        ({"dim": 3, "scale": 0.0}, "prior.bad_scale"),
        ({"dim": 3, "loc": torch.zeros(2)}, "prior.bad_loc"),
    ):
        with pytest.raises(ConfigError) as raised:
            ARDPrior(**settings)
        assert raised.value.code == code
