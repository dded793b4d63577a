"""By what a server knows a picture again: by its content, not by the `uuid` that a client gives it.

Owns the middleware that makes an API server do so from its start. Does not know how vLLM's caches work.
"""

from typing import Any

from vhserve.compat.prompts import ignore_client_uuids
from vhserve.server.at_start import AtStart


class ContentIdentity(AtStart):
    """A server has it unless `ServerSettings.trust_client_uuids`."""

    def act(self, app: Any) -> None:
        ignore_client_uuids(app.state.engine_client.renderer)
