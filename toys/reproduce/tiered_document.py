"""The published tiered HSAE as it is written, in plain torch: any number format, no safeguards."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from toys.reproduce.tiered_arms import NARROW, PUBLISHED
from toys.reproduce.tiered_settings import Settings
from vsae import metrics
from vsae.batches import stream
from vsae.normalizers import AffineNormalizer
from vsae.schedules import Constant, CubicWarmup

WEIGHTS, ORDER = 2_000_000, 6_000_000  # random streams
LR, DECAY, L1, CLIP = 3e-4, 1e-4, 0.04, (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Variant:
    """The published configuration, or that with something changed.

    Args:
        label: As the table prints it.
        dtype: Of parameters and activations.
        autocast: Format of the matrix products if it is another.
        normalised: Whether inputs are centred and of E‖x‖² = d, instead of a norm of 300.
        norm: What stands behind a tier of so many latents.
        clip: Greatest norm of each tier's gradient; ``None`` for any.
        warm: Whether the learning rate is warmed up.
        eps: AdamW's ε.
        slow: Whether it is run for a tenth of the updates: such products are slow on a CPU.
        repeated: Whether all seeds are run, and not the first alone.
    """

    label: str
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    normalised: bool = False
    norm: Callable[[int], nn.Module] = nn.LayerNorm
    clip: tuple[float, ...] | None = CLIP
    warm: bool = True
    eps: float = 1e-8
    slow: bool = False
    repeated: bool = False

    def steps(self, settings: Settings) -> int:
        """Updates."""
        return settings.document_steps // 10 if self.slow else settings.document_steps

    def rate(self, settings: Settings) -> Constant | CubicWarmup:
        """The warm-up: the published share of the updates."""
        share = settings.document_warmup / settings.document_steps
        return CubicWarmup(round(share * self.steps(settings))) if self.warm else Constant()

    def context(self) -> AbstractContextManager:
        """What a forward pass runs in."""
        return nullcontext() if self.autocast is None else torch.autocast("cpu", self.autocast)


def safe_norm(size: int) -> nn.Module:
    """Ours: no centring, no weights, ε = 10⁻³."""
    return nn.RMSNorm(size, eps=1e-3, elementwise_affine=False)


def no_norm(size: int) -> nn.Module:
    """Nothing between tiers."""
    return nn.Identity()


HALF, BRAIN = torch.float16, torch.bfloat16
WRITTEN = "written"
VARIANTS: dict[str, Variant] = {
    WRITTEN: Variant("as written, float32", repeated=True),
    "normalised": Variant("inputs normalised", normalised=True),
    "no_clip": Variant("no clipping per tier", clip=None),
    "no_warmup": Variant("no warm-up", warm=False),
    "safe_norm": Variant("safe RMS between tiers", norm=safe_norm),
    "no_norm": Variant("no norm between tiers", norm=no_norm),
    "brain_cast": Variant("products in bfloat16", autocast=BRAIN),
    "brain": Variant("all in bfloat16", BRAIN),
    "half_cast": Variant("products in float16", autocast=HALF, slow=True),
    "half": Variant("all in float16", HALF, repeated=True),
    "half_normalised": Variant(
        "all in float16, inputs normalised", HALF, normalised=True, repeated=True
    ),
    "half_eps": Variant(
        "normalised float16, AdamW's ε = 10⁻⁴",
        HALF,
        normalised=True,
        eps=1e-4,
        slow=True,
    ),
}
"""By name; the first is the one the others differ from."""


class Document(nn.Module):
    r"""Equations 1-3: :math:`h_i = \mathrm{relu}(W_i \mathrm{LN}(h_{i-1}) + b_i)`, skip decoders.

    Args:
        d_model: Width of an activation.
        sizes: Latents of each tier.
        norm: What stands behind a tier of so many latents.
    """

    def __init__(
        self, d_model: int, sizes: tuple[int, ...], norm: Callable[[int], nn.Module] = nn.LayerNorm
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(*ends) for ends in pairwise((d_model, *sizes)))
        self.decoders = nn.ModuleList(nn.Linear(size, d_model, bias=False) for size in sizes)
        for linear in (*self.encoders, *self.decoders):
            nn.init.xavier_uniform_(linear.weight)
        for encoder in self.encoders:
            nn.init.zeros_(encoder.bias)
        self.norms = nn.ModuleList(norm(size) for size in sizes[:-1])
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.logits = nn.Parameter(torch.tensor(PUBLISHED))  # "and normalised using softmax"

    def codes(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """What is computed on the way to the codes, by name, in order."""
        h = x
        for i, encoder in enumerate(self.encoders):
            if i:
                h = self.norms[i - 1](h)
                yield f"norm {i}", h
            h = encoder(h).relu()
            yield f"h{i + 1}", h

    def tiers(self, x: Tensor) -> list[Tensor]:
        """The codes of each tier."""
        return [value for name, value in self.codes(x) if name.startswith("h")]

    def mean(self, tiers: list[Tensor]) -> Tensor:
        """The reconstruction."""
        parts = (decoder(h) for decoder, h in zip(self.decoders, tiers, strict=True))
        return sum(parts) + self.bias

    def pieces(self, x: Tensor) -> dict[str, Tensor]:
        """Everything of a forward pass, by name, in order; ``loss`` is the last."""
        found = dict(self.codes(x))
        tiers = [value for name, value in found.items() if name.startswith("h")]
        found["x̂"] = self.mean(tiers)
        found["squared error"] = (x - found["x̂"]).square().sum(-1)
        sizes = torch.stack([h.abs().sum(-1) for h in tiers], -1)
        found["penalty"] = L1 * (self.logits.softmax(-1) * sizes).sum(-1)
        found["loss"] = (found["squared error"] + found["penalty"]).mean()
        return found

    def of_tier(self, i: int) -> list[nn.Parameter]:
        """Encoder and decoder of a tier: what its threshold is for."""
        return [*self.encoders[i].parameters(), *self.decoders[i].parameters()]


def run_variant(
    name: str, train: Tensor, test: Tensor, settings: Settings, seed: int
) -> dict[str, object]:
    """Train until the end or until something is not finite; what was seen on the way."""
    variant = VARIANTS[name]
    if variant.normalised:
        units = AffineNormalizer.fit(train)
        train, test = units(train), units(test)
    train, test = train.to(variant.dtype), test.to(variant.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, WEIGHTS).initial_seed())
        net = Document(train.shape[1], NARROW, variant.norm).to(variant.dtype)
    row = {f"{key}_before": value for key, value in quality(net, test).items()}
    row |= descend(net, variant, train, settings, seed)
    return row | quality(net, test)


def descend(
    net: Document, variant: Variant, train: Tensor, settings: Settings, seed: int
) -> dict[str, object]:
    """The updates; ``failed`` says what was first not finite, and when."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=DECAY, eps=variant.eps)
    generator, rate = stream(seed, ORDER), variant.rate(settings)
    looks: list[dict] = []
    row: dict[str, object] = {"done": variant.steps(settings), "looks": looks}
    for step in range(variant.steps(settings)):
        rows = torch.randint(len(train), (settings.document_batch,), generator=generator)
        optimizer.param_groups[0]["lr"] = LR * rate(step)
        loss, norms, where = update(net, variant, optimizer, train[rows])
        if step == 0:
            row["gradient"] = norms
        if step % settings.watched == 0:
            looks.append({"step": step, "loss": loss})
        if where:
            return row | {"failed": where, "done": step}
    return row


