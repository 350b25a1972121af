"""Print what the steps of one autoencoder add to a process, and its peak, in bytes.

``python peak.py NAME``, a peer's or one of ``OURS``: three steps, of which the first makes the
optimiser's state.
"""

import contextlib
import sys

import torch
from hierarchical_rows import hsae
from memory import RESET, STATUS, resident
from peers import PEERS
from sparse_rows import LATENTS, ROWS, K, activations, topk
from step_rows import fitted

OURS = {
    "fit": lambda data: fitted(topk(), data, ROWS),
    "hsae-2048": lambda data: fitted(hsae(2048), data, ROWS),
    "hsae-4096": lambda data: fitted(hsae(4096), data, ROWS),
}


def peer(name: str, data: torch.Tensor):
    return PEERS[name](data, LATENTS, K, batch=ROWS).step


def main(name: str) -> None:
    if not STATUS.exists() or not RESET.exists():
        return
    torch.set_num_threads(1)
    data = activations()[: 2 * ROWS].clone()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            step = OURS[name](data) if name in OURS else peer(name, data)
        except ImportError:
            return
        before = resident("VmRSS")
        RESET.write_text("5")  # the peak starts from here, not with the making of data
        for _ in range(3):
            step()
    print(resident("VmHWM") - before, resident("VmHWM"))


if __name__ == "__main__":
    main(sys.argv[1])
