"""Modules that learn from the codes of a step, beside the gradient: counters and thresholds."""

from abc import abstractmethod
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Distribution

from priors.errors import ConfigError


class Observer(nn.Module):
    """A module whose buffers follow the codes of training.

    :func:`vsae.fit` calls :meth:`observe` after every update, outside the traced programs, and
    ``SVI`` does through :meth:`vsae.Autoencoder.pyro_guide`; in a loop of your own, call it with
    the latent values of the step (:class:`latent_values`).

    Example:
        >>> class Rows(Observer):
        ...     seen = 0
        ...     def observe(self, sites: dict[str, Tensor]) -> None:
        ...         self.seen += len(sites["z"])
        >>> rows = Rows()
        >>> rows.observe({"z": torch.zeros(5, 2)})
        >>> rows.seen
        5
    """

    @abstractmethod
    def observe(self, sites: dict[str, Tensor]) -> None:
        """Learn from the latent values ``{site: value}`` of one batch, without a gradient."""

    def report(self) -> dict[str, Tensor]:
        """What a training record should say of it, by name; scalars on the device."""
        return {}


class PosteriorObserver(Observer):
    """A module whose buffers follow the *posterior* of training, not only its draws.

    Closed-form M-steps need expectations: of spike and slab, how likely each latent fired, and how
    strongly. Shown to it as :class:`Observer` is shown codes.

    Example:
        >>> from torch.distributions import Bernoulli
        >>> class Rates(PosteriorObserver):
        ...     seen = None
        ...     def observe_posterior(self, posterior) -> None:
        ...         self.seen = posterior["z"].mean
        >>> rates = Rates()
        >>> rates.observe_posterior({"z": Bernoulli(torch.tensor([0.25]))})
        >>> rates.seen
        tensor([0.2500])
    """

    def observe(self, sites: dict[str, Tensor]) -> None:
        """Draws say nothing that the posterior does not."""

    @abstractmethod
    def observe_posterior(self, posterior: dict[str, Distribution]) -> None:
        """Learn from ``{site: q(site | x)}`` of one batch, without a gradient."""


def is_code(site: str) -> bool:
    """Whether a site holds codes: ``z``, or a level of a ladder, ``z_1``, ``z_2``, …"""
    return site == "z" or (site.startswith("z_") and site[2:].isdigit())


class latent_values(Messenger):
    """Keep every latent site of the programs run inside: a guide, and then its model.

    Attributes:
        values: The value of each site, by name.
        posterior: The distribution it was *first* drawn from: the guide's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}
        self.posterior: dict[str, Distribution] = {}

    def _pyro_post_sample(self, msg) -> None:
        if not (msg["is_observed"] or site_is_subsample(msg)):
            self.values[msg["name"]] = msg["value"].detach()
            self.posterior.setdefault(msg["name"], msg["fn"])

    @torch.no_grad()
    def show(self, observer: Observer) -> None:
        """Show an observer what it learns from."""
        observer.observe(self.values)
        if isinstance(observer, PosteriorObserver):
            observer.observe_posterior(self.posterior)


def share_batches(module: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Let what a batch decides be decided by the batches of all processes together.

    BatchTopK's threshold, Switch's loads and the counts of dead latents are those of one process
    otherwise: independent runs may share a process group. Every process must then call the pair
    with as many rows as the others, and average gradients itself, as ``DistributedDataParallel``
    does. Call it last: parts added afterwards, such as AuxK's, do not share.

    Args:
        module: A pair, a model or a guide.
        group: Of processes; all of them if ``None``.

    Raises:
        ConfigError: ``observer.group`` if there is no process group.

    Example:
        >>> from vsae import topk_autoencoder
        >>> torch.distributed.init_process_group(...)  # doctest: +SKIP
        >>> share_batches(topk_autoencoder(4, 16, k=3))  # doctest: +SKIP
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ConfigError(
            "there is no process group: expected torch.distributed.init_process_group first.",
            code="observer.group",
        )
    for part in module.modules():
        _GROUPS[part] = dist.group.WORLD if group is None else group


# Beside the modules, not in them: a process group can be neither copied nor pickled.
_GROUPS: WeakKeyDictionary[nn.Module, "dist.ProcessGroup"] = WeakKeyDictionary()


def everyone(values: Tensor, module: nn.Module) -> Tensor:
    """``values`` of all processes that share ``module``'s batches, in one more dimension in front.

    One process alone without :func:`share_batches`; otherwise all must hold the same shape.
    """
    if (group := _GROUPS.get(module)) is None:
        return values[None]
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, values.contiguous(), group=group)
    return torch.stack(parts)
