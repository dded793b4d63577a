"""The dashboard's JSON against Grafana's own model of a dashboard, and against what makes it."""

import json
import subprocess
import sys

import expressions
import pytest
from expressions import DASHBOARD, DEPLOY

pytest.importorskip("grafana_foundation_sdk", reason="not installed; `make test-deploy` installs it")


def test_made_files_are_what_generate_makes() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import generate\n"
        "stale = [str(path) for path, text in generate.made().items() if path.read_text() != text]\n"
        "sys.exit(f'run deploy/generate.py: {stale}' if stale else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(DEPLOY)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Its second version has a new shape, which only the newest Grafana imports; this one is imported by all since 10.
@pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
def test_grafana_s_model_reads_all_of_it_and_writes_the_same() -> None:
    """A field that the model does not have would be lost on the way."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    written = json.loads(DASHBOARD.read_text())
    read = Dashboard.from_json(json.loads(DASHBOARD.read_text()))
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == written


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("panel", expressions.panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, object]) -> None:
    assert str(panel["description"]).endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]  # type: ignore[index]
    for target in panel["targets"]:  # type: ignore[attr-defined]
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
