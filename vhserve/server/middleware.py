"""Which ASGI middleware a server of `vhserve serve` has, and in which order.

Owns the order and its reasons. vLLM imports middleware by name, in the process of every API server; it builds each
around those before it in the list, so that the last one is the outermost. Does not know what any of them does inside.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from vhserve.server.settings import ServerSettings


class Middleware(NamedTuple):
    """A class by its dotted name, and for which settings a server has it."""

    name: str
    is_needed: Callable[[ServerSettings], bool]


def _always(settings: ServerSettings) -> bool:
    return True


def _with_plan(settings: ServerSettings) -> bool:
    return settings.plan is not None


def _with_monitoring(settings: ServerSettings) -> bool:
    return settings.monitoring.enabled


def _without_client_uuids(settings: ServerSettings) -> bool:
    return not settings.trust_client_uuids


ORDER: Final = (
    # Innermost: these act at the server's start only, so their place matters least.
    Middleware("vhserve.server.server_info.ServerInfo", _always),
    Middleware("vhserve.server.plan_metrics.PlanMetrics", _with_plan),
    Middleware("vhserve.server.chat_template.TemplateCheck", _with_plan),
    Middleware("vhserve.server.image_backend.ImageBackendCheck", _with_plan),
    Middleware("vhserve.server.picture_places.PicturePlaces", _always),
    Middleware("vhserve.server.media_identity.ContentIdentity", _without_client_uuids),
    Middleware("vhserve.server.unsent_media.MediaDelivery", _always),
    Middleware("vhserve.server.grammar_check.GrammarCheck", _always),
    Middleware("vhserve.server.start_time.StartTime", _always),
    # Around nothing but vLLM's routes: whoever sends a request inside the server begins a count of its own.
    Middleware("vhserve.server.picture_limits.PictureLimits", _always),
    # Inside the guard, so that only requests which it lets through are mirrored.
    Middleware("vhserve.server.monitoring.middleware.Monitoring", _with_monitoring),
    # Around the monitoring, so that the engine is checked before the monitoring's tasks are cancelled.
    Middleware("vhserve.server.engine_exit.EngineExit", _always),
    # Around all that read a request's body, so that none reads one that is too long.
    Middleware("vhserve.server.guard.Guard", _always),
    # Around all that takes a request's time, so that it knows which requests run.
    Middleware("vhserve.server.drain.Drain", _always),
    # Outermost, so that it counts what any other one refuses.
    Middleware("vhserve.server.request_metrics.RequestMetrics", _with_plan),
)
"""From the innermost to the outermost; the user's own (--middleware) is inside all of them."""


def middleware_names(settings: ServerSettings) -> list[str]:
    """Dotted names of the middleware that a server needs, from the innermost to the outermost."""
    return [middleware.name for middleware in ORDER if middleware.is_needed(settings)]
