"""Training: what a step reports, and the door through which settings and data come in."""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import GraphWarning
from priors.graph import Graph
from priors.replicas import num_replicas
from vsae.autoencoder import Activations, Autoencoder
from vsae.batches import Batches
from vsae.elbo import ClosedFormELBO
from vsae.errors import ConfigError, ShapeError
from vsae.run import Run
from vsae.schedules import Constant
from vsae.sparse_code import SparseCode
from vsae.target_l0 import TargetL0

Schedule = Callable[[int], float | Tensor]


def fit(
    autoencoder: Autoencoder,
    data: Activations,
    *,
    steps: int,
    batch_size: int = 256,
    lr: float | None = None,
    lr_schedule: Schedule | float = 1.0,
    beta: Schedule | float = 1.0,
    elbo: ClosedFormELBO | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    clip: float = math.inf,
    seed: int | Sequence[int] = 0,
    batches: Callable[[Tensor, int, Sequence[int]], Batches] = Batches,
) -> Run:
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
        data: Activations ``(N, d)``, of a crosscoder ``(N, layers, d)``; ``(R, N, d)`` gives each
            replica its own. They may stay on the CPU: batches are moved to the model.
        steps: Number of updates.
        batch_size: Rows per update.
        lr: Adam's learning rate, 1e-3 if ``None``; multiplied by ``lr_schedule(step)``.
        lr_schedule: ``step -> factor``, or one factor.
        beta: ``step -> β``, or one β, the weight of the latents' KL; :class:`vsae.LinearWarmup`
            anneals it, :class:`vsae.TargetL0` holds an L0 by it. A tensor ``(R, 1)`` has one per
            replica.
        elbo: The objective; :class:`vsae.ClosedFormELBO` if ``None``.
        optimizer: Instead of fused Adam; not for replicas. Its learning rates are put back.
        clip: Greatest norm of the gradient.
        seed: One integer, or one per replica.
        batches: What makes batches of ``(data, batch_size, seeds)``: another way to go through the
            data, such as ``functools.partial(EdgeBatches, graph)``.

    Raises:
        NonFiniteLossError: ``loss.nonfinite``, while running; parameters are then those whose loss
            was last seen to be finite.
        DataError: ``data.…``, see :class:`vsae.batches.Batches` and :meth:`Autoencoder.check`.
        ConfigError: ``fit.seeds`` if there are not as many seeds as replicas, ``fit.setting`` for
            an impossible number, ``fit.optimizer``, ``fit.elbo``, ``pair.latents`` if prior,
            posterior and decoder do not have the same number of latents, ``pair.width`` if model
            and posterior do not have the same number of slots, ``pair.slots`` if only one of them
            has slots, ``pair.tree`` if their latents form different trees; ``target_l0.replicas``.

    Warns:
        GraphWarning: If a prior's graph, which is over latents, has as many nodes as there are
            rows of data.

    Example:
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> records = fit(Autoencoder(model, guide), x, steps=3, batch_size=5).run(progress=False)
        >>> [r["step"] for r in records]
        [0, 1, 2]
    """
    seeds = tuple(int(s) for s in seed) if isinstance(seed, Iterable) else (int(seed),)
    data = autoencoder.rows(data)
    _check_settings(steps=steps, lr=lr, clip=clip, beta=beta, lr_schedule=lr_schedule)
    _check_replicas(autoencoder, data, seeds)
    if isinstance(beta, TargetL0):
        beta.check(num_replicas(autoencoder))
    autoencoder.check_finite(data)
    made = batches(data.detach(), batch_size, seeds)
    _check_pair(autoencoder, made.data[..., :2, :].to(autoencoder.W_dec.device))
    _warn_of_rows(autoencoder.model, made.data.shape[-2])
    if not isinstance(elbo, ClosedFormELBO | None):
        raise ConfigError(
            f"fit needs a ClosedFormELBO: got {type(elbo).__name__}. Use pyro.infer.SVI with "
            "autoencoder.pyro_model and pyro_guide for Pyro's own.",
            code="fit.elbo",
        )
    elbo = elbo or ClosedFormELBO()
    elbo.check_rows(made.data.shape[-2])
    return Run(
        autoencoder=autoencoder,
        batches=made,
        steps=steps,
        optimizer=_optimizer(autoencoder, optimizer, lr),
        lr_schedule=_schedule(lr_schedule),
        beta=_schedule(beta),
        elbo=elbo,
        clip=clip,
    )


def _schedule(value: Schedule | float) -> Schedule:
    return value if callable(value) else Constant(value)


def _check_settings(*, steps, lr, clip, beta, lr_schedule) -> None:
    wrong = {
        "steps": (steps, steps >= 0),
        "lr": (lr, lr is None or 0 < lr < math.inf),
        "clip": (clip, clip > 0),
        "beta": (beta, callable(beta) or 0 <= beta < math.inf),
        "lr_schedule": (lr_schedule, callable(lr_schedule) or 0 <= lr_schedule < math.inf),
    }
    for name, (value, possible) in wrong.items():
        if not possible:
            raise ConfigError(
                f"{name} cannot be {value}: expected a finite number, lr and clip above 0, the "
                "others at least 0 (clip may be infinite).",
                code="fit.setting",
                context={name: value},
            )


def _check_replicas(autoencoder: Autoencoder, data: Tensor, seeds: tuple[int, ...]) -> None:
    replicas = num_replicas(autoencoder)
    if len(seeds) != max(1, replicas):
        raise ConfigError(
            f"{max(1, replicas)} models need as many seeds: got {len(seeds)}.", code="fit.seeds"
        )
    if data.dim() == 3 and not replicas:
        raise ShapeError(
            f"one model takes data (rows, d): got {tuple(data.shape)}. Stack replicas with "
            "priors.replicas.stack for a data set each.",
            code="data.replicas",
        )


def _check_pair(autoencoder: Autoencoder, x: Tensor) -> None:
    """Prior, posterior and decoder agree on the latents: else they would broadcast in silence."""
    sites, model = autoencoder.posterior(x), autoencoder.model
    _check_form(model, sites)
    if "z_1" in sites:
        _check_levels(model, sites)
        return
    found = {"prior": model.prior().event_shape[0], "decoder": model.decoder.latents}
    if getattr(model, "activity", None) is not None:
        found |= {"activity": model.activity().event_shape[0]}
    if "support" in sites:
        _check_width(model, sites["support"].event_shape[0])
        found |= {"posterior": autoencoder.guide.posterior.latents}
    elif "z" in sites:
        found |= {"posterior": sites["z"].event_shape[0]}
    _check_tree(model.decoder, autoencoder.guide.posterior)
    if len(set(found.values())) > 1:
        raise ConfigError(
            f"prior, posterior and decoder have different numbers of latents: got {found}, "
            "expected one number. A graph in a prior joins latents; one over rows of data is for "
            "SampleGraphELBO, or for lifted_graph.",
            code="pair.latents",
            context=found,
        )


def _warn_of_rows(model: nn.Module, rows: int) -> None:
    """A prior's graph with a node per row of the data may be meant to join those."""
    for module in model.modules():
        graph = getattr(module, "graph", None)
        if isinstance(graph, Graph) and graph.num_nodes == rows:
            warnings.warn(
                f"a graph that joins latents has as many nodes as the data has rows: got {rows} "
                f"in {type(module).__name__}. If it is over rows, give it to SampleGraphELBO, or "
                "lift it to latents with lifted_graph.",
                GraphWarning,
                stacklevel=3,
            )
            return


