"""Pictures of requests that never reach the engine, or late: the next request with one of them has it all the same."""

import concurrent.futures
import json
import socket
import time
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
import vllm_media
from engine_host import EngineHost, call
from engine_prompts import image
from live_server import KEY, Reply, Server, data_url, encoded, message, slow_choices
from oracle import TinyModel
from tiny_models import make_tiny_llava

from vhserve.server.unsent_media import UnsentMedia

SEED = 20264
PICTURES = [image(seed, (72, 72)) for seed in range(5)]


def test_what_is_kept_is_bounded_and_goes_in_the_order_in_which_it_came() -> None:
    print("seed", SEED)
    rng, unsent, kept = Random(SEED), UnsentMedia(100), dict[str, int]()
    for number in range(500):
        key, size = str(rng.randrange(20)), rng.randint(1, 60)
        if rng.random() < 0.3:
            unsent.forget(key)
            kept.pop(key, None)
        else:
            kept.pop(key, None)
            kept[key] = size
            unsent.keep(key, (number, key), size)
        expected = []
        while sum(kept.values()) > 100:
            expected.append(next(iter(kept)))
            del kept[expected[-1]]
        assert unsent.drop_excess() == expected
        assert {one for one in map(str, range(20)) if unsent.get(one)} == set(kept)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("model"), layers=1, query_heads=2)


@pytest.mark.vllm
@pytest.mark.timeout(600)
class TestCaches:
    def sent(self, host: EngineHost, model: Path, max_bytes: int | None) -> list[vllm_media.Sent]:
        print("seed", SEED)
        outcome = host.do(call(vllm_media.deliveries, str(model), PICTURES, SEED, 100, max_bytes))
        assert outcome.failure is None, outcome.failure
        sent: list[vllm_media.Sent] = outcome.probed
        assert len(sent) > 30
        return sent

    @pytest.mark.parametrize("max_bytes", [1 << 28, 0], ids=["kept", "dropped"])
    def test_the_engine_has_every_picture(self, max_bytes: int, engine_host: EngineHost, model: Path) -> None:
        values: dict[int, set[float]] = {}
        for numbers, received in self.sent(engine_host, model, max_bytes):
            assert received is not None, numbers
            for number, value in zip(numbers, received, strict=True):
                values.setdefault(number, set()).add(value)
        assert len(set().union(*values.values())) == len(values) == len(PICTURES)

    def test_vllm_alone_misses_some(self, engine_host: EngineHost, model: Path) -> None:
        assert any(received is None for _, received in self.sent(engine_host, model, None))


LATE: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt too long with its picture": ("(512)", {"text": "red " * 450}),
    "image token of the template": ("<image>", {"chat_template_kwargs": {"bos_token": "<image>"}}),
    "grammar": ("structured output refused", {"structured_outputs": {"choice": ["¶"]}}),
    "bias": ("logit_bias", {"logit_bias": {"99999999": 1}}),
    "allowed tokens": ("allowed_token_ids", {"allowed_token_ids": [99_999_999]}),
    "log-probabilities": ("logprobs", {"logprobs": True, "top_logprobs": 1_000}),
    "picture cut": ("truncate_prompt_tokens", {"truncate_prompt_tokens": 20}),
}
"""What the server finds after it has processed a request's picture."""


@pytest.mark.vllm
@pytest.mark.timeout(900)
class TestServer:
    @pytest.fixture(autouse=True)
    def _server(self, server: Server, models: dict[str, TinyModel]) -> None:
        self.server, self.model = server, str(models["gqa"].path)

    def body(self, picture: str, text: str = "how many red ?", **parameters: Any) -> dict[str, Any]:
        asked = {"messages": [message(picture, text=text)], "model": self.model, "max_tokens": 1, "temperature": 0}
        return {**asked, "logprobs": True, "top_logprobs": 8, **parameters}

    def ask(self, picture: str, **parameters: Any) -> Reply:
        return self.server.post(self.body(picture, **parameters))

    def assert_right(self, picture: str, twin: str) -> None:
        """A picture is answered as its twin is, which the server has never seen."""
        answers = [log_probabilities(self.ask(one)) for one in (picture, twin)]
        assert answers[0] == pytest.approx(answers[1], abs=1e-4)

    @pytest.mark.parametrize("name", LATE)
    def test_a_picture_of_a_refused_request(self, name: str) -> None:
        said, parameters = LATE[name]
        picture, twin = twins(600 + list(LATE).index(name))
        for _ in range(2):
            refused = self.ask(picture, **parameters)
            assert refused.status == 400, refused
            assert said in json.loads(refused.text)["error"]["message"]
        self.assert_right(picture, twin)

    def test_a_picture_of_a_request_that_is_given_up(self) -> None:
        rng = Random(SEED)
        for seed in range(620, 626):
            picture, twin = twins(seed)
            address = urlsplit(self.server.url)
            raw = json.dumps(self.body(picture)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
            with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
                connection.sendall(head.encode() + raw)
                time.sleep(rng.random() / 50)
            self.assert_right(picture, twin)

    def test_a_picture_of_a_request_whose_grammar_is_still_tried_out(self) -> None:
        picture, twin = twins(630)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            first = pool.submit(self.ask, picture, structured_outputs={"choice": slow_choices(3)})
            time.sleep(1)
            self.assert_right(picture, twin)
            assert not first.done()
            assert first.result().status in (200, 400)  # as fast as the machine is


def twins(seed: int) -> tuple[str, str]:
    """A picture in two files, which the server's caches take for two."""
    picture = image(seed, (72, 72))
    return data_url(encoded(picture)), data_url(encoded(picture, compress_level=0))


def log_probabilities(reply: Reply) -> dict[str, float]:
    assert reply.status == 200, reply
    first = json.loads(reply.text)["choices"][0]["logprobs"]["content"][0]
    return {one["token"]: one["logprob"] for one in first["top_logprobs"]}
