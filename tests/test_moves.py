"""Split and merge: planted optima are left, splits without a use are undone, oracles by numpy."""

import itertools
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from moved_pairs import (
    ROWS,
    SIZE,
    SPREAD,
    D,
    axes,
    contrasted,
    folded,
    halved,
    pair_of,
    rows_of,
    truth,
)
from torch.nn.functional import normalize

from priors import (
    Graph,
    IsingGatesPrior,
    TreeGatesPrior,
)
from vsae import (
    AffineNormalizer,
    Autoencoder,
    CoFiringGatesPrior,
    ExpectedELBO,
    LinearEncoder,
    RecoveryRecipe,
    SpikeSlabPosterior,
    fit,
    l1_autoencoder,
    moves,
    split_and_merge,
)
from vsae.elbo import per_row
from vsae.errors import NonFiniteLossError, VsaeError
from vsae.recipes import recovery


def bound(pair, x):
    """The ELBO per row in expectation: no draw, nothing of chance."""
    with torch.no_grad(), pair.evaluating():
        terms = ExpectedELBO().site_terms(pair.model, pair.guide, pair.normalizer(x))
        return -float(sum(per_row(terms, len(x)).values()))


def test_a_feature_that_is_two_latents_becomes_one():
    features, x, pair = halved()
    before = bound(pair, x)
    found = split_and_merge(pair, x, most=0)
    assert found.merged == ((0, 6),)
    assert found.split == found.unfolded == ()
    assert float(pair.W_dec[0].detach() @ features[0]) > 0.999
    assert bound(pair, x) > before + 0.1
    rates = pair.model.prior.moments[0]
    assert rates[6] < 1e-4 < rates[0]
    torch.testing.assert_close(pair.model.prior.moments[1, 0] / rates[0], torch.tensor(SIZE))
    assert pair.model.prior().probability[6] < 1e-4  # and the prior says so


def shared(less):
    """A feature whose stronger half of firings has a latent more, and two that are as strong."""
    features, fires = axes(), torch.rand(ROWS, 3) < 0.3
    fires[:, 2] = fires[:, 1] & (torch.rand(ROWS) < 0.46)
    codes = fires * (SIZE + SPREAD * torch.randn(ROWS, 3))
    strong = fires[:, 0] & (codes[:, 0] > SIZE + 0.1 * SPREAD)
    tilt = normalize(features[0] + 0.3 * features[9], dim=0)
    pair = pair_of(torch.cat([tilt[None], features[[1, 2, 8]]]), [0.3, 0.3, 0.13, 0.15], [SIZE] * 4)
    with torch.no_grad(), pair.evaluating():
        search = moves.Search(pair, codes @ features[:3])
    search.codes = torch.cat([codes, (strong * 1.0)[:, None]], -1)
    search.codes[:, 0] *= torch.where(strong, less, 1.0)
    search.on = (search.codes > 0).double()
    search.count = search.on.sum(0)
    search.moved[:] = False
    return search


@pytest.mark.parametrize(("less", "merged"), [(0.7, [(0, 3)]), (1.0, []), (0.5, [])])
def test_of_two_that_often_fire_together_one_says_less_if_they_share_a_feature(less, merged):
    search = shared(less)
    index = search.jaccard(slice(0, 4))
    assert 0.42 < index[0, 3] < 0.5
    assert 0.42 < index[1, 2] < 0.5
    with torch.no_grad():
        assert list(search.merges()) == merged


def test_two_features_that_are_three_latents_become_two():
    features, x, pair = folded()
    before = bound(pair, x)
    found = split_and_merge(pair, x, most=0)
    assert found.unfolded == ((0, 2, 3),)
    assert found.merged == ()
    best = (pair.W_dec[[0, 1, 2]] @ features[:3].mT).amax(0)
    assert best.min() > 0.999, best
    assert pair.model.prior.moments[0, 3] < 1e-4
    assert bound(pair, x) > before + 0.1


def test_a_latent_that_is_two_features_becomes_both_and_its_sibling_is_told_apart():
    features, x, pair = contrasted()
    before = bound(pair, x)
    assert (pair.W_dec[:3] @ features[:3].mT).abs().amax(0).max() < 0.75
    found = split_and_merge(pair, x)
    assert found.merged == ()
    assert found.split == ((0, 3),)
    best = (pair.W_dec @ features[:4].mT).amax(0)
    assert best.min() > 0.95, best
    rates, firsts, _ = pair.model.prior.moments[:, [0, 3]]
    torch.testing.assert_close(firsts / rates, torch.full((2,), SIZE))
    assert bound(pair, x) > before + 1


