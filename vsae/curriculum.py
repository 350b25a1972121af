"""A curriculum: tiers that join the model one after another."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from priors.errors import ConfigError
from priors.tiers import check_count
from vsae.observer import Observer


class Curriculum(Observer):
    r"""How much each tier takes part, by the number of updates so far.

    .. math:: c_i(t) = \mathrm{clip}\big((t - t_i) / T_i,\ 0,\ 1\big)

    A posterior multiplies tier ``i``'s codes by :math:`c_i`, so that its reconstruction and its
    penalty come together; a prior with a learned scale holds it while :math:`c_i = 0`. Updates are
    counted in a buffer, by :func:`vsae.fit` and ``SVI`` alike, and saved with the model.

    Args:
        starts: :math:`t_i`, the update at which each tier begins to join.
        lengths: :math:`T_i`, updates until it is there in full; 0 for at once, at :math:`t_i`.

    Raises:
        ConfigError: ``curriculum.steps`` unless all are integers of at least 0; ``tiers.count``.

    Example:
        >>> curriculum = Curriculum((0, 2), (0, 4))
        >>> for _ in range(3):
        ...     curriculum.observe({})
        >>> curriculum().tolist()
        [1.0, 0.25]

    Source:
        Bengio et al. (2009), *Curriculum learning*; the schedule is this library's, as the tiered
        HSAE's is not defined.
    """

    def __init__(self, starts: Sequence[int], lengths: Sequence[int]) -> None:
        super().__init__()
        self.starts, self.lengths = tuple(starts), check_count("lengths", lengths, starts)
        if not all(isinstance(n, int) and n >= 0 for n in (*self.starts, *self.lengths)):
            raise ConfigError(
                f"a curriculum counts updates: got starts {self.starts} and lengths "
                f"{self.lengths}, expected integers of at least 0.",
                code="curriculum.steps",
            )
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    @classmethod
    def none(cls, tiers: int) -> "Curriculum":
        """All tiers from the beginning."""
        return cls((0,) * tiers, (0,) * tiers)

    def forward(self) -> Float[Tensor, "*batch n"]:
        """:math:`c_i` now, one per tier, in the model's own dtype."""
        ramps = [self._ramp(t, length) for t, length in zip(self.starts, self.lengths, strict=True)]
        return torch.stack(ramps, -1).to(self.origin.dtype)

    def _ramp(self, start: int, length: int) -> Tensor:
        since = self.updates - start
        return ((since / length) if length else (since >= 0).double()).clamp(0.0, 1.0)

    @torch.no_grad()
    def observe(self, sites: dict[str, Tensor]) -> None:
        self.updates += 1
