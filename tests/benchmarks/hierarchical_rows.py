"""H-SAE steps: beside its roots alone, flat dictionaries of as many features, a naive gather."""

import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from contest import Step, alternate
from results import Result, Skipped, slowdown, speedup
from sparse_rows import ROWS, SETTING, WIDTH, K, activations, topk
from step_rows import fitted
from torch import Tensor, nn

from vsae import Autoencoder, hierarchical_autoencoder, topk_autoencoder
from vsae.decoders import Projected

CHILDREN, SUBSPACE = 16, 4
BARS = {2048: 3.2, 4096: 3.2, 16384: 2.1}  # of a step over that of its roots alone
GIB = 2**30


def hsae(roots: int, children: int = CHILDREN, subspace: int = SUBSPACE) -> Autoencoder:
    """As published but for the orthogonality, which no top-level step has: no bias."""
    return hierarchical_autoencoder(
        WIDTH, roots, k=K, branching=(children,), subspaces=(subspace,), bias=False
    )


class NaiveGather(nn.Module):
    """The loss of an H-SAE with its tables gathered per row: ``(B, k, s, d)`` and all."""

    def __init__(self, pair: Autoencoder) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, x: Tensor) -> Tensor:
        decoder, encoder = self.pair.model.decoder, self.pair.guide.posterior.encoder
        read, write, m = encoder.below[0], decoder.below[0], decoder.tree.roots
        values, roots = F.linear(x, encoder.top.W_enc, encoder.top.b_enc).topk(K)
        z = values.relu()
        inside = torch.einsum("bksd,bd->bks", read.W_down.view(m, SUBSPACE, -1)[roots], x)
        tables = read.W_child.view(m, CHILDREN, SUBSPACE)[roots]
        scores, best = torch.einsum("bkas,bks->bka", tables, inside).max(-1)
        atoms = write.atoms.W_dec.view(m, CHILDREN, SUBSPACE)[roots]
        atom = atoms.gather(2, best[..., None, None].expand(-1, -1, 1, SUBSPACE))[:, :, 0]
        top = torch.einsum("bk,bkd->bd", z, decoder.top.W_dec[roots])
        up = write.W_up.view(m, SUBSPACE, -1)[roots]
        low = torch.einsum("bks,bksd->bd", (scores.relu() * (z > 0))[..., None] * atom, up)
        errors = F.mse_loss(top + low, x, reduction="sum")
        return (errors + 0.1 * F.mse_loss(top, x, reduction="sum")) / len(x)


def naive_step(pair: Autoencoder, data: Tensor) -> Step:
    """With fused Adam and unit atoms, as :func:`vsae.fit` has them."""
    objective, turn = NaiveGather(pair), iter(range(10**9))
    optimizer = torch.optim.Adam(pair.parameters(), lr=1e-3, fused=True)
    projected = [module for module in pair.modules() if isinstance(module, Projected)]

    def step() -> None:
        begin = next(turn) % 4 * ROWS
        optimizer.zero_grad(set_to_none=True)
        objective(data[begin : begin + ROWS]).backward()
        for module in projected:
            module.project_gradient()
        optimizer.step()
        for module in projected:
            module.project()

    return step


def hierarchy_row() -> list[Result]:
    """A tree against its roots alone, with and without the terms that only it has."""
    data, results = activations(), []
    for roots, bar in BARS.items():
        steps = {
            "H-SAE": fitted(hsae(roots), data, ROWS),
            "TopK": fitted(topk_autoencoder(WIDTH, roots, k=K), data, ROWS),
            "orthogonality": fitted(_with_orthogonality(roots), data, ROWS),
        }
        times = alternate(steps, rounds=7 if roots < 16384 else 5)
        tree = f"H-SAE step, {roots} roots of {CHILDREN} children, s = {SUBSPACE}, {SETTING}"
        results += [
            slowdown(f"{tree} : TopK step of {roots}", times, "H-SAE", "TopK", at_most=bar),
            slowdown(f"{tree}, with bi-orthogonality : without", times, "orthogonality", "H-SAE"),
        ]
        del steps
    return results


def _with_orthogonality(roots: int) -> Autoencoder:
    return hierarchical_autoencoder(
        WIDTH,
        roots,
        k=K,
        branching=(CHILDREN,),
        subspaces=(SUBSPACE,),
        orthogonality=0.1,
        bias=False,
    )


