"""Bi-orthogonality: three forms against the matrix they are of, and the released numbers."""

import json
import pathlib

import numpy as np
import pytest
import torch

from vsae import (
    Biorthogonality,
    ClosedFormELBO,
    DictionaryEncoder,
    FrobeniusBiorthogonality,
    LinearDecoder,
    ShippedBiorthogonality,
    hierarchical_autoencoder,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"


def pairs(matrix):
    return len(matrix) ** 2 - len(matrix)


def off(matrix):
    return matrix - torch.diag(matrix.diagonal())


def squared(rows, atoms):
    matrix = rows @ atoms.T
    return off(matrix).square().sum() / pairs(matrix)


def frobenius(rows, atoms):
    matrix = rows @ atoms.T
    return torch.linalg.matrix_norm(off(matrix)) / pairs(matrix)


def shipped(rows, atoms):
    rows, atoms = (w / (w.norm(dim=1, keepdim=True) + 1e-6) for w in (rows, atoms))
    matrix = atoms @ rows.T
    return torch.linalg.matrix_norm(matrix - matrix.diagonal()) / pairs(matrix)


FORMS = {
    Biorthogonality: squared,
    FrobeniusBiorthogonality: frobenius,
    ShippedBiorthogonality: shipped,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("latents", [2, 5, 6, 40])  # fewer than, as many as and more than d = 6
def test_value_and_gradients_are_those_of_the_matrix(form, latents):
    decoder = LinearDecoder(latents, 6)
    encoder = DictionaryEncoder(decoder)
    torch.nn.init.normal_(encoder.W_enc)
    ours = form(encoder, decoder, weight=0.7)()
    theirs = -0.7 * FORMS[form](encoder.W_enc, decoder.W_dec)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    leaves = (encoder.W_enc, decoder.W_dec)
    for a, b in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
        assert b.abs().sum() > 0


def test_the_published_number_and_the_shipped_one():
    """Both forms on the released weights: unit rows, the norm over 8² - 8."""
    record = json.loads((GOLDEN / "hsae_golden.json").read_text())["oracle_float64"]
    weights = np.load(GOLDEN / "hsae_golden.npz", allow_pickle=False)
    decoder = LinearDecoder(8, 6)
    encoder = DictionaryEncoder(decoder)
    rows, atoms = (torch.from_numpy(weights[n]).double() for n in ("E", "D"))
    encoder.W_enc.data, decoder.W_dec.data = rows, atoms.T.contiguous()
    found = ShippedBiorthogonality(encoder, decoder, weight=1.0)()
    assert -found.item() == pytest.approx(record["ortho_code"], rel=1e-7)
    unit = rows / (rows.norm(dim=1, keepdim=True) + 1e-6)
    encoder.W_enc.data = unit
    decoder.W_dec.data = (atoms / (atoms.norm(dim=0) + 1e-6)).T.contiguous()
    found = FrobeniusBiorthogonality(encoder, decoder, weight=1.0)()
    assert -found.item() == pytest.approx(record["ortho_offdiag"], rel=1e-7)


def test_a_biorthogonal_dictionary_pays_nothing():
    decoder = LinearDecoder(3, 3)
    encoder = DictionaryEncoder(decoder)
    torch.nn.init.normal_(decoder.W_dec)
    encoder.W_enc.data = torch.linalg.inv(decoder.W_dec.detach()).T.contiguous()
    assert abs(Biorthogonality(encoder, decoder, weight=1.0)().item()) < 1e-25
    assert abs(FrobeniusBiorthogonality(encoder, decoder, weight=1.0)().item()) < 1e-12


def test_it_counts_once_per_row_and_in_training_only():
    pair = hierarchical_autoencoder(6, 8, k=2, branching=(3,), subspaces=(2,), orthogonality=0.7)
    x = torch.randn(11, 6)
    terms = ClosedFormELBO().terms(pair.model, pair.guide, x)
    belief = pair.model.orthogonality
    torch.testing.assert_close(terms["orthogonality"], -11 * belief())
    pair.eval()
    assert set(ClosedFormELBO().terms(pair.model, pair.guide, x)) == {"support", "z", "x"}
