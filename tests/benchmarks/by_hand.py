"""The same autoencoder without this library: plain torch, and as a Pyro tutorial writes it."""

import itertools
import math

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor, nn

FLOOR, LR = 1e-4, 1e-3


class RawLoop:
    """A V-SAE under ``N(m, I)`` with every formula written out, and one fused Adam.

    Args:
        data: ``(N, d)``.
        latents: ``K``.
        hidden: Units of a two-layer ReLU encoder; a linear encoder if ``None``.
        loc: ``m``.
        rectified: Whether the code is ``relu(z)``.
        noise: σ.
        batch: Rows per step.
    """

    def __init__(
        self,
        data: Tensor,
        latents: int,
        hidden: int | None,
        *,
        loc=0.0,
        rectified=False,
        noise=0.1,
        batch: int,
    ) -> None:
        d = data.shape[1]
        widths = [d, *([] if hidden is None else [hidden]), 2 * latents]
        self.layers = [
            (0.3 * torch.randn(a, b) / a**0.5, torch.zeros(b))
            for a, b in itertools.pairwise(widths)
        ]
        self.atoms, self.bias = F.normalize(torch.randn(latents, d), dim=-1), torch.zeros(d)
        self.parameters = [*itertools.chain(*self.layers), self.atoms, self.bias]
        for p in self.parameters:
            p.requires_grad_()
        self.optimizer = torch.optim.Adam(self.parameters, lr=LR, fused=True)
        self.data, self.batch, self.turn = data, batch, 0
        self.loc, self.rectified, self.noise = loc, rectified, noise
        self.order = torch.randperm(len(data))

    def rows(self) -> Tensor:
        begin = self.turn * self.batch % (len(self.data) // self.batch * self.batch)
        self.turn += 1
        return self.data.index_select(0, self.order[begin : begin + self.batch])

    def loss(self, x: Tensor) -> Tensor:
        out = x
        for i, (weight, bias) in enumerate(self.layers):
            out = torch.addmm(bias, out, weight)
            out = out.relu() if i + 1 < len(self.layers) else out
        mean, raw = out.chunk(2, dim=-1)
        scale = F.softplus(raw) + FLOOR
        z = mean + scale * torch.randn_like(scale)
        shown = torch.addmm(self.bias, z.relu() if self.rectified else z, self.atoms)
        kl = 0.5 * ((mean - self.loc).square() + scale.square() - 1).sum() - scale.log().sum()
        constant = x.numel() * (math.log(self.noise) + 0.5 * math.log(2 * math.pi))
        error = (x - shown).square().sum() / (2 * self.noise**2)
        return (error + constant + kl) / len(x)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.rows()).backward()
        with torch.no_grad():
            grad = self.atoms.grad
            grad -= (grad * self.atoms).sum(-1, keepdim=True) * self.atoms
            self.optimizer.step()
            self.atoms /= self.atoms.norm(dim=-1, keepdim=True)


class StockSVI:
    """The two-layer V-SAE of :class:`RawLoop` under ``SVI``, as Pyro's VAE tutorial has it.

    Atoms are a ``Linear`` of any norm, which saves it their projection.
    """

    def __init__(
        self,
        data: Tensor,
        latents: int,
        hidden: int,
        *,
        loc=0.0,
        rectified=False,
        noise=0.1,
        batch: int,
    ) -> None:
        pyro.clear_param_store()
        d = data.shape[1]
        self.encoder = nn.Sequential(
            nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latents)
        )
        self.decoder, self.latents, self.loc = nn.Linear(latents, d), latents, loc
        self.noise, self.link = noise, nn.ReLU() if rectified else nn.Identity()
        self.data, self.batch, self.turn = data, batch, 0
        self.order = torch.randperm(len(data))
        self.svi = SVI(self.model, self.guide, pyro.optim.Adam({"lr": LR}), TraceMeanField_ELBO())

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("rows", len(x)):
            at = x.new_full((len(x), self.latents), self.loc)
            z = pyro.sample("z", dist.Normal(at, torch.ones_like(at)).to_event(1))
            mean = self.decoder(self.link(z))
            pyro.sample("x", dist.Normal(mean, self.noise).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("rows", len(x)):
            mean, raw = self.encoder(x).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(mean, F.softplus(raw) + FLOOR).to_event(1))

    def step(self) -> None:
        begin = self.turn * self.batch % (len(self.data) // self.batch * self.batch)
        self.turn += 1
        self.svi.step(self.data.index_select(0, self.order[begin : begin + self.batch]))
