"""What a run of ``vsae reproduce part4`` is made of: every number that decides a result."""

from dataclasses import asdict, dataclass, field, replace

from toys.reproduce.part4_layered_settings import LayeredSettings, layered_smoke
from toys.reproduce.part4_modadd_settings import ModAddSettings, modadd_smoke
from toys.reproduce.part4_probe_settings import ProbeSettings, probe_smoke
from toys.reproduce.part4_training import Training

PARTS = ("tokens", "sentences", "pareto", "layered", "modadd", "probe")
"""In the order of the report; ``part4_plans.PLANS`` says what each is."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes; the defaults are the run that is reported.

    Args:
        smoke: Whether it is only to be shown that everything works.
        seeds: Of weights, the order of rows, noise and shuffled graphs.
        stories: Stories read, one in ten of them held out.
        training: Of the tokens' crosscoders.
        targets: Values of L0 at which arms are compared.
        ratio: ω of the arm with two penalties; λ / β where a graph over rows joins ℓ1.
        permutations: Of the null of neighbourhoods.
        sentence_training: Of the sentences' crosscoders.
        sentence_target: L0 at which these are compared.
        frontier: Values of L0 of the frontiers.
        ratios: ω of the frontiers between ℓ1 alone and the graph alone.
        layered: Of the toys of several layers.
        modadd: Of the networks that add.
        probe: Of the causal probe.
    """

    smoke: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)
    stories: int = 1_000
    training: Training = field(default_factory=Training)
    targets: tuple[int, ...] = (16, 40)
    ratio: float = 0.1
    permutations: int = 50
    sentence_training: Training = field(default_factory=lambda: Training(steps=600))
    sentence_target: int = 40
    frontier: tuple[int, ...] = (16, 40, 120)
    ratios: tuple[float, ...] = (0.01, 0.1, 1.0)
    layered: LayeredSettings = field(default_factory=LayeredSettings)
    modadd: ModAddSettings = field(default_factory=ModAddSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self) | {"steps": self.training.steps, "data": list(PARTS)}


def settings(*, smoke: bool, seeds: int | None) -> Settings:
    """The reported run, or a tiny one."""
    chosen = _smoke() if smoke else Settings()
    return replace(chosen, seeds=tuple(range(seeds))) if seeds else chosen


def _smoke() -> Settings:
    tiny = Training(latents=32, steps=10, batch=64, graph_rows=256, neighbours=4)
    return Settings(
        smoke=True,
        seeds=(0,),
        stories=20,
        training=tiny,
        targets=(4,),
        permutations=4,
        sentence_training=replace(tiny, batch=16),
        sentence_target=4,
        frontier=(4, 8),
        ratios=(0.1,),
        layered=layered_smoke(),
        modadd=modadd_smoke(),
        probe=probe_smoke(),
    )
