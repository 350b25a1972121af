"""Atoms found again, against loops, and chance against the geometry of the sphere."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from vsae import metrics
from vsae.errors import ConfigError, DataError

seeds = st.integers(0, 2**31)


def normal(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def cosines(first, second):
    first, second = (v / v.norm(dim=-1, keepdim=True) for v in (first, second))
    return (first @ second.T).abs()


@given(seeds, st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.3, 0.6, 0.9]))
def test_recovered_share_against_loops(seed, latents, features, threshold):
    atoms, truth = normal(seed, latents, 2), normal(seed + 1, features, 2)
    cosine = cosines(atoms, truth)
    share = sum(any(c > threshold for c in column) for column in cosine.T) / features
    assert metrics.recovered_share(atoms, truth, threshold=threshold) == share


def test_recovered_share_ignores_sign_scale_order_and_copies():
    features = torch.linalg.qr(normal(0, 16, 16)).Q
    assert metrics.recovered_share(-3 * features.flip(0), features) == 1
    assert metrics.recovered_share(features[:4].repeat(9, 1), features) == 0.25
    tilted = math.cos(0.5) * features[:8] + math.sin(0.5) * features[8:]  # cosine .878
    assert metrics.recovered_share(tilted, features[:8]) == 0
    assert metrics.recovered_share(tilted, features[:8], threshold=0.87) == 1


@pytest.mark.parametrize("dim", [2, 3, 5, 64])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9])
def test_chance_of_one_direction(dim, threshold):
    """The density of an angle on the sphere is sin^(d - 2), integrated over both caps."""
    angle = math.acos(threshold)
    cap, half = (
        integrate.quad(lambda a: math.sin(a) ** (dim - 2), 0, end, epsabs=0)[0]
        for end in (angle, math.pi / 2)
    )
    got = metrics.random_share(1, dim, threshold=threshold)
    assert got == pytest.approx(cap / half, rel=1e-9)
    many = metrics.random_share(50, dim, threshold=threshold)
    assert many == pytest.approx(-math.expm1(50 * math.log1p(-got)) if got < 1 else 1, rel=1e-9)


def test_chance_on_a_line_and_of_nothing():
    assert metrics.random_share(1, 1) == 1
    assert metrics.random_share(1, 1, threshold=1.0) == 0
    assert metrics.random_share(0, 5) == 0
    rare = metrics.random_share(512, 96)
    assert 0 < rare < 1e-30  # a power of 1 - p would have lost it


def test_random_directions_recover_what_chance_says():
    features, draws = normal(0, 5, 4), 2000
    share = [
        metrics.recovered_share(normal(s, 6, 4), features, threshold=0.8) for s in range(draws)
    ]
    chance = metrics.random_share(6, 4, threshold=0.8)
    assert abs(np.mean(share) - chance) < 4.5 * np.std(share) / math.sqrt(draws)


@given(seeds, st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.3, 0.8]))
def test_reproduced_against_loops(seed, size, other_size, threshold):
    atoms, other = normal(seed, size, 3), normal(seed + 1, other_size, 3)
    cosine = cosines(atoms, other)
    best = sum(any(c > threshold for c in row) for row in cosine) / size
    wide = cosine if size <= other_size else cosine.T
    ways = itertools.permutations(range(wide.shape[1]), len(wide))
    way = max(ways, key=lambda w: sum(wide[i, j].item() for i, j in enumerate(w)))
    own = sum(wide[i, j].item() > threshold for i, j in enumerate(way)) / size
    found = metrics.reproduced(atoms, other, threshold=threshold)
    assert (found.best, found.one_to_one) == (best, own)
    assert found.one_to_one <= found.best
    assert found.chance == metrics.random_share(other_size, 3, threshold=threshold)


def test_copies_are_reproduced_once():
    atoms = torch.linalg.qr(normal(0, 8, 8)).Q
    copies = atoms[:2].repeat(4, 1)
    found = metrics.reproduced(copies, atoms)
    assert (found.best, found.one_to_one) == (1, 0.25)
    back = metrics.reproduced(atoms, copies)
    assert (back.best, back.one_to_one) == (0.25, 0.25)


def test_a_dead_atom_is_never_reproduced():
    atoms = torch.eye(4)
    atoms[1] = 0
    assert metrics.reproduced(atoms, atoms).best == 0.75
    assert metrics.reproduced(torch.zeros(2, 4), torch.zeros(2, 4), threshold=0.0).best == 0


def test_random_atoms_are_reproduced_as_often_as_chance_says():
    draws = 1000
    pairs = [(normal(2 * s, 7, 4), normal(2 * s + 1, 5, 4)) for s in range(draws)]
    found = [metrics.reproduced(*pair, threshold=0.8) for pair in pairs]
    best, own = (np.array([getattr(r, name) for r in found]) for name in ("best", "one_to_one"))
    assert abs(best.mean() - found[0].chance) < 4.5 * best.std() / math.sqrt(draws)
    assert own.mean() < found[0].chance


def test_stability_is_the_mean_over_ordered_pairs():
    runs = [normal(s, 4 + s, 3) for s in range(3)]  # of different widths: the order matters
    controls = [normal(10 + s, 5, 3) for s in range(2)]
    found = metrics.seed_stability(runs, controls, threshold=0.8)
    pairs = list(itertools.permutations(range(3), 2))
    every = [metrics.reproduced(runs[i], runs[j], threshold=0.8) for i, j in pairs]
    for name in ("best", "one_to_one", "chance"):
        mean = np.mean([getattr(r, name) for r in every])
        assert getattr(found, name) == pytest.approx(mean, rel=1e-14)
    for (i, j), r in zip(pairs, every, strict=True):
        assert found.pairs[i, j] == r.best
    assert found.pairs.diagonal().isnan().all()
    both = [metrics.reproduced(*order, threshold=0.8) for order in (controls, controls[::-1])]
    assert found.control_best == pytest.approx(np.mean([r.best for r in both]))
    assert found.control_one_to_one == pytest.approx(np.mean([r.one_to_one for r in both]))


def test_stability_of_runs_that_share_half_their_atoms():
    """Beside points of clustered data, which agree without any training."""
    basis = torch.linalg.qr(normal(0, 64, 64)).Q
    runs = [torch.cat([basis[:10], -basis[10 * s : 10 * s + 10]]).flip(0) for s in (1, 2, 3)]
    clusters = basis[:3, :]
    controls = [clusters.repeat(7, 1) + 0.01 * normal(s, 21, 64) for s in range(2)]
    found = metrics.seed_stability(runs, controls)
    assert (found.best, found.one_to_one) == (0.5, 0.5)
    assert (found.control_best, found.control_one_to_one) == (1, 1)
    assert found.chance < 1e-15


@pytest.mark.float32
def test_shares_are_in_float64():
    runs = [torch.eye(3), torch.eye(3)[:2]]
    found = metrics.seed_stability(runs, runs)
    assert found.pairs.dtype == torch.float64
    assert found.pairs[0, 1] == found.pairs.new_tensor(2) / 3
    assert found.one_to_one == pytest.approx((2 / 3 + 1) / 2, rel=1e-15)
    assert metrics.recovered_share(runs[1], runs[0]) == 2 / 3


ATOMS = torch.eye(3)
WRONG = {
    "recovery.shape": [
        lambda: metrics.reproduced(ATOMS, ATOMS[:, :2]),
        lambda: metrics.recovered_share(ATOMS, ATOMS[0]),
    ],
    "recovery.threshold": [
        lambda: metrics.reproduced(ATOMS, ATOMS, threshold=1.5),
        lambda: metrics.recovered_share(ATOMS, ATOMS, threshold=-0.5),
        lambda: metrics.random_share(3, 3, threshold=math.nan),
    ],
    "stability.runs": [
        lambda: metrics.seed_stability([ATOMS], [ATOMS, ATOMS]),
        lambda: metrics.seed_stability([ATOMS, ATOMS], []),
    ],
    "data.empty": [
        lambda: metrics.reproduced(ATOMS[:0], ATOMS),
        lambda: metrics.reproduced(ATOMS, ATOMS[:0]),
        lambda: metrics.recovered_share(ATOMS[:0], ATOMS),
        lambda: metrics.recovered_share(ATOMS, ATOMS[:0]),
    ],
    "data.nonfinite": [lambda: metrics.reproduced(ATOMS * math.nan, ATOMS)],
}


@pytest.mark.parametrize("code", WRONG)
def test_what_cannot_be_found_again(code):
    for call in WRONG[code]:
        with pytest.raises((ConfigError, DataError)) as caught:
            call()
        assert caught.value.code == code
