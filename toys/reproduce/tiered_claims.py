"""The published numbers of the tiered HSAE, and what follows from them alone."""

from collections.abc import Iterator

import torch

from toys.reproduce.tables import number
from vsae import metrics

KL, KL_ABLATED = 15.375, 10.0625
CE_CLEAN, CE, CE_ABLATED = 2.9375, 18.0, 12.4375
MSE, EV, GRADIENT = 47.25, -0.785, 308.0
COVERAGE, REDUCTION = 78.5, 47.25  # "78.5 % higher coverage", "a 47.25 reduction"
EXACT = (KL, KL_ABLATED, CE_CLEAN, CE, CE_ABLATED, MSE, GRADIENT)


def kl_score() -> float:
    """SAEBench's: 1 is lossless, 0 as bad as the ablation.

    Example:
        >>> round(kl_score(), 3), round(ce_score(), 3)
        (-0.528, -0.586)
    """
    return metrics.kl_recovered(KL, KL_ABLATED)


def ce_score() -> float:
    """The same of cross-entropy."""
    return metrics.loss_recovered(CE_CLEAN, CE, CE_ABLATED)


def rounded_to_bfloat16(value: float, places: int) -> bool:
    """Whether a bfloat16 number prints as ``value`` with so many decimals.

    Example:
        >>> rounded_to_bfloat16(-0.785, 3), rounded_to_bfloat16(15.375, 3)
        (True, True)
        >>> rounded_to_bfloat16(15.376, 3)
        False
    """
    near = torch.tensor(value).bfloat16().item()
    return round(near, places) == round(value, places)


def claims() -> Iterator[str]:
    """Verdicts that need no run."""
    yield reduction()
    yield coverage()
    yield divergence()
    yield number_format()


def reduction() -> str:
    """On "a 47.25 reduction"."""
    same = "the very digits of" if REDUCTION == MSE else "not"
    return (
        f'Claim "a {REDUCTION:g} reduction in mean squared error": {same} the *absolute* error of '
        f"run 0 (MSE {MSE:g}, explained variance {EV:g}); no baseline has another."
    )


def coverage() -> str:
    """On "78.5 % higher coverage"."""
    same = round(100 * abs(EV), 1) == COVERAGE
    where = f"the digits of 100 · |{EV:g}|, the explained variance" if same else "no other number's"
    return f'Claim "{COVERAGE:g} % higher composition coverage": {where}; it is not defined there.'


def divergence() -> str:
    """On "maintaining a KL divergence of 15.375"."""
    than = "worse" if kl_score() < 0 else "better"
    return (
        f'Claim "maintaining a KL divergence of {KL:g}": {than} than the ablation, whose KL is '
        f"{KL_ABLATED:g}: SAEBench's scores of these numbers are {number(kl_score())} (KL) and "
        f"{number(ce_score())} (cross-entropy), 0 being as bad as the ablation."
    )


def number_format() -> str:
    """On what the numbers were computed in."""
    exact = sum(torch.tensor(value).bfloat16().item() == value for value in EXACT)
    rounded = "" if rounded_to_bfloat16(EV, 3) else "not "
    return (
        f"Number format of the published evaluation: {exact} of {len(EXACT)} numbers printed "
        f"exactly are numbers of bfloat16 (8 significant bits), and {EV:g} is {rounded}one rounded "
        "to three places."
    )
