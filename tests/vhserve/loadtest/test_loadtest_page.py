"""The load test's report: well-formed and self-contained, and, in a real browser, drawn without a complaint.

The browser is Debian's `chromium`, headless, on a file; it is not asked to fetch anything.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from html_pages import Page
from load_factories import load_test
from PIL import Image

from vhserve.loadtest.page import render
from vhserve.loadtest.tables import load_tables, warnings

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)
# What the page itself cannot know: whether its pictures could be drawn. Only the test's copy has a script.
ASK = """<script>addEventListener("load", () => {
  const seen = [...document.images].map(one => [one.alt, one.complete, one.naturalWidth, one.naturalHeight]);
  document.documentElement.setAttribute("data-images", JSON.stringify(seen));
});</script>"""


@pytest.fixture(scope="module", params=[1, 2], ids=["one endpoint", "two endpoints"])
def html(request: pytest.FixtureRequest) -> str:
    return render(*load_test(request.param))


def test_needs_nothing_but_itself(html: str) -> None:
    page = Page(html)
    assert all(address.startswith("data:") for address in page.addresses)
    assert len([one for one in page.addresses if one.startswith("data:image/svg+xml;base64,")]) >= 4
    assert not re.search(r"@import|url\(|<script|src=.?http", html)


def test_what_comes_from_outside_is_escaped(html: str) -> None:
    assert "<b>bad</b>" not in html
    assert "&lt;b&gt;bad&lt;/b&gt;" in html


def test_shows_every_table_and_warning() -> None:
    document, requests = load_test(2)
    page = Page(render(document, requests))
    for grid in load_tables(document):
        assert grid.title in page.text
        for row in grid.rows:
            assert list(row) in page.rows
    assert list(warnings(document))
    for line in warnings(document):
        assert line in page.text
    (row,) = [row for row in page.rows if row[0] == "time to first token"][:1]
    assert row[1] == f"{1000 * document.endpoints[0].figures.ttft.p50:,.1f}"


def test_a_run_without_success_has_a_page() -> None:
    document, requests = load_test(1, succeed=False)
    page = Page(render(document, requests))
    assert "nothing to draw" in page.text
    assert "no request succeeded" in page.text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
def test_a_browser_draws_the_plots_without_a_complaint(html: str, tmp_path: Path) -> None:
    copy, picture = tmp_path / "report.html", tmp_path / "report.png"
    copy.write_text(html.replace("</body>", f"{ASK}</body>"))
    seen = chromium("--dump-dom", copy.as_uri(), profile=tmp_path / "first")
    assert_no_complaint(seen.stderr)
    attribute = re.search(r'data-images="([^"]*)"', seen.stdout)
    assert attribute is not None
    images = json.loads(attribute[1].replace("&quot;", '"'))
    plots = {"Share of requests over latency", "Time to first token of every request"}
    assert plots < {alt for alt, *_ in images}
    for alt, complete, width, height in images:
        assert complete, alt
        assert width > 300, alt
        assert height > 100, alt

    original = tmp_path / "original.html"
    original.write_text(html)
    shot = (f"--screenshot={picture}", "--window-size=1000,6000", original.as_uri())
    assert_no_complaint(chromium(*shot, profile=tmp_path / "second").stderr)
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    blue = np.abs(pixels - [0x00, 0x72, 0xB2]).sum(axis=-1) < 30
    assert blue.sum() > 500  # the first series' colour, which nothing but the plots has
    rows = np.flatnonzero(blue.any(axis=1))
    assert rows[-1] - rows[0] > 500  # of several plots, one below the other


def chromium(*arguments: str, profile: Path) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def assert_no_complaint(log: str) -> None:
    """No line of the page's console, whatever the browser says of the machine it is on."""
    assert not [line for line in log.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
def test_a_complaint_would_be_seen(tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<!DOCTYPE html><title>x</title><script>console.error('as loud as this')</script>")
    with pytest.raises(AssertionError, match="as loud as this"):
        assert_no_complaint(chromium("--dump-dom", broken.as_uri(), profile=tmp_path / "profile").stderr)
