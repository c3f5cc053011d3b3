"""The skeleton of a page for people: HTML put together from escaped parts, with its pictures inside; light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #f7f6f2; --text: #22302a; --card: #fff; --line: #e2e0d8; --rule: #eceae3;
  --head: #2f6b4f; --big: #c1440e; --quiet: #66726c; --code: #f0efe9;
  --faded: #8a948f; --bad: #b00020; --busy: #1c6e8c; }
@media (prefers-color-scheme: dark) { :root { --ground: #161c19; --text: #dfe6e1; --card: #1f2824; --line: #34403a;
  --rule: #2c3732; --head: #7cc4a0; --big: #f0895a; --quiet: #9aa8a0; --code: #2a342f; --faded: #7f8b85; --bad: #ff8a8a;
  --busy: #7cc3dd; }
  img { background: #fff; border-radius: 6px; padding: 6px; box-sizing: border-box; } }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px; }
h1 { margin: 0 0 12px; font-size: 26px; }
h2 { margin: 0 0 10px; font-size: 18px; color: var(--head); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px 20px;
  margin: 18px 0; }
.big { font-size: 20px; margin: 0 0 8px; color: var(--big); }
.note { color: var(--quiet); margin: 0 0 8px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: left; border-bottom: 2px solid var(--head); padding: 4px 14px 4px 0; font-weight: 600; }
td { border-bottom: 1px solid var(--rule); padding: 4px 14px 4px 0; vertical-align: top; }
.wide td, .wide th { white-space: nowrap; }
.facts td { white-space: pre-wrap; }
.facts td:first-child { color: var(--quiet); white-space: nowrap; }
.marked td { font-weight: 600; }
.state-stopped td { color: var(--faded); }
.state-failed td { color: var(--bad); }
.state-running td { color: var(--busy); }
img { max-width: 100%; display: block; margin: 6px 0; }
code { background: var(--code); border-radius: 4px; padding: 2px 6px; overflow-wrap: anywhere; }
h3 { margin: 14px 0 6px; font-size: 15px; color: var(--bad); }
pre { overflow-x: auto; background: var(--code); padding: 8px; font-size: 12px; }
summary { color: var(--quiet); margin: 6px 0; cursor: pointer; }
ul { margin: 0; padding-left: 20px; }
li { margin: 4px 0; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
"""On a screen, on a telephone, on paper."""


def document(title: str, sections: Iterable[str]) -> str:
    """The whole page. `title` is plain text, `sections` are HTML."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    viewport = '<meta name="color-scheme" content="light dark">'
    viewport += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = f"<main><h1>{escape(title)}</h1>{''.join(sections)}</main>"
    return f'<!doctype html>\n<html lang="en"><head>{head}{viewport}</head><body>{body}</body></html>\n'


def section(title: str, content: str, note: str = "") -> str:
    """A card with a heading; nothing where `content` (HTML) is empty."""
    if not content:
        return ""
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{told}{content}</section>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    kind: str = "",
    classes: Sequence[str] = (),
    marked: Sequence[str] = (),
) -> str:
    """Rows of plain text, escaped here. `classes`: one a row; `marked`: first cells of rows that are set bold."""
    top = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>" if head else ""
    lines = []
    for place, row in enumerate(rows):
        name = classes[place] if classes else "marked" if row[0] in marked else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f"<tr class='{escape(name)}'>{cells}</tr>")
    return f"<div class='scroll'><table class='{kind}'>{top}<tbody>{''.join(lines)}</tbody></table></div>"


def bullets(lines: Iterable[str]) -> str:
    """A list of plain text."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def picture(png: bytes | None, text: str) -> str:
    """A PNG inside the page; `text` says what it shows."""
    if png is None:
        return ""
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
