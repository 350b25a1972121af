"""Print the peak of resident memory of a process that trains one TopK autoencoder, in bytes.

``python peak.py NAME``, a peer's or ``fit``: construction, data and three steps.
"""

import contextlib
import sys

import torch
from memory import STATUS, resident
from peers import PEERS
from sparse_rows import LATENTS, ROWS, K, activations, topk
from step_rows import fitted


def main(name: str) -> None:
    if not STATUS.exists():
        return
    torch.set_num_threads(1)
    data = activations()[: 2 * ROWS].clone()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            step = (
                fitted(topk(), data, ROWS)
                if name == "fit"
                else PEERS[name](data, LATENTS, K, batch=ROWS).step
            )
        except ImportError:
            return
        before = resident("VmRSS")
        for _ in range(3):
            step()
    print(resident("VmHWM") - before, resident("VmHWM"))


if __name__ == "__main__":
    main(sys.argv[1])
