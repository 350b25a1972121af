"""What was done, in words, with the numbers of the run."""

from toys.reproduce import recovery_scores, recovery_structure
from toys.reproduce.recovery_ablations import FACTORS, ONE_SIZE
from toys.reproduce.recovery_absorption_report import ABSORPTION, absorption_numbers
from toys.reproduce.recovery_gates import LATER, STRENGTH
from toys.reproduce.recovery_gates_report import GATES
from toys.reproduce.recovery_inference_report import INFERENCE, inference_numbers
from toys.reproduce.recovery_laws import LAWS
from toys.reproduce.recovery_plan import CALIBRATED
from toys.reproduce.recovery_saelens_plan import saelens_said
from toys.reproduce.recovery_settings import Settings
from toys.reproduce.recovery_stories import HELD
from toys.reproduce.recovery_words_how import word_how
from vsae.posteriors.fista import FISTAPosterior
from vsae.posteriors.mean_field import MeanFieldPosterior

OURS = """\
*Ours* is `vsae.RecoveryRecipe` with one set of numbers for all synthetic data: {l1} rows of ℓ1
sparse coding, then {slab} and {final} rows of spike and slab, and {length:g} times as many on
the families, where the ℓ1 phase alone sees as many rows as all three; {field} and {fista}
iterations of the guides at evaluation. The numbers, and those of the field's arms, were chosen
on generator seed {choosing}, those of moves on 100 to 105 too, and how far amplitudes may spread on
100, 101 and seeds 0 and 100 of some families, by the truth in all cases; what is reported is of
seeds {seeds}, each its own dictionary, rows, weights and order of rows. The field's
arms on Data A, families beyond the copulas and other widths are of the first {few}, structure and
what there is without moves beside it of the first {structured}; differences are of the seeds that
both have.
*Moves* (`vsae.split_and_merge`) divide the slab into {moves} parts, splits until the learning rate
falls and merges a little longer."""

FIELD = """\
*The field's arms* are this library's, trained on the same rows and scored by the same code: of
learning rates {rates}, and of strengths where the knob is not an L0, each has the candidate of
the greatest MCC + F1 after {search} rows of Data A, or {small_search} rows of each of {pilot}.
They then see {seen} rows of Data A ({rows} distinct), where what is best after fewer rows need not
be best in the end, as V-SAEs show, and {small_seen} of a family's case; {batch}
rows per update, a linear decay over the last fifth. k is set by the true L0. TopK and its kin
have AuxK. Not shown: longer training of them."""

METRICS = """\
*Metrics* are of {test} held-out rows ({small_test} of a family's case). MCC is the mean |cos| of
the one-to-one matching, its chance that of random unit atoms. F1 is that of each latent as a
detector of the feature it is most like, the mean over latents. "F1 at L0 = 5" drops the least
sure firings (log-odds of gates, else the code's size) until so many are left. Subspaces are
scored by the angle to them. Seconds are CPU time of one thread, training only."""

STRUCTURE = """\
*Structure*: learned couplings are estimated from co-firing while the slab trains; shuffled ones
alike, but given to other latents; both with moves and without. The true trees are given to the
latents that the ℓ1 phase has already found (cosine above {near:g}); as moves change what a latent
is, there are none then, nor in what that arm is compared with. Edges are those between latents
matched to features (cosine above 0.7), against the pairs of one tree that fire together and that
exclude each other; chance is that of renaming nodes. *Pruned* keeps the latents of greatest π·E a²
without another fit. *The truth* is the true features and codes, scored alike, its smallest firings
dropped for L0 = 5, its features of greatest mean square kept."""

STILL = """\
The recipe, `vsae.RecoveryRecipe`, as it is and with `moves=0`, on the same rows, atoms and order of
rows: {all_rows} rows of Data A, {length:g} times as many of the copulas. Moves were chosen on
generator seeds 0 and 100 to 105; what is reported is of seeds {seeds}."""

ABLATIONS = """\
The recipe, `vsae.RecoveryRecipe`, as it is and with less, on the same rows, atoms and order of
rows: {all_rows} rows of Data A, of seeds {first}. *The ℓ1 phase alone* sees as many: it is without
the slab, and with it without a noise for every row, moves, and a learning rate that falls. *One
noise for all rows* is the annealed floor; of floors {factors} times those of the recipe it has the
best on generator seed {choosing}, after as many rows (table). *Exponential*
amplitudes begin at the means of the recipe's truncated normals, and are fitted as those are; those
*of a size* deviate by {one_size:.0%} of their mean at most.
*Splits at random* are of as many latents, of those that fire, each in two along a random direction;
what is merged and unfolded is as it is. Nothing else is tuned for what is left. All of them
iterate."""

