"""Matching pursuit: the greedy recursion, its theorems, and the published loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from program_checks import (
    HALF,
    assert_equals_published,
    assert_export_keeps_gradients,
    assert_masked_rows_do_not_count,
    assert_only_latents_are_scaled,
    assert_predictive_draws,
    assert_pyros_elbos_agree,
    assert_saved_is_loaded,
    assert_svi_trains,
    gaussian_constant,
    leaves_of,
)
from torch import nn

from priors import LaplacePrior
from vsae import AmortizedGuide, Autoencoder, ClosedFormELBO, LinearDecoder, SupportAutoencoder
from vsae.errors import VsaeError
from vsae.posteriors.matching_pursuit import MatchingPursuitPosterior, merge
from vsae.presets.matching_pursuit import matching_pursuit_autoencoder

D, K, STEPS, ROWS = 6, 20, 5, 15


def pursuit(k=STEPS, latents=K):
    torch.manual_seed(0)
    pair = matching_pursuit_autoencoder(D, latents, k=k)
    nn.init.normal_(pair.model.decoder.b_dec)
    return pair


def penalised():
    """Under a Laplace prior, so that the term of ``z`` is not a constant."""
    decoder = LinearDecoder(K, D)
    nn.init.normal_(decoder.b_dec)
    model = SupportAutoencoder(decoder, LaplacePrior(K), width=STEPS, noise=0.5)
    return Autoencoder(model, AmortizedGuide(MatchingPursuitPosterior(decoder, k=STEPS)))


def naive(x, atoms, bias, k):
    """Row by row, step by step: dense codes, residuals after each step, picks."""
    codes, residuals, picks = np.zeros((len(x), len(atoms))), np.zeros((k + 1, *x.shape)), []
    for b in range(len(x)):
        r = x[b] - bias
        residuals[0, b] = r
        picks.append([])
        for t in range(k):
            j = max(range(len(atoms)), key=lambda j: float(atoms[j] @ r))
            v = float(atoms[j] @ r)
            codes[b, j] += v
            r = r - v * atoms[j]
            residuals[t + 1, b] = r
            picks[b].append(j)
    return codes, residuals, np.array(picks)


def numbers(pair, x):
    return x.numpy(), pair.W_dec.detach().numpy(), pair.b_dec.detach().numpy()


@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([1e-6, 1.0, 1e5]))
def test_is_the_naive_recursion(seed, k, unit):
    generator = torch.Generator().manual_seed(seed)
    decoder = LinearDecoder(5, 3)
    with torch.no_grad():
        decoder.W_dec.copy_(torch.randn(5, 3, generator=generator))
        decoder.project()
    x = unit * torch.randn(2, 3, generator=generator)
    q = MatchingPursuitPosterior(decoder, k=k)
    expected, _, picks = naive(x.numpy(), decoder.W_dec.detach().numpy(), np.zeros(3), k)
    sites = q(x)
    support, z = sites["support"].v, sites["z"].v.detach()
    assert np.array_equal(q.pursue(x)[1].numpy(), picks)
    dense = torch.zeros(2, 5).scatter(-1, support, z)
    np.testing.assert_allclose(dense.numpy(), expected, rtol=1e-12, atol=1e-13 * unit)
    assert all(len(set(row)) == k for row in support.tolist())  # distinct, so scatter is a sum


def test_repeated_picks_become_one_slot():
    """Three atoms in a plane: pursuit of most vectors comes back to the first."""
    decoder = LinearDecoder(3, 2)
    angles = torch.tensor([0.0, 0.9, 2.3])  # no two tie
    decoder.W_dec.data.copy_(torch.stack([angles.cos(), angles.sin()], 1))
    x = torch.tensor([[1.0, 0.55], [0.1, 1.0]])
    q = MatchingPursuitPosterior(decoder, k=3)
    assert any(len(set(row)) < 3 for row in q.pursue(x)[1].tolist())
    sites = q(x)
    for row, picks in zip(sites["support"].v.tolist(), q.pursue(x)[1].tolist(), strict=True):
        assert sorted(row) == [0, 1, 2]
        assert set(picks) <= set(row)
    dense = torch.zeros(2, 3).scatter(-1, sites["support"].v, sites["z"].v.detach())
    expected, _, _ = naive(x.numpy(), decoder.W_dec.detach().numpy(), np.zeros(2), 3)
    np.testing.assert_allclose(dense.numpy(), expected, rtol=1e-12)


@given(st.data())
def test_merge_adds_and_keeps_supports_distinct(data):
    k = data.draw(st.integers(1, 5))
    latents = data.draw(st.integers(k, 12))
    picks = data.draw(st.lists(st.integers(0, latents - 1), min_size=k, max_size=k))
    values = data.draw(st.lists(st.integers(-9, 9), min_size=k, max_size=k))
    expected = np.zeros(latents)
    np.add.at(expected, picks, values)
    sums, support = merge(torch.tensor([values]).double(), torch.tensor([picks]), latents)
    assert len(set(support[0].tolist())) == k
    assert 0 <= support.min() <= support.max() < latents
    dense = np.zeros(latents)
    dense[support[0].numpy()] = sums[0].numpy()
    np.testing.assert_array_equal(dense, expected)


def test_residual_shrinks_as_pythagoras_says_and_is_orthogonal_to_the_last_pick():
    pair, x = pursuit(k=12), 3 * torch.randn(ROWS, D)
    values, picks = pair.guide.posterior.pursue(x)
    atoms, residual = pair.W_dec.detach(), (x - pair.b_dec).detach()
    for value, pick in zip(values.detach().T, picks.T, strict=True):
        after = residual - value[:, None] * atoms[pick]
        torch.testing.assert_close(
            (after * atoms[pick]).sum(-1), torch.zeros(ROWS), atol=1e-12, rtol=0
        )
        squares = residual.square().sum(-1) - value.square()
        torch.testing.assert_close(after.square().sum(-1), squares, atol=1e-12, rtol=1e-12)
        assert (after.square().sum(-1) <= residual.square().sum(-1)).all()
        residual = after
    torch.testing.assert_close(x - pair(x).detach(), residual, atol=1e-12, rtol=0)


def test_more_steps_begin_with_the_same():
    few, many, x = pursuit(k=3), pursuit(k=7), torch.randn(ROWS, D)
    for a, b in zip(few.guide.posterior.pursue(x), many.guide.posterior.pursue(x), strict=True):
        torch.testing.assert_close(a, b[:, :3])


def test_orthonormal_atoms_are_found_in_order_of_size():
    """k = K = d: the positive coordinates exactly, then the rest."""
    decoder = LinearDecoder(D, D)
    decoder.W_dec.data.copy_(torch.eye(D))
    x = torch.randn(ROWS, D).abs() + 0.1
    values, picks = MatchingPursuitPosterior(decoder, k=D).pursue(x)
    torch.testing.assert_close(values, x.sort(-1, descending=True).values)
    assert torch.equal(picks, x.argsort(-1, descending=True))


def test_an_amplitude_is_negative_only_if_all_inner_products_are():
    """arg max of w·r, not of |w·r|; a lone atom is used against its direction."""
    decoder = LinearDecoder(1, 2)
    decoder.W_dec.data.copy_(torch.tensor([[1.0, 0.0]]))
    x = torch.tensor([[-3.0, 4.0]])
    assert MatchingPursuitPosterior(decoder, k=1)(x)["z"].v.tolist() == [[-3.0]]
    pair = pursuit(k=1)
    z = pair.guide.posterior(torch.randn(500, D))["z"].v
    assert (z > 0).all()  # 20 atoms surround the origin of 6 dimensions


def test_elbo_is_the_published_loss():
    """Autograd of the dense recursion: one_hot(argmax) · max, as in the authors' code."""
    pair, x = pursuit(), torch.randn(ROWS, D)
    atoms, bias = pair.W_dec, pair.b_dec
    residual, code = x - bias, torch.zeros(ROWS, K)
    for _ in range(STEPS):
        value, pick = (residual @ atoms.T).max(-1)
        step = nn.functional.one_hot(pick, K) * value[:, None]
        code, residual = code + step, residual - step @ atoms
    published = (x - code @ atoms - bias).square().sum()
    support = ClosedFormELBO().terms(pair.model, pair.guide, x)["support"].detach()
    assert_equals_published(pair, x, published, gaussian_constant(ROWS, D, HALF) + support)


