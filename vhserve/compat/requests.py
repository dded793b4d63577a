"""A request on its way from an API server to its engine: trials of grammars, refusals, pictures that were sent.

Does not know what is refused. Importing it is cheap.
"""

import logging
import time
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final, NoReturn

_REFUSES: Final = "vhserve_refuses_sessions"


WALK_TOKENS: Final = 64
"""Most tokens that a trial generates by a grammar."""

WALK_SECONDS: Final = 1.0
"""Processor time after which a trial generates no more."""


class SlowToken(ValueError):
    """A token of a structured output takes too long."""


def grammar_trial(vllm_config: Any, token_seconds: float) -> Callable[[Any], None]:
    """A function that does to a request's `SamplingParams` what vLLM does for its structured output, or raises.

    It compiles it, whichever the backend, and generates some tokens at random.

    Parameters
    ----------
    token_seconds
        Processor time that finding out which tokens may come next may take, each time.

    Symptom
        Choices of 200 kB keep an engine's core busy for minutes after their client has left, and all later structured
        outputs wait. Grammars that take long for each token make every request of the engine wait, for each token.
    Cause
        vLLM compiles in threads of the engine, which cannot be ended, and has a time limit for waiting alone. What may
        come next it finds out in its step, which all requests share.
    Removal
        vLLM compiles in processes that it ends after a time, and ends requests whose tokens take too long.

    Call it in a process of its own, for it takes as long as it takes; make it before that one is forked, so that the
    vocabulary is prepared once. An engine keeps the backend of the first structured output that it was asked for, so
    that `auto` may mean another one than this request would have.
    """
    from types import SimpleNamespace

    from vllm.tokenizers import cached_tokenizer_from_config
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.structured_output.request import StructuredOutputRequest

    model, config = vllm_config.model_config, vllm_config.structured_outputs_config
    tokenizer = cached_tokenizer_from_config(model_config=model)
    manager = StructuredOutputManager(vllm_config)
    manager._use_async_grammar_compilation = False
    names = ("xgrammar", "guidance") if config.backend == "auto" else (config.backend,)
    backends = {name: _backend(name, vllm_config, tokenizer) for name in names}

    def compile_with(backend: Any, params: Any) -> None:
        manager.backend = backend
        asked = StructuredOutputRequest.from_sampling_params(params)
        request: Any = SimpleNamespace(structured_output_request=asked, sampling_params=params, request_id="trial")
        manager.grammar_init(request)
        grammar: Any = asked and asked.grammar
        if isinstance(grammar, Exception):
            raise grammar
        if grammar is not None and manager.backend is not None:
            _walk(grammar, manager.backend.allocate_token_bitmask(1), tokenizer, token_seconds)

    def trial(params: Any) -> None:
        params._validate_structured_outputs(model, config, tokenizer)
        own = params.structured_outputs._backend
        compile_with(backends.get(own), params)
        for name, other in backends.items():
            if name != own and other is not None:
                try:
                    compile_with(other, params)
                except SlowToken:
                    raise
                except Exception as error:
                    logging.getLogger("vllm.vhserve").debug("%s would not take it: %s", name, error)

    return trial


def _backend(name: str, vllm_config: Any, tokenizer: Any) -> Any | None:
    """One of vLLM's backends, with the vocabulary; None where it does not take the tokenizer, or is not known here."""
    from importlib import import_module

    modules = {
        "xgrammar": ("backend_xgrammar", "XgrammarBackend"),
        "guidance": ("backend_guidance", "GuidanceBackend"),
        "outlines": ("backend_outlines", "OutlinesBackend"),
        "lm-format-enforcer": ("backend_lm_format_enforcer", "LMFormatEnforcerBackend"),
    }
    if name not in modules:
        return None
    module, symbol = modules[name]
    make = getattr(import_module(f"vllm.v1.structured_output.{module}"), symbol)
    try:
        return make(vllm_config, tokenizer=tokenizer, vocab_size=vllm_config.model_config.get_vocab_size())
    except Exception as error:
        logging.getLogger("vllm.vhserve").debug("%s does not take this tokenizer: %s", name, error)
        return None


def _walk(grammar: Any, allowed: Any, tokenizer: Any, token_seconds: float) -> None:
    """Generate tokens by a grammar, the same ones each time.

    Raises
    ------
    SlowToken
    ValueError
        Nothing can be generated.
    """
    import numpy as np

    draw, begun = Random(0), time.process_time()
    for step in range(WALK_TOKENS):
        before = time.process_time()
        grammar.fill_bitmask(allowed, 0)
        now = time.process_time()
        if now - before > token_seconds:
            raise SlowToken(
                f"token {step + 1} of it takes {now - before:.2g} s; at most {token_seconds:g} s are taken "
                "(--max-grammar-token-seconds)"
            )
        tokens = np.unpackbits(allowed.numpy().view(np.uint8), bitorder="little").nonzero()[0]
        if not len(tokens) and not step:  # vLLM would end such a request with status 500
            raise ValueError("no token of this model can begin it")
        tokens = tokens[(tokens < len(tokenizer)) & (tokens != tokenizer.eos_token_id)]
        if not len(tokens) or now - begun > WALK_SECONDS:
            return
        if not grammar.accept_tokens("trial", [int(draw.choice(tokens))]) or grammar.is_terminated():
            return


