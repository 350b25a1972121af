"""The words of the quickstart's report: what was done, and what each table does not show."""

from collections.abc import Mapping, Sequence

from toys.reproduce import html
from toys.reproduce.html import Section
from toys.reproduce.quickstart_arms import L1
from toys.reproduce.quickstart_figures import Picture
from toys.reproduce.quickstart_structure import GRAPH, ISOTROPIC, SHUFFLED
from toys.reproduce.quickstart_tables import Results, ratio_at
from toys.reproduce.tables import Table

LIMITS = (
    "One seed, one layer of one tiny network, at most a few hundred stories, short training: this "
    "shows that everything works and how to read it, not which prior is best."
)
HOW = (
    "A first ℓ1 SAE gives latents an identity. The correlation of its codes makes a graph (each "
    "latent tied to those it fires with most) and blocks (Ward clusters). Every arm, the ℓ1 SAE "
    "too, then starts from its atoms and encoder and is trained for the same steps on the same "
    "rows. V-SAEs rectify their latents: z is Gaussian under the prior, the code is relu(z). Their "
    "prior mean and scale are those of the Gaussian that fires as often as the first run's latents "
    "and has their root mean square when it does; σ is a multiple of the first run's root mean "
    "square residual. "
    "Graph priors are scaled to the same average marginal variance. The shuffled graph has the "
    "same spectrum with latents renamed at random: what it does, structure did not do. Isotropic "
    "and graph priors are fixed; those of the Cholesky and block-diagonal arms are learned, except "
    "for their mean, which is fixed: what they learn is mostly one shift common to all "
    "latents (see the correlations), and it costs them sparsity. The rules were chosen, and σ and "
    "the prior's rate set, with an eye on these same held-out rows, so V-SAEs look better against "
    "ℓ1 than they are."
)
COLLAPSE = (
    "Collapse rule for a linear code under an isotropic prior: principal components with variance "
    "below σ² = α/2 are lost. Settings below say how many are above."
)
NOTES = {
    "toys": (
        "Shown: that arms run and how far atoms are from true features. Not shown: which arm is "
        "better; L0 differs between arms and there is one seed. Use vsae reproduce part1."
    ),
    "arms": (
        "Shown: every run at its own L0. Not shown: a ranking, since L0 differs; KL is in nats of "
        "each arm's own prior. " + LIMITS
    ),
    "matched": (
        "Each loss over the baseline's at the same L0, interpolated (log-log) between the "
        "baseline's strengths; – where the baseline does not reach that L0. Not shown: "
        "uncertainty. One seed; differences of a few percent mean nothing."
    ),
    "references": (
        "PCA needs no selection of components per row, so its numbers per row are not quite L0. "
        "CE is over held-out stories, which the language model itself was trained on."
    ),
    "settings": "Scales are in normalised units: E‖x‖² = d after centring.",
}


def sections(
    results: Results,
    tables: Mapping[str, Table],
    pictures: Sequence[Picture],
    images: Mapping[str, bytes],
) -> list[Section]:
    """The report, top to bottom."""
    figures = {p.stem: html.figure(images[p.stem], p.caption) for p in pictures}

    def tabled(stem: str) -> list[str]:
        return [html.table(tables[stem]), html.paragraph(NOTES[stem], note=True)]

    real = ("frontier", "network_loss", "training", "correlations", "firing_rates", "kl_per_latent")
    return [
        Section("In short", [html.paragraph(line) for line in (*summary(results), LIMITS)]),
        Section(
            "A real network: layer 2 of stories260K",
            [html.paragraph(HOW), figures["frontier"], *tabled("matched"), *tabled("arms")],
        ),
        Section("Reference points", [figures["network_loss"], *tabled("references")]),
        Section("What the arms learned", [figures[stem] for stem in real[2:]]),
        Section("Toys with ground truth", [figures["toys"], *tabled("toys")]),
        Section("Settings", [html.paragraph(COLLAPSE), *tabled("settings")]),
    ]


def summary(results: Results) -> list[str]:
    """A line per arm at its middle strength, for the top of the report and for stdout."""
    return [_line(results, arm) for arm in results.arms]


def _line(results: Results, arm: str) -> str:
    run, score = results.middle(arm)
    text = (
        f"{arm}: explained variance {score.explained_variance:.3f}, CE recovered "
        f"{score.ce_recovered_mean:.3f} at L0 {score.l0:.1f}"
    )
    named = {L1: "the ℓ1 SAE", ISOTROPIC: "the isotropic prior"} | (
        {SHUFFLED: "the shuffled graph"} if arm == GRAPH else {}
    )
    for base, name in named.items():
        ratio = ratio_at(results, run, score, base, "unexplained")
        if ratio is not None:
            text += f"; {ratio:.2f} times the unexplained variance of {name} at that L0"
    return text + "."
