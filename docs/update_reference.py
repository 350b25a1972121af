"""Write docs/reference.md from the source's signatures and docstrings; ``--check`` only compares.

python docs/update_reference.py
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
MODULES = (
    "priors",
    "priors.penalties",
    "priors.replicas",
    "priors.errors",
    "vsae",
    "vsae.metrics",
    "vsae.plots",
    "vsae.config",
    "vsae.noise",
    "vsae.errors",
    "toys.toy",
    "toys.gaussian_cases",
    "toys.copula",
    "toys.correlation",
    "toys.directions",
    "toys.magnitudes",
    "toys.notebook_cases",
    "toys.tms",
    "toys.tetrachoric",
    "toys.stories",
    "toys.losses",
    "toys.network",
    "toys.tokenizer",
    "toys.forest",
    "toys.tree_law",
    "toys.tree_geometry",
    "toys.tree_cases",
    "toys.absorption",
    "toys.hedging",
    "toys.words",
    "toys.layer_streams",
    "toys.layer_losses",
    "toys.causal_probe",
    "toys.sentences",
    "toys.word_vectors",
    "toys.label_graphs",
    "toys.modadd_layers",
    "toys.layered",
    "toys.spans",
    "toys.turning",
)
PACKAGES = {"priors", "vsae", "vsae.metrics", "vsae.plots"}  # names that come from their modules
HEAD = """\
# Names

Every public name with its signature and first line; `help(name)` has the formula, shapes, errors,
an example and the source. Written by `python docs/update_reference.py`; a test compares.
"""


def names(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Public classes and functions; of a plain module those defined there."""
    for name in sorted(dir(module), key=str.lower):
        value = getattr(module, name)
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if module.__name__ in PACKAGES or value.__module__ == module.__name__:
            yield name, value


def signature(value: object) -> str:
    """Parameters and defaults, without annotations; nothing for errors and warnings."""
    if inspect.isclass(value) and issubclass(value, Exception):
        return ""
    found = inspect.signature(value)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    short = inspect.Signature(plain)
    return re.sub(r"<[^>]*>", "…", str(short))


def summary(value: object) -> str:
    """The docstring's first line, Sphinx's marks turned into Markdown's."""
    line = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
    line = re.sub(r":math:`([^`]*)`", r"$\1$", line)
    line = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", line)
    return line.replace("``", "`")


def methods(cls: type) -> list[str]:
    """Public methods and properties written in the class or in its bases of these packages."""
    bases = [c for c in cls.__mro__ if c.__module__.split(".")[0] in {"priors", "vsae", "toys"}]
    kinds = property, classmethod, staticmethod, type(lambda: 0), type(HERE.exists)
    found = {n for c in bases for n, v in vars(c).items() if isinstance(v, kinds)}
    found |= {n for c in bases for n, v in vars(c).items() if type(v).__name__ == "cached_property"}
    return sorted(n for n in found if not n.startswith("_") and n != "extra_repr")


def lines() -> Iterator[str]:
    """The page."""
    yield HEAD
    for path in MODULES:
        module = importlib.import_module(path)
        yield f"## {path}\n"
        yield summary(module) + "\n"
        for name, value in names(module):
            yield f"- `{name}{signature(value)}`: {summary(value)}"
            if inspect.isclass(value) and not issubclass(value, Exception) and methods(value):
                yield "  " + ", ".join(f"`.{m}`" for m in methods(value))
        yield ""


def main(argv: list[str]) -> int:
    """Write the page, or with ``--check`` say whether it is what would be written."""
    page = "\n".join(lines()).rstrip() + "\n"
    target = HERE / "reference.md"
    if "--check" in argv:
        same = target.is_file() and target.read_text(encoding="utf-8") == page
        if not same:
            print("docs/reference.md is stale: run python docs/update_reference.py")
        return 0 if same else 1
    target.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