def update(
    net: Document, variant: Variant, optimizer: torch.optim.Optimizer, x: Tensor
) -> tuple[float | None, list[float | None], str | None]:
    """One update: loss, norm of each tier's gradient, and what is not finite, if anything."""
    optimizer.zero_grad()
    with variant.context():
        pieces = net.pieces(x)
    loss = _finite(pieces["loss"])
    if loss is None:
        return None, [], first_bad(pieces)
    pieces["loss"].backward()
    groups = [net.of_tier(i) for i in range(len(net.encoders))]
    norms = [_finite(_norm(group)) for group in groups]
    if None in norms:
        return loss, norms, first_bad({f"gradient of {n}": p.grad for n, p in _named(net)})
    if variant.clip is not None:
        for group, clip in zip(groups, variant.clip, strict=True):
            nn.utils.clip_grad_norm_(group, clip)
    optimizer.step()
    return loss, norms, first_bad({f"AdamW's update of {n}": p for n, p in _named(net)})


def first_bad(values: dict[str, Tensor]) -> str | None:
    """The name of the first value that is not finite."""
    return next((name for name, value in values.items() if not value.isfinite().all()), None)


@torch.no_grad()
def quality(net: Document, x: Tensor) -> dict[str, object]:
    """Per-tier L0, explained variance and weights; ``None`` where they are not finite."""
    tiers = net.tiers(x)
    mean = net.mean(tiers).double()
    codes = torch.cat(tiers, -1)
    if not (mean.isfinite().all() and codes.isfinite().all()):
        return {"ev": None, "l0": None, "tier_l0": None, "weights": None}
    return {
        "ev": float(metrics.explained_variance(x, mean)),
        "l0": float(metrics.l0(codes)),
        "tier_l0": metrics.tier_l0(codes, [h.shape[-1] for h in tiers]).tolist(),
        "weights": net.logits.softmax(-1).tolist(),
    }


def _named(net: Document) -> Iterator[tuple[str, Tensor]]:
    return net.named_parameters()


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    grads = [p.grad for p in parameters if p.grad is not None]
    return torch.stack([grad.double().square().sum() for grad in grads]).sum().sqrt()


def _finite(value: Tensor) -> float | None:
    return float(value.detach()) if value.isfinite() else None