def features_row() -> list[Result | Skipped]:
    """Against a flat dictionary of as many latents, and against gathering."""
    data, roots = activations(), 2048
    tree = f"H-SAE step, {roots} roots of {CHILDREN} children, s = {SUBSPACE}, {SETTING}"
    flat = roots * (1 + CHILDREN)
    steps = {
        "H-SAE": fitted(hsae(roots), data, ROWS),
        "flat": fitted(topk(flat), data, ROWS),
        "naive": naive_step(hsae(roots), data),
    }
    times = alternate(steps, rounds=5)
    gather = f"{tree} : gathering (B, k, s, d) with autograd"
    return [
        slowdown(f"{tree} : TopK step of {flat}", times, "H-SAE", "flat", at_most=0.35),
        speedup(gather, times, "H-SAE", "naive", at_least=6),
        Skipped(f"{tree}, faster than the official JAX code", "no registry has that code"),
    ]


def terms_row() -> list[Result]:
    """The parts of a forward pass, each with the parameter its cost is said to grow with doubled.

    The paper's terms, its low-level encoding and decoding exchanged back.
    """
    x, results = activations()[:ROWS], []
    for term, (parameter, build) in TERMS.items():
        steps = {"once": build(x, 1), "doubled": build(x, 2)}
        times = alternate(steps, rounds=9, calls=3)
        claim = f"H-SAE, {term}: {parameter} doubled : as it was"
        results.append(slowdown(claim, times, "doubled", "once"))
    return results


def _parts(x: Tensor, *, roots: int = 4096, k: int = K, a: int = CHILDREN, s: int = SUBSPACE):
    """Decoder, encoder, and a route through them, of one size."""
    pair = hierarchical_autoencoder(WIDTH, roots, k=k, branching=(a,), subspaces=(s,), bias=False)
    encoder = pair.guide.posterior.encoder
    with torch.no_grad():
        parent = encoder.top.select(x, k)[1]
        inside = encoder.below[0].project(x, parent, None)
        child = encoder.below[0].best(inside, parent)
    return pair.model.decoder, encoder, parent, inside, child


def _without_gradient(call) -> Step:
    def step() -> object:
        with torch.no_grad():
            return call()

    return step


def _top(x: Tensor, times: int) -> Step:
    _, encoder, *_ = _parts(x, roots=2048 * times)
    return _without_gradient(lambda: encoder.top.select(x, K))


def _down(**sizes: int):
    def build(x: Tensor, times: int) -> Step:
        _, encoder, parent, _, _ = _parts(x, **{n: v * times for n, v in sizes.items()})
        return _without_gradient(lambda: encoder.below[0].project(x, parent, None))

    return build


def _encode(**sizes: int):
    def build(x: Tensor, times: int) -> Step:
        _, encoder, parent, inside, _ = _parts(x, **{n: v * times for n, v in sizes.items()})
        return _without_gradient(lambda: encoder.below[0].best(inside, parent))

    return build


def _decode(x: Tensor, times: int) -> Step:
    decoder, *_, child = _parts(x, a=CHILDREN * times)
    return _without_gradient(lambda: decoder.below[0].inside(child, torch.ones(child.shape)))


def _up(**sizes: int):
    def build(x: Tensor, times: int) -> Step:
        decoder, _, parent, inside, _ = _parts(x, **{n: v * times for n, v in sizes.items()})
        return _without_gradient(lambda: decoder.below[0].summed(parent, inside))

    return build


def _top_decode(x: Tensor, times: int) -> Step:
    decoder, _, parent, _, _ = _parts(x, k=K * times)
    return _without_gradient(lambda: decoder.top(torch.ones(parent.shape), parent))


TERMS = {
    "top encoding O(md)": ("m", _top),
    "down-projection O(ksd), k": ("k", _down(k=K)),
    "down-projection O(ksd), s": ("s", _down(s=SUBSPACE)),
    "low encoding O(kas), a": ("a", _encode(a=CHILDREN)),
    "low encoding O(kas), s": ("s", _encode(s=SUBSPACE)),
    "low decoding O(ks), not of a": ("a", _decode),
    "up-projection O(ksd), k": ("k", _up(k=K)),
    "up-projection O(ksd), s": ("s", _up(s=SUBSPACE)),
    "top decoding O(kd)": ("k", _top_decode),
}


def tree_peak_row() -> list[Result | Skipped]:
    """The most memory held while a tree is trained, imports, weights and data included."""
    return [_peak(roots) for roots in (2048, 4096)]


def _peak(roots: int) -> Result | Skipped:
    claim = f"H-SAE, {roots} roots of {CHILDREN} children, {SETTING}: peak resident memory, GiB"
    script = Path(__file__).with_name("peak.py")
    done = subprocess.run(
        [sys.executable, str(script), f"hsae-{roots}"], capture_output=True, text=True, check=True
    )
    if not done.stdout.strip():
        return Skipped(claim, "the system reports no peak")
    added, peak = (float(n) for n in done.stdout.split())
    times = f"{added / 2**20:.0f} MB of it by its steps"
    return Result(claim=claim, value=peak / GIB, at_most=1, times=times)
