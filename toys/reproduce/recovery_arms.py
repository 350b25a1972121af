"""The arms that ours are compared with: one architecture each, with its knob."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from priors import CholeskyPrior, IsotropicPrior
from toys.reproduce.flat_arms import DEAD_AFTER, JUMP, SLOTS
from toys.reproduce.quickstart_structure import Belief
from toys.reproduce.recovery_data import Problem
from vsae.autoencoder import Autoencoder
from vsae.presets import (
    batch_topk_autoencoder,
    hierarchical_autoencoder,
    jumprelu_autoencoder,
    l1_autoencoder,
    matryoshka_autoencoder,
    topk_autoencoder,
    variational_autoencoder,
    with_auxk,
)

CHILDREN, SUBSPACE = 3, 4  # of each root of the H-SAE: as the trees of Data A branch
RATES = (1e-3, 0.5)  # within which a firing rate is believed
POSTERIOR = 0.2  # of the prior's scale, that of a V-SAE's posterior to begin with

Build = Callable[[Problem, int, float], Autoencoder]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An architecture with one knob.

    Args:
        label: As tables and figures print it.
        knob: What its strength is.
        build: ``(problem, latents, strength)``: an untrained pair.
        strengths: Values of the knob; all are reported if it is an L0, else the best is chosen.
        chosen: Whether one of them is chosen.
    """

    label: str
    knob: str
    build: Build
    strengths: tuple[float, ...]
    chosen: bool = False


def k_of(problem: Problem, share: float) -> int:
    """Active latents, as a share of the features that truly fire."""
    return max(1, round(share * problem.l0))


def with_k(preset: Callable[..., Autoencoder]) -> Build:
    """A preset whose knob is ``k``, with AuxK, as all three of them were published."""

    def build(problem: Problem, latents: int, share: float) -> Autoencoder:
        k = k_of(problem, share)
        pair = preset(problem.d_model, latents, k=k, normalizer=problem.normalizer)
        return with_auxk(pair, after=DEAD_AFTER)

    return build


def hierarchical(problem: Problem, latents: int, share: float) -> Autoencoder:
    """Two levels; every active root has an active child, so that half as many roots fire."""
    k = max(1, round(share * problem.l0 / 2))
    return hierarchical_autoencoder(
        problem.d_model,
        latents // (1 + CHILDREN),
        k=k,
        branching=(CHILDREN,),
        subspaces=(SUBSPACE,),
        normalizer=problem.normalizer,
    )


def l1(problem: Problem, latents: int, strength: float) -> Autoencoder:
    """ReLU codes, λ‖z‖₁ beside ‖x - x̂‖²."""
    return l1_autoencoder(problem.d_model, latents, l1=strength, normalizer=problem.normalizer)


def jumprelu(problem: Problem, latents: int, strength: float) -> Autoencoder:
    """A threshold per latent, λ‖z‖₀ beside ‖x - x̂‖²."""
    return jumprelu_autoencoder(
        problem.d_model,
        latents,
        l0=strength,
        width=min(SLOTS, latents),
        threshold=JUMP,
        bandwidth=JUMP,
        normalizer=problem.normalizer,
    )


def isotropic(problem: Problem, latents: int, noise: float) -> Autoencoder:
    """Rectified Gaussian codes, independent a priori, of the mean rate and size of the features."""
    rate, size = rates_and_sizes(problem)
    belief = Belief.matching(float(rate.mean()), float((rate @ size**2 / rate.sum()).sqrt()))
    prior = IsotropicPrior(latents, scale=belief.scale, loc=belief.mean)
    return _variational(problem, prior, noise, belief.scale)


def true_covariance(problem: Problem, latents: int, noise: float) -> Autoencoder:
    """The same with the features' own rates, sizes and correlation, fixed; spare latents alone."""
    rate, size = rates_and_sizes(problem)
    beliefs = [Belief.matching(float(r), float(s)) for r, s in zip(rate, size, strict=True)]
    mean, scale = (torch.tensor([getattr(b, n) for b in beliefs]) for n in ("mean", "scale"))
    count = min(latents, len(rate))
    covariance = torch.eye(latents, dtype=torch.float64) * float(scale.mean()) ** 2
    scaled = problem.correlation * scale.double() * scale.double()[:, None]
    covariance[:count, :count] = scaled[:count, :count]
    loc = torch.full((latents,), float(mean.mean()))
    loc[:count] = mean[:count]
    prior = fixed_covariance(covariance, loc)
    return _variational(problem, prior, noise, float(scale.mean()))


