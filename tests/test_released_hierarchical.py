"""H-SAE as released: loss, selection, gradients and one step, on fixed weights."""

import json
import math
import pathlib

import numpy as np
import pytest
import torch

from vsae import AffineNormalizer, ClosedFormELBO, fit
from vsae.conversions.released_hierarchical import (
    from_released_hierarchical,
    to_released_hierarchical,
)
from vsae.errors import VsaeError
from vsae.presets import (
    hierarchical_autoencoder,
    paper_hierarchical_autoencoder,
    shipped_hierarchical_autoencoder,
    topk_autoencoder,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
RECORD = json.loads((GOLDEN / "hsae_golden.json").read_text())


def arrays():
    loaded = np.load(GOLDEN / "hsae_golden.npz", allow_pickle=False)
    return {name: loaded[name].astype(np.float64) for name in loaded.files}


@pytest.fixture
def released():
    given = arrays()
    x = torch.from_numpy(given.pop("x"))
    pair = from_released_hierarchical(
        given, k=RECORD["dims"]["k"], l1=RECORD["l1"], orthogonality=RECORD["ortho"]
    )
    return pair.train(), x


def pieces(pair, x):
    """The published pieces of the loss per row: terms of the ELBO without Gaussians' and Laplaces'
    constants."""
    rows, d = x.shape
    mean = {n: v / rows for n, v in ClosedFormELBO().terms(pair.model, pair.guide, x).items()}
    constant = d * math.log(math.sqrt(2 * math.pi))
    laplace = 2 * pair.model.decoder.latents * math.log(2 / RECORD["l1"])
    return {
        "rec": mean["x"] - d * math.log(pair.model.noise().item()) - constant,
        "rec_top": mean["x_top"] - d * math.log(pair.model.top_noise) - constant,
        "l1": mean["z"] + mean["lost_z"] - laplace,
        "orthogonality": mean["orthogonality"],
    }


def test_every_piece_of_the_loss(released):
    expected, found = RECORD["oracle_float64"], pieces(*released)
    weighted = {
        "rec": expected["rec"],
        "rec_top": 0.1 * expected["rec_top"],
        "l1": RECORD["l1"] * expected["l1"],
        "orthogonality": RECORD["ortho"] * expected["ortho_code"],
    }
    for name, number in weighted.items():
        assert found[name].item() == pytest.approx(number, rel=1e-11, abs=1e-13), name
    total = sum(found.values()).item()
    assert total == pytest.approx(expected["total"], rel=1e-12)
    assert total == pytest.approx(RECORD["official_float32"]["total"], rel=1e-6)


def test_selection_and_reconstruction(released):
    pair, x = released
    expected, code = RECORD["oracle_float64"], pair.code(x)
    roots, children = code.support.chunk(2, -1)
    m, a = RECORD["dims"]["n"], RECORD["dims"]["a"]
    assert roots.tolist() == expected["sel"]
    assert ((children - m) % a).tolist() == [[c for c, _ in row] for row in expected["low"]]
    amplitudes = torch.tensor([[z for _, z in row] for row in expected["low"]])
    torch.testing.assert_close(code.z[:, 3:], amplitudes, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(pair(x)[0], torch.tensor(expected["x_hat0"]), rtol=0, atol=1e-10)
    top, _ = pair.model.decoder.levels(code.z, code.support)
    torch.testing.assert_close(top[0], torch.tensor(expected["x_hat_top0"]), rtol=0, atol=1e-10)


def test_gradients_and_one_released_step(released):
    pair, x = released
    official = RECORD["official_float32"]
    (ClosedFormELBO()(pair.model, pair.guide)(x) / len(x)).backward()
    decoder, encoder = pair.model.decoder, pair.guide.posterior.encoder
    named = {
        "E": encoder.top.W_enc,
        "D": decoder.top.W_dec,
        "W_down": encoder.below[0].W_down,
        "W_up": decoder.below[0].W_up,
        "E_low": encoder.below[0].W_child,
        "D_low": decoder.below[0].atoms.W_dec,
    }
    for name, norm in official["grad_norms"].items():
        assert named[name].grad.norm().item() == pytest.approx(norm, rel=1e-5), name
    for module in pair.projected():
        module.project_gradient()
    for name, norm in official["projected_grad_norms"].items():
        assert named[name].grad.norm().item() == pytest.approx(norm, rel=1e-5), name
    fit(pair, x, steps=1, batch_size=len(x), lr=5e-4, clip=0.75).run(progress=False)
    after = sum(pieces(pair.train(), x).values()).item()
    assert after == pytest.approx(official["loss_after_one_step"], rel=1e-6)
    trained = to_released_hierarchical(pair)  # no bias has been learned
    again = from_released_hierarchical(trained, k=RECORD["dims"]["k"])
    assert torch.equal(again(x), pair(x))
    before = trained["E"].copy()
    with torch.no_grad():
        encoder.top.W_enc += 1
    assert (trained["E"] == before).all()  # a copy


def test_layout_there_and_back(released):
    pair, _ = released
    again = to_released_hierarchical(pair)
    for name, array in arrays().items():
        if name != "x":
            np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda w: w.pop("D_low"), "conversion.names"),
        (lambda w: w.update(b=np.zeros(6)), "conversion.names"),
        (lambda w: w.update(D=w["D"].T), "conversion.layout"),
        (lambda w: w.update(E_low=w["E_low"].swapaxes(1, 2)), "conversion.layout"),
        (lambda w: w.update(E=w["E"][0]), "conversion.layout"),
        (lambda w: w["W_up"].__setitem__((0, 0, 0), np.nan), "conversion.nonfinite"),
        (lambda w: w.update(E=np.ones((8, 6), dtype=np.int64)), "conversion.dtype"),
        (
            lambda w: w.update(E=1e300 * np.ones((8, 6), dtype=np.longdouble) ** 2 * np.inf),
            "conversion.nonfinite",
        ),
    ],
)
def test_wrong_layouts_are_named(change, code):
    given = arrays()
    del given["x"]
    change(given)
    with pytest.raises(VsaeError) as caught:
        from_released_hierarchical(given, k=3)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "pair",
    [
        lambda: topk_autoencoder(6, 8, k=3),
        lambda: hierarchical_autoencoder(6, 8, k=3, branching=(3, 2), subspaces=(2, 2), bias=False),
        lambda: hierarchical_autoencoder(6, 8, k=3, branching=(3,), subspaces=(2,)),
        lambda: hierarchical_autoencoder(6, 8, k=3, branching=(3,), subspaces=(2,), bias=False),
        lambda: paper_hierarchical_autoencoder(6, 8, k=3),
        lambda: shipped_hierarchical_autoencoder(
            6, 8, k=3, normalizer=AffineNormalizer(torch.zeros(6), 2.0)
        ),
    ],
)
def test_what_the_layout_cannot_hold(pair):
    with pytest.raises(VsaeError) as caught:
        to_released_hierarchical(pair())
    assert caught.value.code == "conversion.source"


def test_arrays_of_another_byte_order_and_precision():
    given = {n: a.astype(">f4") for n, a in arrays().items() if n != "x"}
    for array in given.values():
        array.flags.writeable = False
    found = from_released_hierarchical(given, k=3)
    np.testing.assert_array_equal(to_released_hierarchical(found)["E"], given["E"])
