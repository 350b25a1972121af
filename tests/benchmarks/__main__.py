"""Every performance claim of the library, measured: ``python tests/benchmarks``."""

import argparse
import ctypes
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from kl_rows import block_row, dense_row, graph_row
from knn_rows import knn_row
from report import markdown
from results import Result
from step_rows import replica_row, sae_row, small_row

ROWS = {
    "graph": graph_row,
    "blocks": block_row,
    "dense": dense_row,
    "knn": knn_row,
    "sae": sae_row,
    "small": small_row,
    "replicas": replica_row,
}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def tune_allocator() -> None:
    """Keep freed memory instead of handing it back, as glibc does with any tensor over 32 MB."""
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)):
        sys.exit("--tune-allocator needs glibc")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--out", type=Path, help="write the table there, e.g. docs/benchmarks.md")
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    parser.add_argument(
        "--tune-allocator",
        action="store_true",
        help="glibc: keep freed memory, for every contestant",
    )
    return parser.parse_args()


def main() -> int:
    arguments = parsed()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if arguments.tune_allocator:
        tune_allocator()
    results = []
    for name in arguments.only or ROWS:
        begin = time.monotonic()
        torch.manual_seed(0)
        results += ROWS[name]()
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    table = markdown(results, tuned=arguments.tune_allocator)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(r) for r in results], ensure_ascii=False, indent=1))
    else:
        print(table)
    if arguments.out:
        arguments.out.write_text(table)
    return int(any(isinstance(r, Result) and r.met is False for r in results))


if __name__ == "__main__":
    sys.exit(main())
