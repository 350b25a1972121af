"""The crosscoders that the causal probe asks, and which of their latents."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from toys.layer_streams import layer_streams
from toys.reproduce.part4_probe_settings import ProbeSettings
from toys.reproduce.part4_truth_training import Trained, alone, together
from toys.reproduce.recovery_field import weights_of
from toys.stories import StoriesData
from vsae import LayerNormalizer
from vsae.autoencoder import Autoencoder
from vsae.presets import l1_crosscoder, topk_crosscoder

LABELS = {"l1": "ℓ1", "topk": "TopK"}
ROWS = 4096  # encoded at a time


@lru_cache(maxsize=2)
def stories(count: int) -> StoriesData:
    """The first stories of those that ship."""
    shipped = StoriesData.load()
    return StoriesData.from_texts(shipped.texts[:count], shipped.model, shipped.tokenizer)


def crosscoder(arm: str, sizes: ProbeSettings, seed: int) -> Trained:
    """A crosscoder of all blocks of the network, trained."""
    x = layer_streams(stories(sizes.stories), "train")
    layers, own = (x.shape[2],) * x.shape[1], sizes.training
    units = LayerNormalizer.fit(x.flatten(1), layers)
    with weights_of(seed):
        if arm == "topk":
            k = round(own.target)
            pair = topk_crosscoder(layers, sizes.latents, k=k, normalizer=units)
            return alone(pair, x, own, seed)
        pair = l1_crosscoder(layers, sizes.latents, l1=1.0, normalizer=units)
    rows = x.flatten(1)
    return together([pair], rows, own, steps=own.steps, seeds=[seed], betas=[1.0])[0]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Latents that are asked about.

    Args:
        latents: ``(L,)``, those whose firing says most surely which token is read.
        others: ``(L,)``, to each another of nearly its frequency, at random among the nearest.
        rate: ``(K,)``, the share of the rows on which each fires.
        f1: ``(K,)``, of a latent's firing as a classifier of its best token.
        token: ``(K,)``, that token.
    """

    latents: Int[Tensor, " L"]
    others: Int[Tensor, " L"]
    rate: Float[Tensor, " K"]
    f1: Float[Tensor, " K"]
    token: Int[Tensor, " K"]


NEAREST = 5  # of the latents of nearest frequency one is drawn


@torch.no_grad()
def choose(pair: Autoencoder, data: StoriesData, sizes: ProbeSettings, seed: int) -> Chosen:
    """On training rows, so that what is asked on held-out ones is not what was chosen by."""
    x, tokens = layer_streams(data, "train"), data.row_tokens("train")
    fires = torch.cat([pair.encode(rows) != 0 for rows in x.split(ROWS)])
    f1, token = token_f1(fires, tokens, data.model.sizes.tokens)
    rate = fires.double().mean(0)
    fit = (rate > 0) & (rate >= sizes.rarest) & (rate <= sizes.commonest)
    ordered = torch.where(fit, f1, -1.0).argsort(descending=True)
    asked = ordered[: min(sizes.asked, int(fit.sum()) // 2)]
    fit[asked] = False
    return Chosen(asked, partners(asked, rate, fit, seed), rate, f1, token)


def token_f1(
    fires: Tensor, tokens: Int[Tensor, " N"], vocabulary: int
) -> tuple[Float[Tensor, " K"], Int[Tensor, " K"]]:
    """The best F1 of each latent's firing as a classifier of one token, and which."""
    both = torch.zeros(vocabulary, fires.shape[1], dtype=torch.float64)
    both.index_add_(0, tokens, fires.double())
    count = torch.bincount(tokens, minlength=vocabulary).double()[:, None]
    return (2 * both / (count + fires.double().sum(0)).clamp(min=1.0)).max(0)


def partners(
    asked: Int[Tensor, " L"], rate: Float[Tensor, " K"], free: Tensor, seed: int
) -> Int[Tensor, " L"]:
    """To each latent a free one, each once, at random among those of nearest log frequency."""
    free, found = free.clone(), []
    draw = Generator().manual_seed(seed)
    for latent in asked.tolist():
        apart = (rate.log() - rate[latent].log()).abs().masked_fill(~free, torch.inf)
        near = apart.argsort()[: min(NEAREST, int(free.sum()))]
        own = int(near[torch.randint(len(near), (), generator=draw)])
        free[own] = False
        found.append(own)
    return torch.tensor(found)
