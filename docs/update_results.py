"""Copy the tables of finished runs between the markers of README.md and docs/results.md.

    python docs/update_results.py runs/quickstart runs/part1

A run folder is known by the files it holds. README.md gets an excerpt, docs/results.md everything
and the figures, and a page of its own, where a block names one, some sections and the figures. Each
block begins with the command, the versions and the date of the run, read from its ``run.json``; no
number is typed by hand.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.compile(r"^\*\*(?P<title>.+)\*\*\n\n(?:\|.*\n?)+", re.MULTILINE)
SECTION = r"^#+ {heading}\n(?P<body>.*?)(?=^#|\Z)"


@dataclass(frozen=True)
class Block:
    """What a run's marker is filled with.

    Args:
        command: That made the run.
        run: File with settings and versions.
        reports: Markdown files, in order.
        headings: Sections of the reports that README.md shows.
        tables: Beginnings of the titles of the tables that README.md shows.
        titled: Text that these titles must also contain.
        figures: Pattern of the figures docs/results.md shows.
        figure: The one of these that README.md shows.
        page: Another page of docs that shows some sections, and every figure.
        sections: Those that it shows.
    """

    command: str
    run: str
    reports: tuple[str, ...]
    headings: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    titled: str = ""
    figures: str = "*.png"
    figure: str = ""
    page: str = ""
    sections: tuple[str, ...] = ()


RECOVERY = {
    "data-a": "efficiency.png",
    "moves": "moves.png",
    "ablations": "ablations.png",
    "families": "families.png",
    "gates": "gates.png",
    "absorption": "absorption.png",
    "inference": "inference.png",
    "stories": "stories_ev.png",
    "calibration": "calibration.png",
    "words": "words.png",
    "modadd": "modadd_planes.png",
}  # the figure of each part that README.md shows

BLOCKS = {
    "quickstart": Block(
        command="vsae reproduce quickstart",
        run="run.json",
        reports=tuple(
            f"tables/{stem}.md" for stem in ("arms", "matched", "references", "toys", "settings")
        ),
        tables=("Held-out activations", "Reference points"),
        figure="frontier.png",
    ),
    "part1": Block(
        command="vsae reproduce part1",
        run="run.json",
        reports=("part1.md",),
        headings=("Verdicts",),
        tables=("MSE per neuron", "L0", "MCC"),
        titled="dense Gaussian codes",
        figures="[!f]*.png",  # the others are the frontier's
        figure="arms_gaussian.png",
    ),
    "part1-frontier": Block(
        command="vsae reproduce part1 --frontier",
        run="frontier_run.json",
        reports=("frontier.md",),
        headings=("Verdicts",),
        figures="frontier_*.png",
        figure="frontier_copula_K32.png",
    ),
    "flat": Block(
        command="vsae reproduce flat",
        run="run.json",
        reports=("flat.md",),
        headings=("Findings",),
        tables=("explained variance at matched L0", "MCC at matched L0"),
        figure="frontier.png",
    ),
    "hsae": Block(
        command="vsae reproduce hsae",
        run="run.json",
        reports=("hsae.md",),
        headings=("Verdicts",),
        figure="figure3.png",
    ),
    "tiered": Block(
        command="vsae reproduce tiered",
        run="run.json",
        reports=("tiered.md",),
        headings=("Findings",),
        figure="frontier.png",
    ),
    "ladder": Block(
        command="vsae reproduce ladder",
        run="run.json",
        reports=("ladder.md",),
        headings=("Findings",),
        figure="recovery.png",
        page="models/ladder.md",
        sections=("Rules", "Findings"),
    ),
    **{
        f"recovery-{part}": Block(
            command=f"vsae reproduce recovery --part {part}",
            run=f"runs/{part}.json",
            reports=(f"{part}.md",),
            headings=("Bars",),
            figures=f"{part}/*.png",
            figure=figure,
            page="recovery.md",
            sections=("Bars", "Findings"),
        )
        for part, figure in RECOVERY.items()
    },
    **{
        f"part4-{part}": Block(
            command="vsae reproduce part4",
            run="run.json",
            reports=(f"{part}.md",),
            figures=f"{part}*.png",
            page="crosscoder.md",
            sections=("Findings",),
        )
        for part in ("tokens", "sentences", "pareto", "layered", "modadd", "probe")
    },
    "recovery-16k": Block(
        command="vsae reproduce recovery-16k",
        run="run.json",
        reports=("recovery-16k.md",),
    ),
    "dead": Block(
        command="vsae reproduce dead",
        run="run.json",
        reports=("dead.md",),
        headings=("Findings",),
        figure="dead.png",
    ),
}


def fill(text: str, marker: str, body: str) -> str:
    """``text`` with what stands between the marker's two comments replaced; as it is without them.

    Example:
        >>> fill("<!-- results:a -->old<!-- /results:a -->", "a", "new").split()
        ['<!--', 'results:a', '-->', 'new', '<!--', '/results:a', '-->']
    """
    start, end = f"<!-- results:{marker} -->", f"<!-- /results:{marker} -->"
    if start not in text or end not in text:
        return text
    before, rest = text.split(start, 1)
    return f"{before}{start}\n{body.strip()}\n{end}{rest.split(end, 1)[1]}"


def provenance(folder: Path, block: Block) -> str:
    """Command, sizes, versions, date and time taken, as ``run.json`` has them."""
    run = json.loads((folder / block.run).read_text(encoding="utf-8"))
    settings = run.get("settings", {})
    smoke = run.get("smoke", settings.get("smoke", False))
    seeds = run.get("seeds", settings.get("seeds", []))
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    finished = datetime.fromtimestamp((folder / block.run).stat().st_mtime, UTC)
    sizes = f"{len(seeds)} seed{'s' * (len(seeds) != 1)}"
    if steps := settings.get("steps"):
        sizes += f", {steps} steps"
    if data := settings.get("data"):
        sizes += f", data {' and '.join(data)}"
    took = f" in {run['wall_seconds']:.0f} s" if "wall_seconds" in run else ""
    if models := run.get("models"):
        took += (
            f" ({models['found']} of {models['all']} models were in the folder; to train all took "
            f"{models['seconds']:.0f} CPU s)"
        )
    line = (
        f"*Written by `{block.command}{' --smoke' * smoke}` ({sizes}) on {finished:%Y-%m-%d}"
        f"{took}; {versions}.*"
    )
    warning = "\n\n**A smoke run: these numbers show only that the script works.**"
    return line + warning * smoke


def report(folder: Path, block: Block) -> str:
    """All reports of a run; their titles dropped, their headings one level down."""
    parts = [(folder / name).read_text(encoding="utf-8").strip() for name in block.reports]
    text = "\n\n".join(parts) + "\n"
    return re.sub(r"^(#+) ", r"#\1 ", re.sub(r"^# .*\n+", "", text, flags=re.M), flags=re.M)


def excerpt(text: str, block: Block) -> Iterator[str]:
    """The parts of a report that README.md shows."""
    for heading in block.headings:
        for found in re.finditer(SECTION.format(heading=heading), text, re.M | re.S):
            yield found["body"].strip()
    for found in TABLE.finditer(text):
        if found["title"].startswith(block.tables) and block.titled in found["title"]:
            yield found[0].strip()


def figures(folder: Path, marker: str, block: Block, docs: Path) -> list[str]:
    """Copies the run's figures to ``docs/figures/``; their paths from there."""
    copied = []
    for source in sorted((folder / "figures").glob(block.figures)):
        target = docs / "figures" / marker / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        copied.append(f"figures/{marker}/{source.name}")
    return copied


