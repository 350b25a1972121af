"""Hierarchies written out: random forests, ancestors by walking, and all dealings of parents."""

import itertools

import torch


def normal(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def uniform(seed, *shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def depth_of(parents, latent):
    """Ancestors counted one by one."""
    count = 0
    while parents[latent] >= 0:
        latent, count = parents[latent], count + 1
    return count


def random_forest(seed, latents):
    """Each latent a root, or the child of one before it; then all renamed at random."""
    g = torch.Generator().manual_seed(seed)
    new = torch.randperm(latents, generator=g)
    parents = torch.full((latents,), -1)
    for i in range(1, latents):
        above = int(torch.randint(-1, i, (), generator=g))
        parents[new[i]] = new[above] if above >= 0 else -1
    return parents


def all_dealings(parents, defined):
    """Every hierarchy with the parents of each level's ``defined`` children dealt out anew."""
    levels = {}
    for child in (parents >= 0).nonzero().flatten().tolist():
        if child in defined:
            levels.setdefault(depth_of(parents, child), []).append(child)
    orders = [list(itertools.permutations(members)) for members in levels.values()]
    for choice in itertools.product(*orders):
        new = parents.clone()
        for members, order in zip(levels.values(), choice, strict=True):
            new[list(members)] = parents[list(order)]
        yield new


FOREST = torch.tensor([-1, -1, 0, 0, 1, 1, 2, 4, 4])  # two trees of three levels: 4! 3! dealings


def sparse_codes(seed, rows, latents, rate=0.5):
    return normal(seed, rows, latents) * (uniform(seed + 1, rows, latents) < rate)
