"""Fills in the templates of the reports' pages: one HTML file each, which needs nothing but itself.

Owns how templates are read: everything that they are given is escaped, a name that they are not given is an error, and
figures become data URLs. Looks and words are the templates', in `templates/`. Does not know what is reported.
"""

import base64
import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **content: object) -> str:
    """Fill in one template.

    Parameters
    ----------
    template
        Its name, without `.html.jinja`.
    content
        What it names; every template has at least `title`, `lead` and `facts`, pairs of a name and a value.

    Returns
    -------
    HTML without references to anything outside.

    Raises
    ------
    jinja2.UndefinedError
        When the template names something that it was not given.
    """
    return _environment().get_template(f"{template}.html.jinja").render(**content)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("vhserve.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["svg_url"] = _svg_url
    found.filters["unbroken"] = _unbroken
    return found


def _unbroken(text: str) -> str:
    """Text in which no line ends inside of square brackets, such as those of an interval."""
    return re.sub(r"\[[^]]*\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def _svg_url(svg: str) -> str:
    data = base64.b64encode(svg.encode()).decode("ascii")
    return f"data:image/svg+xml;base64,{data}"
