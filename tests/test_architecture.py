"""The house rules, read off the source: who imports whom, sizes, docstrings, names, safety."""

import ast
import importlib
import pathlib
import statistics
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(p for part in ("priors", "vsae", "toys") for p in (ROOT / part).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
MAY_IMPORT = {"priors": {"priors"}, "vsae": {"priors", "vsae"}, "toys": {"priors", "vsae", "toys"}}
GUIDES = ("vsae.guides", "vsae.posteriors", "vsae.encoders")


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def functions(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node, (body[-1].end_lineno - body[0].lineno + 1 if body else 0)


def observes(tree):
    """Whether a module is a model: it conditions a sample site on data."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(
        ast.unparse(call.func) == "pyro.sample" and any(k.arg == "obs" for k in call.keywords)
        for call in calls
    )


def test_imports_only_go_down():
    for path, tree in TREES.items():
        part = path.relative_to(ROOT).parts[0]
        for name in imports(tree):
            if (top := name.split(".")[0]) in MAY_IMPORT:
                assert top in MAY_IMPORT[part], f"{path} imports {name}"


def test_models_and_guides_meet_at_site_names_only():
    models = {module_of(path) for path, tree in TREES.items() if observes(tree)}
    assert {"vsae.models.sae", "vsae.models.support"} <= models
    for path, tree in TREES.items():
        used = set(imports(tree))
        if module_of(path) in models:
            assert not any(name.startswith(GUIDES) for name in used), path
        if module_of(path).startswith(GUIDES):
            assert not any(name.startswith("vsae.models") for name in used), path


def test_sizes():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert statistics.median(lines.values()) <= 120
    assert max(lines.values()) <= 300, max(lines, key=lines.get)
    sizes = sorted(size for tree in TREES.values() for _, size in functions(tree))
    assert max(sizes) <= 40, [
        f"{path.name}:{node.name}"
        for path, tree in TREES.items()
        for node, size in functions(tree)
        if size > 40
    ]
    assert sizes[int(0.9 * len(sizes))] <= 15


@pytest.mark.parametrize("package", ["priors", "vsae", "vsae.metrics", "toys"])
def test_every_public_name_is_documented(package):
    module = importlib.import_module(package)
    for name in dir(module):
        value = getattr(module, name)
        if not name.startswith("_") and callable(value) and hasattr(value, "__module__"):
            assert value.__doc__, f"{package}.{name}"


def test_public_names_are_not_hidden_by_submodules():
    """``vsae.fit`` the function would vanish behind ``vsae/fit.py`` the module."""
    import vsae

    submodules = {p.stem for p in (ROOT / "vsae").iterdir()}
    assert submodules & set(vsae.__all__) <= {"metrics"}
    assert all(hasattr(vsae, name) for name in vsae.__all__)


BANNED = {"pickle", "joblib", "shelve", "marshal", "yaml"}
BANNED_CALLS = {"eval", "exec", "torch.load", "torch.save", "pyro.clear_param_store"}


def test_nothing_runs_code_from_files():
    for path, tree in TREES.items():
        assert not set(imports(tree)) & BANNED, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in BANNED_CALLS, f"{path}:{node.lineno}"
                for keyword in node.keywords:
                    pickled = keyword.arg == "allow_pickle"
                    assert not (pickled and keyword.value.value), f"{path}:{node.lineno}"


def test_no_function_passes_keywords_through():
    """Pyro's ELBO interface hands the program its own arguments; nothing else does."""
    for path, tree in TREES.items():
        for node, _ in functions(tree):
            passed = (
                keyword.value.id
                for call in ast.walk(node)
                if isinstance(call, ast.Call)
                for keyword in call.keywords
                if keyword.arg is None and isinstance(keyword.value, ast.Name)
            )
            through = node.args.kwarg is not None and node.args.kwarg.arg in passed
            assert not through or module_of(path) == "vsae.elbo", f"{path}:{node.name}"


def test_importing_changes_nothing():
    """Random state, default dtype, parameter store, validation, threads, warnings, backend."""
    program = """
import sys, warnings, torch, pyro, random, numpy
import jaxtyping, networkx, safetensors.torch, scipy.optimize, scipy.sparse.linalg
import scipy.special, tqdm.auto, matplotlib.figure  # what others do at import is not ours
def state():
    return (torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state()),
            torch.get_default_dtype(), list(pyro.get_param_store()), pyro.settings.get(),
            torch.get_num_threads(), list(warnings.filters), "matplotlib.pyplot" in sys.modules)
before = state()
import priors, vsae, vsae.config, vsae.plots, toys
[getattr(vsae, name) for name in vsae.__all__]
sys.exit([i for i, (a, b) in enumerate(zip(before, state())) if a != b] or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_error_code_has_one_place():
    """A code is raised for one kind of fault: the same class wherever it appears."""
    classes: dict[str, set[str]] = {}
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                        classes.setdefault(keyword.value.value, set()).add(name)
    assert len(classes) > 40
    assert all(code.count(".") == 1 for code in classes)
    assert not {code: names for code, names in classes.items() if len(names) > 1}
