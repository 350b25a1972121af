"""Every performance claim of the library, measured: ``python tests/benchmarks``."""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from crosscoder_rows import crosscoder_row
from hierarchical_rows import features_row, hierarchy_row, terms_row, tree_peak_row
from iterative_rows import distilled_row, iteration_row
from kl_rows import block_row, dense_row, graph_row
from knn_rows import knn_row
from report import markdown
from results import Result
from sparse_rows import field_row, growth_row, guide_row, peak_row, validation_row
from step_rows import replica_row, sae_row, small_row

from vsae.hardware import tune_allocator

ROWS = {
    "graph": graph_row,
    "blocks": block_row,
    "dense": dense_row,
    "knn": knn_row,
    "sae": sae_row,
    "small": small_row,
    "replicas": replica_row,
    "field": field_row,
    "validation": validation_row,
    "guides": guide_row,
    "growth": growth_row,
    "peak": peak_row,
    "hierarchy": hierarchy_row,
    "features": features_row,
    "terms": terms_row,
    "tree-peak": tree_peak_row,
    "iteration": iteration_row,
    "distilled": distilled_row,
    "crosscoder": crosscoder_row,
}


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
