"""`/health` tells an engine that is stuck in a structured output from one that is idle, busy or dead."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from vhserve.server import engine_silence
from vhserve.server.engine_silence import EngineSilence
from vhserve.server.grammar_check import GrammarCheck


class Engine:
    """An engine's client as an API server has it; the engine answers, and puts something out, when it is told to."""

    def __init__(self) -> None:
        self.answers, self.puts_out = asyncio.Event(), asyncio.Event()
        self.output_processor = SimpleNamespace(external_req_ids={})
        self.engine_core = SimpleNamespace(get_output_async=self.puts_out.wait)
        self.asked = 0

    async def is_sleeping(self) -> bool:
        self.asked += 1
        await self.answers.wait()
        return False


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_silence, "STUCK_SECONDS", 0.05)
    monkeypatch.setattr(engine_silence, "ANSWER_SECONDS", 0.05)


async def health(silence: EngineSilence) -> list[Any]:
    """What a server answers to `/health`; an empty list where it is left to vLLM."""
    sent: list[Any] = []

    async def vllm(scope: Any, receive: Any, send: Any) -> None: ...

    async def send(message: Any) -> None:
        sent.append(message)

    check = GrammarCheck(vllm)
    check.silence = silence
    for path in ("/metrics", "/v1/chat/completions"):
        await check({"type": "http", "path": path, "method": "GET"}, None, send)
        assert sent == []
    await check({"type": "http", "path": "/health", "method": "GET"}, None, send)
    return sent


def test_an_engine_that_neither_puts_out_nor_answers_is_stuck_until_it_does() -> None:
    async def run() -> None:
        engine = Engine()
        silence = EngineSilence(engine)
        silence.ask("r")
        engine.output_processor.external_req_ids["r"] = ["r-0"]
        assert await health(silence) == []
        await asyncio.sleep(0.06)
        said = await health(silence)
        assert said[0]["status"] == 503
        assert b"structured outputs" in said[1]["body"]
        del engine.output_processor.external_req_ids["r"]  # its client leaves; the engine stays where it is
        assert (await health(silence))[0]["status"] == 503
        assert engine.asked == 1
        engine.answers.set()
        assert await health(silence) == []
        await asyncio.sleep(0.06)
        assert await health(silence) == []
        assert engine.asked == 1  # nothing is asked for any more

    asyncio.run(run())


def test_outputs_are_heard() -> None:
    async def run() -> None:
        engine = Engine()
        silence = EngineSilence(engine)
        silence.ask("r")
        engine.output_processor.external_req_ids["r"] = ["r-0"]
        await asyncio.sleep(0.06)
        engine.puts_out.set()
        await engine.engine_core.get_output_async()
        assert await health(silence) == []
        assert engine.asked == 0
        assert silence.structured == {"r"}

    asyncio.run(run())


def test_an_idle_engine_and_one_without_structured_outputs_are_not_stuck() -> None:
    async def run() -> None:
        engine = Engine()
        silence = EngineSilence(engine)
        engine.output_processor.external_req_ids["long prompt"] = ["long prompt-0"]
        await asyncio.sleep(0.06)
        assert await health(silence) == []
        silence.ask("refused by vLLM")
        await asyncio.sleep(0.06)
        engine.answers.set()
        assert await health(silence) == []
        assert silence.structured == set()

    asyncio.run(run())
