"""A TopK autoencoder's training step with its gradients written by hand: what a step must cost.

The kernels are the library's; there is no Pyro, no module and no autograd. Decoder rows are unit
atoms: gradient along them removed, one fused Adam, norms restored.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vsae.select import in_chunks, top
from vsae.slots import bag, dots, rows

LR = 2e-4


class Rows:
    """Batches of shuffled rows, without end: what every contestant is fed with.

    Args:
        data: ``(N, d)``.
        batch: Rows per step, at most N.
    """

    def __init__(self, data: Tensor, batch: int) -> None:
        self.data, self.batch, self.turn = data, batch, 0
        self.order = torch.randperm(len(data))

    def __iter__(self) -> "Rows":
        return self

    def __next__(self) -> Tensor:
        begin = self.turn * self.batch % (len(self.data) // self.batch * self.batch)
        self.turn += 1
        return self.data.index_select(0, self.order[begin : begin + self.batch])


class RawTopK:
    r"""One step of ``mean_b ‖x_b - c - W_decᵀ relu(top_k(W_enc (x_b - c) + b))‖²``.

    Args:
        data: ``(N, d)``.
        latents: ``K``.
        k: Active latents per row.
        batch: Rows per step.
    """

    def __init__(self, data: Tensor, latents: int, k: int, *, batch: int) -> None:
        self.atoms = F.normalize(torch.randn(latents, data.shape[1]), dim=-1)
        self.encoder, self.bias = self.atoms.clone(), torch.zeros(latents)
        self.centre, self.k, self.rows = data.mean(0), k, Rows(data, batch)
        self.parameters = [self.encoder, self.bias, self.atoms, self.centre]
        self.optimizer = torch.optim.Adam(self.parameters, lr=LR, fused=True)

    def step(self) -> Tensor:
        loss, *gradients = self.gradients(next(self.rows))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        along = torch.linalg.vecdot(self.atoms.grad, self.atoms)
        self.atoms.grad.addcmul_(along[:, None], self.atoms, value=-1)
        self.optimizer.step()
        self.atoms.div_(torch.linalg.vector_norm(self.atoms, dim=-1, keepdim=True))
        return loss

    def gradients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The loss, and its gradients in the order of ``parameters``."""
        centred = x - self.centre
        values, support = in_chunks(centred, self.encoder, self.bias, self.k, top)
        code = values.relu()
        error = bag(support, code, self.atoms).sub_(centred)
        loss = error.square().sum() / len(x)
        to_mean = error.mul_(2 / len(x))
        to_code = dots(to_mean, support, self.atoms).mul_(values > 0)
        to_bias = torch.zeros_like(self.bias)
        to_bias.index_add_(0, support.reshape(-1), to_code.reshape(-1))
        return (
            loss,
            rows(support, to_code, centred, len(self.atoms)),
            to_bias,
            rows(support, code, to_mean, len(self.atoms)),
            to_mean.sum(0) - to_bias @ self.encoder,
        )
