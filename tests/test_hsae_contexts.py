"""``vsae reproduce hsae-contexts``: the rules against brute force, the page as a file to open."""

import json
import re
import unicodedata
from argparse import Namespace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from priors import Tree
from priors.errors import ConfigError
from toys.network import StoriesTransformer
from toys.reproduce import hsae_contexts
from toys.reproduce.hsae_contexts_cards import (
    Card,
    Context,
    Contribution,
    Dealer,
    Decomposition,
    Facts,
    TakenApart,
    every,
    name_of,
)
from toys.reproduce.hsae_contexts_find import Firings, any_roots, siblings_shuffled, worth_reading
from toys.reproduce.hsae_contexts_html import families, level, taken_apart
from toys.reproduce.hsae_contexts_reading import Hierarchy, Reading
from toys.reproduce.hsae_contexts_report import document, gathered, report
from toys.reproduce.hsae_contexts_runs import Models, loaded, tree_of
from toys.reproduce.hsae_contexts_settings import Settings
from toys.reproduce.hsae_contexts_style import LEVELS, STYLE
from toys.reproduce.hsae_contexts_text import (
    HeldOutText,
    Part,
    Window,
    pieces,
    quoted,
    visible,
)
from toys.reproduce.html import STYLE as BASE
from toys.stories import StoriesData
from toys.tokenizer import Tokenizer
from vsae import SparseCode, hierarchical_autoencoder, metrics, save, topk_autoencoder
from vsae.__main__ import main as vsae_main

TOKENIZER = Tokenizer.load()
EVIL = "<script>alert(1)</script> & \"quotes' <img src=x onerror=y> &lt; ]]> \x00\x07\u202e好\ufffd"
HELD = (f"A dog. {EVIL} A cat ran.", f"\n\nHello 好 “world” {EVIL}")
SMALL = Settings(low=0.0, high=1.0, least=1, parents=4, drawn=3, tokens=4, width=6, open=1)


def data():
    """Twenty stories, the two held out full of markup; QQQQ stands in training stories alone."""
    texts = [f"One day QQQQ {i} {EVIL} went home. QQQQ" for i in range(20)]
    texts[9], texts[19] = HELD
    return StoriesData.from_texts(texts, StoriesTransformer.load(), TOKENIZER)


def an_hsae(*, branching=(5,), subspaces=(3,), seed=0):
    torch.manual_seed(seed)
    pair = hierarchical_autoencoder(64, 8, k=3, branching=branching, subspaces=subspaces)
    return pair.double()


@pytest.fixture(scope="module")
def stories():
    return data()


@pytest.fixture(scope="module")
def read(stories):
    """An untrained H-SAE on held-out rows, and the text."""
    torch.set_default_dtype(torch.float64)
    pair, text = an_hsae(), HeldOutText(stories)
    x = stories.activations(2, "heldout")
    return pair, Hierarchy.of(pair, x, text, 0), text, x


def dense(found):
    return found.reading.firings.codes.toarray()


# Text.


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_pieces_part_a_text_and_no_character(text):
    tokens = TOKENIZER.encode(text)
    found = pieces(TOKENIZER, tokens)
    assert "".join(p.text for p in found) == (" " + text if text else "")
    assert [at for p in found for at in p.tokens] == list(range(len(tokens)))


@given(st.lists(st.integers(0, 511), max_size=12))
def test_bytes_that_are_no_text_lose_nothing_else(tokens):
    found = pieces(TOKENIZER, tokens)
    assert [at for p in found for at in p.tokens] == list(range(len(tokens)))
    raw = b"".join(TOKENIZER.raw(token) for token in tokens)
    assert "".join(p.text for p in found) == raw.decode("utf-8", errors="replace")


@given(st.text())
def test_nothing_invisible_is_shown(text):
    for character in visible(text):
        assert unicodedata.category(character)[0] != "C"
        assert character not in "\u2028\u2029"
    assert " " not in quoted(text)


def test_windows_are_of_one_story_and_hold_their_row(stories):
    text, rows = HeldOutText(stories), stories.rows("heldout")
    for row in range(len(rows)):
        window = text.window(row, 4)
        assert row in window.parts[window.at].rows
        covered = [r for part in window.parts for r in part.rows]
        assert covered == list(range(covered[0], covered[-1] + 1))
        assert {int(text.story[r]) for r in covered} == {window.story} <= {9, 19}
        before, after = window.at, len(window.parts) - 1 - window.at
        assert window.before or covered[0] == 0 or text.story[covered[0] - 1] != window.story
        assert before == 4 or not window.before
        assert after == 4 or not window.after


