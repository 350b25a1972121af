"""A code written in slots: which latents, and how much of each."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from vsae.slots import check_range


@dataclass(frozen=True)
class SparseCode:
    """Codes of ``latents`` coordinates that vanish outside ``support``; a zero is an empty slot.

    Attributes:
        support: Which latent each slot is, ``(*rows, W)``, distinct in a row, in any order.
        z: The amplitudes, ``(*rows, W)``, in the units of the codes.
        latents: ``K``.

    Example:
        >>> import torch
        >>> code = SparseCode(torch.tensor([[3, 0]]), torch.tensor([[0.5, 0.0]]), latents=4)
        >>> code.dense().tolist(), code.l0().tolist()
        ([[0.0, 0.0, 0.0, 0.5]], [1])
    """

    support: Int[Tensor, "*rows W"]
    z: Float[Tensor, "*rows W"]
    latents: int

    def dense(self) -> Float[Tensor, "*rows K"]:
        """The same codes as ``(*rows, K)`` numbers; slots of one latent add, as in a decoder.

        Raises:
            ShapeError: ``slots.out_of_range`` for a latent that does not exist (on a CPU).
        """
        check_range(self.support, self.latents)
        zeros = self.z.new_zeros(*self.z.shape[:-1], self.latents)
        return zeros.scatter_add(-1, self.support, self.z)

    def to_scipy(self) -> sparse.csr_array:
        """The same codes as a sparse matrix ``(rows, K)``: for graphs, and for counting."""
        place, values = self.support.detach().cpu(), self.z.detach().cpu()
        place, values = place.reshape(-1, place.shape[-1]), values.reshape(-1, values.shape[-1])
        active = values != 0
        rows = active.nonzero()[:, 0].numpy()
        shape = (len(place), self.latents)
        return sparse.csr_array((values[active].numpy(), (rows, place[active].numpy())), shape)

    def l0(self) -> Int[Tensor, "*rows"]:
        """Active latents of each row: amplitudes that are not zero, never the number of slots."""
        return self.z.count_nonzero(-1)
