"""What a run of ``vsae reproduce part4`` is made of: every number that decides a result."""

from dataclasses import asdict, dataclass, replace

PARTS = ("tokens", "sentences", "pareto")
"""In the order of the report; ``part4_plans.PLANS`` says what each is."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes; the defaults are the run that is reported.

    Args:
        smoke: Whether it is only to be shown that everything works.
        seeds: Of weights, the order of rows, noise and shuffled graphs.
        stories: Stories read, one in ten of them held out.
    """

    smoke: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)
    stories: int = 1_000

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self)


def settings(*, smoke: bool, seeds: int | None) -> Settings:
    """The reported run, or a tiny one."""
    chosen = _smoke() if smoke else Settings()
    return replace(chosen, seeds=tuple(range(seeds))) if seeds else chosen


def _smoke() -> Settings:
    return Settings(smoke=True, seeds=(0,), stories=30)
