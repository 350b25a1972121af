"""Why latents die of a KL on codes that are not used, as docs/models/variational_topk.md says."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from toys.reproduce.collapse import ARMS, Problem, best_ratio, collapse, copula, gaussian
from vsae import ClosedFormELBO
from vsae.presets.variational_topk import (
    masked_variational_topk_autoencoder,
    shrunk_topk_autoencoder,
)

NONE, SELECTED, EVERYTHING, NOISY = ARMS
D, K, ALPHA = 6, 30, 0.5


@pytest.mark.parametrize("make", [shrunk_topk_autoencoder, masked_variational_topk_autoencoder])
def test_a_latent_that_wins_no_row_is_shrunk_or_left_alone(make):
    """α times the loss: its gradient is that of α ½ Σ_b μ_b², exactly; or zero."""
    torch.manual_seed(0)
    pair, x = make(D, K, k=2, alpha=ALPHA), torch.randn(4, D)
    encoder = pair.guide.posterior.encoder
    with torch.no_grad():
        encoder.b_enc += 0.1 * torch.randn(K)
    (ALPHA * ClosedFormELBO()(pair.model, pair.guide)(x)).backward()
    losers = ~(pair.encode(x) != 0).any(0)
    mean = encoder(x).detach()
    shrinkage = ALPHA * mean.T @ x if make is shrunk_topk_autoencoder else torch.zeros(K, D)
    assert losers.sum() > K / 2
    torch.testing.assert_close(encoder.W_enc.grad[losers], shrinkage[losers])


def test_only_the_penalty_on_all_kills():
    torch.set_default_dtype(torch.float32)
    problem = gaussian()
    small = Problem(problem.name, problem.train[:8192], problem.test[:2048])
    arms = (NONE, SELECTED, EVERYTHING)
    rows = list(collapse([small], ks=(2,), arms=arms, alpha=3.0, latents=64, steps=400))
    alive = {row["arm"]: row["alive"] for row in rows}
    assert alive[NONE.name] == alive[SELECTED.name] == 64
    assert alive[EVERYTHING.name] < 0.8 * 64  # so far: 400 steps are not the end of it
    row = rows[-1]
    assert row["rms pre-activation, dead"] < 0.5 * row["rms pre-activation, living"]
    assert row["alive / k"] == pytest.approx(row["alive"] / 2)


def test_rows_are_a_function_of_the_seed():
    torch.set_default_dtype(torch.float32)
    problem = copula()
    small = Problem(problem.name, problem.train[:1024], problem.test[:512])
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = list(collapse([small], ks=(2,), latents=16, steps=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == list(collapse([small], ks=(2,), latents=16, steps=3))
    assert [row["arm"] for row in first] == [arm.name for arm in ARMS]


@pytest.mark.parametrize("alpha", [0.3, 3.0])
def test_best_ratio_is_the_optimum_of_the_model(alpha):
    """By quadrature of the truncated energy, on a grid."""
    u = np.linspace(0, 12, 200_001)
    tail = np.cumsum((u**2 * norm.pdf(u))[::-1])[::-1] * 2 * (u[1] - u[0])
    share = 2 * norm.sf(u)
    keep = share > 1e-6
    gain = tail[keep] ** 2 / (share[keep] * (tail[keep] + alpha / 2))
    assert best_ratio(alpha) == pytest.approx(1 / share[keep][gain.argmax()], rel=0.01)
    assert best_ratio(alpha) > best_ratio(2 * alpha)


@pytest.mark.slow
def test_the_living_are_in_proportion_to_k():
    """Gaussian noise, α = 3, k small against d: a constant times k, under the optimum's."""
    torch.set_default_dtype(torch.float32)
    rows = list(collapse([gaussian()], ks=(2, 4), arms=(EVERYTHING,), alpha=3.0))
    ratios = [row["alive / k"] for row in rows]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.15)
    assert all(0.4 * best_ratio(3.0) < ratio < best_ratio(3.0) for ratio in ratios)
