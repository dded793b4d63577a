"""The endpoint that the shadow asks: which model it serves, and whether it answers.

Owns its connections and its key. Does not know what its answers are compared with.
"""

import os
import time
from typing import Any, Final

import httpx

from vhserve.evaluation.address import trusts_environment

KEY_VARIABLE: Final = "VHSERVE_SHADOW_API_KEY"
"""Environment variable with the reference's key; users' keys are never sent there."""

_TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0)


class ReferenceDown(Exception):
    """The reference does not answer, or has no room: nothing should be sent there for a while."""


class ReferenceRefused(Exception):
    """The reference answers, but not this request."""


class Reference:
    """An OpenAI endpoint.

    Parameters
    ----------
    url
        Its base URL, with `/v1`.
    """

    def __init__(self, url: str) -> None:
        key = os.environ.get(KEY_VARIABLE)
        self.client = httpx.AsyncClient(
            timeout=_TIMEOUT,
            trust_env=trusts_environment(url),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self.url = url
        self.models: list[str] = []

    async def look(self) -> None:
        """See that it is there, and what it serves.

        Raises
        ------
        ReferenceDown
        """
        listed = await self._request("GET", "/models")
        try:
            self.models = [entry["id"] for entry in listed.json()["data"]]
            self.models[0]
        except (ValueError, LookupError, TypeError) as error:
            raise ReferenceDown("it lists no model") from error

    async def ask(self, path: str, request: dict[str, Any]) -> tuple[bytes, float]:
        """Send a request.

        Returns
        -------
        The answer's body, and how long it took in seconds.

        Raises
        ------
        ReferenceDown, ReferenceRefused
        """
        model = request.get("model")
        started = time.perf_counter()
        answer = await self._request(
            "POST", path, json={**request, "model": model if model in self.models else self.models[0]}
        )
        return answer.content, time.perf_counter() - started

    async def close(self) -> None:
        await self.client.aclose()

    async def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = await self.client.request(method, f"{self.url}{path}", **content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ReferenceDown(f"{type(error).__name__}") from error
        if answer.status_code == 429 or answer.status_code >= 500 or (method == "GET" and not answer.is_success):
            raise ReferenceDown(f"status {answer.status_code}")
        if not answer.is_success:
            raise ReferenceRefused(f"status {answer.status_code}")
        return answer
