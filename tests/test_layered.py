"""Toys of several layers have the spans and angles they state; their recovery against loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from priors.errors import ConfigError
from toys.directions import RandomDirections
from toys.layered import LAYERED_CASES, LayeredCase
from toys.recovery_cases import RECOVERY_CASES
from toys.spans import EveryLayer, RandomSpans, TwoModels
from toys.tree_cases import TREE_CASES
from toys.turning import Fresh, Rotating
from vsae import metrics
from vsae.errors import DataError

seeds = st.integers(0, 2**31)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(*shape, generator=generator(seed))


@given(seeds, st.integers(1, 6), st.data())
@settings(max_examples=100)
def test_spans_are_runs(seed, layers, data):
    least = data.draw(st.integers(1, layers))
    for spans in (RandomSpans(least=least), EveryLayer()):
        present = spans.draw(7, layers, generator(seed)).numpy().astype(int)
        assert (present.sum(1) >= least).all()
        rises = np.diff(np.pad(present, ((0, 0), (1, 1)))) == 1
        assert (rises.sum(1) == 1).all()


def test_all_runs_are_equally_likely():
    """Six runs of three layers, 6000 features; chi-square of 5 degrees beyond 20.5 at 1e-3."""
    present = RandomSpans().draw(6000, 3, generator(1))
    _, counts = present.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5


@given(seeds, st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=100)
def test_two_models_have_the_shares_they_state(seed, features, first, second):
    first, second = first / 2, second / 2
    present = TwoModels(first=first, second=second).draw(features, 2, generator(seed))
    assert present.any(1).all()
    assert (~present[:, 1]).sum() == round(first * features)
    assert abs((~present[:, 0]).sum().item() - second * features) <= 1


@given(seeds, st.integers(1, 5), st.integers(2, 6))
@settings(max_examples=100)
def test_directions_turn_by_their_angles(seed, layers, d):
    base = torch.nn.functional.normalize(normal(seed, 3, d), dim=-1)
    degrees = (0.0, 25.0, 180.0)
    turned = Rotating(degrees=degrees).draw(base, layers, generator(seed + 1)).numpy()
    np.testing.assert_allclose(turned[:, 0], base, atol=1e-12)
    for f, a, b in itertools.product(range(3), range(layers), range(layers)):
        expected = math.cos(math.radians((a - b) * degrees[f]))
        assert turned[f, a] @ turned[f, b] == pytest.approx(expected, abs=1e-12)


def test_fresh_directions_are_independent_of_those_before():
    """Mean square cosine of two independent directions of d dimensions is 1/d; z < 4.5."""
    base = torch.nn.functional.normalize(normal(0, 4000, 8), dim=-1)
    drawn = Fresh(directions=RandomDirections()).draw(base, 3, generator(1))
    assert torch.equal(drawn[:, 0], base)
    square = (drawn[:, 0] * drawn[:, 2]).sum(-1).square()
    assert abs(square.mean() - 1 / 8) < 4.5 * square.std() / math.sqrt(4000)


@pytest.mark.parametrize("name", LAYERED_CASES)
def test_rows_are_what_the_formula_says(name):
    toy = LAYERED_CASES[name].build(generator(3))
    x, codes = toy.sample(2000, generator(4))
    assert x.shape == (2000, len(toy.layers), toy.layers[0])
    clean = np.einsum("nf,fld->nld", codes.numpy(), toy.directions.numpy())
    residual = x.numpy() - clean
    assert residual.std() == pytest.approx(0.05, rel=0.02)
    # independent between layers
    pairs = np.einsum("nld,nmd->lm", residual, residual) / (2000 * toy.layers[0]) / 0.05**2
    np.testing.assert_allclose(pairs, np.eye(len(toy.layers)), atol=4.5 / math.sqrt(2000 * 24))
    norms = np.linalg.norm(toy.directions.numpy(), axis=-1)
    np.testing.assert_allclose(norms, toy.presence.numpy(), atol=1e-12)


def test_any_flat_case_has_layers():
    for flat in (TREE_CASES["park-2"], RECOVERY_CASES["data-a"].case):
        toy = LayeredCase(flat=flat, layers=3).build(generator())
        x, codes = toy.sample(50, generator(1))
        assert x.shape[:2] == (50, 3)
        same = toy.flat.law.sample(50, generator(1))
        assert torch.equal(codes, same)  # the flat law, drawn first


@given(seeds)
@settings(max_examples=60)
def test_the_truth_is_recovered_in_any_order_sign_and_size(seed):
    toy = LAYERED_CASES["turning"].build(generator(seed))
    order = torch.randperm(32, generator=generator(seed))
    size = (0.1 + torch.rand(32, 1, generator=generator(seed))) * (1 - 2 * (order[:, None] % 2))
    found = metrics.layered_recovery((size * toy.dictionary)[order], toy.directions)
    assert found.mcc == pytest.approx(1)
    assert found.matched == 1
    assert found.presence == metrics.PresenceRecovery(
        auc=1.0, f1=1.0, exact=1.0, first=0.0, last=0.0
    )
    assert found.angle_error == pytest.approx(0, abs=1e-5)


@given(seeds, st.floats(0.05, 0.6))
@settings(max_examples=60)
def test_recovery_against_loops(seed, present):
    directions = normal(seed, 5, 3, 4) * RandomSpans().draw(5, 3, generator(seed))[..., None]
    atoms = (directions.flatten(1) + 0.4 * normal(seed + 1, 5, 12)).flip(0)
    found = metrics.layered_recovery(atoms, directions, threshold=0.0, present=present)
    a = atoms.numpy() / np.linalg.norm(atoms, axis=1, keepdims=True)
    flat = directions.flatten(1).numpy()
    cosines = np.abs(a @ (flat / np.linalg.norm(flat, axis=1, keepdims=True)).T)
    latent, feature = linear_sum_assignment(-cosines)
    own = dict(zip(feature, latent, strict=True))
    assert found.mcc == pytest.approx(cosines[latent, feature].mean())
    truth, told, scores, angles = [], [], [], []
    for f in range(5):
        layers = atoms[own[f]].view(3, 4).numpy()
        norm = np.linalg.norm(layers, axis=1)
        scores.append(norm / norm.max())
        truth.append(directions[f].numpy().any(1))
        told.append(norm / norm.max() > present)
        for at in range(2):
            pairs = layers[at : at + 2], directions[f, at : at + 2].numpy()
            if not all(p.any(1).all() for p in pairs):
                continue
            mine, real = (
                np.degrees(np.arccos(p[0] @ p[1] / np.linalg.norm(p, axis=1).prod())) for p in pairs
            )
            angles.append(abs(mine - real))
    truth, told, scores = np.array(truth), np.array(told), np.array(scores)
    f1 = 2 * (truth & told).sum() / (truth.sum() + told.sum())
    assert found.presence.f1 == pytest.approx(f1)
    if not truth.all():
        wins = np.sign(scores[truth][:, None] - scores[~truth]).mean()
        assert found.presence.auc == pytest.approx((1 + wins) / 2)
    assert found.presence.exact == (truth == told).all(1).mean()
    ends = [[np.flatnonzero(row)[[0, -1]] for row in where] for where in (truth, told)]
    missed = np.abs(np.array(ends[0]) - np.array(ends[1])).mean(0)
    assert (found.presence.first, found.presence.last) == pytest.approx(tuple(missed))
    if angles:
        assert found.angle_error == pytest.approx(np.mean(angles))
    else:
        assert math.isnan(found.angle_error)


def test_atoms_at_random_are_at_chance():
    toy = LAYERED_CASES["turning"].build(generator())
    found = metrics.layered_recovery(normal(1, 64, 120), toy.directions, threshold=0.0)
    assert found.mcc < 0.4
    assert abs(found.presence.auc - 0.5) < 0.15
    none = metrics.layered_recovery(normal(1, 64, 120), toy.directions, threshold=0.9)
    assert none.matched == 0
    assert math.isnan(none.presence.exact)
    assert math.isnan(none.angle_error)


def test_diffing_reads_the_models_of_features():
    toy = LAYERED_CASES["two-models"].build(generator())
    rho = metrics.relative_decoder_norm(toy.dictionary, toy.layers)
    expected = torch.where(toy.presence.all(1), 0.5, toy.presence[:, 1].double())
    torch.testing.assert_close(rho, expected)
    assert (rho - 0.5).abs().lt(0.1).sum() == 16


def test_x_determines_the_codes_where_the_model_says_so():
    """Least squares on all layers at once returns the codes, with the error noise alone leaves."""
    toy = LAYERED_CASES["persistent"].build(generator())
    x, codes = toy.sample(500, generator(1))
    found = np.linalg.lstsq(toy.dictionary.numpy().T, x.flatten(1).numpy().T, rcond=None)[0].T
    gram = np.linalg.inv(toy.dictionary.numpy() @ toy.dictionary.numpy().T + 1e-9 * np.eye(32))
    # 32 features of one direction in all layers lie in 24 dimensions: not determined
    assert np.linalg.matrix_rank(toy.dictionary.numpy()) == 24
    assert gram.max() > 1e6
    toy = LAYERED_CASES["fresh"].build(generator())
    x, codes = toy.sample(500, generator(1))
    dictionary = toy.dictionary.numpy()
    found = np.linalg.lstsq(dictionary.T, x.flatten(1).numpy().T, rcond=None)[0].T
    error = ((found - codes.numpy()) ** 2).mean(0)
    expected = 0.05**2 * np.diag(np.linalg.inv(dictionary @ dictionary.T))
    np.testing.assert_allclose(error, expected, rtol=4.5 * math.sqrt(2 / 500))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: RandomSpans(least=4).draw(2, 3, generator()), "toy.span"),
        (lambda: RandomSpans(least=0).draw(2, 3, generator()), "toy.span"),
        (lambda: TwoModels(first=0.7, second=0.7), "toy.span"),
        (lambda: TwoModels(first=-0.1, second=0.2), "toy.span"),
        (lambda: TwoModels(first=0.1, second=0.2).draw(5, 3, generator()), "toy.span"),
        (lambda: Rotating(degrees=181.0), "toy.angle"),
        (lambda: Rotating(degrees=(1.0, 2.0)).draw(torch.eye(3), 2, generator()), "toy.size"),
        (lambda: Rotating().draw(torch.ones(3, 1), 2, generator()), "toy.d_model"),
        (lambda: LayeredCase(flat=TREE_CASES["park-2"], layers=0), "toy.layers"),
        (lambda: LAYERED_CASES["fresh"].build(generator()).sample(0, generator()), "toy.rows"),
        (
            lambda: metrics.layered_recovery(torch.ones(2, 4), torch.ones(2, 2, 2), present=1.0),
            "metrics.present",
        ),
    ],
)
def test_faults_are_named(call, code):
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("shape", "code"), [((2, 2, 3), "recovery.shape"), ((0, 2, 2), "data.empty")]
)
def test_directions_that_do_not_fit_are_refused(shape, code):
    with pytest.raises(DataError) as caught:
        metrics.layered_recovery(torch.ones(2, 4), torch.ones(shape))
    assert caught.value.code == code


@pytest.mark.float32
def test_single_precision():
    toy = LAYERED_CASES["turning"].build(generator())
    x, _ = toy.sample(10, generator())
    assert x.dtype == torch.float32
    found = metrics.layered_recovery(toy.dictionary, toy.directions)
    assert found.mcc == pytest.approx(1, abs=1e-6)
    assert found.angle_error < 0.05  # acos near 1 in float32 directions