# Rules against brute force.


@pytest.mark.parametrize("seed", range(5))
def test_strongest_are_the_maxima_of_their_stories(seed):
    generator = torch.Generator().manual_seed(seed)
    support = torch.stack([torch.randperm(6, generator=generator)[:3] for _ in range(80)])
    z = torch.randint(0, 5, (80, 3), generator=generator).double()  # many equal ones
    code = SparseCode(support, z, 6)
    firings, story = Firings.of(code), np.repeat(np.arange(8), 10)
    full = code.dense().numpy()
    np.testing.assert_array_equal(firings.codes.toarray(), full)
    assert firings.counts.tolist() == (full != 0).sum(0).tolist()
    for latent in range(6):
        best = {}  # story: (-code, row)
        for row in np.flatnonzero(full[:, latent]):
            key = (-full[row, latent], row)
            best[story[row]] = min(best.get(story[row], key), key)
        expected = [row for _, row in sorted(best.values())][:5]
        found = firings.strongest(latent, story, 5)
        assert found == expected
        assert full[found[0], latent] == full[:, latent].max()
        assert firings.at(latent, range(80)) == full[:, latent].tolist()
        drawn = firings.drawn(latent, 7, generator)
        assert len(set(drawn)) == len(drawn) == min(7, len(np.flatnonzero(full[:, latent])))
        assert (full[drawn, latent] != 0).all()


def test_draws_of_firings_are_uniform():
    code = SparseCode(torch.zeros(6, 1, dtype=torch.long), torch.ones(6, 1), 1)
    firings, generator = Firings.of(code), torch.Generator().manual_seed(0)
    seen = np.zeros(6)
    for _ in range(3000):
        seen[firings.drawn(0, 2, generator)] += 1
    # Each row is drawn a third of the time: five standard errors of a share over 3000 draws.
    assert abs(seen / 3000 - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 3000)


@pytest.mark.parametrize("seed", range(20))
def test_chosen_parents_are_those_of_the_rule(seed):
    rng, tree, rows = np.random.default_rng(seed), Tree(12, (4,)), 1000
    counts = np.concatenate([rng.integers(0, 80, 12), rng.integers(0, 25, 48)])
    chosen = Settings(low=0.01, high=0.05, least=10, parents=5)
    keyed = []
    for root in range(12):
        active = sum(counts[12 + 4 * root + i] >= 10 for i in range(4))
        if 0.01 <= counts[root] / rows <= 0.05:
            keyed.append((-active, -counts[root], root))
    assert worth_reading(counts, rows, tree, chosen) == [root for *_, root in sorted(keyed)[:5]]


def test_drawn_parents_are_any_that_fire_and_a_function_of_the_seed():
    tree, counts = Tree(6, (2,)), np.array([3, 0, 5, 1, 0, 2] + [1] * 12)
    found = [any_roots(counts, tree, 2, torch.Generator().manual_seed(s)) for s in range(60)]
    assert found[0] == any_roots(counts, tree, 2, torch.Generator().manual_seed(0))
    assert {root for roots in found for root in roots} == {0, 2, 3, 5}
    assert all(len(set(roots)) == 2 for roots in found)
    assert sorted(any_roots(counts, tree, 99, torch.Generator())) == [0, 2, 3, 5]


def test_names_are_paths():
    tree = Tree(3, (2, 4))
    parents = tree.parents().tolist()
    seen = {}
    for latent in range(tree.latents):
        kind, path = name_of(latent, tree).split()
        depth = path.count(".")
        assert kind == ("Parent", "Child", "Grandchild")[depth]
        assert tree.levels()[latent] == depth
        if depth:
            assert seen[path.rpartition(".")[0]] == parents[latent]
        seen[path] = latent
    assert len(seen) == tree.latents


# What is said of latents.


def test_commonest_tokens_against_counting(read):
    _, found, text, _ = read
    codes = dense(found)
    for latent in np.flatnonzero((codes != 0).any(0)):
        counts = np.bincount(text.tokens[codes[:, latent] != 0])
        assert found.tokens.commonest[latent] == counts.argmax()
        assert found.tokens.share[latent] == pytest.approx(counts.max() / counts.sum())
    silent = (codes == 0).all(0)
    assert np.isnan(found.tokens.share[silent]).all()


