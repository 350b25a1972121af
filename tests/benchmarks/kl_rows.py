"""What a structured prior costs beside an isotropic one: exact KL, forward and backward."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from contest import alternate
from results import Result, Skipped, slowdown, speedup
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from priors import BlockDiagonalPrior, CholeskyPrior, Graph, GraphLaplacianPrior
from priors.log_determinant import Omitted

LATENTS, ROWS, NEIGHBOURS, BLOCK = 16384, 2048, 16, 64
EDGE_ROWS = 1024  # of the edge list, which holds rows × edges numbers
DENSE = 2048


def neighbour_graph(latents: int = LATENTS) -> Graph:
    """Every node joined to 16 others, named at random: no locality for a cache to profit from."""
    generator = torch.Generator().manual_seed(0)
    name = torch.randperm(latents, generator=generator)
    step = 1 + torch.randperm(latents // 2 - 1, generator=generator)[: NEIGHBOURS // 2]
    node = torch.arange(latents)
    edges = torch.stack([node.repeat(len(step)), (node + step[:, None]).flatten() % latents])
    return Graph(name[edges], torch.rand(edges.shape[1], generator=generator) + 0.1, latents)


def codes(rows: int, latents: int) -> tuple[Tensor, Tensor]:
    """Leaves ``μ, log s²`` of a diagonal Gaussian posterior."""
    loc, log_variance = torch.randn(rows, latents), 0.3 * torch.randn(rows, latents)
    return loc.requires_grad_(), log_variance.requires_grad_()


def closed_form(prior: nn.Module, loc: Tensor, log_variance: Tensor) -> Tensor:
    q = Independent(Normal(loc, (0.5 * log_variance).exp(), validate_args=False), 1)
    return kl_divergence(q, prior()).sum()


def plain_isotropic(loc: Tensor, log_variance: Tensor) -> Tensor:
    return 0.5 * (loc.square() + log_variance.exp() - log_variance - 1).sum()


def edge_list(graph: Graph) -> Callable[[Tensor, Tensor], Tensor]:
    """``KL + const`` under ``I + L`` from the list of edges, a row of ``μᵀ`` per node."""
    (low, high), weights = graph.edges, graph.weights.float()
    diagonal = 1 + graph.degree.float()

    def kl(loc: Tensor, log_variance: Tensor) -> Tensor:
        by_node = loc.t()
        smooth = (weights[:, None] * (by_node[low] - by_node[high]).square()).sum()
        trace = (log_variance.exp() * diagonal).sum()
        return 0.5 * (loc.square().sum() + smooth + trace - log_variance.sum())

    return kl


def backward(loss: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> Callable[[], None]:
    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()

    return step


def graph_row() -> list[Result | Skipped]:
    graph = neighbour_graph()
    prior, leaves = GraphLaplacianPrior(graph, logdet=Omitted()), codes(ROWS, LATENTS)
    names = f"K = {LATENTS}, {NEIGHBOURS} neighbours"
    times = alternate(
        {
            "graph": backward(lambda *at: closed_form(prior, *at), leaves),
            "isotropic": backward(plain_isotropic, leaves),
        },
        rounds=9,
        warmup=2,
    )
    some = codes(EDGE_ROWS, LATENTS)
    few = alternate(
        {
            "graph": backward(lambda *at: closed_form(prior, *at), some),
            "edge list": backward(edge_list(graph), some),
        },
        rounds=2,
    )
    return [
        slowdown(
            f"graph KL, {names}, B = {ROWS} : isotropic KL written out in torch",
            times,
            "graph",
            "isotropic",
            at_most=2.2,
        ),
        memory_row(f"graph KL, {names}: extra peak memory, in numbers per B·K"),
        speedup(
            f"graph KL, {names}, B = {EDGE_ROWS}, faster than the list of edges",
            few,
            "graph",
            "edge list",
            at_least=15,
        ),
    ]


def memory_row(claim: str) -> Result | Skipped:
    """From a process of its own, whose allocator has nothing put by."""
    script = Path(__file__).with_name("memory.py")
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    )
    if not found.stdout.strip():
        return Skipped(claim, "this system does not report a peak of resident memory")
    return Result(claim=claim, value=float(found.stdout), at_most=5, times="gradients included")


def block_row() -> list[Result | Skipped]:
    leaves = codes(ROWS, LATENTS)
    prior = BlockDiagonalPrior([BLOCK] * (LATENTS // BLOCK))
    times = alternate(
        {
            "blocks": backward(lambda *at: closed_form(prior, *at), leaves),
            "isotropic": backward(plain_isotropic, leaves),
        },
        rounds=7,
        warmup=2,
    )
    claim = f"KL of learned blocks of {BLOCK}, K = {LATENTS}, B = {ROWS} : isotropic KL written out"
    return [slowdown(claim, times, "blocks", "isotropic", at_most=4)]


def dense_row() -> list[Result | Skipped]:
    prior, (loc, log_variance) = CholeskyPrior(DENSE), codes(ROWS, DENSE)
    prior.strict_lower.data.normal_(std=0.3 / DENSE**0.5)
    lower = (prior.strict_lower.detach().tril(-1) + torch.eye(DENSE)).requires_grad_()

    def sampled(at: Tensor, tril: Tensor) -> Tensor:
        return -MultivariateNormal(torch.zeros(DENSE), scale_tril=tril).log_prob(at).sum()

    def of_precision(at: Tensor, tril: Tensor) -> Tensor:
        factor = tril.tril()
        p = MultivariateNormal(torch.zeros(DENSE), precision_matrix=factor @ factor.mT)
        return -p.log_prob(at).sum()

    def ours(*at: Tensor) -> Tensor:
        return closed_form(prior, *at[:2])

    own = tuple(prior.parameters())
    times = alternate(
        {
            "CholeskyPrior": backward(ours, (loc, log_variance, *own)),
            "MultivariateNormal": backward(sampled, (loc, lower)),
            "of a precision": backward(of_precision, (loc, lower)),
        },
        rounds=5,
    )
    claim = f"learned dense precision, K = {DENSE}, B = {ROWS}: exact KL faster than one-draw "
    other = "MultivariateNormal.log_prob"
    mine = "CholeskyPrior"
    return [
        speedup(claim + f"{other}(scale_tril)", times, mine, "MultivariateNormal", at_least=2.5),
        speedup(claim + f"{other}(precision_matrix)", times, mine, "of a precision"),
    ]
