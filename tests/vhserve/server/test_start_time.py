"""A server says once how long its start took, when it has started. With vLLM's server: test_serve_server.py."""

import asyncio
import re
import time
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest

from vhserve.server.settings import ServerSettings, attach
from vhserve.server.start_time import StartTime


@pytest.mark.parametrize(("rank", "is_said"), [(-1, True), (0, True), (1, False)])
def test_the_first_api_server_says_it_when_it_has_started(
    rank: int, is_said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    said_before_the_end: list[str] = []
    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        said_before_the_end.append(capsys.readouterr().err)
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    arguments = Namespace()
    attach(arguments, ServerSettings(1, 1, started=time.monotonic() - 90.0))
    config = SimpleNamespace(parallel_config=SimpleNamespace(_api_process_rank=rank))
    started = SimpleNamespace(state=SimpleNamespace(args=arguments, vllm_config=config))
    asyncio.run(StartTime(app)({"type": "lifespan", "app": started}, None, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert said_before_the_end == [""]
    found = re.findall(r"^vhserve: note: the server took (\d+\.\d) s to start$", capsys.readouterr().err, re.MULTILINE)
    assert len(found) == is_said
    assert all(90.0 <= float(seconds) < 120.0 for seconds in found)
