"""Experts: equal, contiguous blocks of a dictionary's latents."""

from priors.errors import ConfigError


def block_size(experts: int, latents: int) -> int:
    """How many latents each of ``experts`` owns.

    Args:
        experts: ``E``; expert ``i`` owns the ``i``-th block.
        latents: ``K``.

    Raises:
        ConfigError: ``switch.experts`` unless ``E`` divides ``K``.

    Example:
        >>> block_size(2, 8)
        4
    """
    if experts < 1 or latents % experts:
        raise ConfigError(
            f"experts own equal blocks of latents: got {experts} experts for {latents} latents, "
            "expected a divisor. Change either.",
            code="switch.experts",
            context={"experts": experts, "latents": latents},
        )
    return latents // experts
