"""One update of gates and amplitudes: against quadrature, and in haste against the exact one."""

import pytest
import torch

from priors import TruncatedNormalPrior
from priors.half_line import half_line
from priors.truncated_normal import TruncatedNormal
from vsae.posteriors.mean_field_update import hasty_update, update

NOISES = (0.03, 0.3, 2.0)


def problem(noise):
    """Pulls from far below zero to far above, under slabs near zero and away from it."""
    generator = torch.Generator().manual_seed(0)
    loc = torch.tensor([-0.5, 0.0, 0.3, 1.0, 4.0])
    slab = TruncatedNormalPrior(5)
    with torch.no_grad():
        slab.loc.copy_(loc)
        slab.log_scale.copy_(torch.tensor([0.5, 1.0, 0.1, 0.15, 0.6]).log())
    pull = 3 * torch.randn(400, 5, generator=generator)
    sigma = noise * (1 + torch.rand(400, 1, generator=generator))
    field = torch.tensor([-1.0, -3.0, -5.0, -4.0, -2.0])
    return pull, sigma, field, slab()


@pytest.mark.parametrize("noise", NOISES)
def test_the_exact_update_is_the_posterior_of_one_latent(noise):
    """Against the integral over the amplitude, by a fine grid."""
    pull, sigma, field, prior = problem(noise)
    pull, sigma = pull[:40], sigma[:40]
    found = update(pull, sigma, field, half_line(prior.base_dist))
    grid = torch.cat([torch.logspace(-9, -2, 200_000)[:-1], torch.linspace(0.01, 20, 400_000)])
    grid = grid[:, None]
    for row in range(0, 40, 8):
        u, s = pull[row], sigma[row]
        log = prior.base_dist.log_prob(grid) + (u * grid - grid**2 / 2) / s**2
        top = log.amax(0)
        weight = (log - top).exp()
        mass = torch.trapezoid(weight, grid, dim=0)
        odds = field + top + mass.log()
        mean, square = (torch.trapezoid(weight * grid**n, grid, dim=0) / mass for n in (1, 2))
        torch.testing.assert_close(found.logits[row], odds, rtol=1e-6, atol=1e-6)
        code = odds.sigmoid() * mean
        torch.testing.assert_close(found.moments.code[row], code, rtol=1e-6, atol=1e-9)
        spread = (odds.sigmoid() * square - code**2).sum()
        torch.testing.assert_close(found.moments.spread[row], spread, rtol=1e-5, atol=1e-9)


@pytest.mark.float32
@pytest.mark.parametrize("noise", NOISES)
def test_in_haste_the_moments_are_those_of_the_exact_update(noise):
    """In float32, to a few of its roundings: log-odds are differences of numbers of the size r²."""
    pull, sigma, field, prior = problem(noise)
    exact = update(
        *(v.double() for v in (pull, sigma, field)),
        half_line(TruncatedNormal(prior.base_dist.loc.double(), prior.base_dist.scale.double())),
    )
    rough = hasty_update(pull.clone(), sigma, field, half_line(prior.base_dist))
    ratio, rate = exact.amplitude.ratio, exact.moments.rate
    near = ratio >= -12
    assert bool(near.any())
    assert bool(((rough.rate - rate).abs() <= 1e-6 * (1 + 0.5 * ratio**2))[near].all())
    more = rough.rate.double().logit() - rate.logit()
    assert bool((more >= -0.01)[~near].all())
    assert bool((more <= torch.log(-ratio / 12) + 0.01)[~near].all())
    spread = exact.moments.spread.float()
    # Means and squares are differences of numbers r² as large: 144 roundings at the most.
    torch.testing.assert_close(rough.spread, spread, rtol=1e-3, atol=1e-4)
    code = exact.moments.code.float()
    torch.testing.assert_close(rough.code[near], code[near], rtol=1e-3, atol=1e-4)
