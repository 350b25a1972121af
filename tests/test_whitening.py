"""Whitening: unit covariance, the causal inner product, units of the ELBO, refusals."""

import math

import jaxtyping
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from priors import IsotropicPrior
from priors.replicas import stack, unstack
from vsae import (
    AffineNormalizer,
    WhiteningNormalizer,
    fit,
    l1_autoencoder,
    load,
    save,
    topk_autoencoder,
    variational_autoencoder,
)
from vsae.errors import DataError, DTypeError, ShapeError

seeds = st.integers(0, 2**31)
EPS = np.finfo(np.float64).eps


def rows_of(seed, rows=200, d=4):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d)) * np.geomspace(0.1, 30, d)
    return torch.from_numpy(rng.normal(size=(rows, d)) @ mixing + 100 * rng.normal(size=d))


def rounding(x):
    """What an eigendecomposition of the covariance leaves of the digits of its inverse."""
    x = x.numpy()
    least = np.linalg.svd(x - x.mean(0), compute_uv=False)[-1] ** 2
    return 100 * EPS * (x**2).sum() / least


@given(seeds, st.integers(1, 8), st.integers(1, 300))
def test_whitened_rows_have_unit_covariance_and_norm_d(seed, d, more):
    x = rows_of(seed, d + more + 5, d)
    white = WhiteningNormalizer.fit(x)(x).numpy()
    tolerance = rounding(x)
    assume(tolerance < 1e-3)
    np.testing.assert_allclose(white.mean(0), 0, atol=tolerance)
    found = np.cov(white.T, bias=True).reshape(d, d)
    np.testing.assert_allclose(found, np.eye(d), atol=tolerance)
    assert (white**2).sum(1).mean() == pytest.approx(d, rel=tolerance)


@given(seeds, st.integers(1, 6))
def test_the_inner_product_is_the_causal_one(seed, d):
    x = rows_of(seed, 400, d)
    normalizer = WhiteningNormalizer.fit(x)
    covariance = np.cov(x.numpy().T, bias=True).reshape(d, d)
    u, v = np.random.default_rng(seed).normal(size=(2, d))
    seen = [torch.from_numpy(w) @ normalizer.whitening for w in (u, v)]
    causal = u @ scipy.linalg.solve(covariance, v, assume_a="pos")
    scale = math.sqrt((u @ np.linalg.solve(covariance, u)) * (v @ np.linalg.solve(covariance, v)))
    assert (seen[0] @ seen[1]).item() == pytest.approx(causal, abs=rounding(x) * scale)
    root = scipy.linalg.inv(scipy.linalg.sqrtm(covariance))
    np.testing.assert_allclose(
        normalizer.whitening, root.real, rtol=0, atol=rounding(x) * np.abs(root).max()
    )


@given(seeds, st.integers(1, 6))
def test_inverse_and_log_jacobian(seed, d):
    x = rows_of(seed, 100, d)
    normalizer = WhiteningNormalizer.fit(x)
    torch.testing.assert_close(normalizer.inverse(normalizer(x)), x, rtol=0, atol=rounding(x))
    covariance = np.cov(x.numpy().T, bias=True).reshape(d, d)
    expected = -np.linalg.slogdet(covariance).logabsdet / 2
    assert normalizer.log_jacobian(d).item() == pytest.approx(expected, abs=d * rounding(x))
    jacobian = torch.autograd.functional.jacobian(normalizer, x[0])
    assert jacobian.slogdet().logabsdet.item() == pytest.approx(expected, abs=d * rounding(x))


def test_any_invertible_matrix_whitens():
    mean, matrix = torch.tensor([1.0, 2.0]), torch.tensor([[0.0, 2.0], [-3.0, 1.0]])
    normalizer = WhiteningNormalizer(mean, matrix)
    x = torch.randn(3, 5, 2)
    torch.testing.assert_close(normalizer(x), (x - mean) @ matrix)
    torch.testing.assert_close(normalizer.inverse(normalizer(x)), x)
    assert normalizer.log_jacobian(2).item() == pytest.approx(math.log(6))
    assert normalizer.d_model == 2


def test_elbos_compare_in_raw_units():
    """One density in raw units, written in two systems of units, has one ELBO."""
    x = rows_of(3, 64)
    white, affine = WhiteningNormalizer.fit(x), AffineNormalizer.fit(x)

    def elbo(normalizer):
        # Nothing is coded and σ = 1: x is N(mean, (W Wᵀ)⁻¹), a Gaussian known in raw units.
        pair = variational_autoencoder(4, IsotropicPrior(3), noise=1.0, normalizer=normalizer)
        with torch.no_grad():
            for parameter in pair.parameters():
                parameter.zero_()
        return pair.elbo(x).item()

    def gaussian(covariance):
        mean = x.numpy().mean(0)
        return scipy.stats.multivariate_normal(mean, covariance).logpdf(x.numpy()).mean()

    covariance = np.cov(x.numpy().T, bias=True)
    scale = affine.scale.item()
    gap = elbo(white) - elbo(affine)  # the KL of the (idle) code is the same
    expected = gaussian(covariance) - gaussian(scale**2 * np.eye(4))
    assert gap == pytest.approx(expected, rel=1e-8)
    assert gap > 1


