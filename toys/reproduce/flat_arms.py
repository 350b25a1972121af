"""The arms: one architecture each, with its knob, and the strengths it is swept over.

A new one is a function ``(size, strength) -> Autoencoder`` and a line of ``ARMS``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from priors import IsotropicPrior
from toys.reproduce.quickstart_structure import Belief
from vsae.autoencoder import Autoencoder
from vsae.presets import (
    batch_topk_autoencoder,
    jumprelu_autoencoder,
    l1_autoencoder,
    topk_autoencoder,
    variational_autoencoder,
    with_auxk,
)
from vsae.presets.abs_topk import abs_topk_autoencoder
from vsae.presets.gated import gated_autoencoder
from vsae.presets.matching_pursuit import matching_pursuit_autoencoder
from vsae.presets.matryoshka import matryoshka_autoencoder
from vsae.presets.multi_topk import multi_topk_autoencoder
from vsae.presets.switch import switch_autoencoder

DEAD_AFTER = 10_000  # rows without firing after which AuxK calls a latent dead
SLOTS = 64  # of a JumpReLU row, at most
JUMP = (
    0.5  # initial threshold and bandwidth of JumpReLU, in units where x has variance 1 per neuron
)
EXPERTS = 4  # of the Switch SAE, each with that share of the latents
SPARSITY = 32  # latents per active one that the prior of the V-SAE expects


@dataclass(frozen=True, kw_only=True)
class Size:
    """What an architecture is built for.

    Args:
        d_model: Width of an activation.
        latents: ``K``.
        normalizer: The units: centred, E‖x‖² = d; the same for all arms.
    """

    d_model: int
    latents: int
    normalizer: nn.Module


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An architecture with one knob.

    Args:
        label: As tables and figures print it.
        knob: The symbol of its strength.
        build: Makes an untrained pair.
        strengths: Values of the knob on each data, from dense to sparse or the reverse.
    """

    label: str
    knob: str
    build: Callable[[Size, float], Autoencoder]
    strengths: Mapping[str, tuple[float, ...]]

    def middle(self, data: str) -> float:
        """The strength at which the learning rate is chosen."""
        return self.strengths[data][len(self.strengths[data]) // 2]


def l1(size: Size, strength: float) -> Autoencoder:
    """ReLU codes, λ‖z‖₁."""
    return l1_autoencoder(size.d_model, size.latents, l1=strength, normalizer=size.normalizer)


def gated(size: Size, strength: float) -> Autoencoder:
    """Gate and magnitude apart, λ‖gate‖₁."""
    return gated_autoencoder(size.d_model, size.latents, l1=strength, normalizer=size.normalizer)


def jumprelu(size: Size, strength: float) -> Autoencoder:
    """A threshold per latent, λ‖z‖₀."""
    return jumprelu_autoencoder(
        size.d_model,
        size.latents,
        l0=strength,
        width=min(SLOTS, size.latents),
        threshold=JUMP,
        bandwidth=JUMP,
        normalizer=size.normalizer,
    )


def with_k(preset: Callable[..., Autoencoder]) -> Callable[[Size, float], Autoencoder]:
    """A preset whose knob is ``k``."""

    def build(size: Size, strength: float) -> Autoencoder:
        k = int(strength)
        return preset(size.d_model, size.latents, k=k, normalizer=size.normalizer)

    return build


def topk_auxk(size: Size, strength: float) -> Autoencoder:
    """TopK, whose dead latents learn from what is left."""
    return with_auxk(with_k(topk_autoencoder)(size, strength), after=DEAD_AFTER)


def switch(size: Size, strength: float) -> Autoencoder:
    """TopK within the one expert that a router picks for the row."""
    k = int(strength)
    return switch_autoencoder(
        size.d_model, size.latents, k=k, experts=EXPERTS, normalizer=size.normalizer
    )


def variational(size: Size, strength: float) -> Autoencoder:
    """Rectified Gaussian codes, noise σ; the prior expects one latent in ``SPARSITY`` to be active.

    Its root mean square when active is what so many orthogonal atoms would need to make E‖x‖² = d.
    """
    expected = size.latents / SPARSITY
    belief = Belief.matching(1 / SPARSITY, math.sqrt(size.d_model / expected))
    return variational_autoencoder(
        size.d_model,
        IsotropicPrior(size.latents, scale=belief.scale, loc=belief.mean),
        noise=strength,
        link=nn.ReLU(),
        scale=0.2 * belief.scale,
        normalizer=size.normalizer,
    )


_KS = {"toy": (2.0, 4.0, 8.0), "stories": (4.0, 10.0, 22.0)}

ARMS: dict[str, Arm] = {
    "l1": Arm(
        label="ℓ1",
        knob="λ",
        build=l1,
        strengths={"toy": (1.4, 2.7, 5.2), "stories": (1.1, 2.0, 3.6)},
    ),
    "gated": Arm(
        label="Gated",
        knob="λ",
        build=gated,
        strengths={"toy": (1.4, 3.0, 5.0), "stories": (1.2, 2.0, 3.5)},
    ),
    "jumprelu": Arm(
        label="JumpReLU",
        knob="λ",
        build=jumprelu,
        strengths={"toy": (0.18, 0.4, 3.0), "stories": (0.18, 0.35, 0.8)},
    ),
    "topk": Arm(label="TopK", knob="k", build=with_k(topk_autoencoder), strengths=_KS),
    "topk_auxk": Arm(label="TopK + AuxK", knob="k", build=topk_auxk, strengths=_KS),
    "multi_topk": Arm(
        label="Multi-TopK", knob="k", build=with_k(multi_topk_autoencoder), strengths=_KS
    ),
    "batch_topk": Arm(
        label="BatchTopK", knob="k", build=with_k(batch_topk_autoencoder), strengths=_KS
    ),
    "matryoshka": Arm(
        label="Matryoshka", knob="k", build=with_k(matryoshka_autoencoder), strengths=_KS
    ),
    "abs_topk": Arm(label="AbsTopK", knob="k", build=with_k(abs_topk_autoencoder), strengths=_KS),
    "switch": Arm(label="Switch", knob="k", build=switch, strengths=_KS),
    "matching_pursuit": Arm(
        label="Matching pursuit",
        knob="k",
        build=with_k(matching_pursuit_autoencoder),
        strengths={"toy": (2.0, 4.0, 7.0), "stories": (4.0, 8.0, 17.0)},
    ),
    "variational": Arm(
        label="V-SAE, isotropic",
        knob="σ",
        build=variational,
        strengths={"toy": (0.15, 0.25, 0.5), "stories": (0.2, 0.32, 0.55)},
    ),
}
"""By name, in the order of tables."""

BASE = "topk"
"""What the others are compared with."""
