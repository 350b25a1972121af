"""Real networks of known structure: transformers that add two numbers modulo 59."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toys.rings import Rings
from vsae.errors import ConfigError

NETWORKS = {
    "attention": "modadd59_1L_attn1_q9rsl94xlv",
    "pizza": "modadd59_modelA_1L_pizza_p99zdpze5l",
    "two-blocks": "modadd59_2L_2fsoiei4o2",
    "three-blocks": "modadd59_3L_kboioj4ulz",
    "unconverged": "modadd59_1L_notgrokked_control_n9n7h3p965",
}
"""The stem of each network's file; the last did not learn to add: the control."""


@dataclass(frozen=True, eq=False)
class ModAdd:
    r"""A transformer over two number tokens, ``a`` and ``b``, that answers ``a + b`` modulo 59.

    .. math:: h' = h + \mathrm{attention}(h), \quad
        h'' = h' + W_{out}\,\mathrm{relu}(W_{in} h' + b_{in}) + b_{out}, \quad
        A = κ\, \mathrm{softmax}(QK^\top/\sqrt{32}) + (1 - κ)

    Both positions attend to both, nothing is normalised, and the answer is read at the last token.
    The *attention coefficient* κ goes from constant attention (0) to softmax attention (1). "Layer
    ``l``" means the residual stream after block ``l``; layer 0 is embedding plus position.

    A number's embedding is a sum of points on rings, one in the plane of each key frequency; so
    are the sums' in the last layer. These planes are true blocks, and each ring a true graph.

    Args:
        name: A key of ``NETWORKS``.
        attention: κ, the attention coefficient.
        modulus: 59.
        weights: By their names in the file.

    Example:
        >>> pizza = ModAdd.load("pizza")
        >>> pizza.residuals(pizza.pairs()).shape, pizza.accuracy()
        (torch.Size([2, 3481, 2, 128]), 1.0)
        >>> pizza.number_rings().frequencies.tolist()
        [17, 3, 15, 25, 6, 29]

    Source:
        Zhong et al. (2023), *The Clock and the Pizza*; the networks of github.com/fjzzq2002/pizza.
    """

    name: str
    attention: float
    modulus: int
    weights: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    @cache
    def load(cls, name: str) -> "ModAdd":
        """A network that ships with this package, float32 as published.

        Raises:
            ConfigError: ``network.name`` for another name than those of ``NETWORKS``.
        """
        if name not in NETWORKS:
            raise ConfigError(
                f"no network {name!r} ships with this package. Known: {', '.join(NETWORKS)}.",
                code="network.name",
                context={"got": name, "known": list(NETWORKS)},
            )
        shipped = files("toys").joinpath("data", "modadd", f"{NETWORKS[name]}.npz")
        with as_file(shipped) as path, np.load(path, allow_pickle=False) as archive:
            config = json.loads(str(archive["config"]))
            arrays = {key: archive[key] for key in archive.files if key != "config"}
        weights = {key: torch.from_numpy(array) for key, array in arrays.items()}
        return cls(name, float(config["attn_coeff"]), int(config["C"]), weights)

    @property
    def num_layers(self) -> int:
        """Blocks."""
        return sum(key.endswith(".attn.W_Q") for key in self.weights)

    def pairs(self) -> Int[Tensor, "N 2"]:
        """All inputs ``(a, b)``, ``b`` running fastest."""
        numbers = torch.arange(self.modulus)
        return torch.cartesian_prod(numbers, numbers)

    def residuals(self, tokens: Int[Tensor, "B 2"]) -> Float[Tensor, "streams B 2 d"]:
        """Every layer's residual stream at both tokens: embedding, then after each block."""
        w = self.weights
        streams = [w["embed.W_E"].mT[tokens] + w["pos_embed.W_pos"]]
        for layer in range(self.num_layers):
            streams.append(self._block(streams[-1], f"blocks.{layer}"))
        return torch.stack(streams)

    def logits(self, last: Float[Tensor, "B d"]) -> Float[Tensor, "B p"]:
        """What the unembedding reads off the last layer's stream at the last token."""
        return last @ self.weights["unembed.W_U"]

    def accuracy(self, last: Float[Tensor, "N d"] | None = None) -> float:
        """Share of all inputs answered rightly.

        Args:
            last: The last layer's stream at the last token for :meth:`pairs`, such as a
                reconstruction of it; the network's own if ``None``.
        """
        stream = self.sum_stream() if last is None else last
        right = self.logits(stream).argmax(-1) == self.pairs().sum(-1) % self.modulus
        return float(right.double().mean())

    def number_stream(self) -> Float[Tensor, "N d"]:
        """Layer 0 of all inputs, summed over both tokens: what constant attention hands on."""
        return self.residuals(self.pairs())[0].sum(1)

    def sum_stream(self) -> Float[Tensor, "N d"]:
        """The last layer of all inputs at the last token, off which the answer is read."""
        return self.residuals(self.pairs())[-1, :, 1]

    def number_rings(self) -> Rings:
        """The planes of the embedding: those of :meth:`number_stream`."""
        return Rings.of(self.weights["embed.W_E"].mT)

    def sum_rings(self) -> Rings:
        """The planes of :meth:`sum_stream`, as its mean over the pairs of each sum goes round."""
        answer = self.pairs().sum(-1) % self.modulus
        stream = self.sum_stream()
        total = stream.new_zeros(self.modulus, stream.shape[-1], dtype=torch.float64)
        return Rings.of(total.index_add(0, answer, stream.double()) / self.modulus)

    def _block(self, x: Tensor, block: str) -> Tensor:
        w, scores = self.weights, f"{block}.attn"
        q, k, v = (torch.einsum("ihd,bpd->biph", w[f"{scores}.W_{n}"], x) for n in "QKV")
        soft = (q @ k.mT / k.shape[-1] ** 0.5).softmax(-1)
        mixed = (self.attention * soft + (1 - self.attention)) @ v
        x = x + mixed.transpose(1, 2).flatten(-2) @ w[f"{scores}.W_O"].mT
        hidden = (x @ w[f"{block}.mlp.W_in"].mT + w[f"{block}.mlp.b_in"]).relu()
        return x + hidden @ w[f"{block}.mlp.W_out"].mT + w[f"{block}.mlp.b_out"]
