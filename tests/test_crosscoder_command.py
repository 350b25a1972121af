"""``vsae train`` and ``eval`` on activations of several layers."""

import json

import numpy as np
import pytest
import torch

from vsae import LayeredAutoencoder, load, metrics
from vsae.__main__ import main
from vsae.commands.architectures import ARCHITECTURES

TRAIN = ["--latents", "12", "--steps", "6", "--batch-size", "32"]
SMALL = {
    "jumprelu": ["--width", "12"],
    "hierarchical": ["--k", "3", "--children", "2", "--subspace", "2"],
    "switch": ["--k", "3", "--experts", "4"],
    "matryoshka": ["--k", "3", "--prefixes", "4,12"],
    **{name: [] for name in ("l1", "variational", "gated")},
}


@pytest.fixture
def acts(tmp_path):
    random = np.random.default_rng(0)
    scales = np.array([1.0, 10.0, 100.0])[:, None]
    path = tmp_path / "acts.npy"
    np.save(path, (random.normal(size=(200, 3, 4)) * scales).astype(np.float32))
    return str(path)


def rest(name):
    return [*TRAIN, "--architecture", name, *SMALL.get(name, ["--k", "3"])]


@pytest.mark.float32
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_train_a_crosscoder(name, acts, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", acts, "--out", str(out), "--json", *rest(name)]) == 0
    trained = json.loads(capsys.readouterr().out)["metrics"]
    pair = load(out)
    assert isinstance(pair, LayeredAutoencoder)
    assert pair.layers == (4, 4, 4)
    assert main(["eval", str(out), acts, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    x = torch.from_numpy(np.load(acts))
    for layer in range(3):
        expected = metrics.explained_variance(x[:, layer], pair(x)[:, layer]).item()
        assert found[f"explained_variance_{layer}"] == pytest.approx(expected, abs=1e-6)
        assert f"explained_variance_{layer}" in trained["held_out"]
    flat = metrics.explained_variance(x.flatten(1), pair(x).flatten(1)).item()
    assert found["explained_variance"] == pytest.approx(flat, abs=1e-6)


@pytest.mark.float32
@pytest.mark.parametrize(
    "words",
    [
        ["--architecture", "topk", "--k", "3", "--screened"],
        ["--recipe", "recommended", "--k", "3"],
    ],
)
def test_what_has_no_crosscoder_says_so(words, acts, tmp_path, capsys):
    train = ["train", acts, "--out", str(tmp_path / "run"), "--latents", "12", "--json"]
    assert main([*train, *words]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "train.layers"
