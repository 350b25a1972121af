"""Toy Models of Superposition: many bottleneck models trained at once, and what they learn."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from tqdm import tqdm

from priors.errors import ConfigError
from toys.toy import CodeLaw


class BottleneckModel(nn.Module):
    r"""``I`` independent models :math:`h = Wx,\; x' = \mathrm{ReLU}(W^\top h + b)` in one module.

    Args:
        instances: Number of models ``I``.
        features: Number of input features ``n``.
        hidden: Width ``m`` of the bottleneck; superposition means features represented > ``m``.
        generator: Source of the initial weights, Xavier normal; biases start at 0.

    Raises:
        ConfigError: ``toy.empty`` for a size below 1.

    Example:
        >>> model = BottleneckModel(8, 5, 2, generator=torch.Generator())
        >>> x = torch.rand(8, 10, 5)
        >>> model(x).shape, model.activations(x).shape
        (torch.Size([8, 10, 5]), torch.Size([8, 10, 2]))

    Source:
        Elhage et al. (2022), *Toy Models of Superposition*, "Experiment setup".
    """

    W: Float[nn.Parameter, "instances m n"]
    b: Float[nn.Parameter, "instances 1 n"]

    def __init__(self, instances: int, features: int, hidden: int, *, generator: Generator) -> None:
        super().__init__()
        if min(instances, features, hidden) < 1:
            raise ConfigError(
                f"got {instances} instances of {features} features through {hidden} dimensions:"
                " expected at least 1 of each.",
                code="toy.empty",
            )
        scale = (2 / (features + hidden)) ** 0.5
        start = torch.randn(instances, hidden, features, generator=generator)
        self.W = nn.Parameter(scale * start)
        self.b = nn.Parameter(torch.zeros(instances, 1, features))

    def activations(
        self, x: Float[Tensor, "instances rows n"]
    ) -> Float[Tensor, "instances rows m"]:
        """The bottleneck ``h = Wx``: what a sparse autoencoder is trained on."""
        return x @ self.W.mT

    def forward(self, x: Float[Tensor, "instances rows n"]) -> Float[Tensor, "instances rows n"]:
        return torch.relu(self.activations(x) @ self.W + self.b)


@dataclass(frozen=True, kw_only=True)
class BottleneckRecord:
    """One training step: its number, from 1, and each instance's loss ``(I,)`` on that batch."""

    step: int
    loss: Float[Tensor, " instances"]


def importance_loss(
    x: Float[Tensor, "instances rows n"],
    reconstruction: Float[Tensor, "instances rows n"],
    importance: Float[Tensor, " n"],
) -> Float[Tensor, " instances"]:
    r"""Each instance's :math:`\frac1B \sum_b \sum_i I_i (x_{bi} - x'_{bi})^2`: features summed."""
    return (importance * (x - reconstruction) ** 2).sum(-1).mean(-1)


def train_bottleneck(
    model: BottleneckModel,
    law: CodeLaw,
    *,
    generator: Generator,
    importance: tuple[float, ...] | None = None,
    steps: int = 10_000,
    batch: int = 1024,
    learning_rate: float = 1e-3,
    progress: bool = False,
) -> Iterator[BottleneckRecord]:
    """Trains all instances with one Adam, yielding a record per step; fresh rows at every step.

    The instances' losses are summed and Adam works entry by entry, so each instance learns exactly
    as it would alone. The defaults are document A's recovered settings.

    Args:
        model: Trained in place.
        law: Features; of shape ``(rows, n)``, drawn once and shared by all instances, or
            ``(instances, rows, n)`` where the law has a rate per instance.
        generator: Source of the data.
        importance: Weight ``I_i`` of each feature, 1 by default.
        steps: Number of steps.
        batch: Rows per step and instance.
        learning_rate: Adam's.
        progress: Whether to show a progress bar.

    Raises:
        ConfigError: ``toy.size`` if importances or features are not as many as the model's;
            ``toy.steps`` for a count below 1.

    Example:
        >>> from toys.notebook_cases import PairedFeatures
        >>> generator = torch.Generator().manual_seed(0)
        >>> model = BottleneckModel(4, 5, 2, generator=generator)
        >>> law = PairedFeatures(singles=5, probability=0.1)
        >>> [r.loss.shape for r in train_bottleneck(model, law, generator=generator, steps=2)]
        [torch.Size([4]), torch.Size([4])]
    """
    instances, _, features = model.W.shape
    weights = torch.ones(features) if importance is None else torch.tensor(importance)
    _check_training(features, weights, steps, batch)
    optim = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for step in tqdm(range(1, steps + 1), disable=not progress):
        x = law.sample(batch, generator)
        if x.shape[-1] != features or tuple(x.shape[:-2]) not in {(), (instances,)}:
            raise ConfigError(
                f"features of shape {tuple(x.shape)} for {instances} models of {features}:"
                f" expected (rows, {features}) or ({instances}, rows, {features}).",
                code="toy.size",
            )
        x = x.expand(instances, *x.shape[-2:])
        loss = importance_loss(x, model(x), weights.to(x.dtype))
        optim.zero_grad(set_to_none=True)
        loss.sum().backward()
        optim.step()
        yield BottleneckRecord(step=step, loss=loss.detach())


