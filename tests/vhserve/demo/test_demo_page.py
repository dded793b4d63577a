"""The report from small fixed inputs: well-formed, self-contained, escaped, and true to the figures."""

import base64
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from html_pages import Page
from result_factories import demo_results, grouped_plan, grouped_profile, plan, profile
from rich.console import Console

from profiles.planning.rankings import group_ranking
from profiles.ranking import Ranking
from vhserve.demo.figures import head_map, treatment_map
from vhserve.demo.headline import headline
from vhserve.demo.page import render
from vhserve.demo.results import DemoResults
from vhserve.demo.rows import sections
from vhserve.demo.summary import summary_table


@pytest.fixture(scope="module")
def html() -> str:
    return render(demo_results(), profile(), {"pruned <b>": plan()})


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def row(page: Page, label: str) -> list[str]:
    return next(cells for cells in page.rows if cells and cells[0].startswith(label))


def test_needs_nothing_but_itself(html: str, page: Page) -> None:
    assert page.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(|<script", html)


def test_figures_are_svg_without_outside_references(page: Page) -> None:
    assert len(page.addresses) == 3  # accuracy, scores, treatments
    for address in page.addresses:
        tree = ElementTree.fromstring(base64.b64decode(address.split(",", 1)[1]))
        assert tree.tag == "{http://www.w3.org/2000/svg}svg"
        for element in tree.iter():
            for name, value in element.attrib.items():
                if name.endswith("href"):
                    assert value.startswith(("#", "data:")), value


def test_the_same_input_gives_the_same_page(html: str) -> None:
    assert render(demo_results(), profile(), {"pruned <b>": plan()}) == html


def test_everything_from_outside_is_escaped(html: str, page: Page) -> None:
    assert "pruned <b>" not in html
    assert "<model>" not in html
    assert "<out>" not in html
    assert "made/up <model>" in page.text
    assert "about pruned <b> & more" in page.text


def test_numbers_are_those_of_the_results(page: Page) -> None:
    assert row(page, "capacity in text tokens")[1:] == ["43,680", "47,648", "1.091x"]
    assert row(page, "capacity in image prompts")[1:] == ["200.0", "250.0", "1.250x"]
    assert row(page, "bytes per text token") == ["bytes per text token", "6,144", "5,632", "0.917x"]
    assert row(page, "heads")[1:3] == ["24 full, 0 removed", "22 full, 2 removed"]
    assert row(page, "right / answered")[1:] == ["6 / 10", "6 / 9", "1 lost, 1 won"]
    assert row(page, "McNemar's exact p")[1:] == ["", "", "1"]
    assert row(page, "off list / failed")[1:3] == ["1 / 0", "0 / 1"]
    results = demo_results()
    overall = results.arms[0].accuracy.figures[-1]
    assert row(page, "all families")[1] == f"60.0% [{100 * overall.low:.1f},\N{NO-BREAK SPACE}{100 * overall.high:.1f}]"
    first = [cells for cells in page.rows if cells and cells[0] == "TTFT ms, median (p90)"]
    assert [cells[1] for cells in first] == ["71.2 (91.5)", "570.0 (732.0)"]
    speeds = [cells[1:] for cells in page.rows if cells and cells[0] == "output tokens per second"]
    assert speeds == [["111.5", "112.5", "1.009x"], ["181.5", "182.5", "1.006x"]]
    for fact in (
        results.commit,
        results.revision,
        results.profile_digest,
        plan().digest,
        "samples 10",
        "vhserve 0.1.0",
    ):
        assert fact in page.text


def test_the_main_thing_comes_first(page: Page, html: str) -> None:
    results = demo_results()
    (pair,) = [one for one in results.paired if one.family == "all"]
    right = pair.both + pair.only_first
    assert f"keeps {pair.both / right:.1%} of the answers" in page.text
    assert "1.25 times as many requests with an image" in page.text
    assert "a token takes 0.95 times as long" in page.text  # 8 streams, where more than one number of them was measured
    figures = re.findall(r"<div><b>(.*?)</b><span>(.*?)</span>", html)
    assert figures == [
        (f"{pair.both / right:.1%}", "answers kept"),
        ("1.25 times", "requests that fit"),
        ("0.95 times", "time per token"),
    ]
    assert html.index('class="headline"') < html.index('class="figures"') < html.index("<table")
    assert headline(results).sentence in page.text
    alone = results.arms[1].model_copy(update={"capacity_image_prompts": None, "latency": []})
    unknown = headline(results.model_copy(update={"arms": [results.arms[0], alone], "paired": []}))
    assert unknown.sentence == "With 2 of 24 heads pruned, nothing could be measured."
    assert [one.value for one in unknown.figures] == ["unknown"] * 3


def test_words_of_the_left_column_stay_whole(html: str) -> None:
    assert (
        "table.facts td:first-child, table.arms td:first-child { white-space: nowrap; overflow-wrap: normal; }" in html
    )
    assert '<table class="arms">' in html


def test_the_left_column_stays_where_a_narrow_page_scrolls(html: str) -> None:
    assert "table.arms td:first-child { position: sticky; left: 0; background: #fff; }" in html


def test_an_interval_stands_on_one_line(page: Page) -> None:
    cells = [cell for cells in page.rows for cell in cells if "[" in cell and "%" in cell]
    assert len(cells) >= 6
    for cell in cells:
        assert " " not in cell.partition("[")[2], cell


def test_every_row_has_a_cell_for_every_column(page: Page) -> None:
    for section in sections(demo_results()):
        for one in section.rows:
            assert (len(one.cells), len(one.against)) == (2, 1)
    columns = len(page.rows[0])
    assert columns == 4
    titles = {section.title for section in sections(demo_results())}
    measured = [cells for cells in page.rows[1:] if len(cells) == columns]
    assert len(measured) == sum(len(section.rows) for section in sections(demo_results()))
    assert titles <= {cells[0] for cells in page.rows if len(cells) == 1}


def test_kv_groups_are_counted_in_a_grouped_query_model() -> None:
    results = demo_results().model_copy(update={"heads_together": 2})
    third = results.arms[1].model_copy(update={"name": "random"})
    paired = [one.model_copy(update={"second": "random"}) for one in results.paired]
    results = results.model_copy(update={"arms": [*results.arms, third], "paired": [*results.paired, *paired]})
    page = Page(render(results, grouped_profile(), {"pruned": grouped_plan()}))
    assert row(page, "KV groups of 2 query heads")[1:3] == ["12 full, 0 removed", "11 full, 1 removed"]
    assert "With 1 of 12 KV groups pruned" in page.text
    assert "As many KV groups chosen at random" in page.text
    assert not [cells for cells in page.rows if cells[0] == "heads"]
    before = demo_results().model_dump(mode="json", exclude={"heads_together"})
    assert DemoResults.model_validate_json(json.dumps(before)).heads_together == 1  # files of earlier releases


def test_what_is_not_known_is_not_invented() -> None:
    results = demo_results()
    first = results.arms[0].model_copy(
        update={
            "capacity_tokens": None,
            "kv_bytes_source": "plan",
            "latency": [
                one.model_copy(update={"ttft_ms": None, "tpot_ms": None, "failed": 24})
                for one in results.arms[0].latency
            ],
        }
    )
    page = Page(render(results.model_copy(update={"arms": [first, results.arms[1]]}), profile(), {}))
    assert row(page, "capacity in text tokens")[1:] == ["-", "47,648", "-"]
    assert row(page, "bytes per text token")[:3] == ["bytes per text token", "6,144 (computed)", "5,632"]
    assert row(page, "TTFT ms")[1::2] == ["-", "-"]
    assert row(page, "failed requests")[1:3] == ["24", "0"]


def test_one_arm_and_three_arms_have_pages() -> None:
    results = demo_results()
    third = results.arms[1].model_copy(update={"name": "text-only"})
    for arms in (results.arms[:1], [*results.arms, third]):
        page = Page(render(DemoResults(**{**dict(results), "arms": arms}), profile(), {}))
        assert len(page.rows[0]) == 2 * len(arms)


def test_a_profile_without_any_score_can_be_drawn() -> None:
    flat = np.zeros((6, 4)).tolist()
    rankings = dict.fromkeys(("image_weight", "concentration", "score"), Ranking.of(flat))
    assert render(demo_results(), profile().model_copy(update={"rankings": rankings}), {"x": plan()})


def test_effects_are_drawn_where_they_were_measured() -> None:
    rows = np.full((6, 4), 0.5).tolist()
    effect = Ranking(tables={"removed": rows, "text_only": rows})
    measured = profile().model_copy(update={"rankings": profile().rankings | {"effect": effect}})
    pages = [Page(render(demo_results(), one, {})) for one in (profile(), measured)]
    assert ["hiding the image" in page.text for page in pages] == [False, True]


def test_maps_are_of_kv_groups_in_a_grouped_query_model(page: Page) -> None:
    measured = grouped_profile()
    grouped = Page(render(demo_results(), measured, {"pruned": grouped_plan()}))
    drawn = [base64.b64decode(address.split(",", 1)[1]).decode() for address in grouped.addresses]
    removed = group_ranking(measured, "effect", "removed")
    assert removed.shape == (6, 2)
    assert head_map(removed, "change if removed (nats)", 2) in drawn
    assert head_map(group_ranking(measured, "effect", "text_only"), "change if text-only (nats)", 2) in drawn
    assert head_map(group_ranking(measured, "score"), "score (higher: looks more at the picture)", 2) in drawn
    assert treatment_map(grouped_plan()) in drawn
    # Sides of a field: a group of two heads is one, as broad as a head was.
    fields = [treatment_map(one).count("stroke: #666666") for one in (plan(), grouped_plan())]
    assert fields[0] - fields[1] >= 6 * 4 - 6 * 2
    assert "removing each KV group" in grouped.text
    assert "with each KV group" in grouped.text
    assert "KV group" not in page.text


def test_terminal_table_shows_the_same_cells() -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(demo_results()))
    console.file.close()
    text = " ".join(console.export_text().split())
    for section in sections(demo_results()):
        for one in section.rows:
            for cell in (*one.cells, *one.against):
                assert " ".join(cell.split()) in text
    assert "pruned <b>" in text
