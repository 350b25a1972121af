"""Read-outs of layers against numpy written out, and against encoders whose drive is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from vsae import metrics
from vsae.errors import DataError

seeds = st.integers(0, 2**31)
WIDTHS = (3, 2, 4)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def r_squared(x, mean):
    return 1 - ((x - mean) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()


@given(seeds)
@settings(max_examples=100)
def test_errors_per_neuron_per_row_and_per_layer(seed):
    x, mean = normal(seed, 8, 9), normal(seed + 1, 8, 9)
    a, b = x.numpy(), mean.numpy()
    per_row = np.mean([((r - s) ** 2).sum() for r, s in zip(a, b, strict=True)])
    assert metrics.batch_mse(x, mean).item() == pytest.approx(per_row, rel=1e-13)
    assert metrics.batch_mse(x, mean).item() == pytest.approx(9 * metrics.mse(x, mean).item())
    cuts = np.cumsum(WIDTHS)[:-1]
    layers = [
        r_squared(*pair) for pair in zip(np.split(a, cuts, 1), np.split(b, cuts, 1), strict=True)
    ]
    np.testing.assert_allclose(
        metrics.layer_explained_variance(x, mean, WIDTHS), layers, rtol=1e-12, atol=1e-12
    )
    neurons = [r_squared(a[:, [j]], b[:, [j]]) for j in range(9)]
    np.testing.assert_allclose(
        metrics.neuron_explained_variance(x, mean), neurons, rtol=1e-12, atol=1e-12
    )


@given(seeds)
@settings(max_examples=100)
def test_stacked_and_concatenated_layers_are_one(seed):
    x, mean = normal(seed, 8, 3, 4), normal(seed + 1, 8, 3, 4)
    flat = metrics.layer_explained_variance(x.flatten(1), mean.flatten(1), (4, 4, 4))
    torch.testing.assert_close(metrics.layer_explained_variance(x, mean, (4, 4, 4)), flat)


@given(seeds)
@settings(max_examples=100)
def test_what_a_change_of_units_does(seed):
    """A scale per layer: each layer's stays, the global one is the variance-weighted mean. A scale
    per neuron to variance one: the global one is the mean over neurons."""
    x, mean = normal(seed, 8, 9), normal(seed + 1, 8, 9)
    scale = torch.tensor([0.1, 5.0, 30.0]).repeat_interleave(torch.tensor(WIDTHS))
    before = metrics.layer_explained_variance(x, mean, WIDTHS)
    torch.testing.assert_close(
        metrics.layer_explained_variance(scale * x, scale * mean, WIDTHS), before
    )
    variance = torch.stack([p.var(0).sum() for p in (scale * x).split(WIDTHS, 1)])
    torch.testing.assert_close(
        metrics.explained_variance(scale * x, scale * mean),
        (variance * before).sum() / variance.sum(),
    )
    deviation = x.std(0)
    torch.testing.assert_close(
        metrics.explained_variance(x / deviation, mean / deviation),
        metrics.neuron_explained_variance(x, mean).mean(),
    )


@given(seeds)
@settings(max_examples=100)
def test_the_documents_dead_percent_is_density_and_death_is_not(seed):
    codes = (normal(seed, 30, 12) - 1).relu() * (normal(seed + 1, 12) > 0)
    frequency = (codes.numpy() > 0).mean(0)
    told = metrics.document_dead_percent(codes).item()
    assert told == pytest.approx(100 * (1 - frequency.mean()), rel=1e-13)
    assert metrics.density(codes).item() == pytest.approx(frequency.mean(), rel=1e-13, abs=1e-15)
    dead = metrics.dead_fraction(codes).item()
    assert dead == pytest.approx((frequency == 0).mean())
    assert told >= 100 * dead - 1e-9
    live = frequency[frequency > 0]
    assert (told > 100 * dead + 1e-9) == bool((live < 1).any())


def test_the_documents_table_contradicts_itself():
    """Had its Dead % (92.83, beside a median frequency of .009) been death, the median would be 0;
    a code of its mean frequency in which every latent fires gives all its numbers."""
    frequency = torch.tensor([0.009] * 51 + [0.1376] * 49)
    codes = (torch.arange(10_000)[:, None] < 10_000 * frequency).double()
    found = metrics.activity_summary(codes)
    assert metrics.document_dead_percent(codes).item() == pytest.approx(92.8, abs=0.05)
    assert found.frequency_median == pytest.approx(0.009)
    assert found.dead == 0


@given(seeds, st.integers(1, 9))
@settings(max_examples=100)
def test_activity_summary(seed, latents):
    codes = (normal(seed, 20, latents) - 0.5).relu() * (normal(seed + 1, latents) > 0)
    c = codes.numpy()
    frequency = (c > 0).mean(0)
    found = metrics.activity_summary(codes)
    assert found.l0 == pytest.approx((c > 0).sum(1).mean())
    assert found.density == pytest.approx(frequency.mean())
    assert found.dead == pytest.approx((frequency == 0).mean())
    assert found.frequency_median == pytest.approx(np.median(frequency))
    assert found.value_over_all == pytest.approx(c.mean())
    if not c.any():
        assert math.isnan(found.value_median)
        assert math.isnan(found.value_mean)
        assert math.isnan(found.value_over_active)
        return
    values = np.array([k[k > 0].mean() for k in c.T if any(k > 0)])
    assert found.value_median == pytest.approx(np.median(values))
    assert found.value_mean == pytest.approx(values.mean())
    assert found.value_over_active == pytest.approx(c[c > 0].mean())


@given(seeds)
@settings(max_examples=100)
def test_norms_and_cosines_of_layers(seed):
    atoms = normal(seed, 5, 9)
    parts = np.split(atoms.numpy(), np.cumsum(WIDTHS)[:-1], axis=1)
    norms = np.stack([np.linalg.norm(p, axis=1) for p in parts], 1)
    np.testing.assert_allclose(
        metrics.layer_norm_shares(atoms, WIDTHS), norms / norms.sum(1, keepdims=True), rtol=1e-12
    )
    np.testing.assert_allclose(
        metrics.relative_decoder_norm(atoms[:, :5], (3, 2)),
        norms[:, 1] / (norms[:, 0] + norms[:, 1]),
        rtol=1e-12,
    )
    even = atoms.view(5, 3, 3).numpy()
    unit = even / np.linalg.norm(even, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        metrics.layer_cosines(atoms, (3, 3, 3)), unit @ unit.swapaxes(1, 2), atol=1e-13
    )
    # blind to a latent's scale and sign
    torch.testing.assert_close(
        metrics.layer_norm_shares(-7 * atoms, WIDTHS), metrics.layer_norm_shares(atoms, WIDTHS)
    )


def test_a_rotation_is_read_off_the_cosines():
    angle = 0.3
    turned = torch.stack(
        [torch.tensor([math.cos(i * angle), math.sin(i * angle)]) for i in range(3)]
    )
    cosines = metrics.layer_cosines(turned.flatten()[None], (2, 2, 2))[0]
    expected = [[math.cos((i - j) * angle) for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(cosines, expected, rtol=1e-13)


def test_absent_layers_have_no_cosine_and_zero_atoms_no_share():
    atoms = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    cosines = metrics.layer_cosines(atoms, (2, 2))
    assert cosines[0, 0, 0] == 1
    assert cosines[0, 0, 1].isnan()
    assert cosines[0, 1, 1].isnan()
    shares = metrics.layer_norm_shares(atoms, (2, 2))
    assert shares[0].tolist() == [1, 0]
    assert shares[1].isnan().all()
    assert metrics.effective_layers(shares)[1].isnan()


@given(seeds, st.integers(1, 6))
@settings(max_examples=100)
def test_effective_layers_is_the_exponential_of_entropy(seed, layers):
    shares = normal(seed, 4, layers).abs()
    shares = shares / shares.sum(-1, keepdim=True)
    np.testing.assert_allclose(
        metrics.effective_layers(shares), np.exp(entropy(shares.numpy(), axis=1)), rtol=1e-12
    )


@given(seeds)
@settings(max_examples=100)
def test_contributions_are_the_variances_of_the_parts(seed):
    x, encoder = normal(seed, 12, 9) * 3 + 1, normal(seed + 1, 9, 5)
    cuts = np.cumsum(WIDTHS)[:-1]
    parts = zip(np.split(x.numpy(), cuts, 1), np.split(encoder.numpy(), cuts, 0), strict=True)
    variance = np.stack([(rows @ weights).var(0) for rows, weights in parts], 1)
    expected = variance / variance.sum(1, keepdims=True)
    np.testing.assert_allclose(
        metrics.layer_contributions(x, encoder, WIDTHS), expected, rtol=1e-10
    )


@given(seeds)
@settings(max_examples=100)
def test_masking_against_loops(seed):
    x, weights = normal(seed, 10, 3, 2) + 0.3, normal(seed + 1, 6, 4)

    def encode(rows):
        return (rows.flatten(1) @ weights - 0.2).relu()

    found = metrics.layer_masking(encode, x, (2, 2, 2))
    clean = encode(x).numpy()
    for layer in range(3):
        masked = x.clone()
        masked[:, layer] = x[:, layer].mean(0)
        other = encode(masked).numpy()
        for k in range(4):
            a, b = clean[:, k], other[:, k]
            if not a.any():
                assert found.kept[k, layer].isnan()
                continue
            assert found.kept[k, layer] == pytest.approx(b[a > 0].sum() / a.sum())
            assert found.changed[k, layer] == pytest.approx(abs(a - b)[a > 0].sum() / a.sum())
            jaccard = ((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum()
            assert found.overlap[k, layer] == pytest.approx(jaccard)
            cosine = a @ b / np.sqrt(a @ a * (b @ b)) if b.any() else 0.0
            assert found.cosine[k, layer] == pytest.approx(cosine)


@pytest.mark.parametrize("least", [0.0, 4.5])
def test_latents_of_known_drive(least):
    """One reads a layer, one the mean of all four, one a sum of them that saturates; dense or rare.

    A dense one keeps its mean whatever is masked, and still changes.
    """
    x = normal(0, 400, 1).abs().expand(-1, 4)[..., None] + 3  # all layers say the same
    x = torch.where(x > least, x, 0.0)

    def encode(rows):
        rows = rows.squeeze(-1)
        own, spread = rows[:, 2], rows.mean(-1)
        return torch.stack([own, spread, spread.clamp(max=0.5)], 1)

    found = metrics.layer_masking(encode, x, (1, 1, 1, 1))
    drive = metrics.effective_layers(found.shares)
    assert drive[0] == pytest.approx(1, abs=1e-12)
    assert drive[1] == pytest.approx(4, abs=1e-12)
    assert drive[2].isnan()  # the others make up for any one layer
    assert found.kept[2].tolist() == [1, 1, 1, 1]
    assert (found.kept[:2].sub(1).abs().max() < 1e-12) == (least == 0)


def test_masking_in_blocks_is_masking_at_once(monkeypatch):
    x, weights = normal(3, 50, 6), normal(4, 6, 5)
    whole = metrics.layer_masking(lambda rows: (rows @ weights).relu(), x, (4, 2))
    monkeypatch.setattr("vsae.metrics.layer_drive.ROWS", 7)
    parts = metrics.layer_masking(lambda rows: (rows @ weights).relu(), x, (4, 2))
    for name in ("kept", "changed", "overlap", "cosine"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: metrics.layer_norm_shares(torch.ones(2, 5), (2, 2)), "metrics.layers"),
        (lambda: metrics.layer_norm_shares(torch.ones(2, 5), (5, 0)), "metrics.layers"),
        (lambda: metrics.layer_norm_shares(torch.ones(2, 0), ()), "metrics.layers"),
        (lambda: metrics.relative_decoder_norm(torch.ones(2, 3), (1, 1, 1)), "metrics.layers"),
        (lambda: metrics.layer_cosines(torch.ones(2, 5), (2, 3)), "metrics.layers"),
        (
            lambda: metrics.layer_explained_variance(torch.ones(2, 2, 3), torch.ones(2, 6), (2, 4)),
            "metrics.layers",
        ),
        (
            lambda: metrics.layer_explained_variance(torch.ones(2, 2), torch.ones(2, 2), (1, 1)),
            "metrics.no_variance",
        ),
        (
            lambda: metrics.neuron_explained_variance(
                torch.tensor([[1.0, 2.0], [1.0, 3.0]]), torch.ones(2, 2)
            ),
            "metrics.no_variance",
        ),
        (lambda: metrics.layer_masking(torch.clone, torch.ones(0, 2), (1, 1)), "data.empty"),
        (lambda: metrics.layer_masking(torch.clone, torch.ones(2), (1, 1)), "metrics.layers"),
        (
            lambda: metrics.layer_contributions(normal(0, 2, 2) / 0, torch.ones(2, 1), (2,)),
            "data.nonfinite",
        ),
    ],
)
def test_faults_are_named(call, code):
    with pytest.raises(DataError) as caught:
        call()
    assert caught.value.code == code


@pytest.mark.float32
def test_sums_are_double_in_single_precision():
    rows = 1 << 16
    x = torch.zeros(rows, 2) + torch.tensor([1e4, 1.0])
    x[::2] += torch.tensor([1.0, 1e-3])
    found = metrics.layer_explained_variance(x, torch.zeros_like(x) + x.double().mean(0), (1, 1))
    assert found.dtype == torch.float64
    assert found.abs().max() < 1e-3
    shares = metrics.layer_norm_shares(torch.ones(1, 6), WIDTHS[:1] * 2)
    assert shares.dtype == torch.float64
