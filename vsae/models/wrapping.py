"""What models that wrap another model pass on."""

from torch import Tensor, nn

from vsae.sparse_code import SparseCode


class WrappingModel(nn.Module):
    """A model that runs another one and is, for pairs, training and metrics, of its parts.

    *A subclass defines* ``forward``.

    Args:
        model: Any model with a ``decoder``.

    Example:
        >>> from vsae.examples import tiny
        >>> inner, _, _ = tiny()
        >>> WrappingModel(inner).decoder is inner.decoder
        True
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def code(self, sites: dict[str, Tensor]) -> Tensor | SparseCode:
        """The model's own."""
        return self.model.code(sites)

    @property
    def decoder(self) -> nn.Module:
        """The model's own."""
        return self.model.decoder

    @property
    def prior(self) -> nn.Module:
        """The model's own."""
        return self.model.prior

    @property
    def noise(self) -> nn.Module:
        """The model's own."""
        return self.model.noise

    @property
    def width(self) -> int:
        """The model's own, of codes in slots."""
        return self.model.width

    @property
    def sizes(self) -> tuple[int, ...]:
        """The model's own, if it has levels."""
        return self.model.sizes

    @property
    def activity(self) -> nn.Module | None:
        """The model's own, if it has one."""
        return getattr(self.model, "activity", None)
