"""The words of the page: what it shows, how it was chosen, and what it cannot show."""

from collections.abc import Mapping, Sequence

from toys.reproduce import html
from toys.reproduce.hsae_contexts_cards import Card, TakenApart
from toys.reproduce.hsae_contexts_html import families, taken_apart
from toys.reproduce.hsae_contexts_settings import Settings
from toys.reproduce.html import Section
from toys.reproduce.tables import Table

TITLE = "Contexts of parents and children of an H-SAE"
READING = (
    "Each box is a place in a held-out story. Underlined tokens are those on which the latent "
    "fires; the heavier the type, the thicker the line and the stronger the shade, the greater its "
    "code, in five equal steps of the greatest code it has on any held-out token. The number in "
    "front is the code at the framed token. ↵ is a line break, ␣ a space, ⟨U+…⟩ a character "
    "without a form of its own, � bytes that are no character."
)
PLACES = (
    "Strongest contexts are the greatest codes of all held-out text, one per story, since stories "
    "repeat themselves. Strongest contexts flatter a latent: unfold “drawn at random” for what it "
    "fires on ordinarily."
)
NUMBERS = (
    "“Takes away of the error” is the functional link: of the squared error that would be left on "
    "the rows where the child fires if the child alone were removed, the share that it takes away. "
    "Its control puts the atom of a random sibling in its place, with the same code: a low bar, as "
    "any direction but a right one adds error. “Commonest token” is the token of the vocabulary on "
    "which a latent fires most often; beside it, the share of that token in the parent’s firings."
)
ONE_MODEL = (
    "One layer of one tiny network, a short training, learning rates not searched for: a page to "
    "read, not a result. Names and meanings are the reader’s own; nothing here tests them. A child "
    "can fire only with its parent, so that its contexts lie among its parent’s by construction: "
    "likeness of a family is no evidence of a hierarchy, nor is a lack of it. In the table at the "
    "end, the share of the commonest token in children’s firings stands beside that of children "
    "whose firings were dealt out anew among siblings: what any splitting of parents would give."
)
LOADED = (
    "This H-SAE was read from a folder: what it was trained on is not known here. The stories "
    "shown are held out from its training only if that was on “vsae train stories260K” or on the "
    "same nine stories in ten. There is no flat SAE of equal training to put beside it."
)
APART = (
    "Held-out tokens drawn at random, all tokens alike. Everything active at the framed token, the "
    "greatest contribution first: the norm of code times atom, in the model’s units (mean square 1 "
    "per neuron where it was trained here). Contributions are not orthogonal: norms do not add up. "
    "“Strongest at” are the tokens of a latent’s strongest contexts."
)


def rule(chosen: Settings) -> str:
    """How parents were chosen."""
    return (
        f"Rule, stated before anything was read: of the parents that fire on {100 * chosen.low:g} "
        f"to {100 * chosen.high:g} % of held-out tokens, those with the most children that fire on "
        f"at least {chosen.least} of them; of equal ones, those that fire more. "
        f"{chosen.parents} at most are shown. A page of chosen parents proves nothing about the "
        "others: below are some drawn at random."
    )


def drawn_note(seed: int) -> str:
    """How parents were drawn."""
    return (
        f"Drawn with seed {seed} from all parents that fire at all, whatever their rate, chosen "
        "ones not left out: what an ordinary family looks like."
    )


def sections(
    shown: Mapping[str, Sequence[Card]],
    tokens: Sequence[TakenApart],
    scores: Table,
    chosen: Settings,
    *,
    rows: int,
    image: bytes,
    loaded: bool,
) -> list[Section]:
    """The page, top to bottom."""
    by_rule = families(shown["chosen"], kind="chosen", unfolded=chosen.open)
    if not shown["chosen"]:
        by_rule = [html.paragraph("No parent fires that often.")]
    at_random = families(shown["drawn"], kind="drawn", unfolded=chosen.open)
    return [
        Section("What this is", [html.paragraph(line) for line in opening(chosen, rows, loaded)]),
        Section("How to read it", [html.paragraph(line) for line in (READING, PLACES, NUMBERS)]),
        Section("Parents chosen by a rule", [html.paragraph(rule(chosen)), *by_rule]),
        Section(
            "Parents drawn at random", [html.paragraph(drawn_note(chosen.seeds[0])), *at_random]
        ),
        Section(
            "Tokens taken apart",
            [html.paragraph(APART), *(taken_apart(t, i) for i, t in enumerate(tokens, 1))],
        ),
        Section("All latents", [html.figure(image, RATES), html.table(scores)]),
    ]


RATES = (
    "How often parents and children fire on held-out tokens, on a log scale. The bar left of the "
    "dashed line is of those that never do."
)


def opening(chosen: Settings, rows: int, loaded: bool) -> list[str]:
    """What the page is of."""
    what = (
        "A saved H-SAE reads"
        if loaded
        else f"An H-SAE of {chosen.roots} parents with {chosen.children} children each, "
        f"{chosen.k} parents and one child of each per token, trained for {chosen.steps} updates "
        f"of {chosen.batch} rows, reads"
    )
    first = (
        f"{what} layer {chosen.layer} of a 260 000-parameter network that was trained to tell "
        f"stories. All text here is of held-out stories ({rows} tokens), every tenth one, on which "
        f"{'an autoencoder should not be' if loaded else 'no autoencoder was'} trained. (The "
        "network itself has read them.)"
    )
    return [first, LOADED if loaded else seeds_note(chosen), ONE_MODEL]


def seeds_note(chosen: Settings) -> str:
    """Which of the models is shown."""
    count = len(chosen.seeds)
    others = "" if count == 1 else f" of {count}; the table at the end has all"
    return f"The page shows seed {chosen.seeds[0]}{others}."
