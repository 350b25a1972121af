"""Building a graph of nearest neighbours, against the usual library for it."""

import importlib.util

import torch
from contest import alternate
from results import Result, Skipped, speedup

from priors import Graph

POINTS, WIDTH, NEIGHBOURS = 16384, 768, 16


def knn_row() -> list[Result | Skipped]:
    claim = f"kNN graph, {POINTS} × {WIDTH}, k = {NEIGHBOURS}, exact, faster than faiss flat"
    if importlib.util.find_spec("faiss") is None:
        return [Skipped(claim, "faiss-cpu is not installed")]
    import faiss

    faiss.omp_set_num_threads(1)
    points = torch.nn.functional.normalize(torch.randn(POINTS, WIDTH), dim=1)
    rows = points.numpy()

    def flat() -> None:
        index = faiss.IndexFlatIP(WIDTH)
        index.add(rows)
        index.search(rows, NEIGHBOURS + 1)

    times = alternate(
        {"Graph.knn": lambda: Graph.knn(points, NEIGHBOURS), "faiss": flat}, rounds=3, warmup=0
    )
    return [speedup(claim, times, "Graph.knn", "faiss", at_least=1)]
