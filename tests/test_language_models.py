"""Activations of a transformers model, on a tiny one built here; needs the extra ``lm``."""

import pytest
import torch

from vsae.errors import VsaeError
from vsae.language_models import hidden_states

transformers = pytest.importorskip("transformers", reason="the extra lm is not installed")


@pytest.fixture
def model():
    config = transformers.GPT2Config(n_layer=3, n_head=2, n_embd=8, vocab_size=20, n_positions=16)
    return transformers.GPT2Model(config).eval()


def test_rows_are_the_tokens_that_are_not_padding(model):
    tokens = torch.randint(20, (2, 5))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    rows = hidden_states(model, [{"input_ids": tokens, "attention_mask": mask}], layer=2)
    assert rows.shape == (8, 8)
    alone = hidden_states(model, [{"input_ids": tokens[1:, :3]}], layer=2)
    torch.testing.assert_close(rows[5:], alone, rtol=1e-5, atol=1e-5)  # rows are float32


def test_several_layers_are_read_in_one_pass(model):
    batch = {"input_ids": torch.randint(20, (2, 5))}
    rows = hidden_states(model, [batch], layer=(0, 2))
    alone = [hidden_states(model, [batch], layer=layer) for layer in (0, 2)]
    assert torch.equal(rows, torch.stack(alone, 1))


def test_layer_zero_is_the_embedding(model):
    tokens = torch.randint(20, (1, 4))
    rows = hidden_states(model, [{"input_ids": tokens}], layer=0)
    expected = model.wte(tokens) + model.wpe(torch.arange(4))
    torch.testing.assert_close(rows, expected[0].float())


def test_bad_input(model):
    for layer in (-1, 3, 4):  # the third block's state comes back normalised
        with pytest.raises(VsaeError) as caught:
            hidden_states(model, [{"input_ids": torch.zeros(1, 2, dtype=torch.int64)}], layer=layer)
        assert caught.value.code == "hidden_states.layer"
    with pytest.raises(VsaeError) as caught:
        hidden_states(model, [], layer=0)
    assert caught.value.code == "data.empty"
