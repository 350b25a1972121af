"""Training what the page shows, or reading it from a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from priors.tree import Tree
from toys.reproduce.hsae_contexts_settings import Settings
from toys.reproduce.processes import run_jobs
from toys.stories import StoriesData
from vsae.autoencoder import Autoencoder
from vsae.batches import stream
from vsae.errors import ConfigError
from vsae.hierarchical_decoder import HierarchicalDecoder
from vsae.normalizers import AffineNormalizer
from vsae.persistence import files, load, write_folder
from vsae.presets import topk_autoencoder
from vsae.presets.hierarchical import hierarchical_autoencoder
from vsae.schedules import LinearDecay
from vsae.training import fit

WEIGHTS, DRAWN = (1_000_000 * n for n in (12, 13))  # random streams
TREE, FLAT = "hsae", "topk"


@dataclass(frozen=True)
class Job:
    """A model to train.

    Args:
        arm: ``TREE`` or ``FLAT``.
        seed: Of weights and the order of rows.
    """

    arm: str
    seed: int


@dataclass(frozen=True, eq=False)
class Models:
    """What there is to read.

    Args:
        trees: H-SAEs, the one the page shows first.
        flat: A TopK SAE with as many latents and as many of them active per row; ``None`` beside an
            H-SAE of unknown training.
        folders: Where they are saved.
    """

    trees: tuple[Autoencoder, ...]
    flat: Autoencoder | None
    folders: tuple[Path, ...]


def stories(count: int) -> StoriesData:
    """The first so many that ship."""
    everything = StoriesData.load()
    texts = everything.texts[:count]
    return StoriesData.from_texts(texts, everything.model, everything.tokenizer)


def tree_of(pair: Autoencoder) -> Tree:
    """The tree of an H-SAE's latents, or a typed error if it is none or has no children."""
    decoder = pair.model.decoder
    if not isinstance(decoder, HierarchicalDecoder) or decoder.tree.depth < 2:
        raise ConfigError(
            f"contexts of parents and children need an H-SAE: got a {type(pair.model).__name__} "
            f"with a {type(decoder).__name__}, expected latents on a tree of two levels or more. "
            "Train one: vsae train stories260K --architecture hierarchical --out FOLDER.",
            code="contexts.model",
            context={"model": type(pair.model).__name__, "decoder": type(decoder).__name__},
        )
    return decoder.tree


def loaded(folder: Path) -> Models:
    """A saved H-SAE.

    Raises:
        CheckpointError: ``checkpoint.…``, see :func:`vsae.load`.
        ConfigError: ``contexts.model`` if it is not an H-SAE.
    """
    pair = load(folder)
    tree_of(pair)
    return Models((pair,), None, (folder,))


def trained(chosen: Settings, out: Path, threads: int) -> Models:
    """An H-SAE per seed, and the flat SAE of the first; each saved in a folder of its own."""
    jobs = [Job(TREE, seed) for seed in chosen.seeds]
    jobs.insert(1, Job(FLAT, chosen.seeds[0]))  # not last: it must not wait for a free process
    with tqdm(total=len(jobs), unit="model", desc="models", mininterval=0.5) as bar:
        rows = run_jobs(run, jobs, chosen, min(threads, len(jobs)), bar)
    folders = {
        job: write_folder(unused(out / f"{job.arm}-seed-{job.seed}"), row["files"])
        for job, row in zip(jobs, rows, strict=True)
    }
    pairs = {job: load(folder) for job, folder in folders.items()}
    trees = tuple(pair for job, pair in pairs.items() if job.arm == TREE)
    return Models(trees, pairs[jobs[1]], tuple(folders.values()))


def unused(folder: Path) -> Path:
    """``folder``, or the first of ``folder-2``, … that is not there: earlier runs keep theirs."""
    number, path = 1, folder
    while path.exists():
        number += 1
        path = folder.with_name(f"{folder.name}-{number}")
    return path


def run(job: Job, chosen: Settings) -> dict:
    """A trained model as the files of its folder."""
    x = stories(chosen.stories).activations(chosen.layer)
    pair = build(job, chosen, x)
    steps = chosen.steps
    fit(
        pair,
        x,
        steps=steps,
        batch_size=chosen.batch,
        lr=chosen.lr,
        lr_schedule=LinearDecay(start=steps * 4 // 5, end=steps),
        seed=job.seed,
    ).run(progress=False)
    return {"files": files(pair)}


def build(job: Job, chosen: Settings, x: Tensor) -> Autoencoder:
    """The untrained model; the flat one has as many latents, and as many active ones per row."""
    normalizer, d_model = AffineNormalizer.fit(x), x.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(job.seed, WEIGHTS).initial_seed())
        if job.arm == FLAT:
            latents = chosen.roots * (1 + chosen.children)
            return topk_autoencoder(d_model, latents, k=2 * chosen.k, normalizer=normalizer)
        return hierarchical_autoencoder(
            d_model,
            chosen.roots,
            k=chosen.k,
            branching=(chosen.children,),
            subspaces=(chosen.subspace,),
            orthogonality=chosen.orthogonality,
            normalizer=normalizer,
        )


def listed(folders: Sequence[Path]) -> list[str]:
    """As JSON has them."""
    return [str(folder) for folder in folders]
