"""The command line as a user types it: help at once, typed errors, one JSON object."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch

from vsae import load
from vsae.__main__ import main


@pytest.fixture
def acts(tmp_path):
    path = tmp_path / "acts.npy"
    generator = torch.Generator().manual_seed(0)
    np.save(path, torch.randn(300, 8, generator=generator, dtype=torch.float32).numpy())
    return str(path)


TRAIN = ["--latents", "12", "--steps", "30", "--batch-size", "50", "--warmup", "5"]


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
    assert json.loads(capsys.readouterr().out)["metrics"] == result["metrics"]

    assert main(["plot", out]) == 0
    assert (tmp_path / "run" / "training.png").stat().st_size > 1000
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["prior"] == prior
    assert run["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__


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
    "data.rank": (3, lambda t, acts: array(t, "a.npy", np.zeros((2, 3, 4), np.float32))),
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
