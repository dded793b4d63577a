"""A request on its way from an API server to its engine: trials of grammars, refusals, pictures that were sent.

Does not know what is refused. Importing it is cheap.
"""

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

_REFUSES: Final = "vhserve_refuses"


def grammar_trial(vllm_config: Any) -> Callable[[Any], None]:
    """A function that does to a request's `SamplingParams` what vLLM does to compile its structured output, or raises.

    Symptom
        Choices of 200 kB keep an engine's core busy for minutes after their client has left, and all later structured
        outputs wait.
    Cause
        vLLM compiles in threads of the engine, which cannot be ended, and has a time limit for waiting alone.
    Removal
        vLLM compiles in processes that it ends after a time.

    Call it in a process of its own, for it takes as long as it takes; make it before that one is forked, so that the
    vocabulary is prepared once. An engine keeps the backend of the first structured output that it was asked for, which
    may be xgrammar where this request would have another.
    """
    from types import SimpleNamespace

    from vllm.tokenizers import cached_tokenizer_from_config
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
    from vllm.v1.structured_output.request import StructuredOutputRequest

    model, config = vllm_config.model_config, vllm_config.structured_outputs_config
    tokenizer = cached_tokenizer_from_config(model_config=model)
    manager = StructuredOutputManager(vllm_config)
    manager._use_async_grammar_compilation = False
    xgrammar = XgrammarBackend(vllm_config, tokenizer=tokenizer, vocab_size=model.get_vocab_size())

    def compile_with(backend: Any, params: Any) -> None:
        manager.backend = backend
        asked = StructuredOutputRequest.from_sampling_params(params)
        request: Any = SimpleNamespace(structured_output_request=asked, sampling_params=params, request_id="trial")
        manager.grammar_init(request)
        grammar: Any = asked and asked.grammar
        if isinstance(grammar, Exception):
            raise grammar
        if grammar is not None and manager.backend is not None:
            grammar.fill_bitmask(allowed := manager.backend.allocate_token_bitmask(1), 0)
            if not allowed.any():  # vLLM would end such a request with status 500
                raise ValueError("no token of this model can begin it")

    def trial(params: Any) -> None:
        params._validate_structured_outputs(model, config, tokenizer)
        if params.structured_outputs._backend == "xgrammar":
            compile_with(xgrammar, params)
        else:
            compile_with(None, params)
            with contextlib.suppress(Exception):
                compile_with(xgrammar, params)

    return trial


def before_adding_requests(engine_client: Any, check: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Await `check(parameters)` before an API server takes a request in; it may raise by `refuse_request`.

    Symptom
        vLLM converts schemas and regular expressions in the API server's event loop, which answers nobody meanwhile.
    Cause
        The client's `add_request` validates them, in line.
    Removal
        With `grammar_trial`.
    """
    stock = engine_client.add_request

    async def add_request(request_id: str, prompt: Any, params: Any, *rest: Any, **named: Any) -> Any:
        await check(params)
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


def refuse_sessions(message: str) -> None:
    """Let this process's engine refuse sessions, whose input goes on after a reply; idempotent.

    Symptom
        An exception in a scheduler's `add_request` ends the engine.
    Cause
        A scheduler cannot refuse a request. An exception where the engine makes it of what was sent ends it alone.
    Removal
        A scheduler can refuse a request.
    """
    from vllm.v1.request import Request

    request_class: Any = Request
    stock = request_class.from_engine_core_request
    if hasattr(stock, _REFUSES):
        return

    def from_engine_core_request(request: Any, *rest: Any, **named: Any) -> Any:
        if request.resumable:
            refuse_request(message)
        return stock(request, *rest, **named)

    setattr(from_engine_core_request, _REFUSES, True)
    request_class.from_engine_core_request = staticmethod(from_engine_core_request)


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

    def get_and_update_item(given: Any, key: str) -> Any:
        item, prompt_updates = get(given, key)
        if item is None:
            return unsent.get(key), prompt_updates
        if cache.is_cached_item(key):
            unsent.keep(key, item, MultiModalCache.get_item_size(item))
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
