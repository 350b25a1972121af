"""Print by how many times ``B·K`` numbers memory rises in one graph KL, forward and backward."""

from pathlib import Path

import torch
from kl_rows import LATENTS, ROWS, closed_form, codes, neighbour_graph

from priors import GraphLaplacianPrior
from priors.log_determinant import Omitted

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def main() -> None:
    if not STATUS.exists() or not RESET.exists():
        return
    torch.set_num_threads(1)
    prior = GraphLaplacianPrior(neighbour_graph(), logdet=Omitted())
    closed_form(prior, *codes(64, LATENTS)).backward()  # code and caches are loaded
    leaves = codes(ROWS, LATENTS)
    before = resident("VmRSS")
    RESET.write_text("5")  # the peak starts from here
    closed_form(prior, *leaves).backward()
    print((resident("VmHWM") - before) / (4 * ROWS * LATENTS))


if __name__ == "__main__":
    main()
