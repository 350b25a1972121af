"""Training steps on codes in slots: beside the field's own trainers, a raw loop, and each other."""

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from contest import Step, Times, alternate
from peers import PEERS, enter
from raw_topk import RawTopK
from results import Result, Skipped, slowdown
from step_rows import fitted

from priors import Graph, GraphLaplacianPrior, Omitted
from vsae import (
    Autoencoder,
    ClosedFormELBO,
    ScreenedEncoder,
    batch_topk_autoencoder,
    jumprelu_autoencoder,
    matryoshka_autoencoder,
    switch_autoencoder,
    topk_autoencoder,
    with_auxk,
)
from vsae.errors import ConfigError
from vsae.hardware import faster_matmul
from vsae.select import in_chunks

LATENTS, WIDTH, ROWS, K = 8192, 768, 2048, 32
DEAD, NEIGHBOURS, HUB = 400, 8, 168
TRAINED = 40  # steps after which the screen is judged: scores near the k-th are closer then
GROWTH = (2048, 4096, 8192, 16384, 32768, 65536)
SETTING = f"d = {WIDTH}, B = {ROWS}, k = {K}"
STEP = f"TopK step through fit, K = {LATENTS}, {SETTING}"


def activations() -> torch.Tensor:
    """Superposed sparse features: what a dictionary is for, so that no step is degenerate."""
    atoms = torch.nn.functional.normalize(torch.randn(4096, WIDTH), dim=-1)
    codes = torch.rand(4 * ROWS, len(atoms)) * (torch.rand(4 * ROWS, len(atoms)) < 0.01)
    return codes @ atoms


def topk(latents: int = LATENTS) -> Autoencoder:
    return topk_autoencoder(WIDTH, latents, k=K)


def screened() -> Autoencoder:
    return topk_autoencoder(WIDTH, LATENTS, k=K, encoder=ScreenedEncoder)


def product_alone(data: torch.Tensor, latents: int = LATENTS) -> Step:
    """The encoder's product, in the chunks of a step, of which nothing is selected."""
    weight, bias, x = torch.randn(latents, WIDTH), torch.zeros(latents), data[:ROWS]
    return lambda: in_chunks(x, weight, bias, 1, lambda scores, k: (scores[:, :k],) * 2)


def screen_alone(data: torch.Tensor) -> Step:
    """Selecting through the screen, after some training, without anything else of a step."""
    pair = screened()
    warm = fitted(pair, data, ROWS)
    for _ in range(TRAINED):
        warm()
    encoder, x = pair.guide.posterior.encoder, data[:ROWS]

    def call() -> object:
        with torch.no_grad():
            return encoder.select(x, K)

    return call


def has_faster_matmul() -> str | None:
    """Why there is no faster product here; ``None`` if there is."""
    try:
        faster_matmul().close()
    except ConfigError as error:
        return str(error)
    return None


def field_row() -> list[Result | Skipped]:
    """Everyone under torch's default product; then everyone under the faster one."""
    data = activations()
    peers = enter(data, LATENTS, K, batch=ROWS)
    steps = {
        "fit": fitted(topk(), data, ROWS),
        "fit, screened": fitted(screened(), data, ROWS),
        "raw loop": RawTopK(data, LATENTS, K, batch=ROWS).step,
        "product": product_alone(data),
        "screened selection": screen_alone(data),
        **peers.steps,
    }
    default = "default product for all"
    results = _against(peers, alternate(steps, rounds=7), default, ownlib=1.15)
    if why := has_faster_matmul():
        return [*results, Skipped(f"{STEP}, faster product", why)]
    with faster_matmul():
        times = alternate(steps, rounds=7)
    return results + _against(peers, times, "faster product for all", ownlib=None)


def _against(peers, times: Times, setting: str, *, ownlib: float | None) -> list[Result | Skipped]:
    claim = f"{STEP}, {setting}"
    names = ["SAELens", "dictionary_learning", "sparsify", "sparsify, Adam"]
    bars = [None, None, ownlib, None]
    share = slowdown(f"{claim}: share of it that is the encoder's product", times, "product", "fit")
    return [
        *(
            peers.beaten(claim, times, "fit", name, at_least=bar)
            for name, bar in zip(names, bars, strict=True)
        ),
        *(
            peers.beaten(f"{claim}, screened", times, "fit, screened", name, at_least=bar)
            for name, bar in zip(names, (8, 8, 2, 2), strict=True)
        ),
        dataclasses.replace(share, at_least=0.6),
        slowdown(f"{claim} : its kernels in a raw loop", times, "fit", "raw loop", at_most=1.05),
        slowdown(
            f"screened exact top-{K} of {LATENTS}, d = {WIDTH}, B = {ROWS}, after {TRAINED} steps, "
            f"{setting} : the float32 product alone",
            times,
            "screened selection",
            "product",
            at_most=1,
        ),
    ]


def validation_row() -> list[Result]:
    """Argument checks on in both programs, as under SVI; fit itself has them off."""
    data = activations()
    raw, run = RawTopK(data, LATENTS, K, batch=ROWS), fitted(topk(), data, ROWS)
    checked = _checked(topk(), data)
    times = alternate({"fit": run, "checked": checked, "raw loop": raw.step}, rounds=9)
    claim = f"{STEP} with Pyro's validation on : the same kernels in a raw loop"
    return [slowdown(claim, times, "checked", "raw loop", at_most=1.10)]