@pytest.mark.parametrize("free", [0, 1])
def test_at_the_truth_nothing_moves_without_splits(free):
    _, x, pair = truth(free)
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    found = split_and_merge(pair, x, most=0)
    assert found.merged == found.split == found.unfolded == ()
    for name, value in pair.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_split_without_a_use_is_undone_by_the_next_merge():
    features, x, pair = truth(free=1)
    ((latent, other),) = split_and_merge(pair, x).split
    assert other == 6
    assert (pair.W_dec[latent] @ features[latent]).abs() < 0.75  # half of it
    found = split_and_merge(pair, x, most=0)
    assert [set(pair) for pair in found.merged] == [{latent, other}]
    kept = found.merged[0][0]
    assert float(pair.W_dec[kept].detach() @ features[latent]) > 0.99


def test_what_a_merge_leaves_free_is_split_with_at_once():
    _, x, pair = halved()
    found = split_and_merge(pair, x)
    assert found.merged == ((0, 6),)
    ((latent, other),) = found.split
    assert other == 6
    assert latent != 0  # it has moved


def test_no_more_are_split_than_are_free_or_asked_for():
    _, x, pair = truth(free=3)
    assert len(split_and_merge(pair, x, most=2).split) == 2
    _, x, pair = truth(free=3)
    found = split_and_merge(pair, x).split
    assert len(found) == 3
    assert {other for _, other in found} == {6, 7, 8}


def test_a_latent_that_was_moved_aside_is_not_counted_as_split():
    _, x, pair = contrasted(free=2)
    assert split_and_merge(deepcopy(pair), x, most=1).split == ((0, 3),)
    assert split_and_merge(pair, x, most=2).split == ((0, 3), (2, 4))  # 1 is the one moved aside


def test_a_latent_that_fires_is_not_free_whatever_its_rate():
    _, x, pair = truth(free=1)
    moments = pair.model.prior.moments.clone()
    moments[:, 0] *= 1e-4
    pair.model.prior.follow(moments)
    assert [other for _, other in split_and_merge(pair, x).split] == [6]


def test_an_optimiser_forgets_the_atoms_that_have_moved_and_no_others():
    _, x, pair = contrasted()
    run = fit(pair, x, steps=3, batch_size=500, lr=1e-4, elbo=ExpectedELBO())
    run.run(progress=False)
    atoms, state = pair.W_dec, run.optimizer.state[pair.W_dec]
    was, first, second = (
        v.detach().clone() for v in (atoms, state["exp_avg"], state["exp_avg_sq"])
    )
    assert split_and_merge(pair, x, optimizer=run.optimizer).split == ((0, 3),)
    moved = (atoms != was).any(-1)
    assert moved.tolist() == [True, True, False, True]
    assert not state["exp_avg"][moved].any()
    assert torch.equal(state["exp_avg"][~moved], first[~moved])
    assert first[moved].any(), "else this test shows nothing"
    torch.testing.assert_close(state["exp_avg_sq"][moved], second.mean().expand(3, D))
    assert torch.equal(state["exp_avg_sq"][~moved], second[~moved])


def test_a_split_does_not_depend_on_the_sign_of_an_eigenvector(monkeypatch):
    _, x, first = contrasted()
    second, eigh = deepcopy(first), torch.linalg.eigh
    assert split_and_merge(first, x).split == ((0, 3),)
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: type(eigh(a))((eigh(a)[0], -eigh(a)[1])))
    assert split_and_merge(second, x).split == ((0, 3),)
    torch.testing.assert_close(second.W_dec, first.W_dec)


def test_rows_are_encoded_in_chunks(monkeypatch):
    _, x, first = contrasted()
    second = deepcopy(first)
    assert split_and_merge(first, x).split == ((0, 3),)
    monkeypatch.setattr(moves, "ROWS", 1_500)
    assert split_and_merge(second, x).split == ((0, 3),)
    torch.testing.assert_close(second.W_dec, first.W_dec)


def test_what_is_left_over_is_the_first_eigenvalue_above_the_mean():
    _, x, pair = truth()
    x = x + torch.randn(ROWS, D) * torch.tensor([0.1] * 8 + [0.2, 1.0])  # one of them stands out
    with torch.no_grad(), pair.evaluating():
        search = moves.Search(pair, x)
        codes = pair.encode(x)
        left = (pair.normalizer(x) - pair.normalizer(pair.decode(codes))).numpy()
        power = search.power(torch.Generator().manual_seed(0)).numpy()
    for k, fires in enumerate((codes > 0).numpy().T):
        values = np.linalg.eigvalsh(left[fires].T @ left[fires])
        assert power[k] <= values[-1] - values.mean() + 1e-6
        assert power[k] == pytest.approx(values[-1] - values.mean(), rel=1e-6)


