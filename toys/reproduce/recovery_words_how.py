"""What was done with the words, in words, with the numbers of the run."""

from toys.reproduce.recovery_words_arms import WORD_ARMS
from toys.reproduce.recovery_words_data import TENTHS
from toys.reproduce.recovery_words_gates import STANDS
from toys.reproduce.recovery_words_plan import CHOSEN_AT
from toys.reproduce.recovery_words_scores import DRAWS
from toys.reproduce.recovery_words_settings import WordSettings

HOW = """\
*Words*: GloVe vectors of 2184 nouns (50 dimensions), centred and scaled as a whole; few rows,
so that one word in {tenths}, another tenth for each seed, is held out for EV. Concepts are the
synsets of WordNet with {least} trusted words or more, the root left out. Half of the trusted
words, drawn anew for each seed, are known: on them the best latent of each concept and the best
concept of each latent are chosen by F1, and by them latents get WordNet's tree. F1, the share
of concepts found (F1 above that of all {draws} permutations of the words) and purity (the share
of a latent's words that are of its concept) are of the other half, which includes words that
were trained on without their labels. {latents} latents; {arms} see {seen} rows, at the learning
rate out of {rates} of the greatest EV at L0 {at:g} on the choosing seed (at the middle k where
the knob is k). Ours: {l1} rows of ℓ1 and {relaxed} without shrinkage, or {slab_l1} of ℓ1 and
{slab} of spike and slab, sizes and learning rates chosen by hand on that seed, too, EV and
concept scores in sight. The slab's firings are also trimmed to the surest. EV is of codes as
they are (sparse coding's amplitudes are solved again by its own guide), and of every arm's with
amplitudes solved again, each a curve of its own. The true tree is given to the latents that
stand for concepts after the ℓ1 phase (F1 at least {stands:g} on known words). The control has
random training words as atoms, under sparse coding's guide, without training. Permuted words,
shuffled couplings, a shuffled tree and two sets of random words as atoms are the other chance
levels. Metrics are linear in log L0 inside each sweep."""


def word_how(chosen: WordSettings) -> str:
    """The method, with the numbers of the run."""
    return HOW.format(
        tenths=TENTHS,
        least=chosen.least,
        draws=DRAWS,
        latents=chosen.latents,
        arms=", ".join(WORD_ARMS[name].label for name in chosen.arms),
        seen=chosen.seen,
        rates=", ".join(f"{rate:g}" for rate in chosen.rates),
        at=CHOSEN_AT,
        l1=chosen.coding.l1_rows,
        relaxed=chosen.coding.relaxed_rows,
        slab_l1=chosen.slab.l1_rows,
        slab=chosen.slab.slab_rows,
        stands=STANDS,
    )
