"""The words' part of ``vsae reproduce recovery``: split, detection, trees, jobs, verdicts."""

import json
from dataclasses import replace

import pytest
import torch
from scipy.special import stdtrit
from torch import Generator

from priors import TreeGatesPrior
from toys.reproduce import recovery, recovery_words
from toys.reproduce.recovery_results import Results
from toys.reproduce.recovery_runs import Part
from toys.reproduce.recovery_settings import Settings, settings
from toys.reproduce.recovery_structure import SHUFFLE
from toys.reproduce.recovery_words import (
    WordsCodingJob,
    WordsControlJob,
    WordsFieldJob,
    WordsSlabJob,
    explained,
    worths,
)
from toys.reproduce.recovery_words_arms import CONTROL, L1, OURS, SLAB, WORD_ARMS
from toys.reproduce.recovery_words_data import Split, kept_parents, words
from toys.reproduce.recovery_words_figure import icicle
from toys.reproduce.recovery_words_findings import best_of_field, word_details, word_findings
from toys.reproduce.recovery_words_gates import STRUCTURES, edges, latents_tree
from toys.reproduce.recovery_words_plan import best_word_rates, word_jobs, word_searches
from toys.reproduce.recovery_words_scores import detection, family, summary
from toys.reproduce.recovery_words_tables import models, values, word_tables
from toys.reproduce.tables import number
from vsae import metrics
from vsae.batches import stream
from vsae.errors import NonFiniteLossError
from vsae.recipes.recovery import RecoveryRecipe
from vsae.recipes.sparse_coding import SparseCodingRecipe

SPLIT = Split(seed=1, least=16)


def indicators(found):
    """Codes of a dictionary with one latent per concept, which fires on its words and no others.

    Of all trusted words, twice: among half of them some concepts have the same words.
    """
    return [(found.members.double(), found.members)] * 2


# Data


def test_ten_seeds_hold_out_every_word_once():
    held = torch.cat([words(Split(seed=seed, least=16)).held for seed in range(10)])
    assert torch.equal(held.sort().values, torch.arange(2184))


def test_halves_are_of_trusted_words_and_share_none():
    found = words(SPLIT)
    both = torch.cat([found.known.words, found.asked.words])
    assert len(both.unique()) == len(both) == 1137
    again = words(Split(seed=2, least=16))
    assert not torch.equal(found.known.words, again.known.words)


def test_concepts_are_nested_as_their_parents_say():
    found = words(SPLIT)
    members, parents = found.members, found.parents
    assert not members.all(0).any()
    for child, parent in enumerate(parents.tolist()):
        above = [
            node
            for node in range(len(parents))
            if node != child and bool((members[:, child] <= members[:, node]).all())
        ]
        nearest = min(above, key=lambda node: int(members[:, node].sum()), default=-1)
        assert parent == nearest


def test_parents_skip_what_is_left_out():
    chain = torch.tensor([-1, 0, 1, 2, 1])
    kept = torch.tensor([True, False, False, True, True])
    assert kept_parents(chain, kept).tolist() == [-1, 0, 0]
    assert torch.equal(kept_parents(chain, torch.ones(5, dtype=torch.bool)), chain)


# Scores against planted truth


def test_a_dictionary_of_concepts_scores_one():
    found = words(SPLIT)
    scores = detection(*indicators(found), Generator().manual_seed(0))
    assert scores.f1.tolist() == [1.0] * len(found.names)
    assert scores.found == scores.purity == 1
    assert scores.f1_null.mean() < 0.2
    assert scores.purity_null < 0.2


def test_permuted_words_score_the_null():
    """Labels dealt anew are exchangeable with the permutations that make the null."""
    found = words(SPLIT)
    (codes, on), (more, asked) = indicators(found)
    gaps, shares = [], []
    for seed in range(40):
        generator = Generator().manual_seed(seed)
        one, two = (rows[torch.randperm(len(rows), generator=generator)] for rows in (codes, more))
        scores = detection((one, on), (two, asked), generator)
        gaps.append(float((scores.f1 - scores.f1_null.mean(0)).mean()))
        shares.append(scores.found)
    gaps, shares = torch.tensor(gaps), torch.tensor(shares)
    assert abs(gaps.mean()) < 4 * gaps.std() / 40**0.5
    # at most 1/20 of concepts: ties with a permutation are not found
    assert shares.mean() < 0.05 + 4 * shares.std() / 40**0.5


def test_a_latent_is_not_scored_on_the_words_it_was_chosen_on():
    """Firing on one half's words alone, the other half's F1 is 0."""
    on = torch.tensor([[True, False], [False, True]]).repeat(10, 1)
    fires, silent = on.double(), torch.zeros(20, 2, dtype=torch.float64)
    scores = detection((fires, on), (silent, on), Generator().manual_seed(0))
    assert scores.f1.tolist() == [0, 0]
    assert scores.found == 0
    assert summary(scores)["purity"] is None  # nothing fires


