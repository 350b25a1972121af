"""Resampling: what changes and what does not, by which law, and that the dead live after it."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from priors import IsotropicPrior
from priors.replicas import stack
from vsae import (
    AffineNormalizer,
    fit,
    l1_autoencoder,
    topk_autoencoder,
    variational_autoencoder,
    with_auxk,
)
from vsae.errors import ConfigError, DataError
from vsae.resampling import draw, never_active, resample

K, D, ROWS, WIDTH = 24, 5, 60, 2
DEAD = torch.tensor([2, 3, 11, 20])
ALIVE = torch.tensor([i for i in range(K) if i not in DEAD])


def data(rows=ROWS):
    return torch.randn(rows, D) * 1.7 + 0.4


def topk(x):
    return topk_autoencoder(D, K, k=WIDTH, normalizer=AffineNormalizer.fit(x))


def l1(x):
    return l1_autoencoder(D, K, l1=0.2, normalizer=AffineNormalizer.fit(x))


def variational(x):
    return variational_autoencoder(D, IsotropicPrior(K, learnable=True), noise=0.4)


def trained(build):
    """A pair a few steps into its training, its optimiser and its data."""
    x = data()
    pair = build(x)
    run = fit(pair, x, steps=4, batch_size=20, lr=0.03)
    list(run)
    return pair, run.optimizer, x


def by_latent(name, tensor):
    """With a row per latent."""
    return tensor.mT if name.endswith("W_enc") and tensor.shape[0] == D else tensor


def everything(pair, optimizer):
    """Copies of all parameters and moments, by name."""
    found = {}
    for name, p in pair.named_parameters():
        kept = {"": p} | {m: optimizer.state[p][m] for m in ("exp_avg", "exp_avg_sq")}
        found |= {(name, m): by_latent(name, t).detach().clone() for m, t in kept.items()}
    return found


each_encoder = pytest.mark.parametrize("build", [topk, l1, variational])


@each_encoder
def test_dead_latents_point_at_residuals_of_the_rows_drawn(build):
    pair, optimizer, x = trained(build)
    residual = pair.normalizer(x) - pair.normalizer(pair(x))
    norms = pair.W_enc.mT[ALIVE].norm(dim=-1)
    rows = resample(pair, optimizer, x, DEAD, generator=torch.Generator().manual_seed(0))
    assert rows.shape == DEAD.shape
    assert len(set(rows.tolist())) == len(rows)
    atoms, weights = pair.W_dec[DEAD], pair.W_enc.mT[DEAD]
    wanted = residual[rows] / residual[rows].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(atoms, wanted)
    torch.testing.assert_close(weights, wanted * 0.2 * norms.mean())
    at_centre = pair.normalizer.inverse(pair.b_dec)  # a row that is the decoder's bias
    scores = pair.guide.posterior.encoder(pair.normalizer(at_centre)[None])[0, DEAD]
    torch.testing.assert_close(scores, torch.zeros(len(DEAD)), atol=1e-12, rtol=0)


@each_encoder
def test_nothing_else_changes_and_only_their_moments_are_forgotten(build):
    pair, optimizer, x = trained(build)
    before = everything(pair, optimizer)
    squares = {n: optimizer.state[p]["exp_avg_sq"].mean() for n, p in pair.named_parameters()}
    resample(pair, optimizer, x, DEAD, generator=torch.Generator().manual_seed(0))
    for (name, moment), now in everything(pair, optimizer).items():
        then = before[name, moment]
        if name.rsplit(".", 1)[-1] not in ("W_dec", "W_enc", "b_enc"):
            assert torch.equal(now, then), (name, moment)
            continue
        others = torch.ones(len(now), dtype=torch.bool).index_fill(0, DEAD, False)
        assert torch.equal(now[others], then[others]), (name, moment)  # posterior scales included
        assert then[DEAD].any(), "else this test shows nothing"
        changed = (now[DEAD] != then[DEAD]).reshape(len(DEAD), -1).any(-1)
        if moment == "exp_avg_sq":  # from zeros, Adam's steps would start larger than any
            torch.testing.assert_close(now[DEAD], squares[name].expand_as(now[DEAD]))
            continue
        assert not now[DEAD].any() if moment else changed.all(), (name, moment)
    for parameter in pair.parameters():
        assert optimizer.state[parameter]["step"] == 4


def test_one_draw_is_proportional_to_the_squared_loss():
    losses = torch.rand(12) + 0.1
    losses[4] = 0.0
    law = np.square(losses.numpy()) / np.square(losses.numpy()).sum()
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(losses, 1, generator).item() for _ in range(6000)]
    counts = np.bincount(drawn, minlength=12)
    assert counts[4] == 0
    kept = law > 0
    assert stats.chisquare(counts[kept], 6000 * law[kept]).pvalue > 1e-3


def test_two_draws_are_one_after_another_without_replacement():
    losses = torch.tensor([0.5, 1.0, 1.5, 2.0])
    p = np.square(losses.numpy()) / np.square(losses.numpy()).sum()
    pairs = list(itertools.permutations(range(4), 2))
    law = np.array([p[i] * p[j] / (1 - p[i]) for i, j in pairs])
    generator = torch.Generator().manual_seed(0)
    drawn = [tuple(draw(losses, 2, generator).tolist()) for _ in range(6000)]
    counts = np.array([drawn.count(pair) for pair in pairs])
    assert counts.sum() == 6000
    assert stats.chisquare(counts, 6000 * law).pvalue > 1e-3


def test_the_rows_of_resample_follow_that_law():
    pair, optimizer, x = trained(topk)
    loss = (pair.normalizer(x) - pair.normalizer(pair(x))).square().sum(-1).detach()
    wanted = draw(loss, len(DEAD), torch.Generator().manual_seed(7))
    rows = resample(pair, optimizer, x, DEAD, generator=torch.Generator().manual_seed(7))
    assert torch.equal(rows, wanted)


def test_the_generator_decides_everything():
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(0)
        pair, optimizer, x = trained(topk)
        state = torch.get_rng_state()
        resample(pair, optimizer, x, DEAD, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.get_rng_state(), state)
        found.append(pair.W_dec.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_without_dead_latents_nothing_happens():
    pair, optimizer, x = trained(topk)
    before = {name: p.clone() for name, p in pair.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert len(resample(pair, optimizer, x, DEAD[:0], generator=generator)) == 0
    assert torch.equal(generator.get_state(), state)
    assert all(torch.equal(p, before[name]) for name, p in pair.state_dict().items())


def test_if_all_are_dead_encoder_rows_have_the_norm_given():
    pair, optimizer, x = trained(topk)
    everyone = torch.arange(K)
    resample(pair, optimizer, x, everyone, generator=torch.Generator(), scale=0.3)
    torch.testing.assert_close(pair.W_enc.norm(dim=0), torch.full((K,), 0.3))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_and_counters(training):
    x = data()
    pair = with_auxk(topk(x), after=10).train(training)
    pair.model.dead.silent_for[:] = 50
    optimizer = torch.optim.SGD(pair.parameters(), lr=0.1, momentum=0.9)
    dead = pair.model.dead()[:7]
    resample(pair, optimizer, x, dead, generator=torch.Generator())
    assert pair.model.dead.silent_for.tolist() == [0] * 7 + [50] * (K - 7)
    assert all(m.training == training for m in pair.modules())


def test_never_active_is_what_the_codes_say():
    x = data(9)
    for pair in (topk(x), l1(x)):
        silent = np.flatnonzero(~(pair.encode(x).detach().numpy() != 0).any(0))
        found = never_active(pair, x)
        assert found.tolist() == silent.tolist()
    assert len(never_active(topk(x), x[:1])) == K - WIDTH


@pytest.mark.parametrize(("scale", "alive"), [(1.0, True), (0.2, False)])
def test_what_auxk_cannot_revive_lives_again_if_it_can_win(scale, alive):
    """TopK selects by size: at a fifth of the others' norm a new latent is never selected."""
    x, pair = data(500), topk_autoencoder(D, K, k=WIDTH)
    with torch.no_grad():
        pair.b_enc[DEAD] = -100.0
    run, generator = fit(pair, x, steps=100, batch_size=50, lr=1e-2), torch.Generator()
    for record in run:
        if record.step == 40:
            dead = never_active(pair, x)
            assert set(DEAD.tolist()) <= set(dead.tolist())
            resample(pair, run.optimizer, x, dead, generator=generator, scale=scale)
    assert bool(set(DEAD.tolist()) & set(never_active(pair, x).tolist())) is not alive


