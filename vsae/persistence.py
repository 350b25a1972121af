"""A pair on disk: ``cfg.json`` and ``sae_weights.safetensors``, checked when read back."""

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from priors.replicas import num_replicas
from vsae.autoencoder import Autoencoder
from vsae.config import build, describe, references
from vsae.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointWriteError,
)

CONFIG, WEIGHTS, FORMAT = "cfg.json", "sae_weights.safetensors", 1
SETTINGS = ("dtype", "frozen", "vsae")


def save(autoencoder: Autoencoder, folder: str | os.PathLike) -> Path:
    """Write a pair to a new folder: settings as JSON, tensors as safetensors, no pickle.

    The folder appears complete or not at all: files are written beside it, flushed to disk, and
    moved into place by one rename.

    Args:
        autoencoder: The pair; replicas are saved one by one (:func:`priors.replicas.unstack`).
        folder: A path that does not exist yet, or an empty folder.

    Raises:
        CheckpointError: ``checkpoint.exists`` if the folder is not empty, ``checkpoint.stacked``
            for a stack, ``config.unregistered`` for a class that is not in ``vsae.config``.
        CheckpointWriteError: ``checkpoint.write`` if the disk is full, or the folder not ours.
        DTypeError: ``model.dtype`` for 16-bit parameters.

    Example:
        >>> import tempfile
        >>> from vsae.examples import tiny
        >>> model, guide, x = tiny()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.equal(load(save(Autoencoder(model, guide), folder + "/sae"))(x),
        ...                 Autoencoder(model, guide)(x))
        True
    """
    return write_folder(refuse_occupied(folder), files(autoencoder))


def files(autoencoder: Autoencoder) -> dict[str, bytes]:
    """What :func:`save` writes, by file name."""
    if replicas := num_replicas(autoencoder):
        raise CheckpointError(
            f"a stack of {replicas} replicas: expected one model. Save each of unstack(…).",
            code="checkpoint.stacked",
        )
    autoencoder.check_dtype()
    tensors: dict[str, Tensor] = {}
    spec = describe(autoencoder, tensors)
    tensors |= _state(autoencoder)
    weights = safetensors.torch.save({n: t.contiguous().cpu() for n, t in tensors.items()})
    settings = {
        "dtype": str(autoencoder.W_dec.dtype).removeprefix("torch."),
        "frozen": [n for n, p in autoencoder.named_parameters() if not p.requires_grad],
        "vsae": spec,
    }
    config = {
        "format": FORMAT,
        "d_in": autoencoder.W_dec.shape[1],
        "d_sae": autoencoder.W_dec.shape[0],
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
        "settings": {"sha256": _digest(settings)},
        **settings,
    }
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    return {CONFIG: text.encode(), WEIGHTS: weights}


def load(folder: str | os.PathLike) -> Autoencoder:
    """Read back what :func:`save` wrote, on the CPU; sizes and checksums are verified.

    Loading runs no code from the file: class names are looked up in ``vsae.config``'s table. The
    global random state stays as it was.

    Raises:
        CheckpointCorruptError: ``checkpoint.missing``, ``checkpoint.truncated``,
            ``checkpoint.checksum``, ``checkpoint.json``, ``checkpoint.tensors``.
        CheckpointMismatchError: ``checkpoint.format``, ``checkpoint.settings``,
            ``checkpoint.keys``.
    """
    folder = Path(folder)
    config, weights = _read_config(folder), _read(folder / WEIGHTS)
    declared = config["weights"]
    if len(weights) != declared["bytes"]:
        raise CheckpointCorruptError(
            f"{folder / WEIGHTS} is {len(weights)} bytes, {CONFIG} says {declared['bytes']}.",
            code="checkpoint.truncated",
        )
    if hashlib.sha256(weights).hexdigest() != declared["sha256"]:
        raise CheckpointCorruptError(
            f"{folder / WEIGHTS} does not match the checksum in {CONFIG}.",
            code="checkpoint.checksum",
        )
    try:
        tensors = safetensors.torch.load(weights)
    except SafetensorError as error:
        raise CheckpointCorruptError(
            f"{folder / WEIGHTS} is not a safetensors file: {error}.", code="checkpoint.tensors"
        ) from error
    autoencoder = _fill(_build(config, tensors), tensors, references(config["vsae"]))
    for name, parameter in autoencoder.named_parameters():
        parameter.requires_grad_(name not in config["frozen"])
    return autoencoder


