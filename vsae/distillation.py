"""An encoder that learns what an iterative guide infers: the way to an SAE's speed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, kl_divergence
from tqdm.auto import tqdm

from priors.spike_slab import SpikeSlab
from vsae.amortisation import AmortisationGap, amortisation_gap
from vsae.autoencoder import Activations, Autoencoder
from vsae.batches import Batches
from vsae.errors import ConfigError, NonFiniteLossError
from vsae.guides import AmortizedGuide
from vsae.posteriors.fitted_noise import FittedNoisePosterior
from vsae.row_noise import RowNoise
from vsae.schedules import LinearDecay

MEASURED = 4096  # rows of the gap, at most


@dataclass(frozen=True, eq=False)
class Distilled:
    """What :func:`distil` returns.

    Attributes:
        autoencoder: The same model, with the amortised guide.
        kl: The objective on the batch of each step (steps,), nats per row.
        gap: On the first rows of the training data, 4096 at most; measure it on rows held out with
            :func:`vsae.amortisation_gap`.
    """

    autoencoder: Autoencoder
    kl: Float[Tensor, " steps"]
    gap: AmortisationGap


def distil(
    pair: Autoencoder,
    posterior: nn.Module,
    x: Activations,
    *,
    steps: int,
    batch_size: int = 256,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> Distilled:
    r"""Train a posterior towards that of a pair, whose model stays as it is.

    .. math:: \min_φ \sum_b \mathrm{KL}(q_\text{pair}(z \mid x_b) \,\|\, q_φ(z \mid x_b))

    The inclusive KL, in closed form (:func:`inclusive_kl`): maximum likelihood of the codes that
    the pair infers. Its optimum in a family that cannot hold them is as uncertain as its errors
    are large, where the ELBO's own KL would be certain of one of them; in gates it is logistic
    regression on firing probabilities, which has no local optimum in a linear encoder. Adam, whose
    rate is constant for half the steps, then falls in a straight line to 0. Rows are inferred anew
    in every epoch; nothing is stored.

    Args:
        pair: With the guide to learn from, e.g. :class:`vsae.MeanFieldPosterior`'s. Not changed.
        posterior: Usually :class:`vsae.SpikeSlabPosterior`; trained in place, but for parameters
            that it shares with the model.
        x: Raw activations ``(N, d)``, of a crosscoder ``(N, layers, d)``.
        steps: Number of updates.
        batch_size: Rows per update.
        lr: Adam's learning rate.
        seed: Of the order of rows.
        progress: Whether to show a bar on stderr.

    Returns:
        The new pair, of the kind of the old one, the objective by step, and what is lost. Of a
        model with :class:`vsae.RowNoise` the new guide fits the noise to its codes
        (:class:`vsae.FittedNoisePosterior`).

    Raises:
        ConfigError: ``distil.family`` unless both posteriors are spike and slab with independent
            gates, ``pair.latents``, ``fit.setting``, ``fit.optimizer`` if nothing is to train.
        NonFiniteLossError: ``loss.nonfinite``; parameters are those before.
        DataError: ``data.…``, see :class:`vsae.batches.Batches` and :meth:`Autoencoder.check`.

    Example:
        >>> from priors import BernoulliPrior, SpikeSlabPrior, TruncatedNormalPrior
        >>> from vsae import LinearDecoder, LinearEncoder, MeanFieldPosterior, SparseAutoencoder
        >>> from vsae import SpikeSlabPosterior
        >>> slab = TruncatedNormalPrior(4, loc=2.0, scale=0.3)
        >>> prior = SpikeSlabPrior(BernoulliPrior(4, rate=0.2), slab)
        >>> model = SparseAutoencoder(LinearDecoder(4, 4), prior, noise=0.3)
        >>> iterative = MeanFieldPosterior(model.decoder, prior, model.noise)
        >>> pair = Autoencoder(model, AmortizedGuide(iterative))
        >>> x = pair.decode(prior().sample((500,)))
        >>> student = SpikeSlabPosterior(LinearEncoder(4, 12))
        >>> found = distil(pair, student, x, steps=60, batch_size=100, lr=0.05, progress=False)
        >>> bool(found.kl[-1] < found.kl[0]), found.autoencoder.model is model
        (True, True)

    Source:
        Hinton, Vinyals & Dean (2015), *Distilling the knowledge in a neural network*, 1503.02531;
        the direction of the KL is that of the sleep phase, Hinton, Dayan, Frey & Neal (1995),
        *The wake-sleep algorithm for unsupervised neural networks*, Science 268.
    """
    x = pair.rows(x).detach()
    pair.check_finite(x)  # which names the layer
    batches, first = Batches(x, batch_size, (seed,)), x[:MEASURED].to(pair.W_dec.device)
    _check(pair, posterior, first[:2], steps, lr)
    student = type(pair)(pair.model, AmortizedGuide(_whole(posterior, pair)), pair.normalizer)
    kls = []
    with tqdm(total=steps, disable=None if progress else True, mininterval=0.5) as bar:
        for kl in _train(pair, posterior, batches, steps, lr):
            kls.append(kl)
            bar.set_postfix_str(f"KL {kl:.4g} nats/row", refresh=False)
            bar.update()
    return Distilled(student, torch.tensor(kls), amortisation_gap(pair, student, first))


def inclusive_kl(teacher: SpikeSlab, student: SpikeSlab) -> Float[Tensor, "*batch"]:
    r"""``KL(teacher ‖ student)`` per row, finite for gates that are all but certain.

    .. math:: \sum_k \mathrm{KL}(γ_k \| γ'_k) + γ_k\, \mathrm{KL}(q_k \| q'_k)

    The registered KL takes probabilities, which round to 1 while log-odds still tell them apart.

    Args:
        teacher: With independent gates and amplitudes, event shape (K,).
        student: The same.

    Example:
        >>> from torch.distributions import Independent
        >>> from priors.truncated_normal import TruncatedNormal
        >>> slab = Independent(TruncatedNormal(torch.ones(1), torch.ones(1)), 1)
        >>> sure, unsure = (Independent(Bernoulli(logits=torch.tensor([l])), 1) for l in (99., 0.))
        >>> inclusive_kl(SpikeSlab(sure, slab), SpikeSlab(unsure, slab)).item()  # log 2
        0.6931...
    """
    gates, target = student.gates.base_dist.logits, teacher.gates.base_dist
    known = F.binary_cross_entropy_with_logits(target.logits, target.probs, reduction="none")
    cross = F.binary_cross_entropy_with_logits(gates, target.probs, reduction="none")
    sizes = kl_divergence(teacher.slab.base_dist, student.slab.base_dist)
    return (cross - known + target.probs * sizes).sum(-1)


def _whole(posterior: nn.Module, pair: Autoencoder) -> nn.Module:
    """With the site ``noise``, if the model has one."""
    noise = pair.model.noise
    if not isinstance(noise, RowNoise):
        return posterior
    return FittedNoisePosterior(posterior, pair.model.decoder, noise)


def _train(
    pair: Autoencoder, posterior: nn.Module, batches: Batches, steps: int, lr: float
) -> Iterator[float]:
    """The objective of each step, before its update."""
    trained = _own_parameters(posterior, pair.model)
    optimizer = torch.optim.Adam(trained, lr=lr, fused=True)
    schedule = LinearDecay(start=steps // 2, end=steps)
    for step in range(steps):
        x = batches(step).to(pair.W_dec.device)
        with torch.no_grad():
            target, units = pair.posterior(x)["z"], pair.normalizer(x)
        loss = inclusive_kl(target, posterior(units)["z"]).mean()
        if not bool(loss.isfinite()):
            raise NonFiniteLossError(
                f"the KL is not finite at step {step}: got {loss.item()}. Lower lr.",
                code="loss.nonfinite",
                context={"step": step},
            )
        optimizer.zero_grad(set_to_none=True)
        grads = torch.autograd.grad(loss, trained, allow_unused=True)
        for parameter, gradient in zip(trained, grads, strict=True):
            parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = lr * schedule(step)
        optimizer.step()
        yield loss.item()
    optimizer.zero_grad(set_to_none=True)


def _own_parameters(posterior: nn.Module, model: nn.Module) -> list[nn.Parameter]:
    frozen = {id(parameter) for parameter in model.parameters()}
    found = [p for p in posterior.parameters() if p.requires_grad and id(p) not in frozen]
    if not found:
        raise ConfigError(
            f"nothing to train: every parameter of {type(posterior).__name__} is fixed, or the "
            "model's own.",
            code="fit.optimizer",
        )
    return found


def _check(pair: Autoencoder, posterior: nn.Module, x: Tensor, steps: int, lr: float) -> None:
    """Before anything is trained."""
    if steps < 1 or not 0 < lr < math.inf:
        raise ConfigError(
            f"distillation takes steps >= 1 and a finite lr > 0: got {steps=}, {lr=}.",
            code="fit.setting",
        )
    found = {"pair": pair.posterior(x)["z"], "posterior": posterior(pair.normalizer(x))["z"]}
    for name, law in found.items():
        if not _is_factorised(law):
            raise ConfigError(
                f"distillation is from spike and slab to spike and slab: {name} got "
                f"{type(law).__name__}, expected independent gates and amplitudes.",
                code="distil.family",
            )
    latents = {name: law.event_shape[0] for name, law in found.items()}
    if len(set(latents.values())) > 1:
        raise ConfigError(
            f"the two posteriors have different numbers of latents: got {latents}.",
            code="pair.latents",
            context=latents,
        )


def _is_factorised(law: Distribution) -> bool:
    if not isinstance(law, SpikeSlab):
        return False
    return isinstance(getattr(law.gates, "base_dist", None), Bernoulli)
