"""The endpoint that live requests are repeated on: its model, and whether it is up.

Owns its connections and its API key. Does not know what its responses are compared with.
"""

import os
import time
from typing import Any, Final

import httpx

from vhserve.evaluation.address import trusts_environment

KEY_VARIABLE: Final = "VHSERVE_SHADOW_API_KEY"
"""Environment variable with the reference's API key; users' keys are never sent there."""

_TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0)


class ReferenceDown(Exception):
    """The reference does not answer, or is full: nothing should be sent there for a while."""


class ReferenceRefused(Exception):
    """The reference is up, but rejects this request."""


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

    async def check(self) -> None:
        """Check that it is up, and list its models.

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

    async def send(self, path: str, request: dict[str, Any]) -> tuple[bytes, float]:
        """Send a request, for the model of the same name where the reference has it, else for its first one.

        Returns
        -------
        The response's body, and its latency in seconds.

        Raises
        ------
        ReferenceDown, ReferenceRefused
        """
        model = request.get("model")
        started = time.perf_counter()
        response = await self._request(
            "POST", path, json={**request, "model": model if model in self.models else self.models[0]}
        )
        return response.content, time.perf_counter() - started

    async def close(self) -> None:
        await self.client.aclose()

    async def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            response = await self.client.request(method, f"{self.url}{path}", **content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ReferenceDown(f"{type(error).__name__}") from error
        if response.status_code == 429 or response.status_code >= 500 or (method == "GET" and not response.is_success):
            raise ReferenceDown(f"status {response.status_code}")
        if not response.is_success:
            raise ReferenceRefused(f"status {response.status_code}")
        return response