def before_adding_requests(engine_client: Any, check: Callable[[str, Any], Coroutine[Any, Any, None]]) -> None:
    """Await `check(request, parameters)` before an API server takes a request in; it may raise by `refuse_request`.

    Symptom
        vLLM converts schemas and regular expressions in the API server's event loop, which answers nobody meanwhile.
    Cause
        The client's `add_request` validates them, in line.
    Removal
        With `grammar_trial`.
    """
    stock = engine_client.add_request

    async def add_request(request_id: str, prompt: Any, params: Any, *rest: Any, **named: Any) -> Any:
        await check(request_id, params)
        return await stock(request_id, prompt, params, *rest, **named)

    engine_client.add_request = add_request


def refuse_request(message: str) -> NoReturn:
    """Raise what vLLM turns into status 400.

    Symptom
        Other exceptions inside a request become status 500.
    Cause
        vLLM tells clients' mistakes by a class that is not among the documented interfaces.
    Removal
        vLLM documents it.
    """
    from vllm.exceptions import VLLMValidationError

    raise VLLMValidationError(message)


def refuse_sessions(scheduler: Any, message: str) -> None:
    """Let the engine of a scheduler refuse sessions, whose input goes on after a reply; not others of the process.

    Symptom
        An exception in a scheduler's `add_request` ends the engine.
    Cause
        A scheduler cannot refuse a request. An exception where the engine makes it of what was sent ends it alone,
        and must come after its images were received: the sender takes them for known.
    Removal
        A scheduler can refuse a request.
    """
    from vllm.v1.engine.core import EngineCore

    setattr(scheduler, _REFUSES, message)
    core_class: Any = EngineCore
    stock = core_class.preprocess_add_request
    if hasattr(stock, _REFUSES):
        return

    def preprocess_add_request(core: Any, request: Any) -> Any:
        made = stock(core, request)
        if request.resumable and hasattr(core.scheduler, _REFUSES):
            refuse_request(getattr(core.scheduler, _REFUSES))
        return made

    setattr(preprocess_add_request, _REFUSES, True)
    core_class.preprocess_add_request = preprocess_add_request


def send_media_until_sent(engine_client: Any, unsent: Any) -> None:
    """Let an API server leave a picture out of a request only when its engine has been sent that picture before.

    Parameters
    ----------
    unsent
        An `UnsentMedia`, empty.

    Symptom
        A valid request gets status 500, and the log says `P0/P1 cache drift`, where one with the same picture was
        refused (a prompt that is too long, a parameter, a grammar), was given up by its client, or is still checked.
    Cause
        The server's cache takes a picture for known to the engine when it has been processed, and not when a request
        has taken it there. Later requests then hold its hash alone.
    Removal
        vLLM's cache of the sender learns of a picture when it is sent.

    The cache's other kinds send data, or its place in shared memory, with every request. A picture is dropped from
    `unsent` between the processing of two requests only: vLLM asks the cache at the beginning and trusts it to the end.
    """
    from vllm.multimodal.cache import LruKeyReplicatedSenderCache
    from vllm.multimodal.cache.base import MultiModalCache

    renderer, engine_core = engine_client.renderer, engine_client.engine_core
    if not isinstance(renderer.mm_processor_cache, LruKeyReplicatedSenderCache):
        return
    cache: Any = renderer.mm_processor_cache
    get, add_request = cache.get_and_update_item, engine_core.add_request_async
    after_processing = renderer.update_mm_cache_stats

    def get_and_update_item(mm_item: Any, mm_hash: str) -> Any:
        item, prompt_updates = get(mm_item, mm_hash)
        if item is None:
            return unsent.get(mm_hash), prompt_updates
        if cache.is_cached_item(mm_hash):
            unsent.keep(mm_hash, item, MultiModalCache.get_item_size(item))
        return item, prompt_updates

    def update_mm_cache_stats() -> None:
        after_processing()
        for key in unsent.drop_excess():
            cache.invalidate(key)

    async def add_request_async(request: Any) -> None:
        await add_request(request)
        for feature in request.mm_features or ():
            if feature.data is not None:
                unsent.forget(feature.mm_hash or feature.identifier)

    cache.get_and_update_item = get_and_update_item
    renderer.update_mm_cache_stats = update_mm_cache_stats
    engine_core.add_request_async = add_request_async
