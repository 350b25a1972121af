"""What the part ``inference`` of ``recovery`` is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """Sizes; the defaults are the run that is reported. Chosen on the choosing seed, by hand.

    Args:
        cases: Names of ``RECOVERY_CASES``, of toys whose features are directions.
        iterations: Of the mean field from the empty code; all others are compared with the last.
        refinements: Of the mean field from where an encoder that is distilled starts.
        seen: Rows of Data A that every encoder sees in training.
        small_seen: The same of the other cases.
        batch: Rows per update.
        rates: Learning rates, of which each encoder that is distilled has the best of each case.
        topk_rates: The same of the encoders of TopK and of BatchTopK.
        hidden: Hidden units of the encoder with some, as a multiple of the latents.
        gaps: Held-out rows of which amortisation gaps are taken.
        timed: Held-out rows that are encoded to take the time.
        rounds: How often each guide encodes them.
    """

    cases: tuple[str, ...] = ("copula-independent", "copula-blocks", "data-a")
    iterations: tuple[int, ...] = (1, 2, 4, 8, 20)
    refinements: tuple[int, ...] = (1, 3)
    seen: int = 200_000
    small_seen: int = 128_000
    batch: int = 256
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    topk_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    hidden: int = 2
    gaps: int = 2_048
    timed: int = 1_000
    rounds: int = 5


def inference_smoke() -> InferenceSettings:
    """A tiny run that only shows that everything works."""
    return InferenceSettings(
        cases=("copula-blocks", "data-a"),
        iterations=(1, 3),
        refinements=(1,),
        seen=512,
        small_seen=512,
        rates=(1e-2,),
        topk_rates=(1e-2,),
        gaps=200,
        timed=100,
        rounds=2,
    )
