"""The jobs of the causal probe: a crosscoder, and the network without its latents, one by one."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from toys.causal_probe import propagation
from toys.layer_losses import replaced_runs
from toys.layer_streams import BLOCKS, layer_streams
from toys.reproduce.jobs import Found, Job
from toys.reproduce.part4_probe_arms import Chosen, choose, crosscoder, stories
from toys.reproduce.part4_probe_settings import ProbeSettings
from toys.reproduce.part4_truth_training import numbers
from toys.stories import StoriesData
from vsae import ablation, ablation_effects, metrics
from vsae.autoencoder import Autoencoder
from vsae.errors import NonFiniteLossError

ASKED, OTHER, SWAPPED = "asked", "other", "swapped"
"""A latent switched off; another of equal frequency; the latent's part in the other's direction."""


@dataclass(frozen=True, kw_only=True)
class ProbeJob(Job):
    """One crosscoder.

    Args:
        arm: How it is trained.
        sizes: Everything else.
        seed: Of weights and the order of rows.
    """

    arm: str
    sizes: ProbeSettings
    seed: int

    def compute(self) -> Found:
        clock = time.process_time()
        row = {"part": "probe", "arm": self.arm, "seed": self.seed, "failed": None}
        row |= {"seconds": 0.0, "models": []}
        try:
            pair = crosscoder(self.arm, self.sizes, self.seed).pair
        except NonFiniteLossError as error:
            return Found(row | {"failed": str(error)})
        data = stories(self.sizes.stories)
        chosen = choose(pair, data, self.sizes, self.seed)
        held = layer_streams(data, "heldout")
        row |= numbers(
            {
                "l0": float(metrics.l0(pair.encode(held))),
                "ev": float(
                    metrics.explained_variance(held.flatten(1), pair(held).detach().flatten(1))
                ),
            }
        )
        row["models"] = list(probed(data, pair, chosen))
        return Found(row | {"seconds": time.process_time() - clock})


@torch.no_grad()
def probed(data: StoriesData, pair: Autoencoder, chosen: Chosen) -> Iterator[dict]:
    """A line per latent and intervention; nothing of latents that never fire on held-out rows."""
    held = layer_streams(data, "heldout")
    clean = replaced_runs(data, torch.clone, "heldout", BLOCKS[-1:])[0][0]
    for latent, other in zip(chosen.latents.tolist(), chosen.others.tolist(), strict=True):
        maps = {
            ASKED: (latent, ablation(pair, [latent])),
            OTHER: (other, ablation(pair, [other])),
            SWAPPED: (latent, swapped(pair, latent, other)),
        }
        for kind, (own, change) in maps.items():
            line = {"kind": kind, "pair": latent, "latent": own}
            line |= {"rate": float(chosen.rate[own]), "f1": float(chosen.f1[own])}
            line |= {"token": data.tokenizer.decode([1, int(chosen.token[own])])}
            yield line | effects(data, pair, own, change, held, clean, kind)


def effects(
    data: StoriesData,
    pair: Autoencoder,
    latent: int,
    change: Callable[[Tensor], Tensor],
    held: Tensor,
    clean: float,
    kind: str,
) -> dict:
    """What the network's output becomes, per row on which the latent fires; and what is carried."""
    rows = int((pair.encode(held)[:, latent] != 0).sum())
    if not rows:
        return {"rows": 0}
    runs = replaced_runs(data, change, "heldout", BLOCKS)[:-1]
    each = len(data.row_tokens("heldout")) / rows
    line: dict = {"rows": rows}
    line |= {"kl": [kl * each for _, kl in runs], "ce": [(ce - clean) * each for ce, _ in runs]}
    if kind == SWAPPED:
        return line
    carried = propagation(data, pair, [latent])
    line |= {"carried": carried.carried.tolist(), "cosine": carried.cosine.tolist()}
    own = ablation_effects(pair, held, [latent], pair.layers)
    share = own.error[0] / own.moved[0]
    line |= {"needed": share.tolist(), "moved": own.moved[0].tolist()}
    return _plain(line)


def _plain(value):
    """``None`` for what is undefined, down to the numbers of lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and value != value else value


def swapped(pair: Autoencoder, latent: int, other: int) -> Callable[[Tensor], Tensor]:
    """What is taken out where a latent fires has its length in each layer, another's direction."""
    atoms = pair.W_dec.detach()[other].view(len(pair.layers), -1)
    unit = torch.nn.functional.normalize(atoms, dim=-1)
    own = ablation(pair, [latent])

    def change(x: Tensor) -> Tensor:
        return x - (x - own(x)).norm(dim=-1, keepdim=True) * unit

    return change


def probe_jobs(sizes: ProbeSettings, seeds: tuple[int, ...]) -> Iterator[ProbeJob]:
    """Of the first seed alone: it is latents that are many."""
    for arm in sizes.arms:
        yield ProbeJob(arm=arm, sizes=sizes, seed=seeds[0])
