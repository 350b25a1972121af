"""Feature absorption where the features are known, protocol and control."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from vsae.metrics.hierarchy import check_rows, check_setting, check_shapes
from vsae.metrics.k_sparse import correlations, probeable, probed
from vsae.metrics.recovery import absorption_fraction

ROWS = 1024  # a block of rows of projections


@dataclass(frozen=True)
class Absorption:
    """Absorption of each feature, and means over the features that can be probed.

    ``fraction`` and ``full`` are means over the ``rows`` on which the feature is on; ``f1`` is that
    of the probe on the ``main`` latents, 0 if there are none. ``chance_fraction`` and
    ``chance_full`` are the same with the directions of the other latents dealt out anew among them.
    Features that are not on and off in the first half of the rows and on in the second are nan. A
    dictionary that misses a feature altogether absorbs nothing: read ``fraction`` beside ``f1``.
    """

    fraction: Float[Tensor, " F"]
    full: Float[Tensor, " F"]
    f1: Float[Tensor, " F"]
    rows: Int[Tensor, " F"]
    main: Bool[Tensor, "F K"]
    chance_fraction: Float[Tensor, " F"]
    chance_full: Float[Tensor, " F"]
    mean_fraction: float
    mean_full: float
    mean_chance_fraction: float
    mean_chance_full: float


def absorption(
    x: Tensor,
    codes: Tensor,
    atoms: Tensor,
    truth: Tensor,
    features: Tensor,
    *,
    generator: Generator,
    jump: float = 0.03,
    limit: int = 10,
    draws: int = 1,
) -> Absorption:
    r"""How far other latents carry a feature that its own latents leave out.

    For each feature, its main latents (:func:`vsae.metrics.main_latents`, among those that no other
    column of ``truth`` correlates with more), then over the rows on which it is on the mean
    :func:`vsae.metrics.absorption_fraction`, with the true direction as probe, and the share of
    *full* absorption: all main latents are off, and the latent of the greatest projection
    :math:`a_k` has :math:`\cos_k \ge 0.025` and :math:`a_k \ge 0.4 P > 0`.
    Codes are measured against unit atoms (:math:`z_k \lVert d_k\rVert`), so that no rescaling of
    a latent matters; but a latent that is *negative* along the opposite direction carries nothing,
    as in the source. The exact true solution scores 0; the exact absorbed one scores its parent at
    ``P(child | parent)``.

    Pass all features, and average the ones you ask about. With a single column the rule for main
    latents is the published one, which takes the latent of a frequent child for a part of its
    parent (F1 jumps), and so scores the exact absorbed solution 0 unless children are rare.

    Args:
        x: Activations ``(rows, d)``, in the units of codes and atoms (those a normaliser makes),
            without the decoder's bias.
        codes: ``(rows, K)``.
        atoms: ``(K, d)``.
        truth: ``(rows, F)``, on where above 0.
        features: True directions ``(F, d)``.
        generator: Of the control, on the CPU.
        jump: Gain in F1 that another main latent must bring.
        limit: Most main latents.
        draws: Dealings of the control, averaged.

    Raises:
        ShapeError: ``hierarchy.shape``.
        ConfigError: ``hierarchy.setting`` unless jump >= 0, limit >= 1 and draws >= 1.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> truth = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]).repeat(4, 1)
        >>> found = absorption(
        ...     truth, truth, torch.eye(2), truth, torch.eye(2), generator=torch.Generator()
        ... )
        >>> found.mean_fraction, found.f1.tolist()
        (0.0, [1.0, 1.0])

    Source:
        Karvonen et al. (2025), *SAEBench*, absorption metric; Chanin et al. (2024), 2409.14507.
    """
    check_setting(jump >= 0, "jump", jump, "jump >= 0")
    check_setting(limit >= 1, "limit", limit, "limit >= 1")
    check_setting(draws >= 1, "draws", draws, "draws >= 1")
    scene = _Scene.of(x, codes, atoms, features)
    check_shapes([("truth", truth, (len(scene.x), len(features)))])
    on = check_rows("truth", truth) > 0
    ranking = correlations(scene.codes, on)
    own = ranking >= ranking.amax(0) - 1e-12  # equal but for rounding
    ranking = torch.where(own, ranking, 0.0)
    main = torch.zeros_like(ranking, dtype=torch.bool)
    scores = torch.full((5, len(features)), math.nan, dtype=torch.float64)
    for f in probeable(on).nonzero().flatten().tolist():
        chosen = probed(scene.codes, on[:, f], ranking[f], jump=jump, limit=limit)
        main[f, chosen.latents] = True
        scores[4, f] = chosen.f1[len(chosen.latents) - 1] if chosen.f1 else 0.0
        scores[:2, f] = scene.absorbed(on[:, f], f, main[f], scene.atoms)
        null = [scene.dealt(main[f], generator) for _ in range(draws)]
        controls = [scene.absorbed(on[:, f], f, main[f], atoms) for atoms in null]
        scores[2:4, f] = torch.stack(controls).mean(0)
    return Absorption(
        scores[0],
        scores[1],
        scores[4],
        on.sum(0),
        main,
        scores[2],
        scores[3],
        *scores[:4].nanmean(-1).tolist(),
    )


@dataclass(frozen=True)
class _Scene:
    """Activations, codes of unit atoms, the unit atoms, and the unit features."""

    x: Tensor
    codes: Tensor
    atoms: Tensor
    features: Tensor

    @classmethod
    def of(cls, x: Tensor, codes: Tensor, atoms: Tensor, features: Tensor) -> "_Scene":
        x, codes = check_rows("x", x), check_rows("codes", codes)
        check_shapes([("codes", codes, (len(x), None))])
        check_shapes([("atoms", atoms, (codes.shape[1], x.shape[1]))])
        check_shapes([("features", features, (None, x.shape[1]))])
        atoms, features = (
            check_rows("atoms", atoms).double(),
            check_rows("features", features).double(),
        )
        unit = torch.nn.functional.normalize
        return cls(x, codes.double() * atoms.norm(dim=-1), unit(atoms), unit(features))

    def dealt(self, main: Tensor, generator: Generator) -> Tensor:
        """The directions of the latents that are not main, dealt out anew."""
        others = (~main).nonzero().flatten()
        atoms = self.atoms.clone()
        atoms[others] = self.atoms[others[torch.randperm(len(others), generator=generator)]]
        return atoms

    def absorbed(self, on: Tensor, feature: int, main: Tensor, atoms: Tensor) -> Tensor:
        """Mean fraction and rate of full absorption over the rows that are on."""
        probe, total = self.features[feature], torch.zeros(2, dtype=torch.float64)
        for rows in on.nonzero().flatten().split(ROWS):
            x, codes = self.x[rows].double(), self.codes[rows]
            total[0] += absorption_fraction(x, codes, atoms, probe, main).sum()
            total[1] += fully_absorbed(x @ probe, codes, atoms @ probe, main).sum()
        return total / on.sum()


def fully_absorbed(projection: Tensor, codes: Tensor, cosine: Tensor, main: Tensor) -> Tensor:
    """Whether all main latents are off and one other carries the feature."""
    top, latent = (codes * cosine).max(-1)
    silent = (codes[:, main] == 0).all(-1)
    carried = (projection > 0) & (top >= 0.4 * projection) & (cosine[latent] >= 0.025)
    return silent & carried
