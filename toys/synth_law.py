"""Codes of a synthetic benchmark: copula, gates, sizes, trees."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.special import ndtr, ndtri

from toys.synth_trees import SynthTrees
from toys.toy import CodeLaw

CHUNK = 1024  # rows drawn at once: what is computed of them stays in a CPU's cache


@dataclass(frozen=True, kw_only=True, eq=False)
class SynthLaw(CodeLaw):
    r"""Codes :math:`z_i = \mathrm{ReLU}(μ_i + s_i n_i)\, 1[g_i > -Φ^{-1}(q_i)]`, put through trees.

    .. math:: g = L u + \sqrt{1 - |ℓ|^2}\, e, \qquad u, e, n ∼ N(0, I)

    Draws are float32 whatever the default dtype, so that both have the same codes.

    Args:
        gates: ``(F,)`` probabilities ``q`` that gates are open, float64.
        mean: ``(F,)``, ``μ``, in activation units, float32.
        deviation: ``(F,)``, ``s``, float32.
        loadings: ``(F, r)``, ``L``, float32; ``r = 0`` for independent gates.
        trees: Who silences whom, ``None`` for no one.
    """

    gates: Float[Tensor, " F"]
    mean: Float[Tensor, " F"]
    deviation: Float[Tensor, " F"]
    loadings: Float[Tensor, "F r"]
    trees: SynthTrees | None

    def sample(self, rows: int, generator: Generator) -> Float[Tensor, "rows F"]:
        shape = (rows, len(self.gates))
        codes = torch.empty(shape, dtype=torch.float32, device=self.gates.device)
        own = (1 - self.loadings.square().sum(1)).sqrt()
        # The threshold of a feature's own part, of which the common factors take their share.
        threshold = (-ndtri(self.gates)).float() / own
        share = (self.loadings / own[:, None]).mT
        for chunk in codes.split(CHUNK):
            self._fill(chunk, threshold, share, generator)
        return codes.to(torch.get_default_dtype())

    def _fill(self, codes: Tensor, threshold: Tensor, share: Tensor, generator: Generator) -> None:
        shape = (len(codes), len(share))
        common = torch.empty(shape, dtype=torch.float32, device=codes.device)
        common.normal_(generator=generator)
        bar = torch.addmm(threshold, common, share, alpha=-1.0)
        opened = codes.normal_(generator=generator) > bar
        codes.normal_(generator=generator).mul_(self.deviation).add_(self.mean).relu_().mul_(opened)
        if self.trees is not None:
            self.trees.silence(codes, self.mean, generator)

    def rates(self) -> Float[Tensor, " F"]:
        """How often each feature would fire if gates were independent, float64, exactly.

        For roots and untied features that is how often they fire; see :meth:`rates_given`.
        """
        return self._rates(self.gates)

    def rates_given(self, common: Float[Tensor, "rows r"]) -> Float[Tensor, "rows F"]:
        """How often each feature fires, given the common factors ``u``, float64, exactly.

        Their mean over normal ``u`` is how often it fires at all.
        """
        loadings = self.loadings.double()
        own = (1 - loadings.square().sum(1)).sqrt()
        return self._rates(ndtr((ndtri(self.gates) + common.double() @ loadings.mT) / own))

    def _rates(self, gates: Tensor) -> Tensor:
        active = gates * ndtr(self.mean.double() / self.deviation.double())  # ReLU leaves some 0
        return active if self.trees is None else self.trees.rates(active)

    def to(self, device: torch.device | str) -> "SynthLaw":
        """The same law with its numbers on another device."""
        return replace(
            self,
            gates=self.gates.to(device),
            mean=self.mean.to(device),
            deviation=self.deviation.to(device),
            loadings=self.loadings.to(device),
        )