def test_purity_is_the_share_of_a_latents_words():
    on = torch.tensor([[True, False], [False, True]]).repeat(10, 1)
    both = torch.ones(20, 1, dtype=torch.float64)
    scores = detection((both, on), (both, on), Generator().manual_seed(0))
    assert scores.purity == scores.purity_null == 0.5
    assert scores.found == 0  # no better than permuted


def test_the_true_tree_of_indicators_stays_in_the_family():
    found = words(SPLIT)
    known, asked = indicators(found)
    own = family(known, asked, found.parents, found.parents)
    assert own["family"] == own["child_purity"] == 1
    assert own["family_chance"] < 0.5
    assert own["edges"] == int((found.parents >= 0).sum())


# Trees of latents


def test_latents_that_stand_for_concepts_get_their_tree():
    found = words(SPLIT)
    count = len(found.names)
    order = torch.randperm(count, generator=Generator().manual_seed(0))
    similar = torch.eye(count)[order] * 0.9  # latent k stands for the concept order[k]
    place = order.argsort()
    expected = torch.full((count,), -1)
    for child, parent in enumerate(found.parents.tolist()):
        expected[place[child]] = place[parent] if parent >= 0 else -1
    assert torch.equal(latents_tree(similar, found.parents), expected)


def test_a_concept_without_a_latent_is_skipped_and_weak_latents_are_roots():
    parents = torch.tensor([-1, 0, 1])
    similar = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.2, 0.1], [0.0, 0.0, 0.8], [0.0, 0.0, 0.7]])
    assert latents_tree(similar, parents).tolist() == [-1, -1, 0, -1]


def test_likeness_to_a_concept_and_its_parent_makes_no_cycle():
    found = words(SPLIT)
    for seed in range(20):
        shape = (30, len(found.names))
        drawn = torch.randint(0, 4, shape, generator=Generator().manual_seed(seed))
        TreeGatesPrior(latents_tree(drawn / 4, found.parents))  # refuses what is no forest


def test_edges_are_counted_and_so_is_what_the_shuffle_changed():
    chain, seen = torch.tensor([-1, 0, 0, 1, 1, 2, 2]), []
    for seed in range(30):
        dealt = metrics.shuffled_parents(chain, stream(seed, SHUFFLE))
        said = edges(chain, seed)
        assert said == {"tied": 6, "changed": pytest.approx(int((dealt != chain).sum()) / 6)}
        seen.append(said["changed"])
    assert min(seen) == 0 < max(seen)  # a dealing may be the true one
    chain = torch.full((7,), -1)
    assert edges(chain, 0) == {"tied": 0, "changed": None}


# Jobs


@pytest.mark.float32
def test_ev_of_all_firings_and_of_the_surest_is_of_codes_as_they_are(monkeypatch):
    """Amplitudes solved again are a curve of their own, whichever firings are kept."""
    found = words(SPLIT)
    pair = WordsControlJob(split=SPLIT, k=8, latents=64).build(found)
    monkeypatch.setattr(recovery_words, "refitted", lambda x, codes, atoms: torch.zeros_like(codes))
    with torch.no_grad():
        nothing = explained(found, pair, torch.zeros(len(found.test), 64))
    whole, surest = worths(found, pair, 0, (2.0,))
    assert (whole["trimmed"], surest["trimmed"]) == (None, 2.0)
    assert whole["ev_refitted"] == surest["ev_refitted"] == nothing
    assert nothing < surest["ev"] < whole["ev"]


@pytest.mark.float32
def test_an_l1_phase_that_diverges_is_a_row_that_failed(monkeypatch):
    class Diverges:
        def __iter__(self):
            raise NonFiniteLossError("no", code="loss.non_finite")

    monkeypatch.setattr(RecoveryRecipe, "l1_phase", lambda *args, **settings: Diverges())
    chosen = Settings()
    rates = dict.fromkeys(WORD_ARMS, 0.01)
    job = next(job for job in word_jobs(chosen, rates) if isinstance(job, WordsSlabJob))
    row = job.compute().row
    assert row["failed"]
    assert row["models"] == []
    assert (row["seed"], row["arm"]) == (job.split.seed, SLAB)