def link(path: str) -> str:
    """A figure in Markdown."""
    return f"![{Path(path).stem.replace('_', ' ')}]({path})"


def update(folder: Path, root: Path) -> list[str]:
    """Fill every marker that this run folder has a report for; returns their names."""
    done = []
    for marker, block in BLOCKS.items():
        if not all((folder / name).is_file() for name in (block.run, *block.reports)):
            continue
        run = json.loads((folder / block.run).read_text(encoding="utf-8"))
        if run.get("reproduction", block.command.split()[2]) != block.command.split()[2]:
            continue  # parts of two reproductions may have one name
        head, text = provenance(folder, block), report(folder, block)
        drawn = figures(folder, marker, block, root / "docs")
        first = [link(f"docs/{path}") for path in drawn if Path(path).name == block.figure]
        bodies = {
            root / "README.md": [head, *excerpt(text, block), *first],
            root / "docs" / "results.md": [head, text.strip(), *map(link, drawn)],
        }
        if block.page:
            page = root / "docs" / block.page
            shown = excerpt(text, replace(block, headings=block.sections))
            up = "../" * block.page.count("/")
            bodies[page] = [head, *shown, *(link(up + path) for path in drawn)]
        for page, parts in bodies.items():
            filled = fill(page.read_text(encoding="utf-8"), marker, "\n\n".join(parts))
            page.write_text(filled, encoding="utf-8")
        done.append(marker)
    return done


def main(argv: list[str], root: Path = ROOT) -> int:
    """Fill the markers from the run folders named; exit status 2 if one holds no known report."""
    if not argv:
        print(__doc__)
        return 2
    for name in argv:
        done = update(Path(name), root)
        if not done:
            expected = "; ".join(f"{b.run} with {', '.join(b.reports)}" for b in BLOCKS.values())
            print(f"{name} holds no report: expected {expected}.", file=sys.stderr)
            return 2
        print(f"{name}: {', '.join(done)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
