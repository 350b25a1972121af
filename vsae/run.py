"""The training loop: a generator of records."""

import math
import warnings
from collections.abc import Callable, Container, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from priors.replicas import num_replicas
from vsae.autoencoder import Autoencoder
from vsae.batches import Batches, stream
from vsae.elbo import ClosedFormELBO, per_row, scale_latents
from vsae.errors import CollapseWarning, NonFiniteLossError, NonFiniteWarning
from vsae.metrics import active_units
from vsae.noise import noise_from
from vsae.observer import Observer, is_code, latent_values

NOISE = 0  # the random stream of injected noise; epochs take 1, 2, …
PROBE = 1024  # rows on which collapse is looked for, at most


@dataclass(frozen=True)
class StepRecord:
    """What one step measured: per row, nats; detached, not copied to the host.

    Each value has shape ``()``, or ``(R,)`` for replicas. Latent sites' terms are as they stand in
    the objective, β times the KL. Of codes in slots ``codes`` has the batch's ``l0``, and what
    observers report: the number of ``dead`` latents, a ``threshold``.
    """

    step: int
    beta: float | Tensor
    terms: dict[str, Tensor]
    codes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The objective per row: the negative ELBO where β is 1."""
        return sum(self.terms.values())

    def to_dict(self) -> dict[str, float | list[float] | int]:
        """Floats (lists for replicas), named as in the metrics files: ``elbo/…``, ``codes/…``."""
        beta = self.beta.squeeze(-1).tolist() if isinstance(self.beta, Tensor) else self.beta
        named = {"elbo/loss": self.loss} | {f"elbo/{n}": t for n, t in self.terms.items()}
        named |= {f"codes/{n}": t for n, t in self.codes.items()}
        return {"step": self.step, "beta": beta} | {n: t.tolist() for n, t in named.items()}


class Run:
    """A training run, made by :func:`vsae.fit`: an iterator of records, and ``run()``.

    Iterating goes on where the last iteration stopped, to ``steps``; the pair is in training mode
    meanwhile.

    Attributes:
        step: The next step.
        failed: ``{replica: step}`` of replicas frozen because they became non-finite.
        interrupted: Whether ``run()`` was last ended by Ctrl-C.
        records: What ``run()`` kept so far.
    """

    def __init__(
        self,
        *,
        autoencoder: Autoencoder,
        batches: Batches,
        steps: int,
        optimizer: torch.optim.Optimizer,
        lr_schedule,
        beta,
        elbo: ClosedFormELBO,
        clip: float,
    ) -> None:
        self.autoencoder, self.batches, self.steps = autoencoder, batches, steps
        self.optimizer, self.elbo, self.clip = optimizer, elbo, clip
        self.lr_schedule, self.beta = lr_schedule, beta
        self.step, self.interrupted = 0, False
        self.failed: dict[int, int] = {}
        self.records: list[dict] = []
        self._base_lr = [group["lr"] for group in optimizer.param_groups]
        self._device = autoencoder.W_dec.device
        self._noise = noise_from([stream(s, NOISE, self._device) for s in batches.seeds])
        self._projected = autoencoder.projected()
        self._modules, self._observers = list(autoencoder.modules()), autoencoder.observers()
        if isinstance(beta, Observer):  # a controller
            self._observers.append(beta.to(self._device))
        sites = autoencoder.posterior(batches.data[..., :1, :].to(self._device))
        self._watched = bool(self._observers) or "support" in sites
        self._leaves = [p for group in optimizer.param_groups for p in group["params"]]
        self._before = [p.detach().clone() for p in self._leaves]
        self._replicas = num_replicas(autoencoder)
        shape = (self._replicas,) if self._replicas else ()
        self._finite = torch.ones(shape, dtype=torch.bool, device=self._device)
        self._between: list[tuple[Container[int], Callable[[int], object]]] = []
        self._acted = -1

    def between(self, steps: Container[int], act: Callable[[int], object]) -> "Run":
        """Call ``act(step)`` before each of these steps, for what no gradient does; the run itself.

        Without gradients, once per step, in the order of the calls; it may change parameters in
        place. An error that it raises ends the run.

        Args:
            steps: Numbers of steps, from 0: a range, a set.
            act: What is called.

        Example:
            >>> from vsae import fit, l1_autoencoder
            >>> pair = l1_autoencoder(2, 4, l1=0.1)
            >>> run = fit(pair, torch.randn(100, 2), steps=6, batch_size=50)
            >>> called = []
            >>> _ = run.between(range(2, 6, 2), called.append).run(progress=False)
            >>> called
            [2, 4]
        """
        self._between.append((steps, act))
        return self

    @torch.no_grad()
    def _act(self) -> None:
        """What is due before this step, once, even if the step itself was interrupted."""
        if self.step == self._acted:
            return
        self._acted = self.step
        for due, act in self._between:
            if self.step in due:
                act(self.step)
                for before, p in zip(self._before, self._leaves, strict=True):
                    before.copy_(p)

    def __iter__(self) -> Iterator[StepRecord]:
        try:
            while self.step < self.steps:
                self._act()
                record = self._step(self.step)
                self.step += 1
                yield record
        finally:  # the optimiser may be the user's
            for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
                group["lr"] = base

    def run(self, *, every: int = 1, progress: bool = True) -> list[dict]:
        """All steps left, behind a progress bar on stderr; every ``every``-th record and the last.

        Ctrl-C ends it with what there is; a second ``run()`` goes on from there. Warns of posterior
        collapse (``CollapseWarning``) when it ends.
        """
        off, self.interrupted = None if progress else True, False
        steps = iter(self)
        with tqdm(total=self.steps, initial=self.step, disable=off, mininterval=0.5) as bar:
            try:
                for record in steps:
                    if record.step % every == 0 or record.step == self.steps - 1:
                        self.records.append(record.to_dict())
                        bar.set_postfix_str(f"nats/row {record.loss.mean():.4g}", refresh=False)
                    bar.update()
            except KeyboardInterrupt:
                self.interrupted = True
            finally:
                steps.close()
        self.check_collapse()
        return self.records

    def _step(self, step: int) -> StepRecord:
        batch = self.batches(step).to(self._device, non_blocking=True)
        x = self.autoencoder.normalizer(batch)
        for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = base * self.lr_schedule(step)
        if not all(module.training for module in self._modules):
            self.autoencoder.train()
        beta, seen = self.beta(step), latent_values() if self._watched else nullcontext()
        elbo = self.elbo.on(self.batches.rows(step), step)
        with pyro.validation_enabled(False), self._noise, scale_latents(beta), seen:
            sites = elbo.site_terms(self.autoencoder.model, self.autoencoder.guide, x)
        terms = per_row(sites, x.shape[-2])
        loss = sum(terms.values())
        for p in self._leaves:
            p.grad = None
        loss.sum().backward()
        self._update(step, loss.detach(), sites)
        codes = (self._seen(seen) if self._watched else {}) | elbo.report()
        return StepRecord(step, beta, {name: term.detach() for name, term in terms.items()}, codes)

    @torch.no_grad()
    def _seen(self, seen: latent_values) -> dict[str, Tensor]:
        """Show the codes of the step to the observers; what there is to say of both."""
        values = seen.values
        codes = {"l0": values["z"].count_nonzero(-1).double().mean()} if "support" in values else {}
        for observer in self._observers:
            seen.show(observer)
            codes |= observer.report()
        return codes

    def _update(self, step: int, loss: Tensor, sites: dict[str, Tensor]) -> None:
        for module in self._projected:
            module.project_gradient()
        norm = self._gradient_norm()
        self._finite &= (loss + norm).isfinite()
        if not bool(self._finite.all()):  # a read by the host
            self._freeze(step, sites)
        if self.clip < math.inf:
            factor = (self.clip / norm).clamp(max=1.0).nan_to_num(nan=0.0)
            for p in self._with_gradient():
                p.grad.mul_(self._per_replica(factor, p))
        for before, p in zip(self._before, self._leaves, strict=True):
            before.copy_(p.detach())
        self.optimizer.step()
        for module in self._projected:
            module.project()

    def _with_gradient(self) -> list[Tensor]:
        return [p for p in self._leaves if p.grad is not None]

    def _per_replica(self, value: Tensor, p: Tensor) -> Tensor:
        return value.view(-1, *[1] * (p.dim() - 1)) if self._replicas else value

    def _gradient_norm(self) -> Tensor:
        grads = [p.grad for p in self._with_gradient()]
        if not self._replicas:
            return torch.nn.utils.get_total_norm(grads)
        return torch.stack([g.flatten(1).square().sum(-1) for g in grads]).sum(0).sqrt()

    @torch.no_grad()
    def _freeze(self, step: int, sites: dict[str, Tensor]) -> None:
        """Put what is not finite back to where it last was; a plain run raises, a replica stays."""
        for before, p in zip(self._before, self._leaves, strict=True):
            p.copy_(torch.where(self._per_replica(self._finite, p), p, before))
        if not self._replicas:
            self.optimizer.zero_grad(set_to_none=True)
            raise self._named(step, sites)
        for replica in (~self._finite).nonzero().flatten().tolist():
            if replica not in self.failed:
                self.failed[replica] = step
                message = f"replica {replica} is not finite at step {step}; frozen as it was before"
                warnings.warn(message, NonFiniteWarning, stacklevel=4)
        for p in self._with_gradient():
            keep = self._per_replica(self._finite, p)
            p.grad.copy_(torch.where(keep, p.grad, 0.0))
            if "exp_avg" in self.optimizer.state[p]:  # no momentum, no move
                self.optimizer.state[p]["exp_avg"].mul_(keep)

    def _named(self, step: int, sites: dict[str, Tensor]) -> NonFiniteLossError:
        bad = {name: (~term.isfinite()).nonzero().flatten() for name, term in sites.items()}
        rows = self.batches.rows(step)[0]
        where = {n: rows[b.to(rows.device)].tolist() for n, b in bad.items() if len(b)}
        what = "; ".join(f"site {n!r} in {len(r)} rows, data row {r[0]}" for n, r in where.items())
        return NonFiniteLossError(
            f"not finite at step {step}: got NaN or infinity in {what or 'the gradient alone'}. "
            "Parameters are those whose loss was last finite. Lower lr, set clip, or check data.",
            code="loss.nonfinite",
            context={"step": step, "rows": where},
        )

    @torch.no_grad()
    def check_collapse(self) -> None:
        """Warn (``CollapseWarning``) if over 90 % of the latents say nothing about their input.

        Looks at up to 1024 rows of the data, see :func:`vsae.metrics.active_units`; a point
        posterior cannot collapse, codes in slots have no fixed latents, and under 64 rows nothing
        can be said.
        """
        x = self.batches.data[..., :PROBE, :].to(self._device)
        sites = self.autoencoder.posterior(x)
        codes = [q for name, q in sites.items() if is_code(name)]
        noisy = "support" not in sites and any(bool(q.variance.any()) for q in codes)
        if x.shape[-2] < 64 or not noisy:
            return
        active = sum(active_units(q.mean, q.variance) for q in codes)
        units = active / sum(q.event_shape[0] for q in codes)
        if bool((units < 0.1).any()):
            share = ", ".join(f"{100 * u:.0f} %" for u in units.reshape(-1).tolist())
            warnings.warn(
                f"posterior collapse: {share} of latents are active. Warm β up (LinearWarmup), "
                "lower the noise, or use FreeBitsELBO.",
                CollapseWarning,
                stacklevel=3,
            )
