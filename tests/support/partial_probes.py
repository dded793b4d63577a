"""What tests of evicted and thinned heads do inside an engine, beyond asking it: called by name, by the engine host.

Each takes a `vllm.LLM` and returns plain values. Judges nothing.
"""

from typing import Any

from engine_host import Answer, Round, ask
from engine_prompts import IMAGE_TOKEN, EnginePrompt, request
from text_only_probes import QUESTION, TWO, _add, _count_preemptions, _held, _scheduler

ADJACENT = EnginePrompt("<s>USER: <image><image>\nhow many red circles are there ? ASSISTANT:", (1, 2))
"""With four image blocks in a row, of which those that keep every second one drop two."""


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
    """Blocks of one request with one image and three adjacent ones, group by group, after every step."""
    from vhserve.engine.kv_cache.image_spans import image_spans
    from vhserve.engine.kv_cache.spec import treatment_name

    assert engine.reset_prefix_cache()
    scheduler = _scheduler(engine)
    config = scheduler.kv_cache_config
    before = _held(engine)["free"]
    _add(engine, "life", "<s>USER: is <image> like <image><image><image> ? ASSISTANT:", (1, 2, 5, 3), tokens=40)
    steps = []
    while engine.llm_engine.has_unfinished_requests():
        engine.llm_engine.step()
        for one in scheduler.requests.values():
            steps.append(
                {
                    "computed": one.num_computed_tokens,
                    "tables": [list(table) for table in scheduler.kv_cache_manager.get_block_ids(one.request_id)],
                    "taken": before - _held(engine)["free"],
                    "prompt": one.num_prompt_tokens,
                    "spans": image_spans(one, scheduler.span_rule),
                }
            )
    return {
        "treatments": [treatment_name(group.kv_cache_spec) for group in config.kv_cache_groups],
        "steps": steps,
        "held": _held(engine),
    }


def other_ways_to_ask(engine: Any) -> dict[str, Any]:
    """Several replies to one prompt, a beam search, a reply that is scored as a prompt; and a
    session.
    """
    return {
        "several": _several_replies(engine),
        "beams": _beams(engine),
        "scored": _scored_reply(engine),
        "session": refused_session(engine),
    }


def _answer(reply: Any, prompt_ids: list[int]) -> Answer:
    """What vLLM says of one reply."""
    rows = [{token: entry.logprob for token, entry in row.items()} for row in reply.logprobs]
    return Answer(prompt_ids, 0, list(reply.token_ids), rows)


def _several_replies(engine: Any) -> list[tuple[EnginePrompt, Answer]]:
    """Four replies to one prompt, drawn at a temperature; log-probabilities are those of temperature 1."""
    from vllm import SamplingParams

    prompt = EnginePrompt(TWO, (1, 2))
    wanted = SamplingParams(
        n=4, temperature=1, seed=3, max_tokens=40, logprobs=20, ignore_eos=True, logit_bias={IMAGE_TOKEN: -100.0}
    )
    (replies,) = engine.generate([request(prompt)], wanted, use_tqdm=False)
    return [(prompt, _answer(one, list(replies.prompt_token_ids))) for one in replies.outputs]


def _beams(engine: Any) -> list[tuple[EnginePrompt, Answer]]:
    from vllm.sampling_params import BeamSearchParams

    tokens = 8
    wanted = BeamSearchParams(beam_width=2, max_tokens=tokens, ignore_eos=True)
    (found,) = engine.beam_search([request(ADJACENT)], wanted)
    answers = []
    for beam in found.sequences:
        rows = [{token: entry.logprob for token, entry in row.items()} for row in beam.logprobs]
        answers.append((ADJACENT, Answer(beam.tokens[:-tokens], 0, beam.tokens[-tokens:], rows)))
    return answers


def _scored_reply(engine: Any) -> list[tuple[EnginePrompt, Answer]]:
    """The log-probabilities of a reply's tokens, as those of a prompt that contains them."""
    from vllm import SamplingParams

    (said,) = ask(engine, Round((ADJACENT,), tokens=40))
    words = " ".join(engine.get_tokenizer().convert_ids_to_tokens(said.reply_ids))
    wanted = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=20)
    asked = request(EnginePrompt(f"{ADJACENT.text} {words}", ADJACENT.images))
    (scored,) = engine.generate([asked], wanted, use_tqdm=False)
    start = len(said.prompt_ids)
    assert list(scored.prompt_token_ids) == said.prompt_ids + said.reply_ids
    rows = [{token: entry.logprob for token, entry in row.items()} for row in scored.prompt_logprobs[start:]]
    return [(ADJACENT, Answer(said.prompt_ids, 0, said.reply_ids, rows))]


