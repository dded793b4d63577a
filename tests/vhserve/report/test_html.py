"""Templates: what they are given is escaped, and what they are not given is an error."""

import pytest
from html_pages import Page
from jinja2 import UndefinedError

from vhserve.report.html import render

EMPTY = {"title": "A <title> & more", "lead": 'it\'s "quoted"', "facts": [("<name>", "a & b")]}


def test_what_comes_from_outside_is_text() -> None:
    html = render("analysis", findings=[], sections=[], **EMPTY)
    page = Page(html)
    assert "A <title> & more" in page.text
    assert 'it\'s "quoted"' in page.text
    assert page.rows == [["<name>", "a & b"]]
    assert "<name>" not in html
    assert "A <title>" not in html


@pytest.mark.parametrize("missing", ["lead", "findings"])
def test_a_name_that_a_template_is_not_given_is_an_error(missing: str) -> None:
    content = {"findings": [], "sections": [], **EMPTY}
    del content[missing]
    with pytest.raises(UndefinedError, match=missing):
        render("analysis", **content)