def test_likeness_is_found_in_chunks(monkeypatch):
    monkeypatch.setattr(moves, "CHUNK", 3)
    pair = pair_of(torch.randn(8, D), [0.1] * 8, [1.0] * 8)
    x = torch.randn(500, D)
    with torch.no_grad(), pair.evaluating():
        search = moves.Search(pair, x)
    search.on = (torch.rand(500, 8) < 0.4).to(x.dtype)
    search.count = search.on.sum(0)
    on = search.on.numpy() > 0
    index = {
        (i, j): (on[:, i] & on[:, j]).sum() / (on[:, i] | on[:, j]).sum()
        for i, j in itertools.combinations(range(8), 2)
    }
    wanted = sorted((p for p in index if index[p] > 0.25), key=lambda p: -index[p])
    assert 0 < len(wanted) < len(index)
    found = search.alike(search.jaccard, 0.25)
    assert [pair[1:] for pair in found] == wanted
    assert [pair[0] for pair in found] == pytest.approx([index[p] for p in wanted])


def test_latents_that_hardly_fire_are_left_alone():
    _, x, pair = halved()
    few = x[: int((x[:30] @ pair.W_dec[0].detach() > 1).sum()) + 20]
    with torch.no_grad(), pair.evaluating():
        assert bool(moves.Search(pair, few).moved.all())
    assert split_and_merge(pair, few).merged == ()


def test_a_move_is_a_function_of_its_seed_and_leaves_the_mode():
    _, x, first = contrasted()
    second, found = deepcopy(first), []
    for pair in (first.train(), second.train()):
        torch.randn(5)
        state = torch.get_rng_state()
        found.append(split_and_merge(pair, x, seed=3))
        assert torch.equal(state, torch.get_rng_state())
        assert pair.training
    assert found[0] == found[1]
    assert torch.equal(first.W_dec, second.W_dec)


def mean_field_of_another_kind():
    pair = contrasted()[2]
    pair.guide.posterior = SpikeSlabPosterior(LinearEncoder(D, 3 * 4))
    return pair


def with_gates(gates):
    pair = contrasted()[2]
    pair.model.prior.prior.gates = gates
    return pair


@pytest.mark.parametrize(
    ("pair", "rows", "most", "code"),
    [
        (lambda: l1_autoencoder(D, 8, l1=0.1), 50, None, "moves.pair"),
        (mean_field_of_another_kind, 50, None, "moves.pair"),
        (lambda: with_gates(TreeGatesPrior([-1, 0, 0, -1])), 50, None, "moves.gates"),
        (lambda: with_gates(IsingGatesPrior(Graph.blocks((2, 2)))), 50, None, "moves.gates"),
        (lambda: contrasted()[2], 5, None, "moves.rows"),
        (lambda: contrasted()[2], 50, -1, "moves.most"),
    ],
)
def test_refusals(pair, rows, most, code):
    with pytest.raises(VsaeError) as caught:
        split_and_merge(pair(), torch.randn(rows, D), most=most)
    assert caught.value.code == code


def test_an_optimizer_of_others_is_refused_and_nothing_moved():
    _, x, pair = halved()
    before = pair.W_dec.detach().clone()
    other = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    with pytest.raises(VsaeError, match="without this pair's W_dec") as caught:
        split_and_merge(pair, x, optimizer=other)
    assert caught.value.code == "moves.optimizer"
    assert torch.equal(pair.W_dec, before)


def test_the_recipe_refuses_moves_of_given_structure_before_it_trains_on_it():
    x = rows_of(torch.rand(600, 6) < 0.2, axes())
    sizes = {"l1_rows": 400, "slab_rows": 400, "final_rows": 0, "batch_size": 100}
    recipe = RecoveryRecipe(**sizes, gates=lambda pair: TreeGatesPrior([-1, 0, 0, -1, -1, -1]))
    runs = recipe.phases(x, latents=6)
    next(runs).run(progress=False)
    with pytest.raises(VsaeError) as caught:
        next(runs)
    assert caught.value.code == "moves.gates"
    assert replace(recipe, moves=0).train(x, latents=6, progress=False)


def test_the_recipe_refuses_fewer_moves_than_none():
    x = rows_of(torch.rand(600, 6) < 0.2, axes())
    sizes = {"l1_rows": 400, "slab_rows": 400, "final_rows": 0, "batch_size": 100}
    with pytest.raises(VsaeError) as caught:
        RecoveryRecipe(**sizes, moves=-1).train(x, latents=6, progress=False)
    assert caught.value.code == "recipe.moves"


