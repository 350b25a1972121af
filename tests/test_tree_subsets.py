"""Trees of latents and the law of the paths of a row."""

import itertools
import math

import pytest
import torch
from scipy import stats

from priors import Tree, TreeSubsets, UniformSubsets
from priors.errors import ConfigError

TREE = Tree(3, (2, 2))


def paths(tree, k):
    """Every set of ``k`` roots with a child each, and so on, in order of roots."""
    for roots in itertools.combinations(range(tree.roots), k):
        choices = [range(each) for each in tree.branching for _ in range(k)]
        for choice in itertools.product(*choices):
            levels, place = [list(roots)], list(roots)
            for level, each in enumerate(tree.branching):
                picked = choice[level * k : (level + 1) * k]
                place = [p * each + c for p, c in zip(place, picked, strict=True)]
                levels.append([tree.offsets[level + 1] + p for p in place])
            yield list(itertools.chain(*levels))


def test_numbers_of_a_tree():
    assert (TREE.depth, TREE.sizes, TREE.offsets, TREE.latents) == (3, (3, 6, 12), (0, 3, 9), 21)
    parents, levels, families = TREE.parents(), TREE.levels(), TREE.families()
    for node in range(3, 21):
        above = int(parents[node])
        assert levels[node] == levels[above] + 1
        assert families[node] == families[above]
    counts = parents[3:].bincount(minlength=21)
    assert counts.tolist() == [2] * 9 + [0] * 12
    assert TREE.graph().num_components == 3
    assert Tree(4).parents().tolist() == [-1] * 4


def test_density_is_one_over_the_number_of_paths():
    for k in (1, 2, 3):
        every = torch.tensor(list(paths(TREE, k)))
        law = TreeSubsets(TREE, k)
        assert law.log_prob(every).exp().sum().item() == pytest.approx(1.0, rel=1e-12)
        assert law.log_count() == pytest.approx(math.log(len(every)), rel=1e-12)


def test_draws_are_uniform_paths():
    law, every = TreeSubsets(TREE, 2), list(paths(TREE, 2))
    drawn = law.sample(torch.Size([20_000]))
    assert law.support.check(drawn).all()
    order = drawn[:, :2].argsort(-1)
    sets = torch.cat([level.gather(1, order) for level in drawn.split(2, -1)], -1)
    found = {tuple(path): 0 for path in every}
    for path in sets.tolist():
        found[tuple(path)] += 1
    assert stats.chisquare(list(found.values())).pvalue > 1e-3


def test_without_children_it_is_uniform_subsets():
    value = torch.tensor([[4, 0], [1, 2]])
    ours, theirs = TreeSubsets(Tree(5), 2), UniformSubsets(5, 2)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value))
    assert ours.event_shape == theirs.event_shape


@pytest.mark.parametrize(
    "value",
    [
        [0, 1, 3, 5, 9, 15],  # a grandchild of another child
        [0, 1, 5, 3, 13, 9],  # children exchanged
        [1, 1, 5, 5, 13, 13],  # a root twice
        [0, 3, 3, 9, 9, 21],  # a child among the roots
        [-1, 1, 3, 5, 9, 13],
    ],
)
def test_other_sets_are_refused(value):
    with pytest.raises(ValueError, match="support"):
        TreeSubsets(TREE, 2).log_prob(torch.tensor(value))


def test_expands_as_a_distribution():
    law = TreeSubsets(TREE, 2).expand((4, 5))
    assert law.sample((3,)).shape == (3, 4, 5, 6)
    assert law.log_prob(law.sample()).shape == (4, 5)


@pytest.mark.parametrize("numbers", [(0, ()), (3, (0,)), (3, (2, -1)), (True, ())])
def test_levels_without_latents(numbers):
    with pytest.raises(ConfigError) as caught:
        Tree(*numbers)
    assert caught.value.code == "tree.size"


def test_more_paths_than_roots():
    with pytest.raises(ConfigError) as caught:
        TreeSubsets(TREE, 4)
    assert caught.value.code == "subsets.size"