def test_shuffling_among_siblings_keeps_rates_and_rows(read):
    _, found, _, _ = read
    parents, codes = found.tree.parents().numpy(), dense(found) != 0
    generator = torch.Generator().manual_seed(3)
    dealt = siblings_shuffled(found.reading.firings, found.tree, generator).toarray()
    child = parents >= 0
    assert (dealt[:, child].sum(0) == codes[:, child].sum(0)).all()
    assert not dealt[:, ~child].any()
    moved = 0
    for parent in range(found.tree.roots):
        family = parents == parent
        assert (dealt[:, family].sum(1) == codes[:, family].sum(1)).all()
        moved += (dealt[:, family] != codes[:, family]).any()
    assert moved > found.tree.roots // 2


def test_links_family_by_family_are_those_of_all_at_once(read, monkeypatch):
    pair, found, text, x = read
    monkeypatch.setattr("toys.reproduce.hsae_contexts_reading.BLOCK", 1)  # a family at a time
    again = Hierarchy.of(pair, x, text, 0)
    x = x.double()
    with torch.no_grad():
        whole = metrics.functional_link(
            x, pair(x), pair.encode(x), pair.W_dec, found.tree.parents()
        )
    children = whole.edges[:, 0].numpy()
    for each in (found, again):
        np.testing.assert_allclose(each.link[children], whole.values, atol=1e-10)
        np.testing.assert_allclose(each.sibling[children], whole.siblings, atol=1e-10)
        assert np.isnan(each.link[: found.tree.roots]).all()


@pytest.mark.parametrize(("branching", "subspaces"), [((5,), (3,)), ((3, 2), (4, 2))])
def test_contributions_add_up_to_the_reconstruction(stories, branching, subspaces):
    pair, x = an_hsae(branching=branching, subspaces=subspaces), stories.activations(2, "heldout")
    text = HeldOutText(stories)
    found = Hierarchy.of(pair, x, text, 0)
    dealer = Dealer(found, text, SMALL, torch.Generator().manual_seed(0))
    flat = Reading.of(topk_autoencoder(64, 40, k=4).double(), x)
    apart, x = dealer.taken_apart(flat), x.double()
    with torch.no_grad():
        mean, atoms = pair(x), pair.W_dec
    assert len({token.row for token in apart}) == SMALL.tokens
    for token in apart:
        ours, theirs = token.models
        total = sum(part.z * atoms[part.latent] for part in ours.parts) + pair.b_dec
        torch.testing.assert_close(total, mean[token.row])
        for part in ours.parts:
            assert part.norm == pytest.approx(float((part.z * atoms[part.latent]).norm()))
        error = (x[token.row] - mean[token.row]).square().sum()
        spread = (x[token.row] - x.mean(0)).square().sum()
        assert ours.explained == pytest.approx(float(1 - error / spread), abs=1e-9)
        for model in (ours, theirs):
            norms = [part.norm for part in model.parts]
            assert norms == sorted(norms, reverse=True)
        assert len(theirs.parts) <= 4


def test_cards_say_what_the_codes_say_and_show_held_out_rows_alone(read):
    _, found, text, _ = read
    codes, parents = dense(found), found.tree.parents().tolist()
    dealer = Dealer(found, text, SMALL, torch.Generator().manual_seed(0))
    cards = [dealer.card(root) for root in dealer.chosen_roots()]
    assert len(cards) == SMALL.parents
    for card in every(cards):
        fires = codes[:, card.latent] != 0
        assert card.facts.rows == fires.sum() > 0
        assert card.facts.greatest == codes[:, card.latent].max()
        assert card.strongest[0].z == card.facts.greatest
        above = parents[card.latent]
        if above >= 0:
            assert card.facts.share == fires.sum() / (codes[:, above] != 0).sum() <= 1
        children = [i for i, parent in enumerate(parents) if parent == card.latent]
        active = [i for i in children if (codes[:, i] != 0).any()]
        assert sorted(child.latent for child in card.children) == active
        assert card.silent == len(children) - len(active)
        rates = [child.facts.rows for child in card.children]
        assert rates == sorted(rates, reverse=True)
        for context in (*card.strongest, *card.drawn):
            assert context.z == codes[context.row, card.latent] != 0
            assert context.window.story in (9, 19)
            shown = [codes[list(part.rows), card.latent].max() for part in context.window.parts]
            assert list(context.codes) == shown


# The page.

TAGS = {"html", "head", "meta", "title", "style", "body", "main", "section", "article", "p", "nav"}
TAGS |= {"ul", "ol", "li", "a", "span", "mark", "details", "summary", "div", "table", "caption"}
TAGS |= {"thead", "tbody", "tr", "th", "td", *(f"h{n}" for n in range(1, 7))}
TAGS |= {"figure", "img", "figcaption"}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "scope"}
ATTRIBUTES |= {"aria-label", "alt", "src", "title"}