def test_save_and_load(tmp_path):
    x = rows_of(5)
    pair = topk_autoencoder(4, 16, k=3, normalizer=WhiteningNormalizer.fit(x))
    back = load(save(pair, tmp_path / "sae"))
    assert isinstance(back.normalizer, WhiteningNormalizer)
    assert torch.equal(back(x), pair(x))
    assert torch.equal(back.elbo(x), pair.elbo(x))
    for name, value in pair.normalizer.named_buffers():
        assert torch.equal(value, back.normalizer.get_buffer(name))


@pytest.mark.float32
def test_float32_data_are_fitted_in_float64():
    x = rows_of(6, 5000).float()
    normalizer = WhiteningNormalizer.fit(x)
    assert {b.dtype for b in normalizer.buffers()} == {torch.float32}
    exact = WhiteningNormalizer.fit(x.double())
    torch.testing.assert_close(normalizer.whitening, exact.whitening.float())
    torch.testing.assert_close(normalizer.inverse(normalizer(x)), x, rtol=1e-4, atol=1e-3)


def test_a_pair_trains_on_whitened_data():
    x = rows_of(8)
    pair = topk_autoencoder(4, 8, k=2, normalizer=WhiteningNormalizer.fit(x))
    before = pair.normalizer.whitening.clone()
    records = fit(pair, x, steps=30, batch_size=64).run(progress=False)
    assert all(math.isfinite(record["elbo/loss"]) for record in records)
    assert torch.equal(pair.normalizer.whitening, before)


def test_replicas_stack():
    data = torch.stack([rows_of(seed) for seed in (1, 2, 3)])
    pairs = [l1_autoencoder(4, 8, l1=0.1, normalizer=WhiteningNormalizer.fit(x)) for x in data]
    stacked = stack(pairs)
    alone = [pair(x) for pair, x in zip(pairs, data, strict=True)]
    torch.testing.assert_close(stacked(data), torch.stack(alone))
    shared = torch.stack([pair.elbo(data[0]) for pair in pairs])
    torch.testing.assert_close(stacked.elbo(data[0]), shared)
    assert stacked.normalizer.d_model == 4
    for one, again, x in zip(pairs, unstack(stacked), data, strict=True):
        torch.testing.assert_close(one(x), again(x))
        for name, value in one.normalizer.named_buffers():
            assert torch.equal(value, again.normalizer.get_buffer(name))


def constant_column(x):
    return torch.cat([x, torch.full_like(x[:, :1], 3.0)], 1)


def repeated_column(x):
    return torch.cat([x, x[:, :1] - 2 * x[:, 1:2]], 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("bad", "rank", "expected"),
    [
        (constant_column, 4, 5),
        (repeated_column, 4, 5),
        (lambda x: x[:4], 3, 4),
        (lambda x: x[:1], 0, 4),
        (lambda x: x[:0], 0, 4),
        (lambda x: x[:1].expand(9, 4), 0, 4),
        (lambda x: x * 0.0, 0, 4),
        (lambda x: x[:3].repeat(4, 1), 2, 4),
    ],
    ids=["constant", "repeated", "few", "one", "none", "equal", "zero", "duplicates"],
)
def test_singular_data_are_refused(bad, rank, expected, dtype):
    with pytest.raises(DataError) as caught:
        WhiteningNormalizer.fit(bad(rows_of(4)).to(dtype))
    assert caught.value.code == "normalizer.rank"
    assert caught.value.context == {"rank": rank, "expected": expected}
    assert f"rank {rank}, expected {expected}" in str(caught.value)


def test_the_smallest_number_of_rows_is_accepted():
    x = rows_of(4, 5)
    white = WhiteningNormalizer.fit(x)(x).numpy()
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(4), atol=rounding(x))


@pytest.mark.parametrize(
    ("make", "kind", "code"),
    [
        (lambda: WhiteningNormalizer.fit(torch.zeros(3)), ShapeError, "data.rank"),
        (lambda: WhiteningNormalizer.fit(torch.zeros(2, 9, 3)), ShapeError, "data.rank"),
        (lambda: WhiteningNormalizer.fit(rows_of(1) / 0), DataError, "data.nonfinite"),
        (lambda: WhiteningNormalizer(torch.zeros(2), torch.eye(3)), ShapeError, "normalizer.shape"),
        (lambda: WhiteningNormalizer(torch.zeros(2), torch.ones(2, 2)), DataError,
         "normalizer.rank"),
        (lambda: WhiteningNormalizer(torch.zeros(2), torch.eye(2) * math.nan), DataError,
         "data.nonfinite"),
    ],
)  # fmt: skip
def test_bad_input_is_a_typed_error(make, kind, code):
    with pytest.raises(kind) as caught:
        make()
    assert caught.value.code == code


@pytest.mark.parametrize("kind", [AffineNormalizer, WhiteningNormalizer])
def test_units_of_integers_are_refused(kind, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is without tests
    with pytest.raises(DTypeError) as caught:
        kind.fit(torch.randint(10, (50, 3)))
    assert caught.value.code == "data.dtype"


def test_units_of_16_bits_are_kept_in_32():
    x = (5 * torch.randn(400, 3) + 100).bfloat16()
    units = AffineNormalizer.fit(x)
    assert units.mean.dtype == units.scale.dtype == torch.float32
    torch.testing.assert_close(units.mean, x.double().mean(0).float())
