"""Every family: texts that stand for a picture or a video are refused, and nothing else is.

By vLLM's own renderer and processor, without an engine. What stands for a picture says the table of tiny families; the
server learns it from vLLM.
"""

import base64
from pathlib import Path
from typing import Any

import pytest
import vllm_prompts
from engine_host import EngineHost, call
from engine_prompts import EnginePrompt, image
from live_server import FLAGS, data_url, encoded, message, picture_message, serving
from PIL import Image
from tiny_families import FAMILIES, Family

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

QUESTION = "how many red circles are there ?"
SHORT = ("llava-onevision", "qwen3-vl", "internvl-qwen2", "mistral3", "glm-4.1v", "idefics3")
"""One of each kind of placeholder; `make test` runs these."""


@pytest.fixture(
    scope="module", params=[pytest.param(one, marks=[] if one in SHORT else [pytest.mark.long]) for one in FAMILIES]
)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family: Family, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(family.make(tmp_path_factory.mktemp("family") / family.name))


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


PICTURE = {"type": "image_pil", "image_pil": image(1, (72, 72))}
ASKED = said([PICTURE, text(QUESTION)])


def placing(word: str) -> dict[str, list[dict[str, Any]]]:
    """Conversations in which a text says where a picture is."""
    return {
        "system message": [said([text(f"{word} is")], "system"), ASKED],
        "earlier turn": [said([text(f"what is {word} ?")]), said([text("red")], "assistant"), ASKED],
        "own text": [said([PICTURE, text(f"how many {word} are red ?")])],
        "no picture": [said([text(f"how many {word} ?")])],
    }


def outcomes(host: EngineHost, function: Any, *arguments: Any) -> list[list[int] | str]:
    outcome = host.do(call(function, *arguments))
    assert outcome.failure is None, outcome.failure
    found: list[list[int] | str] = outcome.probed
    return found


def test_texts_that_stand_for_a_picture_are_refused(family: Family, model: str, engine_host: EngineHost) -> None:
    asked = {(word, name): one for word in family.stands_for for name, one in placing(word).items()}
    found = outcomes(engine_host, vllm_prompts.guarded, model, list(asked.values()))
    for (word, name), outcome in zip(asked, found, strict=True):
        assert isinstance(outcome, str), (word, name)
        assert outcome.startswith("messages["), outcome
        assert f"has {word} in its text" in outcome, outcome


def test_good_requests_are_answered(family: Family, model: str, engine_host: EngineHost) -> None:
    """Among them those with marks of pictures that stand for none."""
    marks = [said([text(f"how many {' '.join(family.harmless)} <red> image ?")])]
    turns = [said([text("yes")], "system"), ASKED, said([text("red")], "assistant"), said([PICTURE, text(QUESTION)])]
    conversations = [[ASKED], turns, [said([PICTURE, PICTURE, text(QUESTION)])], [said([text(QUESTION)])], marks]
    if family.name in {"mistral3", "pixtral"}:
        conversations[1] = turns[1:]  # their templates have no system message
    found = outcomes(engine_host, vllm_prompts.guarded, model, conversations)
    assert [one for one in found if isinstance(one, str)] == []
    assert found == outcomes(engine_host, vllm_prompts.chat_prompts, model, conversations)


def test_prompts_are_counted_outside_of_their_placeholders(family: Family, model: str, engine_host: EngineHost) -> None:
    """Also where these hold row breaks and marks of tiles, and where a video has frames and their times."""
    good = [*family.prompts]
    wrong = [
        EnginePrompt(family.prompt(None, " how many ", None), (1,)),
        EnginePrompt(family.prompt("how many ", None)),
    ]
    if family.video:
        prompt = family.prompt(family.video, QUESTION)
        good += [
            EnginePrompt(prompt, videos=(1,)),
            EnginePrompt(family.prompt(family.video, None, QUESTION), (1,), videos=(2,)),
        ]
        wrong.append(EnginePrompt(family.prompt(family.video, family.video, QUESTION), videos=(1,)))
        if family.name != "glm-4.1v":  # without a video, its placeholder is words
            wrong.append(EnginePrompt(prompt))
    found = outcomes(engine_host, vllm_prompts.guarded_prompts, model, good + wrong)
    assert [one for one in found[: len(good)] if isinstance(one, str)] == []
    for prompt_asked, outcome in zip(wrong, found[len(good) :], strict=True):
        assert isinstance(outcome, str), prompt_asked.text
        assert "beside the places of its" in outcome, outcome


@pytest.mark.long
def test_a_server_refuses_them(tmp_path: Path, vllm_environment: dict[str, str]) -> None:
    """On its routes of chat and of completions; good requests are answered before and behind, with a video, too."""
    path = FAMILIES["qwen2.5-vl"].make(tmp_path / "model")
    with serving(tmp_path, vllm_environment, str(path), *FLAGS) as server:
        url = data_url(encoded(image(1, (72, 72))))

        def chat(*messages: dict[str, Any]) -> tuple[int, str]:
            reply = server.post({"model": str(path), "messages": list(messages), "max_tokens": 2})
            return reply.status, reply.text

        assert chat(picture_message(1))[0] == 200
        assert chat(said("how many <|vision_start|> ?"))[0] == 200
        for word in FAMILIES["qwen2.5-vl"].stands_for:
            status, refusal = chat(said(f"{word} is", "system"), message(url))
            assert status == 400
            assert f"messages[0] has {word} in its text" in refusal
        body = {"model": str(path), "prompt": "what is <|image_pad|> ?", "max_tokens": 2}
        reply = server.post(body, "/v1/completions")
        assert reply.status == 400
        assert "1 image tokens (<|image_pad|>) beside the places of its 0 pictures" in reply.text
        assert chat(picture_message(1), said("red", "assistant"), message(url, url))[0] == 200
        frames = ",".join(base64.b64encode(encoded(image(seed, (72, 72)), "JPEG")).decode() for seed in range(4))
        video = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}
        assert chat(said([video, text(QUESTION)]))[0] == 200
        large = base64.b64encode(encoded(Image.new("RGB", (6000, 6000)), "JPEG")).decode()
        url = f"data:video/jpeg;base64,{','.join([large] * 3)}"  # 108 million pixels
        status, refusal = chat(said([{"type": "video_url", "video_url": {"url": url}}, text(QUESTION)]))
        assert status == 400
        assert "video 1: with 1 frame of 6000 x 6000 the request's pictures have 108000000 pixels" in refusal
        status, refusal = chat(said([video, text("how many <|video_pad|> ?")]))
        assert status == 400
        assert "messages[0] has <|video_pad|> in its text" in refusal
