"""What a latent does to what is restored, by intervention: its site set to zero, nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyro.poutine as poutine
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vsae.autoencoder import Activations, Autoencoder
from vsae.errors import ConfigError
from vsae.layered_autoencoder import LayeredAutoencoder
from vsae.metrics.layer_variance import concatenated, layer_views
from vsae.point_estimate import point_estimate

ROWS = 8192  # restored at a time


@torch.no_grad()
def ablated(pair: Autoencoder, x: Activations, latents: Sequence[int]) -> Tensor:
    r"""The mean of the model under :math:`do(z_k := 0)`, in raw units, shaped as ``pair(x)``.

    .. math:: \mathrm E\big[x \mid do(z_k := 0),\ z_{-k} = \hat z_{-k}(x)\big]

    The latent sites are at the guide's point estimate of x, as in ``pair(x)``; then
    :class:`pyro.poutine.do` sets ``z`` to zero at the latents, in the program of the model: what
    follows from z follows from that zero, and the guide is not asked again, so that no other latent
    takes over. In slots, it is the slots of those latents that are set to zero.

    Args:
        pair: Any pair whose model has a site ``z``; a crosscoder as a rule.
        x: Activations, as the pair takes them.
        latents: Which are switched off, together.

    Raises:
        ConfigError: ``intervention.latents`` for latents that do not exist, or a model without a
            site ``z``.

    Example:
        >>> from vsae.examples import tiny
        >>> from vsae.autoencoder import Autoencoder
        >>> model, guide, x = tiny()
        >>> pair = Autoencoder(model, guide)
        >>> torch.allclose(ablated(pair, x, range(3)), pair.b_dec.expand(5, 2))
        True

    Source:
        Pearl (2009), *Causality*, ch. 3; of a Pyro program, Richardson & Robins (2013), *Single
        World Intervention Graphs*.
    """
    sites = {name: point_estimate(q) for name, q in pair.posterior(x).items()}
    zeroed = _zeroed(sites, latents, pair.model.decoder.latents)
    model = poutine.condition(poutine.do(pair.model, data={"z": zeroed}), data=sites)
    with pair.evaluating():
        return pair.raw(model(pair.normalizer(pair.check(x))))


def ablation(pair: Autoencoder, latents: Sequence[int]) -> Callable[[Activations], Tensor]:
    r"""The map that takes a latent's part out of activations and leaves all else, its error too.

    .. math:: x \mapsto x + \hat x_{do(z_k := 0)} - \hat x

    for whatever runs a network on changed activations. The reconstruction's own error stays, so
    that what the network does differently is the latent's doing. Of a crosscoder that explains all
    layers it reads: those that are no target have no part to take out.

    What comes back has the shape that came in; a list of layers comes back as rows.

    Args:
        pair: A pair that restores what it reads.
        latents: Which are switched off, together.

    Raises:
        ConfigError: ``intervention.targets`` for a crosscoder to which some layers are given;
            ``intervention.latents``, when called.

    Example:
        >>> from vsae import topk_crosscoder
        >>> pair, x = topk_crosscoder((4, 4), 16, k=3), torch.randn(5, 2, 4)
        >>> without = ablation(pair, [0, 7])(x)  # x, less what these two do
        >>> torch.allclose(without - x, ablated(pair, x, [0, 7]) - pair(x), atol=1e-5)
        True
    """
    if isinstance(pair, LayeredAutoencoder) and len(pair.model.targets) < len(pair.layers):
        raise ConfigError(
            f"a part is taken out of what is read: got a crosscoder that restores layers "
            f"{pair.model.targets} of {len(pair.layers)}, expected all of them. Use ablated(pair, "
            "x, latents), the restored layers without the latents.",
            code="intervention.targets",
            context={"targets": pair.model.targets, "layers": len(pair.layers)},
        )

    def without(x: Activations) -> Tensor:
        rows, change = pair.rows(x), (ablated(pair, x, latents) - pair(x)).detach()
        changed = rows + change.reshape(rows.shape)
        return changed.reshape(x.shape) if isinstance(x, Tensor) else changed

    return without


@dataclass(frozen=True)
class AblationEffects:
    """What switching each latent off does to every layer, on the rows on which it fires.

    Args:
        rows: ``(L,)``, how many those are.
        moved: ``(L, n)``, mean squared length by which the layer's reconstruction moves, raw units;
            nan without rows.
        error: ``(L, n)``, mean increase of the layer's squared error: negative where it is better
            restored without the latent.
    """

    rows: Int[Tensor, " L"]
    moved: Float[Tensor, "L n"]
    error: Float[Tensor, "L n"]


@torch.no_grad()
def ablation_effects(
    pair: Autoencoder, x: Activations, latents: Sequence[int], layers: Sequence[int]
) -> AblationEffects:
    r"""Switch latents off one by one and measure every layer of what is restored.

    With a linear decoder :math:`\mathrm{moved}_{kl} = s_l^2\, \mathrm E[c_k^2 \mid c_k \ne 0]\,
    \lVert w_{kl}\rVert^2`, with the layer's scale s: the *norm* of the decoder is already the
    causal effect on the reconstruction, and what is new is ``error``, whether that effect was
    needed.

    Args:
        pair: A pair that restores what it reads.
        x: Activations, ``(N, n, d)``, ``(N, Σ d_l)`` or a list of ``(N, d_l)``.
        latents: Which, each by itself.
        layers: Widths.

    Raises:
        ConfigError: ``intervention.latents``.
        ShapeError: ``metrics.layers``.

    Example:
        >>> from vsae import l1_crosscoder
        >>> pair = l1_crosscoder((2, 2), 4, l1=0.1)
        >>> ablation_effects(pair, torch.ones(3, 2, 2), [0, 1], (2, 2)).moved.shape
        torch.Size([2, 2])
    """
    x = pair.rows(x)
    fires = torch.cat([pair.encode(rows)[:, list(latents)] != 0 for rows in x.split(ROWS)])
    found = []
    for at, latent in enumerate(latents):
        mine = x[fires[:, at]]
        sums = torch.zeros(2, len(layers), dtype=torch.float64)
        for rows in mine.split(ROWS) if len(mine) else ():
            clean, without = (
                concatenated(y, layers).double().cpu()
                for y in (pair(rows), ablated(pair, rows, [latent]))
            )
            truth = concatenated(rows, layers).double().cpu()
            more = (truth - without).square() - (truth - clean).square()
            for into, values in zip(sums, ((clean - without).square(), more), strict=True):
                into += torch.stack([part.sum() for part in layer_views(values, layers)])
        found.append(sums / len(mine) if len(mine) else sums * torch.nan)
    moved, error = torch.stack(found, 1)
    return AblationEffects(fires.sum(0).cpu(), moved, error)


def _zeroed(sites: dict[str, Tensor], latents: Sequence[int], count: int) -> Tensor:
    chosen = list(latents)
    if "z" not in sites or not all(0 <= k < count for k in chosen):
        raise ConfigError(
            f"latents to switch off: got {chosen} of {count}, of a model with the latent sites "
            f"{sorted(sites)}, expected numbers 0..{count - 1} and a site z.",
            code="intervention.latents",
            context={"latents": chosen, "count": count},
        )
    z = sites["z"]
    if "support" in sites:
        off = torch.isin(sites["support"], torch.tensor(chosen, device=z.device))
    else:
        off = torch.isin(torch.arange(count, device=z.device), torch.tensor(chosen).to(z.device))
    return torch.where(off, 0.0, z)
