"""The quickstart: its rules against numpy, its report as a file safe to open, one smoke run."""

import base64
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import vsae
from priors import Graph
from priors.errors import ConfigError
from toys.reproduce import html, quickstart
from toys.reproduce.quickstart_arms import Trained, started
from toys.reproduce.quickstart_scores import SparseScore, pca, pca_explained
from toys.reproduce.quickstart_structure import (
    Belief,
    laplacian_prior,
    prior_covariance,
    priors,
    structure,
)
from toys.reproduce.quickstart_tables import Results, ratio_at
from toys.reproduce.tables import Table, interval
from vsae.examples import tiny


class Audit(HTMLParser):
    """What a browser would be asked to do: open tags, attributes, text."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def audit(text: str) -> Audit:
    parsed = Audit()
    parsed.feed(text)
    assert not parsed.open, "every element is closed"
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert not [a for a in parsed.attributes if a[1].startswith("on")]
    for tag, name, value in parsed.attributes:
        if name in {"src", "href"}:
            assert tag == "img"
            assert value.startswith("data:image/png;base64,")
    assert "http:" not in text
    assert "https:" not in text
    return parsed


EVIL = "<script>alert('1')</script>\"&"


def test_everything_in_the_report_is_escaped_and_nothing_is_fetched():
    rows = [{EVIL: EVIL, "value": 0.5, "several": interval([1.0, 2.0]), "none": None}]
    parts = [html.paragraph(EVIL), html.table(Table(EVIL, rows)), html.figure(b"png", EVIL)]
    parsed = audit(html.page(EVIL, [html.Section(EVIL, parts)]))
    assert parsed.text.count(EVIL) == 8  # title, h1, h2, p, caption, th, td, figcaption
    assert ("img", "alt", EVIL) in parsed.attributes
    assert "1.5 ± 6.4" in parsed.text


def test_figures_travel_inside_the_page_unchanged():
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    image = html.png(figure)
    assert image.startswith(b"\x89PNG")
    found = re.search(r'base64,([^"]+)"', html.figure(image, "caption"))
    assert base64.b64decode(found[1]) == image


@pytest.mark.parametrize("density", [0.02, 0.1, 0.4])
def test_belief_fires_as_often_and_is_as_large_as_asked(density):
    belief = Belief.matching(density, 1.7)
    draws = np.random.default_rng(0).normal(belief.mean, belief.scale, 4_000_000)
    fires = draws > 0
    # Five standard errors of a share and of a root mean square over n·density draws.
    assert abs(fires.mean() - density) < 5 * np.sqrt(density / len(draws))
    size = np.sqrt((draws[fires] ** 2).mean())
    assert abs(size / 1.7 - 1) < 5 * 1.5 / np.sqrt(density * len(draws))


def planted(rows=4000):
    """Codes of 12 latents in three groups that fire together, sizes 5, 4, 3, shuffled."""
    rng = np.random.default_rng(1)
    group = rng.permutation(np.repeat([0, 1, 2], [5, 4, 3]))
    common = rng.random((rows, 3)) < 0.2
    fires = common[:, group] & (rng.random((rows, 12)) < 0.9)
    return group, torch.from_numpy(fires * rng.gamma(4.0, 0.25, (rows, 12)))


def test_structure_is_correlation_and_finds_planted_groups():
    group, codes = planted()
    found = structure(codes, neighbours=2, blocks=3, seed=0)
    np.testing.assert_allclose(found.correlation, np.corrcoef(codes.numpy().T), atol=1e-12)
    i, j = found.graph.edges.numpy()
    assert (group[i] == group[j]).all()
    np.testing.assert_allclose(found.graph.weights, np.corrcoef(codes.numpy().T)[i, j], atol=1e-12)
    together = found.labels.numpy()[:, None] == found.labels.numpy()
    assert (together == (group[:, None] == group)).all()
    assert found.shuffled.num_edges == found.graph.num_edges
    assert found.shuffled.edges.tolist() != found.graph.edges.tolist()


def test_latents_that_never_fire_are_alone_in_the_graph():
    codes = planted()[1]
    codes[:, 3] = 0.0
    found = structure(codes, neighbours=2, blocks=3, seed=0)
    assert 3 not in found.graph.edges
    assert bool(torch.isfinite(found.correlation).all())


def test_arms_start_equal_in_mean_and_average_variance():
    found = structure(planted()[1], neighbours=2, blocks=3, seed=0)
    belief = Belief(-0.8, 1.3)
    for name, prior in priors(found, belief, ratio=2.0).items():
        covariance = prior_covariance(prior)
        assert prior().mean.tolist() == [-0.8] * 12, name
        assert covariance.diagonal().mean().item() == pytest.approx(1.69, rel=1e-6), name


def test_prior_covariance_is_the_inverse_of_the_precision():
    graph = Graph.from_edges([[0, 1], [1, 2]], [0.5, 2.0], num_nodes=3)
    prior = laplacian_prior(graph, Belief(0.0, 1.0), ratio=3.0)
    unscaled = np.eye(3) + 3.0 * np.array([[0.5, -0.5, 0], [-0.5, 2.5, -2.0], [0, -2.0, 2.0]])
    inverse = np.linalg.inv(unscaled)
    # The prior keeps log γ in the default dtype; float64 here, one rounding of log and exp.
    np.testing.assert_allclose(
        prior_covariance(prior), inverse / np.diag(inverse).mean(), rtol=1e-9, atol=1e-12
    )


def test_arms_start_from_the_first_run():
    x = torch.randn(50, 4)
    normalizer = vsae.AffineNormalizer.fit(x)
    first = vsae.l1_autoencoder(4, 12, l1=1.0, normalizer=normalizer)
    prior = priors(
        structure(planted()[1], neighbours=2, blocks=3, seed=0), Belief(-1.0, 1.0), ratio=1.0
    )
    pair = vsae.variational_autoencoder(
        4, prior["isotropic"], noise=0.3, link=torch.nn.ReLU(), scale=0.2, normalizer=normalizer
    )
    assert not torch.equal(pair(x), first(x))
    started(pair, first)
    assert torch.equal(pair.encode(x), first.encode(x))
    assert torch.equal(pair(x), first(x))
    deviation = pair.posterior(x)["z"].variance.sqrt()
    torch.testing.assert_close(deviation, torch.full_like(deviation, 0.2), rtol=1e-2, atol=0)


def test_pca_explains_what_its_eigenvalues_say():
    x = torch.randn(400, 6) @ torch.randn(6, 6) + 3.0
    values = np.linalg.eigvalsh(np.cov(x.numpy().T))[::-1]
    shares = np.concatenate([[0.0], values.cumsum() / values.sum()])
    np.testing.assert_allclose(pca_explained(x, x), shares, atol=1e-12)
    torch.testing.assert_close(pca(x, 6)(x), x)


def test_matched_ratios_interpolate_the_baseline_and_never_extrapolate():
    def score(l0, explained):
        return SparseScore(
            l0=l0,
            explained_variance=explained,
            ce=0.0,
            ce_recovered_mean=explained,
            ce_recovered_zero=explained,
            dead=0.0,
            active_units=1.0,
            kl=None,
            frequency=torch.ones(3),
            kl_marginal=None,
        )

    arms = [("ℓ1", 4.0, 0.6), ("ℓ1", 16.0, 0.9), ("iso", 8.0, 0.9), ("iso", 20.0, 0.9)]
    model, guide, _ = tiny()
    runs = [Trained(arm, l0, vsae.Autoencoder(model, guide), []) for arm, l0, _ in arms]
    scores = [score(l0, explained) for _, l0, explained in arms]
    results = Results(first=scores[0], runs=runs, scores=scores, references={}, pca=torch.zeros(1))
    # Unexplained .4 at 4 and .1 at 16: log-log linear, .2 at 8.
    found = ratio_at(results, runs[2], scores[2], "ℓ1", "unexplained")
    assert found == pytest.approx(0.1 / 0.2, rel=1e-12)
    assert ratio_at(results, runs[3], scores[3], "ℓ1", "unexplained") is None
    assert ratio_at(results, runs[0], scores[0], "ℓ1", "unexplained") is None


def test_more_than_one_seed_is_refused():
    with pytest.raises(ConfigError) as raised:
        quickstart.main(["--smoke", "--seeds", "2"])
    assert raised.value.code == "quickstart.seeds"


@pytest.mark.float32
def test_smoke_run_writes_everything_it_promises(tmp_path, capsys):
    out = tmp_path / "quickstart"
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    assert quickstart.main(["--smoke", "--threads", "1", "--json", "--out", str(out)]) == 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    result = json.loads(capsys.readouterr().out)  # one object, nothing else
    assert result["ok"] is True
    parsed = audit((out / "report.html").read_text(encoding="utf-8"))
    figures = sorted((out / "figures").glob("*.png"))
    assert parsed.tags.count("img") == len(figures) == len(result["figures"]) == 7
    for figure in figures:
        assert json.loads(figure.with_suffix(".json").read_text(encoding="utf-8"))
    for stem, records in result["tables"].items():
        lines = (out / "tables" / f"{stem}.csv").read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(records) + 1
        assert (out / "tables" / f"{stem}.md").is_file()
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert run["seeds"] == [0]
    assert run["versions"]["torch"]
    check_numbers(SimpleNamespace(**result["tables"]), result["autoencoders"])


def check_numbers(tables, saved):
    """Reference points are what they must be; saved autoencoders load."""
    references = {row["reference"]: row for row in tables.references}
    mean, zero = references["mean ablation"], references["zero ablation"]
    assert abs(mean["explained variance"]) < 0.02  # the mean is that of training rows
    assert mean["CE recovered (mean ablation = 0)"] == 0
    assert zero["CE recovered (zero ablation = 0)"] == 0
    everything = references["PCA, k = 64 (all)"]
    assert everything["explained variance"] == pytest.approx(1, abs=1e-6)
    assert everything["CE recovered (mean ablation = 0)"] == pytest.approx(1, abs=1e-5)
    arms = [row["arm"] for row in tables.arms]
    assert len(set(arms)) == 6
    assert {row["arm"] for row in tables.matched} == set(arms) - {"ℓ1"}
    for row in tables.arms:
        assert 0 < row["explained variance"] < 1
        assert (row["KL, nats/row"] is None) == (row["arm"] == "ℓ1")
    assert len(saved) == len(arms) + 1
    for folder in saved:
        assert vsae.load(folder).W_dec.shape == (64, 64)
