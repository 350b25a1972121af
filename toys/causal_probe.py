"""What a latent of a crosscoder does in the network it was read from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from toys.layer_losses import replaced_runs
from toys.layer_streams import BLOCKS
from toys.stories import Split, StoriesData
from vsae.autoencoder import Autoencoder
from vsae.interventions import ablation


@dataclass(frozen=True, kw_only=True)
class OutputEffect:
    """What the network's output becomes without a latent, mean over all predicted tokens, in nats.

    Args:
        layers: At which stream the latent's part was taken out, each by itself.
        divergence: ``(n,)``, KL(untouched ‖ without the latent).
        loss: ``(n,)``, increase of the cross-entropy: negative where the latent harms.
    """

    layers: tuple[int, ...]
    divergence: Float[Tensor, " n"]
    loss: Float[Tensor, " n"]


@dataclass(frozen=True, kw_only=True)
class Propagation:
    r"""Whether the network carries a change from layer to layer as the crosscoder says.

    A latent's part :math:`δ^l = \hat x^l_{do(z_k := 0)} - \hat x^l` is put into the stream of layer
    l, and the network runs on to layer m, where its stream has really changed by
    :math:`Δ^{lm}` and the crosscoder's decoder says :math:`δ^m`. Over the rows on which the latent
    fires:

    Args:
        rows: How many those are.
        cosine: ``(n, n)``, :math:`\sum\langle Δ, δ\rangle / \sqrt{\sum\lVert Δ\rVert^2
            \sum\lVert δ\rVert^2}`, source l by target m; 1 on the diagonal, nan below it.
        carried: ``(n, n)``, :math:`\sum\langle Δ, δ\rangle / \sum\lVert δ\rVert^2`: 1 if the
            latent's part in m is what the network makes of its part in l, 0 if it has nothing to do
            with it, more if other ways add to it.
    """

    rows: int
    cosine: Float[Tensor, "n n"]
    carried: Float[Tensor, "n n"]


def output_effect(
    data: StoriesData,
    pair: Autoencoder,
    latents: Sequence[int],
    split: Split = "heldout",
    layers: Sequence[int] = BLOCKS,
) -> OutputEffect:
    """Take latents' part out of one stream at a time and let the network run on.

    The stream becomes ``h + x̂(do) - x̂`` at every row (:func:`vsae.ablation`): the latent's part is
    gone, the crosscoder's error is not. BOS keeps its stream. A latent that the decoder writes into
    a layer and that the network does not read there has no effect, however great its norm.

    Args:
        data: Text and network.
        pair: A crosscoder of the streams of ``layers``, in raw units.
        latents: Which are switched off, together.
        split: Which stories.
        layers: Which streams the crosscoder restores, from the lowest up.

    Raises:
        ConfigError: ``intervention.latents``; ``network.layer``, ``stories.split``.
    """
    layers = tuple(layers)
    clean = replaced_runs(data, torch.clone, split, layers[-1:])[0][0]
    runs = torch.tensor(replaced_runs(data, ablation(pair, latents), split, layers)[:-1])
    loss, divergence = runs.double().mT
    return OutputEffect(layers=layers, divergence=divergence, loss=loss - clean)


@torch.no_grad()
def propagation(
    data: StoriesData,
    pair: Autoencoder,
    latents: Sequence[int],
    split: Split = "heldout",
    layers: Sequence[int] = BLOCKS,
) -> Propagation:
    """Take latents' part out of each stream and compare what follows with the decoder's word.

    Changes at other rows, by attention, are not counted; nor is what attention from changed rows
    adds at rows on which the latents do not fire.

    Args:
        data: Text and network.
        pair: A crosscoder of the streams of ``layers``, in raw units.
        latents: Which are switched off, together; one as a rule.
        split: Which stories.
        layers: Which streams the crosscoder restores, from the lowest up.

    Raises:
        ConfigError: ``intervention.latents``; ``network.layer``, ``stories.split``.
    """
    layers, change, count = tuple(layers), ablation(pair, latents), 0
    products = torch.zeros(3, len(layers), len(layers), dtype=torch.float64)
    for batch in data.batches(split):
        streams = data.model.residuals(batch.tokens)[list(layers)]
        rows = streams[:, batch.rows].movedim(0, 1)
        fires = pair.encode(rows)[:, list(latents)].any(-1)
        told = torch.zeros_like(streams)
        told[:, batch.rows] = (change(rows) - rows).movedim(1, 0)
        where = batch.rows.clone()
        where[batch.rows] = fires
        count += int(fires.sum())
        for i, source in enumerate(layers):
            stream, at = streams[i] + told[i], source
            for j in range(i, len(layers)):
                stream, at = data.model.advance(stream, at, layers[j]), layers[j]
                real, said = (stream - streams[j])[where].double(), told[j][where].double()
                parts = (real * said).sum(), real.square().sum(), said.square().sum()
                products[:, i, j] += torch.stack(parts)
    both, real, said = products
    return Propagation(rows=count, cosine=both / (real * said).sqrt(), carried=both / said)
