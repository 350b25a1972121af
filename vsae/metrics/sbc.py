"""Simulation-based calibration: where the truth ranks among draws from its posterior."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from scipy import stats
from torch import Generator, Tensor

from vsae.errors import ConfigError, DataError, EmptyDataError, ShapeError
from vsae.metrics.calibration import check_data

LEAST = 5  # expected ranks per bin, below which chi-square's law is no approximation


@dataclass(frozen=True)
class Uniformity:
    """Two tests of whether ranks are uniform, each with its statistic and p value.

    ``ks`` is the greatest distance of the distribution functions. ``counts`` are the ranks in each
    bin: a heap in the middle is a posterior too wide, at both ends one too narrow, at one end one
    that is shifted.
    """

    chi2: float
    chi2_p: float
    ks: float
    ks_p: float
    counts: Int[Tensor, " bins"]


def sbc_ranks(truth: Tensor, draws: Tensor, *, generator: Generator) -> Int[Tensor, "..."]:
    r"""How many of L posterior draws are below the truth, 0…L, ties broken at random.

    .. math:: r = \#\{l : z_l < z\} + u, \qquad u \sim \mathrm{Uniform}\{0, …, \#\{l : z_l = z\}\}

    If truths come from the prior, data from the model and draws from the *exact* posterior of each,
    then truth and draws are exchangeable, and every rank is equally likely. Random ties keep that
    so where the posterior has atoms: at 0, of a gate that is off.

    Args:
        truth: The parameters ``(...)`` that data were simulated from.
        draws: ``(L, ...)`` independent draws from the posterior of each; thin those of a chain.
        generator: Breaks ties, on the CPU; the global one is never used.

    Raises:
        ShapeError: ``calibration.shape``.
        DataError: ``data.empty``, ``data.nonfinite``.

    Example:
        >>> draws = torch.tensor([[1.0], [2.0], [3.0]])
        >>> sbc_ranks(torch.tensor([2.5]), draws, generator=torch.Generator()).tolist()
        [2]

    Source:
        Talts et al. (2018), *Validating Bayesian inference algorithms with simulation-based
        calibration*, 1804.06788; Modrák et al. (2023), 2211.02383 (ties).
    """
    if draws.shape != (*draws.shape[:1], *truth.shape) or not draws.dim():
        raise ShapeError(
            f"draws of each truth, draws first: got {tuple(draws.shape)} for truths of "
            f"{tuple(truth.shape)}.",
            code="calibration.shape",
        )
    truth, draws = truth.detach().cpu(), draws.detach().cpu()
    for values in (truth, draws):
        check_data(values)
    below, ties = (draws < truth).sum(0), (draws == truth).sum(0)
    chosen = torch.rand(truth.shape, dtype=torch.float64, generator=generator) * (ties + 1)
    return below + chosen.long()


def uniformity(ranks: Int[Tensor, "..."], draws: int, *, bins: int = 20) -> Uniformity:
    """Whether ranks in 0…L are uniform: chi-square over bins, and Kolmogorov–Smirnov.

    Bins are as equal as L + 1 values allow, and expected as they are. Ranks are discrete: p of
    Kolmogorov–Smirnov, by the law of continuous values, is never too small. Both take ranks as
    independent: test each parameter by itself, or draw one parameter per data set.

    Args:
        ranks: From :func:`sbc_ranks`.
        draws: L.
        bins: Of the chi-square.

    Raises:
        ConfigError: ``calibration.bins`` unless 2 <= bins <= L + 1, with 5 ranks expected in each.
        DataError: ``calibration.range``, ``data.empty``.

    Example:
        >>> found = uniformity(torch.arange(200) % 20, 19, bins=4)
        >>> found.chi2, found.chi2_p, found.ks
        (0.0, 1.0, 0.0)

    Source:
        Talts et al. (2018), 1804.06788; Noether (1963), on Kolmogorov's test of discrete values.
    """
    ranks = _check_ranks(ranks, draws)
    if not 2 <= bins <= draws + 1:
        raise ConfigError(
            f"bins of {draws + 1} ranks: got {bins}, expected 2 <= bins <= {draws + 1}.",
            code="calibration.bins",
        )
    values, total = torch.arange(draws + 1), len(ranks)
    place = values * bins // (draws + 1)
    expected = place.bincount(minlength=bins).double() * total / (draws + 1)
    if expected.min() < LEAST:
        raise ConfigError(
            f"{bins} bins of {total} ranks: got {expected.min():.3g} expected in one, expected >= "
            f"{LEAST}. Use fewer bins or more data sets.",
            code="calibration.bins",
        )
    counts = place[ranks].bincount(minlength=bins)
    chi2 = float(((counts - expected).square() / expected).sum())
    reached = ranks.bincount(minlength=draws + 1).cumsum(0).double() / total
    ks = float((reached - (values + 1).double() / (draws + 1)).abs().max())
    p = float(stats.chi2.sf(chi2, bins - 1)), float(stats.kstwo.sf(ks, total))
    return Uniformity(chi2, p[0], ks, p[1], counts)


def _check_ranks(ranks: Tensor, draws: int) -> Tensor:
    ranks = ranks.detach().cpu().flatten()
    if not len(ranks):
        raise EmptyDataError("no ranks: got 0, expected >= 1.", code="data.empty")
    if int(ranks.min()) < 0 or int(ranks.max()) > draws:
        raise DataError(
            f"ranks among {draws} draws: got {int(ranks.min())} to {int(ranks.max())}, expected "
            f"0 to {draws}.",
            code="calibration.range",
        )
    return ranks
