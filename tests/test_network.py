"""The language model against a slow numpy transformer, its published output, and exact cases."""

import json
import math
import struct
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priors.errors import ConfigError
from toys.losses import cross_entropy
from toys.network import StoriesTransformer, rotary_angles
from toys.tokenizer import Tokenizer

LM = files("toys").joinpath("data", "lm")
RAW = LM.joinpath("stories260K.bin").read_bytes()
LAYERS = range(6)


def cut(raw, *shapes):
    """Consecutive float32 arrays of the file, as float64."""
    values, at = np.frombuffer(raw[28:], "<f4").astype(np.float64), 0
    for shape in shapes:
        yield values[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)


def oracle(raw, tokens):
    """The equations of Llama 2, head by head and position by position: streams and logits."""
    d, h, n, heads, kv, v, context = struct.unpack("<7i", raw[:28])
    size, group = d // heads, heads // kv
    e, an, wq, wk, wv, wo, fn, w1, w2, w3, norm, _, _, *u = cut(
        raw, (abs(v), d),
        (n, d), (n, heads, size, d), (n, kv, size, d), (n, kv, size, d), (n, d, d),
        (n, d), (n, h, d), (n, d, h), (n, h, d),
        (d,), (context, size // 2), (context, size // 2),
        *([(-v, d)] if v < 0 else []),
    )  # fmt: skip

    def rms(x, weight):
        return x / np.sqrt(np.mean(x * x) + 1e-5) * weight

    def rope(x, t):
        pairs = x[0::2] + 1j * x[1::2]
        turned = pairs * np.exp(1j * t * 10000.0 ** (-np.arange(0, size, 2) / size))
        return np.stack((turned.real, turned.imag), -1).reshape(-1)

    x = [e[t] for t in tokens]
    streams = [np.stack(x)]
    for b in range(n):
        keys, values, new = [], [], []
        for t, row in enumerate(x):
            y = rms(row, an[b])
            keys.append([rope(wk[b, g] @ y, t) for g in range(kv)])
            values.append([wv[b, g] @ y for g in range(kv)])
            out = []
            for i in range(heads):
                q, g = rope(wq[b, i] @ y, t), i // group
                a = np.exp([q @ keys[s][g] / math.sqrt(size) for s in range(t + 1)])
                out.append(sum(a[s] * values[s][g] for s in range(t + 1)) / a.sum())
            row = row + wo[b] @ np.concatenate(out)
            y = rms(row, fn[b])
            gate = w1[b] @ y
            new.append(row + w2[b] @ (gate / (1 + np.exp(-gate)) * (w3[b] @ y)))
        x = new
        streams.append(np.stack(x))
    return np.stack(streams), np.stack([(u[0] if u else e) @ rms(row, norm) for row in x])


def checkpoint(seed, dim_per_head, heads, kv, layers, shared):
    """A random checkpoint file: every weight of order one, so that every term of it matters."""
    d, v = dim_per_head * heads, 7
    floats = v * d + layers * (d + 2 * d * d + 2 * kv * dim_per_head * d + d + 3 * 5 * d) + d
    floats += 8 * dim_per_head + (0 if shared else v * d)
    values = np.random.default_rng(seed).normal(size=floats).astype("<f4")
    header = struct.pack("<7i", d, 5, layers, heads, kv, v if shared else -v, 8)
    return header + values.tobytes()


@pytest.fixture(scope="module")
def model():
    return StoriesTransformer.load(torch.float64)


@pytest.fixture
def tokens():
    return torch.randint(0, 512, (3, 40), generator=torch.Generator().manual_seed(0))


def test_matches_the_equations(model, tokens):
    # Two float64 orders of summation over <= 172 terms and 5 blocks: 1e-12 of the largest entry.
    streams, logits = oracle(RAW, tokens[0].tolist())
    got = model.residuals(tokens[:1])[:, 0].numpy()
    np.testing.assert_allclose(got, streams, rtol=0, atol=1e-12 * abs(streams).max())
    np.testing.assert_allclose(model(tokens[:1])[0], logits, rtol=0, atol=1e-12 * abs(logits).max())


@given(
    st.integers(0, 2**31), st.sampled_from([2, 4, 6]), st.sampled_from([(1, 1), (2, 1), (4, 2)]),
    st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_any_checkpoint_matches_the_equations(seed, size, heads, layers, shared):
    raw = checkpoint(seed, size, *heads, layers, shared)
    streams, logits = oracle(raw, [1, 5, 5, 2])
    model = StoriesTransformer.from_bytes(raw, torch.float64)
    tokens = torch.tensor([[1, 5, 5, 2]])
    # Weights of order one, not of order 1/√d, sharpen the softmax: scores of order 100 are rounded
    # to 1e-14, which a second block's softmax multiplies again by its scores.
    scale = 1e-10
    assert abs(model.residuals(tokens)[:, 0].numpy() - streams).max() < scale * abs(streams).max()
    assert abs(model(tokens)[0].numpy() - logits).max() < scale * abs(logits).max()


def test_rotations_of_the_file():
    # The file's angles were products in float32: half a unit in the last place at 511 is 1.5e-5,
    # and as much again from the rounded frequency.
    *_, cos, sin = cut(
        RAW, (512, 64), (5, 64), (5, 64, 64), (5, 32, 64), (5, 32, 64), (5, 64, 64), (5, 64),
        (5, 172, 64), (5, 64, 172), (5, 172, 64), (64,), (512, 4), (512, 4),
    )  # fmt: skip
    angles = rotary_angles(512, 8).numpy()
    np.testing.assert_allclose(np.cos(angles), cos, rtol=0, atol=4e-5)
    np.testing.assert_allclose(np.sin(angles), sin, rtol=0, atol=4e-5)


def test_golden_greedy_text():
    golden = json.loads(LM.joinpath("golden_greedy.json").read_text())["text"]
    written = StoriesTransformer.load().greedy(torch.tensor([[1]]), 200)
    assert Tokenizer.load().decode(written[0].tolist()) == golden


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_stream_costs_exactly_ln_512(tokens, layer, dtype):
    logits = StoriesTransformer.load(dtype).run_with(tokens, layer, torch.zeros_like)
    assert torch.equal(logits, torch.zeros_like(logits))
    loss = cross_entropy(logits, tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert abs(loss.item() - math.log(512)) < 1e-12


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replacing_a_stream_by_itself_changes_no_bit(tokens, layer, dtype):
    model = StoriesTransformer.load(dtype)
    assert model(tokens).dtype == dtype
    assert torch.equal(model.run_with(tokens, layer, torch.clone), model(tokens))
    assert torch.equal(model.residuals(tokens)[layer], model.stream(tokens, layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_replaced_stream_is_the_one_that_is_run(model, tokens, layer):
    other = model.residuals(tokens.flip(0))[layer]
    replaced = model.run_with(tokens, layer, lambda _: other)
    torch.testing.assert_close(replaced, model(tokens.flip(0)), rtol=0, atol=1e-12)


@given(seed=st.integers(0, 2**31), at=st.integers(1, 19))
def test_later_tokens_change_no_earlier_logit(model, seed, at):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(0, 512, (1, 20), generator=generator)
    b = a.clone()
    b[:, at] = (a[:, at] + 1) % 512
    change = (model(a) - model(b)).abs()[0].amax(-1)
    assert change[:at].max() < 1e-12 < change[at]


def test_padding_changes_nothing(model, tokens):
    batched = model(tokens)
    for row, length in enumerate((1, 17, 40)):
        alone = model(tokens[row : row + 1, :length])[0]
        torch.testing.assert_close(alone, batched[row, :length], rtol=0, atol=1e-12)


def test_float32_is_close_to_float64(model, tokens):
    # 5 blocks of float32 rounding (6e-8) on logits of order 10.
    assert (StoriesTransformer.load()(tokens) - model(tokens)).abs().max() < 1e-4


def test_gradients_reach_a_replaced_stream_but_no_parameter(model, tokens):
    stream = model.stream(tokens, 2).requires_grad_()
    model.run_from(stream, 2).logsumexp(-1).sum().backward()
    assert stream.grad is not None
    assert stream.grad.abs().amax((0, 1)).min() > 0
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_loading_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    assert not StoriesTransformer.load().training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda m: m(torch.ones(1, 513, dtype=torch.long)), "network.context"),
        (lambda m: m.stream(torch.ones(1, 2, dtype=torch.long), 6), "network.layer"),
        (lambda m: m.run_from(torch.zeros(1, 2, 64), -1), "network.layer"),
        (lambda m: m.from_bytes(RAW[:-4]), "network.file"),
        (lambda m: m.from_bytes(RAW[:20]), "network.file"),
        (lambda m: m.from_bytes(struct.pack("<7i", 64, 172, 5, 8, 3, 512, 512)), "network.sizes"),
        (lambda m: m.from_bytes(struct.pack("<7i", 64, 172, 0, 8, 4, 512, 512)), "network.sizes"),
    ],
)
def test_wrong_input_is_a_typed_error(model, call, code):
    with pytest.raises(ConfigError) as caught:
        call(model)
    assert caught.value.code == code