def learned_covariance(problem: Problem, latents: int, noise: float) -> Autoencoder:
    """The same with a precision that is learned in full, from that of independent latents."""
    rate, size = rates_and_sizes(problem)
    belief = Belief.matching(float(rate.mean()), float((rate @ size**2 / rate.sum()).sqrt()))
    prior = CholeskyPrior(latents, scale=belief.scale, loc=belief.mean)
    return _variational(problem, prior, noise, belief.scale)


def rates_and_sizes(problem: Problem) -> tuple[Tensor, Tensor]:
    """How often features fire, and their root mean square when they do, in normalised units."""
    fires = (problem.codes > 0).double()
    count = fires.sum(0).clamp(min=1)
    square = problem.codes.double().square().sum(0) / count
    typical = square[square > 0].mean()
    size = torch.where(square > 0, square, typical).sqrt() / problem.normalizer.scale.double()
    return fires.mean(0).clamp(*RATES), size


def fixed_covariance(covariance: Tensor, loc: Tensor) -> CholeskyPrior:
    """A Gaussian prior of that covariance, which does not learn."""
    prior = CholeskyPrior(len(covariance), loc=loc)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance.double()))
    factor = torch.linalg.cholesky(inverse)
    with torch.no_grad():
        prior.log_diagonal.copy_(factor.diagonal().log())
        prior.strict_lower.copy_((factor / factor.diagonal()).tril(-1))
    return prior.requires_grad_(False)


def _variational(problem: Problem, prior: nn.Module, noise: float, scale: float) -> Autoencoder:
    return variational_autoencoder(
        problem.d_model,
        prior,
        noise=noise,
        link=nn.ReLU(),
        scale=POSTERIOR * scale,
        normalizer=problem.normalizer,
    )


_SHARES = (0.75, 1.0)
_NOISES = (0.1, 0.2, 0.4, 0.8)
_K = "k / true L0"

ARMS: dict[str, Arm] = {
    "l1": Arm(label="ℓ1 SAE", knob="λ", build=l1, strengths=(1.0, 2.0, 3.0), chosen=True),
    "topk": Arm(label="TopK + AuxK", knob=_K, build=with_k(topk_autoencoder), strengths=_SHARES),
    "batch_topk": Arm(
        label="BatchTopK + AuxK",
        knob=_K,
        build=with_k(batch_topk_autoencoder),
        strengths=_SHARES,
    ),
    "jumprelu": Arm(
        label="JumpReLU", knob="λ", build=jumprelu, strengths=(0.25, 0.5, 1.0), chosen=True
    ),
    "matryoshka": Arm(
        label="Matryoshka + AuxK",
        knob=_K,
        build=with_k(matryoshka_autoencoder),
        strengths=_SHARES,
    ),
    "hierarchical": Arm(
        label="H-SAE", knob="2k / true L0", build=hierarchical, strengths=(1.0, 1.3)
    ),
    "isotropic": Arm(
        label="V-SAE, isotropic", knob="σ", build=isotropic, strengths=_NOISES, chosen=True
    ),
    "true_covariance": Arm(
        label="V-SAE, true covariance",
        knob="σ",
        build=true_covariance,
        strengths=_NOISES,
        chosen=True,
    ),
    "learned_covariance": Arm(
        label="V-SAE, learned covariance",
        knob="σ",
        build=learned_covariance,
        strengths=_NOISES,
        chosen=True,
    ),
}
"""By name, in the order of tables."""

COLOURS = dict(
    zip(
        ARMS,
        ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf", "#7f7f7f", "#bcbd22",
         "#111111"),
        strict=True,
    )
)  # fmt: skip
"""Of figures; red is ours."""