def test_too_few_rows_are_refused():
    pair, optimizer, x = trained(topk)
    before = pair.W_dec.detach().clone()
    with pytest.raises(DataError) as raised:
        resample(pair, optimizer, x[:3], DEAD, generator=torch.Generator())
    assert raised.value.code == "resample.rows"
    with pytest.raises(DataError) as raised:
        draw(torch.tensor([0.0, 0.0, 1.0]), 2, torch.Generator())
    assert raised.value.context == {"rows": 1, "dead": 2}
    assert torch.equal(pair.W_dec, before)


def test_what_has_no_rows_to_write_is_refused():
    x = data()
    deep = l1_autoencoder(D, K, l1=0.2, hidden=7)
    stacked = stack([l1(x), l1(x)])
    for pair, code in ((deep, "resample.encoder"), (stacked, "resample.replicas")):
        optimizer = torch.optim.Adam(pair.parameters())
        with pytest.raises(ConfigError) as raised:
            resample(pair, optimizer, x, DEAD, generator=torch.Generator())
        assert raised.value.code == code


def test_a_latent_that_starts_again_moves_like_the_others():
    """With no second moment but the old step count, Adam would take steps of many times lr."""
    pair, optimizer, x = trained(topk)
    resample(pair, optimizer, x, DEAD, generator=torch.Generator().manual_seed(0), scale=1.0)
    before = pair.W_dec.detach().clone()
    run = fit(pair, x, steps=1, batch_size=len(x), optimizer=optimizer)
    next(iter(run))
    lr = optimizer.param_groups[0]["lr"]
    moved = (pair.W_dec - before).abs().amax(-1) / lr
    assert moved[DEAD].max() < 3 * moved[ALIVE].max()
