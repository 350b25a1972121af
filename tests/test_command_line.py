"""The command line as a user types it: help at once, typed errors, one JSON object."""

import functools
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np
import pytest
import safetensors.torch
import torch

from vsae import load, recipes
from vsae.__main__ import main
from vsae.activations import read_activations
from vsae.batches import stream
from vsae.commands import train
from vsae.commands.eval import measure
from vsae.metrics import explained_variance


@pytest.fixture
def acts(tmp_path):
    path = tmp_path / "acts.npy"
    generator = torch.Generator().manual_seed(0)
    np.save(path, torch.randn(300, 8, generator=generator, dtype=torch.float32).numpy())
    return str(path)


RELAXED = ("l1_rows", "relaxed_rows")
TRAIN = ["--latents", "12", "--steps", "30", "--batch-size", "50", "--warmup", "5"]


@pytest.mark.float32
@pytest.mark.parametrize(
    ("recipe", "kind", "options", "phases"),
    [
        ("spike-slab", "RecoveryRecipe", [], (12, 20, 8)),
        ("recommended", "SparseCodingRecipe", ["--k", "3"], (12, 8)),
    ],
)
def test_a_recipe_trains_all_its_phases(
    recipe, kind, options, phases, acts, tmp_path, capsys, monkeypatch
):
    """The recipe as it is, but for its rows."""
    names = ("l1_rows", "slab_rows", "final_rows") if len(phases) == 3 else RELAXED
    rows = dict(zip(names, (steps * 30 for steps in phases), strict=True))
    short = functools.partial(getattr(recipes, kind), batch_size=30, **rows)
    monkeypatch.setattr(recipes, kind, short)
    out = str(tmp_path / "run")
    words = ["--recipe", recipe, *options, "--latents", "12", "--json"]
    assert main(["train", acts, "--out", out, *words]) == 0
    result = json.loads(capsys.readouterr().out)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["state"] == "finished"
    assert run["settings"]["recipe"] == recipe
    assert not run["settings"].keys() & {"steps", "batch_size", "lr", "architecture", "prior"}
    records = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(records) == sum(phases)
    pair, x = load(out), torch.from_numpy(np.load(acts))
    if options:
        assert int((pair.encode(x) != 0).sum(-1).max()) <= 3
    kept = torch.randperm(300, generator=stream(0, train.SPLIT))[:270]
    again = (short(k=3) if options else short()).train(x[kept], latents=12, progress=False)
    torch.testing.assert_close(again.W_dec, pair.W_dec, rtol=0.0, atol=0.0)
    found = result["metrics"]["held_out"]["explained_variance"]
    rest = x[torch.randperm(300, generator=stream(0, train.SPLIT))[270:]]
    assert found == pytest.approx(explained_variance(rest, pair(rest)).item(), abs=1e-6)