STORIES = """\
The residual stream after blocks {layers} of a 260 000-parameter story-telling model, {stories}
stories, {story_latents} latents, seeds {readers}, which differ in atoms and order of rows. Ours is
`vsae.SparseCodingRecipe` as it ships, k = {recommended} (L0 is below k), {ours_seen} rows. The
field's arms have AuxK, k = {ks}, as many rows, and the learning rate of the greatest explained
variance among {story_rates} on layer {middle} and seed {choosing}, on as many rows and from the
same start. Atoms, and encoders, start at random data points, the same for all arms of a seed; on
layer {middle} also at random directions (but for the recommended recipe), with more values of k,
and with {lengths} times the rows (ours {our_lengths}). The last are the comparison in time, which
their table gives. Matryoshka is of layer {middle}. The other arms of ours are ℓ1 dictionaries that
end at λ = {end:g}, of whose codes at most k latents are kept and their amplitudes solved again by
non-negative least squares ("refitted"), and slabs of {laws} amplitudes after them, at a noise floor
of {noises}. Metrics are linear in log L0 between an arm's points, and nothing is extrapolated.
Stability is the share of atoms with a partner above cosine 0.9 in another seed's run, beside that
of two draws of data points. Evidence is a bound under one noise for all rows, on {held} held-out
rows. Not shown: larger networks."""

CALIBRATION = """\
Of latents that are features: cosine above 0.9 for probabilities, above 0.99 for amplitudes, on rows
where the feature fires and the gate says so. The models are ours without structure of
{calibrated}."""

MODADD = """\
Transformers that add modulo 59, their files as published. *numbers* is the embedding of both
tokens added up, *sums* the last layer at the last token, over all 3481 inputs, of which
{modadd_held} are held out. A plane is that of a frequency with more than an equal share of the
Fourier power. Arms have {modadd_latents} latents; V-SAEs go on from an ℓ1 run whose latents are
matched to evenly spaced slots on the true rings, which are what the true structure ties, or
start at these slots, where atoms are held while the encoder learns for as many updates. Rows
seen and CPU seconds include this first phase, each time. Shuffled structure ties other latents,
by seed. Structure is compared only where mean L0 is within 5 %. Planarity decides: blocks and
rings are in part there without training, as random data points with codes relu(atom · x) show. σ
and λ were set after a look at pizza's *numbers*, reported seeds included: of that stream the
rules are not blind."""

INTERVALS = """\
A ± b are means over seeds and 95 % t-intervals of them. All settings are in `runs/{part}.json`."""

HOW = {
    "data-a": (OURS, FIELD, METRICS, STRUCTURE),
    "moves": (STILL, METRICS),
    "ablations": (ABLATIONS, METRICS),
    "families": (OURS, FIELD, METRICS),
    "gates": (OURS, GATES, METRICS),
    "absorption": (ABSORPTION, METRICS),
    "inference": (INFERENCE, METRICS),
    "stories": (STORIES,),
    "calibration": (CALIBRATION,),
    "words": (),
    "modadd": (MODADD,),
}
"""The paragraphs of a part; of words see ``recovery_words_how``."""


def how(part: str, chosen: Settings) -> list[str]:
    """The method of a part, with the numbers of the run."""
    numbers = {"part": part, **_synthetic(chosen), **_networks(chosen)}
    numbers |= absorption_numbers(chosen) | inference_numbers(chosen)
    said = [paragraph.format(**numbers) for paragraph in (*HOW[part], INTERVALS)]
    if part == "words":
        return [word_how(chosen.words), *said]
    return [*said, saelens_said(chosen)] if part == "data-a" else said


def _synthetic(chosen: Settings) -> dict[str, object]:
    iterations, recipe = recovery_scores.ITERATIONS, chosen.recipe
    return {
        "l1": recipe.l1_rows,
        "slab": recipe.slab_rows,
        "final": recipe.final_rows,
        "all_rows": recipe.l1_rows + recipe.slab_rows + recipe.final_rows,
        "moves": recipe.moves,
        "length": chosen.small_length,
        "field": iterations[MeanFieldPosterior],
        "fista": iterations[FISTAPosterior],
        "choosing": chosen.choosing,
        "seeds": _listed(chosen.seeds),
        "few": chosen.few,
        "first": _listed(chosen.seeds[: chosen.structured]),
        "factors": _listed(FACTORS),
        "one_size": ONE_SIZE,
        "gate_strength": STRENGTH,
        "gate_later": LATER,
        "structured": chosen.structured,
        "rates": _listed(chosen.rates),
        "search": chosen.search,
        "small_search": chosen.small_search,
        "pilot": _listed(chosen.pilot),
        "seen": chosen.seen,
        "rows": chosen.rows,
        "small_seen": chosen.small_seen,
        "batch": chosen.batch,
        "test": chosen.test,
        "small_test": chosen.small_test,
        "near": recovery_structure.NEAR,
        "calibrated": " and ".join(CALIBRATED),
    }


def _networks(chosen: Settings) -> dict[str, object]:
    return {
        "layers": _listed(chosen.layers),
        "stories": chosen.stories,
        "story_latents": chosen.story_latents,
        "readers": _listed(chosen.readers),
        "recommended": _listed(chosen.recommended_ks),
        "ours_seen": chosen.recommended.l1_rows + chosen.recommended.relaxed_rows,
        "middle": chosen.middle,
        "lengths": _listed(chosen.lengths),
        "our_lengths": _listed(chosen.our_lengths),
        "held": HELD,
        "laws": _listed(tuple(LAWS)),
        "end": chosen.end,
        "noises": _listed(chosen.noises),
        "ks": _listed(chosen.field_ks),
        "story_rates": _listed(chosen.story_rates),
        "modadd_held": 59**2 - chosen.modadd.train,
        "modadd_latents": chosen.modadd.latents,
    }


def _listed(values: tuple) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
