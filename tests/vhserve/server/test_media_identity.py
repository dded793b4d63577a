"""The `uuid` that clients give pictures, at the shared server: it changes no answer, and names nothing."""

import json
from typing import Any

import pytest
from engine_prompts import image
from live_server import QUESTION, Reply, Server, data_url, encoded
from oracle import TinyModel

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def ask(server: Server, model: str, seed: int | None, uuid: str | None = None) -> Reply:
    """Log-probabilities of a first token, asked with the picture of a seed, or with none."""
    part: dict[str, Any] = {"type": "image_url", "image_url": None}
    if seed is not None:
        part["image_url"] = {"url": data_url(encoded(image(seed, (72, 72))))}
    if uuid is not None:
        part["uuid"] = uuid
    return server.post(
        {
            "model": model,
            "messages": [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 8,
        }
    )


def log_probabilities(reply: Reply) -> dict[str, float]:
    assert reply.status == 200, reply.text
    first = json.loads(reply.text)["choices"][0]["logprobs"]["content"][0]
    return {one["token"]: one["logprob"] for one in first["top_logprobs"]}


def test_pictures_of_one_uuid_are_answered_for_themselves(server: Server, models: dict[str, TinyModel]) -> None:
    model = str(models["gqa"].path)
    mine, theirs = (log_probabilities(ask(server, model, seed)) for seed in (501, 502))
    assert mine != pytest.approx(theirs, abs=1e-3)
    assert log_probabilities(ask(server, model, 501, "the-cat")) == pytest.approx(mine, abs=1e-5)
    assert log_probabilities(ask(server, model, 502, "the-cat")) == pytest.approx(theirs, abs=1e-5)


def test_a_uuid_without_its_picture_is_refused(server: Server, models: dict[str, TinyModel]) -> None:
    model = str(models["gqa"].path)
    assert ask(server, model, 503, "the-dog").status == 200
    refused = ask(server, model, None, "the-dog")
    assert refused.status == 400, refused
    assert "--trust-client-media-uuid" in json.loads(refused.text)["error"]["message"]


def test_a_picture_that_comes_again_is_still_read_from_the_cache(server: Server, models: dict[str, TinyModel]) -> None:
    model = str(models["gqa"].path)
    ask(server, model, 504, "first")
    before = server.value("vllm:prefix_cache_hits_total", engine="0", model_name=model)
    ask(server, model, 504, "second")
    server.wait_for("vllm:prefix_cache_hits_total", lambda hits: hits >= before + 64, engine="0", model_name=model)
