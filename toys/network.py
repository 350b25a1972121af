"""A real language model small enough to ship: a 260 000-parameter transformer in plain torch."""

from collections.abc import Callable
from importlib.resources import files

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention, silu

from priors.errors import ConfigError
from toys.checkpoint import TransformerSizes, read_checkpoint


def _matrix(*shape: int) -> nn.Parameter:
    # Zeros, not nn.Linear: weights come from the file, and the user's random state is left alone.
    return nn.Parameter(torch.zeros(shape), requires_grad=False)


def rotary_angles(positions: int, head_dim: int) -> Float[Tensor, "positions pairs"]:
    r"""The angles :math:`t \cdot 10000^{-2i/h}` of position ``t`` and pair ``i``, in float64.

    Source:
        Su et al. (2021), *RoFormer*, equation 15.
    """
    frequency = 10_000.0 ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    return torch.outer(torch.arange(positions, dtype=torch.float64), frequency)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    # Neighbouring coordinates (2i, 2i + 1) form a pair, not (i, i + h/2) as in other ports.
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class _Attention(nn.Module):
    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.head_dim = sizes.head_dim
        self.wq = _matrix(sizes.dim, sizes.dim)
        self.wk = _matrix(sizes.kv_heads * sizes.head_dim, sizes.dim)
        self.wv = _matrix(sizes.kv_heads * sizes.head_dim, sizes.dim)
        self.wo = _matrix(sizes.dim, sizes.dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            (x @ w.mT).unflatten(-1, (-1, self.head_dim)).transpose(-2, -3)
            for w in (self.wq, self.wk, self.wv)
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        heads = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return heads.transpose(-2, -3).flatten(-2) @ self.wo.mT


class _FeedForward(nn.Module):
    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.w1 = _matrix(sizes.hidden_dim, sizes.dim)
        self.w2 = _matrix(sizes.dim, sizes.hidden_dim)
        self.w3 = _matrix(sizes.hidden_dim, sizes.dim)

    def forward(self, x: Tensor) -> Tensor:
        return (silu(x @ self.w1.mT) * (x @ self.w3.mT)) @ self.w2.mT


class _Block(nn.Module):
    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(sizes.dim, eps=1e-5)
        self.attention = _Attention(sizes)
        self.feed_forward_norm = nn.RMSNorm(sizes.dim, eps=1e-5)
        self.feed_forward = _FeedForward(sizes)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        return x + self.feed_forward(self.feed_forward_norm(x))


class StoriesTransformer(nn.Module):
    r"""A Llama-2 transformer whose residual stream can be read, replaced and run on.

    .. math:: h_l' = h_{l-1} + \mathrm{attention}(\mathrm{norm}(h_{l-1})), \quad
        h_l = h_l' + W_2(\mathrm{silu}(W_1 \tilde h_l') \odot W_3 \tilde h_l'), \quad
        \tilde h = \mathrm{norm}(h) = w \odot h / \sqrt{\overline{h^2} + 10^{-5}}

    with rotary positions, causal grouped-query attention and logits ``U norm(h_layers)``. "Layer
    ``l``" always means the residual stream ``h_l`` *after* block ``l``; layer 0 is the embedding.
    There is no bias anywhere, so a stream that is zero at every position stays zero and its
    cross-entropy is exactly ``ln(vocabulary)``. Sequences start at position 0 and are padded on the
    right: attention is causal, so padding changes no logit before it. Parameters need no gradient;
    gradients with respect to a replaced stream flow.

    Args:
        sizes: The header of the file.

    Shapes:
        ``forward(tokens: (B, T)) -> logits (B, T, V)``, in the dtype of the weights.

    Raises:
        ConfigError: ``network.context`` for sequences longer than the context, ``network.layer``
            for a layer that does not exist.

    Example:
        >>> model = StoriesTransformer.load()
        >>> model(torch.tensor([[1, 403, 407]])).shape
        torch.Size([1, 3, 512])
        >>> model.residuals(torch.tensor([[1, 403, 407]])).shape
        torch.Size([6, 1, 3, 64])

    Source:
        Touvron et al. (2023), *Llama 2*; weights and file format of Karpathy's llama2.c.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = _matrix(sizes.tokens, sizes.dim)
        self.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.dim, eps=1e-5)
        self.unembedding = self.embedding
        if sizes.vocabulary < 0:
            self.unembedding = _matrix(sizes.tokens, sizes.dim)
        angles = rotary_angles(sizes.context, sizes.head_dim)
        dtype = self.embedding.dtype
        self.register_buffer("cos", angles.cos().to(dtype), persistent=False)
        self.register_buffer("sin", angles.sin().to(dtype), persistent=False)

    @classmethod
    def load(cls, dtype: torch.dtype = torch.float32) -> "StoriesTransformer":
        """The trained model that ships with this package: 5 layers, d = 64, 512 tokens.

        Args:
            dtype: Of weights and activations. The weights are float32 numbers in either case.
        """
        raw = files("toys").joinpath("data", "lm", "stories260K.bin").read_bytes()
        return cls.from_bytes(raw, dtype)

    @classmethod
    def from_bytes(cls, raw: bytes, dtype: torch.dtype = torch.float32) -> "StoriesTransformer":
        """Any llama2.c checkpoint of the legacy float32 format.

        Args:
            raw: The whole file.
            dtype: Of weights and activations.

        Raises:
            ConfigError: ``network.sizes`` or ``network.file`` if the bytes are not such a file.
        """
        sizes, weights = read_checkpoint(raw)
        model = cls(sizes).requires_grad_(False).eval()
        model.load_state_dict(weights)
        model = model.to(dtype)
        # Rotations are computed, so the wider dtype gets them unrounded.
        angles = rotary_angles(sizes.context, sizes.head_dim)
        model.cos, model.sin = angles.cos().to(dtype), angles.sin().to(dtype)
        return model

    @property
    def num_layers(self) -> int:
        return self.sizes.layers

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        return self.run_from(self.stream(tokens, 0), 0)

    def stream(self, tokens: Int[Tensor, "B T"], layer: int) -> Float[Tensor, "B T d"]:
        """The residual stream after block ``layer``; layer 0 is the embedding."""
        self._check(tokens.shape[1], layer)
        return self._advance(embedding(tokens, self.embedding), 0, layer)

    def residuals(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "streams B T d"]:
        """Every layer's residual stream: index 0 is the embedding, ``l`` is after block ``l``."""
        streams = [self.stream(tokens, 0)]
        for layer in range(self.num_layers):
            streams.append(self._advance(streams[-1], layer, layer + 1))
        return torch.stack(streams)

    def run_from(self, stream: Float[Tensor, "B T d"], layer: int) -> Float[Tensor, "B T V"]:
        """The logits when the residual stream after block ``layer`` is ``stream``."""
        self._check(stream.shape[1], layer)
        return self.norm(self._advance(stream, layer, self.num_layers)) @ self.unembedding.mT

    def run_with(
        self, tokens: Int[Tensor, "B T"], layer: int, replace: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "B T V"]:
        """The logits when the stream ``h`` after block ``layer`` becomes ``replace(h)``.

        Args:
            tokens: Token ids.
            layer: Which stream, 0 (the embedding) to ``num_layers`` (the last, before the norm).
            replace: Maps ``(B, T, d)`` to ``(B, T, d)``; every position is replaced.
        """
        return self.run_from(replace(self.stream(tokens, layer)), layer)

    def advance(
        self, stream: Float[Tensor, "B T d"], start: int, stop: int
    ) -> Float[Tensor, "B T d"]:
        """The stream after block ``stop`` when that after block ``start`` is ``stream``."""
        self._check(stream.shape[1], start)
        self._check(stream.shape[1], stop)
        return self._advance(stream, start, stop)

    def greedy(self, tokens: Int[Tensor, "B T"], steps: int) -> Int[Tensor, "B T2"]:
        """``tokens`` followed by ``steps`` more, each the most likely one."""
        for _ in range(steps):
            tokens = torch.cat((tokens, self(tokens)[:, -1:].argmax(-1)), 1)
        return tokens

    def _advance(self, x: Tensor, start: int, stop: int) -> Tensor:
        cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        for block in self.blocks[start:stop]:
            x = block(x, cos, sin)
        return x

    def check_layer(self, layer: int) -> None:
        """Raise ``network.layer`` unless there is such a stream."""
        if not 0 <= layer <= self.num_layers:
            raise ConfigError(
                f"no such layer: got {layer}, expected 0 (embedding) to {self.num_layers}.",
                code="network.layer",
                context={"got": layer, "layers": self.num_layers},
            )

    def _check(self, time: int, layer: int) -> None:
        if time > self.sizes.context:
            raise ConfigError(
                f"sequence too long: got {time} tokens, expected <= {self.sizes.context}. "
                "Cut it to the context.",
                code="network.context",
                context={"got": time, "context": self.sizes.context},
            )
        self.check_layer(layer)
