"""Latents in tiers, one after another: how many in each, and a number per tier for each latent."""

from collections.abc import Sequence
from numbers import Integral

import torch
from jaxtyping import Float
from torch import Tensor

from priors.errors import ConfigError


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """``sizes`` if they can be those of tiers.

    Raises:
        ConfigError: ``tiers.sizes`` unless there is a tier, and a latent in each.

    Example:
        >>> check_sizes([3, 2])
        (3, 2)
    """
    right = [isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in sizes]
    if not right or not all(right):
        raise ConfigError(
            f"tiers need latents: got sizes {tuple(sizes)}, expected at least one tier, each of an "
            "int >= 1.",
            code="tiers.sizes",
            context={"sizes": tuple(sizes)},
        )
    return tuple(int(n) for n in sizes)


def check_count(name: str, values: Sequence, sizes: Sequence[int]) -> tuple:
    """``values`` if there is one for each tier.

    Raises:
        ConfigError: ``tiers.count`` otherwise.

    Example:
        >>> check_count("clip", [1.0, 2.0], (3, 2))
        (1.0, 2.0)
    """
    if len(values) != len(sizes):
        raise ConfigError(
            f"{name} has one value per tier: got {len(values)} for {len(sizes)} tiers. Give "
            f"{len(sizes)}.",
            code="tiers.count",
            context={name: tuple(values), "tiers": len(sizes)},
        )
    return tuple(values)


def per_latent(
    values: Float[Tensor, "*batch n"], sizes: Sequence[int]
) -> Float[Tensor, "*batch K"]:
    """The tier's number for every latent.

    Args:
        values: One per tier, ``(*batch, n)``.
        sizes: Latents in each of the ``n`` tiers, ``K`` together.

    Example:
        >>> per_latent(torch.tensor([0.5, 2.0]), (2, 3)).tolist()
        [0.5, 0.5, 2.0, 2.0, 2.0]
    """
    parts = values.split(1, -1)
    return torch.cat(
        [part.expand(*part.shape[:-1], n) for part, n in zip(parts, sizes, strict=True)], -1
    )
