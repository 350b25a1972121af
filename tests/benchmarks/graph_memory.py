"""Print the bytes that one form of the graph KL adds: ``python graph_memory.py FORM LATENTS``."""

import sys

import torch
from graph_rows import FEW, FORMS
from kl_rows import codes, neighbour_graph
from memory import RESET, STATUS, resident


def main(form: str, latents: int) -> None:
    if not STATUS.exists() or not RESET.exists():
        return
    torch.set_num_threads(1)
    FORMS[form](neighbour_graph(256))(*codes(FEW, 256)).backward()  # code and caches are loaded
    graph, leaves = neighbour_graph(latents), codes(FEW, latents)
    before = resident("VmRSS")
    RESET.write_text("5")  # the peak starts from here
    FORMS[form](graph)(*leaves).backward()
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