@pytest.mark.float32
@pytest.mark.parametrize("prior", ["laplace", "isotropic", "cholesky", "blocks", "graph"])
def test_train_eval_plot(prior, acts, tmp_path, capsys):
    edges = tmp_path / "edges.npy"
    np.save(edges, np.array([[i, i + 1] for i in range(11)]))
    out = str(tmp_path / "run")
    extra = ["--graph", str(edges)] if prior == "graph" else []
    assert main(["train", acts, "--out", out, "--prior", prior, "--json", *TRAIN, *extra]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"]
    assert load(out).W_dec.shape == (12, 8)

    assert main(["eval", out, acts, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["metrics"]
    parts = result["metrics"]
    assert scores["rows"] == parts["train"]["rows"] + parts["held_out"]["rows"] == 300
    total = sum(part["mse"] * part["rows"] for part in parts.values()) / 300
    assert scores["mse"] == pytest.approx(total, rel=1e-5)

    assert main(["plot", out]) == 0
    assert (tmp_path / "run" / "training.png").stat().st_size > 1000
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["prior"] == prior
    assert run["state"] == "finished"
    assert run["versions"]["torch"] == version("torch")


@pytest.mark.float32
@pytest.mark.parametrize(
    "which", [["--k", "4", "--architecture", "topk"], ["--prior", "isotropic"]]
)
def test_some_rows_trained_on_are_scored_and_all_held_out(
    which, acts, tmp_path, monkeypatch, capsys
):
    """Some that the seed draws, and as many as it says."""
    monkeypatch.setattr(train, "SCORED", 70)
    drawn = []
    for seed in "01":
        words = ["train", acts, "--out", str(tmp_path / seed), "--held-out", "0.3", "--seed", seed]
        assert main([*words, *which, *TRAIN[:-2]]) == 0
        shown = capsys.readouterr().out.split()
        scores = json.loads((tmp_path / seed / "run.json").read_text())["metrics"]
        options = train.parser().parse_args(words[1:])
        seen, held_out = train._split(read_activations(acts), options)
        sae = load(tmp_path / seed)
        assert scores == {"train": measure(sae, seen[:70]), "held_out": measure(sae, held_out)}
        assert (scores["train"]["rows"], scores["held_out"]["rows"]) == (70, 90)
        assert [shown[at + 1] for at, word in enumerate(shown) if word == "rows"] == ["70", "90"]
        drawn.append(seen[:70])
    assert not torch.equal(*drawn)


@pytest.mark.float32
def test_the_same_seed_gives_the_same_model(acts, tmp_path):
    for name in "ab":
        main(["train", acts, "--out", str(tmp_path / name), "--seed", "3", *TRAIN])
    one, two = (load(tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(one[key], two[key]) for key in one)


def occupied(tmp_path, acts):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    return ["train", acts, "--out", str(tmp_path / "run")]


def array(tmp_path, name, value):
    np.save(tmp_path / name, value)
    return ["train", str(tmp_path / name), "--out", str(tmp_path / "run"), *TRAIN]


def tensors(tmp_path, **named):
    safetensors.torch.save_file(named, tmp_path / "x.safetensors")
    return ["train", str(tmp_path / "x.safetensors"), "--out", str(tmp_path / "run")]


def text(tmp_path, name):
    (tmp_path / name).write_text("no array")
    return ["train", str(tmp_path / name), "--out", str(tmp_path / "run")]


FAULTS = {
    "checkpoint.exists": (5, occupied),
    "checkpoint.missing": (5, lambda t, acts: ["eval", str(t / "nothing"), acts]),
    "data.missing": (3, lambda t, acts: ["train", str(t / "no.npy"), "--out", str(t / "run")]),
    "data.unreadable": (3, lambda t, acts: text(t, "bad.npy")),
    "data.unsafe": (3, lambda t, acts: text(t, "acts.pt")),
    "data.rank": (3, lambda t, acts: array(t, "a.npy", np.zeros((2, 3, 4, 5), np.float32))),
    "data.dtype": (3, lambda t, acts: array(t, "a.npy", np.zeros((20, 4), np.int64))),
    "data.empty": (3, lambda t, acts: array(t, "a.npy", np.zeros((0, 4), np.float32))),
    "data.nonfinite": (3, lambda t, acts: array(t, "a.npy", np.full((60, 4), np.nan, np.float32))),
    "train.graph": (
        2,
        lambda t, acts: ["train", acts, "--out", str(t / "run"), "--prior", "graph"],
    ),
    "plot.missing": (3, lambda t, acts: ["plot", str(t)]),
}


@pytest.mark.parametrize("code", FAULTS)
def test_faults_have_a_code_and_a_status(code, tmp_path, acts, capsys):
    status, words = FAULTS[code][0], FAULTS[code][1](tmp_path, acts)
    assert main([*words, "--json"]) == status
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == code
    assert code in captured.err


def test_object_arrays_are_never_unpickled(tmp_path, capsys):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    words = array(tmp_path, "bomb.npy", np.array([Bomb()], dtype=object))
    assert main([*words, "--json"]) == 3
    assert not (tmp_path / "exploded").exists()


def test_two_tensors_are_ambiguous(tmp_path, capsys):
    words = tensors(tmp_path, a=torch.zeros(4, 2), b=torch.zeros(4, 2))
    assert main(words) == 3
    assert "expected one" in capsys.readouterr().err


def test_help_is_instant_and_needs_no_torch():
    """No torch in sys.modules; the bound of 0.5 s is on the best of three, machines being noisy."""
    program = (
        "import sys; from vsae.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'pyro' in sys.modules)"
    )
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        best = min(best, time.perf_counter() - start)
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout
    assert best < 0.5


@pytest.mark.parametrize("command", ["train", "eval", "plot", "reproduce"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) < 45


def test_no_command_is_a_usage_error(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["--l1", "0"], ["--block", "0"], ["--lr", "-1"], ["--latents", "-3"], ["--held-out", "1"]],
)
def test_impossible_numbers_are_usage_errors(words, acts, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", acts, "--out", str(tmp_path / "run"), *words])
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_an_unwritable_place_is_found_before_the_work(acts, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["train", acts, "--out", str(tmp_path / "file" / "run"), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.float32
def test_a_run_that_stops_being_finite_is_saved_as_far_as_it_came(acts, tmp_path):
    out = tmp_path / "run"
    assert main(["train", acts, "--out", str(out), "--lr", "1e30", *TRAIN]) == 4
    run = json.loads((out / "run.json").read_text())
    assert run["state"] == "nonfinite"
    assert load(out).W_dec.isfinite().all()


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([1 + 2j]), np.zeros(3, dtype=">f4")])
def test_arrays_torch_cannot_hold(value, tmp_path, capsys):
    assert main([*array(tmp_path, "a.npy", value), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_nodes_named_by_fractions(acts, tmp_path, capsys):
    np.save(tmp_path / "e.npy", np.array([[0.9, 1.7]]))
    words = ["train", acts, "--out", str(tmp_path / "run"), "--prior", "graph", "--json"]
    assert main([*words, "--graph", str(tmp_path / "e.npy"), *TRAIN]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "graph.dtype"


@pytest.mark.float32
def test_rows_without_variance_have_no_explained_variance(acts, tmp_path, capsys):
    main(["train", acts, "--out", str(tmp_path / "run"), *TRAIN])
    np.save(tmp_path / "same.npy", np.ones((10, 8), np.float32))
    assert main(["eval", str(tmp_path / "run"), str(tmp_path / "same.npy"), "--json"]) == 3
    out = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(out)["error"]["code"] == "metrics.no_variance"
