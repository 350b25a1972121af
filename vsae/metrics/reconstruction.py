"""How well activations, and a network that reads them, are restored."""

from jaxtyping import Float
from torch import Tensor

from vsae.batches import check_finite
from vsae.errors import DataError


def mse(x: Float[Tensor, "*batch rows d"], mean: Float[Tensor, "*batch rows d"]) -> Tensor:
    r"""Mean squared error per *neuron*, :math:`\frac1{Nd}\lVert X - \hat X\rVert_F^2`, raw units.

    Example:
        >>> import torch
        >>> mse(torch.zeros(2, 3), torch.ones(2, 3)).item()
        1.0
    """
    return (x.double() - mean.double()).square().mean((-2, -1))


def batch_mse(x: Float[Tensor, "*batch rows d"], mean: Float[Tensor, "*batch rows d"]) -> Tensor:
    r"""Mean squared error per *row*, :math:`\frac1N\lVert X - \hat X\rVert_F^2`: ``d`` times
    :func:`mse`.

    Example:
        >>> import torch
        >>> batch_mse(torch.zeros(2, 3), torch.ones(2, 3)).item()
        3.0
    """
    return mse(x, mean) * x.shape[-1]


def explained_variance(
    x: Float[Tensor, "*batch rows d"], mean: Float[Tensor, "*batch rows d"]
) -> Float[Tensor, "*batch"]:
    r"""Share of the variance explained, :math:`1 - \sum\lVert x - \hat x\rVert^2 / \sum\lVert x -
    \bar x\rVert^2`, sums over all rows and neurons in float64.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> explained_variance(x, torch.ones(2, 1)).item()
        0.0
    """
    x = x.double()
    residual = (x - mean.double()).square().sum((-2, -1))
    total = (x - x.mean(-2, keepdim=True)).square().sum((-2, -1))
    if not bool((total > 0).all()):
        check_finite(x)
        raise DataError(
            "explained variance of rows that do not vary: got total variance 0 from "
            f"{x.shape[-2]} rows.",
            code="metrics.no_variance",
        )
    return 1 - residual / total


def loss_recovered(clean: float, replaced: float, ablated: float) -> float:
    r"""Share of a network's loss recovered, :math:`(L_\text{ablated} - L_\text{replaced}) /
    (L_\text{ablated} - L_\text{clean})`: 1 is lossless, 0 as bad as the ablation, which is stated.

    Example:
        >>> loss_recovered(clean=2.0, replaced=2.5, ablated=4.0)
        0.75
    """
    if ablated == clean:
        raise DataError(
            f"the ablation costs nothing: got ablated = clean = {clean}.", code="metrics.no_gap"
        )
    return (ablated - replaced) / (ablated - clean)


def kl_recovered(replaced: float, ablated: float) -> float:
    r"""Share of the output's divergence removed, :math:`1 - \mathrm{KL}_\text{replaced} /
    \mathrm{KL}_\text{ablated}`, both from the clean output.

    Example:
        >>> kl_recovered(replaced=0.5, ablated=2.0)
        0.75
    """
    if not ablated > 0:
        raise DataError(
            f"the ablation changes nothing: got divergence {ablated}.", code="metrics.no_gap"
        )
    return 1 - replaced / ablated