def test_learned_gates_may_move():
    _, x, pair = contrasted()
    pair.model.prior.prior.gates = CoFiringGatesPrior(
        IsingGatesPrior(Graph.blocks((1,) * 4)), start=0
    )
    pair.model.prior.follow(pair.model.prior.moments)
    assert split_and_merge(pair, x).split == ((0, 3),)


def test_a_latent_in_the_plane_of_a_split_is_free_and_atoms_stay_of_length_one():
    """The parent with a part of its child, and the child: what is split off is there already."""
    features = axes()
    parent = torch.rand(ROWS) < 0.3
    fires = torch.stack([parent, parent & (torch.rand(ROWS) < 0.4)], -1)
    c, one = features[:2]
    atoms = torch.stack([c + 0.6 * one, one, features[8]])
    pair = pair_of(atoms, [0.3, 0.12, 1e-5], [SIZE] * 3)
    x = rows_of(fires, features)
    assert split_and_merge(pair, x).split == ((0, 2),)
    torch.testing.assert_close(pair.W_dec.norm(dim=-1), torch.ones(3))
    assert pair.model.prior.moments[0, 1] < 1e-4
    assert pair.model.prior.moments[0, [0, 2]].min() > 0.1


def test_moves_see_rows_in_the_units_of_the_model():
    features, x, pair = contrasted()
    shift, scale = 30 * torch.randn(D), torch.tensor(0.2)
    moved = Autoencoder(pair.model, pair.guide, AffineNormalizer(shift, scale))
    assert split_and_merge(moved, x * scale + shift).split == ((0, 3),)
    assert (moved.W_dec @ features[:4].mT).amax(0).min() > 0.95


def test_rows_that_are_not_finite_are_refused_before_anything_moves():
    _, x, pair = contrasted()
    x[7, 2] = torch.nan
    before = pair.W_dec.detach().clone()
    with pytest.raises(VsaeError) as caught:
        split_and_merge(pair, x)
    assert caught.value.code == "data.nonfinite"
    assert torch.equal(before, pair.W_dec)


@pytest.mark.parametrize(
    ("parts", "asked"),
    [(7, [(5, None), (10, None), (15, None), (20, None), (25, 0)]), (0, []), (40, [])],
)
def test_the_recipe_splits_until_the_rate_falls_and_merges_a_little_longer(
    monkeypatch, parts, asked
):
    found = []

    def act(pair, rows, *, optimizer, seed, most):
        assert optimizer.param_groups[0]["params"][0] is pair.W_dec
        assert pair.model.decoder is decoders[-1]
        assert len(rows) == 2_000
        found.append((seed - 7, most))

    monkeypatch.setattr(recovery, "split_and_merge", act)
    x = rows_of(torch.rand(2_000, 6) < 0.2, axes())
    sizes = {"l1_rows": 1_000, "slab_rows": 3_600, "final_rows": 1_000, "moves": parts}
    decoders = []
    for run in RecoveryRecipe(**sizes, batch_size=100).phases(x, latents=7, seed=7):
        decoders.append(run.autoencoder.model.decoder)
        run.run(every=10, progress=False)
    assert found == asked


def test_between_updates_a_run_does_what_it_is_asked_once_even_if_it_is_resumed(monkeypatch):
    called = []
    run = fit(l1_autoencoder(4, 6, l1=0.1), torch.randn(60, 4), steps=8, batch_size=10)
    run.between({2, 5}, lambda step: called.append((step, run.step)))
    step, stops = run._step, iter([True])

    def interrupted(number):
        if number == 2 and next(stops, False):
            raise KeyboardInterrupt
        return step(number)

    monkeypatch.setattr(run, "_step", interrupted)
    run.run(progress=False)
    assert run.interrupted
    assert run.step == 2
    run.run(progress=False)
    assert not run.interrupted
    assert called == [(2, 2), (5, 5)]


def test_a_step_that_is_not_finite_is_taken_back_to_what_was_moved():
    pair = l1_autoencoder(4, 6, l1=0.1)
    x = torch.randn(60, 4)
    run = fit(pair, x, steps=8, batch_size=10)

    def act(step):
        pair.model.decoder.b_dec.fill_(7.0)
        run.batches.data.fill_(torch.inf)

    run.between({3}, act)
    with pytest.raises(NonFiniteLossError):
        run.run(progress=False)
    torch.testing.assert_close(pair.b_dec, torch.full((4,), 7.0))
