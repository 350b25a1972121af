"""Two settings of the whole process that make a CPU faster: explicit, probed, never at import."""

import contextlib
import ctypes
import os
from typing import Any

import torch

from priors.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
INACCURATE = 1e-5  # float32 kernels are at 1e-6 or below, those that round to bfloat16 at 3e-3


def faster_matmul() -> contextlib.ExitStack:
    """Take oneDNN's float32 kernel for every product of matrices, if it is one on this CPU.

    Sets ``torch.backends.mkldnn.matmul.fp32_precision = "bf16"``, for the whole process, until the
    result is closed: ``with faster_matmul():`` undoes it at the end of the block, a plain call is
    for good. The setting *allows* bfloat16. A CPU without AMX does not take the offer and computes
    in float32 with oneDNN, on AMD faster than MKL by an amount that differs from processor to
    processor (``tests/benchmarks`` measures it); one with AMX would round its
    inputs. So a product is compared with float64 first.

    Returns:
        A context manager that restores the setting found.

    Raises:
        ConfigError: torch has no such setting, before 2.9 or without oneDNN
            (``hardware.unavailable``); the products are not of float32 accuracy, and the setting
            is as it was (``hardware.inaccurate``).

    Example:
        >>> with faster_matmul():  # doctest: +SKIP
        ...     fit(objective, activations)

    Source: https://docs.pytorch.org/docs/stable/notes/mkldnn.html
    """
    setting: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if not (hasattr(setting, "fp32_precision") and torch.backends.mkldnn.is_available()):
        raise ConfigError(
            f"no faster product of matrices here: got torch {torch.__version__}, expected 2.9 or "
            "later with oneDNN. Leave the setting out.",
            code="hardware.unavailable",
            context={"torch": str(torch.__version__)},
        )
    undo = contextlib.ExitStack()
    undo.callback(setattr, setting, "fp32_precision", setting.fp32_precision)
    setting.fp32_precision = "bf16"
    if not (error := matmul_error()) <= INACCURATE:
        undo.close()
        raise ConfigError(
            f"the faster product of matrices rounds its inputs: got a relative error of {error:.1e}"
            f", expected at most {INACCURATE}, as of float32. Leave the setting out on this CPU.",
            code="hardware.inaccurate",
            context={"error": error},
        )
    return undo


def matmul_error() -> float:
    """‖float32 - float64‖ / ‖float64‖ of one random product, under the present settings.

    Example:
        >>> matmul_error() < 1e-5
        True
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 768, generator=generator, dtype=torch.float64)
    weight = torch.randn(1024, 768, generator=generator, dtype=torch.float64)
    x, weight = x.float(), weight.float()
    exact = x.double() @ weight.double().mT
    return float((torch.nn.functional.linear(x, weight) - exact).norm() / exact.norm())


def tune_allocator() -> None:
    """Keep freed memory instead of handing it back to the system, for the whole process, for good.

    glibc returns every block above 32 MB when it is freed, so that each operation with such a
    result pays page faults again. The price is that memory once used is not given back.

    Raises:
        ConfigError: The C library is not glibc (``hardware.allocator``).

    Source: mallopt(3), ``M_MMAP_MAX`` and ``M_TRIM_THRESHOLD``.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    mallopt = getattr(library, "mallopt", None)
    if not (mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)):
        raise ConfigError(
            "the allocator cannot be told to keep memory: got a C library without these options of "
            "mallopt, expected glibc. Leave the setting out.",
            code="hardware.allocator",
        )