def _build(config: dict, tensors: dict[str, Tensor]) -> Autoencoder:
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            built = build(config["vsae"], tensors)
    except CheckpointError:
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise CheckpointMismatchError(
            f"the settings in {CONFIG} describe no model: {error}.", code="checkpoint.settings"
        ) from error
    if not isinstance(built, Autoencoder):
        raise CheckpointMismatchError(
            f"the settings in {CONFIG} describe a {type(built).__name__}: expected an Autoencoder.",
            code="checkpoint.settings",
        )
    return built.to(getattr(torch, config["dtype"]))


def _digest(settings: dict) -> str:
    canonical = json.dumps({k: settings[k] for k in SETTINGS}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def refuse_occupied(folder: str | os.PathLike) -> Path:
    """``folder`` as a path, or a ``CheckpointError`` (``checkpoint.exists``) if it is not empty."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(
            f"{folder} is not empty: nothing was written. Choose another folder.",
            code="checkpoint.exists",
        )
    return folder


def _state(autoencoder: Autoencoder) -> dict[str, Tensor]:
    """The state without the second names of shared tensors, which safetensors refuses."""
    first = {id(tensor): name for name, tensor in _named(autoencoder, reverse=True)}
    return {n: t.detach() for n, t in _named(autoencoder) if first[id(t)] == n}


def _named(autoencoder: Autoencoder, *, reverse: bool = False) -> list[tuple[str, Tensor]]:
    items = list(autoencoder.state_dict(keep_vars=True).items())
    return items[::-1] if reverse else items


def _fill(autoencoder: Autoencoder, tensors: dict[str, Tensor], used: set[str]) -> Autoencoder:
    own = _state(autoencoder)
    wrong = sorted(n for n in own if n in tensors and own[n].shape != tensors[n].shape)
    missing, unknown = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own) - used)
    if wrong or missing or unknown:
        raise CheckpointMismatchError(
            f"tensors do not fit the settings: missing {missing}, unknown {unknown}, of another "
            f"shape {wrong}.",
            code="checkpoint.keys",
        )
    first = {id(tensor): name for name, tensor in _named(autoencoder, reverse=True)}
    names = {name: first[id(tensor)] for name, tensor in _named(autoencoder)}
    autoencoder.load_state_dict({name: tensors[first_name] for name, first_name in names.items()})
    return autoencoder


def write_folder(folder: Path, contents: dict[str, bytes]) -> Path:
    """Write files to a new folder that appears complete or not at all."""
    folder = folder.resolve()
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        staging.mkdir(parents=True)
        for name, content in contents.items():
            with open(staging / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _flush(staging)
        staging.rename(folder)  # onto nothing, or onto an empty folder
        _flush(folder.parent)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise CheckpointWriteError(
            f"{folder} cannot be written: {error.strerror}. Nothing was left behind.",
            code="checkpoint.write",
            context={"errno": error.errno},
        ) from error
    return folder


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointCorruptError(
            f"{path} is missing: a saved folder holds {CONFIG} and {WEIGHTS}.",
            code="checkpoint.missing",
        )
    return path.read_bytes()


def _read_config(folder: Path) -> dict:
    text = _read(folder / CONFIG)
    try:
        config = json.loads(text)
        form, digest = config["format"], config["settings"]["sha256"]
        complete = {"bytes", "sha256"} <= set(config["weights"]) and set(SETTINGS) <= set(config)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointCorruptError(
            f"{folder / CONFIG} is not a settings file: {error!r}.", code="checkpoint.json"
        ) from error
    if form != FORMAT or not complete or config["dtype"] not in ("float32", "float64"):
        raise CheckpointMismatchError(
            f"{folder / CONFIG}: got format {form!r}, expected {FORMAT}, of float32 or float64.",
            code="checkpoint.format",
        )
    if _digest(config) != digest:
        raise CheckpointCorruptError(
            f"{folder / CONFIG} does not match its own checksum: it was edited or damaged.",
            code="checkpoint.checksum",
        )
    return config
