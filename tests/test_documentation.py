"""The documentation is true: examples run, pages are found, names and codes are all there."""

import ast
import importlib
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

from priors import penalties, replicas

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READ = [ROOT / "README.md", *PAGES]
SOURCES = sorted(p for part in ("priors", "vsae", "toys") for p in (ROOT / part).rglob("*.py"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_python_blocks_are_doctests(page):
    """So that ``--doctest-glob=*.md`` runs all of them; a blank line ends the last output."""
    for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
        assert language in {"python", "console", "toml"}, f"a fence of {language!r}"
        if language == "python":
            assert body.startswith(">>> "), body
            assert body.endswith("\n\n"), f"no blank line before the closing fence:\n{body}"


def test_doctests_are_collected():
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "--doctest-glob=*.md" in settings
    assert '"README.md", "docs"' in settings


@pytest.mark.parametrize("page", READ, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "http://", "mailto:")):
            assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


def test_every_page_is_linked_from_the_index():
    index = DOCS / "index.md"
    linked = {(DOCS / t).resolve() for t in LINK.findall(index.read_text(encoding="utf-8"))}
    assert set(PAGES) - linked == {index}


def public(package):
    """Names of a package: what its ``__init__`` offers."""
    module = importlib.import_module(package)
    return {n for n in dir(module) if not n.startswith("_") and callable(getattr(module, n))}


@pytest.mark.parametrize("package", ["priors", "vsae", "vsae.metrics", "vsae.plots"])
def test_every_public_name_is_in_the_reference(package):
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    missing = [n for n in public(package) if not re.search(rf"^- `{n}[(`]", text, re.MULTILINE)]
    assert not missing


def test_functions_of_modules_are_in_the_reference():
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    for module in (penalties, replicas):
        for name, value in vars(module).items():
            if callable(value) and value.__module__ == module.__name__ and name[0] != "_":
                assert f"- `{name}(" in text


def test_the_reference_is_what_the_source_says():
    program = [sys.executable, str(DOCS / "update_reference.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def raised_codes():
    """Every ``code=`` of the source; where it is built from an argument, of each call."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES]
    constants, codes, built = {}, set(), []
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                constants[node.targets[0].id] = node.value.value
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            for word in (k for n in ast.walk(function) for k in getattr(n, "keywords", [])):
                if word.arg == "code" and isinstance(word.value, ast.Constant):
                    codes.add(word.value.value)
                elif word.arg == "code" and isinstance(word.value, ast.Name):
                    if word.value.id in constants:
                        codes.add(constants[word.value.id])
                elif word.arg == "code" and isinstance(word.value, ast.JoinedStr):
                    built.append((function, word.value))
    for function, text in built:
        prefix, hole = text.values
        place = [a.arg for a in function.args.args].index(hole.value.id)
        calls = [
            n
            for tree in trees
            for n in ast.walk(tree)
            if isinstance(n, ast.Call) and ast.unparse(n.func).split(".")[-1] == function.name
        ]
        assert calls
        codes |= {prefix.value + call.args[place].value for call in calls}
    return codes - {""}


def test_every_error_code_is_documented_and_no_other():
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(\w+\.\w+)` \|", text, re.MULTILINE)
    assert len(documented) == len(set(documented))
    found = raised_codes()
    assert {"graph.self_loop", "prior.bad_strength", "toy.infeasible_correlation"} <= found
    assert set(documented) == found
    assert documented == sorted(documented)


def test_error_classes_and_their_exit_status_are_documented():
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    errors = importlib.import_module("vsae.errors")
    status = {}
    for line in text.splitlines():
        if re.match(r"^\| `\w+(Error|Failed)`", line):
            cells = line.split("|")
            status |= {name: int(cells[3]) for name in re.findall(r"`(\w+)`", cells[1])}
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.VsaeError):
            if name != "VsaeError":
                assert status[name] == value.exit_status, name
        elif isinstance(value, type) and issubclass(value, Warning):
            assert f"`{name}`" in text


def test_every_command_and_option_is_documented():
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    commands = importlib.import_module("vsae.__main__").COMMANDS
    for name in commands:
        assert f"`vsae {name}" in text
    for action in importlib.import_module("vsae.commands.train").parser()._actions:
        for option in action.option_strings:
            if option.startswith("--"):
                assert f"`{option}`" in text, option
    from toys.reproduce.arguments import parser

    for action in parser("x", "")._actions:
        for option in action.option_strings:
            assert not option.startswith("--") or f"`{option}`" in text, option


def test_set_up_commands_are_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in (
        "python -m venv .venv && .venv/bin/pip install -e . && .venv/bin/vsae reproduce quickstart",
        'python -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/pytest',
    ):
        assert f"\n{line}\n" in text


def updater():
    spec = importlib.util.spec_from_file_location("update_results", DOCS / "update_results.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def a_run(folder):
    """A run folder as ``vsae reproduce part1`` leaves it."""
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "arms_gaussian.png").write_bytes(b"png")
    (folder / "figures" / "frontier_copula_K32.png").write_bytes(b"another report's")
    (folder / "part1.md").write_text(
        "# Part 1\n\nHow.\n\n## Verdicts\n\n- **fails**\n\n## Tables\n\n"
        "**MSE per neuron; dense Gaussian codes**\n\n"
        "| arm | case1 |\n|---|---|\n| iso | 0.125 |\n\n"
        "**MSE per neuron; dense codes**\n\n| arm | case1 |\n|---|---|\n| iso | 0.25 |\n"
    )
    run = {
        "settings": {"seeds": [0, 1], "steps": 7},
        "wall_seconds": 3.2,
        "versions": {"vsae": "0.1.0", "torch": "9.9"},
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_results_are_copied_between_the_markers(tmp_path):
    (tmp_path / "docs").mkdir()
    for page in (ROOT / "README.md", DOCS / "results.md"):
        (tmp_path / page.relative_to(ROOT)).write_text(page.read_text(encoding="utf-8"))
    run = a_run(tmp_path / "runs" / "part1")
    for _ in range(2):  # a second time changes nothing
        assert updater().main([str(run)], tmp_path) == 0
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    results = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    for text in (readme, results):
        inside = text.split("<!-- results:part1 -->")[1].split("<!-- /results:part1 -->")[0]
        assert inside.count("0.125") == 1
    assert "0.25 |" in results.split("<!-- results:part1 -->")[1]
    block = readme.split("<!-- results:part1 -->")[1].split("<!-- /results:part1 -->")[0]
    assert "0.25 |" not in block
    for text in (block, results):
        assert "`vsae reproduce part1` (2 seeds, 7 steps)" in text
        assert "vsae 0.1.0, torch 9.9" in text
        assert "**fails**" in text
    assert "](figures/part1/arms_gaussian.png)" in results
    assert "](docs/figures/part1/arms_gaussian.png)" in readme
    copied = (tmp_path / "docs" / "figures").rglob("*.png")
    assert [path.name for path in copied] == ["arms_gaussian.png"]


def test_a_part_is_not_taken_for_that_of_another_reproduction(tmp_path):
    module, folder = updater(), tmp_path / "run"
    (folder / "runs").mkdir(parents=True)
    (folder / "modadd.md").write_text("# A part\n\n## Findings\n\n- new\n")
    run = {"reproduction": "recovery", "wall_seconds": 1.0, "versions": {}}
    for path in (folder / "run.json", folder / "runs" / "modadd.json"):
        path.write_text(json.dumps(run))
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/results.md", "docs/recovery.md", "docs/crosscoder.md"):
        (tmp_path / page).write_text((ROOT / page).read_text(encoding="utf-8"))
    assert module.update(folder, tmp_path) == ["recovery-modadd"]


def test_a_folder_without_a_report_is_refused(tmp_path, capsys):
    assert updater().main([str(tmp_path)], tmp_path) == 2
    assert "holds no report" in capsys.readouterr().err


def test_markers_are_where_results_go():
    module = updater()
    for page in (ROOT / "README.md", DOCS / "results.md"):
        text = page.read_text(encoding="utf-8")
        for marker in re.findall(r"<!-- results:([\w-]+) -->", text):
            assert marker in module.BLOCKS
            assert text.count(f"<!-- /results:{marker} -->") == 1
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    assert all(f"<!-- results:{marker} -->" in results for marker in module.BLOCKS)