class Audit(HTMLParser):
    """What a browser would be asked to do."""

    def __init__(self):
        super().__init__()
        self.seen, self.text, self.open, self.headings = [], [], [], []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        for name, value in attrs:
            assert name in ATTRIBUTES, (tag, name)
            self.seen.append((tag, name, value))
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def handle_decl(self, decl):
        assert decl == "DOCTYPE html"

    def handle_comment(self, data):
        raise AssertionError(data)

    handle_pi = unknown_decl = handle_comment

    def values(self, name):
        return [value for _, attribute, value in self.seen if attribute == name]


ELEMENT = re.compile(r"</?[a-z][a-z0-9]*(?: [a-z-]+=\"[^\"<>]*\")*>|<!DOCTYPE html>")


def assert_strict(html):
    """No bare ``<``, ``>`` or ``&``: what browsers repair, this does not."""
    rest = ELEMENT.sub("", html)
    assert not set("<>") & set(rest), re.findall(".{0,30}[<>].{0,30}", rest)[:3]
    assert not re.search(r"&(?!(amp|lt|gt|quot|#x27);)", html)


def audited(page):
    assert_strict(page)
    parsed = Audit()
    parsed.feed(page)
    parsed.close()
    assert not parsed.open
    identities = parsed.values("id")
    assert len(set(identities)) == len(identities)
    for target in parsed.values("href"):
        assert target[0] == "#"
        assert target[1:] in identities
    assert all(v.startswith("data:image/png;base64,") for v in parsed.values("src"))
    assert "default-src 'none'" in " ".join(parsed.values("content"))
    assert parsed.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert not re.search(r"url\(|@import|https?:", page)
    return parsed


@pytest.fixture(scope="module")
def page(stories):
    torch.set_default_dtype(torch.float64)
    flat = topk_autoencoder(64, 48, k=6).double()
    found = gathered(Models((an_hsae(),), flat, ()), stories, SMALL_ONE)
    return document(found, SMALL_ONE, Namespace(smoke=False, run=None), b"png")


SMALL_ONE = Settings(**(SMALL.to_dict() | {"seeds": (0,)}))


