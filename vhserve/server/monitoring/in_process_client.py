"""An HTTP client of the API server inside its own process: its OpenAI routes without a socket.

Owns that such a request has the lowest priority, is computed without cached KV, and is distinguishable from users'
requests. Does not know which questions are asked.
"""

import secrets
import time
from contextvars import ContextVar
from typing import Any, Final

import httpx

from vhserve.evaluation.chat import greedy_request, reply_tokens, to_answer
from vhserve.evaluation.results import Answer
from vhserve.server.api_keys import api_keys
from vhserve.server.monitoring.canary import Question
from vhserve.server.monitoring.exchange import reply_text

LOWEST_PRIORITY: Final = 1 << 30
"""vLLM serves lower numbers first; users' requests have 0 unless they set another."""

is_internal: ContextVar[bool] = ContextVar("vhserve_internal_request", default=False)
"""Whether the request that a middleware handles comes from this module."""


class InProcessClient:
    """Sends chat completions to the FastAPI application of an API server, through all of its middleware."""

    def __init__(self, app: Any) -> None:
        arguments = app.state.args
        keys = api_keys(arguments)
        self.model: str = arguments.served_model_name[0]
        by_priority = app.state.vllm_config.scheduler_config.policy == "priority"
        self.priority = {"priority": LOWEST_PRIORITY} if by_priority else {}
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://inside",
            headers={"Authorization": f"Bearer {keys[0]}"} if keys else {},
            timeout=None,
        )

    async def ask(self, question: Question) -> Answer:
        """Ask one question, greedily decoded, and score the reply."""
        sample, message = question
        # The salt keeps the request away from cached KV: its reply must show what the engine computes now.
        request = greedy_request(self.model, message, reply_tokens(sample))
        request |= {"cache_salt": secrets.token_hex(8), **self.priority}
        token = is_internal.set(True)
        started = time.perf_counter()
        try:
            response = await self.http.post("/v1/chat/completions", json=request)
        finally:
            is_internal.reset(token)
        reply = reply_text(response.content) if response.is_success else None
        error = f"status {response.status_code}" if reply is None else None
        return to_answer(sample, reply=reply, error=error, seconds=time.perf_counter() - started)
