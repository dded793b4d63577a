"""What tests of evicted and thinned heads do inside an engine, beyond asking it: called by name, by the engine host.

Each takes a `vllm.LLM` and returns plain values. Judges nothing.
"""

from typing import Any

from engine_host import Answer, EnginePrompt, Round, ask
from text_only_probes import QUESTION, TWO, _add, _held, _scheduler


def follow_ups(engine: Any) -> list[tuple[EnginePrompt, Answer]]:
    """A reply of several blocks; a prompt that contains it; a longer one that may find what both left in the cache.

    And the first prompt again, whose reply may find its own blocks, and those that were computed as a prompt.
    """
    tokenizer = engine.get_tokenizer()
    asked = EnginePrompt(QUESTION, (1,))
    (first,) = ask(engine, Round((asked,), tokens=70))
    said = " ".join(tokenizer.convert_ids_to_tokens(first.reply_ids))
    done = [(asked, first)]
    for rest in ("", " how many red circles", " how many red circles are there in the picture"):
        prompt = EnginePrompt(f"{QUESTION} {said}{rest}", (1,))
        (answer,) = ask(engine, Round((prompt,), tokens=6, reset=False))
        # The last token of a reply is no part of its blocks, nor of what follows where the prompt has it.
        assert answer.prompt_ids[: len(first.prompt_ids) + 70] == first.prompt_ids + first.reply_ids
        done.append((prompt, answer))
    (again,) = ask(engine, Round((asked,), tokens=70, reset=False))
    return [*done, (asked, again)]


def life(engine: Any) -> dict[str, Any]:
    """Blocks of one request with two images, group by group, after every step."""
    from vhserve.engine.kv_cache.image_spans import image_spans
    from vhserve.engine.kv_cache.spec import treatment_name

    assert engine.reset_prefix_cache()
    scheduler = _scheduler(engine)
    config = scheduler.kv_cache_config
    before = _held(engine)["free"]
    _add(engine, "life", TWO, (1, 2), tokens=40)
    steps = []
    while engine.llm_engine.has_unfinished_requests():
        engine.llm_engine.step()
        for request in scheduler.requests.values():
            steps.append(
                {
                    "computed": request.num_computed_tokens,
                    "tables": [list(table) for table in scheduler.kv_cache_manager.get_block_ids(request.request_id)],
                    "taken": before - _held(engine)["free"],
                    "prompt": request.num_prompt_tokens,
                    "spans": image_spans(request),
                }
            )
    return {
        "treatments": [treatment_name(group.kv_cache_spec) for group in config.kv_cache_groups],
        "steps": steps,
        "held": _held(engine),
    }


def several_replies(engine: Any) -> list[tuple[EnginePrompt, Answer]]:
    """Four replies to one prompt, drawn at a temperature; log-probabilities are those of temperature 1."""
    from engine_host import IMAGE_TOKEN, request
    from vllm import SamplingParams

    prompt = EnginePrompt(TWO, (1, 2))
    wanted = SamplingParams(
        n=4, temperature=1, seed=3, max_tokens=40, logprobs=20, ignore_eos=True, logit_bias={IMAGE_TOKEN: -100.0}
    )
    (replies,) = engine.generate([request(prompt)], wanted, use_tqdm=False)
    return [
        (
            prompt,
            Answer(
                list(replies.prompt_token_ids),
                0,
                list(one.token_ids),
                [{token: entry.logprob for token, entry in row.items()} for row in one.logprobs],
            ),
        )
        for one in replies.outputs
    ]


def preempt_mid_reply(engine: Any) -> dict[str, Any]:
    """Preempt everything twice in the middle of replies, once with the cache kept; then ask the same again.

    Returns
    -------
    Replies of the disturbed requests and of the same requests undisturbed.
    """
    from engine_host import request
    from vllm import SamplingParams

    prompts = [EnginePrompt(QUESTION, (1,)), EnginePrompt(TWO, (1, 2)), EnginePrompt(TWO, (2, 5))]
    wanted = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)

    def run(name: str, disturb: bool) -> list[list[int]]:
        scheduler = _scheduler(engine)
        for number, prompt in enumerate(prompts):
            engine.llm_engine.add_request(f"{name}-{number}", request(prompt), wanted)
        replies: dict[str, list[int]] = {}
        step = 0
        while engine.llm_engine.has_unfinished_requests():
            for output in engine.llm_engine.step():
                replies[output.request_id] = list(output.outputs[0].token_ids)
            step += 1
            if disturb and step in (15, 40):
                assert scheduler.reset_prefix_cache(reset_running_requests=True) in (True, False)
        return [replies[f"{name}-{number}"] for number in range(len(prompts))]

    assert engine.reset_prefix_cache()
    calm = run("calm", disturb=False)
    return {"calm": calm, "disturbed": run("disturbed", disturb=True), "held": _held(engine)}


def resumed_with_a_shorter_hit(engine: Any) -> str:
    """A prompt that is cached begins its reply, and is preempted with the cache forgotten; what its end was."""
    from engine_host import request
    from vllm import SamplingParams

    assert engine.reset_prefix_cache()
    scheduler, two = _scheduler(engine), request(EnginePrompt(TWO, (1, 2)))
    engine.generate([two], SamplingParams(temperature=0, max_tokens=1), use_tqdm=False)
    engine.llm_engine.add_request("again", two, SamplingParams(temperature=0, max_tokens=12, ignore_eos=True))
    reply: list[int] = []
    preempted = False
    try:
        while engine.llm_engine.has_unfinished_requests():
            for output in engine.llm_engine.step():
                reply = list(output.outputs[0].token_ids)
            if len(reply) == 3 and not preempted:
                preempted = True
                scheduler.reset_prefix_cache(reset_running_requests=True)
    except RuntimeError as error:
        return str(error)
    return f"{len(reply)} tokens"
