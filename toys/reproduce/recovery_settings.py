"""What a run of ``vsae reproduce recovery`` is made of: every number that decides a result."""

from dataclasses import asdict, dataclass, field, replace

from toys.recovery_cases import CHOOSING, RECOVERY_CASES, REPORTING
from toys.reproduce.recovery_absorption_settings import AbsorptionSettings, absorption_smoke
from toys.reproduce.recovery_inference_settings import InferenceSettings, inference_smoke
from toys.reproduce.recovery_modadd_settings import SMOKE, ModAddSettings
from toys.reproduce.recovery_saelens_data import installed
from toys.reproduce.recovery_words_settings import WordSettings, word_smoke
from vsae.recipes.recovery import RecoveryRecipe
from vsae.recipes.sparse_coding import SparseCodingRecipe

PARTS = (
    "data-a",
    "moves",
    "ablations",
    "families",
    "gates",
    "absorption",
    "inference",
    "stories",
    "calibration",
    "words",
    "modadd",
)
PILOT = ("copula-independent", "copula-blocks", "copula-pairs")
GATED = ("copula-blocks", "tree-2-exclusive", "tree-2-free", "tree-3-exclusive")
SMALL = tuple(name for name, case in RECOVERY_CASES.items() if case.family != "data-a")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes; the defaults are the run that is reported.

    Args:
        seeds: Generator seeds of which results are reported; no setting was chosen on them.
        few: How many of them are run of the field's arms and the second width on Data A, families
            beyond the copulas, other widths of the copulas.
        structured: The same of structure, of no moves beside it, and of ablations, on Data A.
        choosing: The one on which settings of the field's arms are chosen.
        recipe: Ours, one for all synthetic data.
        batch: Rows per update of the field's arms.
        rates: Their learning rates, of which each has the best.
        rows: Distinct training rows of Data A.
        test: Held-out rows of it.
        seen: Rows that the field's arms see of it in training.
        search: The same while their settings are chosen.
        widths: Latents on it; the first is also pruned to the second.
        small: Cases of the families.
        pilot: Those with other widths, and a learned covariance.
        small_length: Length of our phases on them, as a share of those on Data A.
        small_rows: Distinct training rows of a family's case.
        small_test: Held-out rows of it.
        small_seen: Rows that the field's arms see of it.
        small_search: The same while their settings are chosen.
        factors: Other widths, as multiples of the number of features.
        gated: Cases whose pairs, blocks or trees gates are told.
        layers: Residual streams of the stories, after these blocks.
        stories: Stories read, one in ten of them held out.
        story_seeds: How many seeds are run on them, from 1: two at least, for stability.
        story_latents: ``K`` on them.
        story_rows: Rows that our ℓ1 phase sees of them.
        story_seen: Rows that the field's arms see of them.
        story_search: The same while their learning rates are chosen, on the layer in the middle.
        story_rates: Those rates.
        field_ks: Active latents of the field's arms; the last one is searched at.
        field_more: The same on the layer in the middle, to see more of the frontier.
        recommended: Ours on the stories, one set of numbers for every layer.
        recommended_ks: Active latents, at most, of it.
        recommended_more: The same on the layer in the middle.
        lengths: Times as many rows, on the layer in the middle, for BatchTopK.
        our_lengths: The same for the recommended recipe.
        end: Our last λ of the ℓ1 phase alone, which slabs follow.
        ks: Active latents, at most, when its amplitudes are solved again.
        noises: Floors of the slabs' noise.
        slab_shape: Shape of that noise per dimension.
        slab_rows: Rows that a slab sees.
        slab_lr: Its learning rate.
        common: Values of L0 at which arms are compared on the stories.
        words: All of the nouns.
        modadd: Sizes of the part ``modadd``.
        absorption: Sizes of the part ``absorption``.
        inference: Sizes of the part ``inference``.
        saelens: The version of SAELens whose arms run on Data A, ``None`` for none.
    """

    seeds: tuple[int, ...] = REPORTING
    few: int = 5
    structured: int = 3
    choosing: int = CHOOSING[0]
    recipe: RecoveryRecipe = field(default_factory=RecoveryRecipe)
    batch: int = 256
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    rows: int = 600_000
    test: int = 8_192
    seen: int = 1_060_000
    search: int = 200_000
    widths: tuple[int, int] = (512, 256)
    small: tuple[str, ...] = SMALL
    pilot: tuple[str, ...] = PILOT
    small_length: float = 0.25
    small_rows: int = 200_000
    small_test: int = 8_192
    small_seen: int = 265_000
    small_search: int = 265_000
    factors: tuple[float, ...] = (0.5, 2.0)
    gated: tuple[str, ...] = GATED
    layers: tuple[int, ...] = (1, 2, 3, 4, 5)
    stories: int = 400
    story_seeds: int = 5
    story_latents: int = 512
    story_rows: int = 150_000
    story_seen: int = 350_000
    story_search: int = 350_000
    story_rates: tuple[float, ...] = (3e-3, 1e-2, 1.5e-2, 3e-2, 6e-2)
    field_ks: tuple[int, ...] = (9, 15)
    field_more: tuple[int, ...] = (5, 24)
    recommended: SparseCodingRecipe = field(default_factory=lambda: SparseCodingRecipe(k=16))
    recommended_ks: tuple[int, ...] = (13, 21)
    recommended_more: tuple[int, ...] = (8, 32)
    lengths: tuple[float, ...] = (0.25, 3.0)
    our_lengths: tuple[float, ...] = (0.25,)
    end: float = 0.8
    ks: tuple[int, ...] = (6, 9, 12, 16, 20, 24)
    noises: tuple[float, ...] = (0.1,)
    slab_shape: float = 1.0
    slab_rows: int = 32_000
    slab_lr: float = 0.01
    common: tuple[float, ...] = (6.0, 12.0, 20.0)
    words: WordSettings = field(default_factory=WordSettings)
    modadd: ModAddSettings = field(default_factory=ModAddSettings)
    absorption: AbsorptionSettings = field(default_factory=AbsorptionSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    saelens: str | None = None

    @property
    def small_recipe(self) -> RecoveryRecipe:
        """Ours on the families: shorter phases."""
        recipe, length = self.recipe, self.small_length
        return replace(
            recipe,
            l1_rows=int(length * recipe.l1_rows),
            slab_rows=int(length * recipe.slab_rows),
            final_rows=int(length * recipe.final_rows),
        )

    def seeds_of(self, case: str) -> tuple[int, ...]:
        """The seeds of a case at its first width."""
        whole = case == "data-a" or RECOVERY_CASES[case].family == "copula"
        return self.seeds if whole else self.seeds[: self.few]

    @property
    def middle(self) -> int:
        """The layer on which more is run."""
        return self.layers[len(self.layers) // 2]

    @property
    def readers(self) -> tuple[int, ...]:
        """The seeds of the stories."""
        return tuple(range(1, 1 + self.story_seeds))

    def to_dict(self) -> dict:
        """For ``run.json``."""
        return asdict(self)


def settings(*, smoke: bool, seeds: int | None) -> Settings:
    """The reported run, or a tiny one that only shows that everything works."""
    chosen = _smoke() if smoke else Settings()
    if seeds:
        chosen = replace(chosen, seeds=tuple(range(1, 1 + seeds)), story_seeds=max(2, seeds))
    return replace(chosen, saelens=installed())


def _smoke() -> Settings:
    """Parts whose sizes are their own, and all others."""
    return replace(
        _small(),
        words=word_smoke(),
        modadd=SMOKE,
        absorption=absorption_smoke(),
        inference=inference_smoke(),
    )


def _small() -> Settings:
    recipe = RecoveryRecipe(
        l1_rows=1_024, slab_rows=1_024, final_rows=256, batch_size=128, iterations=3, moves=4
    )
    return Settings(
        seeds=REPORTING[:1],
        story_seeds=2,
        recipe=recipe,
        rates=(1e-2,),
        rows=2_048,
        test=512,
        seen=2_048,
        search=512,
        widths=(96, 64),
        small=("copula-blocks", "subspaces"),
        pilot=("copula-blocks",),
        small_length=1.0,
        small_rows=2_048,
        small_test=512,
        small_seen=2_048,
        small_search=512,
        gated=("copula-blocks", "tree-1-exclusive"),
        layers=(2,),
        stories=10,
        story_latents=128,
        story_rows=1_024,
        story_seen=1_024,
        story_search=512,
        story_rates=(1e-2,),
        field_ks=(5, 16),
        field_more=(8,),
        recommended=SparseCodingRecipe(k=8, l1_rows=1_024, relaxed_rows=512, batch_size=128),
        recommended_ks=(6, 32),
        recommended_more=(16,),
        lengths=(0.5,),
        ks=(6, 12),
        noises=(0.3,),
        slab_rows=512,
    )
