"""Resampling: dead latents start again, at what the rows that are worst explained still lack."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from priors.replicas import num_replicas
from vsae.autoencoder import Activations, Autoencoder
from vsae.dead_latents import DeadLatents
from vsae.decoders import Projected
from vsae.encoders import AbstractDictionaryEncoder, LinearEncoder
from vsae.errors import ConfigError, DataError
from vsae.posteriors.gated import GatedPosterior
from vsae.restart import Restart, check_restart, target_columns
from vsae.sparse_code import SparseCode

SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"}  # of Adam, RMSprop, Adagrad
CHUNK = 4096  # rows encoded at a time


def never_active(autoencoder: Autoencoder, x: Activations) -> Int[Tensor, " dead"]:
    """The latents that are zero on every one of these rows, ascending.

    The number says little without the number of rows: a latent that fires once in ``n`` rows is
    missing from ``n`` rows with probability 1/e.

    Args:
        autoencoder: The pair, in whichever mode; evaluated.
        x: Activations, raw units, as the pair takes them; any number of rows, encoded in chunks.

    Example:
        >>> from vsae import topk_autoencoder
        >>> len(never_active(topk_autoencoder(4, 16, k=3), torch.ones(100, 4)))
        13
    """
    x, latents = autoencoder.rows(x), autoencoder.model.decoder.latents
    fired = torch.zeros(latents, dtype=torch.bool, device=x.device)
    for code in _codes(autoencoder, x):
        dense = not isinstance(code, SparseCode)
        fired |= (code != 0).any(0) if dense else _fired(code, fired)
    return (~fired).nonzero().squeeze(-1)


def resample(
    autoencoder: Autoencoder,
    optimizer: torch.optim.Optimizer,
    x: Activations,
    dead: Int[Tensor, " dead"],
    *,
    generator: torch.Generator,
    scale: float = 0.2,
) -> Int[Tensor, " dead"]:
    r"""Point each dead latent at the residual of a row that is badly explained; call between steps.

    .. math:: n \sim \frac{L_n^2}{\sum_m L_m^2}, \quad L_n = \lVert x_n - \hat x_n \rVert^2, \qquad
        w_{dec} = \frac{x_n - \hat x_n}{\lVert x_n - \hat x_n \rVert}, \quad
        w_{enc} = 0.2\, \overline{\lVert w_{enc} \rVert}_\text{alive}\, w_{dec}, \quad b = 0

    Rows are drawn one after another *without* replacement: latents that start equal stay equal. Of
    exactly the numbers that change the optimiser's momentum is set to zero and its mean square to
    that of all, so that they move as the others do; the count of every :class:`vsae.DeadLatents` of
    the pair is set to zero. Nothing else changes; without dead latents nothing does. Every number
    of the encoder that a new latent has is written; a threshold (:class:`vsae.JumpReLUPosterior`)
    or a posterior scale is not.

    The source takes the input :math:`x_n` where this takes the residual, which is what the latents
    that live do not explain yet. The bias is zero *after* centring on the decoder's bias.

    Of a crosscoder the residual is that of the targets, skip connection included, in their units. A
    latent gets of it what it writes, at size 1 in the norm of its decoder. Its encoder row is the
    residual in layers that it reads and writes; in those that it only reads, where there is no
    residual to point at, it is the activations of the row drawn, as in the source.

    Args:
        autoencoder: With a :class:`vsae.DictionaryEncoder` or a :class:`vsae.LinearEncoder`, and a
            parameter ``W_dec``.
        optimizer: That trains it: ``run.optimizer``.
        x: Activations, raw units, as the pair takes them; at least as many rows as there are dead
            latents.
        dead: Which latents, e.g. :func:`never_active`, or a :class:`vsae.DeadLatents`' own.
        generator: Of the draws, on the CPU.
        scale: Norm of the new encoder rows over the mean norm of the others', or over 1 if all
            are dead. The source's 0.2 is for codes that fire above zero; where latents compete
            (TopK and its kin) a weak one is never selected: take 1.

    Returns:
        The rows drawn, one per dead latent.

    Raises:
        ConfigError: ``resample.encoder`` for another encoder, ``resample.decoder`` for atoms that
            are computed, ``resample.replicas`` for a stack.
        DataError: ``resample.rows`` if fewer rows have a residual than latents are dead, or a row
            has none where its latent writes.

    Example:
        >>> from vsae import fit, topk_autoencoder
        >>> x, sae = torch.randn(500, 4), topk_autoencoder(4, 64, k=2)
        >>> run, generator = fit(sae, x, steps=20, batch_size=50), torch.Generator().manual_seed(0)
        >>> for record in run:
        ...     if record.step == 9:
        ...         dead = never_active(sae, x)
        ...         rows = resample(sae, run.optimizer, x, dead, generator=generator)
        >>> len(rows) == len(dead)
        True

    Source:
        Bricken et al. (2023), *Towards Monosemanticity*, appendix "Neuron Resampling".
    """
    encoder = getattr(autoencoder.guide.posterior, "encoder", None)
    _check(autoencoder, encoder)
    if not len(dead):
        return dead
    x = autoencoder.rows(x)
    residual = _residual(autoencoder, x)
    rows = draw(residual.square().sum(-1), len(dead), generator).to(x.device)
    start = Restart.at(autoencoder, encoder, dead, x[rows], residual[rows])
    check_restart(start, rows)
    with torch.no_grad():
        _write(autoencoder, encoder, dead, start, scale)
    for parameter, place in _places(autoencoder, encoder, dead):
        forget(optimizer, parameter, place)
    for module in autoencoder.modules():
        if isinstance(module, DeadLatents):
            module.silent_for[dead] = 0
    return rows


def draw(losses: Float[Tensor, " rows"], count: int, generator: torch.Generator) -> Tensor:
    """``count`` different rows, each with probability ∝ ``losses²`` among those not yet drawn.

    Example:
        >>> draw(torch.tensor([0.0, 3.0, 0.0]), 1, torch.Generator())
        tensor([1])
    """
    weights = losses.double().cpu().square()
    if (found := int((weights > 0).sum())) < count:
        raise DataError(
            f"too few rows for the dead latents: got {found} of {len(losses)} rows with a "
            f"residual, expected at least {count}. Give more rows, or fewer latents.",
            code="resample.rows",
            context={"rows": found, "dead": count},
        )
    return weights.multinomial(count, replacement=False, generator=generator)


def _check(autoencoder: Autoencoder, encoder: nn.Module | None) -> None:
    if not isinstance(encoder, AbstractDictionaryEncoder | LinearEncoder):
        found = "none" if encoder is None else type(encoder).__name__
        raise ConfigError(
            f"resampling writes encoder rows: got {found} in a {type(autoencoder.guide).__name__}, "
            "expected a DictionaryEncoder or a LinearEncoder.",
            code="resample.encoder",
        )
    if not isinstance(autoencoder.W_dec, nn.Parameter):
        raise ConfigError(
            f"resampling writes atoms: got {type(autoencoder.model.decoder).__name__}, which "
            "computes them, expected a parameter W_dec, as of a LinearDecoder.",
            code="resample.decoder",
        )
    if any(isinstance(part, GatedPosterior) for part in autoencoder.guide.modules()):
        raise ConfigError(
            "resampling knows nothing of a gate's magnitudes: got a GatedPosterior.",
            code="resample.encoder",
        )
    if replicas := num_replicas(autoencoder):
        raise ConfigError(
            f"a stack of {replicas} replicas: expected one model. Unstack it.",
            code="resample.replicas",
        )


@torch.no_grad()
def _codes(autoencoder: Autoencoder, x: Tensor):
    """The codes of ``x`` chunk by chunk."""
    for part in x.split(CHUNK):
        yield autoencoder.code(part)


def _fired(code: SparseCode, fired: Tensor) -> Tensor:
    counts = torch.zeros_like(fired, dtype=torch.int64)
    return counts.index_add_(0, code.support.flatten(), (code.z != 0).flatten().long()) > 0


@torch.no_grad()
def _residual(autoencoder: Autoencoder, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows e"]:
    """What is left of the targets of each row, in the units the model works in."""
    columns, parts = target_columns(autoencoder), []
    for part in x.split(CHUNK):
        restored = autoencoder.restored(part, autoencoder.code(part)).reshape(len(part), -1)
        explained = part.clone()
        explained[:, columns] = restored  # what is given is as it is: the units take whole rows
        gap = autoencoder.normalizer(part) - autoencoder.normalizer(explained)
        parts.append(gap[:, columns])
    return torch.cat(parts)


def _write(autoencoder, encoder, dead: Tensor, start: Restart, scale: float) -> None:
    rows = autoencoder.W_enc.mT  # (K, d), a view
    alive = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, dead, False)
    size = rows[alive].norm(dim=-1).mean() if bool(alive.any()) else rows.new_ones(())
    weights = start.rows * (scale * size)
    _write_atoms(autoencoder, dead, start.atoms)
    if isinstance(encoder, AbstractDictionaryEncoder):
        encoder.W_enc[dead], encoder.b_enc[dead] = weights, 0.0
    else:
        encoder.W_enc[:, dead] = weights.mT
        encoder.b_enc[dead] = -(weights[:, target_columns(autoencoder)] @ autoencoder.b_dec)


def _write_atoms(autoencoder, dead: Tensor, atoms: Tensor) -> None:
    """At size 1 in the decoder's own norm; the others to the bit as they were."""
    decoder, now = autoencoder.model.decoder, autoencoder.W_dec.clone()
    autoencoder.W_dec[dead] = atoms
    if isinstance(decoder, Projected):
        decoder.project()
    now[dead] = autoencoder.W_dec[dead]
    autoencoder.W_dec.copy_(now)


def _places(autoencoder, encoder, dead: Tensor):
    """The parameters that change, each with the index of the numbers that do."""
    columns = isinstance(encoder, LinearEncoder)
    return (
        (autoencoder.W_dec, dead),
        (encoder.W_enc, (slice(None), dead) if columns else dead),
        (encoder.b_enc, dead),
    )


def forget(optimizer: torch.optim.Optimizer, parameter: Tensor, place) -> None:
    """No momentum there; and the mean square of all, as Adam's first steps from zeros are large."""
    for name, state in optimizer.state.get(parameter, {}).items():
        if isinstance(state, Tensor) and state.shape == parameter.shape:
            state[place] = state.mean() if name in SQUARES else 0.0
