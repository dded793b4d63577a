"""Sessions, whose input goes on after a reply, in an engine: called by name, by the engine host. Judges nothing."""

from typing import Any

from engine_host import BLOCK, Answer
from engine_prompts import IMAGE_TOKEN, EnginePrompt, request
from partial_cases import WORDS
from text_only_probes import _scheduler

REPLY = 4
"""Tokens of the first reply, of which the last is no part of what follows."""
FIRST = f"<s>{' '.join((WORDS * 8)[: 2 * BLOCK - REPLY])}"
GOES_ON = "<image> how many red circles are there ?"


def image_behind_a_reply(engine: Any) -> dict[str, Any]:
    """A session that goes on with an image where a block begins, after a reply that a stop token has ended.

    `asked` and `answer` are of all that was said as one prompt; `held` and `taken` are blocks that its request holds,
    as admission counts them and by the pool.
    """
    from vllm import SamplingParams

    from vhserve.engine.admission.holders import Holders

    core, scheduler = engine.llm_engine, _scheduler(engine)
    client, tokenizer = core.engine_core, engine.get_tokenizer()
    words = tokenizer.convert_tokens_to_ids(WORDS)

    def send(prompt: EnginePrompt, **wanted: Any) -> list[int]:
        given = SamplingParams(temperature=0, logprobs=20, ignore_eos=True, **wanted)
        made = core.input_processor.process_inputs(
            "session", request(prompt), given, supported_tasks=("generate",), resumable=True
        )
        client.add_request(made)
        return list(made.prompt_token_ids)

    def received(tokens: int) -> tuple[list[int], list[dict[int, float]]]:
        ids: list[int] = []
        rows = []
        while len(ids) < tokens:
            for output in client.get_output().outputs:
                ids += output.new_token_ids
                found = output.new_logprobs
                rows += [
                    dict(zip(map(int, of_row), map(float, values), strict=True))
                    for of_row, values in zip(found.logprob_token_ids, found.logprobs, strict=True)
                ]
        return ids, rows

    (reply,) = engine.generate([FIRST], SamplingParams(temperature=0, max_tokens=REPLY, allowed_token_ids=words))
    said = list(reply.outputs[0].token_ids)
    assert said[-1] not in said[:-1]
    assert engine.reset_prefix_cache()
    holders = Holders(scheduler.kv_cache_manager, scheduler.requests, scheduler.max_model_len)
    prompt_ids = send(EnginePrompt(FIRST), max_tokens=20, allowed_token_ids=words, stop_token_ids=said[-1:])
    assert received(REPLY)[0] == said
    holders.running()
    prompt_ids += said[:-1]
    assert len(prompt_ids) == 2 * BLOCK
    prompt_ids += send(EnginePrompt(GOES_ON, (1,)), max_tokens=6, logit_bias={IMAGE_TOKEN: -100.0})
    ids, rows = received(4)
    held = {"held": sum(one.held for one in holders.running()), "taken": holders.used}
    received(2)
    client.abort_requests(["session"])
    while core.engine_core.engine_core.scheduler.requests:
        client.get_output()
    text = f"{FIRST} {' '.join(tokenizer.convert_ids_to_tokens(said[:-1]))}{GOES_ON}"
    return {"asked": EnginePrompt(text, (1,)), "answer": Answer(prompt_ids, 0, ids[:4], rows[:4]), **held}
