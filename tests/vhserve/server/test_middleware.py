"""A server's middleware by its settings: which, in which order; and that settings reach every API server."""

import pickle
from argparse import Namespace
from importlib import import_module
from types import SimpleNamespace

import pytest

from profiles.geometry import ModelGeometry, ModelRef
from profiles.pruning_plan import PruningPlan
from vhserve.server.middleware import ORDER
from vhserve.server.monitoring.settings import CanarySettings, MonitoringSettings, ShadowSettings
from vhserve.server.serving import apply_settings
from vhserve.server.settings import ServerSettings, settings_of

PLAN = PruningPlan.manual(
    ModelRef(name="m", revision="sha256:12", architecture="LlavaForConditionalGeneration"),
    ModelGeometry(layers=7, query_heads=4, kv_heads=2, head_size=32, hidden_size=100, image_tokens=9),
    removed=[(0, 0), (0, 1)],
    text_only=[(5, 2), (5, 3)],
)
CANARY = MonitoringSettings(canary=CanarySettings("synthetic", 8, 60.0))
SHADOW = MonitoringSettings(shadow=ShadowSettings("http://127.0.0.1:1/v1", 0.5))


START = ["PicturePlaces", "ContentIdentity", "MediaDelivery", "GrammarCheck", "StartTime", "PictureLimits"]
WITH_PLAN = ["PlanMetrics", "TemplateCheck", "ImageBackendCheck"]
ALWAYS = ["EngineExit", "Guard", "Drain"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ServerSettings(1, 1), ["ServerInfo", *START, *ALWAYS]),
        (
            ServerSettings(1, 1, trust_client_uuids=True),
            ["ServerInfo", *(name for name in START if name != "ContentIdentity"), *ALWAYS],
        ),
        (ServerSettings(1, 1, None, SHADOW), ["ServerInfo", *START, "Monitoring", *ALWAYS]),
        (ServerSettings(1, 1, PLAN), ["ServerInfo", *WITH_PLAN, *START, *ALWAYS, "RequestMetrics"]),
        (
            ServerSettings(1, 1, PLAN, CANARY),
            ["ServerInfo", *WITH_PLAN, *START, "Monitoring", *ALWAYS, "RequestMetrics"],
        ),
    ],
)
def test_a_server_has_what_its_settings_need_around_the_user_s(settings: ServerSettings, expected: list[str]) -> None:
    arguments = Namespace(middleware=["theirs.Middleware"])
    apply_settings(arguments, settings)
    assert [name.rpartition(".")[2] for name in arguments.middleware] == ["Middleware", *expected]


@pytest.mark.parametrize("name", [middleware.name for middleware in ORDER])
def test_each_name_is_a_class_around_an_application(name: str) -> None:
    module, _, symbol = name.rpartition(".")
    application = object()
    assert getattr(import_module(module), symbol)(application).app is application


def test_settings_reach_processes_that_are_spawned() -> None:
    settings = ServerSettings(100, 4, PLAN, MonitoringSettings(CANARY.canary, SHADOW.shadow))
    arguments = Namespace(middleware=[])
    apply_settings(arguments, settings)
    there = settings_of(SimpleNamespace(state=SimpleNamespace(args=pickle.loads(pickle.dumps(arguments)))))
    assert there == settings
    assert there.plan is not None
    assert there.plan.digest == PLAN.digest
