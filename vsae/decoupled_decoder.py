"""The dictionary of a decoupled crosscoder: latents that are active in some layers alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vsae.decoders import Projected
from vsae.errors import ConfigError
from vsae.groups import grouped_bag
from vsae.layers import check_layers


class DecoupledDecoder(Projected):
    r"""``mean_l = b_l + Σ_k z_{k,l} · w_{k,l}``: a code per latent *and* layer, unit atoms.

    Coordinate ``k · layers + l`` of a code is latent ``k`` in layer ``l``, whose atom lies in that
    layer alone. A prior is over all of them.

    Args:
        shared: Number of latents :math:`K`; ``K · layers`` coordinates.
        layers: Width of each layer, all equal.
        bias: Whether there is a bias ``b_dec`` (Σd,), in activation units.

    Raises:
        ConfigError: ``layers.widths``; ``layers.unequal``, naming the layers of another width.

    Example:
        >>> decoder = DecoupledDecoder(8, (3, 3))
        >>> decoder(torch.zeros(5, 16)).shape, decoder.W_dec.shape
        (torch.Size([5, 6]), torch.Size([16, 6]))

    Source:
        The decoupled code of the package ``crosscoder_learning`` (Minder et al. 2025, 2504.02922).
    """

    def __init__(self, shared: int, layers: Sequence[int], *, bias: bool = True) -> None:
        super().__init__()
        self.layers, self.shared, self.bias = check_layers(layers), shared, bias
        if others := [i for i, d in enumerate(self.layers) if d != self.layers[0]]:
            raise ConfigError(
                f"a decoupled code is of layers of one width: got {self.layers}, in which layers "
                f"{others} differ from the first. Use LayeredDecoder.",
                code="layers.unequal",
                context={"layers": self.layers, "others": others},
            )
        self.latents, self.d_model = shared * len(self.layers), sum(self.layers)
        atoms = torch.randn(self.latents, self.layers[0])
        self.atoms = nn.Parameter(nn.functional.normalize(atoms, dim=-1))
        self.b_dec = nn.Parameter(torch.zeros(self.d_model)) if bias else None

    def forward(
        self, z: Float[Tensor, "*rows K"], support: Int[Tensor, "*rows K"] | None = None
    ) -> Float[Tensor, "*batch d"]:
        """Dense ``z`` (B, K · layers), or amplitudes ``z`` (B, W) of coordinates ``support``."""
        count = len(self.layers)
        if support is None:
            apart = self.atoms.unflatten(0, (-1, count))
            parts = torch.einsum("...kl,kld->...ld", z.unflatten(-1, (-1, count)), apart)
        else:
            flat, values = support.flatten(0, -2), z.flatten(0, -2)
            parts = grouped_bag(flat, values, flat % count, count, self.atoms).transpose(0, 1)
            parts = parts.unflatten(0, z.shape[:-1])
        mean = parts.flatten(-2)
        return mean if self.b_dec is None else mean + self.b_dec

    @property
    def W_dec(self) -> Float[Tensor, "K d"]:
        """Every coordinate's atom among all layers, ``(K · layers, Σd)``: zero but in its own."""
        count = len(self.layers)
        own = torch.eye(count, dtype=self.atoms.dtype, device=self.atoms.device)
        spread = own[:, :, None] * self.atoms.unflatten(0, (-1, count))[:, :, None]
        return spread.flatten(2).flatten(0, 1)

    @torch.no_grad()
    def project_gradient(self) -> None:
        if self.atoms.grad is not None:
            along = torch.linalg.vecdot(self.atoms.grad, self.atoms)
            self.atoms.grad.addcmul_(along[..., None], self.atoms, value=-1)

    def has_left(self) -> bool:
        norm = torch.linalg.vector_norm(self.atoms.detach(), dim=-1)
        return bool(((norm - 1).abs() > 16 * torch.finfo(norm.dtype).eps).any())

    @torch.no_grad()
    def project(self) -> None:
        self.atoms.div_(torch.linalg.vector_norm(self.atoms, dim=-1, keepdim=True))
