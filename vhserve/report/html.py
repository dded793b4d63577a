"""What all pages have in common: their looks, and figures that need no second file.

Knows nothing of what is shown.
"""

import base64
from html import escape
from typing import Final

STYLE: Final = """\
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
figure { display: inline-block; margin: 0 1.5rem 1rem 0; vertical-align: top; max-width: 100%; }
figure img { max-width: 100%; } figcaption { color: #444; font-size: .9rem; max-width: 28rem; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def figure(svg: str, alt: str, caption: str = "") -> str:
    """A drawing as an element of a page, its SVG inside a data URL; words are escaped."""
    data = base64.b64encode(svg.encode()).decode("ascii")
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">{words}</figure>'
