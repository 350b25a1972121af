"""The training loop: a generator of records, one screen."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from vsae.autoencoder import Autoencoder
from vsae.batches import Batches, stream
from vsae.elbo import ClosedFormELBO, scale_latents
from vsae.errors import (
    CollapseWarning,
    ConfigError,
    NonFiniteLossError,
    NonFiniteWarning,
)
from vsae.metrics import active_units
from vsae.noise import noise_from
from vsae.schedules import Constant

NOISE = 0  # the random stream of injected noise; epochs take 1, 2, …


@dataclass(frozen=True)
class StepRecord:
    """What one step measured: per row, nats; detached, not copied to the host.

    Each value has shape ``()``, or ``(R,)`` for replicas. Latent sites' terms are as they stand in
    the objective, β times the KL.
    """

    step: int
    beta: float
    terms: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """The objective per row: the negative ELBO where β is 1."""
        return sum(self.terms.values())

    def to_dict(self) -> dict[str, float | list[float] | int]:
        """Floats (lists for replicas) under the names of the metrics files: ``elbo/…``."""
        named = {"elbo/loss": self.loss} | {f"elbo/{n}": t for n, t in self.terms.items()}
        return {"step": self.step, "beta": self.beta} | {
            name: value.tolist() for name, value in named.items()
        }


def fit(
    autoencoder: Autoencoder,
    data: Tensor,
    *,
    steps: int,
    batch_size: int = 256,
    lr: float = 1e-3,
    lr_schedule: Callable[[int], float] = Constant(),
    beta: Callable[[int], float] = Constant(),
    elbo: ClosedFormELBO | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    clip: float = math.inf,
    seed: int | Sequence[int] = 0,
) -> "Fit":
    r"""Train a pair on activations by maximising its ELBO with Adam: iterate, or ``.run()``.

    A step minimises :math:`\frac1B \sum_b [-\log p(x_b\mid z_b) + β\,\mathrm{KL}_b]`, the sum over
    rows divided by their number. Iterating yields a :class:`StepRecord` per step; ``run()`` goes to
    the end behind a progress bar. The user's random state, parameter store and validation settings
    are left as they were.

    A *stack* (:func:`priors.replicas.stack`) trains ``R`` models at once, each as it would alone:
    its own loss, clipping, order of rows, noise; one that becomes non-finite is frozen, the others
    go on.

    Args:
        autoencoder: The pair; trained in place.
        data: Activations ``(N, d)``; ``(R, N, d)`` gives each replica its own.
        steps: Number of updates.
        batch_size: Rows per update.
        lr: Adam's learning rate; multiplied by ``lr_schedule(step)``.
        lr_schedule: ``step -> factor``.
        beta: ``step -> β``, the weight of the latents' KL; :class:`vsae.LinearWarmup` anneals it.
        elbo: The objective; :class:`vsae.ClosedFormELBO` if ``None``.
        optimizer: Instead of fused Adam; not for replicas.
        clip: Greatest norm of the gradient.
        seed: One integer, or one per replica.

    Raises:
        NonFiniteLossError: ``loss.nonfinite``; parameters are those of the last finite step.
        DataError: From :class:`vsae.batches.Batches`.
        ConfigError: ``fit.seeds`` if there are not as many seeds as replicas.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> records = fit(Autoencoder(model, guide), x, steps=3, batch_size=5).run(progress=False)
        >>> [r["step"] for r in records]
        [0, 1, 2]
    """
    seeds = (seed,) if isinstance(seed, int) else tuple(seed)
    replicas = autoencoder.W_dec.shape[0] if autoencoder.W_dec.dim() > 2 else 1
    if len(seeds) != replicas or (replicas > 1 and optimizer is not None):
        raise ConfigError(
            f"{replicas} replicas need {replicas} seeds and the default optimiser: got "
            f"{len(seeds)} seeds and {optimizer!r}.",
            code="fit.seeds",
        )
    if steps < 0:
        raise ConfigError(f"steps must be >= 0: got {steps}.", code="fit.steps")
    autoencoder.check(data[..., :2, :])
    parameters = [p for p in autoencoder.parameters() if p.requires_grad]
    return Fit(
        autoencoder=autoencoder,
        batches=Batches(data, batch_size, seeds),
        steps=steps,
        optimizer=optimizer or torch.optim.Adam(parameters, lr=lr, fused=True),
        schedules=(lr_schedule, beta),
        elbo=elbo or ClosedFormELBO(),
        clip=clip,
    )


class Fit:
    """A training run, made by :func:`fit`: an iterator of records, and ``run()``.

    Attributes:
        failed: ``{replica: step}`` of replicas frozen because they became non-finite.
    """

    def __init__(self, *, autoencoder, batches, steps, optimizer, schedules, elbo, clip) -> None:
        self.autoencoder, self.batches, self.steps = autoencoder, batches, steps
        self.optimizer, self.elbo, self.clip = optimizer, elbo, clip
        self.lr_schedule, self.beta = schedules
        self.failed: dict[int, int] = {}
        self._base_lr = [group["lr"] for group in optimizer.param_groups]
        self._stacked = autoencoder.W_dec.dim() > 2
        device = autoencoder.W_dec.device
        self._noise = noise_from([stream(s, NOISE, device) for s in batches.seeds])
        self._projected = autoencoder.projected()
        shape = (len(batches.seeds),) if self._stacked else ()
        self._finite = torch.ones(shape, dtype=torch.bool, device=device)

    def __iter__(self) -> Iterator[StepRecord]:
        for step in range(self.steps):
            yield self._step(step)

    def run(self, *, every: int = 1, progress: bool = True) -> list[dict]:
        """All steps, behind a progress bar on stderr; records of every ``every``-th and the last.

        Warns of posterior collapse (``CollapseWarning``) when it ends.
        """
        kept = []
        bar = tqdm(self, total=self.steps, disable=None if progress else True, mininterval=0.5)
        for record in bar:
            if record.step % every == 0 or record.step == self.steps - 1:
                kept.append(record.to_dict())
                bar.set_postfix_str(f"nats/row {record.loss.mean():.4g}", refresh=False)
        self.check_collapse()
        return kept

    def _step(self, step: int) -> StepRecord:
        x = self.autoencoder.normalizer(self.batches(step))
        for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = base * self.lr_schedule(step)
        model, guide = self.autoencoder.model, self.autoencoder.guide
        beta = self.beta(step)
        with pyro.validation_enabled(False), self._noise, scale_latents(beta):
            terms = self.elbo.site_terms(model, guide, x)
        per_row = {
            name: (term.sum(-1) if term.dim() else term) / x.shape[-2]
            for name, term in terms.items()
        }
        loss = sum(per_row.values())
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        self._update(step, loss.detach())
        return StepRecord(step, beta, {name: term.detach() for name, term in per_row.items()})

    def _update(self, step: int, loss: Tensor) -> None:
        for module in self._projected:
            module.project_gradient()
        norm = self._gradient_norm()
        self._finite &= (loss + norm).isfinite()
        if not bool(self._finite.all()):  # the step's one read by the host
            self._freeze(step, loss)
        if self.clip < math.inf:
            factor = (self.clip / norm).clamp(max=1.0).nan_to_num(nan=0.0)
            for p in self._leaves():
                p.grad.mul_(factor.view(-1, *[1] * (p.dim() - 1)) if self._stacked else factor)
        self.optimizer.step()
        for module in self._projected:
            module.project()

    def _leaves(self) -> list[Tensor]:
        return [p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]

    def _gradient_norm(self) -> Tensor:
        grads = [p.grad for p in self._leaves()]
        if not self._stacked:
            return torch.nn.utils.get_total_norm(grads)
        return torch.stack([g.flatten(1).square().sum(-1) for g in grads]).sum(0).sqrt()

    def _freeze(self, step: int, loss: Tensor) -> None:
        """Stop what is not finite where it was: a plain run raises, a replica no longer moves."""
        if not self._stacked:
            self.optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLossError(
                f"the loss or its gradient is not finite at step {step}: got {loss.item()} nats "
                f"per row. Parameters are those of step {step - 1}. Lower lr or set clip.",
                code="loss.nonfinite",
                context={"step": step, "loss": loss.item()},
            )
        for replica in (~self._finite).nonzero().flatten().tolist():
            if replica not in self.failed:
                self.failed[replica] = step
                message = f"replica {replica} is not finite at step {step}; frozen as it was before"
                warnings.warn(message, NonFiniteWarning, stacklevel=4)
        for p in self._leaves():
            keep = self._finite.view(-1, *[1] * (p.dim() - 1))
            p.grad.copy_(torch.where(keep, p.grad, 0.0))
            if "exp_avg" in self.optimizer.state[p]:  # no momentum, no move
                self.optimizer.state[p]["exp_avg"].mul_(keep)

    @torch.no_grad()
    def check_collapse(self) -> None:
        """Warn (``CollapseWarning``) if over 90 % of the latents say nothing about their input."""
        q = self.autoencoder.posterior(self.batches(0))["z"]
        units = active_units(q.mean, q.variance) / q.event_shape[0]
        if bool(q.variance.any()) and bool((units < 0.1).any()):  # a point cannot collapse
            share = ", ".join(f"{100 * u:.0f} %" for u in units.reshape(-1).tolist())
            warnings.warn(
                f"posterior collapse: {share} of latents are active. Warm β up (LinearWarmup), "
                "lower the noise, or use FreeBitsELBO.",
                CollapseWarning,
                stacklevel=3,
            )