def test_learning_rates_are_chosen_at_the_l0():
    def row(arm, lr, points):
        return {"arm": arm, "lr": lr, "models": [{"l0": a, "ev": b} for a, b in points]}

    rows = [
        row("topk", 0.1, [(8.5, 0.5)]),
        row("topk", 0.2, [(9.0, 0.6)]),
        row("l1", 0.1, [(4.0, 0.2)]),
        row("l1", 0.1, [(16.0, 0.4)]),
        row("l1", 0.2, [(20.0, 0.9)]),
        row("l1", 0.2, [(16.0, 0.8)]),  # never at 8
        row("isotropic", 0.05, [(16.0, 0.9)]),  # one of a sweep, the others failed
        row("isotropic", 0.1, []),  # failed
        row("isotropic", 0.2, [(4.0, 0.1), (16.0, 0.2)]),
    ]
    assert best_word_rates(rows) == {"topk": 0.2, "l1": 0.1, "isotropic": 0.2}


def test_the_reported_run_is_of_other_seeds_than_the_chosen_one():
    chosen = Settings()
    planned = list(word_jobs(chosen, dict.fromkeys(WORD_ARMS, 0.01)))
    assert {job.split.seed for job in planned} == set(chosen.seeds)
    assert {job.split.seed for job in word_searches(chosen)} == {chosen.choosing}
    assert chosen.choosing not in chosen.seeds
    assert {job.arm for job in planned if isinstance(job, WordsFieldJob)} == set(WORD_ARMS)
    assert set(chosen.words.gates) == set(STRUCTURES)
    assert len({job.name for job in planned}) == len(planned)


@pytest.mark.float32
@pytest.mark.parametrize("arm", WORD_ARMS)
def test_arms_are_what_they_say(arm):
    job = WordsFieldJob(split=SPLIT, arm=arm, strength=4.0, latents=64, lr=0.01, seen=128, batch=64)
    pair = job.build(words(SPLIT))
    assert pair.W_dec.shape == (64, 50)
    assert pair.normalizer is words(SPLIT).normalizer


@pytest.mark.float32
def test_the_control_has_the_atoms_that_sparse_coding_starts_from():
    found = words(SPLIT)
    control = WordsControlJob(split=SPLIT, k=3, latents=32).build(found)
    ours = SparseCodingRecipe(k=3).l1_phase(found.train, latents=32, seed=SPLIT.seed)
    torch.testing.assert_close(control.W_dec, ours.autoencoder.W_dec)
    codes = control.encode(found.test)
    assert 0 < int((codes != 0).sum(-1).max()) <= 3


@pytest.mark.float32
def test_a_job_is_a_pure_function_of_its_fields():
    own = settings(smoke=True, seeds=None).words
    job = WordsCodingJob(split=SPLIT, recipe=replace(own.coding, k=3), latents=32)
    slab = next(j for j in word_jobs(settings(smoke=True, seeds=None), {"l1": 0.1, "topk": 0.1,
                "hierarchical": 0.1}) if type(j).__name__ == "WordsSlabJob")  # fmt: skip
    for made in (job, replace(slab, latents=32)):
        torch.manual_seed(5)
        one = made.compute()
        torch.manual_seed(6)
        two = made.compute()
        assert one.row["models"] == two.row["models"]
        assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
        assert len(one.tensors) >= 2
        assert len({atoms.data_ptr() for atoms in one.tensors.values()}) == len(one.tensors)


@pytest.mark.float32
def test_a_phase_that_goes_on_leaves_the_measured_atoms_alone():
    """Both phases train one dictionary: what is kept of the first is a copy."""
    own = settings(smoke=True, seeds=None).words
    job = WordsCodingJob(split=SPLIT, recipe=replace(own.coding, k=3), latents=32)
    atoms = job.compute().tensors
    assert not torch.equal(atoms[L1], atoms[OURS])


# Verdicts


def planted(*, ours=0.9, f1=0.5, tree=0.4):
    """Rows as a run leaves them: each model at L0 3 and 20, better on later seeds alike."""
    chosen, rows = Settings(), []
    level = {
        OURS: (ours, f1),
        L1: (0.6, 0.3),
        CONTROL: (0.5, 0.2),
        "topk": (0.7, 0.3),
        "batch_topk": (0.6, 0.4),
    } | {f"{SLAB} {name}": (0.6, 0.4 if name != "tree" else tree) for name in STRUCTURES}
    for seed in chosen.seeds:
        for place, (name, (ev, score)) in enumerate(level.items()):
            jitter = 0.01 * ((seed * (place + 2)) % 5)
            made = [
                {"name": name, "seed": seed, "failed": None, "trimmed": None, "dead": 0.0}
                | {"l0": l0, "l0_asked": l0, "ev": ev + jitter, "ev_refitted": ev + jitter}
                | {"f1": score + jitter, "f1_null": 0.05, "found": 0.8, "found_null": 0.05}
                | {"purity": 0.5, "purity_null": 0.1, "concepts": [score, score]}
                for l0 in (3.0, 20.0)
            ]
            row = {"arm": name, "seed": seed, "failed": None, "seconds": 1.0, "strength": 1.0}
            rows.append(row | {"file": "", "cached": True, "models": made})
    return Results(chosen, {"words": Part((), {}, rows)})


