"""A small card of HTML for notebooks: a title, labelled figures and tables.

Every text is escaped, since names come from files of others; there are no scripts, and styles stand in the elements.
Colours are the notebook's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tierform.errors import printable

Listed = tuple[Sequence[str], Sequence[Sequence[str]]]  # head, rows
MOST_ROWS = 24
_CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top"
_NUMBER = "padding:2px 12px 2px 0;text-align:right;white-space:nowrap"
_LINE = "border-top:1px solid rgba(128,128,128,.35)"


def card(
    title: str,
    subtitle: str,
    figures: Sequence[tuple[str, str]],
    tables: Sequence[Listed] = (),
    notes: Sequence[str] = (),
) -> str:
    """A card; `tables` are (head, rows), cells that begin with a digit are set as numbers."""
    parts = [f'<div style="max-width:60em"><div style="font-size:120%;font-weight:600">{_text(title)}</div>']
    if subtitle:
        parts.append(f'<div style="opacity:.75">{_text(subtitle)}</div>')
    if figures:
        shown = "".join(
            f'<div style="margin:0 24px 6px 0"><div style="font-size:85%;opacity:.75">{_text(label)}</div>'
            f'<div style="font-weight:600">{_text(value)}</div></div>'
            for label, value in figures
        )
        parts.append(f'<div style="display:flex;flex-wrap:wrap;margin-top:8px">{shown}</div>')
    parts += [_table(head, rows) for head, rows in tables if rows]
    parts += [f'<div style="font-size:85%;opacity:.75">{_text(note)}</div>' for note in notes]
    return "".join(parts) + "</div>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th style="{_CELL};font-weight:600">{_text(cell)}</th>' for cell in head)
    lines = [
        f'<tr style="{_LINE}">' + "".join(f'<td style="{_style(cell)}">{_text(cell)}</td>' for cell in row) + "</tr>"
        for row in rows[:MOST_ROWS]
    ]
    if len(rows) > MOST_ROWS:
        more = f"{len(rows) - MOST_ROWS} more"
        lines.append(f'<tr style="{_LINE}"><td colspan="{len(head)}" style="{_CELL}">{more}</td></tr>')
    return f'<table style="border-collapse:collapse;margin:6px 0"><tr>{top}</tr>{"".join(lines)}</table>'


def _style(cell: str) -> str:
    return _NUMBER if cell[:1].isdigit() else _CELL


def _text(text: str) -> str:
    return escape(printable(text))