def refused_session(engine: Any) -> str:
    """What is said to a request whose input is to go on; and then everything is served as before."""
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    wanted, core = SamplingParams(temperature=0, max_tokens=2), engine.llm_engine
    first = core.input_processor.process_inputs(
        "session", request(ADJACENT), wanted, supported_tasks=("generate",), resumable=True
    )
    try:
        core.engine_core.add_request(first)
    except VLLMValidationError as error:
        (reply,) = engine.generate([request(ADJACENT)], wanted, use_tqdm=False)
        assert len(reply.outputs[0].token_ids) == 2
        return str(error)
    return ""


def reuse(engine: Any) -> dict[str, Any]:
    """Requests of which the next fits when the one before gives its image blocks back.

    Returns
    -------
    The answers, and how many blocks were given to another request in the step of the scheduler that freed them.
    """
    from vhserve.engine.kv_cache.manager import partial_managers

    scheduler = _scheduler(engine)
    pool = scheduler.kv_cache_manager.block_pool
    freed: dict[int, int] = {}
    reused = 0
    take = pool.get_new_blocks

    def noting(manager: Any) -> None:
        remove = manager.remove_skipped_blocks

        def remove_skipped_blocks(request_id: str, *args: Any, **options: Any) -> None:
            before = [block.block_id for block in manager.req_to_blocks.get(request_id, ())]
            remove(request_id, *args, **options)
            after = [block.block_id for block in manager.req_to_blocks.get(request_id, ())]
            freed.update({old: scheduler.current_step for old, new in zip(before, after, strict=True) if old != new})

        manager.remove_skipped_blocks = remove_skipped_blocks

    def get_new_blocks(count: int) -> Any:
        nonlocal reused
        blocks = take(count)
        reused += sum(freed.get(block.block_id) == scheduler.current_step for block in blocks)
        return blocks

    for manager in partial_managers(scheduler.kv_cache_manager):
        noting(manager)
    pool.get_new_blocks = get_new_blocks
    prompts = tuple(EnginePrompt(TWO, (seed, 10 + seed)) for seed in range(5))
    answers = ask(engine, Round(prompts, tokens=30))
    return {"answers": list(zip(prompts, answers, strict=True)), "reused": reused, "held": _held(engine)}


def half_computed_prompts(engine: Any) -> dict[str, Any]:
    """Requests with images, all at once; fails when they take ten times as many steps as there are tokens.

    Returns
    -------
    The answers, the steps that they took, and how many prompts were half computed at a time at most.
    """
    from vllm import SamplingParams

    scheduler = _scheduler(engine)
    prompts = [EnginePrompt(TWO, (seed, 10 + seed)) for seed in range(5)]
    wanted = SamplingParams(
        temperature=0, max_tokens=12, logprobs=20, ignore_eos=True, logit_bias={IMAGE_TOKEN: -100.0}
    )
    for number, prompt in enumerate(prompts):
        engine.llm_engine.add_request(f"{number}", request(prompt), wanted)
    answers: dict[int, tuple[EnginePrompt, Answer]] = {}
    steps = together = tokens = 0
    while engine.llm_engine.has_unfinished_requests():
        steps += 1
        assert steps < 10 * 200 * len(prompts), "they wait for each other"
        for output in engine.llm_engine.step():
            if output.finished:
                number, tokens = int(output.request_id), len(output.prompt_token_ids)
                answers[number] = (prompts[number], _answer(output.outputs[0], list(output.prompt_token_ids)))
        half = [0 < one.num_computed_tokens < one.num_prompt_tokens for one in scheduler.requests.values()]
        together = max(together, sum(half))
    return {
        "answers": [answers[number] for number in sorted(answers)],
        "requests": len(prompts),
        "steps": steps,
        "together": together,
        "tokens": tokens,
        "held": _held(engine),
    }


def preempt_mid_reply(engine: Any) -> dict[str, Any]:
    """Preempt everything twice in the middle of replies, once with the cache kept; then ask the same again.

    Returns
    -------
    Replies of the disturbed requests and of the same requests undisturbed.
    """
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


def structured(engine: Any) -> dict[str, Any]:
    """Replies by a regular expression, more at once than the pool holds: each with the texts that it allows."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    assert engine.reset_prefix_cache()
    scheduler = _scheduler(engine)
    preempted = _count_preemptions(scheduler)
    prompts = [EnginePrompt(QUESTION, (1,)), EnginePrompt(TWO, (1, 2)), EnginePrompt(QUESTION, (4,))] * 2
    words, tokens = ("red", "many", "yes", "there"), 80  # none begins with another word of the vocabulary
    wanted = SamplingParams(
        temperature=0,
        max_tokens=tokens,
        logprobs=20,
        structured_outputs=StructuredOutputsParams(regex=f"({'|'.join(words)}){{{tokens}}}"),
    )
    replies = engine.generate([request(prompt) for prompt in prompts], wanted, use_tqdm=False)
    return {
        "answers": [
            (prompt, _answer(one.outputs[0], list(one.prompt_token_ids)))
            for prompt, one in zip(prompts, replies, strict=True)
        ],
        "allowed": [engine.get_tokenizer().convert_tokens_to_ids(word) for word in words],
        "preempted": preempted[0],
        "held": _held(engine),
    }
