"""What the pages of all reports are made of: one HTML file that needs nothing but itself, on screen and in print.

Owns looks, headings, figures and tables. Everything that comes from outside is escaped; figures are data URLs. Does not
know what is reported.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p, li { max-width: 46rem; } .lead { color: #444; margin-top: .2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
tr.section th { text-align: left; padding-top: 1rem; border-bottom: 2px solid #888; }
tr.strong { font-weight: 600; }
table.facts td { text-align: left; overflow-wrap: anywhere; }
table.words td, table.words th { text-align: left; }
table.dense { font-size: .85rem; } table.dense td, table.dense th { padding: .2rem .5rem; }
figure { display: inline-block; margin: 0 1.5rem 1rem 0; vertical-align: top; max-width: 100%; }
figure img { max-width: 100%; } figcaption { color: #444; font-size: .9rem; max-width: 28rem; }
.warning { border-left: 4px solid #d55e00; padding-left: .8rem; }
.verdict { font-weight: 600; white-space: nowrap; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<h1>$title</h1>
<p class="lead">$lead</p>
$body
</body>
</html>
""")


def page(title: str, lead: str, body: str) -> str:
    """A whole page; `body` is HTML, the others are text."""
    return _PAGE.substitute(title=escape(title), lead=escape(lead), body=body)


def figure(svg: str, alt: str, caption: str = "") -> str:
    """A figure with what it shows for those who don't see it."""
    data = base64.b64encode(svg.encode()).decode("ascii")
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">{words}</figure>'


def table(header: Sequence[str], rows: Iterable[Sequence[Sequence[str]]], kind: str = "") -> str:
    """A table; a cell is one or more lines. `kind` is a class of the page's style, or none."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    lines = [[f"<td>{'<br>'.join(map(escape, cell))}</td>" for cell in row] for row in rows]
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    named = f' class="{kind}"' if kind else ""
    return f'<div class="wide"><table{named}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Where something comes from: names and values."""
    cells = "\n".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<div class="wide"><table class="facts"><tbody>\n{cells}\n</tbody></table></div>'