def _checked(pair: Autoencoder, data: torch.Tensor) -> Step:
    objective = ClosedFormELBO()(pair.train().model, pair.guide)
    optimizer = torch.optim.Adam(pair.parameters(), lr=1e-3, fused=True)
    turn = itertools.count()

    def step() -> None:
        begin = next(turn) % 4 * ROWS
        with pyro.validation_enabled(True):
            loss = objective(data[begin : begin + ROWS]) / ROWS
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        pair.model.decoder.project_gradient()
        optimizer.step()
        pair.model.decoder.project()

    return step


def guide_row() -> list[Result]:
    """The other ways of selecting, AuxK and a graph, against TopK."""
    data = activations()
    pairs: dict[str, Callable[[], Autoencoder]] = {
        "TopK": topk,
        "BatchTopK": lambda: batch_topk_autoencoder(WIDTH, LATENTS, k=K, width=2 * K),
        "JumpReLU": _jumprelu,
        "AuxK": _with_dead,
        "graph": _with_graph,
        "Switch": lambda: switch_autoencoder(WIDTH, LATENTS, k=K),
        "Matryoshka": lambda: matryoshka_autoencoder(WIDTH, LATENTS, k=K, width=2 * K),
    }
    steps = {name: fitted(build(), data, ROWS) for name, build in pairs.items()}
    times = alternate(steps, rounds=9)
    claims = {
        "BatchTopK": (f"BatchTopK step, {2 * K} slots", 1.2),
        "JumpReLU": (f"JumpReLU step, {2 * K} slots, about {K} active", 1.5),
        "AuxK": (f"TopK step with AuxK and {DEAD} dead latents", 1.3),
        "graph": (f"TopK step under a graph prior, {NEIGHBOURS} neighbours, a hub of {HUB}", 1.2),
        "Switch": ("Switch step, 16 experts", None),
        "Matryoshka": (f"Matryoshka step, 5 prefixes, {2 * K} slots", None),
    }
    return [
        slowdown(f"{claim}, K = {LATENTS}, {SETTING} : TopK step", times, name, "TopK", at_most=bar)
        for name, (claim, bar) in claims.items()
    ]


def _jumprelu() -> Autoencoder:
    pair = jumprelu_autoencoder(WIDTH, LATENTS, l0=0.1, width=2 * K, threshold=0.1, bandwidth=0.1)
    values, _ = pair.guide.posterior.encoder.select(activations()[:ROWS], K)
    with torch.no_grad():  # thresholds at which about k latents are active
        pair.guide.posterior.log_threshold.fill_(values.amin(-1).median().log().item())
    return pair


def _with_dead() -> Autoencoder:
    pair = with_auxk(topk(), after=2**40)
    pair.model.dead.silent_for[-DEAD:] = 2**40
    with torch.no_grad():
        pair.guide.posterior.encoder.b_enc[-DEAD:] = -1e3  # they stay dead while they are timed
    return pair


def _with_graph() -> Autoencoder:
    edges = torch.randint(LATENTS, (2, LATENTS * NEIGHBOURS // 2))
    edges = torch.cat([edges, torch.stack([torch.zeros(HUB), torch.arange(1, HUB + 1)]).long()], 1)
    edges = edges.sort(0).values.unique(dim=1)
    graph = Graph.from_edges(edges[:, edges[0] < edges[1]], num_nodes=LATENTS)
    prior = GraphLaplacianPrior(graph, logdet=Omitted())
    return topk_autoencoder(WIDTH, LATENTS, k=K, prior=prior)


def growth_row() -> list[Result]:
    """How a step grows with the dictionary, over its own product."""
    data, results = activations(), []
    for latents in GROWTH:
        steps = {"fit": fitted(topk(latents), data, ROWS), "product": product_alone(data, latents)}
        times = alternate(steps, rounds=3)
        claim = f"TopK step, K = {latents}, {SETTING} : its encoder's product alone"
        results.append(slowdown(claim, times, "fit", "product"))
        del steps
    return results


def peak_row() -> list[Result | Skipped]:
    """Memory a step adds to weights, data and imports, each trainer in a process of its own."""
    found = {name: _peak(name) for name in ("fit", *PEERS)}
    claim = f"{STEP}: peak memory of its steps over that of the leanest peer"
    peers = {name: added for name, added in found.items() if name != "fit" and added}
    if not (found["fit"] and peers):
        return [Skipped(claim, "no peer is installed, or the system reports no peak")]
    leanest = min(peers, key=peers.__getitem__)
    times = f"{found['fit'] / 2**20:.0f} MB fit : {peers[leanest] / 2**20:.0f} MB {leanest}"
    return [Result(claim=claim, value=found["fit"] / peers[leanest], at_most=1, times=times)]


def _peak(name: str) -> float:
    script = Path(__file__).with_name("peak.py")
    done = subprocess.run(
        [sys.executable, str(script), name], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0]) if done.stdout.strip() else 0.0
