"""One HTML file that needs nothing else: figures inside it, everything escaped, no script."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from toys.reproduce.tables import Cell, Interval, Table, number

DPI = 130
STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --faint: #444444;
  --line: #dddddd; --rule: #888888; --stripe: #f7f7f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #17181a; --faint: #bdbdbd;
  --line: #3a3b3e; --rule: #8a8a8a; --stripe: #202124; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th { border-bottom: 2px solid var(--rule); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--stripe); }
.wide { overflow-x: auto; } figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; background: #ffffff; }
figcaption, .note { color: var(--faint); font-size: 14px; }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Args:
        title: Plain text.
        parts: HTML of paragraphs, tables and figures, made by the functions of this module.
    """

    title: str
    parts: Sequence[str]


def page(title: str, sections: Sequence[Section], *, style: str = "") -> str:
    """The whole file. A content policy forbids scripts and every outside resource.

    Args:
        title: Plain text.
        sections: In order.
        style: CSS of the program's own, after that of every page; never from data.

    Example:
        >>> "<script>" in page("a<script>", [Section("b", [paragraph("<script>")])])
        False
    """
    body = "\n".join(
        f"<section>\n<h2>{escape(section.title)}</h2>\n" + "\n".join(section.parts) + "\n</section>"
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def paragraph(text: str, *, note: bool = False) -> str:
    """Plain text, escaped; smaller if it is a ``note``."""
    kind = ' class="note"' if note else ""
    return f"<p{kind}>{escape(text)}</p>"


def table(content: Table) -> str:
    """A table as people read it: rounded as in Markdown, full precision on hovering."""
    head = "".join(f"<th>{escape(name)}</th>" for name in content.columns)
    rows = "\n".join(
        "<tr>" + "".join(_cell(row.get(name)) for name in content.columns) + "</tr>"
        for row in content.rows
    )
    return (
        f'<div class="wide"><table>\n<caption>{escape(content.title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _cell(cell: Cell) -> str:
    if cell is None:
        return "<td>–</td>"
    if isinstance(cell, float):
        return f'<td title="{cell!r}">{escape(number(cell))}</td>'
    if isinstance(cell, Interval):
        return f'<td title="{cell.mean!r}, {cell.count} seeds">{escape(str(cell))}</td>'
    return f"<td>{escape(str(cell))}</td>"


def figure(image: bytes, caption: str) -> str:
    """A PNG inside the page; the caption is also what those who cannot see it are told.

    Args:
        image: The bytes of the PNG.
        caption: Plain text.
    """
    data = base64.b64encode(image).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def png(drawn: Figure) -> bytes:
    """A figure as the bytes of a PNG, the same bytes for the same picture."""
    out = io.BytesIO()
    drawn.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