def test_findings_follow_from_the_rows():
    said = "\n".join(word_findings(planted()))
    assert "EV of held-out words, ours, sparse coding: L0 4: 0.9" in said
    assert "of TopK + AuxK, better" in said  # EV's best of the field
    assert "of BatchTopK + AuxK, better" in said  # F1's
    assert (
        "structure, tree against tree-shuffled, concept F1: L0 4: 0.4 against 0.42 of ours" in said
    )
    worse = "\n".join(word_findings(planted(ours=0.5, f1=0.1, tree=0.9)))
    line = next(s for s in worse.split("\n") if s.startswith("Words, concept F1, ours, sparse"))
    assert line.count("worse") == 3
    line = next(s for s in worse.split("\n") if "tree against none, concept F1" in s)
    assert line.count("better") == 3


def test_amplitudes_solved_again_are_compared_of_every_arm_of_ours():
    said = [s for s in word_findings(planted()) if "amplitudes of both solved again" in s]
    assert [s.split("again, ")[1].split(":")[0] for s in said] == [
        "ours, sparse coding", "ours, ℓ1 alone", "ours, slab"
    ]  # fmt: skip
    assert said[0].count("better") == said[1].count("worse") == 3


def test_comparisons_are_made_at_the_level_of_all_of_them():
    """By hand: 5 seeds, 3 arms at 3 values of L0."""
    results = planted()
    found = models(results)
    one, two = (values(results, found[name], "ev", 8.0) for name in (OURS, "topk"))
    gain = torch.tensor(one) - torch.tensor(two)
    wide = float(stdtrit(4, 1 - 0.05 / 9 / 2) * gain.std() / 5**0.5)
    said = next(s for s in word_findings(results) if "EV of held-out words, ours, sp" in s)
    assert said.count(f"({number(float(gain.mean()))} ± {number(wide, digits=2)})") == 3


@pytest.mark.parametrize(("tied", "changed"), [(0, None), (4, 0.5)])
def test_a_tree_without_edges_is_said_to_be_none(tied, changed):
    results = planted()
    for row in results.parts["words"].rows:
        for model in row["models"]:
            shared = {"edges": 1, "child_purity": 0.5, "child_purity_chance": 0.1}
            model |= shared | {"family": 0.5, "family_chance": 0.1}
            model |= {"tied": tied, "changed": changed} if "tree" in model["name"] else {}
    (said,) = [s for s in word_details(results, []) if s.startswith("Words, structure, tree: ")]
    assert f"in {0 if tied else 5} of 5 seeds" in said
    assert ("latents tied to a parent, no edges;" in said) == (not tied)
    table = word_tables(results, [])["words_family"]
    cells = {row["arm"]: row["share of edges shuffled"] for row in table.rows}
    assert cells["ours, slab"] is None
    for name in ("ours, slab + WordNet's tree", "ours, slab + tree shuffled"):
        assert cells[name] == "no edges" if not tied else cells[name].mean == 0.5


def test_the_best_of_the_field_is_of_the_field():
    results = planted()
    assert best_of_field(results, "ev", 8.0) == "topk"
    assert best_of_field(results, "f1", 8.0) == "batch_topk"
    assert best_of_field(results, "f1", 30.0) is None
    assert values(results, models(results)[OURS], "ev", 30.0) is None
    table = word_tables(results, [])["words_fidelity"]
    assert table.rows[0]["EV, L0 8"].mean == pytest.approx(0.92)


def test_cells_lie_within_their_parents_and_side_by_side():
    found = words(SPLIT)
    cells = icicle(found)
    for node, (top, height, depth) in enumerate(cells):
        above = int(found.parents[node])
        if above >= 0:
            low, size, level = cells[above]
            assert depth == level + 1
            assert low - 1e-9 <= top
            assert top + height <= low + size + 1e-9
        for other in range(node):
            if int(found.parents[other]) == above:
                start, size, _ = cells[other]
                assert top >= start + size - 1e-9 or start >= top + height - 1e-9


@pytest.mark.float32
def test_smoke_run_of_the_words(tmp_path, capsys):
    out = tmp_path / "words"
    call = ["--smoke", "--threads", "1", "--json", "--part", "words", "--out", str(out)]
    assert recovery.main(call) == 0
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert result["failed"] == []
    told = result["parts"]["words"]
    assert {"words_fidelity", "words_concepts", "words_family", "choices"} <= set(told["tables"])
    assert (out / "figures" / "words" / "words.png").stat().st_size > 20_000
    shown = json.loads((out / "figures" / "words" / "words.json").read_text(encoding="utf-8"))
    assert set(shown["f1"]) >= {OURS, CONTROL, "permuted"}
    assert any(sentence.startswith("Words, control") for sentence in told["findings"])