def _check_levels(model: nn.Module, sites: dict[str, Distribution]) -> None:
    """The same, level by level of a ladder: a code of one number would serve a level of any."""
    written = {name: q.event_shape[0] for name, q in sites.items()}
    expected = {f"z_{i}": size for i, size in enumerate(model.sizes, start=1)}
    if written != expected:
        raise ConfigError(
            f"model and posterior have levels of different numbers of latents: got {written}, "
            f"expected {expected}.",
            code="pair.latents",
            context={"written": written, "expected": expected},
        )


def _check_tree(decoder: nn.Module, posterior: nn.Module) -> None:
    """The same number of latents may be that of two trees, or of a tree and of none."""
    encoder = getattr(posterior, "encoder", None)
    trees = getattr(decoder, "tree", None), getattr(encoder, "tree", None)
    if trees[0] != trees[1]:
        raise ConfigError(
            f"latents of model and posterior form different trees: got {trees[0]} and {trees[1]}. "
            "Build the encoder of the model's decoder.",
            code="pair.tree",
        )


def _check_form(model: nn.Module, sites: dict[str, Distribution]) -> None:
    """The model reads codes as the posterior writes them: dense, or in slots."""
    try:
        in_slots = isinstance(model.code({n: q.mean for n, q in sites.items()}), SparseCode)
    except KeyError:  # the model wants a site that the posterior does not name
        in_slots = "support" not in sites
    if in_slots != ("support" in sites):
        raise ConfigError(
            f"model and posterior write codes differently: got {type(model).__name__} and the "
            f"sites {sorted(sites)}, expected both dense, or both in slots.",
            code="pair.slots",
        )


def _check_width(model: nn.Module, written: int) -> None:
    if model.width != written:
        raise ConfigError(
            f"model and posterior have different numbers of slots: got width={model.width} and "
            f"{written}, expected one number.",
            code="pair.width",
        )


def _optimizer(
    autoencoder: Autoencoder, given: torch.optim.Optimizer | None, lr: float | None
) -> torch.optim.Optimizer:
    parameters = [p for p in autoencoder.parameters() if p.requires_grad]
    if given is None and parameters:
        return torch.optim.Adam(parameters, lr=1e-3 if lr is None else lr, fused=True)
    refused = lr is not None or num_replicas(autoencoder) or isinstance(given, torch.optim.LBFGS)
    if given is None or refused:
        raise ConfigError(
            f"cannot train: got {given!r} and lr={lr} for {len(parameters)} trainable tensors. "
            "Expected something to train, and either lr or one model's first-order optimiser.",
            code="fit.optimizer",
        )
    return given
