"""What tests of the image exit do inside an engine: called by name, by the engine host. Judges nothing."""

from typing import Any

from engine_host import BLOCK, Answer, Round, ask
from engine_prompts import IMAGE_TOKEN, EnginePrompt, request
from partial_cases import at
from text_only_probes import QUESTION, TWO, _scheduler

PROMPTS = (
    EnginePrompt(QUESTION, (1,)),
    EnginePrompt(TWO, (1, 2)),
    EnginePrompt("<s>USER: what is there ? <image>", (1,)),
)


def rows_of_layers(engine: Any) -> dict[str, Any]:
    """Rows that the feed-forward network of each layer gets in each step, and what they should be in all."""
    from vhserve.engine.kv_cache.image_spans import image_blocks, image_spans

    assert engine.reset_prefix_cache()
    steps: list[list[int]] = []

    def watch(model: Any) -> None:
        for number, layer in enumerate(model.get_language_model().model.layers):
            layer.mlp.register_forward_pre_hook(lambda _, given, number=number: note(number, given[0]))

    def note(number: int, rows: Any) -> None:
        if number == 0:
            steps.append([])
        steps[-1].append(rows.shape[0])

    engine.apply_model(watch)
    scheduler, prompts = _scheduler(engine), {}
    stock = scheduler.add_request

    def add_request(new: Any) -> None:
        prompts[new.request_id] = new
        stock(new)

    scheduler.add_request = add_request
    tokens = 4
    ask(engine, Round(PROMPTS, tokens=tokens, reset=False))
    scheduler.add_request = stock
    kept = computed = 0
    for one in prompts.values():
        size = scheduler.block_size
        spans = image_spans(one, scheduler.span_rule)
        dropped = {token for first, last in image_blocks(spans, size) for token in range(first * size, last * size)}
        computed += one.num_prompt_tokens + tokens - 1
        kept += one.num_prompt_tokens + tokens - 1 - len(dropped)
    return {"rows": steps, "tokens": computed, "kept": kept, "requests": len(prompts)}


ENDING = (at(15), EnginePrompt(f"{at(30).text}<image>", (2, 4)))
"""Prompts of which the last token fills an image block: its row is one that leaves."""


def going_on(prompt: EnginePrompt) -> EnginePrompt:
    """The prompt with a question behind its image."""
    return EnginePrompt(f"{prompt.text} how many red circles are there ?", prompt.images)


def scored_prompts(engine: Any) -> list[tuple[EnginePrompt, Any]]:
    """Log-probabilities of what follows an image in a prompt, asked for beside requests that don't."""
    from vllm import SamplingParams

    scored = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=20)
    plain = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    asked = [going_on(one) for one in ENDING]
    prompts, wanted = [*asked, *PROMPTS], [scored] * len(asked) + [plain] * len(PROMPTS)
    answers = []
    for image, found in zip(
        ENDING, engine.generate([request(one) for one in prompts], wanted, use_tqdm=False), strict=False
    ):
        ids = list(found.prompt_token_ids)
        start = len(ids) - ids[::-1].index(IMAGE_TOKEN)
        assert start % BLOCK == 0
        rows = [{token: one.logprob for token, one in row.items()} for row in found.prompt_logprobs[start:]]
        answers.append((image, Answer(ids[:start], 0, ids[start:], rows)))
    return answers


def scored_tokens(engine: Any) -> list[tuple[EnginePrompt, Any]]:
    """Log-probabilities of given tokens in the same places, as `prompt_logprob_token_ids` asks for them."""
    from vllm import SamplingParams

    answers = []
    for image, answer in scored_prompts(engine):
        tokens, start = [sorted(row)[:20] for row in answer.log_probs], len(answer.prompt_ids) - 1
        wanted = SamplingParams(max_tokens=1, prompt_logprob_token_ids=tokens, prompt_logprob_start=start)
        (found,) = engine.generate([request(going_on(image))], wanted, use_tqdm=False)
        rows = [
            dict(zip(row, scores.tolist(), strict=True))
            for row, scores in zip(tokens, found.prompt_token_id_logprobs, strict=True)
        ]
        answers.append((image, Answer(answer.prompt_ids, 0, answer.reply_ids, rows)))
    return answers


def layer_of_exit(engine: Any) -> int | None:
    """First layer behind the exit; None for no exit."""

    def find(model: Any) -> int | None:
        decoder = model.get_language_model()
        layers = getattr(decoder, "model", decoder).layers
        return next((number for number, layer in enumerate(layers) if hasattr(layer, "exit_stage")), None)

    found: int | None = engine.apply_model(find)[0]
    return found


def compiled_stages(engine: Any) -> dict[str, bool]:
    """Whether the decoder, and the layers behind the exit, run compiled code."""

    def find(model: Any) -> dict[str, bool]:
        decoder = model.get_language_model().model
        late = next(layer.exit_stage.late_layers for layer in decoder.layers if hasattr(layer, "exit_stage"))
        stages = {"decoder": decoder, "late": late}
        return {name: bool(one.compiled or getattr(one, "aot_compiled_fn", None)) for name, one in stages.items()}

    found: dict[str, bool] = engine.apply_model(find)[0]
    return found
