"""Training steps of guides by iteration written by hand: what their iterations must cost.

There is no Pyro, no module and no autograd. Decoder rows are unit atoms: gradient along them
removed, one fused Adam, norms restored; a belief in incoherent atoms beside the likelihood.
"""

import math

import torch
import torch.nn.functional as F
from raw_topk import Rows
from torch import Tensor

THRESHOLD, RATE, SPREAD, POOLING = 0.25, 0.03, 0.15, 0.5  # of overlaps; of the M-steps


class Dictionary:
    """Atoms from random rows and a bias, with the M-step that a code implies.

    Args:
        data: ``(N, d)``, centred, of unit mean square.
        latents: ``K``.
        batch: Rows per step.
        lr: Adam's.
        coherence: Weight of the squared overlaps beyond a threshold.
    """

    def __init__(
        self, data: Tensor, latents: int, *, batch: int, lr: float, coherence: float
    ) -> None:
        self.atoms = F.normalize(data[torch.randperm(len(data))[:latents]], dim=-1)
        self.bias, self.coherence = torch.zeros(data.shape[1]), coherence
        self.rows, self.idle = Rows(data, batch), 1 - torch.eye(latents)
        self.optimizer = torch.optim.Adam([self.atoms, self.bias], lr=lr, fused=True)

    def update(self, code: Tensor, residual: Tensor) -> None:
        """One step down the gradient of ½‖r‖² per row, r weighted by the caller."""
        overlap = (self.atoms @ self.atoms.mT - THRESHOLD).clamp_(min=0).mul_(self.idle)
        grad = (code.mT @ residual).mul_(-1 / len(code))
        grad.addmm_(overlap, self.atoms, alpha=2 * self.coherence)
        grad.addcmul_(torch.linalg.vecdot(grad, self.atoms)[:, None], self.atoms, value=-1)
        self.atoms.grad, self.bias.grad = grad, -residual.mean(0)
        self.optimizer.step()
        self.atoms.div_(torch.linalg.vector_norm(self.atoms, dim=-1, keepdim=True))


class RawSparseCoding:
    """ℓ1 by FISTA.

    Args:
        data: As of :class:`Dictionary`.
        latents: ``K``.
        batch: Rows per step.
        penalty: λ beside ½‖x - x̂‖².
        iterations: Of FISTA.
    """

    def __init__(
        self, data: Tensor, latents: int, *, batch: int, penalty: float, iterations: int = 20
    ) -> None:
        self.dictionary = Dictionary(data, latents, batch=batch, lr=0.03, coherence=0.01)
        self.penalty, self.iterations = penalty, iterations
        self.direction = data[0]

    def step(self) -> None:
        x = next(self.dictionary.rows)
        code = self.codes(x)
        self.dictionary.update(code, x - self.dictionary.bias - code @ self.dictionary.atoms)

    def eigenvalue(self) -> Tensor:
        """The greatest of the Gram matrix, by one more power iteration a step; a tenth on top."""
        self.direction = F.normalize(self.direction @ self.dictionary.atoms.mT, dim=-1)
        self.direction = self.direction @ self.dictionary.atoms
        return 1.1 * self.direction.square().sum()

    def codes(self, x: Tensor) -> Tensor:
        atoms, target = self.dictionary.atoms, x - self.dictionary.bias
        length = 1 / self.eigenvalue()
        code = ahead = x.new_zeros(len(x), len(atoms))
        momentum = 1.0
        for _ in range(self.iterations):
            pull = (target - ahead @ atoms) @ atoms.mT
            new = (ahead + length * (pull - self.penalty)).clamp_(min=0)
            after = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead = torch.lerp(code, new, 1 + (momentum - 1) / after)
            code, momentum = new, after
        return code


class RawSpikeSlab:
    """Damped mean field under spike and slab, a noise per row, M-steps by moving averages.

    The posterior is that of amplitudes far from zero, whose truncation there is left out.

    Args:
        data: As of :class:`Dictionary`.
        latents: ``K``.
        batch: Rows per step.
        rate: Of gates, to begin with.
        size: Of amplitudes, to begin with.
        noise: Floor of the noise of a row.
        iterations: Updates of all latents.
        damping: Share of the way that an update goes.
    """

    def __init__(
        self,
        data: Tensor,
        latents: int,
        *,
        batch: int,
        rate: float,
        size: float,
        noise: float,
        iterations: int = 12,
        damping: float = 0.3,
    ) -> None:
        self.dictionary = Dictionary(data, latents, batch=batch, lr=0.01, coherence=0.01)
        start = torch.tensor([rate, rate * size, rate * size**2 * (1 + SPREAD**2)])
        self.moments = start[:, None].repeat(1, latents)
        self.noise, self.iterations, self.damping = noise, iterations, damping

    def amplitudes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rates, means and variances of the prior."""
        count, first, second = self.moments
        size = (1 - POOLING) * first / count + POOLING * first.sum() / count.sum()
        free = second / count - (first / count).square()
        return count.clamp(1e-5, 0.5), size, torch.minimum(free, (SPREAD * size) ** 2)

    def step(self) -> None:
        x = next(self.dictionary.rows)
        gate, amplitude, width, noise = self.codes(x)
        code = gate * amplitude
        found = torch.stack([gate.mean(0), code.mean(0), (code * amplitude + gate * width).mean(0)])
        self.moments.lerp_(found, RATE)
        residual = x - self.dictionary.bias - code @ self.dictionary.atoms
        self.dictionary.update(code, residual * (self.noise**2 / noise))

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gates, amplitudes and their variance, and the variance of the noise of every row."""
        atoms, target = self.dictionary.atoms, x - self.dictionary.bias
        rate, size, variance = self.amplitudes()
        odds, code = rate.logit(), x.new_zeros(len(x), len(atoms))
        for left in range(self.iterations, 0, -1):
            residual = target - code @ atoms
            noise = residual.square().mean(-1, keepdim=True).clamp(min=self.noise**2)
            pull, total = code + residual @ atoms.mT, noise + variance
            logits = odds + 0.5 * (noise / total).log()
            logits = logits - (pull - size).square() / (2 * total) + pull.square() / (2 * noise)
            gate = logits.sigmoid()
            amplitude = ((pull * variance + size * noise) / total).relu()
            if left > 1:
                code = torch.lerp(code, gate * amplitude, self.damping)
        return gate, amplitude, variance * noise / total, noise
