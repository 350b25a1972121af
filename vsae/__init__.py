"""Sparse autoencoders as Pyro models and guides with structured priors.

Names are imported when first used, so that ``vsae --help`` need not wait for torch; which name
comes from which module is written once, in ``__init__.pyi``, for type checkers and for this file.
"""

import ast
import importlib
from pathlib import Path


def _public() -> dict[str, str]:
    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text())
    imports = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_PUBLIC = _public()
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vsae' has no attribute {name!r}")
    module = _PUBLIC[name]
    if module == "vsae":
        return importlib.import_module(f"vsae.{name}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return __all__
