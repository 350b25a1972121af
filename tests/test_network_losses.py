"""Cross-entropy and KL with a stream replaced, against numpy and one story at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from priors.errors import ConfigError
from toys.losses import (
    cross_entropy,
    replaced_losses,
    token_cross_entropy,
    token_divergence,
)
from toys.network import StoriesTransformer
from toys.stories import StoriesData

DATA = StoriesData.load()

# The 100 held-out stories read one at a time without padding in float64, log-softmax and mean by
# numpy: 42307 predicted tokens.
CE_HELDOUT = 1.58688532


@pytest.fixture(scope="module")
def few():
    model = StoriesTransformer.load(torch.float64)
    return StoriesData.from_texts(DATA.texts[:20], model, DATA.tokenizer)


def log_p(logits):
    return logits - logsumexp(logits, axis=-1, keepdims=True)


def nats(clean, logits, tokens):
    """Per predicted token: cross-entropy and KL, from logits (T, V) of one story."""
    p, q = log_p(clean[:-1].double().numpy()), log_p(logits[:-1].double().numpy())
    return -q[np.arange(len(q)), tokens[1:].numpy()], (np.exp(p) * (p - q)).sum(-1)


def oracle(data, layer, replace):
    """The held-out stories of ``data`` alone, BOS kept, every other position replaced."""
    parts = []
    for i in data.stories("heldout"):
        tokens = data.tokens[i]
        stream = data.model.residuals(tokens[None])[layer]
        other = torch.cat((stream[:, :1], replace(stream[:, 1:])), 1)
        clean, logits = data.model(tokens[None])[0], data.model.run_from(other, layer)[0]
        parts.append(nats(clean, logits, tokens))
    return [np.concatenate(part).mean() for part in zip(*parts, strict=True)]


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(2, 6), st.sampled_from([1.0, 300.0]))
def test_losses_match_numpy(seed, batch, time, scale):
    generator = torch.Generator().manual_seed(seed)
    logits, clean = scale * torch.randn(2, batch, time, 9, generator=generator)
    tokens = torch.randint(0, 9, (batch, time), generator=generator)
    lengths = torch.randint(1, time + 1, (batch,), generator=generator)
    lengths[0] = time
    mask = torch.arange(time) < lengths[:, None]
    parts = [
        nats(clean[b, :n], logits[b, :n], tokens[b, :n]) for b, n in enumerate(lengths.tolist())
    ]
    entropy, divergence = (np.concatenate(part) for part in zip(*parts, strict=True))
    got = token_divergence(clean, logits)[:, :-1][mask[:, 1:]]
    # Relative to the size of the logits, of which both are differences.
    np.testing.assert_allclose(
        cross_entropy(logits, tokens, mask), entropy.mean(), atol=1e-13 * scale
    )
    np.testing.assert_allclose(got, divergence, rtol=1e-12, atol=1e-13 * scale)


@pytest.mark.parametrize("layer", [0, 2, 5])
def test_replaced_losses_match_one_story_at_a_time(few, layer):
    mean = few.activations(layer, "train").mean(0)
    got = replaced_losses(few, layer, lambda x: 0.5 * x.flip(-1))
    pairs = {
        "replaced": lambda x: 0.5 * x.flip(-1),
        "zero": torch.zeros_like,
        "mean": lambda x: mean.expand_as(x),
    }
    for name, replace in pairs.items():
        ce, kl = oracle(few, layer, replace)
        assert abs(getattr(got, f"ce_{name}") - ce) < 1e-10
        assert abs(getattr(got, f"kl_{name}") - kl) < 1e-10
    assert abs(got.ce_clean - oracle(few, layer, torch.clone)[0]) < 1e-10
    assert got.tokens == len(few.rows("heldout"))


@pytest.mark.parametrize("layer", range(6))
def test_a_perfect_reconstruction_loses_nothing(few, layer):
    got = replaced_losses(few, layer, torch.clone)
    assert got.ce_replaced == got.ce_clean
    assert got.kl_replaced == 0
    zero = replaced_losses(few, layer, torch.zeros_like)
    assert (zero.ce_replaced, zero.kl_replaced) == (got.ce_zero, got.kl_zero)
    assert got.kl_zero > 1
    assert got.kl_mean > 1


def test_heldout_loss_of_the_shipped_model():
    # Every float32 logit is within 1e-4 of the float64 one (test_network), the mean much closer.
    losses = [
        token_cross_entropy(DATA.model(batch.tokens), batch.tokens)[batch.mask[:, 1:]]
        for batch in DATA.batches("heldout")
    ]
    assert torch.cat(losses).shape == (42_307,)
    assert abs(torch.cat(losses).mean().item() - CE_HELDOUT) < 1e-5


def test_a_reconstruction_may_be_a_trained_module(few):
    linear = torch.nn.Linear(64, 64)
    assert replaced_losses(few, 2, linear).ce_replaced > replaced_losses(few, 2, linear).ce_clean


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda few: replaced_losses(few, 2, lambda x: x[:1]), "stories.reconstruct"),
        (lambda few: replaced_losses(few, 9, torch.clone), "network.layer"),
        (lambda few: cross_entropy(torch.zeros(1, 1, 4), torch.zeros(1, 1).long(),
                                   torch.ones(1, 1).bool()), "losses.empty"),
    ],
)  # fmt: skip
def test_wrong_input_is_a_typed_error(few, call, code):
    with pytest.raises(ConfigError) as caught:
        call(few)
    assert caught.value.code == code
