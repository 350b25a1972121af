"""Modular-addition networks: they add, their rings are where Fourier says, the control does not."""

import hashlib
import json
import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from toys.modadd import NETWORKS, ModAdd
from toys.rings import Rings
from vsae.errors import ConfigError

FOLDER = Path(str(files("toys"))) / "data" / "modadd"
CONVERGED = [name for name in NETWORKS if name != "unconverged"]


def planted(frequencies, radii, p=11, d=9, offset=3.0):
    """Points on rings in orthogonal planes of known radii, away from the origin."""
    frame = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0))).Q
    n, points = torch.arange(p), torch.full((p, d), offset)
    for at, (f, radius) in enumerate(zip(frequencies, radii, strict=True)):
        turn = 2 * math.pi * f * n / p
        circle = torch.stack([turn.cos(), turn.sin()], 1)
        points = points + radius * circle @ frame[2 * at : 2 * at + 2]
    return points, frame


def forward(name, pair):
    """The network at one input, in numpy and one head at a time: another way to the same logits."""
    with np.load(FOLDER / f"{NETWORKS[name]}.npz", allow_pickle=False) as archive:
        w = {key: archive[key].astype(float) for key in archive.files if key != "config"}
        config = json.loads(str(archive["config"]))
    x = w["embed.W_E"][:, list(pair)].T + w["pos_embed.W_pos"]
    for layer in range(config["n_layers"]):
        heads = []
        for head in range(config["n_heads"]):
            q, k, v = (x @ w[f"blocks.{layer}.attn.W_{n}"][head].T for n in "QKV")
            soft = np.exp(q @ k.T / math.sqrt(32))
            soft /= soft.sum(1, keepdims=True)
            kappa = config["attn_coeff"]
            heads.append((kappa * soft + 1 - kappa) @ v)
        x = x + np.concatenate(heads, 1) @ w[f"blocks.{layer}.attn.W_O"].T
        hidden = x @ w[f"blocks.{layer}.mlp.W_in"].T + w[f"blocks.{layer}.mlp.b_in"]
        x = x + np.maximum(hidden, 0) @ w[f"blocks.{layer}.mlp.W_out"].T
        x = x + w[f"blocks.{layer}.mlp.b_out"]
    return x[1] @ w["unembed.W_U"]


@pytest.mark.float32
@pytest.mark.parametrize("name", NETWORKS)
def test_streams_are_those_of_the_published_architecture(name):
    model = ModAdd.load(name)
    pairs = [(0, 0), (58, 1), (17, 42)]
    streams = model.residuals(torch.tensor(pairs))
    assert len(streams) == model.num_layers + 1
    for row, pair in enumerate(pairs):
        logits = model.logits(streams[-1, row : row + 1, 1])[0]
        np.testing.assert_allclose(logits.numpy(), forward(name, pair), rtol=1e-3, atol=1e-3)


@pytest.mark.float32
@pytest.mark.parametrize("name", CONVERGED)
def test_converged_networks_answer_every_sum(name):
    assert ModAdd.load(name).accuracy() == 1.0


@pytest.mark.float32
def test_the_control_does_not():
    assert 1 / 59 < ModAdd.load("unconverged").accuracy() < 0.7


@pytest.mark.float32
@pytest.mark.parametrize(
    ("name", "planes", "power"),
    [
        ("attention", 4, 0.98),
        ("pizza", 6, 0.99),
        ("two-blocks", 6, 0.87),
        ("three-blocks", 6, 0.85),
    ],
)
def test_a_few_planes_hold_the_embedding_of_converged_networks(name, planes, power):
    """Of the control's 12 planes 6 hold little: random frequencies would hold 6 / 29."""
    rings = ModAdd.load(name).number_rings()
    assert len(rings.frequencies) == planes
    assert rings.share > power
    control = ModAdd.load("unconverged").number_rings()
    strongest = control.shares.sort(descending=True).values[:planes].sum()
    assert float(strongest) < 0.35 < 0.5 * rings.share


@pytest.mark.float32
def test_sums_of_the_last_layer_go_round_the_same_frequencies():
    for name in CONVERGED:
        model = ModAdd.load(name)
        numbers = set(model.number_rings().frequencies.tolist())
        assert set(model.sum_rings().frequencies.tolist()) <= numbers
        assert model.sum_rings().explained(model.sum_stream()) > 0.85


@pytest.mark.float32
def test_the_numbers_stream_is_both_embeddings():
    model = ModAdd.load("pizza")
    embedding, position = model.weights["embed.W_E"].mT, model.weights["pos_embed.W_pos"]
    stream = model.number_stream().unflatten(0, (59, 59))
    torch.testing.assert_close(stream[3, 57], embedding[3] + embedding[57] + position.sum(0))
    rings = model.number_rings()
    assert rings.explained(model.number_stream()) == pytest.approx(rings.share, abs=0.005)
    # cos fa + cos fb = 2 cos(f(a-b)/2) cos(f(a+b)/2): a pair lies at half the angle of its sum.
    at = rings.coordinates(stream - stream.mean((0, 1)))[:, :, 0]
    number = rings.coordinates(embedding - embedding.mean(0))[:, 0]
    torch.testing.assert_close(at[5, 8], number[5] + number[8], rtol=1e-3, atol=1e-3)


def test_planted_rings_are_found():
    points, frame = planted([3, 5], [2.0, 1.5])
    rings = Rings.of(points)
    assert rings.frequencies.tolist() == [3, 5]
    expected = torch.zeros(5)
    expected[[2, 4]] = torch.tensor([0.64, 0.36])
    torch.testing.assert_close(rings.shares, expected.double())
    assert rings.explained(points) == pytest.approx(1)
    for plane, own in ((0, frame[:2]), (1, frame[2:4])):
        torch.testing.assert_close(rings.planarity(own)[:, plane], torch.ones(2).double())
        torch.testing.assert_close(rings.planarity(own)[:, 1 - plane], torch.zeros(2).double())
    assert float(rings.planarity(frame[4:]).max()) < 1e-12


def test_points_go_round_by_their_frequency():
    points, _ = planted([3, 5], [2.0, 1.5], offset=0.0)
    for plane, f in ((0, 3), (1, 5)):
        turn = Rings.of(points).angles(points)[:, plane].diff() * 11 / (2 * math.pi)
        assert {round(float(step)) % 11 for step in turn} in ({f}, {11 - f})


def test_an_equal_share_is_no_key_frequency():
    """Noise of all frequencies at once: about half are above the mean, none far above."""
    noise = torch.randn(59, 400, generator=torch.Generator().manual_seed(1))
    rings = Rings.of(noise)
    assert rings.share < 0.7
    assert float(rings.shares.sum()) == pytest.approx(1)
    assert bool((rings.shares[rings.frequencies - 1] > 1 / 29).all())


def test_another_name_is_refused():
    with pytest.raises(ConfigError, match="no network") as caught:
        ModAdd.load("clock")
    assert caught.value.code == "network.name"


def test_files_are_those_of_the_notice():
    notice = (FOLDER.parent / "NOTICE.md").read_text(encoding="utf-8")
    for path in sorted(FOLDER.iterdir()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f"{digest}  modadd/{path.name}" in notice
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(NETWORKS.values())
