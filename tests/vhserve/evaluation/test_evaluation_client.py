"""Asking an endpoint: order, bounds, and every way to fail, against a scripted endpoint over real HTTP."""

import base64
import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image
from scripted_endpoint import endpoint, question_of

from calibrate.datasets import open_dataset
from calibrate.datasets.synthetic import samples
from vhserve.evaluation.client import RequestLimits, ask_all
from vhserve.evaluation.errors import (
    BaseUrlInvalid,
    ModelNotServed,
    ServerLost,
    ServerRefused,
    ServerUnreachable,
)
from vhserve.evaluation.results import Answer
from vhserve.evaluation.server import identify
from vhserve.evaluation.server_metrics import MetricsPage, kv_capacity, metrics_text

FAST = RequestLimits(concurrency=4, timeout=5, max_tokens=3)
# The endpoint tells samples apart by their question.
SAMPLES = list({sample.question: sample for sample in samples(32)}.values())[:24]
RIGHT = {sample.question: sample.answer for sample in SAMPLES}


def test_answers_come_in_the_order_of_the_samples() -> None:
    lock, count = threading.Lock(), iter(range(100))

    def answer(request):
        with lock:
            number = next(count)
        time.sleep(0.03 * (number % 3))  # later requests overtake
        return RIGHT[question_of(request)]

    with endpoint(answer) as here:
        answers = ask_all(identify(here.base_url, None, "none"), SAMPLES, limits=FAST, api_key="none")
    assert [one.id for one in answers] == [one.id for one in SAMPLES]
    assert {one.outcome for one in answers} == {"correct"}
    assert [one.answer for one in answers] == [one.answer for one in SAMPLES]
    assert 1 < here.most_in_flight <= FAST.concurrency


def test_a_request_is_what_the_contract_says() -> None:
    with endpoint() as here:
        ask_all(identify(here.base_url, None, "none"), SAMPLES[:1], limits=FAST, api_key="none")
    (request,) = here.seen
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("m", 0, 3)
    (message,) = request["messages"]
    picture, text = message["content"]
    assert message["role"] == "user"
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": SAMPLES[0].question}


def test_a_picture_that_has_a_file_is_sent_as_that_file(tmp_path) -> None:
    photo, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((400, 300), 60).convert("RGB").save(photo, quality=90, exif=exif)
    line = {"image": photo.name, "question": "?", "answer": "yes", "options": ["yes", "no"], "box": [0, 350, 300, 400]}
    (tmp_path / "photos.jsonl").write_text(json.dumps(line))
    dataset = open_dataset(str(tmp_path / "photos.jsonl"), samples=1, seed=0)
    with endpoint() as here:
        ask_all(identify(here.base_url, None, "none"), dataset, limits=FAST, api_key="none")
    (request,) = here.seen
    sent = request["messages"][0]["content"][0]["image_url"]["url"]
    assert sent == f"data:image/jpeg;base64,{base64.b64encode(photo.read_bytes()).decode()}"
    (sample,) = dataset
    assert (sample.image.size, sample.box) == ((300, 400), (0, 350, 300, 400))


def test_a_picture_behind_the_question_is_sent_behind_it() -> None:
    with endpoint() as here:
        last = replace(SAMPLES[0], picture_last=True)
        ask_all(identify(here.base_url, None, "none"), [last], limits=FAST, api_key="none")
    (request,) = here.seen
    assert [part["type"] for part in request["messages"][0]["content"]] == ["text", "image_url"]


def test_a_failed_request_is_an_error_and_the_rest_goes_on() -> None:
    bad = {SAMPLES[3].question: 500, SAMPLES[5].question: 400}
    with endpoint(lambda request: bad.get(question_of(request), "nothing I know")) as here:
        seen: list[Answer] = []
        server = identify(here.base_url, None, "none")
        answers = ask_all(server, SAMPLES, limits=FAST, api_key="none", advance=seen.append)
    failed = {number for number, sample in enumerate(SAMPLES) if sample.question in bad}
    assert {number for number, one in enumerate(answers) if one.outcome == "error"} == failed
    assert "status 500" in answers[3].error
    assert "scripted 400" in answers[5].error
    assert answers[3].reply is None
    assert {one.outcome for one in answers if one.error is None} == {"off_list"}
    assert sorted(one.id for one in seen) == sorted(one.id for one in SAMPLES)
    assert len(here.seen) == len(SAMPLES)  # no retries