def test_the_page_is_escaped_whitelisted_and_self_contained(page):
    text = "".join(audited(page).text)
    # A mark may cut the words of a story, never its characters.
    for written in ("<script>", "</script>", "alert(1)", "&lt;", "onerror=y>", "\ufffd", "好"):
        assert written in text, written
    assert "⟨U+0000⟩" in text
    assert "⟨U+202E⟩" in text
    body = page[page.index("<body>") :]
    assert "<script" not in body
    assert not [c for c in page if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_every_leaf_is_escaped_by_itself():
    window = Window(9, (Part(EVIL, range(3)), Part(EVIL, range(3, 4))), 1, True, True)
    context = Context(3, 1.0, window, (0.0, 1.0))
    facts = Facts(7, 0.1, 0.5, 1.0, EVIL, 0.5, 0.1, 0.2, -0.1)
    child = Card(5, EVIL, facts, (context,), (context,), (), 1)
    card = Card(2, EVIL, facts, (context,), (context,), (child, child), 1)
    part = Contribution(2, EVIL, 1, -1.0, 1.0, (EVIL, EVIL))
    token = TakenApart(3, window, (Decomposition(EVIL, 0.5, (part,)),))
    for html, times in (
        ("".join(families([card], kind="chosen", unfolded=1)), 2 + 3 * (2 + 4)),  # links; cards
        (taken_apart(token, 1), 2 + 4),  # context; table
    ):
        assert_strict(html)
        parsed = Audit()
        parsed.feed(html)
        assert "".join(parsed.text).count(EVIL) == times
        assert not parsed.open


def test_nothing_but_held_out_text_is_on_the_page(page, stories):
    text = "".join(audited(page).text)
    assert all("QQQQ" in stories.texts[i] for i in stories.stories("train"))
    assert "Q" not in text.replace("QQ", "Q")
    contexts = re.findall(r'<span class="story">(.*?)</span>', page)
    held = "".join(visible(" " + t) for t in HELD)
    squeezed = held.replace(" ", "").replace("␣", "")
    assert len(contexts) > 50
    for context in contexts:
        parsed = Audit()
        parsed.feed(f"<p>{context}</p>")
        shown = "".join(parsed.text).strip("…")
        assert shown.replace(" ", "").replace("␣", "") in squeezed


def test_a_mark_is_told_by_more_than_colour(page):
    kinds = {value for tag, name, value in audited(page).seen if (tag, name) == ("mark", "class")}
    assert kinds <= {f"a{n}{here}" for n in range(1, LEVELS + 1) for here in ("", " here")}
    assert {kind[:2] for kind in kinds} == {f"a{n}" for n in range(1, LEVELS + 1)}
    assert re.search(r"\nmark \{[^}]*border-bottom", STYLE)
    weights = [re.search(rf"mark\.a{n} \{{[^}}]*weight: (\d+)", STYLE) for n in range(2, 6)]
    assert [int(w[1]) for w in weights] == [500, 600, 700, 800]
    assert "mark.here { outline" in STYLE


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_stronger_is_never_shown_weaker(a, b):
    low, high = sorted((a, b))
    assert 1 <= level(low, 1.0) <= level(high, 1.0) <= LEVELS
    assert level(-high, 1.0) == level(high, 0.0) == 1


def luminance(colour):
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    """As WCAG 2 defines it."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_enough_to_read(dark):
    colours = {}
    for style in (BASE, STYLE):
        parts = style.split("@media (prefers-color-scheme: dark)")
        colours |= dict(re.findall(r"(--\w+): (#\w{6});", parts[0]))
        if dark:
            colours |= dict(re.findall(r"(--\w+): (#\w{6});", parts[1]))
    papers = ["--paper", "--stripe", "--panel", *(f"--a{n}" for n in range(1, LEVELS + 1))]
    for paper in papers:
        assert contrast(colours["--ink"], colours[paper]) >= 7, paper
    for ink in ("--faint", "--link"):
        assert contrast(colours[ink], colours["--paper"]) >= 4.5
    for line in ("--mark", "--rule"):
        assert contrast(colours[line], colours["--panel"]) >= 3


# Loading, and the whole.


@pytest.mark.parametrize(
    "pair", [lambda: topk_autoencoder(64, 8, k=2), lambda: an_hsae(branching=(), subspaces=())]
)
def test_what_is_not_a_hierarchy_is_refused(pair, tmp_path):
    with pytest.raises(ConfigError, match="H-SAE") as caught:
        loaded(save(pair(), tmp_path / "sae"))
    assert caught.value.code == "contexts.model"


def test_seeds_of_a_saved_run_are_refused(tmp_path):
    options = Namespace(run=tmp_path, seeds=2)
    with pytest.raises(ConfigError) as caught:
        report(options, 0.0)
    assert caught.value.code == "contexts.seeds"


def test_deep_trees_are_hierarchies(tmp_path):
    deep = an_hsae(branching=(3, 2), subspaces=(4, 2))
    again = loaded(save(deep, tmp_path / "deep")).trees[0]
    assert tree_of(again) == Tree(8, (3, 2))


@pytest.mark.float32
def test_smoke_run_writes_everything_it_promises(tmp_path, capsys):
    out, state, threads = tmp_path / "out", torch.get_rng_state(), torch.get_num_threads()
    assert hsae_contexts.main(["--smoke", "--json", "--out", str(out)]) == 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is True
    parsed = audited((out / "contexts.html").read_text(encoding="utf-8"))
    assert "smoke run" in "".join(parsed.text)
    shown = json.loads((out / "contexts.json").read_text(encoding="utf-8"))
    for kind, latents in result["shown"].items():
        assert [card["latent"] for card in shown["families"][kind]] == latents
    names = {path.stem for path in (out / "tables").iterdir()}
    assert names == {"scores", "latents", "contributions"}
    assert (out / "rates.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert {"settings", "versions", "wall_seconds", "smoke"} <= set(written)
    hsae, topk = result["autoencoders"]
    assert read_again(hsae, result, tmp_path, capsys)
    assert vsae_main(["reproduce", "hsae-contexts", "--run", topk, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "contexts.model"


def read_again(hsae, result, tmp_path, capsys):
    """A saved H-SAE shows the families that it showed when it was trained."""
    out = tmp_path / "again"
    argv = ["--smoke", "--json", "--run", hsae, "--out", str(out)]
    assert hsae_contexts.main(argv) == 0
    again = json.loads(capsys.readouterr().out)
    page = (out / "contexts.html").read_text(encoding="utf-8")
    assert "read from a folder" in page
    assert "TopK" not in page
    return again["shown"] == result["shown"]