def feature_dimensionality(W: Float[Tensor, "*instances m n"]) -> Float[Tensor, "*instances n"]:
    r"""The share of a dimension each feature has to itself.

    .. math:: D_i = \frac{\|W_i\|^2}{\sum_j (\hat W_i^\top W_j)^2} ∈ [0, 1],
        \qquad \sum_i D_i ≤ \operatorname{rank} W

    with equality iff every ``W_i`` is an eigenvector of ``WWᵀ``. An orthogonal feature has 1,
    one of an antipodal pair ½, of a pentagon 2/5; an exactly zero column 0.

    Example:
        >>> feature_dimensionality(torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 2.0]])).tolist()
        [0.5, 0.5, 1.0]

    Source:
        Elhage et al. (2022), "The Geometry of Superposition".
    """
    norms = (W**2).sum(-2)
    overlaps = ((W.mT @ W) ** 2).sum(-1)  # ‖W_i‖² Σ_j (Ŵ_iᵀ W_j)²
    return torch.where(norms == 0, 0.0, norms**2 / overlaps)


def superposition(W: Float[Tensor, "*instances m n"]) -> Float[Tensor, "*instances n"]:
    r"""How much other features share each direction: :math:`\sum_{j≠i} (\hat W_i^\top W_j)^2`.

    Zero for an exactly zero column, which has no direction.

    Example:
        >>> superposition(torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 2.0]])).tolist()
        [1.0, 1.0, 0.0]

    Source:
        Elhage et al. (2022), "Demonstrating Superposition".
    """
    norms = (W**2).sum(-2)
    squares = (W.mT @ W) ** 2
    overlaps = squares.sum(-1) - squares.diagonal(dim1=-2, dim2=-1)
    return torch.where(norms == 0, 0.0, overlaps / norms)


def features_represented(W: Float[Tensor, "*instances m n"]) -> Float[Tensor, "*instances"]:
    r"""About how many features have a direction: :math:`\|W\|_F^2`, one per unit-norm feature.

    Example:
        >>> features_represented(torch.eye(2)).item()
        2.0

    Source:
        Elhage et al. (2022), "The Geometry of Superposition".
    """
    return (W**2).sum((-2, -1))


def dimensions_per_feature(W: Float[Tensor, "*instances m n"]) -> Float[Tensor, "*instances"]:
    r""":math:`D^* = m / \|W\|_F^2`.

    Example:
        >>> dimensions_per_feature(torch.tensor([[1.0, -1.0]])).item()
        0.5

    Source:
        Elhage et al. (2022), "The Geometry of Superposition".
    """
    return W.shape[-2] / features_represented(W)


def _check_training(features: int, importance: Tensor, steps: int, batch: int) -> None:
    if importance.shape != (features,):
        raise ConfigError(
            f"{importance.shape[0]} importances for {features} features: expected one each.",
            code="toy.size",
        )
    if min(steps, batch) < 1:
        raise ConfigError(f"got {steps} steps of {batch} rows, expected >= 1.", code="toy.steps")