@pytest.mark.parametrize("make", [pursuit, penalised])
def test_is_an_ordinary_program(make):
    pair, x = make(), torch.randn(ROWS, D)
    assert_pyros_elbos_agree(pair, x)
    assert_only_latents_are_scaled(pair, x, {"support", "z"})
    assert_masked_rows_do_not_count(pair, x)
    slots = {"support": (ROWS, STEPS), "z": (ROWS, STEPS), "x": (ROWS, D)}
    assert_predictive_draws(pair, x, slots)
    assert_svi_trains(pair, x)


@pytest.mark.filterwarnings("ignore")
def test_export_keeps_gradients():
    assert_export_keeps_gradients(pursuit(), torch.randn(ROWS, D))


def test_saves_and_loads(tmp_path):
    assert_saved_is_loaded(pursuit(), torch.randn(ROWS, D), tmp_path / "sae")


def test_degenerate_inputs():
    for k in (0, -1, K + 1):
        with pytest.raises(VsaeError) as caught:
            pursuit(k=k)
        assert caught.value.code == "select.k"
    everything = pursuit(k=8, latents=8)
    x = torch.randn(1, D)
    assert everything.elbo(x).isfinite()
    pair = pursuit()
    at_bias = pair.b_dec.detach().expand(3, D)
    assert not pair.encode(at_bias).any()  # all inner products tie at zero
    loss = ClosedFormELBO()(pair.model, pair.guide)(at_bias)
    gradients = torch.autograd.grad(loss, leaves_of(pair).values())
    assert all(g.isfinite().all() for g in gradients)
    with pytest.raises(VsaeError) as caught:
        _ = pair.W_enc
    assert caught.value.code == "encoder.not_linear"
    several = torch.randn(2, 3, D)
    torch.testing.assert_close(
        pair.encode(several).flatten(0, 1), pair.encode(several.flatten(0, 1))
    )
