"""Jobs whose results stay in a folder, a file each: a run that was interrupted goes on."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from toys.reproduce import arguments
from toys.reproduce.processes import run_jobs

FORMAT = 2  # to be raised when what jobs compute or write changes


@dataclass(frozen=True, eq=False)
class Found:
    """What a job found.

    Args:
        row: What JSON can hold.
        tensors: What is too large for it, such as a dictionary.
    """

    row: dict
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Job(ABC):
    """One training and its measurements, a frozen dataclass whose fields decide everything.

    *The following method does it*.
    """

    @abstractmethod
    def compute(self) -> Found:
        """A pure function of the fields; with ``seconds``, what training took, in its row."""

    def described(self) -> dict:
        """The fields, as JSON reads them back, and the format of the files."""
        described = {"kind": type(self).__name__, "format": FORMAT} | asdict(self)
        return json.loads(arguments.dumps(described))

    @property
    def name(self) -> str:
        """The stem of its files: all that decides the result, hashed."""
        text = json.dumps(self.described(), sort_keys=True)
        return f"{type(self).__name__}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def stored(job: Job, folder: Path) -> dict | None:
    """The row that the folder has of a job."""
    path = folder / f"{job.name}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["job"] != job.described():
        return None
    return found["row"] | {"file": str(path), "cached": True}


def fetch(job: Job, folder: Path) -> dict:
    """The row of a job, computed unless the folder has it; ``cached`` says which, ``file`` where.

    The file of the row is written last and at once, so that half a result is never found.
    """
    known = stored(job, folder)
    if known is not None:
        return known
    path, found = folder / f"{job.name}.json", job.compute()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in found.tensors.items()}
    if tensors:
        save_file(tensors, path.with_suffix(".safetensors"))
    half = path.with_suffix(f".{os.getpid()}")
    arguments.write_json(half, {"job": job.described(), "row": found.row})
    half.replace(path)
    return found.row | {"file": str(path), "cached": False}


def fetch_all(jobs: Sequence[Job], folder: Path, threads: int, bar: tqdm) -> dict[Job, dict]:
    """The rows of all jobs; processes are started only for what is not there, equal jobs once."""
    found = {job: stored(job, folder) for job in dict.fromkeys(jobs)}
    missing = [job for job, row in found.items() if row is None]
    bar.update(len(found) - len(missing))
    rows = run_jobs(fetch, missing, folder, threads, bar) if missing else []
    return found | dict(zip(missing, rows, strict=True))


def tensors_of(row: Mapping) -> dict[str, Tensor]:
    """The tensors that a job left beside its row."""
    return load_file(Path(row["file"]).with_suffix(".safetensors"))
