"""Solutions in closed form, measured as trained models are: what absorption and hedging cost."""

from collections.abc import Iterator

import torch

from toys.absorption import absorbed_solution, true_solution
from toys.reproduce.hsae_data import HedgingProblem, TreeProblem, problem
from toys.reproduce.hsae_recipes import Flat
from toys.reproduce.hsae_settings import Settings
from toys.reproduce.hsae_structure import CONTROLS, absorbed, collected
from vsae.autoencoder import Autoencoder
from vsae.batches import stream

SOLUTIONS = {"exact true solution": true_solution, "exact absorbed solution": absorbed_solution}
ORTHONORMAL = ("published", "absorption")  # toys that have them


def exact(settings: Settings) -> list[dict]:
    """A row per data, solution and seed."""
    return [row for seed in settings.seeds for row in _of(settings, seed)]


def _of(settings: Settings, seed: int) -> Iterator[dict]:
    for data in (name for name in ORTHONORMAL if name in settings.data):
        found = problem(data, settings, seed)
        assert isinstance(found, TreeProblem)
        for name, solution in SOLUTIONS.items():
            with torch.random.fork_rng(devices=[]):
                pair = solution(found.toy)
            flat = Flat(arm="topk", width=found.toy.forest.size, k=1)
            row = {"data": data, "name": name, "seed": seed, "latents": flat.width}
            yield row | found.score(pair) | _absorption(found, pair, flat, seed)
    if "hedging" not in settings.data:
        return
    found = problem("hedging", settings, seed)
    assert isinstance(found, HedgingProblem)
    with torch.random.fork_rng(devices=[]):
        atoms = found.case.biased_solution(found.toy).W_dec
    yield {"data": "hedging", "name": "exact", "seed": seed} | found.special(atoms)


@torch.no_grad()
def _absorption(found: TreeProblem, pair: Autoencoder, recipe: Flat, seed: int) -> dict[str, float]:
    truth, codes = found.truth, pair.encode(found.test)
    scores = absorbed(truth, found.toy.dictionary, pair, codes, recipe, stream(seed, CONTROLS))
    return collected(scores)
