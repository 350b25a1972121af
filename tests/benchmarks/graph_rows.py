"""Forms of one graph penalty, by the number of latents: what they cost, and how that grows."""

import math
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from contest import Times, alternate
from kl_rows import (
    LATENTS,
    NEIGHBOURS,
    ROWS,
    backward,
    closed_form,
    codes,
    edge_list,
    neighbour_graph,
)
from results import Result, Skipped, speedup
from torch import Tensor

from priors import Graph, GraphLaplacianPrior
from priors.log_determinant import Omitted

SIZES, FEW = (1024, 4096, 16384, 65536), 64
DENSE_MOST = 16384  # beyond, the matrix alone is 17 GB

Loss = Callable[[Tensor, Tensor], Tensor]


def sparse(graph: Graph) -> Loss:
    """The library's own: an embedding bag over transposed rows, whose gradient is kept."""
    prior = GraphLaplacianPrior(graph, logdet=Omitted())
    return lambda *at: closed_form(prior, *at)


def dense(graph: Graph) -> Loss:
    """``KL + const`` under ``I + L`` with ``L`` written out."""
    precision = torch.from_numpy(graph.laplacian().toarray()).float()
    precision.diagonal().add_(1.0)
    return _of_product(precision.diagonal(), lambda loc: loc @ precision)


def autograd_csr(graph: Graph) -> Loss:
    """The same by a sparse product, differentiated by torch."""
    matrix = graph.laplacian()
    parts = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    pointers, columns, values = parts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that these tensors are in beta
        csr = torch.sparse_csr_tensor(pointers.long(), columns.long(), values.float(), matrix.shape)
    diagonal = 1 + torch.from_numpy(matrix.diagonal()).float()
    return _of_product(diagonal, lambda loc: loc + (csr @ loc.t()).t())


def _of_product(diagonal: Tensor, product: Callable[[Tensor], Tensor]) -> Loss:
    def kl(loc: Tensor, log_variance: Tensor) -> Tensor:
        trace = (log_variance.exp() * diagonal).sum()
        return 0.5 * ((loc * product(loc)).sum() + trace - log_variance.sum())

    return kl


FORMS = {"sparse": sparse, "edge list": edge_list, "dense": dense}


def sizes_of(form: str) -> tuple[int, ...]:
    return tuple(k for k in SIZES if form != "dense" or k <= DENSE_MOST)


def forms_row() -> list[Result | Skipped]:
    """Times of the three forms at each size, and the exponents of their growth."""
    found, results = {}, []
    for latents in SIZES:
        graph, leaves = neighbour_graph(latents), codes(FEW, latents)
        forms = [form for form in FORMS if latents in sizes_of(form)]
        losses = {form: backward(FORMS[form](graph), leaves) for form in forms}
        found[latents] = alternate(losses, rounds=5)
        name = f"graph KL, {NEIGHBOURS} neighbours, K = {latents}, B = {FEW}, faster than"
        for other in forms[1:]:
            results.append(speedup(f"{name} its {other} form", found[latents], "sparse", other))
    results += [_time_exponent(form, found) for form in FORMS]
    return results + _memory_rows() + [_csr_row()]


def _time_exponent(form: str, found: Mapping[int, Times]) -> Result:
    times = {k: found[k].milliseconds(form) for k in sizes_of(form)}
    claim = f"graph KL, {NEIGHBOURS} neighbours, {form} form: time grows as K to the power of"
    words = ", ".join(f"{ms:.3g} ms at {k}" for k, ms in times.items() if ms < 1000)
    words += "".join(f", {ms / 1e3:.3g} s at {k}" for k, ms in times.items() if ms >= 1000)
    return Result(claim=claim, value=exponent(times), times=words)


def exponent(values: Mapping[int, float]) -> float:
    """The slope of the line of least squares through the logarithms."""
    x, y = [math.log(k) for k in values], [math.log(v) for v in values.values()]
    return statistics.linear_regression(x, y).slope


def _memory_rows() -> list[Result | Skipped]:
    """Bytes that a KL with its gradients adds, matrices included, in a process of its own."""
    results = []
    for form in FORMS:
        claim = f"graph KL, {NEIGHBOURS} neighbours, {form} form: memory grows as K to the power of"
        found = {latents: _added(form, latents) for latents in sizes_of(form)}
        if not all(found.values()):
            results.append(Skipped(claim, "this system does not report a peak of resident memory"))
            continue
        words = ", ".join(f"{size / 2**20:.0f} MB at {k}" for k, size in found.items())
        results.append(Result(claim=claim, value=exponent(found), times=words))
    return results


def _added(form: str, latents: int) -> float:
    script = Path(__file__).with_name("graph_memory.py")
    command = [sys.executable, str(script), form, str(latents)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout) if done.stdout.strip() else 0.0


def _csr_row() -> Result:
    graph, leaves = neighbour_graph(), codes(ROWS, LATENTS)
    losses = {"graph": sparse(graph), "CSR and autograd": autograd_csr(graph)}
    times = alternate({n: backward(loss, leaves) for n, loss in losses.items()}, rounds=5)
    claim = f"graph KL, K = {LATENTS}, {NEIGHBOURS} neighbours, B = {ROWS}, faster than CSR with "
    return speedup(claim + "autograd", times, "graph", "CSR and autograd", at_least=3)
