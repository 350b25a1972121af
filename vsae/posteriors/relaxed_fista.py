"""ℓ1 decides which latents fire, least squares how strongly: codes without shrinkage."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vsae.posteriors.accelerated import accelerated
from vsae.posteriors.fista import FISTAPosterior, greatest_eigenvalue
from vsae.posteriors.point import point
from vsae.select import check_k


class RelaxedFISTAPosterior(FISTAPosterior):
    r"""The ``k`` greatest of the ℓ1 code, their amplitudes solved again without a penalty.

    .. math:: S = \text{the } k \text{ greatest of } \hat z^{\ell_1}, \qquad
        \hat z = \arg\min_{z \ge 0,\ z_{S^c} = 0} \lVert x - b - zW \rVert^2

    An ℓ1 code is biased: every amplitude is too small by about λ, which costs explained variance at
    equal sparsity. This keeps its support. Amplitudes are found by as many accelerated projected
    gradient steps; latents whose best amplitude is not positive drop out, so that a row has *at
    most* ``k``. Without a gradient, as :class:`vsae.FISTAPosterior`.

    Args:
        decoder: With atoms ``W_dec`` (K, d) and bias ``b_dec``, shared with the model.
        prior: :class:`priors.ExponentialPrior`, or an annealed one, shared with the model.
        noise: ``() -> σ``, shared with the model.
        k: Active latents per row, at most.
        iterations: Of FISTA, and again of the amplitudes.

    Raises:
        ConfigError: ``iterations.count``, ``select.k``.

    Example:
        >>> from priors import ExponentialPrior
        >>> from vsae import FixedNoise, LinearDecoder
        >>> decoder = LinearDecoder(8, 3)
        >>> q = RelaxedFISTAPosterior(decoder, ExponentialPrior(8), FixedNoise(0.1), k=2)
        >>> bool(((q(torch.ones(5, 3))["z"].mean != 0).sum(-1) <= 2).all())
        True

    Source:
        Meinshausen (2007), *Relaxed Lasso*, Computational Statistics & Data Analysis 52:374.
    """

    def __init__(
        self,
        decoder: nn.Module,
        prior: nn.Module,
        noise: nn.Module,
        *,
        k: int,
        iterations: int = 20,
    ) -> None:
        super().__init__(decoder, prior, noise, iterations=iterations)
        check_k(k, decoder.latents)
        self.k = k

    def forward(self, x: Float[Tensor, "*rows d"]) -> dict[str, Distribution]:
        with torch.no_grad():
            return {"z": point(self.refit(x, self.solve(x)))}

    def refit(
        self, x: Float[Tensor, "*rows d"], code: Float[Tensor, "*rows K"]
    ) -> Float[Tensor, "*rows K"]:
        """The least-squares amplitudes of the ``k`` greatest entries of codes."""
        atoms, bias = self.decoder.W_dec, self.decoder.b_dec
        target = x if bias is None else x - bias
        values, support = code.topk(self.k, dim=-1, sorted=False)
        mask = torch.zeros_like(code).scatter(-1, support, (values > 0).to(code.dtype))
        length = 1 / greatest_eigenvalue(atoms)

        def update(ahead: Tensor) -> Tensor:
            residual = length * (target - ahead @ atoms)
            return (ahead + residual @ atoms.mT).clamp(min=0) * mask

        return accelerated(update, code * mask, self.iterations)

    def extra_repr(self) -> str:
        return f"k={self.k}, iterations={self.iterations}"
