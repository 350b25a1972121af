"""Split and merge: planted optima are left, others are not, and the ELBO never falls."""

import pytest
import torch
from torch.nn.functional import normalize

from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
from vsae import (
    AmortizedGuide,
    Autoencoder,
    ExpectedELBO,
    FittedSpikeSlabPrior,
    FixedNoise,
    MeanFieldPosterior,
    RecoveryRecipe,
    RowNoise,
    SparseAutoencoder,
    l1_autoencoder,
    split_and_merge,
)
from vsae.decoders import LinearDecoder
from vsae.elbo import per_row
from vsae.errors import VsaeError
from vsae.recipes import recovery

D, ROWS, SIZE, SPREAD = 10, 4_000, 4.0, 0.4


def axes():
    """Ten orthonormal features."""
    return torch.linalg.qr(torch.randn(D, D)).Q.mT


def rows_of(fires, features):
    amplitudes = SIZE + SPREAD * torch.randn(fires.shape)
    return (fires * amplitudes) @ features[: fires.shape[1]]


def pair_of(atoms, rates, sizes):
    """Under a fitted slab whose moments are those of the given rates and amplitudes."""
    latents = len(atoms)
    prior = SpikeSlabPrior(BernoulliPrior(latents, rate=0.1), TruncatedNormalPrior(latents))
    prior = FittedSpikeSlabPrior(prior, pooling=0.0)
    rates, sizes = torch.tensor(rates), torch.tensor(sizes)
    prior.follow(torch.stack([rates, rates * sizes, rates * sizes**2 * 1.01]))
    decoder = LinearDecoder(latents, D)
    with torch.no_grad():
        decoder.W_dec.copy_(normalize(atoms, dim=-1))
    noise = RowNoise(FixedNoise(0.05), shape=D / 2)  # as the recipe has it
    model = SparseAutoencoder(decoder, prior, noise=noise)
    guide = MeanFieldPosterior(decoder, prior, noise, iterations=30, damping=0.3)
    return Autoencoder(model, AmortizedGuide(guide))


def bound(pair, x):
    """The ELBO per row in expectation: no draw, nothing of chance."""
    with torch.no_grad(), pair.evaluating():
        terms = ExpectedELBO().site_terms(pair.model, pair.guide, pair.normalizer(x))
        return -float(sum(per_row(terms, len(x)).values()))


def state(pair):
    return {name: value.clone() for name, value in pair.state_dict().items()}


def halved():
    """Six features, the first of them two latents that fire together."""
    features, fires = axes(), torch.rand(ROWS, 6) < 0.2
    aside = 0.6 * features[9]
    atoms = torch.cat([features[:6], features[:1] - aside])
    atoms[0] += aside
    length = float(atoms[0].norm())  # two of half the length make the feature
    sizes = [SIZE / 2 * length, *(SIZE,) * 5, SIZE / 2 * length]
    return features, rows_of(fires, features), pair_of(atoms, [0.2] * 7, sizes)


def contrasted():
    """A parent that has taken in one child, the other child written as a difference to it."""
    features, x = axes(), None
    parent, first = torch.rand(ROWS) < 0.3, torch.rand(ROWS) < 0.5
    fires = torch.stack([parent, parent & first, parent & ~first, torch.rand(ROWS) < 0.2], -1)
    x = rows_of(fires, features)
    c, one, other, alone = features[:4]
    atoms = torch.stack([c + one, other - one, alone, features[8]])
    rates, sizes = [0.3, 0.15, 0.2, 1e-5], [SIZE * 2**0.5, SIZE * 2**0.5, SIZE, SIZE]
    return features, x, pair_of(atoms, rates, sizes)


def test_a_feature_that_is_two_latents_becomes_one():
    features, x, pair = halved()
    before = bound(pair, x)
    found = split_and_merge(pair, x, rows=ROWS)
    assert found.merged == ((0, 6),)
    assert float(pair.W_dec[0].detach() @ features[0]) > 0.999
    assert bound(pair, x) > before + 0.1
    rates = pair.model.prior.moments[0]
    assert rates[6] < 1e-4 < rates[0]
    torch.testing.assert_close(pair.model.prior.moments[1, 0] / rates[0], torch.tensor(SIZE))


def test_a_latent_that_is_two_features_becomes_both_and_its_sibling_is_told_apart():
    features, x, pair = contrasted()
    before = bound(pair, x)
    assert (pair.W_dec[:3] @ features[:3].mT).abs().amax(0).max() < 0.75
    found = split_and_merge(pair, x, rows=ROWS)
    assert found.merged == ()
    assert found.split == ((0, 3),)
    best = (pair.W_dec @ features[:4].mT).amax(0)
    assert best.min() > 0.95, best
    rates, firsts, _ = pair.model.prior.moments[:, [0, 3]]
    torch.testing.assert_close(firsts / rates, torch.full((2,), SIZE))
    assert bound(pair, x) > before + 1


def test_at_the_truth_nothing_moves():
    features, fires = axes(), torch.rand(ROWS, 6) < 0.2
    pair = pair_of(torch.cat([features[:6], features[9:]]), [*(0.2,) * 6, 1e-5], [SIZE] * 7)
    before = state(pair)
    found = split_and_merge(pair, rows_of(fires, features), rows=ROWS)
    assert found.merged == found.split == ()
    after = state(pair)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("seed", range(3))
def test_judged_by_all_rows_the_bound_never_falls(seed):
    torch.manual_seed(seed)
    x = torch.randn(300, D).relu() + 0.1 * torch.randn(300, D)
    pair = pair_of(torch.randn(14, D), [0.1] * 12 + [1e-5] * 2, [1.0] * 14)
    before = bound(pair, x)
    found = split_and_merge(pair, x, seed=seed, rows=300)
    assert found.split  # something moved
    assert bound(pair, x) > before


def test_a_move_is_a_function_of_its_seed_and_leaves_the_mode():
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        _, x, pair = contrasted()
        pair.train()
        split_and_merge(pair, x, seed=3, rows=50)
        assert pair.training
        runs.append(pair.W_dec.detach())
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("pair", "rows", "code"),
    [
        (lambda: l1_autoencoder(D, 8, l1=0.1), 50, "moves.pair"),
        (lambda: contrasted()[2], 5, "moves.rows"),
    ],
)
def test_refusals(pair, rows, code):
    with pytest.raises(VsaeError) as caught:
        split_and_merge(pair(), torch.randn(rows, D))
    assert caught.value.code == code


def test_rows_that_are_not_finite_are_refused_before_anything_moves():
    _, x, pair = contrasted()
    x[7, 2] = torch.nan
    with pytest.raises(VsaeError) as caught:
        split_and_merge(pair, x)
    assert caught.value.code == "data.nonfinite"


def test_rounds_of_the_recipe_move_latents_and_train_on(monkeypatch):
    asked = []

    def moves(pair, rows, *, seed):
        asked.append((pair.model.decoder, len(rows), seed))

    monkeypatch.setattr(recovery, "split_and_merge", moves)
    x = rows_of(torch.rand(2_000, 6) < 0.2, axes())
    sizes = {"l1_rows": 4_000, "slab_rows": 4_000, "final_rows": 2_000, "round_rows": 2_000}
    recipe = RecoveryRecipe(**sizes, batch_size=100, rounds=2)
    steps = []
    for run in recipe.phases(x, latents=7):
        run.run(every=10, progress=False)
        steps.append(run.steps)
    assert steps == [40, 40, 20, 20, 20]
    one = run.autoencoder.model.decoder
    assert asked == [(one, 2_000, 0), (one, 2_000, 1)]
