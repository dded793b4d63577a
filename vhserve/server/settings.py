"""What a server of `vhserve serve` is set to do beyond vLLM's own flags: one value, in one place of vLLM's arguments.

Owns that place: vLLM hands its parsed arguments, pickled where it starts several API servers, to every API server's
application (`app.state.args`), and keeps attributes that it does not know. Middleware reads the settings there. Does
not know vLLM's flags.
"""

import time
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Final

from profiles.pictures.limits import MAX_REQUEST_PIXELS
from profiles.pruning_plan import PruningPlan
from vhserve.server.monitoring.settings import MonitoringSettings
from vhserve.server.parameter_limits import ParameterLimits

_ATTRIBUTE: Final = "vhserve_settings"


@dataclass(frozen=True)
class ServerSettings:
    """Settings of one server.

    Attributes
    ----------
    max_request_bytes
        Longest request body, in bytes.
    max_sequences
        Greatest `n` of a request.
    plan
        The plan that is served; None without one.
    monitoring
        Canary and shadow.
    trust_client_uuids
        Whether pictures are the same when clients give them the same `uuid`.
    parameter_limits
        How large the parameters of a request may be.
    max_grammar_seconds
        Longest that a structured output may take to compile, in seconds.
    max_grammar_token_seconds
        Longest that a token of a structured output may take, in seconds of a processor.
    max_request_pixels
        Most pixels of all pictures of a request together (`request_pictures`).
    started
        When the user started the server, by the monotonic clock, which its processes share.
    """

    max_request_bytes: int
    max_sequences: int
    plan: PruningPlan | None = None
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    trust_client_uuids: bool = False
    parameter_limits: ParameterLimits = field(default_factory=ParameterLimits)
    max_grammar_seconds: float = 5.0
    max_grammar_token_seconds: float = 0.5
    max_request_pixels: int = MAX_REQUEST_PIXELS
    started: float = field(default_factory=time.monotonic)


def attach(arguments: Namespace, settings: ServerSettings) -> None:
    """Put the settings among vLLM's parsed arguments; the one place that does."""
    setattr(arguments, _ATTRIBUTE, settings)


def settings_of(app: Any) -> ServerSettings:
    """Read the settings off the FastAPI application of an API server."""
    settings: ServerSettings = getattr(app.state.args, _ATTRIBUTE)
    return settings
