"""Released crosscoders read and written: atoms of any size, the same function."""

import numpy as np
import pytest
import torch

from vsae import (
    LayerNormalizer,
    fit,
    from_released_crosscoder,
    l1_crosscoder,
    to_released_crosscoder,
    topk_crosscoder,
)
from vsae.errors import VsaeError

N, D, K = 3, 4, 6


def released(seed=0):
    torch.manual_seed(seed)
    return {
        "W_enc": torch.randn(N, D, K),
        "b_enc": torch.randn(K),
        "W_dec": torch.randn(K, N, D),
        "b_dec": torch.randn(N, D),
    }


def by_hand(tensors, x):
    given = {name: tensor.numpy() for name, tensor in tensors.items()}
    f = np.maximum(np.einsum("bnd,ndk->bk", x.numpy(), given["W_enc"]) + given["b_enc"], 0)
    return np.einsum("bk,knd->bnd", f, given["W_dec"]) + given["b_dec"]


def test_what_is_read_is_the_same_function():
    tensors, x = released(), torch.randn(7, N, D)
    pair = from_released_crosscoder(tensors, l1=1.0)
    np.testing.assert_allclose(pair(x).detach().numpy(), by_hand(tensors, x), atol=1e-12)


def test_units_are_folded_into_what_is_written():
    torch.manual_seed(1)
    x = torch.randn(200, N, D) * torch.tensor([1.0, 10.0, 0.1])[:, None] + 3
    units = LayerNormalizer.fit(x.flatten(1), (D,) * N)
    pair = l1_crosscoder((D,) * N, K, l1=0.1, normalizer=units)
    fit(pair, x, steps=20, batch_size=50, lr=0.02).run(progress=False)
    expected = pair(x).detach().numpy()
    np.testing.assert_allclose(by_hand(to_released_crosscoder(pair), x), expected, atol=1e-10)


def code_of(call):
    with pytest.raises(VsaeError) as caught:
        call()
    return caught.value.code


def test_bad_input_is_named():
    tensors = released()
    bad = tensors["b_enc"].clone()
    bad[0] = torch.nan
    zero = tensors["W_dec"].clone()
    zero[2] = 0
    read = {
        "conversion.names": tensors | {"threshold": bad},
        "conversion.layout": tensors | {"W_dec": tensors["W_dec"].transpose(0, 1)},
        "conversion.nonfinite": tensors | {"b_enc": bad},
        "conversion.zero": tensors | {"W_dec": zero},
    }
    for code, given in read.items():
        assert code_of(lambda given=given: from_released_crosscoder(given, l1=1.0)) == code
    for pair in (topk_crosscoder((D, D), K, k=2), l1_crosscoder((D, 3), K, l1=1.0)):
        assert code_of(lambda pair=pair: to_released_crosscoder(pair)) == "conversion.source"
