"""One HTML page out of tables, notes and figures, everything inline: it works offline."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NOTHING", "Figure", "Headings", "Table", "html_page", "markdown_table", "plus_minus"]

NOTHING = "–"
"""What a table writes where there is no number."""

STYLE = """
:root{color-scheme:light}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:#222;
  background:#f4f5f7;margin:0}
main{max-width:1120px;margin:0 auto;padding:1.6rem 1.4rem 4rem}
header{border-bottom:3px solid #1f5fbf;margin-bottom:1.2rem;padding-bottom:.4rem}
h1{font-size:1.75rem;margin:.2rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
.lead{color:#555;margin:.1rem 0 .4rem}
section,figure{background:#fff;border:1px solid #e1e4e8;border-radius:8px;
  padding:1rem 1.1rem;margin:0 0 1.1rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;width:100%}
caption{caption-side:top;text-align:left;font-weight:600;padding:.2rem 0 .5rem}
th,td{padding:.42rem .6rem;border-bottom:1px solid #e6e8eb;text-align:right;vertical-align:top}
th{background:#f0f3f8;font-weight:600;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;font-weight:600}
td{white-space:nowrap}tbody tr:hover{background:#f7faff}
ul.notes{margin:.8rem 0 0;padding-left:1.2rem;color:#444;font-size:.9rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:1.1rem}
figure img{display:block;max-width:100%;height:auto;margin:0 auto}
figcaption{color:#555;font-size:.88rem;margin-top:.6rem}
"""


@dataclass(frozen=True)
class Table:
    """Caption, column heads and rows of text."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A PNG file and what it shows: wide ones are pictures, broad curves take the whole line."""

    path: Path
    caption: str
    wide: bool = False
    broad: bool = False


@dataclass(frozen=True)
class Headings:
    """What stands above the pictures, above and below the interactive view, above the curves."""

    pictures: str = "Generated against true cells"
    view: str = "Turn the cells"
    view_note: str = (
        "True cell left, generated cell right: drag to turn, scroll to zoom, choose a crystal in "
        "the menu."
    )
    curves: str = "Training and estimators"


def plus_minus(value: Mapping[str, Any] | None, key: str = "std", digits: int = 4) -> str:
    """Cell of a mean and its error; with `standard_error` the mean is a difference with a sign.

    Parameters
    ----------
    value : mapping with "mean" and the error, None for an empty cell
        From `spread` or `paired`.
    key : str
        Name of the error; an error of None is left out.
    digits : int
    """
    if value is None:
        return NOTHING
    sign = "+" if key == "standard_error" else ""
    error = "" if value[key] is None else f" ± {value[key]:.{digits}f}"
    return f"{value['mean']:{sign}.{digits}f}{error}"


def markdown_table(table: Table) -> str:
    """Return a table as markdown, its caption above."""
    lines = [table.caption, "", "| " + " | ".join(table.head) + " |"]
    lines.append("| --- |" + " ---: |" * (len(table.head) - 1))
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows
    ]
    return "\n".join(lines) + "\n"


def html_page(
    title: str,
    lead: str,
    *,
    tables: Sequence[Table],
    notes: Sequence[str],
    figures: Sequence[Figure],
    view: str = "",
    headings: Headings | None = None,
) -> str:
    """Return the page.

    Parameters
    ----------
    title, lead : str
        Head line and the sentence below it.
    tables, notes, figures
        Shown in this order; figure files are embedded.
    view : str
        HTML fragment of an interactive view with its scripts inline.
    headings : Headings, optional
        Default: those of crystals.
    """
    said = headings or Headings()
    wide = "".join(_figure(figure) for figure in figures if figure.wide)
    narrow = "".join(_figure(figure) for figure in figures if not figure.wide)
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    first, rest = tables[:1], tables[1:]
    interactive = (
        f"<h2>{html.escape(said.view)}</h2><section>"
        f"{view}<p class='lead'>{html.escape(said.view_note)}</p></section>"
        if view
        else ""
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<header><h1>{html.escape(title)}</h1><p class='lead'>{html.escape(lead)}</p></header>"
        f"<section>{''.join(map(_table, first))}<ul class='notes'>{items}</ul></section>"
        + "".join(f"<section>{_table(table)}</section>" for table in rest)
        + (f"<h2>{html.escape(said.pictures)}</h2>{wide}" if wide else "")
        + interactive
        + (f"<h2>{html.escape(said.curves)}</h2><div class='pair'>{narrow}</div>" if narrow else "")
        + "</main></body></html>\n"
    )


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.path.read_bytes()).decode()
    caption = html.escape(figure.caption)
    style = ' style="grid-column:1/-1"' if figure.broad else ""
    return (
        f'<figure{style}><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return (
        f"<div class='scroll'><table><caption>{html.escape(table.caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
