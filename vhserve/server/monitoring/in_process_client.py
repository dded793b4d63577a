"""Asking the server from inside its own process: through its OpenAI routes, without a socket.

Owns that such a request comes last, is computed anew, and can be told from users'. Does not know what is asked.
"""

import os
import secrets
import time
from contextvars import ContextVar
from typing import Any, Final

import httpx

from vhserve.evaluation.chat import greedy_request, to_answer
from vhserve.evaluation.results import Answer
from vhserve.server.monitoring.canary import Ask, Question
from vhserve.server.monitoring.exchange import text_of

LAST: Final = 1 << 30
"""Priority of such a request: vLLM serves lower numbers first, and users' are 0 unless they say otherwise."""

asked_inside: ContextVar[bool] = ContextVar("vhserve_asked_inside", default=False)
"""Whether the request that a middleware sees comes from this module."""


def asker(app: Any) -> Ask:
    """A function that asks the FastAPI application of an API server, greedily decoded, and scores the answer."""
    arguments = app.state.args
    key = next((key for key in (arguments.api_key or [os.environ.get("VLLM_API_KEY")]) if key), None)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, raise_app_exceptions=False),
        base_url="http://inside",
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=None,
    )
    by_priority = {"priority": LAST} if app.state.vllm_config.scheduler_config.policy == "priority" else {}

    async def ask(question: Question) -> Answer:
        sample, message = question
        request = {
            **greedy_request(arguments.served_model_name[0], message),
            # Keeps it away from cached KV: answers are to show what the engine computes now.
            "cache_salt": secrets.token_hex(8),
            **by_priority,
        }
        token = asked_inside.set(True)
        started = time.perf_counter()
        try:
            answered = await client.post("/v1/chat/completions", json=request)
        finally:
            asked_inside.reset(token)
        reply = text_of(answered.content) if answered.is_success else None
        error = f"status {answered.status_code}" if reply is None else None
        return to_answer(sample, reply=reply, error=error, seconds=time.perf_counter() - started)

    return ask
