"""Does a wrong sign, a lost ½ or a wrong log-determinant in any prior make a test fail?

Run ``python tests/mutations.py`` (some five minutes; not part of the test run). Each line of
``MUTATIONS`` changes one place in a temporary copy of the tree and runs the tests there until the
first failure. Exits with 1 if a mutant survives, or if the unchanged copy fails.
"""

# ruff: noqa: E501
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["tests/test_priors.py", "tests/test_kl.py", "tests/test_logdet.py"]
FAST = (
    "density or dense_matrix or draws_have or agrees_with_torch or laplace_kl or laplace_draws "
    "or grounding or lanczos or spectrum_gradient or rings or left_out"
)
MUTATIONS = [  # (what, file, old, new)
    ("every Gaussian: ½ of log det", "_gaussian.py", "return 0.5 * (logdet -", "return 1.0 * (logdet -"),
    ("every Gaussian: ½ of the form", "_gaussian.py", "- 0.5 * self.quadratic(value)", "- self.quadratic(value)"),
    ("every Gaussian: ½ of the KL", "_gaussian.py", "return 0.5 * (trace", "return 1.0 * (trace"),
    ("every Gaussian: trace of the KL", "_gaussian.py", "(trace + p.quadratic(loc)", "(-trace + p.quadratic(loc)"),
    ("every Gaussian: sign of the mean", "_gaussian.py", "return self.precision.quadratic(value - self.loc)", "return self.precision.quadratic(value + self.loc)"),
    ("every Gaussian: sign of K in the KL", "_gaussian.py", "- logdet - p.event_shape[0])", "- logdet + p.event_shape[0])"),
    ("full posterior: log det", "_gaussian.py", "half_logdet = factor.diagonal(dim1=-2, dim2=-1)", "half_logdet = 2 * factor.diagonal(dim1=-2, dim2=-1)"),
    ("low-rank posterior: ½", "_gaussian.py", "half_logdet + 0.5 * diag", "half_logdet + 1.0 * diag"),
    ("isotropic: log det sign", "isotropic.py", "return -2 * self.dim", "return 2 * self.dim"),
    ("isotropic: exponent of the draw", "isotropic.py", "self.log_scale.exp()", "(-self.log_scale).exp()"),
    ("equicorrelated: sign of ρ", "equicorrelated.py", "float(1 / (1 - rho))", "float(1 / (1 + rho))"),
    ("equicorrelated: log det", "equicorrelated.py", "+ self.between.log()", "- self.between.log()"),
    ("cholesky: log det sign", "cholesky.py", "return 2 * self.log_diagonal", "return -2 * self.log_diagonal"),
    ("cholesky: 2 of the log det", "cholesky.py", "return 2 * self.log_diagonal", "return self.log_diagonal"),
    ("cholesky: diagonal of the draw", "cholesky.py", "(-self.log_diagonal).exp()", "self.log_diagonal.exp()"),
    ("blocks: 2 of the log det", "block_diagonal.py", "return 2 * (total", "return 1 * (total"),
    ("blocks: diagonal of the draw", "block_diagonal.py", "(-self.log_diagonal).exp()", "self.log_diagonal.exp()"),
    ("blocks: sum of groups", "block_diagonal.py", "total = total + group", "total = total - group"),
    ("graph: sign of the ridge", "laplacian.py", "return self.ridge * square +", "return -self.ridge * square +"),
    ("graph: 2 of the gradient", "laplacian_forms.py", "grad = pull * (2 * g_smooth)", "grad = pull * (1 * g_smooth)"),
    ("graph: sign in the draw's edges", "laplacian_operator.py", "-graph.weights.sign()", "graph.weights.sign()"),
    ("graph: surplus in the log det", "component_lu.py", "gamma / scaling**2", "gamma * scaling**2"),
    ("graph: ground node", "component_lu.py", "surplus[ground] + adj", "surplus[ground] - adj"),
    ("graph: path elimination", "path_elimination.py", "a * b / pivot", "2 * a * b / pivot"),
    ("graph, learned: log det", "spectrum.py", "(gamma + lam *", "(gamma - lam *"),
    ("graph, Lanczos: null space", "lanczos.py", "self.nullity * ridge", "-self.nullity * ridge"),
    ("laplace: b of the density", "laplace.py", "scale = self.log_scale.exp()", "scale = (-self.log_scale).exp()"),
]  # fmt: skip


def _verdict(tree: Path) -> str:
    """The first test that fails in a copy of the project, or the empty string."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        *TESTS,
        "-x",
        "-q",
        "-k",
        FAST,
        "-p",
        "no:cacheprovider",
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=600
    )
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    if run.returncode == 0:
        return ""
    return failed.group(1) if failed else run.stdout[-400:] + run.stderr[-400:]


def _mutated(tree: Path, name: str, old: str, new: str) -> str:
    file = tree / "priors" / name
    original = file.read_text()
    if original.count(old) != 1:
        return f"not applicable: {original.count(old)} places read {old!r}"
    file.write_text(original.replace(old, new))
    found = _verdict(tree)
    file.write_text(original)
    return found or "SURVIVED"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        tree, bad = Path(folder), 0
        for part in ("priors", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        conftest = tree / "tests" / "conftest.py"  # a gross mistake needs few examples
        conftest.write_text(conftest.read_text().replace("max_examples=500", "max_examples=25"))
        if unchanged := _verdict(tree):
            print(f"the unchanged copy fails: {unchanged}")
            return 1
        print(f"{'mutation':40}  killed by", flush=True)
        for what, name, old, new in MUTATIONS:
            found = _mutated(tree, name, old, new)
            bad += found.startswith(("SURVIVED", "not applicable"))
            print(f"{what:40}  {found}", flush=True)
        print(f"{len(MUTATIONS) - bad} of {len(MUTATIONS)} mutations made a test fail")
        return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