def test_a_slow_request_fails_by_its_timeout() -> None:
    def answer(request):
        if question_of(request) == SAMPLES[0].question:
            time.sleep(1.0)
        return "1"

    with endpoint(answer) as here:
        server = identify(here.base_url, None, "none")
        limits = RequestLimits(concurrency=2, timeout=0.3, max_tokens=1)
        slow, other = ask_all(server, [SAMPLES[0], SAMPLES[1]], limits=limits, api_key="none")
    assert slow.outcome == "error"
    assert "Timeout" in slow.error
    assert other.outcome != "error"


def test_a_dead_server_ends_the_run() -> None:
    with endpoint(lambda request: 503) as here:
        server = identify(here.base_url, None, "none")
        with pytest.raises(ServerLost, match="status 503"):
            ask_all(server, samples(500), limits=FAST, api_key="none")
    assert len(here.seen) < 50


def test_identify_takes_the_only_model_and_reads_the_plan() -> None:
    metrics = 'vhserve_plan_info{digest="sha256:12",model="org/m",revision="abc"} 1.0\n'
    with endpoint(metrics=metrics) as here:
        server = identify(here.base_url + "/", None, "none")
    assert (server.model, server.plan_digest, server.plan_model, server.plan_revision) == (
        "m",
        "sha256:12",
        "org/m",
        "abc",
    )
    with endpoint(metrics="<html>not metrics {") as here:
        assert identify(here.base_url, "m", "none").plan_digest is None


def test_identify_wants_a_name_when_several_are_served() -> None:
    with endpoint(models=("one", "two")) as here:
        assert identify(here.base_url, "two", "none").model == "two"
        for name in (None, "three"):
            with pytest.raises(ModelNotServed, match="one, two"):
                identify(here.base_url, name, "none")


def test_identify_names_what_is_wrong_with_a_server() -> None:
    with endpoint(key="right") as here:
        assert identify(here.base_url, None, "right").model == "m"
        with pytest.raises(ServerRefused, match="401"):
            identify(here.base_url, None, "wrong")
        for address in (here.base_url.removesuffix("/v1"), here.base_url + "/v2"):
            with pytest.raises(ServerUnreachable, match="/v1"):
                identify(address, None, "right")
        gone = here.base_url
    with pytest.raises(ServerUnreachable, match="refused"):
        identify(gone, None, "right")
    for address in ("127.0.0.1:8000", "ftp://127.0.0.1/v1", "http://", ""):
        with pytest.raises(BaseUrlInvalid):
            identify(address, None, "none")


def test_kv_capacity_adds_engines_up_and_survives_their_absence() -> None:
    text = (
        'vllm:cache_config_info{block_size="32",engine="0",kv_cache_size_tokens="3100",num_gpu_blocks="100"} 1.0\n'
        'vllm:cache_config_info{block_size="32",engine="1",kv_cache_size_tokens="None",num_gpu_blocks="100"} 1.0\n'
        'vhserve_kv_cache_bytes_per_token{arm="baseline"} 24576.0\n'
        'vhserve_kv_cache_bytes_per_token{arm="pruned"} 22528.0\n'
        'vhserve_kv_cache_capacity_requests{prompt="image"} 60.5\n'
    )
    with endpoint(metrics=text) as here:
        found = kv_capacity(metrics_text(here.base_url))
    assert found.tokens == 3100 + 3200  # the first engine's greatest length is no multiple of its blocks
    assert found.bytes_per_token == {"baseline": 24576, "pruned": 22528}
    assert found.prompts == {"image": 60.5}
    assert found.prompts_of(70) == (100 + 100 - 2) / 3
    assert kv_capacity("").tokens is None
    assert kv_capacity("").prompts_of(70) is None


def test_metrics_of_a_server_that_has_none_or_is_gone_are_empty() -> None:
    with endpoint(metrics="up 1\n") as here:
        assert metrics_text(here.base_url) == "up 1\n"
        with MetricsPage(here.base_url) as page:
            assert [page.text(), page.text()] == ["up 1\n"] * 2
    assert metrics_text(here.base_url) == ""
    assert metrics_text("http://127.0.0.1:99999/v1") == ""  # no port
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # answers 501 to every request
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        assert metrics_text(f"http://127.0.0.1:{server.server_port}/v1") == ""
        server.shutdown()
        thread.join()


def test_metrics_are_read_through_the_environments_proxy_but_for_this_machines(monkeypatch) -> None:
    with endpoint(metrics="up 1\n") as proxy, endpoint(metrics="up 2\n") as here:
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        assert metrics_text("http://server.invalid:8000/v1") == "up 1\n"
        assert metrics_text(here.base_url) == "up 2\n"
