"""The dependency direction: of every file, read off the source; and what imports cost, read off fresh interpreters."""

import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import PACKAGES, circles, read_graph

GRAPH = read_graph(Path(__file__).parents[1])

ORDER = {
    "profiles": (
        "profiles.torchvision_import",
        "profiles.errors",
        "profiles.suggestions",
        "profiles.treatments",
        "profiles.names",
        "profiles",
        "profiles.pictures",
        "profiles.checkpoints",
        "profiles.fingerprint",
        "profiles.planning",
    ),
    "calibrate": (
        "calibrate",
        "calibrate.errors",
        "calibrate.drawing",
        "calibrate.terminal_tables",
        "calibrate.stats",
        "calibrate.datasets",
        "calibrate.documents",
        "calibrate.demo",
        "calibrate.models",
        "calibrate.runs",
        "calibrate.masking",
        "calibrate.scoring",
        "calibrate.ablation",
        "calibrate.rankings",
        "calibrate.analysis",
    ),
    "vhserve": (
        "vhserve",
        "vhserve.errors",
        "vhserve.option_types",
        "vhserve.devices",
        "vhserve.compat",
        "vhserve.child_processes",
        "vhserve.server.request_pictures",
        "vhserve.server.media",
        "vhserve.engine.checks",
        "vhserve.engine.plugin",
        "vhserve.engine.kv_cache",
        "vhserve.engine.admission",
        "vhserve.engine.kv_offload",
        "vhserve.engine.layer_plan",
        "vhserve.engine.operators",
        "vhserve.engine.attention",
        "vhserve.engine.image_exit",
        "vhserve.engine.weights",
        "vhserve.engine.token_counters",
        "vhserve.engine.scheduler",
        "vhserve.engine.vip_llava",
        "vhserve.engine.models",
        "vhserve.engine",
        "vhserve.evaluation",
        "vhserve.server.api_keys",
        "vhserve.server.metric_definitions",
        "vhserve.server.monitoring.settings",
        "vhserve.server.parameter_limits",
        "vhserve.server.settings",
        "vhserve.server.preflight",
        "vhserve.server.monitoring",
        "vhserve.server",
        "vhserve.report",
        "vhserve.loadtest",
        "vhserve.demo",
        "vhserve.commands",
        "vhserve.command_line",
        "vhserve.cli",
    ),
}
"""Rooms in the order of the dependencies: each imports only from itself and from those before it."""

SHARED = (
    "calibrate.analysis.document",
    "calibrate.datasets",
    "calibrate.drawing",
    "calibrate.runs.progress",
    "calibrate.stats",
    "calibrate.terminal_tables",
)
"""All that `vhserve` but its commands may import of `calibrate`; none of it imports torch."""

HEAVY = ("torch", "transformers", "vllm", "matplotlib", "scipy")
COSTS = {
    "profiles": (
        ("profiles", "profiles.planning.planner", "profiles.store", "profiles.torchvision_import"),
        ("calibrate", "vhserve", *HEAVY),
    ),
    "calibrate itself": (("calibrate", "calibrate.models.registry"), ("vhserve", *HEAVY)),
    "what calibrate is made of": (
        tuple(module for module in GRAPH if module.startswith("calibrate.")),
        ("vhserve", "vllm"),
    ),
    "what vhserve takes of calibrate": (SHARED, ("torch", "transformers", "vllm")),
    "the program": (("vhserve.cli",), ("calibrate", "profiles", "pydantic", "rich", *HEAVY)),
    "the command line": (("vhserve.command_line",), ("calibrate", *HEAVY)),
    "the load test": (
        ("vhserve.loadtest.run", "vhserve.loadtest.page", "vhserve.loadtest.tables"),
        ("locust", "gevent", "torch", "transformers", "vllm"),
    ),
    # What it imports is what each of its processes costs before it sends; asyncio's clients do not go with gevent.
    "what locust runs": (("vhserve.loadtest.locustfile",), ("calibrate", "openai", "httpx", *HEAVY)),
    "the engine": (("vhserve.engine.plugin", "vhserve.engine.models"), ("calibrate",)),
}
"""By part: modules, and what importing them must not bring in."""

IMPORT = """
import importlib, sys
if "torch" in sys.argv[1]:
    from profiles.torchvision_import import ensure_torchvision
    ensure_torchvision()
for name in sys.argv[2:]:
    importlib.import_module(name)
print(*{name.split(".")[0] for name in sys.modules})
"""


def below(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def place(module: str) -> int:
    """Index, in the order of its package, of the narrowest room that a module is in."""
    order = ORDER[module.split(".")[0]]
    if module in PACKAGES:
        return order.index(module)
    rooms = [
        room for room in order if below(module, room) and (room not in PACKAGES or "." not in module[len(room) + 1 :])
    ]
    assert rooms, f"{module} is in no room of ORDER"
    return order.index(max(rooms, key=len))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_imports_from_its_own_room_and_those_before_it(package: str) -> None:
    wrong = [
        f"{module} imports {other}"
        for module, imported in GRAPH.items()
        for other in sorted(imported)
        if below(module, package) and below(other, package) and place(other) > place(module)
    ]
    assert not wrong


def test_packages_import_in_one_direction() -> None:
    arrows = {(module.split(".")[0], other.split(".")[0]) for module, imported in GRAPH.items() for other in imported}
    assert {(a, b) for a, b in arrows if a != b} <= {
        ("calibrate", "profiles"),
        ("vhserve", "profiles"),
        ("vhserve", "calibrate"),
    }


def test_no_file_imports_itself_in_a_circle() -> None:
    assert circles(GRAPH) == []


def test_what_vhserve_takes_of_calibrate() -> None:
    taken = {
        module: [other for other in imported if below(other, "calibrate") and not any(below(other, s) for s in SHARED)]
        for module, imported in GRAPH.items()
        if below(module, "vhserve") and not below(module, "vhserve.commands")
    }
    assert {module: others for module, others in taken.items() if others} == {}
    engine = [module for module in GRAPH if below(module, "vhserve.engine")]
    assert [module for module in engine if any(below(other, "calibrate") for other in GRAPH[module])] == []


@pytest.mark.parametrize("part", COSTS)
def test_import_brings_in_nothing_forbidden(part: str) -> None:
    modules, forbidden = COSTS[part]
    light = "torch" in forbidden
    command = [sys.executable, "-c", IMPORT, "light" if light else "with torch", *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & set(forbidden)
